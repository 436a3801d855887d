//! What objectives measure, as sums that add up over micro-batches.

/// A weighted mean being accumulated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mean {
    /// Σ w·x over what was added.
    pub sum: f64,
    /// Σ w; 0 if nothing was added.
    pub weight: f64,
}

impl Mean {
    /// One more value of weight 1.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.weight += 1.0;
    }

    /// One more event that did or did not happen.
    pub fn count(&mut self, happened: bool) {
        self.add(f64::from(u8::from(happened)));
    }

    /// Adds what another micro-batch measured.
    pub fn merge(&mut self, other: Mean) {
        self.sum += other.sum;
        self.weight += other.weight;
    }

    /// The mean; `None` if nothing was added.
    pub fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// A maximum being accumulated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Max(Option<f64>);

impl Max {
    /// One more value; NaN is kept once seen, so that it shows.
    pub fn add(&mut self, value: f64) {
        self.0 = Some(match self.0 {
            Some(max) if max.is_nan() || max >= value => max,
            _ => value,
        });
    }

    /// Takes over the maximum of another micro-batch; nothing added there changes nothing.
    pub fn merge(&mut self, other: Max) {
        if let Some(value) = other.0 {
            self.add(value);
        }
    }

    /// The maximum; `None` if nothing was added.
    pub fn value(self) -> Option<f64> {
        self.0
    }
}

macro_rules! loss_metrics {
    ($($(#[$doc:meta])* $name:ident: $kind:ty,)*) => {
        /// Measurements of one or more micro-batches; fields that an objective does not measure stay empty.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct LossMetrics {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl LossMetrics {
            /// Adds the measurements of another micro-batch.
            pub fn merge(&mut self, other: &LossMetrics) {
                $(self.$name.merge(other.$name);)*
            }
        }
    };
}

loss_metrics! {
    /// −log π(o_t), per token.
    nll: Mean,
    /// Entropy of the policy in nats, per token.
    entropy: Mean,
    /// Probability ratio π/π_old, per token with an advantage (per sequence for GSPO).
    ratio: Mean,
    /// The largest ratio.
    ratio_max: Max,
    /// Share of tokens with an advantage held back by the lower clip (A < 0 and ratio < 1 − ε_low).
    clip_low: Mean,
    /// Share of them held back by the upper clip (A > 0 and ratio > 1 + ε_high).
    clip_high: Mean,
    /// Share of them held back by the dual clip (A < 0 and ratio > c).
    clip_dual: Mean,
    /// k3 estimate of KL(π ‖ π_old) from them: how far this update batch has moved the policy.
    kl_old: Mean,
    /// The configured estimate of KL(π ‖ π_ref), per token.
    kl_reference: Mean,
    /// |log π_old − log π_rollout|, per token with an advantage whose rollout logprob is known.
    rollout_gap: Mean,
    /// The largest such gap.
    rollout_gap_max: Max,
    /// Importance correction factor of each token with an advantage.
    correction: Mean,
    /// Share of them whose correction was truncated or masked.
    corrected: Mean,
    /// Share of tokens with an advantage and without a rollout logprob.
    rollout_missing: Mean,
    /// Unweighted loss of each pair.
    pair_loss: Mean,
    /// Share of pairs that the policy ranks rightly relative to the reference (h > 0).
    pair_accuracy: Mean,
    /// β (log π(y_w) − log π_ref(y_w)) of each pair.
    chosen_reward: Mean,
    /// β (log π(y_l) − log π_ref(y_l)) of each pair.
    rejected_reward: Mean,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_measure_has_no_value_and_merging_adds_up() {
        assert_eq!((Mean::default().value(), Max::default().value()), (None, None));
        let mut all = LossMetrics::default();
        for value in [1.0, 4.0] {
            let mut part = LossMetrics::default();
            part.nll.add(value);
            part.ratio_max.add(value);
            all.merge(&part);
        }
        assert_eq!((all.nll.value(), all.ratio_max.value()), (Some(2.5), Some(4.0)));
    }

    #[test]
    fn a_nan_maximum_is_not_hidden_by_later_values() {
        let mut max = Max::default();
        for value in [1.0, f64::NAN, 2.0] {
            max.add(value);
        }
        assert!(max.value().is_some_and(f64::is_nan));
    }
}
