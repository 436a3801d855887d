//! Supervised fine-tuning on completion tokens, and pretraining: the same with every token trained on.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::batch::{Sequence, Source};
use super::learner::Learner;
use super::metrics::StepMetrics;
use super::objective::{Aggregation, LossInputs, Objective, Sft};
use super::optimizer::OptimizerConfig;
use super::order::Order;
use super::schedule::Schedule;
use super::trainer::{ReferencePlace, StepTotals, Trainer, TrainerState};
use crate::backend::{Backend, Cpu};
use crate::error::{Error, Result};
use crate::model::SharedModel;
use crate::model::memory::Limits;

/// Settings of [`SftTrainer`]. The defaults are the paper's 800k fine-tuning: 2 epochs, batch 64,
/// 5e-6 falling to a tenth along a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// Passes over the data.
    pub epochs: u64,
    /// Optimizer steps instead of whole epochs, if above 0.
    pub steps: u64,
    /// Sequences an optimizer step.
    pub batch_size: usize,
    /// Most tokens of a sequence, its prompt included; what is longer is left out. The model's context alone if absent.
    pub max_tokens: Option<usize>,
    /// Most tokens of a micro-batch: bounds memory, and decides nothing but the order in which gradients are added. A
    /// sequence that is longer has one of its own.
    pub tokens_per_microbatch: usize,
    /// Make activations again in the backward pass instead of keeping them: less memory, a third more work, the same bits.
    pub recompute: bool,
    /// How losses of tokens become the batch's; the mean over all tokens by default.
    pub aggregation: Aggregation,
    /// The learning rate over all steps; cosine from 5e-6 by default.
    pub schedule: Schedule,
    /// The update rule and its bounds on gradients.
    pub optimizer: OptimizerConfig,
    /// Visit rows in a new order every epoch.
    pub shuffle: bool,
    /// Decides the order of rows. In a recipe 0, the default, means the run's seed.
    pub seed: u64,
}

impl Default for SftConfig {
    fn default() -> Self {
        SftConfig {
            epochs: 2,
            steps: 0,
            batch_size: 64,
            max_tokens: None,
            tokens_per_microbatch: 16_384,
            recompute: false,
            aggregation: Aggregation::TokenMean,
            schedule: Schedule::default(),
            optimizer: OptimizerConfig::default(),
            shuffle: true,
            seed: 0,
        }
    }
}

impl SftConfig {
    /// # Errors
    /// A usage error that names the field out of range.
    pub fn validate(&self) -> Result<()> {
        super::some_steps(self.epochs, self.steps)?;
        super::at_least_one(&[
            ("batch_size", self.batch_size as u64),
            ("max_tokens", self.max_tokens.unwrap_or(1) as u64),
            ("tokens_per_microbatch", self.tokens_per_microbatch as u64),
        ])?;
        self.aggregation.validate()?;
        self.schedule.validate()?;
        self.optimizer.validate()
    }

    /// Whether a run of so many steps is the beginning of this one.
    pub fn goes_on_after(&self, steps: u64) -> bool {
        self.steps > steps && self.schedule.is_of_any_length()
    }
}

/// Cross-entropy on the trained tokens of each sequence.
pub struct SftTrainer<'a, B: Backend = Cpu> {
    learner: Learner<B>,
    data: Box<dyn Source<Sequence> + 'a>,
    /// What [`Trainer::validate`] measures.
    validation: Box<dyn Source<Sequence> + 'a>,
    config: SftConfig,
    order: Order,
    step: u64,
}

impl<'a, B: Backend> SftTrainer<'a, B> {
    /// Every sequence has to have a token to train on and to fit the model's context ([`Sequence::fault`]): what does not
    /// is the caller's to leave out and to count, and ends the run where a batch has it.
    ///
    /// # Errors
    /// A usage error if a setting is out of range or there is no data.
    pub fn new(model: SharedModel<B>, data: impl Source<Sequence> + 'a, config: SftConfig) -> Result<Self> {
        SftTrainer::with_validation(model, data, Vec::<Sequence>::new(), config)
    }

