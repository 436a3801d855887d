//! The reasoning tasks of the mini world: problems as steps, rendered in a language.

use super::words::OPENERS;
use crate::procedural::problem::Problem;
use crate::procedural::{Language, mix::is_held_out};
use crate::seed::Rng;

/// The kinds of task; the grammar is at the head of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `( a ± b ) * c ± d`, or with `+ c`; levels 1 to 4.
    Mix,
    /// A linear equation in x with a whole solution; levels 1 to 3.
    Linear,
    /// `a + b` column by column, of 2 to 4 digits; levels 1 to 3.
    Sum,
    /// `a ± b ± c …` of 3 to 6 terms; levels 1 to 4.
    Total,
}

/// A number in a step: given, or taken from an earlier step's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    /// A number of the statement.
    Given(i64),
    /// The result of an earlier step.
    Result(usize),
    /// The tens of an earlier step's result: the carry of a column.
    Carry(usize),
}

/// One step: operands joined by signs, evaluated from left to right.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    /// Where the evaluation starts.
    first: Operand,
    /// What follows it, each with the sign before it: `+`, `-`, `*` or `/`.
    rest: Vec<(char, Operand)>,
    /// The result is the last digits of all earlier steps, joined: the sum that
    /// the columns of an addition make.
    joins_columns: bool,
}

/// A task, in no language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Decides the shape of the statement and of the steps.
    pub family: Family,
    /// The expression or equation, as the prompt shows it.
    pub statement: String,
    /// The way to the answer, which is the last one's result.
    steps: Vec<Step>,
}

/// A chain of thought as written, with or without slips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The equations, in order.
    pub equations: Vec<String>,
    /// The last step's result as written.
    pub answer: i64,
}

const fn limits(level: u32) -> (i64, i64, i64) {
    match level {
        1 => (12, 5, 20),
        2 => (20, 9, 50),
        3 => (50, 9, 99),
        _ => (99, 12, 99),
    }
}

const fn total_limits(level: u32) -> (usize, i64) {
    (level as usize + 2, if level <= 2 { 50 } else { 99 })
}

fn step(first: Operand, sign: char, second: Operand) -> Step {
    Step { first, rest: vec![(sign, second)], joins_columns: false }
}

fn apply(left: i64, sign: char, right: i64) -> i64 {
    match sign {
        '+' => left + right,
        '-' => left - right,
        '*' => left * right,
        // After a slip a division may not come out even: the quotient is then as wrong as the rest.
        _ => left.checked_div(right).unwrap_or(0),
    }
}

impl Task {
    /// Draws a task. `level` is clamped to the family's levels.
    pub fn draw(family: Family, rng: &mut Rng, level: u32) -> Task {
        match family {
            Family::Mix => mix(rng, level.clamp(1, 4)),
            Family::Linear => linear(rng, level.clamp(1, 3)),
            Family::Sum => sum(rng, level.clamp(1, 3)),
            Family::Total => total(rng, level.clamp(1, 4)),
        }
    }

    /// What the split hashes: the statement, whatever the question around it.
    pub fn key(&self) -> String {
        format!("mini:{}", self.statement)
    }

    /// True if the task belongs to evaluation at this holdout fraction.
    pub fn is_held_out(&self, holdout: f64) -> bool {
        is_held_out(&self.key(), holdout)
    }

