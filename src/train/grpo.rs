//! GRPO training: rollout, advantages, several updates, again.
//!
//! The same code trains on policy and off: a [`Rollout`] answers "the groups of these prompts",
//! whether it samples them from the policy now or reads them from a dataset ([`Offline`]).

mod config;
mod prepare;
mod rollout;

use std::path::Path;
use std::time::Instant;

pub use config::{GrpoTrainerConfig, OldLogprobs};
use prepare::{Trainee, is_stale, prepare, varies};
pub use rollout::{Offline, Rollout, ScoredCompletion, ScoredGroup};

use super::batch::{MicroBatch, Sequence, pack};
use super::learner::{Applied, Learner, SharedModel, copy_weights, load_weights, read};
use super::metrics::StepMetrics;
use super::objective::{Grpo, LossInputs, Objective};
use super::order::Order;
use super::trainer::{ReferencePlace, StepTotals, Trainer, TrainerState};
use crate::backend::{Backend, Cpu};
use crate::error::{Error, Result};
use crate::model::{Dtype, Model};
use crate::seed;

/// Trains a policy on scored groups.
pub struct GrpoTrainer<'a, B: Backend = Cpu> {
    learner: Learner<B>,
    reference: Option<Model<B>>,
    refreshed: bool,
    rollouts: Box<dyn Rollout + 'a>,
    objective: Grpo,
    config: GrpoTrainerConfig,
    order: Order,
    step: u64,
}

/// A rollout batch ready to be trained on.
struct RolloutBatch {
    trainees: Vec<Trainee>,
    /// Log π_old of each trainee, where it is known already.
    old: Vec<Option<Vec<f32>>>,
    /// Log π_ref of each trainee, if the objective needs it.
    reference: Option<Vec<Vec<f32>>>,
}

impl<'a, B: Backend> GrpoTrainer<'a, B> {
    /// `reference` is usually another copy of `model`; it may be absent if the objective has no KL penalty.
    ///
    /// # Errors
    /// A usage error if a setting is out of range, there is no prompt, or a needed reference is missing.
    pub fn new(
        model: SharedModel<B>,
        reference: Option<Model<B>>,
        rollouts: impl Rollout + 'a,
        config: GrpoTrainerConfig,
    ) -> Result<Self> {
        config.validate()?;
        let objective = Grpo::new(config.objective.clone())?;
        if objective.needs_reference() && reference.is_none() {
            return Err(
                Error::usage("a KL penalty needs a reference model").hint("give one, or set `kl_coefficient` to 0")
            );
        }
        if rollouts.prompts() == 0 {
            return Err(Error::new("there is nothing to train on: no prompts and no stored groups"));
        }
        Ok(GrpoTrainer {
            learner: Learner::new(model, config.optimizer.clone())?
                .with_memory(config.tokens_per_microbatch, config.recompute)?,
            reference,
            refreshed: false,
            order: Order::new(config.seed, "grpo order", rollouts.prompts(), config.shuffle),
            rollouts: Box::new(rollouts),
            objective,
            config,
            step: 0,
        })
    }

    /// Asks for a rollout batch, and for more prompts in place of groups without variance.
    /// Returns the groups, and the counts of asked prompts, stale groups and groups without variance.
    fn collect(&mut self) -> Result<(Vec<ScoredGroup>, StepMetrics)> {
        let start = Instant::now();
        let wanted = self.config.prompts_per_rollout;
        let mut kept: Vec<ScoredGroup> = Vec::new();
        let mut flat = Vec::new();
        let (mut asked, mut stale) = (0, 0);
        for _round in 0..=self.config.refill_rounds {
            let missing = wanted - kept.len();
            if missing == 0 {
                break;
            }
            let prompts = self.order.next(missing);
            asked += prompts.len();
            for group in self.rollouts.rollout(self.step, &prompts)? {
                if is_stale(&group, &self.config, self.step) {
                    stale += 1;
                } else if kept.len() < wanted && (self.config.refill_rounds == 0 || varies(&group, &self.config)) {
                    kept.push(group);
                } else {
                    flat.push(group);
                }
            }
        }
        // Kept for the measurements: rewards and lengths are of all that was sampled, not of the
        // groups that happened to vary.
        kept.append(&mut flat);
        let metrics = StepMetrics {
            prompts_asked: Some(asked as f64),
            groups_stale: Some(f64::from(stale)),
            rollout_seconds: Some(start.elapsed().as_secs_f64()),
            ..StepMetrics::default()
        };
        Ok((kept, metrics))
    }

