//! One training run inside a stage: progress, metrics, checkpoints, resume, the model it leaves.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::held_out::HeldOut;
use super::{Policy, metrics};
use crate::backend::Backend;
use crate::error::{Context, Error, Result};
use crate::stage::layout::{ADAPTER, CHECKPOINTS, MODEL};
use crate::stage::{Outcome, StageContext};
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
    /// Optimizer steps between measurements.
    measure_every: u64,
    rollouts: Option<Arc<Mutex<dyn RolloutLog + 'a>>>,
    steps: Vec<StepMetrics>,
    total: u64,
}

/// What a run came to.
pub struct Trained {
    pub outcome: Outcome,
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

/// Steps that a training stage would go on from; `None` if it has no checkpoint.
///
/// # Errors
/// The folder cannot be read, or is of another version of this program.
pub(crate) fn trained_steps(folder: &Location) -> Result<Option<u64>> {
    folder.join(CHECKPOINTS).as_local().map_or(Ok(None), Checkpoints::newest_step)
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

impl<'a, B: Backend> Session<'a, B> {
    pub fn new(
        cx: &'a StageContext<'a>,
        policy: &'a Policy<B>,
        checkpoints: CheckpointConfig,
        held_out: Option<HeldOut<B>>,
    ) -> Self {
        let measure_every = held_out.as_ref().map_or(0, HeldOut::every);
        Session { cx, policy, checkpoints, held_out, measure_every, rollouts: None, steps: Vec::new(), total: 0 }
    }

    /// Measures the validation loss every `steps` steps, with or without held-out prompts.
    pub fn measuring_every(mut self, steps: u64) -> Self {
        self.measure_every = steps;
        self
    }

    /// Stores a rollout source's position with each checkpoint.
    pub fn with_rollouts(mut self, log: Arc<Mutex<dyn RolloutLog + 'a>>) -> Self {
        self.rollouts = Some(log);
        self
    }

    /// Everything needed is in place, so the stage begins. Trains to the end, resuming from the newest checkpoint if there is
    /// one, and writes the model, the tokenizer and the metrics into the stage's folder.
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
        let cadence = Cadence { evaluate_every: self.measure_every, checkpoint_every: self.checkpoints.every };
        train::run(trainer, Some(&checkpoints), cadence, &mut self)?;
        self.leave(folder)
    }

    fn restore(&mut self, checkpoint: &Path) -> Result<()> {
        let path = checkpoint.join(STORED);
        let bytes = std::fs::read(&path).or_fail(|| "cannot read the session of a checkpoint".into());
        let stored: Stored = bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).or_fail(|| "the session is malformed".into()))
            .map_err(|e: Error| {
                e.in_file(path.display()).hint("remove this checkpoint to resume from an earlier one")
            })?;
        self.steps = stored.steps;
        if let Some(log) = &self.rollouts {
            log.lock().unwrap_or_else(PoisonError::into_inner).resume(checkpoint, stored.rollouts)?;
        }
        Ok(())
    }

    fn leave(self, folder: &Path) -> Result<Trained> {
        let target = folder.join(MODEL);
        let mut outcome = Outcome::default();
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
            ("validation_loss", last(|s| s.validation_loss)),
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

    /// One line of a step's figures, for people.
    fn describe(&self, m: &StepMetrics) -> String {
        let mut line = format!("step {}/{}", m.step + 1, self.total);
        // What describes a whole rollout batch is given with its first update only.
        let of_rollout = |of: fn(&StepMetrics) -> Option<f64>| of(m).or_else(|| self.steps.iter().rev().find_map(of));
        let figures = [
            ("loss", m.loss),
            ("reward", of_rollout(|m| m.reward_mean)),
            ("groups of one reward", of_rollout(|m| m.groups_without_variance).filter(|share| *share > 0.0)),
            ("pairs right", m.pair_accuracy),
            ("worst group loss", m.worst_group_loss),
            ("KL", m.kl_reference),
            ("entropy", m.entropy),
            ("length", of_rollout(|m| m.completion_tokens_mean)),
            ("gradient norm", m.grad_norm),
            ("tokens/s", m.tokens_per_second),
            ("validation loss", m.validation_loss),
            ("held-out accuracy", m.evaluation),
        ];
        for (name, value) in figures {
            if let Some(value) = value {
                let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
                line += &format!("  {name} {text}");
            }
        }
        line
    }
}

