//! The settings of the GRPO objective and its variants.

use serde::{Deserialize, Serialize};

use super::super::{Aggregation, KlEstimator};
use crate::error::{Error, Result};

/// Settings of [`super::Grpo`]. The defaults are R1's reasoning RL where the paper gives a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrpoConfig {
    /// How the probability ratio enters the loss.
    pub surrogate: Surrogate,
    /// ε_low: a ratio below 1 − ε_low stops pushing down a token with A < 0. At least 0.
    /// 0.2 as in PPO and DAPO; the paper reports ε = 10 for its reasoning RL, which clips almost nothing.
    pub clip_low: f64,
    /// ε_high: a ratio above 1 + ε_high stops pushing up a token with A > 0. At least 0.
    /// DAPO's clip-higher is 0.28; GSPO needs values near 4e-4 because its ratio is a geometric mean.
    pub clip_high: f64,
    /// c > 1: for A < 0 the loss is bounded by c·|A| (dual-clip PPO, arXiv 1912.09729, 3 there). Off if absent.
    pub dual_clip: Option<f64>,
    /// β of the penalty β·KL(π ‖ π_ref). 0 needs no reference. The paper: 0.001.
    pub kl_coefficient: f64,
    /// Which estimator of the KL; the paper's is k3.
    pub kl_estimator: KlEstimator,
    /// c_H of the bonus c_H · H(π) per token. 0 is off, as in the paper.
    pub entropy_coefficient: f64,
    /// The normaliser over the accumulated batch.
    pub aggregation: Aggregation,
    /// Importance correction for rollouts sampled by another engine. Off if absent.
    pub correction: Option<Correction>,
}

/// How the ratio ρ_t = π(o_t)/π_old(o_t) enters the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surrogate {
    /// min(ρ_t A, clip(ρ_t, 1 − ε_low, 1 + ε_high) A): DeepSeekMath, R1, DAPO.
    #[default]
    Token,
    /// The same with the sequence's ratio s = exp(mean_t log ρ_t) on each of its tokens:
    /// GSPO, arXiv 2507.18071, eq. 5 to 7.
    Sequence,
    /// sg\[min(ρ_t, 1 + ε_high)\] · A · log π(o_t): CISPO, MiniMax-M1, arXiv 2506.13585, eq. 4. No token
    /// loses its gradient; only its weight is bounded.
    Cispo,
}

/// Weighs each token by how much likelier it was under π_old than under the engine that sampled
/// it, c_t = π_old(o_t)/π_rollout(o_t), held constant in the gradient.
///
/// A token whose rollout logprob is unknown counts as sampled by π_old: c_t = 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Correction {
    /// Whether such a weight is bounded or becomes 0.
    pub kind: CorrectionKind,
    /// C, the largest weight. At least 1.
    pub cap: f64,
    /// The smallest weight of a masked correction; unused by a truncated one. In 0 to 1.
    pub floor: f64,
}

/// What becomes of a weight outside the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorrectionKind {
    /// min(c_t, C): truncated importance sampling (Espeholt et al., IMPALA, arXiv 1802.01561).
    #[default]
    Truncated,
    /// c_t inside \[floor, C\], else 0: tokens on which the engines disagree carry no policy gradient.
    Masked,
}

impl Default for GrpoConfig {
    fn default() -> Self {
        GrpoConfig {
            surrogate: Surrogate::Token,
            clip_low: 0.2,
            clip_high: 0.2,
            dual_clip: None,
            kl_coefficient: 0.001,
            kl_estimator: KlEstimator::K3,
            entropy_coefficient: 0.0,
            aggregation: Aggregation::SequenceMean,
            correction: None,
        }
    }
}

impl Default for Correction {
    fn default() -> Self {
        Correction { kind: CorrectionKind::Truncated, cap: 2.0, floor: 0.5 }
    }
}

impl GrpoConfig {
    /// Checks the ranges that the fields' docs give.
    ///
    /// # Errors
    /// A usage error that names the field and its range.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, field: &str, value: f64, range: &str| {
            if ok {
                return Ok(());
            }
            Err(Error::usage(format!("`{field}` is {value}")).in_field(field).hint(format!("it must be {range}")))
        };
        let non_negative =
            |field: &str, value: f64| check(value.is_finite() && value >= 0.0, field, value, "a number of at least 0");
        non_negative("clip_low", self.clip_low)?;
        non_negative("clip_high", self.clip_high)?;
        non_negative("kl_coefficient", self.kl_coefficient)?;
        check(self.entropy_coefficient.is_finite(), "entropy_coefficient", self.entropy_coefficient, "a number")?;
        if self.dual_clip.is_some() && self.surrogate == Surrogate::Cispo {
            return Err(Error::usage("CISPO has no dual clip: its weight is bounded by `clip_high` alone")
                .in_field("dual_clip")
                .hint("leave `dual_clip` out, or `surrogate = \"cispo\"`"));
        }
        if let Some(c) = self.dual_clip {
            check(c.is_finite() && c > 1.0, "dual_clip", c, "above 1")?;
        }
        if let Some(correction) = self.correction {
            let Correction { cap, floor, .. } = correction;
            check(cap.is_finite() && cap >= 1.0, "correction.cap", cap, "at least 1")?;
            check((0.0..=1.0).contains(&floor), "correction.floor", floor, "from 0 to 1")?;
        }
        self.aggregation.validate()
    }
}

impl Correction {
    /// The weight of a token with this clamped log π_old − log π_rollout, and whether it was out of bounds.
    pub(super) fn weight(&self, log_ratio: f64) -> (f64, bool) {
        let ratio = log_ratio.exp();
        match self.kind {
            CorrectionKind::Truncated => (ratio.min(self.cap), ratio > self.cap),
            CorrectionKind::Masked if ratio < self.floor || ratio > self.cap => (0.0, true),
            CorrectionKind::Masked => (ratio, false),
        }
    }
}
