//! Preference optimisation: DPO and IPO, plain or group robust.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize};

use super::batch::{MicroBatch, Packed, Sequence, Source};
use super::learner::Learner;
use super::metrics::{GroupMetrics, StepMetrics};
use super::objective::{GroupRobust, GroupRobustConfig, LossInputs, Objective, Preference, PreferenceConfig};
use super::optimizer::OptimizerConfig;
use super::order::Order;
use super::schedule::Schedule;
use super::trainer::{ReferencePlace, StepTotals, Trainer, TrainerState, some_ids};
use crate::backend::{Backend, Cpu};
use crate::error::{Error, Result};
use crate::model::memory::Limits;
use crate::model::{Model, Scores, SharedModel};

/// Settings of [`PreferenceTrainer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceTrainerConfig {
    /// DPO or IPO, and its β.
    pub objective: PreferenceConfig,
    /// How groups are weighed; uniform is plain DPO or IPO.
    pub groups: GroupRobustConfig,
    /// Passes over the data.
    pub epochs: u64,
    /// Optimizer steps instead of whole epochs, if above 0.
    pub steps: u64,
    /// Pairs an optimizer step.
    pub batch_size: usize,
    /// Most tokens of a side of a pair, its prompt included; what is longer is left out. The model's context alone if absent.
    pub max_tokens: Option<usize>,
    /// Most tokens of a micro-batch: bounds memory, and decides nothing but the order in which gradients are added. A
    /// sequence that is longer has one of its own.
    pub tokens_per_microbatch: usize,
    /// Make activations again in the backward pass instead of keeping them: less memory, a third more work, the same bits.
    pub recompute: bool,
    /// The learning rate over all steps; cosine from 5e-7 by default.
    #[serde(deserialize_with = "over_default")]
    pub schedule: Schedule,
    /// The update rule and its bounds on gradients.
    pub optimizer: OptimizerConfig,
    /// Visit pairs in a new order every epoch.
    pub shuffle: bool,
    /// Decides the order of pairs. In a recipe 0, the default, means the run's seed.
    pub seed: u64,
}

impl Default for PreferenceTrainerConfig {
    fn default() -> Self {
        PreferenceTrainerConfig {
            objective: PreferenceConfig::default(),
            groups: GroupRobustConfig::default(),
            epochs: 1,
            steps: 0,
            batch_size: 64,
            max_tokens: None,
            tokens_per_microbatch: 16_384,
            recompute: false,
            schedule: Schedule { learning_rate: 5e-7, ..Schedule::default() },
            optimizer: OptimizerConfig::default(),
            shuffle: true,
            seed: 0,
        }
    }
}

fn over_default<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Schedule, D::Error> {
    PreferenceTrainerConfig::default().schedule.read_over(from)
}

impl PreferenceTrainerConfig {
    /// # Errors
    /// A usage error that names the field out of range.
    pub fn validate(&self) -> Result<()> {
        super::some_steps(self.epochs, self.steps)?;
        super::at_least_one(&[
            ("batch_size", self.batch_size as u64),
            ("max_tokens", self.max_tokens.unwrap_or(1) as u64),
            ("tokens_per_microbatch", self.tokens_per_microbatch as u64),
        ])?;
        self.objective.validate()?;
        self.groups.validate()?;
        self.schedule.validate()?;
        self.optimizer.validate()
    }

    /// Whether a run of so many steps is the beginning of this one.
    pub fn goes_on_after(&self, steps: u64) -> bool {
        self.steps > steps && self.schedule.is_of_any_length()
    }
}

/// Two answers to one prompt, as token ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What failures and logs call the pair.
    pub prompt_id: String,
    /// Token ids, template included.
    pub prompt: Vec<u32>,
    /// Token ids of the better answer, with its end of turn unless it was cut.
    pub chosen: Vec<u32>,
    /// Token ids of the worse answer, with its end of turn unless it was cut.
    pub rejected: Vec<u32>,
    /// Index into the trainer's groups.
    pub group: usize,
}

impl Pair {
    /// The prompt with each answer, the better one first.
    pub fn sides(&self) -> [Sequence; 2] {
        [&self.chosen, &self.rejected].map(|side| Sequence::completion(&self.prompt, side))
    }

    /// Why a model with this context cannot be trained on it, as [`Sequence::fault`] tells it of one of its sides.
    pub fn fault(&self, context: usize) -> Option<(&'static str, String)> {
        self.fault_within(context, None)
    }

