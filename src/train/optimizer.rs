//! Which parameter is updated how, and when an update is refused.

use serde::{Deserialize, Serialize};

use crate::backend::{AdamW, Muon};
use crate::error::{Error, Result};
use crate::model::{ParamInfo, ParamKind, Update};

/// Settings of the optimizer. The learning rate comes from the schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// AdamW by default.
    pub kind: OptimizerKind,
    /// β₁ of AdamW, the decay of the first moment, in [0, 1); 0.9 by default.
    pub beta1: f64,
    /// β₂ of AdamW, the decay of the second moment, in [0, 1); 0.95 by default.
    pub beta2: f64,
    /// ε of AdamW, outside the square root.
    pub eps: f64,
    /// Decoupled weight decay on matrices, embedding and head; never on norms and biases.
    pub weight_decay: f64,
    /// Muon's momentum.
    pub momentum: f64,
    /// Muon only: the rate of what AdamW updates, as a fraction of the schedule's. Muon's updates are
    /// orthogonal, so its rates are larger than AdamW's would be.
    pub adamw_fraction: f64,
    /// Gradients are scaled down to this global L2 norm. Off if 0.
    pub max_grad_norm: f64,
    /// The run stops after this many updates in a row with a gradient that is not finite.
    pub max_bad_steps: u32,
    /// Keep the optimizer's state in the host's memory, pinned, where the device has its own: 8 bytes a weight less of
    /// the device's, and the same bits.
    pub offload: bool,
}

/// The update rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW (arXiv 1711.05101) on everything.
    #[default]
    Adamw,
    /// Muon (Jordan 2024) on the linear layers' matrices, AdamW on embedding, head, norms and biases.
    Muon,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            kind: OptimizerKind::Adamw,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.95,
            adamw_fraction: 1.0,
            max_grad_norm: 1.0,
            max_bad_steps: 5,
            offload: false,
        }
    }
}

impl OptimizerConfig {
    /// # Errors
    /// A usage error that names the field out of range.
    pub fn validate(&self) -> Result<()> {
        let unit = 0.0..1.0;
        let checks = [
            ("beta1", self.beta1, unit.contains(&self.beta1), "from 0 to below 1"),
            ("beta2", self.beta2, unit.contains(&self.beta2), "from 0 to below 1"),
            ("momentum", self.momentum, unit.contains(&self.momentum), "from 0 to below 1"),
            ("eps", self.eps, self.eps.is_finite() && self.eps > 0.0, "above 0"),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay.is_finite() && self.weight_decay >= 0.0,
                "at least 0",
            ),
            (
                "adamw_fraction",
                self.adamw_fraction,
                self.adamw_fraction.is_finite() && self.adamw_fraction >= 0.0,
                "at least 0",
            ),
            ("max_grad_norm", self.max_grad_norm, self.max_grad_norm >= 0.0, "at least 0"),
        ];
        for (field, value, ok, range) in checks {
            if !ok {
                let message = format!("`{field}` of the optimizer is {value}");
                return Err(Error::usage(message).in_field(field).hint(format!("it must be {range}")));
            }
        }
        Ok(())
    }

    /// What gradients of this norm are multiplied by: min(1, limit/(norm + 1e-6)), as PyTorch's
    /// `clip_grad_norm_`.
    pub fn clip_scale(&self, norm: f64) -> f64 {
        if self.max_grad_norm > 0.0 { (self.max_grad_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
    }

    /// How one tensor is updated at this learning rate. `update` is 1 for the first update.
    pub fn update(&self, info: &ParamInfo, rate: f64, update: u64, grad_scale: f64) -> Update {
        let decay = if info.decays() { self.weight_decay as f32 } else { 0.0 };
        let muon = self.kind == OptimizerKind::Muon;
        if muon && info.kind == ParamKind::Matrix {
            return Update::Muon(Muon {
                lr: rate as f32,
                momentum: self.momentum as f32,
                nesterov: true,
                weight_decay: decay,
                iterations: 5,
                grad_scale: grad_scale as f32,
            });
        }
        Update::AdamW(AdamW {
            lr: (if muon { rate * self.adamw_fraction } else { rate }) as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            weight_decay: decay,
            step: update,
            grad_scale: grad_scale as f32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_scales_to_the_limit_and_never_up() {
        let config = OptimizerConfig { max_grad_norm: 2.0, ..Default::default() };
        assert_eq!(config.clip_scale(1.0), 1.0);
        assert!((config.clip_scale(8.0) * 8.0 - 2.0).abs() < 1e-6);
        assert_eq!(OptimizerConfig { max_grad_norm: 0.0, ..Default::default() }.clip_scale(1e9), 1.0);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let bad = |config: OptimizerConfig| config.validate().unwrap_err().to_string();
        assert!(bad(OptimizerConfig { beta2: 1.0, ..Default::default() }).contains("beta2"));
        assert!(bad(OptimizerConfig { eps: f64::NAN, ..Default::default() }).contains("eps"));
        assert!(OptimizerConfig::default().validate().is_ok());
    }
}
