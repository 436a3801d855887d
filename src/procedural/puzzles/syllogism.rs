//! Syllogisms over 3 or 4 terms, decided exactly.

use crate::procedural::language::Phrases;
use crate::procedural::{Language, Problem};
use crate::seed::Rng;

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
pub(in crate::procedural) fn draw_syllogism(rng: &mut Rng, level: u32, language: Language) -> Problem {
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
