//! Decoding: the forward pass of single tokens over a KV cache.
//!
//! A step takes rows of (token, slot, position) in any mixture: the tokens of a
//! prompt, the next token of many sequences, or both. Every operation gives a row
//! the bits it gets in [`Model::forward`], so sampled log-probabilities are the
//! trainer's.

use super::Model;
use crate::backend::{Backend, Draw, Drawn};
use crate::error::Result;

/// One token to run through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub token: u32,
    /// Which sequence of the cache it belongs to.
    pub slot: u32,
    /// Its position in that sequence; all before it must be in the cache or in the same step.
    pub position: u32,
}

/// A KV cache and the activations of one step.
pub struct Decoder<B: Backend> {
    backend: B,
    cache: B::KvCache,
    rows: usize,
    slots: usize,
    capacity: usize,
    tokens: B::U32,
    positions: B::U32,
    residual: [B::Act; 2],
    normed: B::Act,
    rstd: B::F32,
    qkv: B::Act,
    before: B::Act,
    qk_rstd: B::F32,
    attended: B::Act,
    branch: B::Act,
    gate_up: B::Act,
    gated: B::Act,
    logits: B::F32,
    row_tokens: Vec<u32>,
    row_slots: Vec<u32>,
    row_positions: Vec<u32>,
}

impl<B: Backend> Decoder<B> {
    /// Room for `slots` sequences of `capacity` tokens, and steps of at most
    /// `rows` rows (no fewer than `slots`).
    pub fn new(backend: B, model: &Model<B>, slots: usize, capacity: usize, rows: usize) -> Self {
        let (config, b) = (&model.config, &backend);
        let (hidden, ff, heads) = (config.hidden_size, config.intermediate_size, config.heads);
        let rows = rows.max(slots);
        let qk = if config.qk_norm { rows } else { 0 };
        Decoder {
            cache: b.kv_cache(config.layers, heads, slots, capacity),
            rows,
            slots,
            capacity,
            tokens: b.u32(rows),
            positions: b.u32(rows),
            residual: [b.act(rows * hidden), b.act(rows * hidden)],
            normed: b.act(rows * hidden),
            rstd: b.f32(rows),
            qkv: b.act(rows * heads.qkv_width()),
            before: b.act(qk * heads.qkv_width()),
            qk_rstd: b.f32(qk * (heads.query + heads.kv)),
            attended: b.act(rows * heads.out_width()),
            branch: b.act(rows * hidden),
            gate_up: b.act(rows * 2 * ff),
            gated: b.act(rows * ff),
            logits: b.f32(slots * config.vocab_size),
            row_tokens: Vec::with_capacity(rows),
            row_slots: Vec::with_capacity(rows),
            row_positions: Vec::with_capacity(rows),
            backend,
        }
    }

    /// Sequences it has room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Tokens a sequence can have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Rows a step can have.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Shares a prompt: copies the first `len` tokens of one slot to another.
    pub fn copy(&mut self, from: u32, to: u32, len: usize) {
        self.backend.kv_copy(&mut self.cache, from, to, len);
    }

    /// Bytes of cache a token takes.
    pub fn token_bytes(model: &Model<B>) -> usize {
        let heads = model.config.heads;
        model.config.layers * 2 * heads.kv * heads.dim * B::ACT_BYTES
    }
}

impl<B: Backend> Model<B> {
    /// Runs `rows` and stores their keys and values; logits are not computed.
    pub fn prefill(&self, decoder: &mut Decoder<B>, rows: &[Row]) {
        let backend = decoder.backend.clone();
        for step in rows.chunks(decoder.rows) {
            backend.run(|| self.step(decoder, step));
        }
    }

    /// Runs one row for each sequence and draws its next token.
    ///
    /// # Errors
    /// What the backend reports.
    pub fn decode(&self, decoder: &mut Decoder<B>, rows: &[Row], draws: &[Draw], drawn: &mut [Drawn]) -> Result<()> {
        assert_eq!(rows.len(), draws.len(), "one draw a row");
        assert!(rows.len() <= decoder.slots, "one row a sequence");
        let backend = decoder.backend.clone();
        backend.run(|| {
            self.step(decoder, rows);
            let head = &self.params[self.layout.head];
            backend.logits(&decoder.normed, head, rows.len(), &mut decoder.logits);
            backend.sample(&decoder.logits, self.config.vocab_size, draws, drawn);
        });
        backend.finish()
    }

    fn step(&self, d: &mut Decoder<B>, rows: &[Row]) {
        assert!(rows.len() <= d.rows, "{} rows in a step of {}", rows.len(), d.rows);
        let (config, params) = (&self.config, &self.params);
        let (n, eps, heads) = (rows.len(), config.norm_eps, config.heads);
        let b = d.backend.clone();
        d.row_tokens.clear();
        d.row_slots.clear();
        d.row_positions.clear();
        for row in rows {
            d.row_tokens.push(row.token);
            d.row_slots.push(row.slot);
            d.row_positions.push(row.position);
        }
        b.put_u32(&mut d.tokens, &d.row_tokens);
        b.put_u32(&mut d.positions, &d.row_positions);
        let [residual, middle] = &mut d.residual;
        for (layer, index) in self.layout.layers.iter().enumerate() {
            let norm = &params[index.input_norm];
            if layer == 0 {
                b.embed(&params[self.layout.embedding], &d.tokens, n, residual);
                b.rms_norm(residual, norm, n, eps, &mut d.normed, &mut d.rstd);
            } else {
                b.add_rms_norm(middle, &d.branch, norm, n, eps, residual, &mut d.normed, &mut d.rstd);
            }
            let bias = index.qkv_bias.map(|bias| &params[bias]);
            b.linear(&d.normed, &params[index.qkv], bias, n, &mut d.qkv);
            if let Some((q, k)) = index.qk_norm {
                let weights = (&params[q], &params[k]);
                b.qk_norm(&mut d.qkv, &mut d.before, weights, heads, n, eps, &mut d.qk_rstd);
            }
            b.rope(&mut d.qkv, &d.positions, &self.rope, heads, n, false);
            b.kv_append(&mut d.cache, layer, &d.qkv, &d.row_slots, &d.row_positions);
            b.attention_cached(&d.cache, layer, &d.qkv, &d.row_slots, &d.row_positions, heads, &mut d.attended);
            let bias = index.out_bias.map(|bias| &params[bias]);
            b.linear(&d.attended, &params[index.out], bias, n, &mut d.branch);
            let norm = &params[index.post_norm];
            b.add_rms_norm(residual, &d.branch, norm, n, eps, middle, &mut d.normed, &mut d.rstd);
            b.linear(&d.normed, &params[index.gate_up], None, n, &mut d.gate_up);
            b.swiglu(&d.gate_up, config.intermediate_size, n, &mut d.gated);
            b.linear(&d.gated, &params[index.down], None, n, &mut d.branch);
        }
        let norm = &params[self.layout.final_norm];
        b.add_rms_norm(middle, &d.branch, norm, n, eps, residual, &mut d.normed, &mut d.rstd);
    }
}
