//! GRPO: group-relative policy optimisation and the variants of it that matter.
//!
//! DeepSeekMath (arXiv 2402.03300) eq. 3, as DeepSeek-R1 (arXiv 2501.12948) uses it:
//!
//! ```text
//! L = −Σ_i w_i Σ_t [ c_it · min(ρ_it A_i, clip(ρ_it, 1−ε_low, 1+ε_high) A_i) − β KL_it + c_H H_it ]
//! ρ_it = π(o_it)/π_old(o_it)      KL_it = π_ref/π − log(π_ref/π) − 1      w_i = 1/(B |o_i|)
//! ```
//!
//! The advantage A_i comes from [`crate::train::advantage`], the weight w_i from
//! [`super::Aggregation`]; the importance correction c_it is 1 unless configured.
//! Dr. GRPO, DAPO and RLOO are choices of A, w and ε; GSPO and CISPO replace the
//! surrogate, see [`Surrogate`].

mod config;

pub use config::{Correction, CorrectionKind, GrpoConfig, Surrogate};

use super::{LossInputs, LossMetrics, LossOutputs, Objective, clamp_log_ratio};
use crate::error::{Error, Result};

/// The GRPO objective under one [`GrpoConfig`].
#[derive(Clone, Debug, PartialEq)]
pub struct Grpo {
    config: GrpoConfig,
}

/// Which bound holds a ratio back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clip {
    None,
    Low,
    High,
    Dual,
}

/// A surrogate's value, its derivative by the log ratio, and the bound that was active.
#[derive(Clone, Copy, Debug)]
struct Surrogated {
    value: f64,
    derivative: f64,
    clip: Clip,
}

impl Grpo {
    /// # Errors
    /// A usage error if a setting is out of range.
    pub fn new(config: GrpoConfig) -> Result<Self> {
        config.validate()?;
        Ok(Grpo { config })
    }

    /// min(ρA, clip(ρ)A) and the dual clip, for ρ = exp(log_ratio).
    fn clipped(&self, log_ratio: f64, advantage: f64) -> Surrogated {
        let (log_ratio, inside) = clamp_log_ratio(log_ratio);
        let ratio = log_ratio.exp();
        let free = ratio * advantage;
        let bounded = ratio.clamp(1.0 - self.config.clip_low, 1.0 + self.config.clip_high) * advantage;
        let mut result = Surrogated { value: free, derivative: free * inside, clip: Clip::None };
        if bounded < free {
            let clip = if advantage > 0.0 { Clip::High } else { Clip::Low };
            result = Surrogated { value: bounded, derivative: 0.0, clip };
        }
        if let Some(c) = self.config.dual_clip
            && advantage < 0.0
            && result.value < c * advantage
        {
            result = Surrogated { value: c * advantage, derivative: 0.0, clip: Clip::Dual };
        }
        result
    }

    /// The surrogate of one token. `log_ratio` is the token's own or, for GSPO, its sequence's mean:
    /// there each of n tokens moves the mean by 1/n and n tokens carry it, so that a token's
    /// derivative is the whole one again.
    fn surrogate(&self, logprob: f64, log_ratio: f64, advantage: f64) -> Surrogated {
        match self.config.surrogate {
            Surrogate::Token | Surrogate::Sequence => self.clipped(log_ratio, advantage),
            Surrogate::Cispo => {
                let ratio = clamp_log_ratio(log_ratio).0.exp();
                let cap = 1.0 + self.config.clip_high;
                let weight = ratio.min(cap) * advantage;
                let clip = if ratio > cap { Clip::High } else { Clip::None };
                Surrogated { value: weight * logprob, derivative: weight, clip }
            }
        }
    }

    /// c_t of each token of one sequence, measured into `metrics`. Empty without a correction.
    fn corrections(&self, old: &[f32], rollout: Option<&[f32]>, metrics: &mut LossMetrics) -> Vec<f64> {
        let Some(rollout) = rollout else { return Vec::new() };
        let mut weights = Vec::with_capacity(old.len());
        for (&old, &rollout) in old.iter().zip(rollout) {
            let known = rollout.is_finite();
            metrics.rollout_missing.count(!known);
            // Filled with π_old's own logprob: a gap of 0 and a weight of 1.
            let gap = if known { f64::from(old) - f64::from(rollout) } else { 0.0 };
            if known {
                metrics.rollout_gap.add(gap.abs());
                metrics.rollout_gap_max.add(gap.abs());
            }
            if let Some(correction) = &self.config.correction {
                let (weight, out_of_bounds) = correction.weight(clamp_log_ratio(gap).0);
                metrics.correction.add(weight);
                metrics.corrected.count(out_of_bounds);
                weights.push(weight);
            }
        }
        if self.config.surrogate == Surrogate::Sequence && !weights.is_empty() {
            // One ratio for the sequence takes one correction: the mean leaves the loss as it is.
            let mean = weights.iter().sum::<f64>() / weights.len() as f64;
            weights.fill(mean);
        }
        weights
    }
}

