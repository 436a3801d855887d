//! Estimators of KL(π ‖ π_ref) from one sampled token.
//!
//! With x = log π_ref − log π (Schulman, "Approximating KL divergence", 2020):
//! k1 = −x, k2 = x²/2, k3 = eˣ − x − 1. k3 is what DeepSeekMath eq. 4 and R1 use.

use serde::{Deserialize, Serialize};

use super::clamp_log_ratio;

/// The largest k3 a token may contribute; beyond it the gradient is zero.
pub const K3_LIMIT: f64 = 10.0;

/// Which estimator the penalty uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// log π − log π_ref: unbiased, may be negative. As a loss its gradient is zero in expectation
    /// (it is ∇ log π), so use it to measure rather than to penalise.
    K1,
    /// (log π − log π_ref)²/2: biased, and its gradient is the KL's on-policy gradient.
    K2,
    /// π_ref/π − log(π_ref/π) − 1: unbiased, never negative. The paper's.
    #[default]
    K3,
}

impl KlEstimator {
    /// The estimate and its derivative by `logprob`.
    pub fn estimate(self, logprob: f64, reference: f64) -> (f64, f64) {
        let (x, inside) = clamp_log_ratio(reference - logprob);
        match self {
            KlEstimator::K1 => (-x, inside),
            KlEstimator::K2 => (x * x / 2.0, -x * inside),
            KlEstimator::K3 => {
                let ratio = x.exp();
                let k3 = ratio - x - 1.0;
                if k3 > K3_LIMIT { (K3_LIMIT, 0.0) } else { (k3, (1.0 - ratio) * inside) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_derivative_is_the_finite_difference() {
        for kl in [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3] {
            for (logprob, reference) in [(-1.0, -1.5), (-2.0, -0.5), (-0.1, -0.1), (-1.0, -9.0), (-25.0, -1.0)] {
                let (_, derivative) = kl.estimate(logprob, reference);
                let h = 1e-6;
                let difference =
                    (kl.estimate(logprob + h, reference).0 - kl.estimate(logprob - h, reference).0) / (2.0 * h);
                assert!((derivative - difference).abs() < 1e-6, "{kl:?} at {logprob}, {reference}");
            }
        }
    }

    #[test]
    fn k3_is_bounded_and_never_negative() {
        for reference in [-1000.0, -50.0, -3.0, -1.0, 0.0] {
            for logprob in [-1000.0, -50.0, -1.0, 0.0] {
                let (k3, gradient) = KlEstimator::K3.estimate(logprob, reference);
                assert!((0.0..=K3_LIMIT).contains(&k3) && gradient.is_finite());
            }
        }
        assert_eq!(KlEstimator::K3.estimate(-2.0, -2.0), (0.0, 0.0));
    }
}
