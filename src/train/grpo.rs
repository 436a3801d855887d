//! GRPO training: rollout, advantages, several updates, again.
//!
//! The same code trains on policy and off: a [`Rollout`] answers "the groups of these prompts",
//! whether it samples them from the policy now or reads them from a dataset ([`Offline`]).

mod config;
mod minibatch;
mod prepare;
mod rollout;

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::time::Instant;

pub use config::{GrpoTrainerConfig, OldLogprobs};
use minibatch::Minibatch;
use prepare::{Prepared, Trainee, is_stale, prepare, varies};
pub(super) use rollout::Ahead;
pub use rollout::{Offline, Rollout, ScoredCompletion, ScoredGroup};

use super::batch::Sequence;
use super::learner::{Applied, Learner, copy_weights, load_weights};
use super::metrics::StepMetrics;
use super::objective::{Grpo, Objective};
use super::order::Order;
use super::trainer::{ReferencePlace, StepTotals, Trainer, TrainerState, some_ids};
use crate::backend::{Backend, Cpu};
use crate::error::{Error, Result};
use crate::model::memory::Limits;
use crate::model::{Dtype, Model, SharedModel};
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
    /// Rollouts under way, in the order they will be trained on.
    ahead: VecDeque<Ahead>,
    /// Prompts asked of the policy as it is: the same seeds would give the same completions.
    asked: HashSet<usize>,
    step: u64,
    /// Whether the end of the run left updates of the last rollout batch out.
    cut: bool,
    /// Rollout batches in a row of which no group could be compared.
    rollouts_without_signal: u64,
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
    /// A usage error if a setting is out of range, there is no prompt, or a needed reference is missing or of another
    /// shape.
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
        if let Some(reference) = &reference {
            model.read().config().check_twin(reference.config())?;
        }
        if rollouts.prompts() == 0 {
            return Err(Error::new("there is nothing to train on: no prompts and no stored groups"));
        }
        let longest = rollouts.longest(model.read().config().context);
        Ok(GrpoTrainer {
            learner: Learner::new(model, config.optimizer.clone())?.with_memory(
                config.tokens_per_microbatch,
                longest,
                config.recompute,
            )?,
            reference,
            refreshed: false,
            order: Order::new(config.seed, "grpo order", rollouts.prompts(), config.shuffle),
            rollouts: Box::new(rollouts),
            objective,
            config,
            ahead: VecDeque::new(),
            asked: HashSet::new(),
            step: 0,
            cut: false,
            rollouts_without_signal: 0,
        })
    }

    /// Asks for a rollout batch (the oldest of those begun ahead, if there is one), and for more prompts in place of
    /// groups without variance and of those that failed.
    /// Returns the groups, and the counts of asked prompts, failed and stale groups.
    fn collect(&mut self) -> Result<(Vec<ScoredGroup>, StepMetrics)> {
        let start = Instant::now();
        let wanted = self.config.prompts_per_rollout;
        let mut kept: Vec<ScoredGroup> = Vec::new();
        let mut flat = Vec::new();
        let (mut asked, mut answered, mut stale) = (0, 0, 0);
        let mut begun = self.ahead.pop_front();
        self.asked.clear();
        self.asked.extend(begun.iter().flat_map(|ahead| &ahead.prompts));
        for _round in 0..=self.config.refill_rounds {
            let missing = wanted - kept.len();
            let Ahead { step, prompts } = begun.take().unwrap_or_else(|| self.next_prompts(missing));
            if prompts.is_empty() {
                break;
            }
            asked += prompts.len();
            for group in self.rollouts.rollout(step, &prompts)? {
                answered += 1;
                if is_stale(&group, &self.config, self.step) {
                    stale += 1;
                } else if kept.len() < wanted && (self.config.refill_rounds == 0 || varies(&group, &self.config)) {
                    kept.push(group);
                } else {
                    flat.push(group);
                }
            }
        }
        self.rollouts.collected()?;
        // Kept for the measurements: rewards and lengths are of all that was sampled, not of the
        // groups that happened to vary.
        kept.append(&mut flat);
        let ages: u64 = kept.iter().map(|group| self.step - group.policy_step.min(self.step)).sum();
        let ahead = self.config.rollouts_ahead > 0 && !kept.is_empty();
        let metrics = StepMetrics {
            prompts_asked: Some(asked as f64),
            groups_failed: Some((asked - answered.min(asked)) as f64),
            groups_stale: Some(f64::from(stale)),
            rollout_age: ahead.then(|| ages as f64 / kept.len() as f64),
            reload_seconds: self.rollouts.reload_seconds(),
            rollout_seconds: Some(start.elapsed().as_secs_f64()),
            ..StepMetrics::default()
        };
        Ok((kept, metrics))
    }

    /// The next prompts to ask the policy as it is now: each once.
    fn next_prompts(&mut self, count: usize) -> Ahead {
        Ahead { step: self.step, prompts: self.order.next_apart(count, &mut self.asked) }
    }

    /// Begins rollouts of the policy as it is now, as many as may be under way, and none beyond the last step.
    fn begin_ahead(&mut self) -> Result<()> {
        let updates = self.config.updates_per_rollout();
        while (self.ahead.len() as u64) < self.config.rollouts_ahead {
            let first_use = self.step.saturating_add(updates.saturating_mul(self.ahead.len() as u64 + 1));
            if first_use >= self.config.steps {
                break;
            }
            let ahead = self.next_prompts(self.config.prompts_per_rollout);
            if ahead.prompts.is_empty() {
                break;
            }
            self.rollouts.begin(ahead.step, &ahead.prompts)?;
            self.ahead.push_back(ahead);
        }
        Ok(())
    }

    /// Stops a run that cannot teach anything: no group of a whole epoch could be compared. `truncated` is the share of
    /// this batch's completions that were cut at their limit.
    fn check_signal(&mut self, comparable: usize, truncated: Option<f64>) -> Result<()> {
        self.rollouts_without_signal = if comparable == 0 { self.rollouts_without_signal + 1 } else { 0 };
        let prompts = self.rollouts.prompts();
        if self.rollouts_without_signal < prompts.div_ceil(self.config.prompts_per_rollout) as u64 {
            return Ok(());
        }
        if let Some(share) = truncated.filter(|&share| self.config.mask_truncated && share > 0.0) {
            return Err(Error::new(format!(
                "there is nothing to learn from in {prompts} groups, which is all: `mask_truncated` leaves out what was \
                 cut at the token limit, which is {:.0} % of the completions",
                100.0 * share
            ))
            .hint("raise the `max_tokens` that completions are sampled with, or leave `mask_truncated` out"));
        }
        let context = self.learner.context();
        let why =
            self.rollouts.without_reward().map_or_else(String::new, |why| format!("; no reward because of: {why}"));
        Err(Error::new(format!(
            "there is nothing to learn from in {prompts} groups, which is all: none has two completions with a reward \
             that fit the model's context of {context} tokens{why}"
        ))
        .hint(
            "look at the groups' rewards (`reason` says why one is missing) and at how many completions they have; stale and failed groups do not count",
        ))
    }

    /// Whether a completion can have a gradient: those that cannot are counted in the normaliser
    /// and are only measured.
    fn teaches(&self, trainee: &Trainee) -> bool {
        trainee.advantage != 0.0 || self.objective.needs_reference() || self.objective.needs_entropy()
    }

    /// Logprobs of some trainees under the policy or the reference, by trainee.
    fn score(&mut self, trainees: &[Trainee], which: &[usize], reference: bool) -> Result<Vec<Vec<f32>>> {
        let sequences: Vec<&Sequence> = which.iter().map(|&i| &trainees[i].sequence).collect();
        let mut scored = vec![Vec::new(); which.len()];
        let micros = self.learner.pack(&sequences, 1, self.config.tokens_per_microbatch);
        let scores = match &self.reference {
            Some(model) if reference => self.learner.score_with(model, &micros)?,
            _ => self.learner.score(&micros)?,
        };
        for (micro, scores) in micros.iter().zip(&scores) {
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
        let pack = |members: &[usize]| {
            let sequences: Vec<&Sequence> = members.iter().map(|&k| &trainees[chosen[k]].sequence).collect();
            let mut micros = self.learner.pack(&sequences, 1, self.config.tokens_per_microbatch);
            // From here on their sequences index `chosen`.
            micros.iter_mut().flat_map(|micro| &mut micro.sequences).for_each(|s| *s = members[*s]);
            micros
        };
        // What has no gradient goes forward alone, to be measured as the others are, in micro-batches of its own.
        let (teaching, others): (Vec<usize>, Vec<usize>) =
            (0..chosen.len()).partition(|&k| self.teaches(&trainees[chosen[k]]));
        let micros = [pack(&teaching), pack(&others)].concat();
        let minibatch = Minibatch {
            objective: &self.objective,
            recomputed: self.config.old_logprobs == OldLogprobs::Recompute,
            first,
            trainees,
            chosen,
            weights: &weights,
            old,
            reference: reference.as_deref(),
        };
        let passed = self.learner.accumulate(&micros, |i, scores| minibatch.loss(&micros[i], scores))?;
        let mut totals = StepTotals::default();
        for (micro, (scores, outputs)) in micros.iter().zip(&passed) {
            for (k, range) in micro.ranges() {
                old[chosen[k]].get_or_insert_with(|| scores.logprobs[range].to_vec());
            }
            totals.add(micro, outputs);
        }
        let rate = self.config.schedule.rate(self.step, self.config.steps);
        let ids = || some_ids(chosen.iter().map(|&i| trainees[i].prompt_id.as_str()));
        let applied = self.learner.step(rate, || format!("completions of the prompts {}", ids()))?;
        let metrics = StepMetrics {
            sequences: Some(chosen.len() as f64),
            tokens: Some(lengths.iter().sum::<usize>() as f64),
            ..totals.report(self.step, rate, applied, start.elapsed().as_secs_f64())
        };
        self.step += 1;
        Ok(metrics)
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

    fn keep_logits(&mut self, engine: Limits) -> Result<()> {
        self.learner.keep_logits(engine)
    }

    fn advance(&mut self) -> Result<Vec<StepMetrics>> {
        let first_step = self.step;
        let before = (self.order.position(), self.ahead.clone());
        let (groups, asked) = match self.collect() {
            Ok(collected) => collected,
            Err(error) => {
                self.order.seek(before.0);
                self.ahead = before.1;
                return Err(error);
            }
        };
        self.begin_ahead()?;
        let Prepared { trainees, comparable, metrics: measured } =
            prepare(&groups, &self.config, self.learner.context());
        drop(groups);
        self.check_signal(comparable, measured.truncated)?;
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
            let room = (self.config.steps - first_step) as usize;
            self.cut = updates.len() > room;
            for (i, chosen) in updates.iter().enumerate().take(room) {
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
            copy_weights(&self.learner.model().read(), reference);
            self.refreshed = true;
        }
        // What describes the rollout batch is told with its first update.
        if let Some(first) = steps.first_mut() {
            *first = std::mem::take(first).or(measured).or(asked);
        }
        Ok(steps)
    }

    fn is_cut(&self) -> bool {
        self.cut
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
            ahead: self.ahead.iter().cloned().collect(),
            learner: self.learner.state(),
            reference,
            cut: self.cut,
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
        self.ahead = state.ahead.into();
        (self.step, self.cut) = (state.step, state.cut);
        Ok(())
    }
}

const REFERENCE: &str = "reference";

#[cfg(test)]
mod tests;
