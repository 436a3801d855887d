//! `corpus`: tracks are mixed to quotas, shuffled, split, and written as a Hugging Face dataset.
//!
//! Two passes. The first reads ids and domains and decides: each row has a rank, a hash of
//! (seed, id), so quotas and order depend on content alone, not on shards or threads. The
//! second reads the columns that a corpus has and hands each row to its place. Memory holds
//! keys and a bounded number of rows; what does not fit waits in sorted temporary files.

mod card;
mod choose;
mod questions;
mod rows;

use std::collections::BTreeMap;

use arrow::array::{Array, StringArray};
use rayon::prelude::*;
use serde::Deserialize;

use self::card::CARD;
use self::choose::{Candidates, Choice, choose};
use self::questions::Questions;
use super::external_sort::ExternalSort;
use super::{Input, Stage, StageContext, StageOutcome};
use crate::error::{Error, Result};
use crate::recipe::StageTable;
use crate::schema::{BatchExt, DatasetKind};
use crate::store::{Location, Lookup, Manifest, Naming, ShardWriter, WriterOptions};

/// Decoded prompts that are kept while completions, mostly in their prompts' order, are joined to them.
const PROMPT_CACHE: usize = 64 << 20;

/// The stage's table in a recipe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    /// What is mixed. The paper's corpus has 600,000 reasoning rows and 200,000 others.
    pub tracks: Vec<TrackConfig>,
    /// Share of the questions whose rows go to the validation split, by hash of what is asked.
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
    /// Selected completions. Without them the answers are the prompts' own `solution`s.
    pub groups: Option<String>,
    /// The prompts that the completions answer.
    pub prompts: String,
    /// The form of the replies, whose reasoning and answer are told apart and put together anew: of a prompt's
    /// `solution` and `gold`, or of a completion. Without it the solution or the completion is the reply.
    pub template: Option<Template>,
    /// A system turn put before conversations that have none, such as the one that `generate` put there.
    pub system: Option<String>,
    /// Rows wanted; all if not set.
    pub rows: Option<u64>,
    /// Rows wanted of each domain; rows of other domains are left out.
    #[serde(default)]
    pub domains: BTreeMap<String, u64>,
}

/// A reply made of a chain of thought and its answer.
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
        for (i, track) in config.tracks.iter().enumerate() {
            if config.tracks[..i].iter().any(|other| other.name == track.name) {
                let message = format!("two tracks are called `{}`", track.name);
                return Err(place("tracks").locate(Error::usage(message)).hint("a row's `track` tells them apart"));
            }
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

    /// 3: a template takes solutions apart that have tags already, and equal conversations are taken once.
    fn version(&self) -> u32 {
        3
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Corpus)
    }

    fn has_its_lists(&self, _made: &Manifest, folder: &Location) -> Result<bool> {
        Ok(folder.join(CARD).size()?.is_some())
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        cx.each_shard(1, |_| self.make(cx))
    }
}

impl CorpusStage {
    /// The rows that may be chosen. What their prompts ask is looked up where it decides something.
    fn candidates(&self, cx: &StageContext<'_>) -> Result<Candidates> {
        let CorpusConfig { tracks, validation, .. } = &self.0;
        let mut candidates = Candidates::new(cx.seed, *validation);
        // Of the prompts read last: tracks may share them.
        let mut questions: Option<(String, Questions)> = None;
        for (i, track) in tracks.iter().enumerate() {
            if *validation > 0.0 || tracks.len() > 1 {
                let prompts = cx.input(&prompts_key(i))?;
                let name = prompts.location().to_string();
                if questions.as_ref().is_none_or(|(of, _)| *of != name) {
                    questions = Some((name, Questions::of(prompts)?));
                }
            }
            read_keys(cx, i, track, questions.as_ref().map(|(_, questions)| questions), &mut candidates)?;
        }
        Ok(candidates)
    }

