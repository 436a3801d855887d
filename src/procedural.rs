//! Procedural problems: exact gold answers, gold chains of thought, levels, languages.
//!
//! A [`Generator`] is a row of a table: a name, a domain, levels, languages and a
//! pure function of (random stream, level, language) to a [`Problem`]. A
//! [`ProceduralConfig`] mixes generators into [`Prompt`](crate::schema::Prompt)
//! rows. Three promises hold, and are tested:
//!
//! - **Seeds**: the k-th draw of a cell (generator, level, language) depends on
//!   the seed and the cell alone, never on what else the recipe asks for.
//! - **Distinct**: no question twice. A cell whose space is used up says how many
//!   distinct questions it found; see [`Exhausted`].
//! - **Split by content**: training and evaluation are told apart by a hash of the
//!   problem's key (its numbers and words, in no language), so that the same
//!   problem in another phrasing or another language falls on the same side,
//!   before any model has seen it.

pub mod language;
pub mod mini;
pub mod mix;
pub mod problem;

mod arithmetic;
mod calendar;
mod constrained;
mod countdown;
mod counting;
mod extraction;
mod linear;
mod modular;
mod persona;
mod puzzles;
mod rewriting;
mod safety;
mod sequences;
mod strings;
mod talk;
mod translation;
mod units;

#[cfg(test)]
mod checks;

pub use language::Language;
pub use mix::{Cell, Exhausted, Part, ProceduralConfig, Prompts, Share, Space, measure_space};
pub use problem::{Pair, PreferenceKind, Problem, preference};

use crate::seed::Rng;
use Language::{De, En, Es, Fr, Zh};

/// One kind of problem.
#[derive(Debug)]
pub struct Generator {
    /// Name in recipes, snake case.
    pub name: &'static str,
    /// The `domain` column of its prompts: `math`, `logic` or `general`.
    pub domain: &'static str,
    /// Levels are `1..=max_level`, harder upwards.
    pub max_level: u32,
    /// Languages it has phrasings for.
    pub languages: &'static [Language],
    /// One line for people.
    pub summary: &'static str,
    draw: fn(&mut Rng, u32, Language) -> Problem,
}

impl Generator {
    /// The generator of this name.
    pub fn named(name: &str) -> Option<&'static Generator> {
        GENERATORS.iter().find(|generator| generator.name == name)
    }

    /// Draws one problem. `level` is clamped to `1..=max_level`; a language the
    /// generator has no phrasing for falls back to its first.
    pub fn generate(&self, rng: &mut Rng, level: u32, language: Language) -> Problem {
        let level = level.clamp(1, self.max_level);
        let language = if self.languages.contains(&language) { language } else { self.languages[0] };
        let mut problem = (self.draw)(rng, level, language);
        problem.difficulty =
            if self.max_level > 1 { f64::from(level - 1) / f64::from(self.max_level - 1) } else { 0.0 };
        problem
    }

    /// True for the tiny-vocabulary family of [`mini`].
    pub fn is_mini(&self) -> bool {
        self.name.starts_with("mini_")
    }
}

const ALL: &[Language] = &[En, Fr, Zh, De, Es];
const THREE: &[Language] = &[En, Fr, Zh];
const TWO: &[Language] = &[En, Fr];

macro_rules! generator {
    ($name:literal, $domain:literal, $max_level:literal, $languages:expr, $draw:path, $summary:literal) => {
        Generator {
            name: $name,
            domain: $domain,
            max_level: $max_level,
            languages: $languages,
            summary: $summary,
            draw: $draw,
        }
    };
}

/// Every generator, in the order in which groups such as `reasoning` list them.
#[rustfmt::skip]
pub static GENERATORS: &[Generator] = &[
    generator!("arithmetic", "math", 5, ALL, arithmetic::draw, "an expression to evaluate by the order of operations"),
    generator!("linear", "math", 4, ALL, linear::draw, "a linear equation, from a x + b = c to brackets on both sides"),
    generator!("modular", "math", 4, ALL, modular::draw, "remainders of sums, products, powers and inverses"),
    generator!("countdown", "math", 3, THREE, countdown::draw, "reach a target with given numbers, each used once"),
    generator!("sequences", "math", 5, ALL, sequences::draw, "the next term of a sequence that follows a rule"),
    generator!("counting", "math", 4, THREE, counting::draw, "sort numbers, or count those that satisfy a condition"),
    generator!("calendar", "math", 4, THREE, calendar::draw, "weekdays, days between dates, dates after n days"),
    generator!("units", "math", 4, THREE, units::draw, "exact conversions and sums of lengths, masses and times"),
    generator!("strings", "logic", 4, THREE, strings::draw, "reverse, count, select and shift letters"),
    generator!("knights", "logic", 4, THREE, puzzles::draw_knights, "who tells the truth, with one solution"),
    generator!("ordering", "logic", 4, THREE, puzzles::draw_ordering, "who came where, from clues with one solution"),
    generator!("syllogism", "logic", 3, THREE, puzzles::draw_syllogism, "does the conclusion follow: yes or no"),
    generator!("rewriting", "general", 3, THREE, rewriting::draw, "rewrite a sentence: tense, negation, both"),
    generator!("extraction", "general", 3, THREE, extraction::draw, "copy the asked facts out of a short text"),
    generator!("translation", "general", 3, THREE, translation::draw, "translate a small phrase"),
    generator!("persona", "general", 1, THREE, persona::draw, "who are you, what can you do"),
    generator!("talk", "general", 1, THREE, talk::draw, "greetings, thanks and small talk"),
    generator!("constrained", "general", 3, THREE, constrained::draw, "writing under checkable constraints (IFEval form)"),
    generator!("safety", "general", 1, THREE, safety::draw, "mildly harmful requests to decline"),
    generator!("mini_mix", "math", 4, TWO, mini::tasks::draw_mix, "(a ± b) {*,+} c ± d in the mini vocabulary"),
    generator!("mini_linear", "math", 3, TWO, mini::tasks::draw_linear, "linear equations in the mini vocabulary"),
    generator!("mini_sum", "math", 3, TWO, mini::tasks::draw_sum, "column addition in the mini vocabulary"),
    generator!("mini_total", "math", 4, TWO, mini::tasks::draw_total, "running totals in the mini vocabulary"),
    generator!("mini_general", "general", 1, TWO, mini::general::draw, "greet, copy, translate, refuse in the mini vocabulary"),
    generator!("mini_language", "general", 1, TWO, mini::language::draw, "sentences to repeat in the language they are in"),
];
