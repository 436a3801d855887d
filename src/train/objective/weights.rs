//! How token losses are averaged: the weight of each sequence's tokens in the batch's loss.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The normaliser of a loss, over the whole accumulated batch.
///
/// With n_i trained tokens in sequence i, B sequences and T = Σ n_i tokens in the batch:
///
/// | variant | weight of a token | from |
/// | --- | --- | --- |
/// | `SequenceMean` | 1 / (B n_i) | GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3) |
/// | `TokenMean` | 1 / T | DAPO (arXiv 2503.14476, eq. 8); the usual SFT loss |
/// | `Constant` | 1 / (B · length) | Dr. GRPO (arXiv 2503.20783) |
///
/// `SequenceMean` favours short correct answers and long wrong ones; `Constant` removes that bias
/// and leaves a scale that does not depend on what was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Aggregation {
    /// The mean over sequences of the mean over each one's tokens.
    #[default]
    SequenceMean,
    /// The mean over all tokens of the batch.
    TokenMean,
    /// The sum over tokens divided by sequences times this length, usually the completion limit.
    Constant {
        /// Tokens, at least 1.
        length: u32,
    },
}

impl Aggregation {
    /// # Errors
    /// A usage error if a constant length is 0.
    pub fn validate(self) -> Result<()> {
        match self {
            Aggregation::Constant { length: 0 } => Err(Error::usage("`aggregation.constant.length` is 0")
                .in_field("aggregation.constant.length")
                .hint("it must be at least 1")),
            _ => Ok(()),
        }
    }

    /// The weight of each sequence's tokens, given the number of trained tokens of every sequence
    /// of the accumulated batch. Sequences without tokens get 0 and do not count.
    pub fn weights(self, tokens: &[usize]) -> Vec<f32> {
        let sequences = tokens.iter().filter(|&&n| n > 0).count() as f64;
        let total = tokens.iter().sum::<usize>() as f64;
        let weight = |n: usize| match self {
            _ if n == 0 => 0.0,
            Aggregation::SequenceMean => 1.0 / (sequences * n as f64),
            Aggregation::TokenMean => 1.0 / total,
            Aggregation::Constant { length } => 1.0 / (sequences * f64::from(length.max(1))),
        };
        tokens.iter().map(|&n| weight(n) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mean_weighs_a_constant_loss_as_one() {
        let tokens = [3, 0, 5, 1];
        for aggregation in [Aggregation::SequenceMean, Aggregation::TokenMean] {
            let total: f32 = aggregation.weights(&tokens).iter().zip(tokens).map(|(w, n)| w * n as f32).sum();
            assert!((total - 1.0).abs() < 1e-6, "{aggregation:?} sums to {total}");
        }
        let weights = Aggregation::Constant { length: 10 }.weights(&tokens);
        assert_eq!(weights, vec![1.0 / 30.0, 0.0, 1.0 / 30.0, 1.0 / 30.0]);
    }

    #[test]
    fn an_empty_batch_has_finite_weights() {
        for aggregation in [Aggregation::SequenceMean, Aggregation::TokenMean, Aggregation::Constant { length: 0 }] {
            assert!(aggregation.weights(&[0, 0]).iter().all(|&w| w == 0.0));
            assert!(aggregation.weights(&[]).is_empty());
        }
    }
}
