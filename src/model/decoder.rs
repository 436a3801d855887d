//! Decoding: the forward pass of single tokens over a KV cache.
//!
//! A step takes rows of (token, slot, position) in any mixture: the tokens of a
//! prompt, the next token of many sequences, or both. On the reference backend every
//! operation gives a row the bits it gets in [`Model::forward`], so sampled
//! log-probabilities are the trainer's.
//!
//! Where the backend replays work, a decoding step is rounded up to one of few numbers of rows and recorded for each;
//! the rows that fill it up write to a page of their own.

use std::ops::Range;

use super::kv_pages::KvPages;
use super::{Config, Model};
use crate::backend::{Backend, Draw, Drawn, KV_PAGE, PageCopy, Paged, Run};
use crate::error::Result;

/// One token to run through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id, below [`Config::vocab_size`].
    pub token: u32,
    /// Which sequence of the cache it belongs to.
    pub slot: u32,
    /// Its position in that sequence; all before it must be in the cache or in the same step.
    pub position: u32,
}

/// A paged KV cache and the activations of one step.
pub struct Decoder<B: Backend> {
    backend: B,
    pages: KvPages,
    slots: usize,
    step: Step<B>,
    recordings: B::Recordings,
    /// Of the model, when they were recorded.
    temperature: f32,
    copies: Vec<PageCopy>,
    changes: Vec<(u32, u32)>,
    /// Tokens, positions and slots of a step.
    host: [Vec<u32>; 3],
}

/// Buffers of a step.
struct Step<B: Backend> {
    cache: B::KvCache,
    /// Most rows.
    rows: usize,
    /// `[slots, width]`
    table: B::U32,
    width: usize,
    tokens: B::U32,
    positions: B::U32,
    row_slots: B::U32,
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
}

impl<B: Backend> Decoder<B> {
    /// Room for `slots` sequences of `capacity` tokens each, and steps of at most
    /// `rows` rows (no fewer than `slots`).
    pub fn new(backend: B, model: &Model<B>, slots: usize, capacity: usize, rows: usize) -> Self {
        Decoder::paged(backend, model, slots, capacity, rows, slots * capacity.div_ceil(KV_PAGE))
    }

    /// As [`Decoder::new`], with a pool of `pages` pages for all sequences together. Its user asks [`Decoder::needed`]
    /// before a step, and ends sequences where [`Decoder::free`] is less.
    pub fn paged(backend: B, model: &Model<B>, slots: usize, capacity: usize, rows: usize, pages: usize) -> Self {
        let spare = usize::from(B::REPLAYS);
        let mut table = KvPages::new(slots + spare, capacity, pages + spare);
        if B::REPLAYS {
            // Where the rows are that fill a step up.
            table.write(slots, 0);
        }
        let step = Step::new(&backend, &model.config, slots, rows.max(slots), &table);
        let (recordings, copies, mut changes, host) = Default::default();
        // The step has the table as it is.
        table.changes(&mut changes);
        changes.clear();
        let temperature = model.temperature();
        Decoder { backend, pages: table, slots, step, recordings, temperature, copies, changes, host }
    }

    /// Recorded steps, by their rows.
    pub fn recordings(&self) -> &B::Recordings {
        &self.recordings
    }

    /// Sequences it has room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Tokens a sequence can have.
    pub fn capacity(&self) -> usize {
        self.pages.width() * KV_PAGE
    }

    /// Lets sequences have up to `capacity` tokens; what is cached stays.
    pub fn widen(&mut self, capacity: usize) {
        self.pages.widen(capacity);
        if self.pages.width() != self.step.width {
            self.step.width = self.pages.width();
            self.step.table = self.backend.u32(self.pages.table().len());
        }
    }

    /// Rows a step can have.
    pub fn rows(&self) -> usize {
        self.step.rows
    }

    /// Pages that sequences can have in all.
    pub fn pages(&self) -> usize {
        self.pages.pages() - usize::from(B::REPLAYS)
    }

