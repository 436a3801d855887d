//! Direct preference objectives: DPO and IPO on pairs of completions.
//!
//! With the chosen completion y_w and the rejected one y_l of a prompt x
//! in the notation of arXiv 2405.20304,
//!
//! ```text
//! h = log π(y_w|x)/π_ref(y_w|x) − log π(y_l|x)/π_ref(y_l|x)
//! DPO  l = −log σ(βh)            ∂l/∂h = −β σ(−βh)      arXiv 2305.18290, eq. 7
//! IPO  l = (h − 1/(2β))²         ∂l/∂h = 2(h − 1/(2β))  arXiv 2310.12036, eq. 17
//! L = Σ_pairs w l
//! ```
//!
//! h is a sum over tokens, so each token of y_w carries ∂l/∂h and each of y_l its
//! negative. The pair weights w make the objective plain (1/pairs) or group robust
//! ([`super::GroupRobust`]).

use serde::{Deserialize, Serialize};

use super::{LossInputs, LossMetrics, LossOutputs, Objective};
use crate::error::{Error, Result};

/// Settings of [`Preference`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceConfig {
    /// DPO by default.
    pub loss: PreferenceLoss,
    /// β > 0: how strongly the policy is held to the reference. 0.1 in the DPO paper, 0.01 in the
    /// group-robust one.
    pub beta: f64,
}

/// The loss of one pair's margin h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreferenceLoss {
    /// −log σ(βh).
    #[default]
    Dpo,
    /// (h − 1/(2β))².
    Ipo,
}

impl Default for PreferenceConfig {
    fn default() -> Self {
        PreferenceConfig { loss: PreferenceLoss::Dpo, beta: 0.1 }
    }
}

impl PreferenceConfig {
    /// # Errors
    /// A usage error if β is not a positive number.
    pub fn validate(&self) -> Result<()> {
        if self.beta.is_finite() && self.beta > 0.0 {
            return Ok(());
        }
        Err(Error::usage(format!("`beta` is {}", self.beta)).in_field("beta").hint("it must be above 0"))
    }
}

/// The objective. Sequence 2k is pair k's chosen completion, 2k + 1 its rejected one.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    config: PreferenceConfig,
}

/// The loss of one pair, before weighting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairLoss {
    /// h, in nats.
    pub margin: f64,
    /// l(h) ≥ 0: nats for DPO, squared nats for IPO.
    pub loss: f64,
    /// ∂l/∂h.
    pub derivative: f64,
    /// log π(y_w) − log π_ref(y_w) and the same of y_l.
    pub chosen_log_ratio: f64,
    /// log π(y_l) − log π_ref(y_l), in nats.
    pub rejected_log_ratio: f64,
}

impl Preference {
    /// # Errors
    /// As [`PreferenceConfig::validate`].
    pub fn new(config: PreferenceConfig) -> Result<Self> {
        config.validate()?;
        Ok(Preference { config })
    }

    /// The loss of a margin h and its derivative by h.
    pub fn margin_loss(&self, margin: f64) -> (f64, f64) {
        let beta = self.config.beta;
        match self.config.loss {
            PreferenceLoss::Dpo => {
                let logit = beta * margin;
                // softplus(−x) and σ(−x), both without overflow for any x.
                let loss = (-logit).max(0.0) + (-logit.abs()).exp().ln_1p();
                let e = (-logit.abs()).exp();
                let sigmoid_of_negative = if logit >= 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
                (loss, -beta * sigmoid_of_negative)
            }
            PreferenceLoss::Ipo => {
                let distance = margin - 1.0 / (2.0 * beta);
                (distance * distance, 2.0 * distance)
            }
        }
    }

