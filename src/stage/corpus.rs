//! `corpus`: tracks are mixed to quotas, shuffled, split, and written as a Hugging Face dataset.
//!
//! Two passes. The first reads ids and domains and decides: each row has a rank, a hash of
//! (seed, id), so quotas and order depend on content alone, not on shards or threads. The
//! second reads the columns that a corpus has and hands each row to its place. Memory holds
//! keys and a bounded number of rows; what does not fit waits in sorted temporary files.

mod buckets;
mod card;
mod choose;
mod rows;

use std::collections::BTreeMap;

use arrow::array::Array;
use serde::Deserialize;

use self::buckets::Buckets;
use self::choose::{Candidates, Choice, choose};
use super::{Input, Outcome, Stage, StageContext};
use crate::error::{Error, Result};
use crate::recipe::StageTable;
use crate::schema::{BatchExt, DatasetKind};
use crate::store::{Lookup, Naming};

/// Decoded prompts that are kept while completions, mostly in their prompts' order, are joined to them.
const PROMPT_CACHE: usize = 64 << 20;

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// What is mixed. The paper's corpus has 600,000 reasoning rows and 200,000 others.
    pub tracks: Vec<TrackConfig>,
    /// Share of the prompts whose rows go to the validation split, by hash of the prompt id.
    #[serde(default)]
    pub validation: f64,
    /// The dataset's name on its card; by default the stage's.
    pub title: Option<String>,
    /// A paragraph for the card.
    pub description: Option<String>,
}

/// One track of the corpus.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackConfig {
    /// `reasoning` or `other`, or the user's own word.
    pub name: String,
    /// Selected completions; or
    pub groups: Option<String>,
    /// the prompts those completions answer; without `groups`, prompts whose `solution` is the answer.
    pub prompts: String,
    /// How a prompt's `solution` and `gold` become one reply; without it the solution is the reply.
    pub template: Option<Template>,
    /// Rows wanted; all if not set.
    pub rows: Option<u64>,
    /// Rows wanted of each domain; rows of other domains are left out.
    #[serde(default)]
    pub domains: BTreeMap<String, u64>,
}

/// A reply made of a reference chain of thought and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// `<think> reasoning </think> <answer> answer </answer>`: R1-Zero's (arXiv 2501.12948, table 1).
    ThinkAnswer,
    /// `<think>`, the reasoning, `</think>` on lines of their own, then the answer: R1's.
    Think,
}

impl Template {
    fn render(self, reasoning: &str, answer: &str) -> String {
        match self {
            Template::ThinkAnswer => format!("<think> {reasoning} </think> <answer> {answer} </answer>"),
            Template::Think => format!("<think>\n{reasoning}\n</think>\n\n{answer}"),
        }
    }
}

/// The stage.
pub struct CorpusStage(CorpusConfig);

impl CorpusStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No track, two quotas at odds, a share outside [0, 1), with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let config: CorpusConfig = table.config.read()?;
        let place = |key: &str| table.config.get(key).map_or(&table.origin, |node| &node.origin);
        if config.tracks.is_empty() {
            return Err(place("tracks").locate(Error::usage("a corpus needs at least one track")));
        }
        if !(0.0..1.0).contains(&config.validation) {
            return Err(place("validation").locate(Error::usage("`validation` is a share: at least 0, below 1")));
        }
        for track in &config.tracks {
            let sum: u64 = track.domains.values().sum();
            if track.rows.is_some_and(|rows| !track.domains.is_empty() && rows != sum) {
                let message =
                    format!("track `{}` wants {} rows, its domains {sum}", track.name, track.rows.unwrap_or(0));
                return Err(place("tracks")
                    .locate(Error::usage(message))
                    .hint("leave one of `rows` and `domains` out"));
            }
        }
        Ok(CorpusStage(config))
    }
}

impl TrackConfig {
    /// The input whose rows are the track's candidates.
    fn rows_key(&self, index: usize) -> String {
        if self.groups.is_some() { format!("tracks.{index}.groups") } else { prompts_key(index) }
    }
}

fn prompts_key(index: usize) -> String {
    format!("tracks.{index}.prompts")
}

impl Stage for CorpusStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (i, track) in self.0.tracks.iter().enumerate() {
            if let Some(groups) = &track.groups {
                inputs.push(Input::new(track.rows_key(i), groups, DatasetKind::Groups));
            }
            inputs.push(Input::new(prompts_key(i), &track.prompts, DatasetKind::Prompts));
        }
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Corpus)
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        cx.each_shard(1, |_| self.make(cx))
    }
}

