//! Logic puzzles with exactly one solution.
//!
//! Knights and knaves (2 to 5 people) and finishing orders (3 to 6 people) are
//! proven unique by enumeration; syllogisms over 3 or 4 terms are decided exactly.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const NAMES: [[&str; 3]; 6] = [
    ["Paul", "Paul", "小明"],
    ["Mark", "Marc", "小刚"],
    ["Hugo", "Hugo", "小强"],
    ["Oscar", "Oscar", "小华"],
    ["Leo", "Léo", "小军"],
    ["Simon", "Simon", "小伟"],
];

fn name(index: usize, language: Language) -> &'static str {
    let [en, fr, zh] = NAMES[index];
    language.of3(en, fr, zh)
}

/// Who plays which part: the first `count` of a shuffle of [`NAMES`].
fn cast(rng: &mut Rng, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..NAMES.len()).collect();
    rng.shuffle(&mut all);
    all.truncate(count);
    all
}

fn names(people: &[usize], cast: &[usize], language: Language) -> String {
    language.list(&people.iter().map(|person| name(cast[*person], language)).collect::<Vec<_>>())
}

// ---------------------------------------------------------------- knights and knaves

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
pub(super) fn draw_knights(rng: &mut Rng, level: u32, language: Language) -> Problem {
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

// ---------------------------------------------------------------- finishing orders

/// What is known of a race.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clue {
    Before(usize, usize),
    RightAfter(usize, usize),
    NotAt(usize, usize),
}

impl Clue {
    /// True if the order (person at each place) satisfies the clue.
    fn holds(self, order: &[usize]) -> bool {
        let place = |person: usize| order.iter().position(|p| *p == person);
        match self {
            Clue::Before(a, b) => place(a) < place(b),
            Clue::RightAfter(a, b) => place(a) == place(b).map(|place| place + 1),
            Clue::NotAt(a, at) => place(a) != Some(at),
        }
    }

    fn text(self, cast: &[usize], language: Language) -> String {
        let n = |person: usize| name(cast[person], language);
        match self {
            Clue::Before(a, b) => language.of3(
                format!("{} finished before {}.", n(a), n(b)),
                format!("{} est arrivé avant {}.", n(a), n(b)),
                format!("{}比{}先到。", n(a), n(b)),
            ),
            Clue::RightAfter(a, b) => language.of3(
                format!("{} finished right after {}.", n(a), n(b)),
                format!("{} est arrivé juste après {}.", n(a), n(b)),
                format!("{}紧跟在{}之后到达。", n(a), n(b)),
            ),
            Clue::NotAt(a, at) => {
                let place = at + 1;
                language.of3(
                    format!("{} did not finish in place {place}.", n(a)),
                    format!("{} n'est pas arrivé à la place numéro {place}.", n(a)),
                    format!("{}不是第{place}名。", n(a)),
                )
            }
        }
    }
}

const ORDERS: Phrases = Phrases::three(
    &[
        "{p} ran a race without ties. {c} List them from first to last.",
        "{p} finished a race, no two at the same time. {c} In what order did they finish?",
    ],
    &[
        "{p} ont couru une course sans ex æquo. {c} Donne leur ordre du premier au dernier.",
        "{p} ont terminé une course, jamais deux en même temps. {c} Dans quel ordre sont-ils arrivés ?",
    ],
    &[
        "{p}参加了赛跑，没有并列名次。{c}请按从第一名到最后一名的顺序列出他们。",
        "{p}跑完了比赛，没有人同时到达。{c}他们的名次顺序是什么？",
    ],
);

