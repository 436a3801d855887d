//! Expressions to evaluate by the order of operations.
//!
//! Levels 1 to 5 have 1 to 5 operations; numbers grow to 99, brackets come at
//! level 2, exact division at level 3. No value on the way is negative.

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const QUESTIONS: Phrases = Phrases {
    en: &["What is {e}?", "Calculate {e}.", "Evaluate the expression {e}.", "Work out {e}."],
    fr: &["Combien font {e} ?", "Calcule {e}.", "Évalue l'expression {e}.", "Quel est le résultat de {e} ?"],
    zh: &["计算{e}。", "{e}等于多少？", "求{e}的值。"],
    de: &["Was ergibt {e}?", "Berechne {e}.", "Bestimme den Wert von {e}."],
    es: &["¿Cuánto es {e}?", "Calcula {e}.", "Halla el valor de {e}."],
};

/// An expression tree over whole numbers.
enum Expression {
    Number(i64),
    Binary(Box<Expression>, char, Box<Expression>),
}

use Expression::{Binary, Number};

fn strength(sign: char) -> u8 {
    if matches!(sign, '×' | '÷') { 2 } else { 1 }
}

impl Expression {
    fn text(&self) -> String {
        match self {
            Number(number) => number.to_string(),
            Binary(left, sign, right) => {
                let side = |part: &Expression, right_side: bool| match part {
                    Binary(_, inner, _)
                        if strength(*inner) < strength(*sign)
                            || (right_side && strength(*inner) == strength(*sign)) =>
                    {
                        format!("({})", part.text())
                    }
                    // Brackets even where a sum would not need them: the order of evaluation is plain to see.
                    _ => part.text(),
                };
                format!("{} {sign} {}", side(left, false), side(right, true))
            }
        }
    }

    /// Evaluates one innermost operation, leftmost first; returns its equation.
    fn reduce(&mut self) -> Option<String> {
        let Binary(left, sign, right) = self else { return None };
        if let Some(equation) = left.reduce() {
            return Some(equation);
        }
        if let Some(equation) = right.reduce() {
            return Some(equation);
        }
        let (Number(a), Number(b)) = (&**left, &**right) else { return None };
        let value = apply(*a, *sign, *b)?;
        let equation = format!("{a} {sign} {b} = {value}");
        *self = Number(value);
        Some(equation)
    }
}

/// `None` where the result is negative or not whole.
fn apply(a: i64, sign: char, b: i64) -> Option<i64> {
    match sign {
        '+' => Some(a + b),
        '-' => Some(a - b).filter(|value| *value >= 0),
        '×' => Some(a * b),
        _ => (b != 0 && a % b == 0).then(|| a / b),
    }
}

fn grow(rng: &mut Rng, operations: u32, level: u32) -> Option<(Expression, i64)> {
    if operations == 0 {
        let most = if level == 1 { 99 } else { 20 + 15 * i64::from(level) };
        let number = rng.between(2, most);
        return Some((Number(number), number));
    }
    let before = rng.below(u64::from(operations)) as u32;
    let (left, a) = grow(rng, before, level)?;
    let (right, b) = grow(rng, operations - 1 - before, level)?;
    let signs: &[char] = if level >= 3 { &['+', '-', '×', '÷', '×'] } else { &['+', '-', '×'] };
    let sign = *rng.pick(signs);
    let value = apply(a, sign, b).filter(|value| *value < 100_000)?;
    let trivial = sign == '÷' && (b == 1 || a == b);
    (!trivial).then(|| (Binary(Box::new(left), sign, Box::new(right)), value))
}

/// Generator `arithmetic`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let (mut expression, value) = loop {
        if let Some(found) = grow(rng, level, level) {
            break found;
        }
    };
    let text = expression.text();
    let question = QUESTIONS.say(rng, language, &[("e", &text)]);
    let mut steps = Vec::new();
    while let Some(equation) = expression.reduce() {
        let rest = expression.text();
        steps.push(match expression {
            Number(_) => equation,
            Binary(..) => {
                let remains = language.of("which leaves", "il reste", "还剩", "es bleibt", "queda");
                let (comma, colon) = if language == Language::Zh { ("，", "：") } else { (", ", " ") };
                format!("{equation}{comma}{remains}{colon}{rest}")
            }
        });
    }
    let gold = value.to_string();
    Problem::exact(format!("arithmetic:{text}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}
