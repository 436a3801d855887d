//! One training run inside a stage: progress, metrics, checkpoints, resume, the model it leaves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::held_out::{HeldOut, HeldOutConfig};
use super::told::{describe, idle, in_short};
use super::{Policy, metrics};
use crate::backend::Backend;
use crate::error::{Context, Error, Result};
use crate::stage::layout::{ADAPTER, CHECKPOINTS, MODEL, PENDING, ROLLOUTS};
use crate::stage::{CUT, StageContext, StageOutcome};
use crate::store::{FileInfo, Location, ShardInfo, sync_files};
use crate::train::{self, Cadence, Checkpoints, Observer, StepMetrics, Trainer};

/// `checkpoints = { every = …, keep = … }`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Optimizer steps between checkpoints; 0 keeps the end of the run alone.
    pub every: u64,
    /// Newest checkpoints kept, beside the best by held-out accuracy.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every: 100, keep: 2 }
    }
}

/// What a rollout source has sampled; the session stores its position with each checkpoint.
pub trait RolloutLog: Send {
    /// Whether there are answers that no checkpoint has.
    fn unstored(&self) -> bool;
    /// Puts what is not yet in a shard into the folder of the checkpoint of `step`, what is still under way
    /// included; answers with the shards so far.
    ///
    /// # Errors
    /// The disk refuses, or what is under way fails.
    fn store(&mut self, checkpoint: &Path, step: u64) -> Result<Vec<ShardInfo>>;
    /// Continues from [`RolloutLog::store`].
    ///
    /// # Errors
    /// The checkpoint is damaged.
    fn resume(&mut self, checkpoint: &Path, shards: Vec<ShardInfo>) -> Result<()>;
    /// Writes the last shard; answers with all.
    ///
    /// # Errors
    /// The disk refuses.
    fn finish(&mut self) -> Result<Vec<ShardInfo>>;
}

/// A training run's bookkeeping.
pub struct Session<'a, B: Backend> {
    cx: &'a StageContext<'a>,
    policy: &'a Policy<B>,
    checkpoints: CheckpointConfig,
    held_out: Option<HeldOut<B>>,
    /// Optimizer steps between measurements, and whether one comes before the first.
    measure: (u64, bool),
    rollouts: Option<Arc<Mutex<dyn RolloutLog + 'a>>>,
    steps: Vec<StepMetrics>,
    total: u64,
    /// When the metrics on disk were last brought up to date.
    written: Instant,
}

/// Longest that whoever watches a run waits for its newest metrics, where steps are not longer.
const WRITTEN_EVERY: Duration = Duration::from_secs(60);

/// What a run came to.
pub struct Trained {
    pub outcome: StageOutcome,
    /// Shards of the rollouts, if there were any.
    pub rollouts: Vec<ShardInfo>,
}

/// What a checkpoint keeps of the session, beside the trainer's own files.
#[derive(Serialize, Deserialize)]
struct Stored {
    steps: Vec<StepMetrics>,
    rollouts: Vec<ShardInfo>,
}

const STORED: &str = "session.json";

impl Stored {
    fn read(checkpoint: &Path) -> Result<Self> {
        let path = checkpoint.join(STORED);
        let bytes = std::fs::read(&path).or_fail(|| "cannot read the session of a checkpoint".into());
        let stored =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).or_fail(|| "the session is malformed".into()));
        stored
            .map_err(|e: Error| e.in_file(path.display()).hint("remove this checkpoint to resume from an earlier one"))
    }
}

/// Steps that a training stage would go on from; `None` if it has no checkpoint.
///
/// # Errors
/// The folder cannot be read, or is of another version of this program.
pub(crate) fn trained_steps(folder: &Location) -> Result<Option<u64>> {
    let newest = folder.join(CHECKPOINTS).as_local().map_or(Ok(None), Checkpoints::newest)?;
    Ok(newest.map(|checkpoint| checkpoint.step))
}

/// Rollouts of an unfinished training stage that are in no shard yet: a Parquet file of its newest checkpoint, unless a
/// shard that was written after the checkpoint has its rows.
///
/// # Errors
/// As [`trained_steps`]; the checkpoint is damaged.
pub(crate) fn pending_rollouts(folder: &Path) -> Result<Option<PathBuf>> {
    let Some(newest) = Checkpoints::newest(&folder.join(CHECKPOINTS))? else { return Ok(None) };
    let file = newest.path.join(PENDING);
    if !file.is_file() {
        return Ok(None);
    }
    let shards = Location::from(folder.join(ROLLOUTS)).list()?;
    let shards = shards.iter().filter(|entry| entry.name.ends_with(".parquet")).count();
    Ok((shards <= Stored::read(&newest.path)?.rollouts.len()).then_some(file))
}

