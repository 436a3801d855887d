//! The whole of prompt preparation in one pass: filters, exact and near duplicates, contamination,
//! measured difficulty, sampling.
//!
//! Rows stream in batches. Pure work (normal forms, signatures, scans) runs in
//! parallel; decisions are taken in order, so the outcome depends on the input
//! alone. Memory holds one batch and the keys of kept prompts; where sampling
//! needs to see all prompts first, the rows wait in a temporary file. So they do from the first on that cannot be
//! graded: a duplicate that can may take its place.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::decontam::{DecontamConfig, Decontaminator, EvalSet, Hit, SetReport};
use super::dedup::{Admission, DedupConfig, Deduplicator, Fingerprint};
use super::difficulty::{PassRates, PassWindow};
use super::drops::{DropCounts, Dropped, GoldConflict};
use super::filter::FilterConfig;
use super::hash::hash_bytes;
use super::import::Imported;
use super::normal::{Normal, asked};
use super::sample::{SampleConfig, Sampler, StratumReport};
use super::spill::Spill;
use crate::Result;
use crate::schema::Prompt;

/// Rows worked on together. Fixed: nothing may depend on the machine.
const BATCH: usize = 4096;

/// What is done to imported prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrepareConfig {
    /// Length, language and gold; applied first.
    pub filter: FilterConfig,
    /// Which copies are dropped.
    pub dedup: DedupConfig,
    /// How an overlap with an evaluation set is judged; unused without such sets.
    pub decontaminate: DecontamConfig,
    /// Pass rates to keep, where pass rates are given.
    pub pass_rate: Option<PassWindow>,
    /// How many stay of each stratum; `None` keeps all.
    pub sample: Option<SampleConfig>,
}

/// Where rows go.
///
/// # Errors
/// Each method fails where its list cannot be written; that stops the preparation.
pub trait Sink {
    /// A prompt that stays, in input order.
    fn keep(&mut self, prompt: Prompt) -> Result<()>;
    /// A prompt that does not.
    fn drop(&mut self, drop: Dropped) -> Result<()>;
    /// An overlap with an evaluation set.
    fn hit(&mut self, hit: Hit) -> Result<()>;
    /// Two equal questions with different golds.
    fn conflict(&mut self, conflict: GoldConflict) -> Result<()>;
}

/// The account of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Prompts that came in.
    pub rows: u64,
    /// Prompts that stayed; with the drops they make up `rows`.
    pub kept: u64,
    /// By reason, as in [`Dropped::reason`].
    pub drops: DropCounts,
    /// Overlaps reported; a contaminated prompt has one or more.
    pub hits: u64,
    /// Prompts equal to a kept one in normal form, with another gold; those that are equal to the letter are among the
    /// drops, as `gold_conflict`.
    pub gold_conflicts: u64,
    /// Prompts that were kept, though similar to a kept one, because their golds differ.
    pub kept_other_gold: u64,
    /// See [`Deduplicator::full_buckets`].
    pub full_buckets: u64,
    /// Strata by name; empty without sampling.
    pub strata: Vec<StratumReport>,
    /// How each evaluation set was searched for.
    pub evaluation: Vec<SetReport>,
}

/// Prompt preparation with its evaluation sets and pass rates.
pub struct Preparation {
    config: PrepareConfig,
    seed: u64,
    decontaminator: Option<Decontaminator>,
    pass_rates: Option<PassRates>,
}

/// One row of a batch on its way.
struct Work {
    row: Imported,
    normal: Normal,
    print: Fingerprint,
    seat: Seat,
}

/// A kept prompt among those kept.
#[derive(Clone, Copy, Default)]
struct Seat {
    /// Its number for the deduplicator.
    slot: u32,
    /// If it replaces an earlier prompt: the reason recorded for dropping that one.
    replaces: Option<&'static str>,
}

impl Preparation {
    /// `evals` empty: no decontamination. `seed` decides the sample alone.
    ///
    /// # Errors
    /// A parameter is out of range or an evaluation set is empty.
    pub fn new(config: PrepareConfig, seed: u64, evals: &[EvalSet]) -> Result<Self> {
        config.filter.check()?;
        config.dedup.check()?;
        if let Some(sample) = &config.sample {
            Sampler::new(sample.clone(), seed)?;
        }
        let decontaminator = match evals {
            [] => None,
            sets => Some(Decontaminator::new(config.decontaminate.clone(), sets)?),
        };
        Ok(Preparation { config, seed, decontaminator, pass_rates: None })
    }

