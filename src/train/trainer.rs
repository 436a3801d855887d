//! The loop that all trainers share: steps, held-out evaluation, checkpoints, resume.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::batch::MicroBatch;
use super::checkpoint::{Checkpoint, Checkpoints};
use super::grpo::Ahead;
use super::learner::{Applied, LearnerState};
use super::metrics::StepMetrics;
use super::objective::LossMetrics;
use super::order::Position;
use crate::backend::Backend;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::memory::Limits;
use crate::model::{Model, ParamInfo, SharedModel};

/// One way of training a policy, advanced step by step.
pub trait Trainer<B: Backend> {
    /// `sft`, `grpo` or `preference`: a checkpoint of one is refused by another.
    fn kind(&self) -> &'static str;

    /// Optimizer steps done, skipped ones included.
    fn step(&self) -> u64;

    /// Optimizer steps of the whole run.
    fn total_steps(&self) -> u64;

    /// The policy.
    fn model(&self) -> &SharedModel<B>;

    /// Spends memory that nothing else needs on speed: an engine of these limits will be there too.
    ///
    /// # Errors
    /// Where the memory is not there after all.
    fn keep_logits(&mut self, engine: Limits) -> Result<()>;

    /// Does the next step, or all updates of the next rollout batch.
    ///
    /// # Errors
    /// When data cannot be read, the policy cannot take it, or the gradient was not finite too often.
    /// [`Error::interrupted`] leaves the trainer as it was before.
    fn advance(&mut self) -> Result<Vec<StepMetrics>>;

    /// Loss of the policy as it is on data that nothing is learned from, in nats a token; `None` where there is none.
    /// Changes nothing of what follows.
    ///
    /// # Errors
    /// When the data cannot be read, or the policy cannot take it.
    fn validate(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Whether the run's end left out updates that a longer run makes, so that this one is not its beginning.
    fn is_cut(&self) -> bool {
        false
    }

    /// Writes all that [`Trainer::read`] needs to an empty folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn write(&self, dir: &Path) -> Result<()>;

    /// Continues from [`Trainer::write`] so that every later step gives the same bits.
    ///
    /// # Errors
    /// When the folder is damaged or of another run.
    fn read(&mut self, dir: &Path) -> Result<()>;
}

/// What a run tells its caller, and asks of it.
pub trait Observer {
    /// Called after every optimizer step, in order.
    ///
    /// # Errors
    /// An error stops the run; return [`Error::interrupted`] to stop on the user's wish.
    fn on_step(&mut self, metrics: &StepMetrics) -> Result<()>;

    /// Evaluates the policy on held-out prompts; higher is better. `step` is the number of steps
    /// done. The policy is the shared model that the trainer was made with.
    ///
    /// # Errors
    /// An error stops the run.
    fn evaluate(&mut self, _step: u64) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Asked when a step was interrupted: whether the source of its data holds what no checkpoint does, so that one
    /// more is worth it though no step was made.
    fn unstored(&self) -> bool {
        false
    }

    /// Asked after every update: `true` ends the run after a checkpoint, with [`Error::interrupted`].
    fn stopping(&self) -> bool {
        false
    }

    /// Adds to a checkpoint before it is committed: tokenizer files beside the weights in
    /// `dir/model`, a dataset's position. What is written here is covered by the manifest too.
    ///
    /// # Errors
    /// An error stops the run; the checkpoint is not committed.
    fn on_checkpoint(&mut self, _dir: &Path, _step: u64) -> Result<()> {
        Ok(())
    }
}

/// How often a run evaluates and saves. 0 is never; the end of the run always does both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cadence {
    /// Steps between evaluations.
    pub evaluate_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Whether what the run starts from is evaluated too.
    pub evaluate_before: bool,
}

impl Default for Cadence {
    fn default() -> Self {
        Cadence { evaluate_every: 50, checkpoint_every: 100, evaluate_before: false }
    }
}

