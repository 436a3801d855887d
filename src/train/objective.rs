//! Objectives: pure functions from logprobs to a loss and its gradient.
//!
//! Every objective of this crate needs of a model only the logprob of each
//! trained token, and seeds its backward pass with one scalar a token,
//! `g_t = ∂L/∂log π(o_t)`. The head turns that into logit gradients,
//! `∂L/∂z_j = g_t (1[j = o_t] − π_j)`, whatever the objective is. An entropy bonus
//! needs one more scalar, `∂L/∂H_t`, and `∂H/∂z_j = −π_j (log π_j + H)`.
//!
//! Normalisers live in [`LossInputs::weights`], computed once over the whole
//! accumulated batch (see [`Aggregation`]), so that the sum over micro-batches is
//! the loss of the batch however it was cut.
//!
//! What is absent on purpose: masks. Tokens without a loss (prompts, padding,
//! excluded completions) are never given to an objective.

mod group_robust;
mod grpo;
mod kl;
mod metrics;
mod preference;
mod sft;
mod weights;

#[cfg(test)]
mod check;
#[cfg(test)]
mod parity;

pub use group_robust::{Estimate, GroupRobust, GroupRobustConfig, Reweighting};
pub use grpo::{Correction, CorrectionKind, Grpo, GrpoConfig, Surrogate};
pub use kl::KlEstimator;
pub use metrics::{LossMetrics, Max, Mean};
pub use preference::{PairLoss, Preference, PreferenceConfig, PreferenceLoss};
pub use sft::Sft;
pub use weights::Aggregation;

use crate::error::{Error, Result};

/// Differences of logprobs are clamped to ±20 before `exp`: e^20 ≈ 4.9e8 is far beyond any
/// clip range and still harmless in f32. The gradient outside is zero, as a clamp's is.
pub const LOG_RATIO_LIMIT: f64 = 20.0;

/// What an objective sees of one micro-batch: B sequences with T trained tokens together.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossInputs<'a> {
    /// \[B + 1\] Sequence i's trained tokens are `offsets[i]..offsets[i + 1]`; first 0, last T.
    pub offsets: &'a [usize],
    /// \[B\] Weight of each token of the sequence, the whole batch's normaliser included
    /// ([`Aggregation::weights`]); for pairs, the weight of the pair on both of its sequences.
    pub weights: &'a [f32],
    /// \[T\] log π(o_t) of the policy being trained.
    pub logprobs: &'a [f32],
    /// \[T\] Entropy of the policy's distribution at each token, in nats.
    pub entropy: Option<&'a [f32]>,
    /// \[T\] log π_old: the policy before this rollout batch's first update. `None` means that this
    /// is the first update, so π_old = π and every ratio is 1.
    pub old_logprobs: Option<&'a [f32]>,
    /// \[T\] log π_ref of the frozen reference.
    pub reference_logprobs: Option<&'a [f32]>,
    /// \[T\] Logprobs as the sampling engine reported them; NaN where it did not.
    pub rollout_logprobs: Option<&'a [f32]>,
    /// \[B\] One advantage a sequence (GRPO); empty for other objectives.
    pub advantages: &'a [f32],
}

/// What an objective answers.
#[derive(Clone, Debug, Default)]
pub struct LossOutputs {
    /// This micro-batch's share of the batch's loss.
    pub loss: f64,
    /// \[T\] g_t = ∂L/∂log π(o_t).
    pub logprob_gradient: Vec<f32>,
    /// \[T\] ∂L/∂H_t; `None` where the loss does not contain the entropy.
    pub entropy_gradient: Option<Vec<f32>>,
    /// Sums over the micro-batch's tokens, which add up over the batch.
    pub metrics: LossMetrics,
}

/// One training objective.
pub trait Objective {
    /// Whether [`LossInputs::reference_logprobs`] must be given.
    fn needs_reference(&self) -> bool;

    /// Whether the loss contains the entropy, so that its gradient must be propagated.
    fn needs_entropy(&self) -> bool {
        false
    }