/// The files of the model and of the adapter, and the metrics, with their digests: what others read of the stage.
/// Wall-clock times differ between equal runs, and checkpoints go.
fn left(folder: &Path) -> Result<Vec<FileInfo>> {
    let mut files = Vec::new();
    for part in [ADAPTER, MODEL] {
        let entries = Location::from(folder.join(part).as_path()).list()?.into_iter();
        files.extend(entries.filter(|entry| !entry.is_folder).map(|entry| format!("{part}/{}", entry.name)));
    }
    files.sort();
    files.push(metrics::METRICS.to_owned());
    files.into_iter().map(|file| FileInfo::of(folder, file)).collect()
}

/// Steps between measurements, and whether one comes before the first.
fn when(config: &HeldOutConfig) -> (u64, bool) {
    (config.every, config.before)
}

impl<'a, B: Backend> Session<'a, B> {
    pub fn new(
        cx: &'a StageContext<'a>,
        policy: &'a Policy<B>,
        checkpoints: CheckpointConfig,
        held_out: Option<HeldOut<B>>,
    ) -> Self {
        let measure = held_out.as_ref().map_or((0, false), |held_out| when(held_out.config()));
        Session {
            cx,
            policy,
            checkpoints,
            held_out,
            measure,
            rollouts: None,
            steps: Vec::new(),
            total: 0,
            written: Instant::now(),
        }
    }

    /// Measures the validation loss when `config` says, with or without held-out prompts.
    pub fn measuring(mut self, config: &HeldOutConfig) -> Self {
        self.measure = when(config);
        self
    }

    /// Stores a rollout source's position with each checkpoint.
    pub fn with_rollouts(mut self, log: Arc<Mutex<dyn RolloutLog + 'a>>) -> Self {
        self.rollouts = Some(log);
        self
    }

    /// Everything needed is in place, so the stage begins. Trains to the end, resuming from the newest checkpoint if there is
    /// one, and writes the model, the tokenizer and the metrics into the stage's folder. The metrics so far
    /// are there from the first checkpoint on, for whoever watches: nothing reads them back.
    ///
    /// # Errors
    /// Whatever the trainer or the disk fails with; [`Error::interrupted`] after Ctrl-C, when
    /// everything done is in a checkpoint.
    pub fn train(mut self, trainer: &mut dyn Trainer<B>) -> Result<Trained> {
        let folder = self.cx.local_folder()?;
        self.cx.begin()?;
        std::fs::create_dir_all(folder).or_fail(|| format!("cannot make {}", folder.display()))?;
        let checkpoints = Checkpoints::open(folder.join(CHECKPOINTS), self.checkpoints.keep)?;
        if let Some(checkpoint) = train::resume(trainer, &checkpoints)? {
            self.restore(&checkpoint.path)?;
        }
        trainer.keep_logits(self.policy.engine.limits())?;
        self.total = trainer.total_steps();
        self.cx.progress.start(self.total, "steps");
        self.cx.progress.advance(trainer.step());
        let (evaluate_every, evaluate_before) = self.measure;
        let cadence = Cadence { evaluate_every, checkpoint_every: self.checkpoints.every, evaluate_before };
        train::run(trainer, Some(&checkpoints), cadence, &mut self)?;
        let cut = trainer.is_cut();
        let mut trained = self.leave(folder)?;
        if cut {
            trained.outcome.facts.insert(CUT.to_owned(), true.into());
        }
        Ok(trained)
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let stored = Stored::read(checkpoint)?;
        self.steps = stored.steps;
        if let Some(log) = &self.rollouts {
            log.lock().unwrap_or_else(PoisonError::into_inner).resume(checkpoint, stored.rollouts)?;
        }
        Ok(())
    }

    /// Brings the metrics in the stage's folder up to date.
    fn write_metrics(&mut self) -> Result<()> {
        self.written = Instant::now();
        metrics::write(self.cx.local_folder()?, &self.steps)
    }