    /// Pages that no sequence uses.
    pub fn free(&self) -> usize {
        self.pages.free()
    }

    /// Pages that running these positions of a sequence takes, at most.
    pub fn needed(&self, slot: u32, positions: Range<usize>) -> usize {
        self.pages.needed(slot as usize, positions)
    }

    /// Shares a prompt: the first `len` tokens of one slot are those of another too, which copies what it changes.
    pub fn share(&mut self, from: u32, to: u32, len: usize) {
        self.pages.share(from as usize, to as usize, len);
    }

    /// Ends a sequence: its pages are free, but for those that others share.
    pub fn release(&mut self, slot: u32) {
        self.pages.release(slot as usize);
    }

    /// Finds pages for the rows, and tells the device where they are; fills them up to `count` rows.
    fn place(&mut self, rows: &[Row], count: usize) {
        let (b, step) = (&self.backend, &mut self.step);
        assert!(rows.len() <= count && count <= step.rows, "{count} rows in a step of {}", step.rows);
        self.copies.clear();
        for &Row { slot, position, .. } in rows {
            assert!((slot as usize) < self.slots && (position as usize) < self.pages.width() * KV_PAGE);
            self.copies.extend(self.pages.write(slot as usize, position as usize));
        }
        b.kv_copy(&mut step.cache, &self.copies);
        if !self.pages.changes(&mut self.changes) {
            b.put_u32(&mut step.table, self.pages.table());
        }
        let [tokens, positions, slots] = &mut self.host;
        for (host, filler) in [(&mut *tokens, 0), (&mut *positions, 0), (&mut *slots, self.slots as u32)] {
            host.clear();
            host.resize(count, filler);
        }
        for (i, row) in rows.iter().enumerate() {
            (tokens[i], positions[i], slots[i]) = (row.token, row.position, row.slot);
        }
        let rows =
            [(&mut step.tokens, &tokens[..]), (&mut step.positions, &positions[..]), (&mut step.row_slots, &slots[..])];
        b.put_rows(rows, &mut step.table, &self.changes);
    }
}

impl<B: Backend> Step<B> {
    fn new(b: &B, config: &Config, slots: usize, rows: usize, pages: &KvPages) -> Self {
        let (hidden, ff, heads) = (config.hidden_size, config.intermediate_size, config.heads);
        let qk = if config.qk_norm { rows } else { 0 };
        let mut table = b.u32(pages.table().len());
        b.put_u32(&mut table, pages.table());
        Step {
            cache: b.kv_cache(config.layers, heads, pages.pages()),
            rows,
            table,
            width: pages.width(),
            tokens: b.u32(rows),
            positions: b.u32(rows),
            row_slots: b.u32(rows),
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
        }
    }
}

/// Rows of the recorded step that serves so many: few sizes, and at most 15 rows too many.
fn replayed_rows(rows: usize) -> usize {
    if rows <= 16 { rows.next_power_of_two() } else { rows.next_multiple_of(16) }
}

/// Rows that follow each other in a sequence, taken together.
fn runs(rows: &[Row]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let follows = i > 0 && rows[i - 1].slot == row.slot && rows[i - 1].position + 1 == row.position;
        match runs.last_mut() {
            Some(run) if follows => run.rows += 1,
            _ => runs.push(Run { row: i as u32, rows: 1, position: row.position }),
        }
    }
    runs
}

impl<B: Backend> Model<B> {
    /// Runs the rows of prompts and stores their keys and values; logits are not computed. Rows of one sequence that
    /// follow each other are taken together.
    pub fn prefill(&self, decoder: &mut Decoder<B>, rows: &[Row]) {
        self.store(decoder, rows, |rows| Some(runs(rows)));
    }

    /// As [`Model::prefill`], for tokens that were decoded before: their keys and values get the bits they had.
    pub fn recompute(&self, decoder: &mut Decoder<B>, rows: &[Row]) {
        self.store(decoder, rows, |_| None);
    }