/// Every order of `0..people`, in lexicographic order.
fn orders(people: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..people {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..people).filter(|p| !order.contains(p)).map(|p| [&order[..], &[p]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    all
}

/// Generator `ordering`.
pub(super) fn draw_ordering(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let people = level as usize + 2;
    let cast = cast(rng, people);
    let mut truth: Vec<usize> = (0..people).collect();
    rng.shuffle(&mut truth);
    // Add true clues that exclude something until one order is left.
    let mut left = orders(people);
    let (mut clues, mut counts) = (Vec::new(), Vec::new());
    while left.len() > 1 {
        let (a, b) = (rng.below(people as u64) as usize, rng.below(people as u64) as usize);
        let clue = match rng.below(5) {
            0 => Clue::RightAfter(a, b),
            1 => Clue::NotAt(a, b),
            _ => Clue::Before(a, b),
        };
        if a != b || matches!(clue, Clue::NotAt(..)) {
            let after = left.iter().filter(|order| clue.holds(order)).count();
            if clue.holds(&truth) && after < left.len() {
                left.retain(|order| clue.holds(order));
                clues.push(clue);
                counts.push(left.len());
            }
        }
    }
    let gap = if language == Language::Zh { "" } else { " " };
    let told = clues.iter().map(|clue| clue.text(&cast, language)).collect::<Vec<_>>();
    let everyone: Vec<usize> = (0..people).collect();
    let question = ORDERS.say(rng, language, &[("p", &names(&everyone, &cast, language)), ("c", &told.join(gap))]);
    let gold = names(&truth, &cast, language);
    let steps: Vec<String> = told
        .iter()
        .zip(&counts)
        .map(|(clue, count)| {
            language.of3(
                format!("{clue} Orders left: {count}."),
                format!("{clue} Ordres restants : {count}."),
                format!("{clue}还剩{count}种顺序。"),
            )
        })
        .collect();
    let key = clues.iter().map(|clue| clue.text(&cast, Language::En)).collect::<Vec<_>>().join(" ");
    let runners = names(&everyone, &cast, Language::En);
    Problem::exact(format!("ordering:{runners}:{key}"), question, gold.as_str())
        .with_chain(language.chain(&steps, &gold))
}

// ---------------------------------------------------------------- syllogisms

/// A categorical proposition over two terms.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Proposition {
    form: Form,
    subject: usize,
    predicate: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    All,
    No,
    Some,
    SomeNot,
}

/// Masculine in French; none begins with a vowel or a mute h, so that nothing elides.
const TERMS: [[&str; 4]; 8] = [
    ["painters", "peintres", "peintre", "画家"],
    ["bakers", "boulangers", "boulanger", "面包师"],
    ["doctors", "médecins", "médecin", "医生"],
    ["singers", "chanteurs", "chanteur", "歌手"],
    ["gardeners", "jardiniers", "jardinier", "园丁"],
    ["teachers", "professeurs", "professeur", "老师"],
    ["dancers", "danseurs", "danseur", "舞者"],
    ["farmers", "fermiers", "fermier", "农民"],
];

/// The regions inside a term, as a mask of worlds.
fn inside(term: usize, terms: usize) -> u32 {
    (0..1u32 << terms).filter(|region| region >> term & 1 == 1).map(|region| 1 << region).sum()
}

impl Proposition {
    fn random(rng: &mut Rng, subject: usize, predicate: usize) -> Proposition {
        let form = *rng.pick(&[Form::All, Form::No, Form::Some, Form::SomeNot]);
        let (subject, predicate) = if rng.below(2) == 0 { (subject, predicate) } else { (predicate, subject) };
        Proposition { form, subject, predicate }
    }

    /// True in the world whose bit r says that region r has members; region r is
    /// inside the terms of its bits.
    fn holds(self, world: u32, terms: usize) -> bool {
        let subject = world & inside(self.subject, terms);
        let predicate = inside(self.predicate, terms);
        match self.form {
            Form::All => subject & !predicate == 0,
            Form::No => subject & predicate == 0,
            Form::Some => subject & predicate != 0,
            Form::SomeNot => subject & !predicate != 0,
        }
    }

    fn text(self, terms: &[usize], language: Language) -> String {
        let [s_en, s_fr, s_one, s_zh] = TERMS[terms[self.subject]];
        let [p_en, p_fr, p_one, p_zh] = TERMS[terms[self.predicate]];
        match (self.form, language) {
            (Form::All, Language::Fr) => format!("tous les {s_fr} sont {p_fr}"),
            (Form::No, Language::Fr) => format!("aucun {s_one} n'est {p_one}"),
            (Form::Some, Language::Fr) => format!("certains {s_fr} sont {p_fr}"),
            (Form::SomeNot, Language::Fr) => format!("certains {s_fr} ne sont pas {p_fr}"),
            (Form::All, Language::Zh) => format!("所有的{s_zh}都是{p_zh}"),
            (Form::No, Language::Zh) => format!("没有{s_zh}是{p_zh}"),
            (Form::Some, Language::Zh) => format!("有些{s_zh}是{p_zh}"),
            (Form::SomeNot, Language::Zh) => format!("有些{s_zh}不是{p_zh}"),
            (Form::All, _) => format!("all {s_en} are {p_en}"),
            (Form::No, _) => format!("no {s_en} are {p_en}"),
            (Form::Some, _) => format!("some {s_en} are {p_en}"),
            (Form::SomeNot, _) => format!("some {s_en} are not {p_en}"),
        }
    }
}

const SYLLOGISMS: Phrases = Phrases::three(
    &[
        "Suppose that {p}. Does it follow that {c}? Answer yes or no.",
        "We know that {p}. Can we conclude with certainty that {c}? Answer yes or no.",
    ],
    &[
        "Supposons ceci : {p}. Peut-on en déduire ceci : {c} ? Réponds par oui ou par non.",
        "Voici ce que nous savons : {p}. La conclusion suivante est-elle certaine : {c} ? Réponds par oui ou par non.",
    ],
    &["假设{p}。能否推出{c}？请回答“是”或“否”。", "已知{p}。能确定{c}吗？请回答“是”或“否”。"],
);

/// Generator `syllogism`. Both answers are equally likely.
pub(super) fn draw_syllogism(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let count = if level == 3 { 4 } else { 3 };
    let want = rng.below(2) == 0;
    let mut terms: Vec<usize> = (0..TERMS.len()).collect();
    rng.shuffle(&mut terms);
    terms.truncate(count);
    let (premises, conclusion, counterexample) = loop {
        let mut premises: Vec<Proposition> = (1..count).map(|term| Proposition::random(rng, term - 1, term)).collect();
        let conclusion = Proposition::random(rng, 0, count - 1);
        rng.shuffle(&mut premises);
        let particular = premises.iter().any(|p| matches!(p.form, Form::Some | Form::SomeNot));
        // Level 1 has universal premises only, level 2 at least one particular.
        if (level == 1) == particular && level < 3 {
            continue;
        }
        // Whether "all" implies "some" must not matter to the answer.
        let decided = decide(&premises, conclusion, count, true);
        if decided.is_none() == want && decide(&premises, conclusion, count, false).is_none() == want {
            break (premises, conclusion, decided);
        }
    };
    let and = language.of3(", and ", ", et ", "，");
    let given = premises.iter().map(|p| p.text(&terms, language)).collect::<Vec<_>>().join(and);
    let question = SYLLOGISMS.say(rng, language, &[("p", &given), ("c", &conclusion.text(&terms, language))]);
    let gold = if want { language.of3("yes", "oui", "是") } else { language.of3("no", "non", "否") };
    let steps = match counterexample {
        Some(world) => vec![describe(world, &terms, language)],
        None => vec![language.of3(
            "every world in which the premises hold has the conclusion too; none is a counterexample".to_owned(),
            "dans tout monde où les prémisses sont vraies, la conclusion l'est aussi ; il n'y a pas de contre-exemple".to_owned(),
            "凡是前提成立的情形，结论也都成立，没有反例".to_owned(),
        )],
    };
    let key = premises.iter().chain([&conclusion]).map(|p| p.text(&terms, Language::En)).collect::<Vec<_>>().join("; ");
    Problem::exact(format!("syllogism:{key}"), question, gold).with_chain(language.chain(&steps, gold))
}

/// A world in which the premises hold and the conclusion does not, with no region
/// that could be left out; `None` if the conclusion follows. `inhabited`: every term has members.
///
/// Exact without a search: universal propositions forbid regions and stay true in smaller
/// worlds, particular ones stay true in larger worlds, so a counterexample exists if and only
/// if the world of all regions not forbidden is one.
fn decide(premises: &[Proposition], conclusion: Proposition, terms: usize, inhabited: bool) -> Option<u32> {
    let opposite = match conclusion.form {
        Form::All => Form::SomeNot,
        Form::No => Form::Some,
        Form::Some => Form::No,
        Form::SomeNot => Form::All,
    };
    let wanted = [premises, &[Proposition { form: opposite, ..conclusion }]].concat();
    let regions = 1u32 << terms;
    let universal = |proposition: &&Proposition| matches!(proposition.form, Form::All | Form::No);
    let mut world = (0..regions)
        .filter(|region| wanted.iter().filter(universal).all(|proposition| proposition.holds(1 << region, terms)))
        .fold(0, |world, region| world | 1 << region);
    let fits = |world: u32| {
        wanted.iter().all(|proposition| proposition.holds(world, terms))
            && (!inhabited || (0..terms).all(|term| world & inside(term, terms) != 0))
    };
    if !fits(world) {
        return None;
    }
    for region in 0..regions {
        let smaller = world & !(1 << region);
        if fits(smaller) {
            world = smaller;
        }
    }
    Some(world)
}

/// The counterexample in words: who exists in it.
fn describe(world: u32, terms: &[usize], language: Language) -> String {
    let mut people = Vec::new();
    for region in (0..1u32 << terms.len()).filter(|region| world >> region & 1 == 1) {
        let trades: Vec<&str> = (0..terms.len())
            .filter(|term| region >> term & 1 == 1)
            .map(|term| {
                let [en, _, fr, zh] = TERMS[terms[term]];
                language.of3(en.strip_suffix('s').unwrap_or(en), fr, zh)
            })
            .collect();
        let none = language.of3("none of these", "rien de tout cela", "什么都不是的人");
        people.push(if trades.is_empty() {
            none.to_owned()
        } else {
            trades.join(language.of3(" and ", " et ", "兼"))
        });
    }
    let who = if people.is_empty() {
        language.of3("nobody", "personne", "没有人").to_owned()
    } else {
        people.join(language.of3("; ", " ; ", "；"))
    };
    language.of3(
        format!("a counterexample is a world with just these people: {who}"),
        format!("un contre-exemple est un monde avec ces seules personnes : {who}"),
        format!("反例：世界上只有这样的人：{who}"),
    )
}