/// Continues from the newest checkpoint, if there is one; returns it.
///
/// # Errors
/// When it is damaged or of another run.
pub fn resume<B: Backend>(trainer: &mut dyn Trainer<B>, checkpoints: &Checkpoints) -> Result<Option<Checkpoint>> {
    let Some(checkpoint) = checkpoints.latest()? else { return Ok(None) };
    checkpoint.verify()?;
    trainer.read(&checkpoint.path).map_err(|e| e.context(format!("resuming from step {}", checkpoint.step)))?;
    Ok(Some(checkpoint))
}

/// Trains to the end.
///
/// Evaluations and checkpoints fall on the first step at or after each multiple of their interval:
/// a GRPO trainer only stops between rollout batches. A step whose evaluation is better than that of every
/// checkpoint is kept too.
///
/// # Errors
/// Whatever the trainer, the observer or the disk fails with; weights that are not finite.
pub fn run<B: Backend>(
    trainer: &mut dyn Trainer<B>,
    checkpoints: Option<&Checkpoints>,
    cadence: Cadence,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mut start = None;
    // A run that goes on from a checkpoint has it from there, or has made no step and measures the same.
    if cadence.evaluate_before && trainer.step() == 0 && trainer.total_steps() > 0 {
        start = Some((observer.evaluate(0)?, trainer.validate()?));
    }
    while trainer.step() < trainer.total_steps() {
        let before = trainer.step();
        let mut steps = match trainer.advance() {
            Ok(steps) => steps,
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                if let Some(checkpoints) = checkpoints {
                    let latest = checkpoints.latest()?;
                    if latest.as_ref().map_or(0, |latest| latest.step) < before || observer.unstored() {
                        // One of the same step gives way, and what was measured stands.
                        let measured = latest.filter(|latest| latest.step == before).and_then(|latest| latest.metric);
                        commit(trainer, checkpoints, measured, observer)?;
                    }
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let after = trainer.step();
        if after <= before {
            return Err(Error::new(format!("the {} trainer made no step after step {before}", trainer.kind())));
        }
        let last = after >= trainer.total_steps();
        let due = |every: u64| last || (every > 0 && after / every > before / every);
        if let (Some((evaluation, loss)), Some(first)) = (start.take(), steps.first_mut()) {
            (first.evaluation_before, first.validation_loss_before) = (evaluation, loss);
        }
        let mut evaluation = None;
        if due(cadence.evaluate_every) {
            evaluation = observer.evaluate(after)?;
            let validation_loss = trainer.validate()?;
            if let Some(metrics) = steps.last_mut() {
                (metrics.evaluation, metrics.validation_loss) = (evaluation, validation_loss);
            }
        }
        for metrics in &steps {
            observer.on_step(metrics)?;
        }
        let stopping = !last && observer.stopping();
        if let Some(checkpoints) = checkpoints
            && (stopping || due(cadence.checkpoint_every) || is_best(checkpoints, evaluation)?)
        {
            commit(trainer, checkpoints, evaluation, observer)?;
        }
        if stopping {
            return Err(Error::interrupted());
        }
    }
    Ok(())
}

/// Whether an evaluation is better than that of every checkpoint.
fn is_best(checkpoints: &Checkpoints, evaluation: Option<f64>) -> Result<bool> {
    let Some(evaluation) = evaluation.filter(|metric| metric.is_finite()) else { return Ok(false) };
    Ok(checkpoints.best()?.and_then(|best| best.metric).is_none_or(|best| evaluation > best))
}

fn commit<B: Backend>(
    trainer: &dyn Trainer<B>,
    checkpoints: &Checkpoints,
    evaluation: Option<f64>,
    observer: &mut dyn Observer,
) -> Result<()> {
    let step = trainer.step();
    check_finite(&trainer.model().read(), step)?;
    checkpoints.commit(step, evaluation, |dir| {
        trainer.write(dir)?;
        observer.on_checkpoint(dir, step)
    })?;
    Ok(())
}

/// Refuses to keep weights that are no numbers: a step whose gradient was finite can still overflow them, and nothing
/// could go on from such a checkpoint.
fn check_finite<B: Backend>(model: &Model<B>, step: u64) -> Result<()> {
    let broken = |info: &&ParamInfo| !model.get(info).iter().all(|weight| weight.is_finite());
    let found = model.parameters().iter().find(broken);
    // A device that failed gives no numbers either, and says why.
    model.backend().finish()?;
    match found {
        Some(info) => Err(Error::new(format!("`{}` holds weights that are not finite after step {step}", info.name))
            .hint("lower the learning rate; the last checkpoint is from before")),
        None => Ok(()),
    }
}

/// The JSON part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainerState {
    pub kind: String,
    /// All random streams derive from it and from the counters below; there is no other RNG state.
    pub seed: u64,
    pub step: u64,
    pub position: Position,
    /// GRPO: rollouts that were begun and not trained on yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<Ahead>,
    pub learner: LearnerState,
    /// Where the reference policy is: in the checkpoint if it was refreshed, else what the run began with.
    pub reference: ReferencePlace,
    /// GRPO: whether the end of the run left updates of the last rollout batch out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Bits of log α_g of the group-robust objective (JSON does not promise to keep f64 exact).
    #[serde(default)]
    pub log_weights: Vec<u64>,
}

/// Where a resumed run finds its reference policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReferencePlace {
    None,
    /// The model the run began with, which the caller loads again.
    Initial,
    /// The folder `reference` of this checkpoint.
    Saved,
}