    /// The losses of all pairs, in order, before weighting.
    ///
    /// # Errors
    /// When the shapes disagree, a sequence has no partner, or the reference is missing.
    pub fn pairs(&self, inputs: &LossInputs<'_>) -> Result<Vec<PairLoss>> {
        inputs.check()?;
        let reference = inputs.reference("a preference objective")?;
        if !inputs.sequences().is_multiple_of(2) {
            return Err(Error::new(format!("{} sequences do not make pairs", inputs.sequences())));
        }
        let log_ratios: Vec<f64> = inputs
            .iter()
            .map(|(tokens, _)| tokens.map(|t| f64::from(inputs.logprobs[t]) - f64::from(reference[t])).sum())
            .collect();
        let pair = |&[chosen_log_ratio, rejected_log_ratio]: &[f64; 2]| {
            let margin = chosen_log_ratio - rejected_log_ratio;
            let (loss, derivative) = self.margin_loss(margin);
            PairLoss { margin, loss, derivative, chosen_log_ratio, rejected_log_ratio }
        };
        Ok(log_ratios.as_chunks().0.iter().map(pair).collect())
    }
}

impl Objective for Preference {
    fn needs_reference(&self) -> bool {
        true
    }

    fn loss(&self, inputs: &LossInputs<'_>) -> Result<LossOutputs> {
        let pairs = self.pairs(inputs)?;
        let mut loss = 0.0;
        let mut gradient = vec![0.0f32; inputs.logprobs.len()];
        let mut metrics = LossMetrics::default();
        for (i, (tokens, weight)) in inputs.iter().enumerate() {
            let pair = pairs[i / 2];
            let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
            gradient[tokens].fill((sign * weight * pair.derivative) as f32);
            if i % 2 == 0 {
                loss += weight * pair.loss;
                metrics.pair_loss.add(pair.loss);
                metrics.pair_accuracy.count(pair.margin > 0.0);
                metrics.chosen_reward.add(self.config.beta * pair.chosen_log_ratio);
                metrics.rejected_reward.add(self.config.beta * pair.rejected_log_ratio);
            }
        }
        for &logprob in inputs.logprobs {
            metrics.nll.add(-f64::from(logprob));
        }
        Ok(LossOutputs { loss, logprob_gradient: gradient, entropy_gradient: None, metrics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{Case, assert_gradient};
    use super::*;

    fn objective(loss: PreferenceLoss, beta: f64) -> Preference {
        Preference::new(PreferenceConfig { loss, beta }).unwrap()
    }

    #[test]
    fn dpo_and_ipo_have_the_gradients_of_their_losses() {
        let mut case = Case::random(8, &[4, 3, 1, 6, 2, 0]);
        case.weights = vec![0.5, 0.5, 0.3, 0.3, 0.2, 0.2];
        for (loss, beta) in [(PreferenceLoss::Dpo, 0.1), (PreferenceLoss::Dpo, 2.0), (PreferenceLoss::Ipo, 0.4)] {
            assert_gradient(&objective(loss, beta), &case.inputs(), 1e-3);
        }
    }

    #[test]
    fn a_policy_equal_to_its_reference_loses_ln_2() {
        let mut case = Case::random(8, &[4, 3]);
        case.reference = case.logprobs.clone();
        let pair = objective(PreferenceLoss::Dpo, 0.1).pairs(&case.inputs()).unwrap()[0];
        assert_eq!((pair.margin, pair.derivative), (0.0, -0.05));
        assert!((pair.loss - std::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn huge_margins_do_not_overflow() {
        let dpo = objective(PreferenceLoss::Dpo, 1.0);
        assert_eq!(dpo.margin_loss(1e6), (0.0, 0.0));
        assert_eq!(dpo.margin_loss(-1e6), (1e6, -1.0));
    }

    #[test]
    fn a_sequence_without_a_partner_and_a_missing_reference_are_errors() {
        let case = Case::random(8, &[4, 3, 2]);
        let dpo = objective(PreferenceLoss::Dpo, 1.0);
        assert!(dpo.loss(&case.inputs()).unwrap_err().to_string().contains("3 sequences"));
        let blind = LossInputs { reference_logprobs: None, ..case.inputs() };
        assert!(dpo.loss(&blind).unwrap_err().to_string().contains("reference"));
        assert!(Preference::new(PreferenceConfig { beta: 0.0, ..Default::default() }).is_err());
    }
}