    /// Sets difficulty from measured pass rates, and applies the window if the configuration has one.
    pub fn with_pass_rates(mut self, rates: PassRates) -> Self {
        self.pass_rates = Some(rates);
        self
    }

    /// Runs over all rows.
    ///
    /// # Errors
    /// The first error of `rows` or of the sink, or the temporary file's.
    pub fn run(&self, rows: impl IntoIterator<Item = Result<Imported>>, sink: &mut dyn Sink) -> Result<Summary> {
        let evaluation = self.decontaminator.as_ref().map_or_else(Vec::new, |index| index.reports().to_vec());
        let mut state = State {
            summary: Summary { evaluation, ..Summary::default() },
            dedup: Deduplicator::new(self.config.dedup.clone())?,
            ids: HashSet::new(),
            sampler: self.config.sample.clone().map(|sample| Sampler::new(sample, self.seed)).transpose()?,
            waiting: if self.config.sample.is_some() { Some(Spill::new()?) } else { None },
            waiting_rows: 0,
            merges: self.config.dedup.exact || self.config.dedup.near.is_some(),
            ungraded: HashMap::new(),
            replaced: HashMap::new(),
            sink,
        };
        let mut rows = rows.into_iter();
        loop {
            let batch = rows.by_ref().take(BATCH).collect::<Result<Vec<Imported>>>()?;
            if batch.is_empty() {
                break;
            }
            state.summary.rows += batch.len() as u64;
            self.batch(batch, &mut state)?;
        }
        state.summary.full_buckets = state.dedup.full_buckets();
        state.finish()
    }

    fn batch(&self, batch: Vec<Imported>, state: &mut State<'_>) -> Result<()> {
        let reasons: Vec<_> = batch.par_iter().map(|row| self.config.filter.reason(&row.prompt)).collect();
        let mut passed = Vec::with_capacity(batch.len());
        for (row, reason) in batch.into_iter().zip(reasons) {
            match reason {
                Some((reason, detail)) => state.drop(&row, reason, detail)?,
                None => passed.push(row),
            }
        }
        let work: Vec<Work> = passed
            .into_par_iter()
            .map(|row| {
                // Words that an `ask` put around the question say nothing of what is asked.
                let messages = row.prompt.bare_messages();
                let text = asked(&messages);
                let normal = Normal::of(&text);
                let mut print = state.dedup.fingerprint(&text, &normal, row.prompt.gold.as_deref());
                print.graded |= row.prompt.verification.is_some();
                drop(text);
                drop(messages);
                Work { row, normal, print, seat: Seat::default() }
            })
            .collect();
        let mut distinct = Vec::with_capacity(work.len());
        for work in work {
            if let Some(work) = state.admit(work)? {
                distinct.push(work);
            }
        }
        let hits: Vec<Vec<Hit>> = match &self.decontaminator {
            Some(index) => {
                distinct.par_iter().map(|work| index.scan(&work.row.prompt.prompt_id, &work.normal)).collect()
            }
            None => vec![Vec::new(); distinct.len()],
        };
        for (work, hits) in distinct.into_iter().zip(hits) {
            let (mut row, graded, seat) = (work.row, work.print.graded, work.seat);
            if let Some(first) = hits.first() {
                let detail = format!("{} row {}: {}", first.eval_set, first.eval_row, first.ngram);
                state.summary.hits += hits.len() as u64;
                for hit in hits {
                    state.sink.hit(hit)?;
                }
                state.drop(&row, "contaminated", detail)?;
                continue;
            }
            if let Some(rates) = &self.pass_rates {
                rates.apply(&mut row.prompt);
                let window = self.config.pass_rate.as_ref();
                if let Some((reason, detail)) = window.and_then(|window| rates.reason(&row.prompt.prompt_id, window)) {
                    state.drop(&row, reason, detail)?;
                    continue;
                }
            }
            state.keep(row, graded, seat)?;
        }
        Ok(())
    }
}

struct State<'a> {
    summary: Summary,
    dedup: Deduplicator,
    /// Hashes of the ids let through: a dataset's ids are unique even where duplicates are wanted.
    ids: HashSet<u64>,
    sampler: Option<Sampler>,
    /// Prompts not yet decided, and their number.
    waiting: Option<Spill>,
    waiting_rows: usize,
    /// Whether duplicates are dropped at all.
    merges: bool,
    /// Waiting prompts that cannot be graded: the deduplicator's number to the place in the file.
    ungraded: HashMap<u32, usize>,
    /// Places of waiting prompts that do not stay: the reason, and the prompt that stays instead.
    replaced: HashMap<usize, (&'static str, String)>,
    sink: &'a mut dyn Sink,
}

