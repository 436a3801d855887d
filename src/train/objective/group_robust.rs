//! Group robustness: weights on the simplex that follow the groups which lose most.
//!
//! Ramesh et al., "Group Robust Preference Optimization in Reward-free RLHF", arXiv 2405.20304:
//! min over π, max over α in the simplex, of Σ_g α_g L(π, D_g). Their Algorithm 1 draws one pair of
//! group g with probability N_g/N and does
//!
//! ```text
//! α_g ← α_g exp(η N l / N_g), renormalise          θ ← θ − η_θ N α_g ∇l / N_g   (with the new α)
//! ```
//!
//! Here a batch of B pairs makes one step: it estimates every group's loss L_g (see [`Estimate`]),
//! moves α_g ← α_g exp(η (L_g + C/√N_g)), and weighs the pairs so that the loss is Σ_g α_g L_g. The
//! estimates are means, divided by the batch size, so η does not depend on it; the authors' code
//! sums instead, which makes their η larger by a factor of B here.
//!
//! The result is a weight per pair, so that one preference objective serves both.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of [`GroupRobust`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupRobustConfig {
    /// Where a pair's weight comes from; uniform by default.
    pub reweighting: Reweighting,
    /// How a batch's losses become the groups', for `robust`.
    pub estimate: Estimate,
    /// η_α ≥ 0, the step of the exponentiated gradient. The paper's 2B runs use 5e-7 on IPO losses
    /// near (1/2β)² = 2,500; DPO losses near 0.7 need 1e-3 to 1e-1.
    pub step_size: f64,
    /// C ≥ 0 of the adjustment C/√N_g, which favours groups with few pairs (Sagawa et al., arXiv 1911.08731).
    pub adjustment: f64,
}

/// How groups are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reweighting {
    /// Every pair weighs the same: plain DPO or IPO.
    #[default]
    Uniform,
    /// Every group weighs the same for good: a pair weighs N/(K N_g) over K groups. The paper's baseline.
    ImportanceSampling,
    /// α follows the groups' losses.
    Robust,
}

/// How a batch estimates the loss of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimate {
    /// L_g = mean over the batch's pairs of g. A group absent from the batch keeps its α.
    #[default]
    GroupMean,
    /// L_g = N/(N_g B) Σ l over the batch's pairs of g: Algorithm 1, unbiased when batches are
    /// drawn from the mixed data, and noisy for small groups.
    Unbiased,
}

impl Default for GroupRobustConfig {
    fn default() -> Self {
        GroupRobustConfig {
            reweighting: Reweighting::Uniform,
            estimate: Estimate::GroupMean,
            step_size: 0.01,
            adjustment: 0.0,
        }
    }
}

impl GroupRobustConfig {
    /// # Errors
    /// A usage error that names the field out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("step_size", self.step_size), ("adjustment", self.adjustment)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::usage(format!("`{field}` is {value}"))
                    .in_field(field)
                    .hint("it must be at least 0"));
            }
        }
        Ok(())
    }
}

/// The weights α and what they are computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRobust {
    config: GroupRobustConfig,
    /// N_g, pairs of each group in the whole data set.
    sizes: Vec<u64>,
    /// log α_g: in the log domain a group that was light for long can still come back.
    log_weights: Vec<f64>,
}

impl GroupRobust {
    /// Starts from uniform weights (importance sampling included) over groups of these sizes.
    ///
    /// # Errors
    /// A usage error if a setting is out of range, there is no group, or a group is empty.
    pub fn new(config: GroupRobustConfig, sizes: &[u64]) -> Result<Self> {
        config.validate()?;
        if sizes.is_empty() || sizes.contains(&0) {
            return Err(Error::usage(format!("groups of {sizes:?} pairs: every group needs at least one")));
        }
        let log_weights = vec![-(sizes.len() as f64).ln(); sizes.len()];
        Ok(GroupRobust { config, sizes: sizes.to_vec(), log_weights })
    }

