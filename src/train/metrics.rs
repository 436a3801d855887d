//! What one optimizer step reports, as columns.

use serde::{Deserialize, Serialize};

use super::objective::LossMetrics;

/// Figures as JSON that reads back to the same bits. JSON has no NaN or infinity, and a step that diverged has measured
/// just these: they are written as their bits.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Figure {
        Finite(f64),
        Bits(String),
    }

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        let figure = value.map(|value| match value.is_finite() {
            true => Figure::Finite(value),
            false => Figure::Bits(format!("{:016x}", value.to_bits())),
        });
        figure.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(match Option::deserialize(deserializer)? {
            None => None,
            Some(Figure::Finite(value)) => Some(value),
            Some(Figure::Bits(bits)) => {
                let bits = u64::from_str_radix(&bits, 16).map_err(serde::de::Error::custom)?;
                Some(f64::from_bits(bits))
            }
        })
    }
}

macro_rules! step_metrics {
    (@without wall_clock) => { None };
    (@name wall_clock $name:ident) => { stringify!($name) };
    ($($(#[doc = $doc:literal])* $name:ident $(: $clock:ident)?,)*) => {
        /// The measurements of one optimizer step. `None` means not measured by this trainer, or not
        /// in this step: what describes a whole rollout batch is given once, with its first update.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct StepMetrics {
            /// 0-based optimizer step.
            pub step: u64,
            $($(#[doc = $doc])* #[serde(with = "exact")] pub $name: Option<f64>,)*
            /// Each rule's scores over the rollout batch, in the rule file's order.
            pub rules: Vec<RuleMetrics>,
            /// Each group of the group-robust objective.
            pub groups: Vec<GroupMetrics>,
        }

        impl StepMetrics {
            /// Name and meaning of every scalar column, in order.
            pub const COLUMNS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc),*)),)*];

            /// Columns that a clock measured: they differ between two runs of one seed.
            pub const WALL_CLOCK: &'static [&'static str] =
                &[$($(step_metrics!(@name $clock $name),)?)*];

            /// The scalar values, in the order of [`StepMetrics::COLUMNS`].
            pub fn values(&self) -> Vec<Option<f64>> {
                vec![$(self.$name,)*]
            }

            /// What equal runs have in common: without [`StepMetrics::WALL_CLOCK`].
            pub fn timeless(&self) -> Self {
                StepMetrics { $($($name: step_metrics!(@without $clock),)?)* ..self.clone() }
            }

            /// What `other` measured of the same step where this did not.
            pub(super) fn or(self, other: StepMetrics) -> Self {
                StepMetrics {
                    step: self.step,
                    $($name: self.$name.or(other.$name),)*
                    rules: if self.rules.is_empty() { other.rules } else { self.rules },
                    groups: if self.groups.is_empty() { other.groups } else { self.groups },
                }
            }
        }
    };
}

