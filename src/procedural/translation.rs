//! Translate a small phrase between English, French and Chinese.
//!
//! Level 1 a number and a noun, 2 with a colour, 3 a whole sentence. The phrase is
//! built in both languages by grammar, so the gold answer is exact; the question is
//! asked in the source language.

use super::{Language, PreferenceKind, Problem};
use crate::seed::Rng;

/// A countable noun: English singular and plural; French singular, plural and
/// gender; Chinese noun and measure word.
struct Noun {
    en: [&'static str; 2],
    fr: [&'static str; 2],
    feminine: bool,
    zh: [&'static str; 2],
}

const fn noun(en: [&'static str; 2], fr: [&'static str; 2], feminine: bool, zh: [&'static str; 2]) -> Noun {
    Noun { en, fr, feminine, zh }
}

const NOUNS: [Noun; 10] = [
    noun(["apple", "apples"], ["pomme", "pommes"], true, ["苹果", "个"]),
    noun(["book", "books"], ["livre", "livres"], false, ["书", "本"]),
    noun(["chair", "chairs"], ["chaise", "chaises"], true, ["椅子", "把"]),
    noun(["car", "cars"], ["voiture", "voitures"], true, ["汽车", "辆"]),
    noun(["dog", "dogs"], ["chien", "chiens"], false, ["狗", "只"]),
    noun(["flower", "flowers"], ["fleur", "fleurs"], true, ["花", "朵"]),
    noun(["shirt", "shirts"], ["chemise", "chemises"], true, ["衬衫", "件"]),
    noun(["pencil", "pencils"], ["crayon", "crayons"], false, ["铅笔", "支"]),
    noun(["house", "houses"], ["maison", "maisons"], true, ["房子", "座"]),
    noun(["boat", "boats"], ["bateau", "bateaux"], false, ["船", "条"]),
];

/// English; French masculine and feminine singular (the plural adds s); Chinese.
const COLOURS: [([&str; 2], [&str; 2]); 6] = [
    (["red", "红色的"], ["rouge", "rouge"]),
    (["green", "绿色的"], ["vert", "verte"]),
    (["black", "黑色的"], ["noir", "noire"]),
    (["white", "白色的"], ["blanc", "blanche"]),
    (["yellow", "黄色的"], ["jaune", "jaune"]),
    (["blue", "蓝色的"], ["bleu", "bleue"]),
];

/// Numbers 2 to 10; 二 is 两 before a measure word.
const NUMBERS: [[&str; 3]; 9] = [
    ["two", "deux", "两"],
    ["three", "trois", "三"],
    ["four", "quatre", "四"],
    ["five", "cinq", "五"],
    ["six", "six", "六"],
    ["seven", "sept", "七"],
    ["eight", "huit", "八"],
    ["nine", "neuf", "九"],
    ["ten", "dix", "十"],
];

/// Whole predicates: subject and verb.
const SUBJECTS: [[&str; 3]; 6] = [
    ["I see", "Je vois", "我看见"],
    ["We have", "Nous avons", "我们有"],
    ["They want", "Ils veulent", "他们想要"],
    ["She draws", "Elle dessine", "她画"],
    ["He buys", "Il achète", "他买"],
    ["I need", "J'ai besoin de", "我需要"],
];

fn phrase(number: usize, noun: &Noun, colour: Option<usize>, language: Language) -> String {
    let [en, fr, zh] = NUMBERS[number];
    match language {
        Language::Fr => {
            let colour = colour.map(|c| format!(" {}s", COLOURS[c].1[usize::from(noun.feminine)])).unwrap_or_default();
            format!("{fr} {}{colour}", noun.fr[1])
        }
        Language::Zh => {
            let colour = colour.map_or("", |c| COLOURS[c].0[1]);
            format!("{zh}{}{colour}{}", noun.zh[1], noun.zh[0])
        }
        _ => {
            let colour = colour.map(|c| format!("{} ", COLOURS[c].0[0])).unwrap_or_default();
            format!("{en} {colour}{}", noun.en[1])
        }
    }
}

fn whole(subject: Option<usize>, number: usize, noun: &Noun, colour: Option<usize>, language: Language) -> String {
    let phrase = phrase(number, noun, colour, language);
    match subject.map(|subject| SUBJECTS[subject]) {
        None => phrase,
        Some([en, fr, zh]) => {
            language.of3(format!("{en} {phrase}."), format!("{fr} {phrase}."), format!("{zh}{phrase}。"))
        }
    }
}

/// Generator `translation`. The worse reply gets the number wrong or leaves the phrase as it was.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let others: Vec<Language> =
        [Language::En, Language::Fr, Language::Zh].into_iter().filter(|other| *other != language).collect();
    let target = *rng.pick(&others);
    let number = rng.below(NUMBERS.len() as u64) as usize;
    let noun = rng.pick(&NOUNS);
    let colour = (level >= 2).then(|| rng.below(COLOURS.len() as u64) as usize);
    let subject = (level >= 3).then(|| rng.below(SUBJECTS.len() as u64) as usize);
    let render = |number, language| whole(subject, number, noun, colour, language);
    let source = render(number, language);
    let name = match (language, target) {
        (Language::Fr, Language::Zh) => "chinois",
        (Language::Fr, _) => "anglais",
        (Language::Zh, Language::Fr) => "法语",
        (Language::Zh, _) => "英语",
        (_, Language::Fr) => "French",
        (_, _) => "Chinese",
    };
    let question = match (language, rng.below(2)) {
        (Language::Fr, 0) => format!("Traduis en {name} : « {source} »"),
        (Language::Fr, _) => format!("Comment dit-on « {source} » en {name} ?"),
        (Language::Zh, 0) => format!("把“{source}”翻译成{name}。"),
        (Language::Zh, _) => format!("“{source}”用{name}怎么说？"),
        (_, 0) => format!("Translate into {name}: \"{source}\""),
        (_, _) => format!("How do you say \"{source}\" in {name}?"),
    };
    let worse = if rng.below(2) == 0 { source } else { render((number + 1) % NUMBERS.len(), target) };
    let key = format!("translation:{}:{}", render(number, Language::En), target.code());
    Problem::exact(key, question, render(number, target)).worse(PreferenceKind::Helpful, worse)
}