    /// Whether a completion can have a gradient: those that cannot are counted in the normaliser
    /// and cost no pass.
    fn teaches(&self, trainee: &Trainee) -> bool {
        trainee.advantage != 0.0 || self.objective.needs_reference() || self.objective.needs_entropy()
    }

    /// Logprobs of some trainees under the policy or the reference, by trainee.
    fn score(&mut self, trainees: &[Trainee], which: &[usize], reference: bool) -> Result<Vec<Vec<f32>>> {
        let sequences: Vec<&Sequence> = which.iter().map(|&i| &trainees[i].sequence).collect();
        let mut scored = vec![Vec::new(); which.len()];
        for micro in pack(&sequences, 1, self.config.tokens_per_microbatch) {
            let scores = match &self.reference {
                Some(model) if reference => self.learner.score_with(model, &micro)?,
                _ => self.learner.score(&micro)?,
            };
            for (i, range) in micro.ranges() {
                scored[i] = scores.logprobs[range].to_vec();
            }
        }
        Ok(scored)
    }

    /// Splits the trainees at random into the minibatches of one epoch.
    fn split(&self, trainees: usize, epoch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..trainees).collect();
        // The step that the epoch begins with names its stream, so a resumed run draws the same.
        let first = self.step + (epoch * self.config.minibatches) as u64;
        seed::stream(self.config.seed, "grpo minibatches", first).shuffle(&mut order);
        let count = self.config.minibatches;
        let bound = |i: usize| i * trainees / count;
        let mut batches: Vec<Vec<usize>> = (0..count).map(|i| order[bound(i)..bound(i + 1)].to_vec()).collect();
        batches.iter_mut().for_each(|batch| batch.sort_unstable());
        batches
    }

    /// π_old and π_ref of a rollout batch, before its first update.
    fn freeze(&mut self, trainees: Vec<Trainee>, first_update: &[usize], updates: usize) -> Result<RolloutBatch> {
        let known = |t: &Trainee| t.rollout.iter().all(|l| l.is_finite());
        let mut old: Vec<Option<Vec<f32>>> = match self.config.old_logprobs {
            OldLogprobs::Rollout => trainees.iter().map(|t| known(t).then(|| t.rollout.clone())).collect(),
            OldLogprobs::Recompute => vec![None; trainees.len()],
        };
        let teaching: Vec<usize> = (0..trainees.len()).filter(|&i| self.teaches(&trainees[i])).collect();
        if updates > 1 {
            // The first update's own forward pass gives π_old of its completions.
            let mut later = vec![true; trainees.len()];
            first_update.iter().for_each(|&i| later[i] = false);
            let unknown: Vec<usize> = teaching.iter().copied().filter(|&i| later[i] && old[i].is_none()).collect();
            for (&i, logprobs) in unknown.iter().zip(self.score(&trainees, &unknown, false)?) {
                old[i] = Some(logprobs);
            }
        }
        let mut reference = None;
        if self.objective.needs_reference() {
            let mut all = vec![Vec::new(); trainees.len()];
            for (&i, logprobs) in teaching.iter().zip(self.score(&trainees, &teaching, true)?) {
                all[i] = logprobs;
            }
            reference = Some(all);
        }
        Ok(RolloutBatch { trainees, old, reference })
    }

    /// One optimizer step on some trainees of the batch. `first` says that the policy is still π_old.
    fn update(&mut self, batch: &mut RolloutBatch, chosen: &[usize], first: bool) -> Result<StepMetrics> {
        let start = Instant::now();
        let RolloutBatch { trainees, old, reference } = batch;
        let lengths: Vec<usize> = chosen.iter().map(|&i| trainees[i].rollout.len()).collect();
        let weights = self.config.objective.aggregation.weights(&lengths);
        // Without one advantage there is nothing to learn from; a penalty alone makes no step.
        let usable = chosen.iter().any(|&i| trainees[i].advantage != 0.0);
        let teaching: Vec<usize> =
            (0..chosen.len()).filter(|&k| usable && self.teaches(&trainees[chosen[k]])).collect();
        let sequences: Vec<&Sequence> = teaching.iter().map(|&k| &trainees[chosen[k]].sequence).collect();
        let mut totals = StepTotals::default();
        for mut micro in pack(&sequences, 1, self.config.tokens_per_microbatch) {
            micro.sequences.iter_mut().for_each(|s| *s = teaching[*s]);
            let outputs = self.micro_update(&micro, chosen, &weights, trainees, old, reference.as_deref(), first)?;
            totals.add(&micro, &outputs);
        }
        let rate = self.config.schedule.rate(self.step, self.config.steps);
        let applied = self.learner.step(rate, || culprits(chosen.iter().map(|&i| trainees[i].prompt_id.as_str())))?;
        let metrics = StepMetrics {
            sequences: Some(chosen.len() as f64),
            tokens: Some(lengths.iter().sum::<usize>() as f64),
            ..totals.report(self.step, rate, applied, start.elapsed().as_secs_f64())
        };
        self.step += 1;
        Ok(metrics)
    }

    /// Forward and backward of one micro-batch; its sequences index `chosen` and `weights`.
    #[allow(clippy::too_many_arguments)]
    fn micro_update(
        &mut self,
        micro: &MicroBatch,
        chosen: &[usize],
        weights: &[f32],
        trainees: &[Trainee],
        old: &mut [Option<Vec<f32>>],
        reference: Option<&[Vec<f32>]>,
        first: bool,
    ) -> Result<super::objective::LossOutputs> {
        let (objective, source) = (&self.objective, self.config.old_logprobs);
        let weights = micro.pick(weights);
        let members: Vec<usize> = micro.sequences.iter().map(|&k| chosen[k]).collect();
        let advantages: Vec<f32> = members.iter().map(|&i| trainees[i].advantage).collect();
        let gather = |of: &dyn Fn(usize) -> Vec<f32>| members.iter().flat_map(|&i| of(i)).collect::<Vec<f32>>();
        let rollout = gather(&|i| trainees[i].rollout.clone());
        let any_rollout = rollout.iter().any(|l| l.is_finite());
        let reference = reference.map(|all| gather(&|i| all[i].clone()));
        self.learner.accumulate(micro, |scores| {
            for ((_, range), &i) in micro.ranges().zip(&members) {
                old[i].get_or_insert_with(|| scores.logprobs[range].to_vec());
            }
            let old_logprobs: Vec<f32> = members.iter().flat_map(|&i| old[i].iter().flatten().copied()).collect();
            let recomputed = source == OldLogprobs::Recompute;
            let mut outputs = objective.loss(&LossInputs {
                offsets: &micro.offsets,
                weights: &weights,
                logprobs: &scores.logprobs,
                entropy: Some(&scores.entropies),
                old_logprobs: Some(&old_logprobs),
                reference_logprobs: reference.as_deref(),
                rollout_logprobs: (any_rollout && recomputed).then_some(&rollout),
                advantages: &advantages,
            })?;
            if first && !recomputed {
                // The policy has not moved yet, so its own pass shows the gap to the sampler.
                for (trainer, sampler) in scores.logprobs.iter().zip(&rollout).filter(|(_, s)| s.is_finite()) {
                    let gap = (f64::from(*trainer) - f64::from(*sampler)).abs();
                    outputs.metrics.rollout_gap.add(gap);
                    outputs.metrics.rollout_gap_max.add(gap);
                }
            }
            Ok(outputs)
        })
    }

    /// A step in which there was nothing to update on.
    fn skip(&mut self) -> StepMetrics {
        let rate = self.config.schedule.rate(self.step, self.config.steps);
        let nothing = Applied { grad_norm: 0.0, clipped: false, applied: false };
        let metrics = StepMetrics {
            sequences: Some(0.0),
            tokens: Some(0.0),
            ..StepTotals::default().report(self.step, rate, nothing, 0.0)
        };
        self.step += 1;
        metrics
    }
}

