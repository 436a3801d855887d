//! Countdown: reach a target with all the given numbers, each used exactly once.
//!
//! The gold answer is one solution; a rule must accept any expression over the
//! numbers that reaches the target. `verification` is
//! `{"numbers": [3, 7, 25], "target": 46}`.

use serde_json::json;

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const QUESTIONS: Phrases = Phrases::three(
    &[
        "Using the numbers {n}, each exactly once, and the operations +, -, * and /, write an expression equal to {t}.",
        "Make {t} from the numbers {n}. Use every number exactly once, with +, -, *, / and brackets.",
    ],
    &[
        "Avec les nombres {n}, utilisés chacun exactement une fois, et les opérations +, -, * et /, écris une expression égale à {t}.",
        "Obtiens {t} à partir des nombres {n}. Utilise chaque nombre exactement une fois, avec +, -, *, / et des parenthèses.",
    ],
    &[
        "用数字{n}（每个恰好使用一次）和运算+、-、*、/，写出一个等于{t}的算式。",
        "请用{n}凑出{t}，每个数字必须恰好使用一次，可以使用+、-、*、/和括号。",
    ],
);

/// Generator `countdown`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let count = level as usize + 2;
    let (numbers, target, expression, steps) = loop {
        let numbers: Vec<i64> =
            (0..count).map(|i| if i == 0 { *rng.pick(&[10, 25, 50, 75]) } else { rng.between(1, 20) }).collect();
        if let Some((target, expression, steps)) = combine(rng, &numbers) {
            break (numbers, target, expression, steps);
        }
    };
    let mut shown = numbers.clone();
    rng.shuffle(&mut shown);
    let question = QUESTIONS.say(rng, language, &[("n", &language.list(&shown)), ("t", &target)]);
    shown.sort_unstable();
    let key = format!("countdown:{shown:?} -> {target}");
    Problem::exact(key, question, expression.as_str())
        .with_chain(language.chain(&steps, &expression))
        .with_verification(&json!({ "numbers": shown, "target": target }))
}

/// Joins random pairs until one number is left. `None` where the way is trivial or too large.
fn combine(rng: &mut Rng, numbers: &[i64]) -> Option<(i64, String, Vec<String>)> {
    let mut pool: Vec<(i64, String)> = numbers.iter().map(|number| (*number, number.to_string())).collect();
    let mut steps = Vec::new();
    while pool.len() > 1 {
        rng.shuffle(&mut pool);
        let ((a, left), (b, right)) = (pool.pop()?, pool.pop()?);
        let (sign, value) = match rng.below(4) {
            0 => ('+', a + b),
            1 if a > b => ('-', a - b),
            2 if a > 1 && b > 1 => ('*', a * b),
            3 if b > 1 && a % b == 0 => ('/', a / b),
            _ => return None,
        };
        if value > 999 {
            return None;
        }
        steps.push(format!("{a} {sign} {b} = {value}"));
        let text = if pool.is_empty() { format!("{left} {sign} {right}") } else { format!("({left} {sign} {right})") };
        pool.push((value, text));
    }
    let (target, expression) = pool.pop()?;
    (target >= 10 && !numbers.contains(&target)).then_some((target, expression, steps))
}
