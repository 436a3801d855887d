//! Knights and knaves, 2 to 5 people: worlds are enumerated until one alone fits.

use super::{cast, name, names};
use crate::procedural::language::Phrases;
use crate::procedural::{Language, Problem};
use crate::seed::Rng;

/// What someone says of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    IsKnight(usize),
    IsKnave(usize),
    SameKind(usize, usize),
    Different(usize, usize),
}

impl Claim {
    /// True in the world whose bit i says that person i is a knight.
    fn holds(self, world: usize) -> bool {
        let knight = |person: usize| world >> person & 1 == 1;
        match self {
            Claim::IsKnight(a) => knight(a),
            Claim::IsKnave(a) => !knight(a),
            Claim::SameKind(a, b) => knight(a) == knight(b),
            Claim::Different(a, b) => knight(a) != knight(b),
        }
    }

    fn text(self, cast: &[usize], language: Language) -> String {
        let n = |person: usize| name(cast[person], language);
        match self {
            Claim::IsKnight(a) => language.of3(
                format!("{} is a knight", n(a)),
                format!("{} est un chevalier", n(a)),
                format!("{}是骑士", n(a)),
            ),
            Claim::IsKnave(a) => language.of3(
                format!("{} is a knave", n(a)),
                format!("{} est un menteur", n(a)),
                format!("{}是骗子", n(a)),
            ),
            Claim::SameKind(a, b) => language.of3(
                format!("{} and {} are of the same kind", n(a), n(b)),
                format!("{} et {} sont du même genre", n(a), n(b)),
                format!("{}和{}是同一类人", n(a), n(b)),
            ),
            Claim::Different(a, b) => language.of3(
                format!("{} and {} are of different kinds", n(a), n(b)),
                format!("{} et {} sont de genres différents", n(a), n(b)),
                format!("{}和{}不是同一类人", n(a), n(b)),
            ),
        }
    }
}

const KNIGHTS: Phrases = Phrases::three(
    &[
        "On an island, knights always tell the truth and knaves always lie. {s} Who are the knights? List their names.",
        "Knights always tell the truth; knaves always lie. {s} Name all the knights.",
    ],
    &[
        "Sur une île, les chevaliers disent toujours la vérité et les menteurs mentent toujours. {s} Qui sont les chevaliers ? Donne leurs noms.",
        "Les chevaliers disent toujours la vérité ; les menteurs mentent toujours. {s} Nomme tous les chevaliers.",
    ],
    &[
        "岛上的骑士总说真话，骗子总说假话。{s}谁是骑士？请列出他们的名字。",
        "骑士只说真话，骗子只说假话。{s}请说出所有骑士的名字。",
    ],
);

/// Generator `knights`.
pub(in crate::procedural) fn draw_knights(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let people = level as usize + 1;
    let cast = cast(rng, people);
    let (claims, world) = loop {
        let claims: Vec<Claim> = (0..people).map(|speaker| claim(rng, speaker, people)).collect();
        let mut worlds = (0..1usize << people)
            .filter(|world| claims.iter().enumerate().all(|(i, claim)| claim.holds(*world) == (world >> i & 1 == 1)));
        // One world, and somebody in it to name.
        if let (Some(world), None) = (worlds.next(), worlds.next())
            && world != 0
        {
            break (claims, world);
        }
    };
    let statements: Vec<String> = claims
        .iter()
        .enumerate()
        .map(|(speaker, claim)| {
            let (who, what) = (name(cast[speaker], language), claim.text(&cast, language));
            language.of3(
                format!("{who} says: \"{what}.\""),
                format!("{who} dit : « {what}. »"),
                format!("{who}说：“{what}。”"),
            )
        })
        .collect();
    let joined = statements.join(if language == Language::Zh { "" } else { " " });
    let question = KNIGHTS.say(rng, language, &[("s", &joined)]);
    let knights: Vec<usize> = (0..people).filter(|person| world >> person & 1 == 1).collect();
    let gold = names(&knights, &cast, language);
    let steps: Vec<String> = (0..1usize << people).map(|case| refute(case, &claims, &cast, language)).collect();
    let told = |(speaker, claim): (usize, &Claim)| {
        format!("{}: {}", name(cast[speaker], Language::En), claim.text(&cast, Language::En))
    };
    let key = claims.iter().enumerate().map(told).collect::<Vec<_>>().join("; ");
    Problem::exact(format!("knights:{key}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}

/// A claim about others: nobody can be wrong or right about himself in an interesting way.
fn claim(rng: &mut Rng, speaker: usize, people: usize) -> Claim {
    let other = |rng: &mut Rng, not: &[usize]| loop {
        let person = rng.below(people as u64) as usize;
        if !not.contains(&person) {
            return person;
        }
    };
    let a = other(rng, &[speaker]);
    match rng.below(4) {
        0 => Claim::IsKnight(a),
        1 => Claim::IsKnave(a),
        kind => {
            // With two people the pair is the speaker and the other.
            let b = if people == 2 { speaker } else { other(rng, &[a]) };
            let (a, b) = (a.min(b), a.max(b));
            if kind == 2 { Claim::SameKind(a, b) } else { Claim::Different(a, b) }
        }
    }
}

/// One line about one world: the first contradiction in it, or that there is none.
fn refute(world: usize, claims: &[Claim], cast: &[usize], language: Language) -> String {
    let knights: Vec<usize> = (0..claims.len()).filter(|person| world >> person & 1 == 1).collect();
    let list = names(&knights, cast, language);
    let suppose = if knights.is_empty() {
        language
            .of3("suppose nobody is a knight", "supposons que personne ne soit chevalier", "假设没有人是骑士")
            .to_owned()
    } else {
        language.of3(
            format!("suppose the knights are: {list}"),
            format!("supposons que les chevaliers soient : {list}"),
            format!("假设骑士是：{list}"),
        )
    };
    let clash = claims.iter().enumerate().find(|(i, claim)| claim.holds(world) != (world >> i & 1 == 1));
    match clash {
        None => language.of3(
            format!("{suppose}; no contradiction"),
            format!("{suppose} ; aucune contradiction"),
            format!("{suppose}，没有矛盾"),
        ),
        Some((speaker, claim)) => {
            let who = name(cast[speaker], language);
            let what = if claim.holds(world) {
                language.of3("a knave who tells the truth", "un menteur qui dit la vérité", "说真话的骗子")
            } else {
                language.of3("a knight who lies", "un chevalier qui ment", "说假话的骑士")
            };
            language.of3(
                format!("{suppose}; then {who} would be {what}, impossible"),
                format!("{suppose} ; alors {who} serait {what}, impossible"),
                format!("{suppose}，那么{who}就是{what}，矛盾"),
            )
        }
    }
}
