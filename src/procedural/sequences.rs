//! The next term of a sequence that follows a rule.
//!
//! Level 1 constant difference, 2 constant ratio, 3 linearly growing difference,
//! 4 two interleaved arithmetic sequences, 5 each term from the one before by
//! `× p + q`. Enough terms are shown that no simpler rule of the list fits.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const QUESTIONS: Phrases = Phrases {
    en: &[
        "What is the next number in the sequence {s}, ...?",
        "Continue the sequence: {s}, ...",
        "Find the next term: {s}, ...",
    ],
    fr: &[
        "Quel est le nombre suivant dans la suite {s}, ... ?",
        "Continue la suite : {s}, ...",
        "Trouve le terme suivant : {s}, ...",
    ],
    zh: &["数列{s}、……的下一个数是多少？", "找规律，写出下一个数：{s}、……"],
    de: &["Wie lautet die nächste Zahl der Folge {s}, ...?", "Setze die Folge fort: {s}, ..."],
    es: &["¿Cuál es el siguiente número de la sucesión {s}, ...?", "Continúa la sucesión: {s}, ..."],
};

fn differences(terms: &[i64]) -> Vec<String> {
    terms.windows(2).map(|w| format!("{} - {} = {}", w[1], minus(w[0]), w[1] - w[0])).collect()
}

/// A number after a sign: negative ones in brackets.
fn minus(number: i64) -> String {
    if number < 0 { format!("({number})") } else { number.to_string() }
}

/// Generator `sequences`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let join = |equations: &[String]| equations.join(if language == Language::Zh { "，" } else { ", " });
    let (terms, steps): (Vec<i64>, Vec<String>) = match level {
        1 => {
            let (start, mut by) = (rng.between(1, 200), rng.between(2, 40));
            if rng.below(3) == 0 {
                by = -by;
            }
            let terms: Vec<i64> = (0..6).map(|i| start + i * by).collect();
            let steps = vec![join(&differences(&terms[..5])), format!("{} + {} = {}", terms[4], minus(by), terms[5])];
            (terms, steps)
        }
        2 => {
            let (start, ratio) = (rng.between(2, 60), rng.between(2, 6));
            let terms: Vec<i64> = (0..5).map(|i| start * ratio.pow(i)).collect();
            let ratios: Vec<String> = terms[..4].windows(2).map(|w| format!("{} ÷ {} = {ratio}", w[1], w[0])).collect();
            let steps = vec![join(&ratios), format!("{} × {ratio} = {}", terms[3], terms[4])];
            (terms, steps)
        }
        3 => {
            let (start, first, growth) = (rng.between(1, 60), rng.between(1, 25), rng.between(1, 12));
            let terms: Vec<i64> = (0..6).map(|i| start + i * first + growth * i * (i - 1) / 2).collect();
            let last = terms[4] - terms[3];
            let next = last + growth;
            let gaps: Vec<i64> = terms[..5].windows(2).map(|w| w[1] - w[0]).collect();
            let steps = vec![
                join(&differences(&terms[..5])),
                join(&differences(&gaps)),
                format!("{last} + {growth} = {next}"),
                format!("{} + {next} = {}", terms[4], terms[5]),
            ];
            (terms, steps)
        }
        4 => {
            let (a, b) = (rng.between(1, 90), rng.between(1, 90));
            let by_a = rng.between(2, 20);
            let by_b = by_a + rng.between(1, 15);
            let terms: Vec<i64> =
                (0..9).map(|i| if i % 2 == 0 { a + i / 2 * by_a } else { b + i / 2 * by_b }).collect();
            let odd: Vec<i64> = terms[..8].iter().step_by(2).copied().collect();
            let even: Vec<i64> = terms[..8].iter().skip(1).step_by(2).copied().collect();
            let steps = vec![
                join(&differences(&odd)),
                join(&differences(&even)),
                format!("{} + {by_a} = {}", terms[6], terms[8]),
            ];
            (terms, steps)
        }
        _ => {
            let (start, times, plus) = (rng.between(1, 15), rng.between(2, 4), rng.between(1, 12));
            let mut terms = vec![start];
            for i in 0..5 {
                terms.push(terms[i] * times + plus);
            }
            let steps: Vec<String> =
                terms.windows(2).map(|w| format!("{} × {times} + {plus} = {}", w[0], w[1])).collect();
            (terms, steps)
        }
    };
    let (shown, next) = terms.split_at(terms.len() - 1);
    let question = QUESTIONS.say(rng, language, &[("s", &language.list(shown))]);
    let gold = next[0].to_string();
    Problem::exact(format!("sequences:{shown:?}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}
