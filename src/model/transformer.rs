//! The decoder, forward and backward, written out by hand over [`Backend`].
//!
//! For each layer, with h the residual stream `[rows, hidden]`:
//!
//! ```text
//! a  = rms_norm(h)            qkv = a Wqkvᵀ + b     (qk_norm)   rope
//! h' = h + attention(qkv) Woᵀ
//! m  = rms_norm(h')           gu  = m Wguᵀ          s = silu(gate) · up
//! h  = h' + s Wdᵀ
//! ```
//!
//! then a last norm and the head. The backward pass walks the same list upwards;
//! `d_residual` is ∂L/∂h throughout, and every branch adds its part to it.
//! Activations live in a [`Workspace`] that is planned for the largest batch seen
//! and reused: no tape, no allocation once it has grown. Where it recomputes, layers
//! share one set of activations and keep only their input; the backward pass makes a
//! layer's activations again just before it needs them, with the same bits (Chen et
//! al. 2016), for a third more work in the layers.

use super::batch::{Batch, Scores};
use super::parameters::{Grads, LayerIndex};
use super::{Config, Model};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// What one layer's backward pass needs of its forward pass, beside the residual stream at its input.
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
    backend: B,
    rows: usize,
    scored: usize,
    recompute: bool,
    /// Residual stream at each layer's input, `[rows, hidden]`.
    residuals: Vec<B::Act>,
    /// One for each layer; one for all where they are recomputed.
    layers: Vec<LayerActs<B>>,
    tokens: B::U32,
    positions: B::U32,
    /// Output of a branch before it joins the residual stream.
    branch: B::Act,
    residual: B::Act,
    normed: B::Act,
    final_rstd: B::F32,
    /// Scored rows of `normed`, and what the head says of them.
    picked: B::Act,
    logprob: B::F32,
    entropy: B::F32,
    lse: B::F32,
    /// Gradients, planned at the first backward pass.
    grads: Option<BackwardActs<B>>,
    /// The rows of the last forward pass, which a backward pass must match.
    last: Option<(usize, usize)>,
}

struct BackwardActs<B: Backend> {
    residual: B::Act,
    branch: B::Act,
    qkv: B::Act,
    gate_up: B::Act,
    gated: B::Act,
    picked: B::Act,
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
            residual: backend.act(0),
            normed: backend.act(0),
            final_rstd: backend.f32(0),
            picked: backend.act(0),
            logprob: backend.f32(0),
            entropy: backend.f32(0),
            lse: backend.f32(0),
            grads: None,
            last: None,
        }
    }

    /// Grows every buffer to hold `rows` tokens of which `scored` are scored.
    fn plan(&mut self, config: &Config, rows: usize, scored: usize) {
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
            self.residual = b.act(rows * hidden);
            self.normed = b.act(rows * hidden);
            self.final_rstd = b.f32(rows);
        }
        if scored > self.scored {
            self.scored = scored.max(self.scored);
            self.picked = b.act(self.scored * hidden);
            self.logprob = b.f32(self.scored);
            self.entropy = b.f32(self.scored);
            self.lse = b.f32(self.scored);
            self.grads = None;
        }
    }

    /// Plans the gradients too.
    fn plan_backward(&mut self, config: &Config) {
        let (b, rows, scored) = (&self.backend, self.rows, self.scored);
        self.grads.get_or_insert_with(|| BackwardActs::new(b, config, rows, scored));
    }
}

impl<B: Backend> BackwardActs<B> {
    fn new(b: &B, config: &Config, rows: usize, scored: usize) -> Self {
        BackwardActs {
            residual: b.act(rows * config.hidden_size),
            branch: b.act(rows * config.hidden_size.max(config.heads.out_width())),
            qkv: b.act(rows * config.heads.qkv_width()),
            gate_up: b.act(rows * 2 * config.intermediate_size),
            gated: b.act(rows * config.intermediate_size),
            picked: b.act(scored * config.hidden_size),
        }
    }
}