    fn make(&self, cx: &StageContext<'_>) -> Result<StageOutcome> {
        let candidates = self.candidates(cx)?;
        let mut outcome = StageOutcome::default();
        let choice = choose(&self.0, candidates, &mut outcome);
        for quota in choice.quotas.iter().filter(|quota| quota.wanted.is_some_and(|wanted| quota.got < wanted)) {
            let of = quota.domain.as_ref().map_or(quota.track.clone(), |domain| format!("{}/{domain}", quota.track));
            cx.progress.say(&format!(
                "{}: {of} is short of its quota: {} of {}",
                cx.name,
                quota.got,
                quota.wanted.unwrap_or(0)
            ));
        }
        // Each row is read once and written once.
        cx.progress.start(2 * choice.chosen() as u64, "rows");

        let mut sort = ExternalSort::new(cx.folder, DatasetKind::Corpus)?;
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
                            rows::from_groups(track, &picked, &asked)?
                        }
                        None => rows::from_prompts(track, &picked)?,
                    };
                    statistics.add(&made)?;
                    cx.progress.advance(kept.len() as u64);
                    sort.push(made, kept.iter().map(|&row| choice.places[first_row + row as usize]))?;
                }
                first_row += batch.num_rows();
            }
        }
        let layout = layout(&choice, cx.shard_rows);
        let places: Vec<_> = layout.iter().map(|out| out.places.clone()).collect();
        outcome.shards = sort.drain(cx, &places, |shard, rows| {
            let out = &layout[shard];
            let options = WriterOptions { naming: out.naming.clone(), ..WriterOptions::default() };
            let mut writer = ShardWriter::create(cx.folder, out.index, DatasetKind::Corpus, options)?;
            for batch in rows {
                let batch = batch?;
                cx.progress.advance(batch.num_rows() as u64);
                writer.push(&batch)?;
            }
            writer.finish()
        })?;
        outcome.count("rows", choice.chosen() as u64);
        outcome.count("completion_tokens", statistics.completion_tokens());
        card::write(cx, &self.0, &choice, &statistics, &outcome)?;
        Ok(outcome)
    }
}

/// First pass: ids, domains, what is asked, and whether there is anything to learn from.
fn read_keys(
    cx: &StageContext<'_>,
    index: usize,
    track: &TrackConfig,
    questions: Option<&Questions>,
    out: &mut Candidates,
) -> Result<()> {
    let input = cx.input(&track.rows_key(index))?;
    let (kind, columns): (_, &[&str]) = match track.groups {
        Some(_) => (DatasetKind::Groups, &["prompt_id", "completion_id", "domain", "text"]),
        None => (DatasetKind::Prompts, &["prompt_id", "solution", "domain"]),
    };
    for batch in input.batches(Some(kind), Some(columns)) {
        let batch = batch?;
        let (prompts, domains) = (batch.text("prompt_id")?, batch.text("domain")?);
        let second = batch.text(columns[1])?;
        let said = match track.groups {
            Some(_) => said(track, prompts, batch.text("text")?),
            // A prompt has one solution.
            None => vec![None; batch.num_rows()],
        };
        let mut question = 0;
        for (row, said) in said.into_iter().enumerate() {
            if let Some(questions) = questions
                && (row == 0 || prompts.value(row) != prompts.value(row - 1))
            {
                question = questions.key(prompts.value(row))?;
            }
            let id = if track.groups.is_some() { second.value(row) } else { prompts.value(row) };
            let usable = track.groups.is_some() || second.is_valid(row);
            out.push(index, domains.value(row), question, id, said, usable);
        }
        cx.check_stop()?;
    }
    Ok(())
}

/// Of each completion, what its conversation is told by: its prompt and the reply, as the track has it.
fn said(track: &TrackConfig, prompts: &StringArray, texts: &StringArray) -> Vec<Option<u64>> {
    let key = |row: usize| {
        let mut hasher = blake3::Hasher::new();
        let (prompt, reply) = (prompts.value(row), rows::reply(track.template, texts.value(row)));
        hasher.update(&prompt.len().to_le_bytes()).update(prompt.as_bytes()).update(reply.as_bytes());
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
    };
    (0..texts.len()).into_par_iter().map(|row| texts.is_valid(row).then(|| key(row))).collect()
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