step_metrics! {
    /// The objective's value over the whole batch.
    loss,
    /// Learning rate of this step.
    learning_rate,
    /// L2 norm of the gradient before clipping.
    grad_norm,
    /// 1 if the gradient was scaled down to the norm limit.
    grad_clipped,
    /// 1 if the update was skipped: nothing to learn from, or a gradient that is not finite.
    skipped,
    /// Mean −log π(o_t) in nats, per trained token.
    nll,
    /// Mean entropy of the policy in nats, per trained token.
    entropy,
    /// Mean probability ratio π/π_old, of tokens with an advantage.
    ratio_mean,
    /// Largest probability ratio.
    ratio_max,
    /// Share of tokens with an advantage that the lower clip holds back.
    clip_low,
    /// Share of them that the upper clip holds back.
    clip_high,
    /// Share of them that the dual clip holds back.
    clip_dual,
    /// k3 estimate of KL(π ‖ π_old), from tokens with an advantage.
    kl_old,
    /// Estimate of KL(π ‖ π_ref).
    kl_reference,
    /// Mean |log π_old − log π_rollout| of tokens with an advantage: 0 where our own engine sampled.
    rollout_gap,
    /// Largest such gap.
    rollout_gap_max,
    /// Mean importance correction factor of them.
    correction_mean,
    /// Share of them whose correction was truncated or masked.
    corrected,
    /// Share of them without a rollout logprob.
    rollout_missing,
    /// Mean reward of the rollout batch, shaping included.
    reward_mean,
    /// Population standard deviation of the rewards.
    reward_std,
    /// Share of completions whose reward is missing.
    reward_missing,
    /// Mean |A| over the rewarded completions.
    advantage_abs_mean,
    /// Largest advantage.
    advantage_max,
    /// Smallest advantage.
    advantage_min,
    /// Groups in the rollout batch.
    group_count,
    /// Share of groups whose rewards do not vary.
    groups_without_variance,
    /// Groups left out because no completion of their prompt could be had.
    groups_failed,
    /// Groups dropped because they were sampled too many steps ago.
    groups_stale,
    /// Optimizer steps since the rollout batch was sampled, on average over its groups.
    rollout_age,
    /// Prompts asked, those of refill rounds included.
    prompts_asked,
    /// Mean completion length in tokens.
    completion_tokens_mean,
    /// Longest completion in tokens.
    completion_tokens_max,
    /// Share of completions cut at the token limit.
    truncated,
    /// Share of pairs ranked rightly relative to the reference.
    pair_accuracy,
    /// Mean β (log π − log π_ref) of chosen completions.
    chosen_reward,
    /// Mean β (log π − log π_ref) of rejected completions.
    rejected_reward,
    /// Mean unweighted loss of a pair.
    pair_loss,
    /// Loss of the worst group present in the batch.
    worst_group_loss,
    /// Sequences trained on.
    sequences,
    /// Tokens trained on.
    tokens,
    /// Sequences left out because they do not fit the model's context or have no token to train on.
    unusable,
    /// Seconds spent sampling and scoring the rollout batch.
    rollout_seconds: wall_clock,
    /// Seconds in which the servers took over the policy, for the rollout batch.
    reload_seconds: wall_clock,
    /// Seconds of this update, forward passes of old and reference policy included.
    update_seconds: wall_clock,
    /// Packed tokens (prompts included) a second of this update.
    tokens_per_second: wall_clock,
    /// What the held-out evaluation before the first step gave; with that step alone.
    evaluation_before,
    /// What the held-out evaluation after this step gave.
    evaluation,
    /// Mean −log π(o_t) in nats, per trained token, of the validation rows before the first step; with that step alone.
    validation_loss_before,
    /// Mean −log π(o_t) in nats, per trained token, of the validation rows after this step.
    validation_loss,
}

/// One rule's scores over a rollout batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleMetrics {
    /// Its name in the rule file.
    pub rule: String,
    /// Mean and population standard deviation over the completions it could score; `None` if none.
    #[serde(with = "exact")]
    pub mean: Option<f64>,
    /// Over the same completions.
    #[serde(with = "exact")]
    pub std: Option<f64>,
    /// Share of completions it could not score.
    pub missing: f64,
}

/// One group of a preference batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupMetrics {
    /// Its name: a domain, a language, or the user's own word.
    pub group: String,
    /// α_g after this step.
    pub weight: f64,
    /// Mean unweighted loss of the batch's pairs of this group; `None` if it has none.
    #[serde(with = "exact")]
    pub loss: Option<f64>,
    /// Its pairs in this batch.
    pub pairs: u64,
}