impl State<'_> {
    fn drop(&mut self, row: &Imported, reason: &'static str, detail: impl Into<String>) -> Result<()> {
        *self.summary.drops.entry(reason.to_owned()).or_default() += 1;
        self.sink.drop(Dropped::new(row, reason, detail))
    }

    /// The row if it is no duplicate.
    fn admit(&mut self, mut work: Work) -> Result<Option<Work>> {
        let row = &work.row;
        let id = &row.prompt.prompt_id;
        let (reason, detail) = match self.dedup.admit(id, &work.print) {
            Admission::Kept { conflicts_with, other_gold } => {
                if self.ids.insert(hash_bytes(id.as_bytes(), 4)) {
                    match conflicts_with {
                        Some(kept) => self.conflict(row, kept, false)?,
                        None => self.summary.kept_other_gold += u64::from(other_gold),
                    }
                    work.seat.slot = self.dedup.len() as u32 - 1;
                    return Ok(Some(work));
                }
                ("duplicate_id", format!("of {id}"))
            }
            Admission::Better { slot, exact } => {
                self.ids.insert(hash_bytes(id.as_bytes(), 4));
                work.seat = Seat { slot, replaces: Some(if exact { "exact_duplicate" } else { "near_duplicate" }) };
                return Ok(Some(work));
            }
            Admission::Exact { kept } => ("exact_duplicate", format!("of {kept}")),
            Admission::GoldConflict { kept } => {
                let detail = format!("of {kept}, gold differs");
                self.conflict(row, kept, true)?;
                ("gold_conflict", detail)
            }
            Admission::Near { kept, similarity } => {
                ("near_duplicate", format!("of {kept}, similarity {similarity:.3}"))
            }
        };
        self.drop(row, reason, detail)?;
        Ok(None)
    }

    fn conflict(&mut self, row: &Imported, kept: String, dropped: bool) -> Result<()> {
        self.summary.gold_conflicts += 1;
        self.sink.conflict(GoldConflict::new(row, kept, dropped))
    }

    fn keep(&mut self, row: Imported, graded: bool, seat: Seat) -> Result<()> {
        if let Some(reason) = seat.replaces
            && let Some(place) = self.ungraded.remove(&seat.slot)
        {
            self.replaced.insert(place, (reason, row.prompt.prompt_id.clone()));
            self.sampler.iter_mut().for_each(|sampler| sampler.forget(place));
        }
        if self.merges && !graded {
            self.ungraded.insert(seat.slot, self.waiting_rows);
            if self.waiting.is_none() {
                self.waiting = Some(Spill::new()?);
            }
        }
        match &mut self.waiting {
            Some(waiting) => {
                self.sampler.iter_mut().for_each(|sampler| sampler.note(&row.prompt));
                self.waiting_rows += 1;
                waiting.push(&row)
            }
            None => {
                self.summary.kept += 1;
                self.sink.keep(row.prompt)
            }
        }
    }

    fn finish(mut self) -> Result<Summary> {
        let Some(waiting) = self.waiting.take() else { return Ok(self.summary) };
        // All decisions on duplicates are taken: their memory is for the second pass.
        self.dedup = Deduplicator::new(DedupConfig { exact: true, near: None })?;
        (self.ids, self.ungraded) = (HashSet::new(), HashMap::new());
        let sampled = self.sampler.take().map(Sampler::decide);
        let (keep, strata) = sampled.map_or((None, Vec::new()), |(keep, strata)| (Some(keep), strata));
        self.summary.strata = strata;
        for (place, row) in waiting.into_rows()?.enumerate() {
            let row = row?;
            if let Some((reason, by)) = self.replaced.remove(&place) {
                self.drop(&row, reason, format!("of {by}, which can be graded"))?;
            } else if keep.as_ref().is_none_or(|keep| keep[place]) {
                self.summary.kept += 1;
                self.sink.keep(row.prompt)?;
            } else {
                self.drop(&row, "sampled_out", "beyond the stratum's target")?;
            }
        }
        Ok(self.summary)
    }
}

#[cfg(test)]
mod tests;
