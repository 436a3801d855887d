//! Supervised fine-tuning: cross-entropy on completion tokens.

use super::{LossInputs, LossMetrics, LossOutputs, Objective};
use crate::error::Result;

/// L = −Σ_i w_i Σ_t log π(o_it), so g_t = −w_i.
///
/// With [`super::Aggregation::TokenMean`] this is the usual token mean over the accumulated batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sft;

impl Objective for Sft {
    fn needs_reference(&self) -> bool {
        false
    }

    fn loss(&self, inputs: &LossInputs<'_>) -> Result<LossOutputs> {
        inputs.check()?;
        let mut loss = 0.0;
        let mut gradient = vec![0.0f32; inputs.logprobs.len()];
        let mut metrics = LossMetrics::default();
        for (tokens, weight) in inputs.iter() {
            let nll = -inputs.logprobs[tokens.clone()].iter().map(|&l| f64::from(l)).sum::<f64>();
            loss += weight * nll;
            metrics.nll.sum += nll;
            metrics.nll.weight += tokens.len() as f64;
            gradient[tokens].fill(-weight as f32);
        }
        for &entropy in inputs.entropy.unwrap_or_default() {
            metrics.entropy.add(f64::from(entropy));
        }
        Ok(LossOutputs { loss, logprob_gradient: gradient, entropy_gradient: None, metrics })
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{Case, assert_gradient};
    use super::super::{Aggregation, LossInputs, Objective};
    use super::Sft;

    #[test]
    fn the_gradient_is_the_finite_difference() {
        let case = Case::random(11, &[4, 0, 7, 1]);
        assert_gradient(&Sft, &case.inputs(), 1e-6);
    }

    #[test]
    fn micro_batches_add_up_to_the_token_mean_of_the_batch() {
        let logprobs = [-1.0f32, -2.0, -3.0, -6.0];
        let weights = Aggregation::TokenMean.weights(&[3, 1]);
        let whole =
            Sft.loss(&LossInputs { offsets: &[0, 3, 4], weights: &weights, logprobs: &logprobs, ..Default::default() });
        let mut parts = 0.0;
        for (range, weight) in [(0..3, &weights[..1]), (3..4, &weights[1..])] {
            let offsets = [0, range.len()];
            let logprobs = &logprobs[range];
            let inputs = LossInputs { offsets: &offsets, weights: weight, logprobs, ..Default::default() };
            parts += Sft.loss(&inputs).unwrap().loss;
        }
        assert!((whole.unwrap().loss - 3.0).abs() < 1e-6);
        assert!((parts - 3.0).abs() < 1e-6);
    }
}