    fn store(&self, decoder: &mut Decoder<B>, rows: &[Row], runs: impl Fn(&[Row]) -> Option<Vec<Run>> + Sync) {
        let backend = decoder.backend.clone();
        for rows in rows.chunks(decoder.step.rows) {
            backend.run(|| {
                decoder.place(rows, rows.len());
                self.step(&backend, &mut decoder.step, rows.len(), runs(rows).as_deref());
            });
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
        // A recorded step reads the last norm that it was recorded with, and each temperature has its own.
        if std::mem::replace(&mut decoder.temperature, self.temperature()) != self.temperature() {
            decoder.recordings = B::Recordings::default();
        }
        let count = if B::REPLAYS { replayed_rows(rows.len()).min(decoder.slots) } else { rows.len() };
        backend.run(|| {
            decoder.place(rows, count);
            let (step, head) = (&mut decoder.step, &self.params[self.layout.head]);
            backend.replay(&mut decoder.recordings, count, &mut || {
                self.step(&backend, step, count, None);
                backend.logits(&step.normed, head, count, &mut step.logits);
            });
            backend.sample(&step.logits, self.config.vocab_size, draws, drawn);
        });
        backend.finish_here()
    }

    /// The layers, over rows that are placed, in runs if they are a prompt's; leaves the last norm's output.
    fn step(&self, b: &B, d: &mut Step<B>, n: usize, runs: Option<&[Run]>) {
        let (config, params) = (&self.config, &self.params);
        let (eps, heads) = (config.norm_eps, config.heads);
        let at = Paged { table: &d.table, width: d.width, slots: &d.row_slots, positions: &d.positions, rows: n };
        let [residual, middle] = &mut d.residual;
        for (layer, index) in self.layout.layers.iter().enumerate() {
            if layer == 0 {
                b.embed(&params[self.layout.embedding], &d.tokens, n, residual);
                b.rms_norm(residual, &params[index.input_norm], n, eps, &mut d.normed, &mut d.rstd);
            }
            let bias = index.qkv_bias.map(|bias| &params[bias]);
            let (qkv, w) = (&mut d.qkv, &params[index.qkv]);
            match index.qk_norm {
                None => {
                    b.linear_rope_append(&d.normed, (w, bias), qkv, &self.rope, heads, &mut d.cache, layer, &at);
                }
                Some((q, k)) => {
                    b.linear(&d.normed, w, bias, n, qkv);
                    let weights = (&params[q], &params[k]);
                    b.qk_norm(qkv, &mut d.before, weights, heads, n, eps, &mut d.qk_rstd);
                    b.rope_append(qkv, &self.rope, heads, &mut d.cache, layer, &at);
                }
            }
            match runs {
                None => b.attention_cached(&d.cache, layer, &d.qkv, &at, &mut d.attended),
                Some(runs) => b.attention_prefill(&d.cache, layer, &d.qkv, &at, runs, &mut d.attended),
            }
            let bias = index.out_bias.map(|bias| &params[bias]);
            let (w, norm) = ((&params[index.out], bias), &params[index.post_norm]);
            let (branch, normed, rstd) = (&mut d.branch, &mut d.normed, &mut d.rstd);
            b.linear_add_rms_norm(&d.attended, w, branch, residual, norm, n, eps, middle, normed, rstd);
            b.linear(normed, &params[index.gate_up], None, n, &mut d.gate_up);
            b.swiglu(&d.gate_up, config.intermediate_size, n, &mut d.gated);
            let next = self.layout.layers.get(layer + 1).map(|next| &params[next.input_norm]);
            let (w, norm) = ((&params[index.down], None), next.unwrap_or_else(|| self.last_norm()));
            b.linear_add_rms_norm(&d.gated, w, branch, middle, norm, n, eps, residual, normed, rstd);
        }
    }
}