impl CorpusStage {
    fn make(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        let mut candidates = Candidates::new(cx.seed, self.0.validation);
        for (i, track) in self.0.tracks.iter().enumerate() {
            read_keys(cx, i, track, &mut candidates)?;
        }
        let mut outcome = Outcome::default();
        let choice = choose(&self.0, candidates, &mut outcome);
        // Each row is read once and written once.
        cx.progress.start(2 * choice.chosen() as u64, "rows");

        let mut buckets = Buckets::new(cx.folder)?;
        let mut statistics = card::Statistics::default();
        let mut first_row = 0;
        for (i, track) in self.0.tracks.iter().enumerate() {
            let prompts = match track.groups {
                Some(_) => Some(prompts_of(cx, i)?),
                None => None,
            };
            let (kind, columns) = match track.groups {
                Some(_) => (DatasetKind::Groups, rows::OF_GROUP),
                None => (DatasetKind::Prompts, rows::OF_PROMPT),
            };
            for batch in cx.input(&track.rows_key(i))?.batches(Some(kind), Some(columns)) {
                let batch = batch?;
                cx.check_stop()?;
                let kept = choice.kept(first_row, batch.num_rows());
                if !kept.is_empty() {
                    let picked = super::take_rows(&batch, &kept)?;
                    let made = match &prompts {
                        Some(prompts) => {
                            let asked = prompts
                                .gather(picked.text("prompt_id")?)
                                .map_err(|e| e.hint("give the track the prompts its completions were made from"))?;
                            rows::from_groups(&track.name, &picked, &asked)?
                        }
                        None => rows::from_prompts(&track.name, track.template, &picked)?,
                    };
                    statistics.add(&made)?;
                    cx.progress.advance(kept.len() as u64);
                    buckets.push(made, kept.iter().map(|&row| choice.places[first_row + row as usize]))?;
                }
                first_row += batch.num_rows();
            }
        }
        outcome.shards = buckets.write(cx, &layout(&choice, cx.shard_rows))?;
        outcome.count("rows", choice.chosen() as u64);
        outcome.count("completion_tokens", statistics.completion_tokens());
        card::write(cx, &self.0, &choice, &statistics, &outcome)?;
        Ok(outcome)
    }
}

/// First pass: ids, domains, and whether there is anything to learn from.
fn read_keys(cx: &StageContext<'_>, index: usize, track: &TrackConfig, out: &mut Candidates) -> Result<()> {
    let input = cx.input(&track.rows_key(index))?;
    let (kind, columns): (_, &[&str]) = match track.groups {
        Some(_) => (DatasetKind::Groups, &["prompt_id", "completion_id", "domain"]),
        None => (DatasetKind::Prompts, &["prompt_id", "solution", "domain"]),
    };
    for batch in input.batches(Some(kind), Some(columns)) {
        let batch = batch?;
        let (prompts, domains) = (batch.text("prompt_id")?, batch.text("domain")?);
        let second = batch.text(columns[1])?;
        for row in 0..batch.num_rows() {
            let id = if track.groups.is_some() { second.value(row) } else { prompts.value(row) };
            let usable = track.groups.is_some() || second.is_valid(row);
            out.push(index, domains.value(row), prompts.value(row), id, usable);
        }
        cx.check_stop()?;
    }
    Ok(())
}

/// The prompts that a track's completions answer.
fn prompts_of(cx: &StageContext<'_>, track: usize) -> Result<Lookup> {
    let prompts = cx.input(&prompts_key(track))?;
    let lookup = Lookup::build(prompts, Some(DatasetKind::Prompts), "prompt_id", Some(rows::OF_ITS_PROMPT))?;
    Ok(lookup.with_cache_bytes(PROMPT_CACHE))
}

/// One output shard: its split, its index in the split, and the places it holds.
pub(super) struct OutShard {
    naming: Naming,
    index: usize,
    places: std::ops::Range<u32>,
}

/// Places 0… are the training split's rows in order, then the validation split's.
fn layout(choice: &Choice, shard_rows: usize) -> Vec<OutShard> {
    let mut shards = Vec::new();
    for (split, range) in [("train", 0..choice.train), ("validation", choice.train..choice.train + choice.validation)] {
        let total = (range.len()).div_ceil(shard_rows).max(usize::from(split == "train"));
        for index in 0..total {
            // Even shards: no short last one.
            let at = |k: usize| range.start + (range.len() * k / total) as u32;
            let naming = Naming::HuggingFace { split: split.to_owned(), shards: total };
            shards.push(OutShard { naming, index, places: at(index)..at(index + 1) });
        }
    }
    shards
}