impl<B: Backend> Model<B> {
    /// Scores a batch and keeps in `work` what [`Model::backward`] needs.
    ///
    /// # Errors
    /// A batch that is empty, has nothing to score or does not fit the model
    /// (ids outside the vocabulary, positions outside the context); scores that
    /// are not finite, which means weights that are not.
    pub fn forward(&self, work: &mut Workspace<B>, batch: &Batch) -> Result<Scores> {
        batch.check(self.config.vocab_size, self.config.context)?;
        work.last = None;
        work.plan(&self.config, batch.rows(), batch.scored());
        self.backend.run(|| self.forward_ops(work, batch));
        self.backend.finish()?;
        let scores = Scores {
            logprobs: self.backend.get_f32(&work.logprob, 0..batch.scored()),
            entropies: self.backend.get_f32(&work.entropy, 0..batch.scored()),
        };
        if let Some(i) = scores.logprobs.iter().position(|x| !x.is_finite()) {
            let sequence = batch.cu_seqlens.partition_point(|&start| start <= batch.scored[i]).saturating_sub(1);
            return Err(Error::new(format!(
                "the log-probability of scored token {i} (sequence {sequence} of the batch) is {}",
                scores.logprobs[i]
            ))
            .hint("the weights hold NaN or infinite values: lower the learning rate, or go back to a checkpoint"));
        }
        work.last = Some((batch.rows(), batch.scored()));
        Ok(scores)
    }

