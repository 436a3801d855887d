//! Mixing generators into prompt rows: cells, quotas, distinct questions, the split.
//!
//! A cell is one (generator, level, language). Its k-th draw comes from the stream
//! (seed, cell, k), so any process can make any part; a draw whose question was
//! drawn before by the same configuration, or that falls on the other side of the
//! split, is passed over. Cells are interleaved in proportion to their quotas, so
//! every prefix of the output is a fair sample of the mix.

mod prompts;

use std::collections::HashSet;

pub use prompts::{Prompts, prompt_row};

use super::{GENERATORS, Generator, Language, Problem};
use crate::error::{Error, Result};
use crate::prompts::Ask;
use crate::recipe::suggest;
use crate::seed::stream;

/// What to generate: the `procedural` source of the prompts stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProceduralConfig {
    /// Prompts wanted.
    pub count: u64,
    /// Which generators, in which proportion.
    pub mix: Vec<Share>,
    /// Levels of the shares that name none; empty: all that each generator has.
    #[serde(default)]
    pub levels: Vec<u32>,
    /// Languages of the shares that name none; empty: all that each generator has.
    #[serde(default)]
    pub languages: Vec<Language>,
    /// The `source` column; the generator's name is added after a slash.
    #[serde(default = "default_source")]
    pub source: String,
    /// Which side of the split to take.
    #[serde(default)]
    pub part: Part,
    /// Share of the problems, by hash of their key, that belongs to `eval`; in [0, 1].
    #[serde(default = "default_holdout")]
    pub holdout: f64,
    /// What to do when a cell has no more distinct questions.
    #[serde(default)]
    pub when_exhausted: Exhausted,
    /// The user's turn, with a place for the question and for nothing else.
    #[serde(default)]
    pub ask: Option<Ask>,
}

/// One generator, or a group of them, and its weight.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// A generator's name, or `reasoning`, `general`, `mini`, `all` (all but `mini`).
    pub name: String,
    /// Relative weight, split evenly over the share's cells; positive.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// From 1 to what the generators have; empty takes those of the configuration.
    #[serde(default)]
    pub levels: Vec<u32>,
    /// Empty takes those of the configuration.
    #[serde(default)]
    pub languages: Vec<Language>,
}

/// Which side of the hash split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Problems that are not held out; the default.
    #[default]
    Train,
    /// The held-out problems.
    Eval,
    /// Both sides.
    All,
}

/// What happens when a cell's questions run out before its quota is met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exhausted {
    /// Stop with an error that names the cell and the size of its space.
    #[default]
    Error,
    /// The other cells make up for it; an error only when all are used up.
    Redistribute,
}

fn default_source() -> String {
    "procedural".to_owned()
}
fn default_holdout() -> f64 {
    0.1
}
fn default_weight() -> f64 {
    1.0
}

/// One (generator, level, language).
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// One of [`GENERATORS`].
    pub generator: &'static Generator,
    /// From 1 to the generator's `max_level`.
    pub level: u32,
    /// One of the generator's `languages`.
    pub language: Language,
}

impl Cell {
    /// The k-th draw: a function of (seed, cell, k) and nothing else.
    pub fn draw(&self, seed: u64, k: u64) -> Problem {
        let name = format!("procedural/{}/{}/{}", self.generator.name, self.level, self.language.code());
        self.generator.generate(&mut stream(seed, &name, k), self.level, self.language)
    }
}

/// How many distinct questions a cell has, by drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Drawing stopped finding new questions: this many were found.
    Exhausted(u64),
    /// This many were found when the limit stopped the search.
    AtLeast(u64),
}

/// Draws from a cell until `limit` distinct questions are found or the space is used up.
pub fn measure_space(cell: &Cell, limit: u64) -> Space {
    let mut seen = HashSet::new();
    let (mut k, mut misses) = (0, 0);
    while (seen.len() as u64) < limit {
        if seen.insert(fingerprint(&cell.draw(0, k).question)) {
            misses = 0;
        } else {
            misses += 1;
            if misses > patience(seen.len() as u64) {
                return Space::Exhausted(seen.len() as u64);
            }
        }
        k += 1;
    }
    Space::AtLeast(limit)
}

/// Draws without a new question after which a space of `found` counts as used up: a
/// question as likely as the average one is then missed with probability e⁻³⁰.
fn patience(found: u64) -> u64 {
    1_000 + 30 * found
}