    fn leave(self, folder: &Path) -> Result<Trained> {
        let target = folder.join(MODEL);
        let mut outcome = StageOutcome::default();
        {
            let mut model = self.policy.model.write();
            // So that what the stage says and measures of the model is of the one that others load.
            model.round_to(self.policy.dtype)?;
            model.save(&target, self.policy.dtype)?;
            outcome.facts.insert("model_digest".to_owned(), model.digest().into());
            outcome.facts.insert("parameters".to_owned(), model.size().into());
        }
        self.policy.tokenizer.save(&target)?;
        // The manifest that follows says that the model is there, after a power cut too.
        sync_files(&target)?;
        self.leave_adapter(&folder.join(ADAPTER))?;
        metrics::write(folder, &self.steps)?;
        outcome.files = left(folder)?;
        outcome.count("steps", self.steps.len() as u64);
        let sum = |of: fn(&StepMetrics) -> Option<f64>| self.steps.iter().filter_map(of).sum::<f64>() as u64;
        outcome.count("tokens", sum(|s| s.tokens));
        outcome.count("sequences", sum(|s| s.sequences));
        outcome.count("skipped_steps", sum(|s| s.skipped));
        outcome.count("unusable", sum(|s| s.unusable));
        outcome.count("groups_failed", sum(|s| s.groups_failed));
        outcome.counts.retain(|_, n| *n > 0);
        let last = |of: fn(&StepMetrics) -> Option<f64>| self.steps.iter().rev().find_map(of);
        let mut figures = serde_json::Map::new();
        let named = [
            ("loss", last(|s| s.loss)),
            ("validation_loss_before", last(|s| s.validation_loss_before)),
            ("validation_loss", last(|s| s.validation_loss)),
            ("held_out_before", last(|s| s.evaluation_before)),
            ("held_out", last(|s| s.evaluation)),
        ];
        for (name, value) in named {
            figures.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        outcome.facts.insert(super::super::FIGURES.to_owned(), figures.into());
        idle(&self.steps).iter().for_each(|line| self.cx.progress.say(line));
        let rollouts = match &self.rollouts {
            Some(log) => log.lock().unwrap_or_else(PoisonError::into_inner).finish()?,
            None => Vec::new(),
        };
        Ok(Trained { outcome, rollouts })
    }

    /// Leaves the adapter that was trained beside the model, in f32, whatever that is written as; or none, where a run that was
    /// killed here and was to leave one had.
    fn leave_adapter(&self, target: &Path) -> Result<()> {
        match &self.policy.adapter_of {
            Some(base) => {
                self.policy.model.read().save_adapters(target, Some(base))?;
                sync_files(target)
            }
            None if target.is_dir() => std::fs::remove_dir_all(target)
                .or_fail(|| "an adapter that is not wanted any more cannot be removed".into())
                .map_err(|e| e.in_file(target.display())),
            None => Ok(()),
        }
    }
}

impl<B: Backend> Observer for Session<'_, B> {
    fn on_step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.cx.progress.latest(in_short(metrics, &self.steps));
        self.cx.progress.advance(1);
        let tenth = (self.total / 10).max(1);
        let measured = metrics.evaluation.is_some() || metrics.validation_loss.is_some();
        // The first says at once whether the run is what it was meant to be.
        if measured || metrics.step == 0 || (metrics.step + 1).is_multiple_of(tenth) {
            self.cx.progress.say(&describe(metrics, &self.steps, self.total));
        }
        self.steps.push(metrics.clone());
        if self.written.elapsed() >= WRITTEN_EVERY { self.write_metrics() } else { Ok(()) }
    }

    fn evaluate(&mut self, step: u64) -> Result<Option<f64>> {
        self.held_out.as_ref().map(|held_out| held_out.accuracy(self.cx, step)).transpose().map(Option::flatten)
    }

    fn stopping(&self) -> bool {
        self.cx.check_stop().is_err()
    }

    fn unstored(&self) -> bool {
        self.rollouts.as_ref().is_some_and(|log| log.lock().unwrap_or_else(PoisonError::into_inner).unstored())
    }

    fn on_checkpoint(&mut self, dir: &Path, step: u64) -> Result<()> {
        self.policy.tokenizer.save(&dir.join(MODEL))?;
        let rollouts = match &self.rollouts {
            Some(log) => log.lock().unwrap_or_else(PoisonError::into_inner).store(dir, step)?,
            None => Vec::new(),
        };
        // Wall-clock times would make equal checkpoints differ.
        let stored = Stored { steps: self.steps.iter().map(StepMetrics::timeless).collect(), rollouts };
        let bytes = serde_json::to_vec(&stored).or_fail(|| "cannot encode the session".into())?;
        std::fs::write(dir.join(STORED), bytes).or_fail(|| "cannot write the session".into())?;
        self.write_metrics()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_rollouts_are_those_that_no_shard_has() {
        let stage = tempfile::tempdir().unwrap();
        let pending = || pending_rollouts(stage.path()).unwrap();
        assert_eq!(pending(), None);
        let checkpoints = Checkpoints::open(stage.path().join(CHECKPOINTS), 1).unwrap();
        let newest = checkpoints.commit(3, None, |dir| {
            let stored = Stored { steps: Vec::new(), rollouts: Vec::new() };
            std::fs::write(dir.join(STORED), serde_json::to_vec(&stored).unwrap()).unwrap();
            std::fs::write(dir.join(PENDING), "rows").unwrap();
            Ok(())
        });
        assert_eq!(pending(), Some(newest.unwrap().path.join(PENDING)));
        // The run went on for a while, and was killed.
        std::fs::create_dir(stage.path().join(ROLLOUTS)).unwrap();
        std::fs::write(stage.path().join(ROLLOUTS).join("part-00000.parquet"), "the same rows, and more").unwrap();
        assert_eq!(pending(), None);
    }
}