/// A line for people if most steps changed nothing, with what is known of why.
fn idle(steps: &[StepMetrics]) -> Option<String> {
    let skipped: Vec<&StepMetrics> = steps.iter().filter(|s| s.skipped == Some(1.0)).collect();
    if 2 * skipped.len() <= steps.len() {
        return None;
    }
    let broken = skipped.iter().filter(|s| s.grad_norm.is_some_and(|norm| !norm.is_finite())).count();
    let shares: Vec<f64> = steps.iter().filter_map(|s| s.groups_without_variance).collect();
    // Ratios are measured over tokens with an advantage alone.
    let flat = match shares.is_empty() {
        true => 0,
        false => skipped.iter().filter(|s| s.grad_norm == Some(0.0) && s.ratio_mean.is_none()).count(),
    };
    let still = skipped.len() - broken - flat;
    let mut reasons = Vec::new();
    if flat > 0 {
        let share = 100.0 * shares.iter().sum::<f64>() / shares.len() as f64;
        reasons.push(format!(
            "{flat} had no completion with an advantage: in {share:.0}% of the groups all completions had the same reward, which \
             leaves nothing to compare. Look at their rewards and reasons; harder or easier prompts, larger groups, other rules \
             or a model that can do some of it make rewards differ"
        ));
    }
    if still > 0 {
        let advantages = if shares.is_empty() { "" } else { ", though there were advantages" };
        reasons.push(format!(
            "{still} had a gradient of exactly 0{advantages}: the model is sure of every token it is trained on, or each was \
             clipped"
        ));
    }
    if broken > 0 {
        reasons.push(format!("{broken} had a gradient that is not finite: lower the learning rate"));
    }
    let (steps, skipped) = (steps.len(), skipped.len());
    let reasons = reasons.join("; ");
    Some(format!("warning: {skipped} of {steps} optimizer steps were skipped and changed nothing: {reasons}"))
}

impl<B: Backend> Observer for Session<'_, B> {
    fn on_step(&mut self, metrics: &StepMetrics) -> Result<()> {
        self.cx.progress.advance(1);
        let tenth = (self.total / 10).max(1);
        let measured = metrics.evaluation.is_some() || metrics.validation_loss.is_some();
        if measured || (metrics.step + 1).is_multiple_of(tenth) {
            self.cx.progress.say(&self.describe(metrics));
        }
        self.steps.push(metrics.clone());
        Ok(())
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
        std::fs::write(dir.join(STORED), bytes).or_fail(|| "cannot write the session".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(grad_norm: f64, ratio_mean: Option<f64>, flat: Option<f64>) -> StepMetrics {
        StepMetrics {
            skipped: Some(1.0),
            grad_norm: Some(grad_norm),
            ratio_mean,
            groups_without_variance: flat,
            ..StepMetrics::default()
        }
    }

    #[test]
    fn steps_that_changed_nothing_are_told_with_their_own_reasons() {
        let flat = skipped(0.0, None, Some(1.0));
        let sure = skipped(0.0, Some(1.0), Some(0.0));
        let broken = skipped(f64::NAN, Some(1.0), Some(0.0));
        let done = StepMetrics { skipped: Some(0.0), groups_without_variance: Some(0.0), ..StepMetrics::default() };
        assert_eq!(idle(&[flat.clone(), done.clone()]), None, "half of them taught");
        let line = idle(&[flat.clone(), flat, done.clone()]).unwrap();
        assert!(
            line.contains("2 of 3 ") && line.contains("2 had no completion with an advantage: in 67% of"),
            "{line}"
        );
        assert!(!line.contains("exactly 0") && !line.contains("not finite"), "{line}");
        let line = idle(&[sure.clone(), sure, broken, done]).unwrap();
        assert!(
            line.contains("2 had a gradient of exactly 0, though") && line.contains("1 had a gradient that"),
            "{line}"
        );
        assert!(!line.contains("same reward"), "{line}");
        let line = idle(&[skipped(0.0, None, None)]).unwrap();
        assert!(line.contains("1 had a gradient of exactly 0: the model"), "no groups, no advantages: {line}");
    }
}
