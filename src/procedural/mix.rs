//! Mixing generators into prompt rows: cells, quotas, distinct questions, the split.
//!
//! A cell is one (generator, level, language). Its k-th draw comes from the stream
//! (seed, cell, k), so any process can make any part; a draw whose question was
//! drawn before by the same configuration, or that falls on the other side of the
//! split, is passed over. Cells are interleaved in proportion to their quotas, so
//! every prefix of the output is a fair sample of the mix.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use serde_json::json;

use super::{GENERATORS, Generator, Language, Problem};
use crate::error::{Error, Result};
use crate::schema::{Message, Prompt, Role};
use crate::seed::{content_id, stream};

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
    #[serde(default)]
    pub levels: Vec<u32>,
    #[serde(default)]
    pub languages: Vec<Language>,
}

/// Which side of the hash split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    #[default]
    Train,
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
    pub generator: &'static Generator,
    pub level: u32,
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

    /// The prompts, in order, for this seed.
    ///
    /// # Errors
    /// As [`ProceduralConfig::cells`]; later, an item is an error when the questions run out.
    pub fn prompts(&self, seed: u64) -> Result<Prompts> {
        Prompts::new(self, seed)
    }
}

fn members(name: &str) -> Result<Vec<&'static Generator>> {
    let keep: fn(&Generator) -> bool = match name {
        "reasoning" => |g| !g.is_mini() && g.domain != "general",
        "general" => |g| !g.is_mini() && g.domain == "general",
        "mini" => |g| g.is_mini(),
        "all" => |g| !g.is_mini(),
        _ => {
            let known = GENERATORS.iter().map(|g| g.name).collect::<Vec<_>>().join(", ");
            return Generator::named(name).map(|g| vec![g]).ok_or_else(|| {
                Error::usage(format!("unknown generator `{name}`"))
                    .hint(format!("known: {known}, and the groups reasoning, general, mini, all"))
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

/// An iterator over prompt rows. Bounded memory but for 16 bytes a question already drawn.
pub struct Prompts {
    seed: u64,
    source: String,
    part: Part,
    holdout: f64,
    when_exhausted: Exhausted,
    left: u64,
    streams: Vec<Stream>,
    /// The stream whose next prompt is due first.
    due: BinaryHeap<Due>,
    seen: HashSet<u128>,
    failed: bool,
}

struct Stream {
    cell: Cell,
    weight: f64,
    next_draw: u64,
    emitted: u64,
}

/// Ordered by the time at which a stream's next prompt is due: (emitted + ½) / weight.
struct Due {
    time: f64,
    stream: usize,
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        other.time.total_cmp(&self.time).then(other.stream.cmp(&self.stream))
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}

impl Prompts {
    fn new(config: &ProceduralConfig, seed: u64) -> Result<Prompts> {
        let streams: Vec<_> = config
            .cells()?
            .into_iter()
            .map(|(cell, weight)| Stream { cell, weight, next_draw: 0, emitted: 0 })
            .collect();
        let due = streams.iter().enumerate().map(|(stream, s)| Due { time: 0.5 / s.weight, stream }).collect();
        Ok(Prompts {
            seed,
            source: config.source.clone(),
            part: config.part,
            holdout: config.holdout,
            when_exhausted: config.when_exhausted,
            left: config.count,
            streams,
            due,
            seen: HashSet::new(),
            failed: false,
        })
    }

    /// The next new problem of a stream on the wanted side of the split; `None` when used up.
    fn next_problem(&mut self, index: usize) -> Option<(u64, Problem)> {
        let mut misses = 0;
        loop {
            let stream = &mut self.streams[index];
            let k = stream.next_draw;
            let problem = stream.cell.draw(self.seed, k);
            stream.next_draw += 1;
            let wanted = match self.part {
                Part::All => true,
                Part::Train => !is_held_out(&problem.key, self.holdout),
                Part::Eval => is_held_out(&problem.key, self.holdout),
            };
            if wanted && self.seen.insert(fingerprint(&problem.question)) {
                self.streams[index].emitted += 1;
                return Some((k, problem));
            }
            misses += 1;
            // The wanted side may be a small part of what is drawn.
            let side = match self.part {
                Part::All => 1.0,
                Part::Train => 1.0 - self.holdout,
                Part::Eval => self.holdout,
            };
            if side == 0.0 || misses as f64 > patience(self.streams[index].emitted) as f64 / side {
                return None;
            }
        }
    }

    fn used_up(&self, index: usize) -> Error {
        let Stream { cell, emitted, next_draw, .. } = &self.streams[index];
        let side = match self.part {
            Part::All => "",
            Part::Train => " on the training side of the split",
            Part::Eval => " on the evaluation side of the split",
        };
        Error::new(format!(
            "generator `{}` (level {}, {}) has only about {emitted} distinct questions{side}; {next_draw} were drawn",
            cell.generator.name,
            cell.level,
            cell.language.code(),
        ))
        .hint("lower `count` or this generator's weight, add levels or languages, or set when_exhausted = \"redistribute\"")
    }
}

impl Iterator for Prompts {
    type Item = Result<Prompt>;

    fn next(&mut self) -> Option<Result<Prompt>> {
        if self.left == 0 || self.failed {
            return None;
        }
        loop {
            let Some(Due { stream, .. }) = self.due.pop() else {
                self.failed = true;
                let made: u64 = self.streams.iter().map(|s| s.emitted).sum();
                return Some(Err(Error::new(format!(
                    "the mix has only about {made} distinct questions; {} more were asked for",
                    self.left
                ))
                .hint("lower `count`, or add generators, levels or languages")));
            };
            if let Some((k, problem)) = self.next_problem(stream) {
                let Stream { cell, weight, emitted, .. } = self.streams[stream];
                self.due.push(Due { time: (emitted as f64 + 0.5) / weight, stream });
                self.left -= 1;
                return Some(Ok(prompt_row(&cell, &self.source, k, problem)));
            }
            if self.when_exhausted == Exhausted::Error {
                self.failed = true;
                return Some(Err(self.used_up(stream)));
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

/// The row of a problem.
pub fn prompt_row(cell: &Cell, source: &str, draw: u64, problem: Problem) -> Prompt {
    let domain = cell.generator.domain;
    let prompt_id = content_id([
        b"user".as_slice(),
        problem.question.as_bytes(),
        problem.gold.as_deref().unwrap_or_default().as_bytes(),
        problem.verification.as_deref().unwrap_or_default().as_bytes(),
        domain.as_bytes(),
    ]);
    let mut extra = json!({
        "generator": cell.generator.name,
        "level": cell.level,
        "draw": draw,
        "key": problem.key,
        "answer": problem.answer,
    });
    if let Some(pair) = super::preference(&problem) {
        extra["rejected"] = pair.rejected.into();
        extra["preference"] = pair.kind.as_str().into();
    }
    Prompt {
        prompt_id,
        messages: vec![Message { role: Role::User, content: problem.question }],
        gold: problem.gold,
        // What has no method has its answer: a row of a corpus either way.
        solution: problem.chain.or(Some(problem.answer)),
        verification: problem.verification,
        domain: domain.to_owned(),
        language: cell.language.code().to_owned(),
        difficulty: Some(problem.difficulty),
        source: format!("{source}/{}", cell.generator.name),
        license: Some("CC0-1.0".to_owned()),
        extra: Some(extra.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn config(count: u64, names: &[&str]) -> ProceduralConfig {
        let mix = names
            .iter()
            .map(|name| Share { name: (*name).to_owned(), weight: 1.0, levels: vec![], languages: vec![] })
            .collect();
        ProceduralConfig {
            count,
            mix,
            levels: vec![],
            languages: vec![],
            source: "procedural".to_owned(),
            part: Part::Train,
            holdout: 0.1,
            when_exhausted: Exhausted::Error,
        }
    }

    fn collect(config: &ProceduralConfig, seed: u64) -> Vec<Prompt> {
        config.prompts(seed).unwrap().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_rows_and_a_longer_run_the_same_prefix() {
        let mut config = config(400, &["all", "mini"]);
        config.when_exhausted = Exhausted::Redistribute;
        let first = collect(&config, 7);
        assert_eq!(first, collect(&config, 7));
        assert_ne!(first, collect(&config, 8));
        config.count = 600;
        assert_eq!(first, collect(&config, 7)[..400]);
    }

    #[test]
    fn rows_are_distinct_and_no_problem_is_on_both_sides_of_the_split() {
        let mut config = config(1_500, &["reasoning", "mini_mix"]);
        config.holdout = 0.3;
        let keys = |rows: &[Prompt]| -> HashSet<String> {
            rows.iter()
                .map(|p| {
                    let extra: serde_json::Value = serde_json::from_str(p.extra.as_deref().unwrap()).unwrap();
                    extra["key"].as_str().unwrap().to_owned()
                })
                .collect()
        };
        let train = collect(&config, 3);
        config.part = Part::Eval;
        let eval = collect(&config, 3);
        let questions: HashSet<_> = train.iter().chain(&eval).map(|p| p.question().to_owned()).collect();
        assert_eq!(questions.len(), 3_000);
        assert!(keys(&train).is_disjoint(&keys(&eval)));
        let ids: HashSet<_> = train.iter().chain(&eval).map(|p| &p.prompt_id).collect();
        assert_eq!(ids.len(), 3_000);
    }

    #[test]
    fn a_small_space_is_named_with_its_size_or_made_up_for_by_the_others() {
        let mut config = config(50_000, &["persona", "arithmetic"]);
        let error = config.prompts(1).unwrap().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("`persona` (level 1"), "{error}");
        assert!(error.render(false).contains("redistribute"), "{error:?}");
        config.count = 4_000;
        config.when_exhausted = Exhausted::Redistribute;
        assert_eq!(collect(&config, 1).len(), 4_000);
        config.mix.truncate(1);
        assert!(config.prompts(1).unwrap().last().unwrap().unwrap_err().to_string().contains("the mix has only"));
    }

    #[test]
    fn weights_hold_in_every_prefix() {
        let mut config = config(1_000, &["arithmetic", "linear"]);
        config.mix[0].weight = 3.0;
        for prefix in [40, 200, 1_000] {
            let mut counts = BTreeMap::new();
            for row in &collect(&config, 5)[..prefix] {
                *counts.entry(row.source.clone()).or_insert(0i64) += 1;
            }
            let share = counts["procedural/arithmetic"] as f64 / prefix as f64;
            assert!((share - 0.75).abs() < 0.13, "{counts:?}");
        }
    }

    #[test]
    fn mistakes_in_the_configuration_are_usage_errors_with_hints() {
        for (toml, message, hint) in [
            ("count = 1\nmix = [{ name = \"aritmetic\" }]", "unknown generator `aritmetic`", "arithmetic"),
            ("count = 1\nmix = [{ name = \"linear\", levels = [9] }]", "`linear` has no level 9", "1 to 4"),
            ("count = 1\nmix = [{ name = \"units\", languages = [\"de\"] }]", "does not speak `de`", "en, fr, zh"),
            ("count = 1\nmix = []", "`mix` names no generator", "reasoning"),
            ("count = 1\nmix = [{ name = \"all\", weight = -1.0 }]", "not positive", ""),
            ("count = 1\nholdout = 1.5\nmix = [{ name = \"all\" }]", "not a fraction", ""),
        ] {
            let config: ProceduralConfig = toml::from_str(toml).unwrap();
            let text = config.prompts(0).err().expect(message).render(false);
            assert!(text.contains(message) && text.contains(hint), "{text}");
        }
        assert!(toml::from_str::<ProceduralConfig>("count = 1\nmix = []\nlevel = 3").is_err());
    }

    #[test]
    fn a_held_out_problem_stays_held_out_when_the_fraction_grows() {
        let held = |holdout: f64| (0..2_000).filter(|i| is_held_out(&format!("k{i}"), holdout)).collect::<Vec<_>>();
        let (few, many) = (held(0.1), held(0.4));
        assert!((150..250).contains(&few.len()) && few.iter().all(|i| many.contains(i)));
        assert!(held(0.0).is_empty() && held(1.0).len() == 2_000);
    }
}