    /// α, on the simplex.
    pub fn weights(&self) -> Vec<f64> {
        self.log_weights.iter().map(|l| l.exp()).collect()
    }

    /// log α, to store in a checkpoint.
    pub fn log_weights(&self) -> &[f64] {
        &self.log_weights
    }

    /// Continues from [`GroupRobust::log_weights`].
    ///
    /// # Errors
    /// If they are not one finite number a group.
    pub fn restore(&mut self, log_weights: &[f64]) -> Result<()> {
        if log_weights.len() != self.sizes.len() || log_weights.iter().any(|l| !l.is_finite()) {
            return Err(Error::new(format!(
                "{} stored group weights do not fit the data's {} groups",
                log_weights.len(),
                self.sizes.len()
            ))
            .hint("the preference data has changed since the checkpoint; start the stage anew"));
        }
        self.log_weights = log_weights.to_vec();
        Ok(())
    }

    /// Whether [`GroupRobust::step`] uses the losses it is given.
    pub fn needs_losses(&self) -> bool {
        self.config.reweighting == Reweighting::Robust
    }

    /// Takes one step on a whole batch and returns the weight of each of its pairs.
    ///
    /// `groups[i]` is the group of pair i, `losses[i]` its unweighted loss. A batch with a non-finite
    /// loss leaves α as it is. Without [`Reweighting::Robust`] the losses are not looked at.
    pub fn step(&mut self, groups: &[usize], losses: &[f64]) -> Vec<f32> {
        let pairs = groups.len() as f64;
        let all = self.sizes.iter().sum::<u64>() as f64;
        let size = |g: usize| self.sizes[g] as f64;
        match self.config.reweighting {
            Reweighting::Uniform => groups.iter().map(|_| (1.0 / pairs) as f32).collect(),
            Reweighting::ImportanceSampling => {
                let kinds = self.sizes.len() as f64;
                groups.iter().map(|&g| (all / (kinds * size(g) * pairs)) as f32).collect()
            }
            Reweighting::Robust => {
                let mut present = vec![0u64; self.sizes.len()];
                let mut sums = vec![0.0; self.sizes.len()];
                for (&g, &loss) in groups.iter().zip(losses) {
                    present[g] += 1;
                    sums[g] += loss;
                }
                // The factor that turns a group's sum of losses into its estimate L_g.
                let scale: Vec<f64> = (0..sums.len())
                    .map(|g| match self.config.estimate {
                        Estimate::GroupMean => 1.0 / present[g].max(1) as f64,
                        Estimate::Unbiased => all / (size(g) * pairs.max(1.0)),
                    })
                    .collect();
                let estimates: Vec<f64> = sums.iter().zip(&scale).map(|(sum, scale)| sum * scale).collect();
                if estimates.iter().all(|l| l.is_finite()) {
                    self.ascend(&present, &estimates);
                }
                groups.iter().map(|&g| (self.log_weights[g].exp() * scale[g]) as f32).collect()
            }
        }
    }

    /// α_g ← α_g exp(η (L_g + C/√N_g)), renormalised over the groups that have an estimate.
    fn ascend(&mut self, present: &[u64], estimates: &[f64]) {
        let moved: Vec<usize> =
            (0..estimates.len()).filter(|&g| self.config.estimate == Estimate::Unbiased || present[g] > 0).collect();
        let share = log_sum_exp(moved.iter().map(|&g| self.log_weights[g]));
        for &g in &moved {
            let adjusted = estimates[g] + self.config.adjustment / (self.sizes[g] as f64).sqrt();
            self.log_weights[g] += self.config.step_size * adjusted;
        }
        let total = log_sum_exp(moved.iter().map(|&g| self.log_weights[g]));
        for &g in &moved {
            self.log_weights[g] += share - total;
        }
    }
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return max;
    }
    max + values.map(|v| (v - max).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests;
