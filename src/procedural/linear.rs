//! Linear equations in one unknown, with a whole solution.
//!
//! ```text
//! level 1  ax + b = c              level 3  a(x + b) + c = dx + e
//! level 2  ax + b = cx + d         level 4  a(x + b) + c = d(x + e) + f
//! ```

use super::language::Phrases;
use super::{Language, Problem};
use crate::seed::Rng;

const QUESTIONS: Phrases = Phrases {
    en: &["Solve for x: {e}", "Find the value of x such that {e}.", "If {e}, what is x?"],
    fr: &["Résous l'équation : {e}", "Trouve la valeur de x telle que {e}.", "Si {e}, combien vaut x ?"],
    zh: &["解方程：{e}", "求满足{e}的x的值。", "如果{e}，那么x等于多少？"],
    de: &["Löse nach x auf: {e}", "Bestimme den Wert von x, für den {e} gilt.", "Wenn {e}, wie groß ist x?"],
    es: &["Resuelve la ecuación: {e}", "Halla el valor de x tal que {e}.", "Si {e}, ¿cuánto vale x?"],
};

/// One side of an equation: outer(x + inner) + slope x + constant, any part may be zero.
#[derive(Clone, Copy, Default)]
struct Side {
    outer: i64,
    inner: i64,
    slope: i64,
    constant: i64,
}

impl Side {
    fn value(self, x: i64) -> i64 {
        self.outer * (x + self.inner) + self.slope * x + self.constant
    }

    fn expanded(self) -> Side {
        Side { slope: self.slope + self.outer, constant: self.constant + self.outer * self.inner, ..Side::default() }
    }

    fn text(self) -> String {
        let mut text = String::new();
        if self.outer != 0 {
            let inner = format!("(x{})", signed(self.inner, ""));
            text += &leading(self.outer, &inner);
        }
        if self.slope != 0 {
            text += &if text.is_empty() { leading(self.slope, "x") } else { signed(self.slope, "x") };
        }
        if self.constant != 0 || text.is_empty() {
            text += &if text.is_empty() { self.constant.to_string() } else { signed(self.constant, "") };
        }
        text
    }
}

/// `3x`, `x`, `-x`.
fn leading(number: i64, unit: &str) -> String {
    match number {
        1 => unit.to_owned(),
        -1 => format!("-{unit}"),
        _ => format!("{number}{unit}"),
    }
}

/// ` + 3x`, ` - x`, and nothing for zero.
fn signed(number: i64, unit: &str) -> String {
    let sign = if number < 0 { '-' } else { '+' };
    match number.abs() {
        0 => String::new(),
        1 if !unit.is_empty() => format!(" {sign} {unit}"),
        size => format!(" {sign} {size}{unit}"),
    }
}

/// A non-zero number of either sign.
fn non_zero(rng: &mut Rng, most: i64) -> i64 {
    let size = rng.between(1, most);
    if rng.below(2) == 0 { size } else { -size }
}

/// Generator `linear`.
pub(super) fn draw(rng: &mut Rng, level: u32, language: Language) -> Problem {
    let (x, left, right) = loop {
        let x = if level == 1 { rng.between(1, 30) } else { rng.between(-30, 30) };
        let plain = |rng: &mut Rng| Side { slope: rng.between(2, 15), constant: non_zero(rng, 60), ..Side::default() };
        let bracket = |rng: &mut Rng| Side {
            outer: rng.between(2, 9),
            inner: non_zero(rng, 12),
            constant: non_zero(rng, 40),
            ..Side::default()
        };
        let left = if level <= 2 { plain(rng) } else { bracket(rng) };
        let mut right = match level {
            1 => Side::default(),
            2 | 3 => Side { slope: non_zero(rng, 12), ..Side::default() },
            _ => Side { outer: rng.between(2, 9), inner: non_zero(rng, 12), ..Side::default() },
        };
        right.constant = left.value(x) - right.value(x);
        if left.expanded().slope != right.expanded().slope && right.constant != 0 {
            break (x, left, right);
        }
    };
    let equation = format!("{} = {}", left.text(), right.text());
    let question = QUESTIONS.say(rng, language, &[("e", &equation)]);
    let mut steps = Vec::new();
    let (flat_left, flat_right) = (left.expanded(), right.expanded());
    if level >= 3 {
        let expand = language.of("expand:", "on développe :", "展开：", "ausmultiplizieren:", "desarrollamos:");
        steps.push(spaced(language, expand, &format!("{} = {}", flat_left.text(), flat_right.text())));
    }
    let slope = flat_left.slope - flat_right.slope;
    let constant = flat_right.constant - flat_left.constant;
    let collect = language.of("collect:", "on regroupe :", "移项：", "zusammenfassen:", "agrupamos:");
    let collected =
        format!("{} = {}{} = {constant}", leading(slope, "x"), flat_right.constant, signed(-flat_left.constant, ""));
    steps.push(spaced(language, collect, &collected));
    if slope != 1 {
        let divide = language.of("divide:", "on divise :", "两边相除：", "dividieren:", "dividimos:");
        let divisor = if slope < 0 { format!("({slope})") } else { slope.to_string() };
        steps.push(spaced(language, divide, &format!("x = {constant} ÷ {divisor} = {x}")));
    }
    let gold = x.to_string();
    Problem::exact(format!("linear:{equation}"), question, gold.as_str()).with_chain(language.chain(&steps, &gold))
}

fn spaced(language: Language, label: &str, equation: &str) -> String {
    let gap = if language == Language::Zh { "" } else { " " };
    format!("{label}{gap}{equation}")
}