    /// Logits of the scored rows, `[scored, vocab]`: for looking at, since training never holds them.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn logits(&self, work: &mut Workspace<B>, batch: &Batch) -> Result<Vec<f32>> {
        self.forward(work, batch)?;
        let len = batch.scored() * self.config.vocab_size;
        let mut logits = self.backend.f32(len);
        self.backend.logits(&work.picked, &self.params[self.layout.head], batch.scored(), &mut logits);
        self.backend.finish()?;
        Ok(self.backend.get_f32(&logits, 0..len))
    }

    fn forward_ops(&self, work: &mut Workspace<B>, batch: &Batch) {
        let (b, config, params) = (&self.backend, &self.config, &self.params);
        let (rows, eps) = (batch.rows(), config.norm_eps);
        b.put_u32(&mut work.tokens, &batch.tokens);
        b.put_u32(&mut work.positions, &batch.positions);
        for (i, index) in self.layout.layers.iter().enumerate() {
            let norm = &params[index.input_norm];
            let acts = if work.recompute { 0 } else { i };
            let residual = &mut work.residuals[i];
            match i {
                0 => {
                    let layer = &mut work.layers[acts];
                    b.embed(&params[self.layout.embedding], &work.tokens, rows, residual);
                    b.rms_norm(residual, norm, rows, eps, &mut layer.norm, &mut layer.norm_rstd);
                }
                _ => {
                    let (norm_out, rstd, middle) = after(&mut work.layers, acts);
                    b.add_rms_norm(middle, &work.branch, norm, rows, eps, residual, norm_out, rstd);
                }
            }
            let (residual, layer) = (&work.residuals[i], &mut work.layers[acts]);
            self.layer_ops(index, residual, layer, &mut work.branch, &work.positions, batch);
            b.linear(&layer.gated, &params[index.down], None, rows, &mut work.branch);
        }
        let last = work.layers.last().expect("a config has at least one layer");
        b.add_rms_norm(
            &last.middle,
            &work.branch,
            &params[self.layout.final_norm],
            rows,
            eps,
            &mut work.residual,
            &mut work.normed,
            &mut work.final_rstd,
        );
        b.gather(&work.normed, &batch.scored, config.hidden_size, &mut work.picked);
        let head = &params[self.layout.head];
        b.head(&work.picked, head, &batch.targets, &mut work.logprob, &mut work.entropy, &mut work.lse);
    }

    /// A layer from its normed input to what its last matrix reads; `branch` is scratch.
    fn layer_ops(
        &self,
        index: &LayerIndex,
        residual: &B::Act,
        layer: &mut LayerActs<B>,
        branch: &mut B::Act,
        positions: &B::U32,
        batch: &Batch,
    ) {
        let (b, config, params) = (&self.backend, &self.config, &self.params);
        let (rows, eps, heads) = (batch.rows(), config.norm_eps, config.heads);
        let bias = index.qkv_bias.map(|bias| &params[bias]);
        b.linear(&layer.norm, &params[index.qkv], bias, rows, &mut layer.qkv);
        if let Some((q, k)) = index.qk_norm {
            let weights = (&params[q], &params[k]);
            b.qk_norm(&mut layer.qkv, &mut layer.qkv_before, weights, heads, rows, eps, &mut layer.qk_rstd);
        }
        b.rope(&mut layer.qkv, positions, &self.rope, heads, rows, false);
        b.attention(&layer.qkv, &batch.cu_seqlens, heads, &mut layer.attended, &mut layer.lse);
        let bias = index.out_bias.map(|bias| &params[bias]);
        b.linear(&layer.attended, &params[index.out], bias, rows, branch);
        b.add_rms_norm(
            residual,
            branch,
            &params[index.post_norm],
            rows,
            eps,
            &mut layer.middle,
            &mut layer.mlp_norm,
            &mut layer.mlp_rstd,
        );
        b.linear(&layer.mlp_norm, &params[index.gate_up], None, rows, &mut layer.gate_up);
        b.swiglu(&layer.gate_up, config.intermediate_size, rows, &mut layer.gated);
    }

    /// Takes the memory of batches of up to `rows` tokens, all of them scored, forward and backward: before the first
    /// step rather than at the first that needs it.
    ///
    /// # Errors
    /// Where the device does not have as much.
    pub fn reserve(&self, work: &mut Workspace<B>, rows: usize) -> Result<()> {
        work.last = None;
        work.plan(&self.config, rows, rows);
        work.plan_backward(&self.config);
        self.backend.finish()
    }

    /// Adds to `grads` the gradient of a loss whose derivatives by each scored
    /// token's logprob and (optionally) entropy are given, in the order of
    /// [`Batch::scored`]. `grad_logprob` is ∂L/∂logprob: for cross-entropy
    /// L = −Σ logprob it is −1.
    ///
    /// # Errors
    /// A batch other than the one `work` last went forward with, or derivatives
    /// of another length or not finite.
    pub fn backward(
        &self,
        work: &mut Workspace<B>,
        batch: &Batch,
        grad_logprob: &[f32],
        grad_entropy: Option<&[f32]>,
        grads: &mut Grads<B>,
    ) -> Result<()> {
        if work.last.take() != Some((batch.rows(), batch.scored())) {
            return Err(Error::new("backward needs the forward pass of the same batch just before it"));
        }
        for derivative in [Some(grad_logprob), grad_entropy].into_iter().flatten() {
            if derivative.len() != batch.scored() {
                return Err(Error::new(format!(
                    "{} loss derivatives for {} scored tokens",
                    derivative.len(),
                    batch.scored()
                )));
            }
            if let Some(i) = derivative.iter().position(|x| !x.is_finite()) {
                return Err(Error::new(format!("the loss's derivative by scored token {i} is {}", derivative[i])));
            }
        }
        work.plan_backward(&self.config);
        self.backend.run(|| self.backward_ops(work, batch, grad_logprob, grad_entropy, grads));
        self.backend.finish()
    }

    fn backward_ops(
        &self,
        work: &mut Workspace<B>,
        batch: &Batch,
        grad_logprob: &[f32],
        grad_entropy: Option<&[f32]>,
        grads: &mut Grads<B>,
    ) {
        let (b, config, params, layout) = (&self.backend, &self.config, &self.params, &self.layout);
        let (rows, hidden, heads) = (batch.rows(), config.hidden_size, config.heads);
        let d = work.grads.as_mut().expect("planned by the caller");
        let frozen = grads.frozen.is_some();
        b.head_backward(
            &work.picked,
            &params[layout.head],
            &batch.targets,
            &work.entropy,
            &work.lse,
            grad_logprob,
            grad_entropy,
            &mut d.picked,
            if frozen { None } else { Some(&mut grads.stored[layout.head]) },
        );
        b.scatter(&d.picked, &batch.scored, hidden, rows, &mut d.branch);
        b.zero_act(&mut d.residual, rows * hidden);
        b.rms_norm_backward(
            &d.branch,
            &work.residual,
            &params[layout.final_norm],
            &work.final_rstd,
            rows,
            &mut d.residual,
            grads.vector(layout.final_norm),
        );
        for (i, index) in layout.layers.iter().enumerate().rev() {
            let residual = &work.residuals[i];
            let layer = &mut work.layers[if work.recompute { 0 } else { i }];
            // The last layer's activations are still there.
            if work.recompute && i + 1 < layout.layers.len() {
                let norm = &params[index.input_norm];
                b.rms_norm(residual, norm, rows, config.norm_eps, &mut layer.norm, &mut layer.norm_rstd);
                self.layer_ops(index, residual, layer, &mut work.branch, &work.positions, batch);
            }
            self.weight_grad(&d.residual, &layer.gated, (index.down, None), rows, grads);
            b.linear_dx(&d.residual, &params[index.down], rows, &mut d.gated);
            b.swiglu_backward(&d.gated, &layer.gate_up, config.intermediate_size, rows, &mut d.gate_up);
            self.weight_grad(&d.gate_up, &layer.mlp_norm, (index.gate_up, None), rows, grads);
            b.linear_dx(&d.gate_up, &params[index.gate_up], rows, &mut d.branch);
            b.rms_norm_backward(
                &d.branch,
                &layer.middle,
                &params[index.post_norm],
                &layer.mlp_rstd,
                rows,
                &mut d.residual,
                grads.vector(index.post_norm),
            );
            self.weight_grad(&d.residual, &layer.attended, (index.out, index.out_bias), rows, grads);
            b.linear_dx(&d.residual, &params[index.out], rows, &mut d.branch);
            b.attention_backward(
                &d.branch,
                &layer.qkv,
                &layer.attended,
                &layer.lse,
                &batch.cu_seqlens,
                heads,
                &mut d.qkv,
            );
            b.rope(&mut d.qkv, &work.positions, &self.rope, heads, rows, true);
            if let Some((q, k)) = index.qk_norm {
                let weights = (&params[q], &params[k]);
                let dweights = grads.vectors(q, k);
                b.qk_norm_backward(&mut d.qkv, &layer.qkv_before, weights, &layer.qk_rstd, heads, rows, dweights);
            }
            self.weight_grad(&d.qkv, &layer.norm, (index.qkv, index.qkv_bias), rows, grads);
            b.linear_dx(&d.qkv, &params[index.qkv], rows, &mut d.branch);
            b.rms_norm_backward(
                &d.branch,
                residual,
                &params[index.input_norm],
                &layer.norm_rstd,
                rows,
                &mut d.residual,
                grads.vector(index.input_norm),
            );
        }
        if !frozen {
            b.embed_backward(&d.residual, &work.tokens, rows, hidden, &mut grads.stored[layout.embedding]);
        }
    }

    /// The gradient of a matrix and its bias, or of the matrix's adapter.
    fn weight_grad(
        &self,
        dy: &B::Act,
        x: &B::Act,
        (matrix, bias): (usize, Option<usize>),
        rows: usize,
        grads: &mut Grads<B>,
    ) {
        let (b, param) = (&self.backend, &self.params[matrix]);
        let (Some(lora), Some(frozen)) = (&self.lora, &mut grads.frozen) else {
            let (dw, dbias) = pair(&mut grads.stored, matrix, bias);
            return b.linear_dw(dy, x, param, rows, dw, dbias);
        };
        let place = lora.places[matrix].expect("every matrix has an adapter");
        let (da, db) = pair(&mut grads.stored, 2 * place, Some(2 * place + 1));
        b.zero_f32(&mut frozen.matrix);
        b.linear_dw(dy, x, param, rows, &mut frozen.matrix, None);
        b.adapter_backward(&frozen.matrix, &lora.adapters[place], da, db.expect("both were asked for"));
    }
}

/// Where layer `i` puts its normed input and rstd, and where the layer before it left its residual stream: the same
/// set of activations where layers share one.
fn after<B: Backend>(layers: &mut [LayerActs<B>], i: usize) -> (&mut B::Act, &mut B::F32, &B::Act) {
    let (before, layer) = layers.split_at_mut(i);
    let LayerActs { norm, norm_rstd, middle, .. } = &mut layer[0];
    (norm, norm_rstd, before.last().map_or(&*middle, |layer| &layer.middle))
}

/// Two gradients at once; a matrix is stored before its bias.
fn pair<T>(grads: &mut [T], first: usize, second: Option<usize>) -> (&mut T, Option<&mut T>) {
    match second {
        None => (&mut grads[first], None),
        Some(second) => {
            let (low, high) = grads.split_at_mut(second);
            (&mut low[first], Some(&mut high[0]))
        }
    }
}
