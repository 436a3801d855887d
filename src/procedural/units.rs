//! Exact conversions between units of one quantity, and sums of mixed units.
//!
//! Level 1 one conversion to the smaller unit, 2 one to the larger, 3 a sum of two
//! units, 4 several times a mixed quantity less another. Answers are whole numbers.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

/// A unit: plural name in English, French, Chinese, and how many of its
/// quantity's base unit it has.
type Unit = ([&'static str; 3], i64);

/// Units of one quantity, the larger first.
const QUANTITIES: [&[Unit]; 5] = [
    &[
        (["kilometres", "kilomètres", "千米"], 1_000_000),
        (["metres", "mètres", "米"], 1_000),
        (["centimetres", "centimètres", "厘米"], 10),
        (["millimetres", "millimètres", "毫米"], 1),
    ],
    &[
        (["tonnes", "tonnes", "吨"], 1_000_000),
        (["kilograms", "kilogrammes", "千克"], 1_000),
        (["grams", "grammes", "克"], 1),
    ],
    &[
        (["weeks", "semaines", "周"], 604_800),
        (["days", "jours", "天"], 86_400),
        (["hours", "heures", "小时"], 3_600),
        (["minutes", "minutes", "分钟"], 60),
        (["seconds", "secondes", "秒"], 1),
    ],
    &[
        (["litres", "litres", "升"], 1_000),
        (["centilitres", "centilitres", "厘升"], 10),
        (["millilitres", "millilitres", "毫升"], 1),
    ],
    &[
        (["square metres", "mètres carrés", "平方米"], 10_000),
        (["square decimetres", "décimètres carrés", "平方分米"], 100),
        (["square centimetres", "centimètres carrés", "平方厘米"], 1),
    ],
];

const CONVERT: Phrases = Phrases::three(
    &["How many {u} are there in {q}?", "Convert {q} to {u}.", "Express {q} in {u}."],
    &["Combien de {u} y a-t-il dans {q} ?", "Convertis {q} en {u}.", "Exprime {q} en {u}."],
    &["{q}等于多少{u}？", "把{q}换算成{u}。"],
);
const ADD: Phrases = Phrases::three(
    &["What is {q} plus {r}, in {u}?", "Add {q} and {r}. Give the result in {u}."],
    &["Combien font {q} plus {r}, en {u} ?", "Additionne {q} et {r}. Donne le résultat en {u}."],
    &["{q}加上{r}一共是多少{u}？", "求{q}与{r}的和，用{u}表示。"],
);
const TIMES: Phrases = Phrases::three(
    &["What is {n} times {q}, minus {r}, in {u}?", "Take {n} times {q} and subtract {r}. Give the result in {u}."],
    &[
        "Combien font {n} fois {q}, moins {r}, en {u} ?",
        "Prends {n} fois {q} et soustrais {r}. Donne le résultat en {u}.",
    ],
    &["{q}的{n}倍减去{r}是多少{u}？", "先求{q}的{n}倍，再减去{r}，结果是多少{u}？"],
);

fn name(unit: Unit, language: Language) -> &'static str {
    let [en, fr, zh] = unit.0;
    language.of3(en, fr, zh)
}

/// All plurals of the table are regular, word by word.
fn singular(name: &str) -> String {
    name.split(' ').map(|word| word.strip_suffix('s').unwrap_or(word)).collect::<Vec<_>>().join(" ")
}

fn amount(number: i64, unit: Unit, language: Language) -> String {
    let gap = if language == Language::Zh { "" } else { " " };
    format!("{number}{gap}{}", name(unit, language))
}

/// Generator `units`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let quantity = *rng.pick(&QUANTITIES);
    let small_index = rng.between(1, quantity.len() as i64 - 1) as usize;
    let large_index = rng.below(small_index as u64) as usize;
    let (large, small) = (quantity[large_index], quantity[small_index]);
    let factor = large.1 / small.1;
    let [large_en, small_en] = [large.0[0], small.0[0]];
    let one = language.of3(
        format!("1 {} is {factor} {}", singular(name(large, language)), name(small, language)),
        format!("1 {} vaut {factor} {}", singular(name(large, language)), name(small, language)),
        format!("1{}等于{factor}{}", name(large, language), name(small, language)),
    );
    let unit = name(small, language);
    let n = rng.between(2, 400);
    let (key, question, answer, steps) = match level {
        1 => {
            let total = n * factor;
            let question = CONVERT.say(rng, language, &[("u", &unit), ("q", &amount(n, large, language))]);
            (format!("{n} {large_en} in {small_en}"), question, total, vec![one, format!("{n} × {factor} = {total}")])
        }
        2 => {
            let total = n * factor;
            let unit = name(large, language);
            let question = CONVERT.say(rng, language, &[("u", &unit), ("q", &amount(total, small, language))]);
            (format!("{total} {small_en} in {large_en}"), question, n, vec![one, format!("{total} ÷ {factor} = {n}")])
        }
        3 => {
            let (part, m) = (n * factor, rng.between(2, 900));
            let total = part + m;
            let values: [(&str, &dyn std::fmt::Display); 3] =
                [("u", &unit), ("q", &amount(n, large, language)), ("r", &amount(m, small, language))];
            let question = ADD.say(rng, language, &values);
            let steps = vec![one, format!("{n} × {factor} = {part}"), format!("{part} + {m} = {total}")];
            (format!("{n} {large_en} + {m} {small_en}"), question, total, steps)
        }
        _ => {
            let (times, extra) = (rng.between(2, 12), rng.between(2, 90));
            let one_time = n * factor + extra;
            let all = times * one_time;
            let less = rng.between(2, 90);
            let total = all - less;
            let and = language.of3(" and ", " et ", "");
            let mixed = format!("{}{and}{}", amount(n, large, language), amount(extra, small, language));
            let values: [(&str, &dyn std::fmt::Display); 4] = [
                ("n", &times),
                ("q", &language.of3(format!("({mixed})"), format!("({mixed})"), format!("（{mixed}）"))),
                ("r", &amount(less, small, language)),
                ("u", &unit),
            ];
            let question = TIMES.say(rng, language, &values);
            let steps = vec![
                one,
                format!("{n} × {factor} + {extra} = {one_time}"),
                format!("{times} × {one_time} = {all}"),
                format!("{all} - {less} = {total}"),
            ];
            (format!("{times} × ({n} {large_en} {extra} {small_en}) - {less}"), question, total, steps)
        }
    };
    let gold = answer.to_string();
    Problem::exact(format!("units:{key}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}