    /// The same, with sequences that [`Trainer::validate`] measures the loss on and nothing is learned from. They have to
    /// fit the model's context too.
    ///
    /// # Errors
    /// As [`SftTrainer::new`].
    pub fn with_validation(
        model: SharedModel<B>,
        data: impl Source<Sequence> + 'a,
        validation: impl Source<Sequence> + 'a,
        config: SftConfig,
    ) -> Result<Self> {
        config.validate()?;
        if data.is_empty() {
            return Err(Error::new("there is nothing to train on: the corpus has no rows"));
        }
        let learner = Learner::new(model, config.optimizer.clone())?;
        let context = learner.context();
        let longest = data.longest(context).max(validation.longest(context));
        let learner = learner.with_memory(config.tokens_per_microbatch, longest, config.recompute)?;
        let order = Order::new(config.seed, "sft order", data.len(), config.shuffle);
        Ok(SftTrainer { learner, data: Box::new(data), validation: Box::new(validation), config, order, step: 0 })
    }

    fn steps_per_epoch(&self) -> u64 {
        self.data.len().div_ceil(self.config.batch_size) as u64
    }
}

impl<B: Backend> Trainer<B> for SftTrainer<'_, B> {
    fn kind(&self) -> &'static str {
        "sft"
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
        let read: Vec<Sequence> = rows.iter().map(|&row| self.data.get(row)).collect::<Result<_>>()?;
        let context = self.learner.context();
        if let Some((row, (_, fault))) = rows.iter().zip(&read).find_map(|(row, s)| Some((row, s.fault(context)?))) {
            return Err(Error::new(format!("sequence {row} cannot be trained on: {fault}")));
        }
        let batch: Vec<&Sequence> = read.iter().collect();
        let lengths: Vec<usize> = batch.iter().map(|s| s.trained_tokens()).collect();
        let weights = self.config.aggregation.weights(&lengths);
        let micros = self.learner.pack(&batch, 1, self.config.tokens_per_microbatch);
        let passed = self.learner.accumulate(&micros, |i, scores| {
            Sft.loss(&LossInputs {
                offsets: &micros[i].offsets,
                weights: &micros[i].pick(&weights),
                logprobs: &scores.logprobs,
                entropy: Some(&scores.entropies),
                ..LossInputs::default()
            })
        })?;
        let mut totals = StepTotals::default();
        for (micro, (_, outputs)) in micros.iter().zip(&passed) {
            totals.add(micro, outputs);
        }
        let rate = self.config.schedule.rate(self.step, self.total_steps());
        let applied = self.learner.step(rate, || format!("corpus rows {rows:?}"))?;
        let metrics = StepMetrics {
            sequences: Some(batch.len() as f64),
            tokens: Some(lengths.iter().sum::<usize>() as f64),
            ..totals.report(self.step, rate, applied, start.elapsed().as_secs_f64())
        };
        self.step += 1;
        Ok(vec![metrics])
    }

    fn validate(&mut self) -> Result<Option<f64>> {
        let (mut sum, mut tokens) = (0.0, 0);
        for first in (0..self.validation.len()).step_by(self.config.batch_size) {
            let rows = first..self.validation.len().min(first + self.config.batch_size);
            let read: Vec<Sequence> = rows.map(|row| self.validation.get(row)).collect::<Result<_>>()?;
            let micros = self.learner.pack(&read.iter().collect::<Vec<_>>(), 1, self.config.tokens_per_microbatch);
            for scores in self.learner.score(&micros)? {
                sum -= scores.logprobs.iter().map(|&logprob| f64::from(logprob)).sum::<f64>();
                tokens += scores.logprobs.len();
            }
        }
        Ok((tokens > 0).then(|| sum / tokens as f64))
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
            reference: ReferencePlace::None,
            cut: false,
            log_weights: Vec::new(),
        }
        .write(dir)
    }

    fn read(&mut self, dir: &Path) -> Result<()> {
        let state = TrainerState::read(dir, self.kind(), self.config.seed)?;
        self.learner.read(dir, state.learner)?;
        self.order.seek(state.position);
        self.step = state.step;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