impl Objective for Grpo {
    fn needs_reference(&self) -> bool {
        self.config.kl_coefficient > 0.0
    }

    fn needs_entropy(&self) -> bool {
        self.config.entropy_coefficient != 0.0
    }

    fn loss(&self, inputs: &LossInputs<'_>) -> Result<LossOutputs> {
        inputs.check()?;
        if inputs.advantages.len() != inputs.sequences() {
            return Err(Error::new(format!("GRPO was given no advantages for {} sequences", inputs.sequences())));
        }
        if self.needs_reference() {
            inputs.reference("a KL penalty")?;
        }
        if self.needs_entropy() && inputs.entropy.is_none() {
            return Err(Error::new("an entropy bonus needs the policy's entropies"));
        }
        let mut outputs = LossOutputs {
            logprob_gradient: vec![0.0; inputs.logprobs.len()],
            entropy_gradient: self.needs_entropy().then(|| vec![0.0; inputs.logprobs.len()]),
            ..LossOutputs::default()
        };
        for (i, (tokens, weight)) in inputs.iter().enumerate() {
            self.sequence(inputs, tokens, weight, f64::from(inputs.advantages[i]), &mut outputs);
        }
        Ok(outputs)
    }
}

impl Grpo {
    /// Adds one sequence's loss, gradients and measurements to `outputs`.
    fn sequence(
        &self,
        inputs: &LossInputs<'_>,
        tokens: std::ops::Range<usize>,
        weight: f64,
        advantage: f64,
        outputs: &mut LossOutputs,
    ) {
        let config = &self.config;
        let metrics = &mut outputs.metrics;
        let logprobs = &inputs.logprobs[tokens.clone()];
        let old = &inputs.old_logprobs.unwrap_or(inputs.logprobs)[tokens.clone()];
        let log_ratio = |t: usize| f64::from(logprobs[t]) - f64::from(old[t]);
        // Ratios and corrections are the surrogate's, and without an advantage it is 0 whatever they are.
        let compared = advantage != 0.0;
        let rollout = inputs.rollout_logprobs.filter(|_| compared).map(|r| &r[tokens.clone()]);
        let corrections = self.corrections(old, rollout, metrics);
        let by_sequence = config.surrogate == Surrogate::Sequence;
        let sequence_log_ratio = match logprobs.len() {
            n if n > 0 && by_sequence => (0..n).map(log_ratio).sum::<f64>() / n as f64,
            _ => 0.0,
        };

        for (t, token) in tokens.clone().enumerate() {
            let logprob = f64::from(logprobs[t]);
            let log_ratio = if by_sequence { sequence_log_ratio } else { log_ratio(t) };
            let surrogate = self.surrogate(logprob, log_ratio, advantage);
            let correction = corrections.get(t).copied().unwrap_or(1.0);
            let mut loss = -correction * surrogate.value;
            let mut gradient = -correction * surrogate.derivative;

            metrics.nll.add(-logprob);
            if compared {
                metrics.clip_low.count(surrogate.clip == Clip::Low);
                metrics.clip_high.count(surrogate.clip == Clip::High);
                metrics.clip_dual.count(surrogate.clip == Clip::Dual);
                metrics.kl_old.add(super::KlEstimator::K3.estimate(logprob, f64::from(old[t])).0);
                let ratio = clamp_log_ratio(log_ratio).0.exp();
                metrics.ratio.add(ratio);
                metrics.ratio_max.add(ratio);
            }

            if let Some(reference) = inputs.reference_logprobs {
                let (kl, derivative) = config.kl_estimator.estimate(logprob, f64::from(reference[token]));
                metrics.kl_reference.add(kl);
                // Kept out where β is 0, so that a reference given only to be measured costs no 0·∞.
                if config.kl_coefficient > 0.0 {
                    loss += config.kl_coefficient * kl;
                    gradient += config.kl_coefficient * derivative;
                }
            }
            if let Some(entropy) = inputs.entropy {
                metrics.entropy.add(f64::from(entropy[token]));
                if let Some(entropy_gradient) = &mut outputs.entropy_gradient {
                    loss -= config.entropy_coefficient * f64::from(entropy[token]);
                    entropy_gradient[token] = (-weight * config.entropy_coefficient) as f32;
                }
            }
            outputs.loss += weight * loss;
            outputs.logprob_gradient[token] = (weight * gradient) as f32;
        }
    }
}

#[cfg(test)]
mod tests;