    /// Writes the steps out; `slip(step, right)` returns what is written as a step's result.
    pub fn work(&self, mut slip: impl FnMut(usize, i64) -> i64) -> Chain {
        let mut results: Vec<i64> = Vec::with_capacity(self.steps.len());
        let mut equations = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let value = |operand: Operand| match operand {
                Operand::Given(number) => number,
                Operand::Result(of) => results[of],
                Operand::Carry(of) => results[of] / 10,
            };
            let mut left = value(step.first);
            let mut equation = left.to_string();
            for &(sign, operand) in &step.rest {
                let right = value(operand);
                equation += &format!(" {sign} {right}");
                left = apply(left, sign, right);
            }
            if step.joins_columns {
                let last = results.len() - 1;
                left = results
                    .iter()
                    .enumerate()
                    .rev()
                    .fold(0, |sum, (column, &result)| if column == last { result } else { sum * 10 + result % 10 });
            }
            let written = slip(index, left);
            results.push(written);
            equations.push(format!("{equation} = {written}"));
        }
        Chain { equations, answer: results.last().copied().unwrap_or(0) }
    }

    /// The exact chain.
    pub fn gold(&self) -> Chain {
        self.work(|_, right| right)
    }

    /// The question, in one of the language's phrasings.
    pub fn question(&self, rng: &mut Rng, language: Language) -> String {
        let phrasings: &[[&str; 2]] = match (self.family, language) {
            (Family::Linear, Language::Fr) => &[["résous", "pour x ."], ["trouve x si", "."]],
            (Family::Linear, _) => &[["solve", "for x ."], ["find x if", "."]],
            (_, Language::Fr) => &[["combien font", "?"], ["calcule", "."], ["trouve la valeur de", "."]],
            _ => &[["what is", "?"], ["compute", "."], ["find the value of", "."]],
        };
        let [before, after] = rng.pick(phrasings);
        format!("{before} {} {after}", self.statement)
    }

    /// The task as a problem with its exact chain.
    pub fn problem(&self, rng: &mut Rng, language: Language) -> Problem {
        let gold = self.gold();
        let text = gold.text(|opener| OPENERS[opener][side(language)].to_owned());
        Problem::exact(self.key(), self.question(rng, language), gold.answer.to_string()).with_chain(vec![text])
    }
}

impl Chain {
    /// One line: `first S . then S . next S . thus S .`; `word` writes the opener of
    /// that index in `OPENERS`. A sentence a step, because the language rule judges
    /// whole sentences: so each word counts by itself, as in [`super::language_consistency`].
    pub fn text(&self, mut word: impl FnMut(usize) -> String) -> String {
        let last = self.equations.len().saturating_sub(1);
        let mut text = String::new();
        for (index, equation) in self.equations.iter().enumerate() {
            let opener = match index {
                _ if index == last => 3,
                0 => 0,
                _ if index % 2 == 1 => 1,
                _ => 2,
            };
            text += &format!("{}{} {equation} .", if index == 0 { "" } else { " " }, word(opener));
        }
        text
    }
}

/// The column of a language in the tables of words.
pub fn side(language: Language) -> usize {
    usize::from(language == Language::Fr)
}

fn sign(rng: &mut Rng) -> char {
    *rng.pick(&['+', '-'])
}

fn mix(rng: &mut Rng, level: u32) -> Task {
    let (most, factor, last) = limits(level);
    loop {
        let (a, b, inner, outer) = (rng.between(1, most), rng.between(1, most), sign(rng), *rng.pick(&['*', '+']));
        let c = if outer == '*' { rng.between(2, factor) } else { rng.between(1, most) };
        let (d, end) = (rng.between(1, last), sign(rng));
        let bracket = apply(a, inner, b);
        let value = apply(apply(bracket, outer, c), end, d);
        if bracket < 0 || value < 0 {
            continue;
        }
        let given = Operand::Given;
        return Task {
            family: Family::Mix,
            statement: format!("( {a} {inner} {b} ) {outer} {c} {end} {d}"),
            steps: vec![
                step(given(a), inner, given(b)),
                step(Operand::Result(0), outer, given(c)),
                step(Operand::Result(1), end, given(d)),
            ],
        };
    }
}

