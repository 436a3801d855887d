//! Where a pass keeps its activations.
//!
//! They are planned for the largest batch seen and reused: no allocation once they have
//! grown. Where layers recompute, they share one set of activations and keep only their
//! input; the backward pass makes a layer's activations again just before it needs them,
//! with the same bits (Chen et al. 2016), for a third more work in the layers.

use super::Config;
use crate::backend::Backend;

/// What one layer's backward pass needs of its forward pass, beside the residual stream at its input. Of the last
/// layer, what follows attention has the scored rows only.
pub(super) struct LayerActs<B: Backend> {
    pub norm: B::Act,
    pub norm_rstd: B::F32,
    /// Rotated queries and keys, and values.
    pub qkv: B::Act,
    /// Rows before the query/key norm, and its rstd (Qwen3).
    pub qkv_before: B::Act,
    pub qk_rstd: B::F32,
    pub attended: B::Act,
    pub lse: B::F32,
    /// Residual stream between attention and MLP.
    pub middle: B::Act,
    pub mlp_norm: B::Act,
    pub mlp_rstd: B::F32,
    pub gate_up: B::Act,
    pub gated: B::Act,
}

/// Activations and scratch of one forward and backward pass.
///
/// A workspace belongs to a shape, not to a model: policy and reference can share one.
pub struct Workspace<B: Backend> {
    /// Issues the passes that use this workspace.
    pub(super) backend: B,
    rows: usize,
    scored: usize,
    pub(super) recompute: bool,
    /// Residual stream at each layer's input, `[rows, hidden]`.
    pub(super) residuals: Vec<B::Act>,
    /// One for each layer; one for all where they are recomputed.
    pub(super) layers: Vec<LayerActs<B>>,
    pub(super) tokens: B::U32,
    pub(super) positions: B::U32,
    /// Output of a branch before it joins the residual stream.
    pub(super) branch: B::Act,
    /// Scored rows of the last layer's attention, and of the residual stream beside it.
    pub(super) picked_attended: B::Act,
    pub(super) picked_residual: B::Act,
    /// Scored rows before the last norm and after it, and what the head says of them.
    pub(super) residual: B::Act,
    pub(super) picked: B::Act,
    pub(super) final_rstd: B::F32,
    pub(super) logprob: B::F32,
    pub(super) entropy: B::F32,
    pub(super) lse: B::F32,
    /// Logits of the scored rows, as far as they are kept.
    pub(super) logits: B::F32,
    /// How many may be, beyond what the backend keeps anyway.
    logits_room: usize,
    /// Gradients, planned at the first backward pass.
    pub(super) grads: Option<BackwardActs<B>>,
    /// The rows of the last forward pass, which a backward pass must match.
    pub(super) last: Option<(usize, usize)>,
}

pub(super) struct BackwardActs<B: Backend> {
    pub(super) residual: B::Act,
    pub(super) branch: B::Act,
    pub(super) qkv: B::Act,
    pub(super) gate_up: B::Act,
    pub(super) gated: B::Act,
    /// `residual` and `branch` of the scored rows.
    pub(super) picked_residual: B::Act,
    pub(super) picked: B::Act,
}

impl<B: Backend> Workspace<B> {
    pub(super) fn new(backend: &B, recompute: bool) -> Self {
        Workspace {
            backend: backend.clone(),
            rows: 0,
            scored: 0,
            recompute,
            residuals: Vec::new(),
            layers: Vec::new(),
            tokens: backend.u32(0),
            positions: backend.u32(0),
            branch: backend.act(0),
            picked_attended: backend.act(0),
            picked_residual: backend.act(0),
            residual: backend.act(0),
            picked: backend.act(0),
            final_rstd: backend.f32(0),
            logprob: backend.f32(0),
            entropy: backend.f32(0),
            lse: backend.f32(0),
            logits: backend.f32(0),
            logits_room: 0,
            grads: None,
            last: None,
        }
    }

    /// Grows every buffer to hold `rows` tokens of which `scored` are scored.
    pub(super) fn plan(&mut self, config: &Config, rows: usize, scored: usize) {
        let b = self.backend.clone();
        let hidden = config.hidden_size;
        if rows > self.rows || self.residuals.len() != config.layers {
            self.rows = rows.max(self.rows);
            let rows = self.rows;
            let heads = config.heads;
            let qk = if config.qk_norm { rows } else { 0 };
            // The old ones go first: a device need not hold both.
            self.residuals.clear();
            self.layers.clear();
            self.grads = None;
            self.residuals = (0..config.layers).map(|_| b.act(rows * hidden)).collect();
            self.layers = (0..if self.recompute { 1 } else { config.layers })
                .map(|_| LayerActs {
                    norm: b.act(rows * hidden),
                    norm_rstd: b.f32(rows),
                    qkv: b.act(rows * heads.qkv_width()),
                    qkv_before: b.act(qk * heads.qkv_width()),
                    qk_rstd: b.f32(qk * (heads.query + heads.kv)),
                    attended: b.act(rows * heads.out_width()),
                    lse: b.f32(rows * heads.query),
                    middle: b.act(rows * hidden),
                    mlp_norm: b.act(rows * hidden),
                    mlp_rstd: b.f32(rows),
                    gate_up: b.act(rows * 2 * config.intermediate_size),
                    gated: b.act(rows * config.intermediate_size),
                })
                .collect();
            self.tokens = b.u32(rows);
            self.positions = b.u32(rows);
            self.branch = b.act(rows * hidden);
        }
        if scored > self.scored {
            self.scored = scored;
            self.picked_attended = b.act(scored * config.heads.out_width());
            self.picked_residual = b.act(scored * hidden);
            self.residual = b.act(scored * hidden);
            self.picked = b.act(scored * hidden);
            self.final_rstd = b.f32(scored);
            self.logprob = b.f32(scored);
            self.entropy = b.f32(scored);
            self.lse = b.f32(scored);
            self.plan_logits(config);
            self.grads = None;
        }
    }

    /// Keeps up to `room` logits from each forward pass for its backward pass.
    pub(super) fn keep_logits(&mut self, config: &Config, room: usize) {
        self.logits_room = room;
        self.plan_logits(config);
    }

    fn plan_logits(&mut self, config: &Config) {
        self.logits = self.backend.f32(0);
        self.logits = self.backend.f32(B::kept_logits(self.scored, config.vocab_size, self.logits_room));
    }

    /// Plans the gradients too.
    pub(super) fn plan_backward(&mut self, config: &Config) {
        let (b, rows, scored) = (&self.backend, self.rows, self.scored);
        self.grads.get_or_insert_with(|| BackwardActs::new(b, config, rows, scored));
    }
}

impl<B: Backend> BackwardActs<B> {
    fn new(b: &B, config: &Config, rows: usize, scored: usize) -> Self {
        let branch = config.hidden_size.max(config.heads.out_width());
        BackwardActs {
            residual: b.act(rows * config.hidden_size),
            branch: b.act(rows * branch),
            qkv: b.act(rows * config.heads.qkv_width()),
            gate_up: b.act(rows * 2 * config.intermediate_size),
            gated: b.act(rows * config.intermediate_size),
            picked_residual: b.act(scored * config.hidden_size),
            picked: b.act(scored * branch),
        }
    }
}
