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
//! then a last norm and the head. After the last layer's attention no row meets
//! another, so what follows it is done for the scored rows alone: a prompt costs no
//! last MLP. The backward pass walks the same list upwards; `d.residual` is ∂L/∂h
//! throughout, and every branch adds its part to it.
//! Activations live in a [`Workspace`]: no tape.

use super::Model;
use super::batch::{Batch, Scores};
use super::parameters::{Grads, LayerIndex};
use super::workspace::{LayerActs, Workspace};
use crate::backend::Backend;
use crate::error::{Error, Result};

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
        let backend = work.backend.clone();
        backend.run(|| Pass { backend: &backend, model: self }.forward(work, batch));
        backend.finish_here()?;
        let scores = Scores {
            logprobs: backend.get_f32(&work.logprob, 0..batch.scored()),
            entropies: backend.get_f32(&work.entropy, 0..batch.scored()),
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
        self.backend.finish_here()?;
        Ok(self.backend.get_f32(&logits, 0..len))
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
        self.backend.finish_here()
    }

    /// Has passes keep the logits of scored tokens from forward to backward, as far as `bytes` of the device's memory hold
    /// them: the backward pass makes the others again. No bit depends on it.
    ///
    /// # Errors
    /// Where the device does not have as much.
    pub fn keep_logits(&self, work: &mut Workspace<B>, bytes: u64) -> Result<()> {
        work.last = None;
        work.keep_logits(&self.config, usize::try_from(bytes / 4).unwrap_or(usize::MAX));
        self.backend.finish_here()
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
        let backend = work.backend.clone();
        let seeds = (grad_logprob, grad_entropy);
        backend.run(|| Pass { backend: &backend, model: self }.backward(work, batch, seeds, grads));
        backend.finish_here()
    }
}

/// The operations of a pass, issued on the backend of the workspace.
struct Pass<'a, B: Backend> {
    backend: &'a B,
    model: &'a Model<B>,
}