fn linear(rng: &mut Rng, level: u32) -> Task {
    let given = Operand::Given;
    loop {
        let b_sign = sign(rng);
        let undo = if b_sign == '+' { '-' } else { '+' };
        let (statement, steps) = match level {
            1 => {
                let (a, x, b) = (rng.between(2, 12), rng.between(1, 99), rng.between(1, 99));
                let c = apply(a * x, b_sign, b);
                if c < 0 {
                    continue;
                }
                (
                    format!("{a} * x {b_sign} {b} = {c}"),
                    vec![step(given(c), undo, given(b)), step(Operand::Result(0), '/', given(a))],
                )
            }
            2 => {
                let (a, x, b) = (rng.between(3, 12), rng.between(1, 99), rng.between(1, 99));
                let d = rng.between(1, a - 1);
                let c = apply((a - d) * x, b_sign, b);
                // c moves to the left, b to the right; the equation is shown with c's own sign.
                if c <= 0 {
                    continue;
                }
                (
                    format!("{a} * x {b_sign} {b} = {d} * x + {c}"),
                    vec![
                        step(given(a), '-', given(d)),
                        step(given(c), undo, given(b)),
                        step(Operand::Result(1), '/', Operand::Result(0)),
                    ],
                )
            }
            _ => {
                let (a, x, e, b) = (rng.between(2, 9), rng.between(1, 50), rng.between(1, 50), rng.between(1, 99));
                let c = apply(a * (x + e), b_sign, b);
                if c < 0 {
                    continue;
                }
                (
                    format!("{a} * ( x + {e} ) {b_sign} {b} = {c}"),
                    vec![
                        step(given(c), undo, given(b)),
                        step(Operand::Result(0), '/', given(a)),
                        step(Operand::Result(1), '-', given(e)),
                    ],
                )
            }
        };
        return Task { family: Family::Linear, statement, steps };
    }
}

fn sum(rng: &mut Rng, level: u32) -> Task {
    let digits = level as usize + 1;
    let low = 10i64.pow(level);
    let (a, b) = (rng.between(low, 10 * low - 1), rng.between(low, 10 * low - 1));
    let digit = |number: i64, column: usize| Operand::Given(number / 10i64.pow(column as u32) % 10);
    let mut steps = Vec::with_capacity(digits + 1);
    for column in 0..digits {
        let mut rest = vec![('+', digit(b, column))];
        if column > 0 {
            rest.push(('+', Operand::Carry(column - 1)));
        }
        steps.push(Step { first: digit(a, column), rest, joins_columns: false });
    }
    steps.push(Step { first: Operand::Given(a), rest: vec![('+', Operand::Given(b))], joins_columns: true });
    Task { family: Family::Sum, statement: format!("{a} + {b}"), steps }
}

fn total(rng: &mut Rng, level: u32) -> Task {
    let (terms, most) = total_limits(level);
    loop {
        let first = rng.between(1, most);
        let rest: Vec<(char, i64)> = (1..terms).map(|_| (sign(rng), rng.between(1, most))).collect();
        let mut running = first;
        let valid = rest.iter().all(|&(sign, term)| {
            running = apply(running, sign, term);
            running >= 0
        });
        if !valid {
            continue;
        }
        let mut statement = first.to_string();
        let mut steps = Vec::with_capacity(terms - 1);
        for (index, &(sign, term)) in rest.iter().enumerate() {
            statement += &format!(" {sign} {term}");
            let left = if index == 0 { Operand::Given(first) } else { Operand::Result(index - 1) };
            steps.push(step(left, sign, Operand::Given(term)));
        }
        return Task { family: Family::Total, statement, steps };
    }
}

/// The exact number of statements of a family at a level (each has several phrasings
/// in each language on top).
pub fn space(family: Family, level: u32) -> u64 {
    match family {
        Family::Mix => {
            let (most, factor, last) = limits(level.clamp(1, 4));
            let start = add_terms(&ones(most), most);
            let mut middle = vec![0u64; start.len() * factor as usize + most as usize + 1];
            for (value, &ways) in start.iter().enumerate() {
                (2..=factor as usize).for_each(|c| middle[value * c] += ways);
                (1..=most as usize).for_each(|c| middle[value + c] += ways);
            }
            add_terms(&middle, last).iter().sum()
        }
        Family::Linear => match level.clamp(1, 3) {
            1 => count_offsets((2..=12).flat_map(|a| (1..=99).map(move |x| a * x)), 99, 0),
            2 => count_offsets(
                (3..=12).flat_map(|a| (1..a).flat_map(move |d| (1..=99).map(move |x| (a - d) * x))),
                99,
                1,
            ),
            // Distinct (a, x + e) pairs may share a value but not a statement, as e is shown.
            _ => count_offsets(
                (2..=9).flat_map(|a| (1..=50).flat_map(move |x| (1..=50).map(move |e| a * (x + e)))),
                99,
                0,
            ),
        },
        Family::Sum => (9 * 10u64.pow(level.clamp(1, 3))).pow(2),
        Family::Total => {
            let (terms, most) = total_limits(level.clamp(1, 4));
            (1..terms).fold(ones(most), |values, _| add_terms(&values, most)).iter().sum()
        }
    }
}

