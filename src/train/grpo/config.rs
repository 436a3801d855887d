//! The settings of GRPO training.

use serde::{Deserialize, Deserializer, Serialize};

use super::super::advantage::{AdvantageKind, OverlongPenalty};
use super::super::objective::GrpoConfig;
use super::super::optimizer::OptimizerConfig;
use super::super::schedule::Schedule;
use crate::error::{Error, Result};

/// Settings of [`super::GrpoTrainer`]. The defaults are the paper's R1-Zero run: rollouts of 512
/// prompts (× 16 completions) cut into 16 minibatches, one epoch, learning rate 3e-6, KL 0.001, the
/// reference replaced every 400 steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoTrainerConfig {
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Prompts (groups) of a rollout batch.
    pub prompts_per_rollout: usize,
    /// Optimizer steps an epoch over a rollout batch; its completions are split among them at random.
    pub minibatches: usize,
    /// Passes over a rollout batch.
    pub epochs: usize,
    /// The loss of a token, with its clipping and its KL term.
    pub objective: GrpoConfig,
    /// How a group's rewards become advantages.
    pub advantage: AdvantageKind,
    /// The learning rate over `steps`; constant at 3e-6 by default.
    #[serde(deserialize_with = "over_default")]
    pub schedule: Schedule,
    /// The update rule and its bounds on gradients.
    pub optimizer: OptimizerConfig,
    /// Where log π_old comes from.
    pub old_logprobs: OldLogprobs,
    /// Optimizer steps between replacements of the reference by the policy. 0 keeps the first.
    pub reference_refresh: u64,
    /// Soft penalty on completions near the token limit, added to the reward. Off if absent.
    pub overlong: Option<OverlongPenalty>,
    /// Leave completions that were cut at the token limit out of the loss. They still count in
    /// their group's mean and deviation (DAPO's overlong filtering).
    pub mask_truncated: bool,
    /// Leave groups whose rewards do not vary out of the batch and its normaliser. Otherwise they
    /// count with advantage 0, as in the paper.
    pub drop_without_variance: bool,
    /// Replaces groups without variance by asking more prompts, at most this many times a rollout
    /// batch (DAPO's dynamic sampling). 0 is off; above 0 implies `drop_without_variance`.
    pub refill_rounds: u32,
    /// Groups sampled more than this many optimizer steps ago are dropped. Off if absent.
    pub staleness_limit: Option<u64>,
    /// Rollout batches that are sampled ahead, while the policy is updated on the one before: each is
    /// then of a policy older by so many batches. 0 samples and updates in turn. Above 0 it needs a
    /// sampler of its own (`engine = { kind = "vllm" }`) and `objective.correction`.
    pub rollouts_ahead: u64,
    /// Most tokens of a micro-batch: bounds memory, and decides nothing but the order in which gradients are added. A
    /// sequence that is longer has one of its own.
    pub tokens_per_microbatch: usize,
    /// Make activations again in the backward pass instead of keeping them: less memory, a third more work, the same bits.
    pub recompute: bool,
    /// Visit prompts in a new order every epoch.
    pub shuffle: bool,
    /// Decides the order of prompts and how completions are split among minibatches. In a recipe 0, the default, means
    /// the run's seed.
    pub seed: u64,
}

/// Where π_old, the policy that ratios compare with, gets its logprobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldLogprobs {
    /// A forward pass of the policy before a rollout batch's first update. Right for rollouts of
    /// any engine, together with [`GrpoConfig::correction`]. The first minibatch costs none.
    #[default]
    Recompute,
    /// The sampler's own, which saves the pass: exact for our own engine at temperature 1, and how
    /// stored groups of an older policy are trained on off-policy. A completion without all its
    /// logprobs is recomputed.
    Rollout,
}

impl Default for GrpoTrainerConfig {
    fn default() -> Self {
        GrpoTrainerConfig {
            steps: 1000,
            prompts_per_rollout: 512,
            minibatches: 16,
            epochs: 1,
            objective: GrpoConfig::default(),
            advantage: AdvantageKind::GroupStd,
            schedule: Schedule::constant(3e-6),
            optimizer: OptimizerConfig::default(),
            old_logprobs: OldLogprobs::Recompute,
            reference_refresh: 400,
            overlong: None,
            mask_truncated: false,
            drop_without_variance: false,
            refill_rounds: 0,
            staleness_limit: None,
            rollouts_ahead: 0,
            tokens_per_microbatch: 16_384,
            recompute: false,
            shuffle: true,
            seed: 0,
        }
    }
}

fn over_default<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Schedule, D::Error> {
    GrpoTrainerConfig::default().schedule.read_over(from)
}