    /// The same where a side may have no more than `most` tokens, as [`Sequence::fault_within`].
    pub fn fault_within(&self, context: usize, most: Option<usize>) -> Option<(&'static str, String)> {
        let faults = ["chosen", "rejected"].into_iter().zip(self.sides());
        let mut faults = faults.filter_map(|(side, sequence)| Some((side, sequence.fault_within(context, most)?)));
        faults.next().map(|(side, (code, fault))| (code, format!("{side}: {fault}")))
    }
}

impl Packed for Pair {
    fn rows(&self, context: usize) -> Option<usize> {
        self.fault(context).is_none().then(|| self.sides().iter().map(Sequence::rows).sum())
    }
}

/// A group of the group-robust objective: a domain, a language, or the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its value in the dataset's column, such as `math` or `fr`.
    pub name: String,
    /// Its pairs in the whole data set.
    pub pairs: u64,
}

/// Trains a policy on pairs against a frozen reference.
pub struct PreferenceTrainer<'a, B: Backend = Cpu> {
    learner: Learner<B>,
    reference: Model<B>,
    data: Box<dyn Source<Pair> + 'a>,
    groups: Vec<Group>,
    objective: Preference,
    weigher: GroupRobust,
    config: PreferenceTrainerConfig,
    order: Order,
    step: u64,
}

impl<'a, B: Backend> PreferenceTrainer<'a, B> {
    /// `reference` is usually another copy of `model`; it never changes. Both sides of every pair have to fit the context
    /// and to have a token ([`Pair::fault`]): what does not is the caller's to leave out and to count, and ends the run
    /// where a batch has it.
    ///
    /// # Errors
    /// A usage error if a setting is out of range, there is no data, a group is empty, or the reference is of another
    /// shape.
    pub fn new(
        model: SharedModel<B>,
        reference: Model<B>,
        data: impl Source<Pair> + 'a,
        groups: Vec<Group>,
        config: PreferenceTrainerConfig,
    ) -> Result<Self> {
        config.validate()?;
        model.read().config().check_twin(reference.config())?;
        if data.is_empty() {
            return Err(Error::new("there is nothing to train on: the preferences have no rows"));
        }
        let sizes: Vec<u64> = groups.iter().map(|g| g.pairs).collect();
        let longest = data.longest(model.read().config().context);
        Ok(PreferenceTrainer {
            objective: Preference::new(config.objective.clone())?,
            weigher: GroupRobust::new(config.groups.clone(), &sizes)?,
            order: Order::new(config.seed, "preference order", data.len(), config.shuffle),
            learner: Learner::new(model, config.optimizer.clone())?.with_memory(
                config.tokens_per_microbatch,
                longest,
                config.recompute,
            )?,
            data: Box::new(data),
            reference,
            groups,
            config,
            step: 0,
        })
    }

    fn steps_per_epoch(&self) -> u64 {
        self.data.len().div_ceil(self.config.batch_size) as u64
    }

    fn group_metrics(&self, groups: &[usize], losses: &[f64]) -> Vec<GroupMetrics> {
        let weights = self.weigher.weights();
        let mut metrics: Vec<GroupMetrics> = self
            .groups
            .iter()
            .zip(weights)
            .map(|(group, weight)| GroupMetrics { group: group.name.clone(), weight, loss: None, pairs: 0 })
            .collect();
        for (&g, &loss) in groups.iter().zip(losses) {
            metrics[g].pairs += 1;
            *metrics[g].loss.get_or_insert(0.0) += loss;
        }
        for group in &mut metrics {
            group.loss = group.loss.map(|sum| sum / group.pairs as f64);
        }
        metrics
    }
}

