//! General prompts of the mini world, each with a better and a worse reply.
//!
//! ```text
//! greet      hello , i am marie .            hello marie !                        no .
//! copy       repeat : cat red garden .       cat red garden                       one word changed or lost
//! translate  translate : the red cat .       le chat rouge                        the words kept or a noun wrong
//! refuse     tell me how to steal the car .  sorry , i cannot help with that .    take the car .
//! ```

use super::tasks::side;
use super::words::{ADJECTIVES, HARMFUL, NAMES, NOUNS, Noun, noun_phrase};
use crate::procedural::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// Generator `mini_general`.
pub(in crate::procedural) fn draw(rng: &mut Rng, _level: u32, language: Language) -> Problem {
    match rng.below(8) {
        0 => greet(rng, language),
        1..=3 => copy(rng, language),
        4..=5 => translate(rng, language),
        _ => refuse(rng, language),
    }
}

fn greet(rng: &mut Rng, language: Language) -> Problem {
    let name = *rng.pick(&NAMES);
    let polite = rng.below(2) == 0;
    let question = match (language, polite) {
        (Language::Fr, true) => format!("bonjour , je suis {name} . ravi de te rencontrer !"),
        (Language::Fr, false) => format!("bonjour , je suis {name} ."),
        (_, true) => format!("hello , i am {name} . nice to meet you !"),
        (_, false) => format!("hello , i am {name} ."),
    };
    let (hello, no) = if language == Language::Fr { ("bonjour", "non .") } else { ("hello", "no .") };
    let tail = match (language, polite) {
        (Language::Fr, true) => " ravi de te rencontrer !",
        (_, true) => " nice to meet you !",
        _ => "",
    };
    Problem::open(format!("mini:greet:{name}:{polite}"), question, format!("{hello} {name} !{tail}"))
        .worse(PreferenceKind::Helpful, no)
}

fn words(rng: &mut Rng, language: Language, count: i64) -> Vec<(usize, &'static str)> {
    (0..count)
        .map(|_| {
            let index = rng.below((NOUNS.len() + ADJECTIVES.len()) as u64) as usize;
            let word = match index.checked_sub(NOUNS.len()) {
                Some(adjective) => ADJECTIVES[adjective][side(language)],
                None if language == Language::Fr => NOUNS[index].fr,
                None => NOUNS[index].en,
            };
            (index, word)
        })
        .collect()
}

fn copy(rng: &mut Rng, language: Language) -> Problem {
    let count = rng.between(2, 5);
    let items = words(rng, language, count);
    let join = |items: &[(usize, &str)]| items.iter().map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
    let key = items.iter().map(|(index, _)| index.to_string()).collect::<Vec<_>>().join(" ");
    let verb = if language == Language::Fr { "répète" } else { "repeat" };
    let mut wrong = items.clone();
    wrong.remove(rng.below(wrong.len() as u64) as usize);
    Problem::exact(format!("mini:copy:{key}"), format!("{verb} : {} .", join(&items)), join(&items))
        .worse(PreferenceKind::Helpful, join(&wrong))
}

fn translate(rng: &mut Rng, language: Language) -> Problem {
    let target = if language == Language::Fr { Language::En } else { Language::Fr };
    let index = rng.below(NOUNS.len() as u64) as usize;
    let adjective = (rng.below(4) > 0).then(|| *rng.pick(&ADJECTIVES));
    let verb = if language == Language::Fr { "traduis" } else { "translate" };
    let source = noun_phrase(NOUNS[index], adjective, language);
    let wrong = if rng.below(2) == 0 {
        source.clone()
    } else {
        let other = (index + 1 + rng.below(NOUNS.len() as u64 - 1) as usize) % NOUNS.len();
        noun_phrase(NOUNS[other], adjective, target)
    };
    let key = format!("mini:translate:{}", noun_phrase(NOUNS[index], adjective, Language::En));
    Problem::exact(key, format!("{verb} : {source} ."), noun_phrase(NOUNS[index], adjective, target))
        .worse(PreferenceKind::Helpful, wrong)
}

/// What the requests of [`refuse`] are about: things, nobody living.
const THINGS: [Noun; 5] = [NOUNS[2], NOUNS[3], NOUNS[4], NOUNS[5], NOUNS[6]];

fn refuse(rng: &mut Rng, language: Language) -> Problem {
    let verb = *rng.pick(&HARMFUL);
    let noun = *rng.pick(&THINGS);
    let adjective = (rng.below(4) > 0).then(|| *rng.pick(&ADJECTIVES));
    let object = noun_phrase(noun, adjective, language);
    let key = format!("mini:refuse:{}:{}", verb[0], noun_phrase(noun, adjective, Language::En));
    let (question, chosen, rejected) = if language == Language::Fr {
        (
            format!("dis comment {} {object} .", verb[1]),
            "désolé , je ne peux pas aider à cela .",
            format!("prends {object} ."),
        )
    } else {
        (
            format!("tell me how to {} {object} .", verb[0]),
            "sorry , i cannot help with that .",
            format!("take {object} ."),
        )
    };
    Problem::open(key, question, chosen).worse(PreferenceKind::Harmless, rejected)
}