    /// Loss, gradient and metrics of one micro-batch.
    ///
    /// A batch without tokens gives loss 0 and an empty gradient.
    ///
    /// # Errors
    /// When the shapes disagree or an input that the configuration needs is missing. Values never
    /// fail: a NaN logprob gives a NaN gradient, which the optimizer refuses.
    fn loss(&self, inputs: &LossInputs<'_>) -> Result<LossOutputs>;
}

impl<'a> LossInputs<'a> {
    /// Number of sequences, B.
    pub fn sequences(&self) -> usize {
        self.weights.len()
    }

    /// The token range of each sequence with its weight.
    pub fn iter(&self) -> impl Iterator<Item = (std::ops::Range<usize>, f64)> + 'a {
        self.offsets.windows(2).zip(self.weights).map(|(o, &w)| (o[0]..o[1], f64::from(w)))
    }

    /// Checks the shapes that the fields' docs promise.
    fn check(&self) -> Result<()> {
        let tokens = self.logprobs.len();
        let bad = |what: &str, got: usize, want: usize| {
            Err(Error::new(format!("an objective was given {got} {what} where {want} are needed")))
        };
        if self.offsets.len() != self.weights.len() + 1 {
            return bad("offsets", self.offsets.len(), self.weights.len() + 1);
        }
        if self.offsets.first() != Some(&0) || self.offsets.last() != Some(&tokens) || !self.offsets.is_sorted() {
            return Err(Error::new(format!(
                "an objective's offsets must rise from 0 to its {tokens} tokens; they are {:?} … {:?}",
                self.offsets.first(),
                self.offsets.last()
            )));
        }
        for (what, values) in [
            ("entropies", self.entropy),
            ("old logprobs", self.old_logprobs),
            ("reference logprobs", self.reference_logprobs),
            ("rollout logprobs", self.rollout_logprobs),
        ] {
            if let Some(values) = values
                && values.len() != tokens
            {
                return bad(what, values.len(), tokens);
            }
        }
        if !self.advantages.is_empty() && self.advantages.len() != self.weights.len() {
            return bad("advantages", self.advantages.len(), self.weights.len());
        }
        Ok(())
    }

    /// The reference logprobs, or an error that names the objective that needs them.
    fn reference(&self, who: &str) -> Result<&'a [f32]> {
        self.reference_logprobs.ok_or_else(|| Error::new(format!("{who} needs the reference's logprobs")))
    }
}

/// `log_ratio` clamped to ±[`LOG_RATIO_LIMIT`] and the derivative of the clamp (1 inside, 0 outside).
/// NaN stays NaN with derivative 1, so that it reaches the optimizer's check.
fn clamp_log_ratio(log_ratio: f64) -> (f64, f64) {
    let clamped = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT);
    (clamped, if clamped == log_ratio || log_ratio.is_nan() { 1.0 } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_disagree_are_named() {
        let inputs = LossInputs { offsets: &[0, 2], weights: &[1.0], logprobs: &[-1.0, -2.0], ..Default::default() };
        assert!(inputs.check().is_ok());
        let short = LossInputs { old_logprobs: Some(&[-1.0]), ..inputs };
        assert!(short.check().unwrap_err().to_string().contains("1 old logprobs where 2"));
        let torn = LossInputs { offsets: &[0, 3], ..inputs };
        assert!(torn.check().unwrap_err().to_string().contains("offsets"));
        let no_offsets = LossInputs { offsets: &[], ..inputs };
        assert!(no_offsets.check().is_err());
    }

    #[test]
    fn a_log_ratio_is_clamped_with_no_gradient_outside() {
        assert_eq!(clamp_log_ratio(1.5), (1.5, 1.0));
        assert_eq!(clamp_log_ratio(80.0), (20.0, 0.0));
        assert_eq!(clamp_log_ratio(-80.0), (-20.0, 0.0));
        assert!(clamp_log_ratio(f64::NAN).0.is_nan());
    }
}
