//! Finite-difference checks shared by the objectives' tests.

use super::{Aggregation, LossInputs, Objective};
use crate::seed::Rng;

/// Random inputs with every optional column.
pub struct Case {
    pub offsets: Vec<usize>,
    pub weights: Vec<f32>,
    pub logprobs: Vec<f32>,
    pub entropy: Vec<f32>,
    pub old: Vec<f32>,
    pub reference: Vec<f32>,
    pub rollout: Vec<f32>,
    pub advantages: Vec<f32>,
}

impl Case {
    /// Sequences of these lengths; logprobs around −2, the other policies near them.
    pub fn random(seed: u64, lengths: &[usize]) -> Self {
        let mut rng = Rng::new(seed);
        let mut offsets = vec![0];
        for n in lengths {
            offsets.push(offsets[offsets.len() - 1] + n);
        }
        let tokens = offsets[lengths.len()];
        let logprobs: Vec<f32> = (0..tokens).map(|_| (-0.2 - 3.0 * rng.uniform()) as f32).collect();
        let mut near = |spread: f64| -> Vec<f32> {
            logprobs.iter().map(|&l| (f64::from(l) + spread * rng.normal()).min(-1e-3) as f32).collect()
        };
        let (old, reference, rollout) = (near(0.3), near(0.8), near(0.5));
        Case {
            offsets,
            weights: Aggregation::SequenceMean.weights(lengths),
            entropy: (0..tokens).map(|_| (3.0 * rng.uniform()) as f32).collect(),
            advantages: (0..lengths.len()).map(|_| rng.normal() as f32).collect(),
            old,
            reference,
            rollout,
            logprobs,
        }
    }

    pub fn inputs(&self) -> LossInputs<'_> {
        LossInputs {
            offsets: &self.offsets,
            weights: &self.weights,
            logprobs: &self.logprobs,
            entropy: Some(&self.entropy),
            old_logprobs: Some(&self.old),
            reference_logprobs: Some(&self.reference),
            rollout_logprobs: Some(&self.rollout),
            advantages: &self.advantages,
        }
    }
}

/// Compares every component of the gradients with central differences of the loss.
pub fn assert_gradient(objective: &dyn Objective, inputs: &LossInputs<'_>, tolerance: f64) {
    let outputs = objective.loss(inputs).unwrap();
    assert_eq!(outputs.logprob_gradient.len(), inputs.logprobs.len());
    assert!(outputs.loss.is_finite());
    let h = 1e-3f32;
    let difference = |values: &[f32], at: usize, loss: &dyn Fn(&[f32]) -> f64| -> f64 {
        let mut moved = values.to_vec();
        moved[at] = values[at] + h;
        let (up, above) = (loss(&moved), f64::from(moved[at]));
        moved[at] = values[at] - h;
        let (down, below) = (loss(&moved), f64::from(moved[at]));
        (up - down) / (above - below)
    };
    for t in 0..inputs.logprobs.len() {
        let numeric = difference(inputs.logprobs, t, &|moved| {
            objective.loss(&LossInputs { logprobs: moved, ..*inputs }).unwrap().loss
        });
        let exact = f64::from(outputs.logprob_gradient[t]);
        assert!((numeric - exact).abs() < tolerance, "token {t}: gradient {exact}, difference {numeric}");
    }
    let Some(entropy) = inputs.entropy else { return };
    for t in 0..entropy.len() {
        let numeric = difference(entropy, t, &|moved| {
            objective.loss(&LossInputs { entropy: Some(moved), ..*inputs }).unwrap().loss
        });
        let exact = outputs.entropy_gradient.as_ref().map_or(0.0, |g| f64::from(g[t]));
        assert!((numeric - exact).abs() < tolerance, "entropy {t}: gradient {exact}, difference {numeric}");
    }
}