const STATE: &str = "trainer.json";

impl TrainerState {
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(STATE);
        let text = serde_json::to_vec_pretty(self).or_fail(|| "cannot encode the trainer's state".into())?;
        fs::write(&path, text)
            .or_fail(|| "cannot write the trainer's state".into())
            .map_err(|e| e.in_file(path.display()))
    }

    /// Reads the state and checks that it is of this kind of trainer and of this seed.
    pub fn read(dir: &Path, kind: &str, seed: u64) -> Result<Self> {
        let path = dir.join(STATE);
        let fail = |e: Error| e.in_file(path.display());
        let text = fs::read(&path).or_fail(|| "cannot read the trainer's state".into()).map_err(fail)?;
        let state: TrainerState =
            serde_json::from_slice(&text).or_fail(|| "the trainer's state is malformed".into()).map_err(fail)?;
        if (state.kind.as_str(), state.seed) != (kind, seed) {
            let message = format!(
                "the checkpoint is of a {} run with seed {}; this is a {kind} run with seed {seed}",
                state.kind, state.seed
            );
            return Err(fail(Error::new(message)).hint("use another output folder, or the same recipe and seed"));
        }
        Ok(state)
    }
}

/// The prompts of a batch for an error's text, each once, in order; the first twenty of them.
pub(super) fn some_ids<'a>(prompt_ids: impl Iterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = prompt_ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let more = if ids.len() > 20 { format!(" and {} more", ids.len() - 20) } else { String::new() };
    format!("{}{more}", ids[..ids.len().min(20)].join(", "))
}

/// Sums over the micro-batches of one optimizer step.
#[derive(Default)]
pub(super) struct StepTotals {
    pub loss: f64,
    pub metrics: LossMetrics,
    pub rows: usize,
}

impl StepTotals {
    pub fn add(&mut self, micro: &MicroBatch, outputs: &super::objective::LossOutputs) {
        self.loss += outputs.loss;
        self.metrics.merge(&outputs.metrics);
        self.rows += micro.batch.rows();
    }

    /// The step's metrics.
    pub fn report(&self, step: u64, rate: f64, applied: Applied, seconds: f64) -> StepMetrics {
        let flag = |on: bool| Some(f64::from(u8::from(on)));
        let mut metrics = StepMetrics {
            step,
            loss: Some(self.loss),
            learning_rate: Some(rate),
            grad_norm: Some(applied.grad_norm),
            grad_clipped: flag(applied.clipped),
            skipped: flag(!applied.applied),
            update_seconds: Some(seconds),
            tokens_per_second: (seconds > 0.0).then(|| self.rows as f64 / seconds),
            ..StepMetrics::default()
        };
        metrics.absorb(&self.metrics);
        metrics
    }
}

#[cfg(test)]
pub(super) mod testing;