impl<B: Backend> Pass<'_, B> {
    fn forward(&self, work: &mut Workspace<B>, batch: &Batch) {
        let (b, config, params) = (self.backend, &self.model.config, &self.model.params);
        let (rows, scored, eps) = (batch.rows(), batch.scored(), config.norm_eps);
        b.put_u32(&mut work.tokens, &batch.tokens);
        b.put_u32(&mut work.positions, &batch.positions);
        for (i, index) in self.model.layout.layers.iter().enumerate() {
            let norm = &params[index.input_norm];
            let acts = if work.recompute { 0 } else { i };
            let residual = &mut work.residuals[i];
            match i {
                0 => {
                    let layer = &mut work.layers[acts];
                    b.embed(&params[self.model.layout.embedding], &work.tokens, rows, residual);
                    b.rms_norm(residual, norm, rows, eps, &mut layer.norm, &mut layer.norm_rstd);
                }
                _ => {
                    let (norm_out, rstd, middle) = after(&mut work.layers, acts);
                    b.add_rms_norm(middle, &work.branch, norm, rows, eps, residual, norm_out, rstd);
                }
            }
            let (residual, layer) = (&work.residuals[i], &mut work.layers[acts]);
            self.attention(index, layer, &work.positions, batch);
            let rows = if i + 1 < config.layers {
                self.mlp(index, residual, None, layer, &mut work.branch, rows);
                rows
            } else {
                b.gather(&layer.attended, &batch.scored, config.heads.out_width(), &mut work.picked_attended);
                b.gather(residual, &batch.scored, config.hidden_size, &mut work.picked_residual);
                let attended = Some(&work.picked_attended);
                self.mlp(index, &work.picked_residual, attended, layer, &mut work.branch, scored);
                scored
            };
            b.linear(&layer.gated, &params[index.down], None, rows, &mut work.branch);
        }
        let last = work.layers.last().expect("a config has at least one layer");
        b.add_rms_norm(
            &last.middle,
            &work.branch,
            self.model.last_norm(),
            scored,
            eps,
            &mut work.residual,
            &mut work.picked,
            &mut work.final_rstd,
        );
        let head = &params[self.model.layout.head];
        b.head(
            &work.picked,
            head,
            &batch.targets,
            &mut work.logprob,
            &mut work.entropy,
            &mut work.lse,
            &mut work.logits,
        );
    }

    /// A layer from its normed input to attention's output.
    fn attention(&self, index: &LayerIndex, layer: &mut LayerActs<B>, positions: &B::U32, batch: &Batch) {
        let (b, config, params) = (self.backend, &self.model.config, &self.model.params);
        let (rows, eps, heads) = (batch.rows(), config.norm_eps, config.heads);
        let bias = index.qkv_bias.map(|bias| &params[bias]);
        b.linear(&layer.norm, &params[index.qkv], bias, rows, &mut layer.qkv);
        if let Some((q, k)) = index.qk_norm {
            let weights = (&params[q], &params[k]);
            b.qk_norm(&mut layer.qkv, &mut layer.qkv_before, weights, heads, rows, eps, &mut layer.qk_rstd);
        }
        b.rope(&mut layer.qkv, positions, &self.model.rope, heads, rows, false);
        b.attention(&layer.qkv, &batch.cu_seqlens, heads, &mut layer.attended, &mut layer.lse);
    }

    /// A layer from attention's output (the layer's own, or some rows of it) to what its last matrix reads, for `rows`
    /// rows of both it and `residual`; `branch` is scratch.
    fn mlp(
        &self,
        index: &LayerIndex,
        residual: &B::Act,
        attended: Option<&B::Act>,
        layer: &mut LayerActs<B>,
        branch: &mut B::Act,
        rows: usize,
    ) {
        let (b, config, params) = (self.backend, &self.model.config, &self.model.params);
        let bias = index.out_bias.map(|bias| &params[bias]);
        b.linear(attended.unwrap_or(&layer.attended), &params[index.out], bias, rows, branch);
        b.add_rms_norm(
            residual,
            branch,
            &params[index.post_norm],
            rows,
            config.norm_eps,
            &mut layer.middle,
            &mut layer.mlp_norm,
            &mut layer.mlp_rstd,
        );
        b.linear(&layer.mlp_norm, &params[index.gate_up], None, rows, &mut layer.gate_up);
        b.swiglu(&layer.gate_up, config.intermediate_size, rows, &mut layer.gated);
    }

    fn backward(
        &self,
        work: &mut Workspace<B>,
        batch: &Batch,
        (grad_logprob, grad_entropy): (&[f32], Option<&[f32]>),
        grads: &mut Grads<B>,
    ) {
        let (b, config, params, layout) = (self.backend, &self.model.config, &self.model.params, &self.model.layout);
        let (rows, hidden, heads) = (batch.rows(), config.hidden_size, config.heads);
        let d = work.grads.as_mut().expect("planned by the caller");
        let frozen = grads.frozen.is_some();
        b.head_backward(
            &work.picked,
            &params[layout.head],
            &batch.targets,
            &work.entropy,
            &work.lse,
            &mut work.logits,
            grad_logprob,
            grad_entropy,
            &mut d.picked,
            if frozen { None } else { Some(&mut grads.stored[layout.head]) },
        );
        let scored = batch.scored();
        b.zero_act(&mut d.picked_residual, scored * hidden);
        let mut by_tempered = self.model.tempered.as_ref().map(|_| b.f32(hidden));
        b.rms_norm_backward(
            &d.picked,
            &work.residual,
            self.model.last_norm(),
            &work.final_rstd,
            scored,
            &mut d.picked_residual,
            by_tempered.as_mut().unwrap_or_else(|| grads.vector(layout.final_norm)),
        );
        if let Some(by_tempered) = &mut by_tempered {
            // ∂L/∂w = ∂L/∂(w/T) / T.
            let values = b.get_f32(by_tempered, 0..hidden);
            let temperature = self.model.temperature();
            b.put_f32(by_tempered, 0, &values.iter().map(|g| g / temperature).collect::<Vec<_>>());
            b.add_f32(grads.vector(layout.final_norm), by_tempered);
        }
        for (i, index) in layout.layers.iter().enumerate().rev() {
            let residual = &work.residuals[i];
            let layer = &mut work.layers[if work.recompute { 0 } else { i }];
            if i + 1 == layout.layers.len() {
                // Its activations are there even where layers share them.
                let streams = (&mut d.picked_residual, &mut d.picked, &mut d.gated, &mut d.gate_up);
                self.mlp_backward(index, layer, &work.picked_attended, streams, scored, grads);
                b.scatter(&d.picked_residual, &batch.scored, hidden, rows, &mut d.residual);
                b.scatter(&d.picked, &batch.scored, heads.out_width(), rows, &mut d.branch);
            } else {
                if work.recompute {
                    let norm = &params[index.input_norm];
                    b.rms_norm(residual, norm, rows, config.norm_eps, &mut layer.norm, &mut layer.norm_rstd);
                    self.attention(index, layer, &work.positions, batch);
                    self.mlp(index, residual, None, layer, &mut work.branch, rows);
                }
                let streams = (&mut d.residual, &mut d.branch, &mut d.gated, &mut d.gate_up);
                self.mlp_backward(index, layer, &layer.attended, streams, rows, grads);
            }
            let streams = (&mut d.residual, &mut d.branch, &mut d.qkv);
            self.attention_backward(index, layer, residual, &work.positions, batch, streams, grads);
        }
        if !frozen {
            b.embed_backward(&d.residual, &work.tokens, rows, hidden, &mut grads.stored[layout.embedding]);
        }
    }

    /// The backward pass of [`Pass::attention`] and the norm before it: `branch` has the gradient of `attended`, and the
    /// layer's own is added to ∂L/∂h of its input, `residual`.
    #[allow(clippy::too_many_arguments, reason = "each is another part of the pass")]
    fn attention_backward(
        &self,
        index: &LayerIndex,
        layer: &LayerActs<B>,
        input: &B::Act,
        positions: &B::U32,
        batch: &Batch,
        (residual, branch, qkv): (&mut B::Act, &mut B::Act, &mut B::Act),
        grads: &mut Grads<B>,
    ) {
        let (b, params) = (self.backend, &self.model.params);
        let (rows, heads) = (batch.rows(), self.model.config.heads);
        b.attention_backward(branch, &layer.qkv, &layer.attended, &layer.lse, &batch.cu_seqlens, heads, qkv);
        b.rope(qkv, positions, &self.model.rope, heads, rows, true);
        if let Some((q, k)) = index.qk_norm {
            let weights = (&params[q], &params[k]);
            let dweights = grads.vectors(q, k);
            b.qk_norm_backward(qkv, &layer.qkv_before, weights, &layer.qk_rstd, heads, rows, dweights);
        }
        self.weight_grad(qkv, &layer.norm, (index.qkv, index.qkv_bias), rows, grads);
        b.linear_dx(qkv, &params[index.qkv], rows, branch);
        let norm = &params[index.input_norm];
        b.rms_norm_backward(branch, input, norm, &layer.norm_rstd, rows, residual, grads.vector(index.input_norm));
    }

    /// The backward pass of [`Pass::mlp`] and the matrix after it: ∂L/∂h goes from below the layer to beside its
    /// attention, and `branch` becomes the gradient of `attended`.
    fn mlp_backward(
        &self,
        index: &LayerIndex,
        layer: &LayerActs<B>,
        attended: &B::Act,
        (residual, branch, gated, gate_up): (&mut B::Act, &mut B::Act, &mut B::Act, &mut B::Act),
        rows: usize,
        grads: &mut Grads<B>,
    ) {
        let (b, params, width) = (self.backend, &self.model.params, self.model.config.intermediate_size);
        self.weight_grad(residual, &layer.gated, (index.down, None), rows, grads);
        b.linear_dx(residual, &params[index.down], rows, gated);
        b.swiglu_backward(gated, &layer.gate_up, width, rows, gate_up);
        self.weight_grad(gate_up, &layer.mlp_norm, (index.gate_up, None), rows, grads);
        b.linear_dx(gate_up, &params[index.gate_up], rows, branch);
        let norm = &params[index.post_norm];
        b.rms_norm_backward(
            branch,
            &layer.middle,
            norm,
            &layer.mlp_rstd,
            rows,
            residual,
            grads.vector(index.post_norm),
        );
        self.weight_grad(residual, attended, (index.out, index.out_bias), rows, grads);
        b.linear_dx(residual, &params[index.out], rows, branch);
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
        let (b, param) = (self.backend, &self.model.params[matrix]);
        let (Some(lora), Some(frozen)) = (&self.model.lora, &mut grads.frozen) else {
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