impl GrpoTrainerConfig {
    /// # Errors
    /// A usage error that names the field out of range.
    pub fn validate(&self) -> Result<()> {
        super::super::at_least_one(&[
            ("steps", self.steps),
            ("prompts_per_rollout", self.prompts_per_rollout as u64),
            ("minibatches", self.minibatches as u64),
            ("epochs", self.epochs as u64),
            ("tokens_per_microbatch", self.tokens_per_microbatch as u64),
        ])?;
        if let AdvantageKind::Fixed { scale } = self.advantage
            && !(scale.is_finite() && scale > 0.0)
        {
            return Err(Error::usage(format!("the advantage's fixed scale is {scale}"))
                .in_field("advantage.fixed.scale")
                .hint("it must be above 0, such as 0.5"));
        }
        if let Some(OverlongPenalty { limit, buffer, factor }) = self.overlong
            && (buffer == 0 || buffer > limit || !factor.is_finite())
        {
            return Err(Error::usage(format!("an overlong penalty over {buffer} of {limit} tokens, factor {factor}"))
                .in_field("overlong")
                .hint("`buffer` must be from 1 to `limit`"));
        }
        if self.objective.correction.is_some() && self.old_logprobs == OldLogprobs::Rollout {
            return Err(Error::usage("a correction weighs π_old against the sampler, and here both are the sampler's")
                .in_field("objective.correction")
                .hint("leave `correction` out, or `old_logprobs = \"rollout\"`"));
        }
        self.validate_ahead()?;
        self.schedule.validate()?;
        self.objective.validate()?;
        self.optimizer.validate()
    }

    fn validate_ahead(&self) -> Result<()> {
        if self.rollouts_ahead == 0 {
            return Ok(());
        }
        if self.objective.correction.is_none() && self.old_logprobs == OldLogprobs::Recompute {
            return Err(Error::usage("rollouts made ahead are of an older policy, and nothing corrects for that")
                .in_field("rollouts_ahead")
                .hint("add `objective = { correction = {} }`: truncated importance weights"));
        }
        let age = self.rollouts_ahead.saturating_mul(self.updates_per_rollout());
        if self.staleness_limit.is_some_and(|limit| limit < age) {
            return Err(Error::usage(format!("rollouts made ahead are {age} optimizer steps old when they are used"))
                .in_field("staleness_limit")
                .hint("it drops all of them: raise it, or lower `rollouts_ahead`"));
        }
        Ok(())
    }

    /// Whether a run of so many steps is the beginning of this one, unless its trainer `is_cut`. Rollouts made ahead are
    /// not begun beyond the end of the run, so those of a longer one would have been of an older policy.
    pub fn goes_on_after(&self, steps: u64) -> bool {
        self.steps > steps && self.schedule.is_of_any_length() && self.rollouts_ahead == 0
    }

    /// Optimizer steps on a rollout batch.
    pub(super) fn updates_per_rollout(&self) -> u64 {
        (self.minibatches as u64).saturating_mul(self.epochs as u64)
    }

    /// Whether groups without variance are left out.
    pub(super) fn drops_without_variance(&self) -> bool {
        self.drop_without_variance || self.refill_rounds > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::objective::{Aggregation, CorrectionKind, Surrogate};
    use super::*;

    #[test]
    fn settings_read_as_a_recipe_writes_them() {
        let text = r#"{
            "steps": 60, "old_logprobs": "recompute",
            "advantage": {"fixed": {"scale": 0.5}},
            "objective": {"surrogate": "sequence", "aggregation": {"constant": {"length": 64}},
                          "correction": {"kind": "masked", "cap": 5.0}},
            "schedule": {"learning_rate": 3e-4, "decay": "constant"},
            "overlong": {"limit": 64, "buffer": 16}
        }"#;
        let config: GrpoTrainerConfig = serde_json::from_str(text).unwrap();
        config.validate().unwrap();
        assert_eq!(config.advantage, AdvantageKind::Fixed { scale: 0.5 });
        assert_eq!(config.objective.surrogate, Surrogate::Sequence);
        assert_eq!(config.objective.aggregation, Aggregation::Constant { length: 64 });
        let correction = config.objective.correction.unwrap();
        assert_eq!((correction.kind, correction.floor), (CorrectionKind::Masked, 0.5));
        assert_eq!(config.overlong.unwrap().factor, 1.0);
        assert_eq!(config.minibatches, 16, "what is not written is the paper's");
    }

    #[test]
    fn one_key_of_a_table_leaves_the_others_as_they_are() {
        let read = |text: &str| serde_json::from_str::<GrpoTrainerConfig>(text).unwrap();
        let own = GrpoTrainerConfig::default();
        let warm = read(r#"{"schedule": {"warmup_steps": 10}}"#).schedule;
        assert_eq!(warm, Schedule { warmup_steps: 10, ..own.schedule.clone() });
        assert_eq!(read(r#"{"schedule": {"learning_rate": 1e-5}}"#).schedule, Schedule::constant(1e-5));
        for table in ["schedule", "optimizer", "objective"] {
            assert_eq!(read(&format!(r#"{{"{table}": {{}}}}"#)), own, "an empty `{table}` changes nothing");
        }
        let misspelt = serde_json::from_str::<GrpoTrainerConfig>(r#"{"schedule": {"warmup": 1}}"#).unwrap_err();
        assert!(misspelt.to_string().contains("warmup_steps"), "{misspelt}");
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let error = serde_json::from_str::<GrpoTrainerConfig>(r#"{"minibatchs": 2}"#).unwrap_err().to_string();
        assert!(error.contains("minibatchs"), "{error}");
    }
}