impl<B: Backend> Trainer<B> for PreferenceTrainer<'_, B> {
    fn kind(&self) -> &'static str {
        "preference"
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn total_steps(&self) -> u64 {
        if self.config.steps > 0 {
            self.config.steps
        } else {
            self.config.epochs.saturating_mul(self.steps_per_epoch())
        }
    }

    fn model(&self) -> &SharedModel<B> {
        self.learner.model()
    }

    fn keep_logits(&mut self, engine: Limits) -> Result<()> {
        self.learner.keep_logits(engine)
    }

    fn advance(&mut self) -> Result<Vec<StepMetrics>> {
        let start = Instant::now();
        let rows = self.order.next_in_epoch(self.config.batch_size);
        let read: Vec<Pair> = rows.iter().map(|&row| self.data.get(row)).collect::<Result<_>>()?;
        if let Some(pair) = read.iter().find(|p| p.group >= self.groups.len()) {
            return Err(Error::new(format!("a pair of prompt {} is of an unknown group", pair.prompt_id)));
        }
        let context = self.learner.context();
        if let Some((pair, (_, fault))) = read.iter().find_map(|p| Some((p, p.fault(context)?))) {
            return Err(Error::new(format!("a pair of prompt {} cannot be trained on: {fault}", pair.prompt_id)));
        }
        let groups: Vec<usize> = read.iter().map(|pair| pair.group).collect();
        let sequences: Vec<Sequence> = read.iter().flat_map(Pair::sides).collect();
        let refs: Vec<&Sequence> = sequences.iter().collect();
        let micros = self.learner.pack(&refs, 2, self.config.tokens_per_microbatch);
        let reference = self.learner.score_with(&self.reference, &micros)?;
        let objective = &self.objective;
        // The loss of each pair of a micro-batch, by the pair's place in the batch.
        let pair_losses = |i: usize, scores: &Scores| -> Result<Vec<(usize, f64)>> {
            let pairs =
                objective.pairs(&inputs(&micros[i], scores, &reference[i], &vec![1.0; micros[i].sequences.len()]))?;
            Ok(micros[i].sequences.iter().step_by(2).map(|s| s / 2).zip(pairs.iter().map(|pair| pair.loss)).collect())
        };
        let mut losses = vec![0.0; groups.len()];

        // Group weights depend on the losses of the whole batch, so a batch that was cut in several
        // goes forward once before it goes forward and backward.
        let (needs_losses, weights) = (self.weigher.needs_losses(), OnceLock::new());
        if needs_losses && micros.len() > 1 {
            for (i, scores) in self.learner.score(&micros)?.iter().enumerate() {
                pair_losses(i, scores)?.into_iter().for_each(|(pair, loss)| losses[pair] = loss);
            }
        }
        if !needs_losses || micros.len() > 1 {
            weights.get_or_init(|| self.weigher.step(&groups, &losses));
        }
        let weigher = Mutex::new(&mut self.weigher);
        let passed = self.learner.accumulate(&micros, |i, scores| {
            let here = pair_losses(i, scores)?;
            let weights = weights.get_or_init(|| {
                let mut losses = vec![0.0; groups.len()];
                here.into_iter().for_each(|(pair, loss)| losses[pair] = loss);
                weigher.lock().unwrap_or_else(PoisonError::into_inner).step(&groups, &losses)
            });
            let weights: Vec<f32> = micros[i].sequences.iter().map(|s| weights[s / 2]).collect();
            objective.loss(&inputs(&micros[i], scores, &reference[i], &weights))
        })?;
        let mut totals = StepTotals::default();
        for (i, (scores, outputs)) in passed.iter().enumerate() {
            pair_losses(i, scores)?.into_iter().for_each(|(pair, loss)| losses[pair] = loss);
            totals.add(&micros[i], outputs);
        }
        let rate = self.config.schedule.rate(self.step, self.total_steps());
        let culprits = || format!("pairs of the prompts {}", some_ids(read.iter().map(|p| p.prompt_id.as_str())));
        let applied = self.learner.step(rate, culprits)?;
        let group_metrics = self.group_metrics(&groups, &losses);
        let worst = group_metrics.iter().filter_map(|g| g.loss).reduce(f64::max);
        let metrics = StepMetrics {
            sequences: Some(sequences.len() as f64),
            tokens: Some(sequences.iter().map(Sequence::trained_tokens).sum::<usize>() as f64),
            worst_group_loss: worst,
            groups: group_metrics,
            ..totals.report(self.step, rate, applied, start.elapsed().as_secs_f64())
        };
        self.step += 1;
        Ok(vec![metrics])
    }

    fn write(&self, dir: &Path) -> Result<()> {
        self.learner.write(dir)?;
        TrainerState {
            kind: self.kind().into(),
            seed: self.config.seed,
            step: self.step,
            position: self.order.position(),
            ahead: Vec::new(),
            learner: self.learner.state(),
            reference: ReferencePlace::Initial,
            cut: false,
            log_weights: self.weigher.log_weights().iter().map(|w| w.to_bits()).collect(),
        }
        .write(dir)
    }

    fn read(&mut self, dir: &Path) -> Result<()> {
        let state = TrainerState::read(dir, self.kind(), self.config.seed)?;
        let log_weights: Vec<f64> = state.log_weights.iter().map(|&bits| f64::from_bits(bits)).collect();
        self.weigher.restore(&log_weights)?;
        self.learner.read(dir, state.learner)?;
        self.order.seek(state.position);
        self.step = state.step;
        Ok(())
    }
}

/// What the objective sees of a micro-batch.
fn inputs<'a>(micro: &'a MicroBatch, scores: &'a Scores, reference: &'a Scores, weights: &'a [f32]) -> LossInputs<'a> {
    LossInputs {
        offsets: &micro.offsets,
        weights,
        logprobs: &scores.logprobs,
        reference_logprobs: Some(&reference.logprobs),
        ..LossInputs::default()
    }
}

#[cfg(test)]
mod tests;