impl StepMetrics {
    /// Takes over what an objective measured over all micro-batches of the step.
    pub(super) fn absorb(&mut self, m: &LossMetrics) {
        self.nll = m.nll.value();
        self.entropy = m.entropy.value();
        self.ratio_mean = m.ratio.value();
        self.ratio_max = m.ratio_max.value();
        self.clip_low = m.clip_low.value();
        self.clip_high = m.clip_high.value();
        self.clip_dual = m.clip_dual.value();
        self.kl_old = m.kl_old.value();
        self.kl_reference = m.kl_reference.value();
        self.rollout_gap = m.rollout_gap.value();
        self.rollout_gap_max = m.rollout_gap_max.value();
        self.correction_mean = m.correction.value();
        self.corrected = m.corrected.value();
        self.rollout_missing = m.rollout_missing.value();
        self.pair_loss = m.pair_loss.value();
        self.pair_accuracy = m.pair_accuracy.value();
        self.chosen_reward = m.chosen_reward.value();
        self.rejected_reward = m.rejected_reward.value();
    }
}

/// Mean and population standard deviation; `None` of nothing.
pub(super) fn mean_std(values: &[f64]) -> (Option<f64>, Option<f64>) {
    if values.is_empty() {
        return (None, None);
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (Some(mean), Some(variance.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_values_go_together() {
        let metrics = StepMetrics { loss: Some(1.5), evaluation: Some(0.5), ..StepMetrics::default() };
        let values = metrics.values();
        assert_eq!(values.len(), StepMetrics::COLUMNS.len());
        let column = |name: &str| StepMetrics::COLUMNS.iter().position(|(n, _)| *n == name).unwrap();
        assert_eq!((values[column("loss")], values[column("evaluation")]), (Some(1.5), Some(0.5)));
        assert!(StepMetrics::COLUMNS.iter().all(|(_, doc)| !doc.is_empty()));
    }

    #[test]
    fn what_one_part_of_a_step_measured_is_added_to_that_of_another() {
        let every = |value: f64| -> StepMetrics {
            let columns = StepMetrics::COLUMNS.iter().map(|(name, _)| ((*name).to_owned(), value.into()));
            serde_json::from_value(serde_json::Value::Object(columns.collect())).unwrap()
        };
        let update = StepMetrics { step: 3, loss: Some(1.0), ..StepMetrics::default() };
        let rules = vec![RuleMetrics { rule: "math".into(), ..RuleMetrics::default() }];
        let measured = StepMetrics { step: 0, rules: rules.clone(), ..every(2.0) };
        let both = update.clone().or(measured.clone());
        assert_eq!(both, StepMetrics { step: 3, loss: Some(1.0), ..measured });
        assert_eq!(both.clone().or(every(4.0)), both);
        let timeless = both.timeless();
        for ((name, _), value) in StepMetrics::COLUMNS.iter().zip(timeless.values()) {
            assert_eq!(value.is_none(), StepMetrics::WALL_CLOCK.contains(name), "{name}");
        }
        assert_eq!(StepMetrics::WALL_CLOCK.len(), 4);
        assert_eq!(timeless.rules, rules);
    }

    #[test]
    fn metrics_survive_json() {
        let metrics = StepMetrics {
            step: 3,
            // Readers of JSON that are quick and not exact take it for its neighbour.
            loss: Some(0.0009452706955539223),
            grad_norm: Some(f64::INFINITY),
            rules: vec![RuleMetrics {
                rule: "math".into(),
                mean: Some(0.5),
                std: Some(f64::MIN_POSITIVE),
                missing: 0.0,
            }],
            groups: vec![GroupMetrics { group: "en".into(), weight: 0.5, loss: Some(f64::NEG_INFINITY), pairs: 3 }],
            ..StepMetrics::default()
        };
        let text = serde_json::to_string(&metrics).unwrap();
        assert_eq!(serde_json::from_str::<StepMetrics>(&text).unwrap(), metrics);
        for nan in [f64::NAN, -f64::NAN, f64::from_bits(0x7ff8_0000_dead_beef)] {
            let text = serde_json::to_string(&StepMetrics { loss: Some(nan), ..StepMetrics::default() }).unwrap();
            let read: StepMetrics = serde_json::from_str(&text).unwrap();
            assert_eq!(read.loss.map(f64::to_bits), Some(nan.to_bits()), "{text}");
        }
    }
}