/// Ways to reach each value: once each for 1..=most.
fn ones(most: i64) -> Vec<u64> {
    (0..=most).map(|value| u64::from(value > 0)).collect()
}

/// Ways to reach each value after ± a term in 1..=most, never below zero.
fn add_terms(ways: &[u64], most: i64) -> Vec<u64> {
    let mut after = vec![0; ways.len() + most as usize];
    for (value, &count) in ways.iter().enumerate() {
        for term in 1..=most as usize {
            after[value + term] += count;
            if term <= value {
                after[value - term] += count;
            }
        }
    }
    after
}

/// For each value, the b in 1..=most with value + b, and with value − b ≥ least.
fn count_offsets(values: impl Iterator<Item = i64>, most: i64, least: i64) -> u64 {
    values.map(|value| (most + (value - least).clamp(0, most)) as u64).sum()
}

/// Generator `mini_mix`.
pub(in crate::procedural) fn draw_mix(rng: &mut Rng, level: u32, language: Language) -> Problem {
    Task::draw(Family::Mix, rng, level).problem(rng, language)
}
/// Generator `mini_linear`.
pub(in crate::procedural) fn draw_linear(rng: &mut Rng, level: u32, language: Language) -> Problem {
    Task::draw(Family::Linear, rng, level).problem(rng, language)
}
/// Generator `mini_sum`.
pub(in crate::procedural) fn draw_sum(rng: &mut Rng, level: u32, language: Language) -> Problem {
    Task::draw(Family::Sum, rng, level).problem(rng, language)
}
/// Generator `mini_total`.
pub(in crate::procedural) fn draw_total(rng: &mut Rng, level: u32, language: Language) -> Problem {
    Task::draw(Family::Total, rng, level).problem(rng, language)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn spaces_are_counted_as_brute_force_counts_them() {
        // Draw the smallest spaces until every statement has been seen.
        let mut rng = Rng::new(11);
        let mut seen = HashSet::new();
        for _ in 0..8_100 * 14 {
            seen.insert(Task::draw(Family::Sum, &mut rng, 1).statement);
        }
        assert_eq!(seen.len() as u64, space(Family::Sum, 1));

        let (mut mix, mut linear) = (0u64, 0u64);
        let (most, factor, last) = limits(1);
        for (a, b) in (1..=most).flat_map(|a| (1..=most).map(move |b| (a, b))) {
            for bracket in [a + b, a - b].into_iter().filter(|v| *v >= 0) {
                let outer = (2..=factor).map(|c| bracket * c).chain((1..=most).map(|c| bracket + c));
                for value in outer {
                    mix += (1..=last).map(|d| 1 + u64::from(value >= d)).sum::<u64>();
                }
            }
        }
        assert_eq!(mix, space(Family::Mix, 1));
        for (a, x, b) in (2..=12).flat_map(|a| (1..=99).flat_map(move |x| (1..=99).map(move |b| (a, x, b)))) {
            linear += 1 + u64::from(a * x - b >= 0);
        }
        assert_eq!(linear, space(Family::Linear, 1));
    }

    #[test]
    fn all_but_the_first_levels_have_a_million_statements() {
        for (family, levels) in
            [(Family::Mix, 2..=4), (Family::Linear, 3..=3), (Family::Total, 2..=4), (Family::Sum, 3..=3)]
        {
            for level in levels {
                assert!(space(family, level) >= 1_000_000, "{family:?} {level}: {}", space(family, level));
            }
        }
    }

    #[test]
    fn a_slip_is_carried_on_to_the_answer() {
        let task = Task::draw(Family::Total, &mut Rng::new(3), 2);
        let gold = task.gold();
        let wrong = task.work(|step, right| if step == 0 { right + 1 } else { right });
        assert_eq!(wrong.answer, gold.answer + 1);
        assert_ne!(wrong.equations[1], gold.equations[1]);
    }
}