/// The prompts of a batch, each once, in order; the first twenty of them.
fn culprits<'a>(prompt_ids: impl Iterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = prompt_ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let more = if ids.len() > 20 { format!(" and {} more", ids.len() - 20) } else { String::new() };
    format!("completions of the prompts {}{more}", ids[..ids.len().min(20)].join(", "))
}

impl<B: Backend> Trainer<B> for GrpoTrainer<'_, B> {
    fn kind(&self) -> &'static str {
        "grpo"
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn total_steps(&self) -> u64 {
        self.config.steps
    }

    fn model(&self) -> &SharedModel<B> {
        self.learner.model()
    }

    fn advance(&mut self) -> Result<Vec<StepMetrics>> {
        let first_step = self.step;
        let (groups, asked) = self.collect()?;
        let context = self.learner.context();
        let (trainees, measured) = prepare(&groups, &self.config, context);
        drop(groups);
        let mut steps = Vec::new();
        if trainees.is_empty() {
            steps.push(self.skip());
        } else {
            let epochs: Vec<Vec<Vec<usize>>> =
                (0..self.config.epochs).map(|epoch| self.split(trainees.len(), epoch)).collect();
            // A small batch may have fewer completions than minibatches.
            let updates: Vec<Vec<usize>> = epochs.into_iter().flatten().filter(|m| !m.is_empty()).collect();
            let start = Instant::now();
            let mut batch = self.freeze(trainees, &updates[0], updates.len())?;
            let frozen = start.elapsed().as_secs_f64();
            for (i, chosen) in updates.iter().enumerate().take((self.config.steps - first_step) as usize) {
                let mut metrics = self.update(&mut batch, chosen, i == 0)?;
                if i == 0 {
                    metrics.update_seconds = metrics.update_seconds.map(|s| s + frozen);
                }
                steps.push(metrics);
            }
        }
        let refresh = self.config.reference_refresh;
        if let Some(reference) = &mut self.reference
            && refresh > 0
            && self.step / refresh > first_step / refresh
        {
            copy_weights(&read(self.learner.model()), reference);
            self.refreshed = true;
        }
        if let Some(first) = steps.first_mut() {
            *first = with_rollout(std::mem::take(first), measured, asked);
        }
        Ok(steps)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        self.learner.write(dir)?;
        let reference = match &self.reference {
            None => ReferencePlace::None,
            Some(_) if !self.refreshed => ReferencePlace::Initial,
            Some(reference) => {
                reference.save(&dir.join(REFERENCE), Dtype::F32)?;
                ReferencePlace::Saved
            }
        };
        TrainerState {
            kind: self.kind().into(),
            seed: self.config.seed,
            step: self.step,
            position: self.order.position(),
            learner: self.learner.state(),
            reference,
            log_weights: Vec::new(),
        }
        .write(dir)
    }

    fn read(&mut self, dir: &Path) -> Result<()> {
        let state = TrainerState::read(dir, self.kind(), self.config.seed)?;
        self.learner.read(dir, state.learner)?;
        match (&mut self.reference, state.reference) {
            (Some(reference), ReferencePlace::Saved) => load_weights(reference, &dir.join(REFERENCE))?,
            (Some(_), ReferencePlace::Initial) | (None, _) => {}
            (Some(_), ReferencePlace::None) => {
                return Err(Error::new("the checkpoint is of a run without a reference model; this run has one")
                    .in_file(dir.display()));
            }
        }
        self.refreshed = state.reference == ReferencePlace::Saved;
        self.order.seek(state.position);
        self.step = state.step;
        Ok(())
    }
}

const REFERENCE: &str = "reference";

/// The first update's metrics with those of the rollout batch.
fn with_rollout(update: StepMetrics, measured: StepMetrics, asked: StepMetrics) -> StepMetrics {
    StepMetrics {
        reward_mean: measured.reward_mean,
        reward_std: measured.reward_std,
        reward_missing: measured.reward_missing,
        advantage_abs_mean: measured.advantage_abs_mean,
        advantage_max: measured.advantage_max,
        advantage_min: measured.advantage_min,
        group_count: measured.group_count,
        groups_without_variance: measured.groups_without_variance,
        completion_tokens_mean: measured.completion_tokens_mean,
        completion_tokens_max: measured.completion_tokens_max,
        truncated: measured.truncated,
        unusable: measured.unusable,
        rules: measured.rules,
        prompts_asked: asked.prompts_asked,
        groups_stale: asked.groups_stale,
        rollout_seconds: asked.rollout_seconds,
        ..update
    }
}

#[cfg(test)]
mod tests;