fn fingerprint(question: &str) -> u128 {
    u128::from_le_bytes(blake3::hash(question.as_bytes()).as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
}

/// Which side of the split a problem's key is on. It depends on the key and the
/// fraction only, never on the run's seed, and grows monotonically: raising
/// `holdout` never moves a problem from `eval` back to `train`.
pub fn is_held_out(key: &str, holdout: f64) -> bool {
    let hash = blake3::derive_key("gristmill 2026 procedural split", key.as_bytes());
    let bits = u64::from_le_bytes(hash[..8].try_into().expect("a digest has 32 bytes")) >> 11;
    (bits as f64) * (1.0 / (1u64 << 53) as f64) < holdout
}

impl ProceduralConfig {
    /// Checks the configuration and lists its cells with their share of the total weight.
    ///
    /// # Errors
    /// An unknown generator, level or language, a weight or fraction out of range, an empty mix.
    pub fn cells(&self) -> Result<Vec<(Cell, f64)>> {
        if !(0.0..=1.0).contains(&self.holdout) {
            return Err(Error::usage(format!("`holdout` is {}, not a fraction in [0, 1]", self.holdout)));
        }
        let mut cells = Vec::new();
        for share in &self.mix {
            if !(share.weight.is_finite() && share.weight > 0.0) {
                return Err(Error::usage(format!("the weight of `{}` is {}, not positive", share.name, share.weight)));
            }
            let members = members(&share.name)?;
            let single = members.len() == 1;
            let levels = if share.levels.is_empty() { &self.levels } else { &share.levels };
            let languages = if share.languages.is_empty() { &self.languages } else { &share.languages };
            let start = cells.len();
            for generator in members {
                for level in 1..=generator.max_level {
                    for &language in generator.languages {
                        let wanted = (levels.is_empty() || levels.contains(&level))
                            && (languages.is_empty() || languages.contains(&language));
                        if wanted {
                            cells.push((Cell { generator, level, language }, 0.0));
                        }
                    }
                }
                if single {
                    check_asked(generator, &share.levels, &share.languages)?;
                }
            }
            let made = cells.len() - start;
            if made == 0 {
                return Err(Error::usage(format!("`{}` has none of the asked levels and languages", share.name))
                    .hint("leave `levels` and `languages` out to take all that a generator has"));
            }
            for (_, weight) in &mut cells[start..] {
                *weight = share.weight / made as f64;
            }
        }
        if cells.is_empty() {
            return Err(Error::usage("`mix` names no generator").hint("for example mix = [{ name = \"reasoning\" }]"));
        }
        let total: f64 = cells.iter().map(|(_, weight)| weight).sum();
        cells.iter_mut().for_each(|(_, weight)| *weight /= total);
        Ok(cells)
    }

    /// What is wrong with the configuration, and where: the path of keys and indices below it.
    ///
    /// # Errors
    /// As [`ProceduralConfig::cells`].
    pub fn check(&self) -> std::result::Result<(), (Vec<String>, Error)> {
        for (index, share) in self.mix.iter().enumerate() {
            let place = |key: Option<&str>| {
                let parts = ["mix".to_owned(), index.to_string()].into_iter();
                parts.chain(key.map(str::to_owned)).collect()
            };
            members(&share.name).map_err(|error| (place(Some("name")), error))?;
            // Alone it fails for what is wrong with itself.
            let alone = ProceduralConfig { mix: vec![share.clone()], holdout: 0.0, ..self.clone() };
            alone.cells().map_err(|error| (place(None), error))?;
        }
        if let Some(column) = self.ask.iter().flat_map(Ask::columns).next() {
            let error = Error::usage(format!("`ask` names `{column}`, and what is generated has no columns"));
            return Err((vec!["ask".to_owned()], error.hint("`{prompt}` is the question; `{{` is a brace")));
        }
        let key = if self.mix.is_empty() { "mix" } else { "holdout" };
        self.cells().map(drop).map_err(|error| (vec![key.to_owned()], error))
    }

    /// The prompts, in order, for this seed.
    ///
    /// # Errors
    /// As [`ProceduralConfig::cells`]; later, an item is an error when the questions run out.
    pub fn prompts(&self, seed: u64) -> Result<Prompts> {
        Prompts::new(self, seed)
    }
}

/// Names of several generators at once.
const GROUPS: [&str; 4] = ["reasoning", "general", "mini", "all"];

fn members(name: &str) -> Result<Vec<&'static Generator>> {
    let keep: fn(&Generator) -> bool = match name {
        "reasoning" => |g| !g.is_mini() && g.domain != "general",
        "general" => |g| !g.is_mini() && g.domain == "general",
        "mini" => |g| g.is_mini(),
        "all" => |g| !g.is_mini(),
        _ => {
            return Generator::named(name).map(|g| vec![g]).ok_or_else(|| {
                let known: Vec<&str> = GENERATORS.iter().map(|g| g.name).chain(GROUPS).collect();
                Error::usage(format!("unknown generator `{name}`")).hint(suggest(name, &known))
            });
        }
    };
    Ok(GENERATORS.iter().filter(|g| keep(g)).collect())
}

/// A share that names one generator must not ask for what it lacks.
fn check_asked(generator: &Generator, levels: &[u32], languages: &[Language]) -> Result<()> {
    if let Some(level) = levels.iter().find(|&&level| !(1..=generator.max_level).contains(&level)) {
        let max = generator.max_level;
        return Err(
            Error::usage(format!("`{}` has no level {level}", generator.name)).hint(format!("levels: 1 to {max}"))
        );
    }
    if let Some(language) = languages.iter().find(|language| !generator.languages.contains(language)) {
        let has = generator.languages.iter().map(|l| l.code()).collect::<Vec<_>>().join(", ");
        return Err(Error::usage(format!("`{}` does not speak `{}`", generator.name, language.code()))
            .hint(format!("languages: {has}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
