//! The numbers of an optimizer's update.

/// AdamW (Loshchilov & Hutter 2019, alg. 2), weight decay decoupled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this update.
    pub lr: f32,
    /// Decay of the first moment, below 1.
    pub beta1: f32,
    /// Decay of the second moment, below 1.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Share of a value that an update takes away, times `lr`.
    pub weight_decay: f32,
    /// 1 for the first update.
    pub step: u64,
    /// Gradients are multiplied by this first (clipping, accumulation).
    pub grad_scale: f32,
}

/// Muon (Jordan 2024): momentum, orthogonalised by Newton–Schulz iterations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Learning rate of this update.
    pub lr: f32,
    /// Decay of the momentum, below 1.
    pub momentum: f32,
    /// Whether the update looks ahead by one more step of the momentum.
    pub nesterov: bool,
    /// Share of a value that an update takes away, times `lr`.
    pub weight_decay: f32,
    /// Newton–Schulz iterations; 5 is the author's.
    pub iterations: u32,
    /// Gradients are multiplied by this first (clipping, accumulation).
    pub grad_scale: f32,
}
