//! Advantages: how much better each completion is than the others of its group.

use serde::{Deserialize, Serialize};

/// How a group's rewards become advantages. With n rewarded completions, mean μ and population
/// standard deviation σ of the group:
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AdvantageKind {
    /// (r − μ)/(σ + 1e-6): DeepSeekMath eq. 3, R1.
    #[default]
    GroupStd,
    /// r − μ: Dr. GRPO (arXiv 2503.20783). No division, so easy and hard prompts keep their scale.
    GroupMean,
    /// r − mean of the others = n/(n−1) (r − μ): RLOO (arXiv 2402.14740).
    LeaveOneOut,
    /// (r − μ)/scale with a fixed scale, such as 0.5 for rewards near 0 and 1. Keeps all-wrong
    /// groups from turning small style rewards into full-size advantages, as a division by σ does.
    Fixed {
        /// In units of reward, above 0.
        scale: f64,
    },
}

/// Added to σ before the division.
const STD_EPSILON: f64 = 1e-6;

/// What a group's rewards come to.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAdvantages {
    /// One a completion; `None` exactly where the reward is missing or not finite.
    pub advantages: Vec<Option<f64>>,
    /// Mean and population standard deviation of the known rewards; `None` if there is none.
    pub mean: Option<f64>,
    /// 0 where rewards differ by rounding alone.
    pub std: Option<f64>,
    /// Whether two completions differ in reward: otherwise every advantage is 0 and the group
    /// teaches nothing.
    pub varied: bool,
}

impl AdvantageKind {
    /// The advantages of one group. A group with no or one known reward, or whose rewards are all
    /// the same, has advantages of exactly 0.
    pub fn advantages(self, rewards: &[Option<f64>]) -> GroupAdvantages {
        let usable = |r: &Option<f64>| r.filter(|r| r.is_finite());
        let known: Vec<f64> = rewards.iter().filter_map(usable).collect();
        let n = known.len() as f64;
        if known.is_empty() {
            return GroupAdvantages { advantages: vec![None; rewards.len()], mean: None, std: None, varied: false };
        }
        let mean = known.iter().sum::<f64>() / n;
        let std = (known.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / n).sqrt();
        let (low, high) = known.iter().fold((f64::MAX, f64::MIN), |(l, h), &r| (l.min(r), h.max(r)));
        // Rewards that differ by rounding alone (0.1 + 0.2 and 0.3) are the same reward.
        let varied = high - low > 1e-9 * low.abs().max(high.abs()).max(1.0);
        let factor = match self {
            _ if !varied => 0.0,
            AdvantageKind::GroupStd => 1.0 / (std + STD_EPSILON),
            AdvantageKind::GroupMean => 1.0,
            AdvantageKind::LeaveOneOut => n / (n - 1.0),
            AdvantageKind::Fixed { scale } => 1.0 / scale,
        };
        let advantage = |r: &Option<f64>| usable(r).map(|r| if varied { (r - mean) * factor } else { 0.0 });
        GroupAdvantages {
            advantages: rewards.iter().map(advantage).collect(),
            mean: Some(mean),
            std: Some(if varied { std } else { 0.0 }),
            varied,
        }
    }
}

/// DAPO's soft penalty for completions near the token limit (arXiv 2503.14476, eq. 13), added to
/// the reward: 0 up to `limit − buffer`, then falling linearly to −1 at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlongPenalty {
    /// L_max: tokens a completion may have.
    pub limit: u32,
    /// Tokens before the limit over which the penalty grows. At least 1.
    pub buffer: u32,
    /// Multiplies the penalty.
    #[serde(default = "one")]
    pub factor: f64,
}

fn one() -> f64 {
    1.0
}

impl OverlongPenalty {
    /// The penalty of a completion of this many tokens, from −factor to 0.
    pub fn penalty(&self, tokens: usize) -> f64 {
        let free = f64::from(self.limit.saturating_sub(self.buffer));
        let over = (tokens as f64 - free) / f64::from(self.buffer.max(1));
        -self.factor * over.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rewards: &[f64]) -> Vec<Option<f64>> {
        rewards.iter().copied().map(Some).collect()
    }

    #[test]
    fn each_kind_is_its_formula() {
        let rewards = all(&[1.0, 0.0, 0.0, 1.0]);
        let first = |kind: AdvantageKind| kind.advantages(&rewards).advantages[0].unwrap();
        assert!((first(AdvantageKind::GroupStd) - 0.5 / (0.5 + 1e-6)).abs() < 1e-12);
        assert_eq!(first(AdvantageKind::GroupMean), 0.5);
        // The other three average 1/3.
        assert!((first(AdvantageKind::LeaveOneOut) - (1.0 - 1.0 / 3.0)).abs() < 1e-12);
        assert_eq!(first(AdvantageKind::Fixed { scale: 0.5 }), 1.0);
    }

    #[test]
    fn advantages_of_a_group_sum_to_zero() {
        let rewards = all(&[0.1, 1.6, 0.7, 0.7, 1.1]);
        for kind in [
            AdvantageKind::GroupStd,
            AdvantageKind::GroupMean,
            AdvantageKind::LeaveOneOut,
            AdvantageKind::Fixed { scale: 2.0 },
        ] {
            let sum: f64 = kind.advantages(&rewards).advantages.iter().flatten().sum();
            assert!(sum.abs() < 1e-9, "{kind:?}");
        }
    }

    #[test]
    fn a_missing_reward_is_left_out_of_the_mean_and_gets_no_advantage() {
        let with = AdvantageKind::GroupStd.advantages(&[Some(1.0), None, Some(0.0), Some(f64::NAN)]);
        let without = AdvantageKind::GroupStd.advantages(&all(&[1.0, 0.0]));
        assert_eq!(with.advantages[0], without.advantages[0]);
        assert_eq!((with.advantages[1], with.advantages[3]), (None, None));
        assert_eq!((with.mean, with.std), (Some(0.5), Some(0.5)));
    }

    #[test]
    fn groups_that_teach_nothing_are_zero_and_never_nan() {
        for kind in [AdvantageKind::GroupStd, AdvantageKind::LeaveOneOut, AdvantageKind::Fixed { scale: 0.5 }] {
            for rewards in [vec![], all(&[1.0]), all(&[0.1 + 0.2, 0.3, 0.3]), vec![None, Some(1.0), None], vec![None]] {
                let group = kind.advantages(&rewards);
                assert!(!group.varied);
                assert!(group.advantages.iter().flatten().all(|&a| a == 0.0), "{kind:?} {rewards:?}");
            }
        }
    }

    #[test]
    fn the_overlong_penalty_falls_over_its_buffer() {
        let penalty = OverlongPenalty { limit: 100, buffer: 20, factor: 1.0 };
        assert_eq!([0, 80, 90, 100, 500].map(|n| penalty.penalty(n)), [0.0, 0.0, -0.5, -1.0, -1.0]);
    }
}
