//! `impl Backend for Cuda`: what each operation issues.

use std::ops::Range;

use half::bf16;

use super::head::{self, Head, Seeds};
use super::kv_cache::{self, KvCache};
use super::recordings::Recordings;
use super::{Buffer, Cuda, adapter, geometry, linear, matmul, optimizer, rms_norm, sample};
use crate::backend::{
    AdamW, Adapter, Backend, Draw, Drawn, Heads, Muon, PageCopy, Paged, Param, Replicated, Run, StepShape,
};
use crate::error::Result;

/// Elements of a parameter that kernels read rounded: matrices and embeddings.
fn ready_len(rows: usize, cols: usize, matrix: bool) -> usize {
    if matrix || rows > 1 { rows * cols } else { 0 }
}

/// Rows and columns of a parameter.
fn shape(param: &Param<Cuda>) -> (usize, usize) {
    (param.rows, param.cols)
}

fn head_of(param: &Param<Cuda>) -> Head {
    Head { weight: param.ready.part(0), vocab: param.rows, hidden: param.cols }
}

impl Backend for Cuda {
    type F32 = Buffer<f32>;
    type Act = Buffer<bf16>;
    type U32 = Buffer<u32>;
    /// The parameter rounded to bf16; empty for vectors, which kernels read in f32.
    type Ready = Buffer<bf16>;
    type KvCache = KvCache;
    type Recordings = Recordings;

    const ACT_BYTES: usize = 2;
    const REPLAYS: bool = true;
    const RESERVES: bool = true;

    fn ready_bytes(rows: usize, cols: usize, matrix: bool) -> usize {
        2 * ready_len(rows, cols, matrix)
    }

    fn scratch_bytes(shape: &StepShape) -> usize {
        let StepShape { rows, vocab, hidden, intermediate, heads, decoding, muon, adapter } = *shape;
        let down = |rows: usize| linear::scratch_bytes(rows, (hidden, intermediate));
        let largest = [
            down(rows),
            decoding.map_or(0, |(slots, rows)| sample::scratch_bytes(slots, vocab).max(down(rows))),
            head::scratch_bytes(rows, vocab, hidden),
            4 * rows * heads.query,
            rms_norm::scratch_bytes(rows, hidden),
            muon.map_or(0, optimizer::muon_scratch_bytes),
            adapter.map_or(0, adapter::scratch_bytes),
        ];
        // What the host hands over with a batch (targets, rows, tiles of attention), and places rounded up in scratch.
        let kept = 4 * (2 * rows.next_power_of_two() + rows / 8) + (4 << 10);
        largest.into_iter().max().unwrap_or(0) + kept + matmul::WORKSPACE
    }

    fn covers(heads: Heads, vocab: usize) -> Result<()> {
        geometry::attention_passes(heads.dim)?;
        kv_cache::kernel(heads.dim)?;
        sample::check_vocab(vocab)
    }

    fn name(&self) -> &'static str {
        "cuda"
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    fn workers(&self, _weights: usize) -> Vec<Self> {
        vec![self.clone()]
    }

    fn replay(&self, recordings: &mut Recordings, key: usize, work: &mut dyn FnMut()) {
        self.replay_or_record(recordings, key, work);
    }

    fn finish(&self) -> Result<()> {
        self.wait();
        for (i, other) in self.others().iter().enumerate() {
            let ended = other.finish();
            self.keep(&format!("GPU {} of the group", i + 1), ended);
        }
        self.failure()
    }

    fn finish_here(&self) -> Result<()> {
        self.wait();
        self.failure()
    }

    fn peers(&self) -> Vec<Self> {
        self.others().to_vec()
    }

    fn reduce(&self, parts: &mut [Replicated<'_, Self>]) {
        self.reduce_parts(parts);
    }

    fn broadcast(&self, parts: &mut [Replicated<'_, Self>]) {
        self.spread_parts(parts);
    }

    fn free_bytes(&self) -> Option<u64> {
        self.driver.memory().ok().map(|(free, _)| free as u64)
    }

    fn f32(&self, len: usize) -> Buffer<f32> {
        self.buffer(len)
    }

    fn f32_on_host(&self, len: usize) -> Buffer<f32> {
        self.issue("allocation on the host", |ops| Buffer::on_host(ops.driver.clone(), len))
            .unwrap_or_else(|| Buffer::absent(self.driver.clone(), len))
    }

    fn act(&self, len: usize) -> Buffer<bf16> {
        self.buffer(len)
    }

    fn u32(&self, len: usize) -> Buffer<u32> {
        self.buffer(len)
    }

    fn put_f32(&self, buffer: &mut Buffer<f32>, at: usize, source: &[f32]) {
        self.issue("copy", |ops| ops.write(buffer.part_mut(at), source));
    }

    fn put_u32(&self, buffer: &mut Buffer<u32>, source: &[u32]) {
        self.issue("copy", |ops| ops.write(buffer.part_mut(0), source));
    }

    /// NaN once the backend has failed.
    fn get_f32(&self, buffer: &Buffer<f32>, range: Range<usize>) -> Vec<f32> {
        self.issue("copy", |ops| ops.read(buffer.part(range.start), range.len()))
            .unwrap_or_else(|| vec![f32::NAN; range.len()])
    }

    fn zero_f32(&self, buffer: &mut Buffer<f32>) {
        let len = buffer.len();
        self.issue("zero_f32", |ops| ops.zero(buffer.part_mut(0), len));
    }

    fn zero_act(&self, buffer: &mut Buffer<bf16>, len: usize) {
        self.issue("zero_act", |ops| ops.zero(buffer.part_mut(0), len));
    }

    fn ready(&self, rows: usize, cols: usize, matrix: bool) -> Buffer<bf16> {
        self.buffer(ready_len(rows, cols, matrix))
    }

    fn publish(&self, param: &mut Param<Self>) {
        let len = param.ready.len();
        self.issue("publish", |ops| ops.round(param.ready.part_mut(0), param.value.part(0), len));
    }

    fn embed(&self, table: &Param<Self>, tokens: &Buffer<u32>, rows: usize, out: &mut Buffer<bf16>) {
        self.issue("embed", |ops| ops.embed(&table.ready, tokens, rows, table.cols, out));
    }

    fn embed_backward(
        &self,
        dout: &Buffer<bf16>,
        tokens: &Buffer<u32>,
        rows: usize,
        width: usize,
        grad: &mut Buffer<f32>,
    ) {
        self.issue("embed_backward", |ops| ops.embed_backward(dout, tokens, rows, width, grad));
    }

    fn rms_norm(
        &self,
        x: &Buffer<bf16>,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        y: &mut Buffer<bf16>,
        rstd: &mut Buffer<f32>,
    ) {
        self.issue("rms_norm", |ops| ops.rms_norm(x, &weight.value, rows, eps, y, rstd));
    }

    fn add_rms_norm(
        &self,
        x: &Buffer<bf16>,
        delta: &Buffer<bf16>,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        sum: &mut Buffer<bf16>,
        y: &mut Buffer<bf16>,
        rstd: &mut Buffer<f32>,
    ) {
        self.issue("add_rms_norm", |ops| ops.add_rms_norm(x, delta, &weight.value, rows, eps, sum, y, rstd));
    }

    fn linear_add_rms_norm(
        &self,
        input: &Buffer<bf16>,
        (w, bias): (&Param<Self>, Option<&Param<Self>>),
        delta: &mut Buffer<bf16>,
        x: &Buffer<bf16>,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        sum: &mut Buffer<bf16>,
        y: &mut Buffer<bf16>,
        rstd: &mut Buffer<f32>,
    ) {
        let (bias, weight) = (bias.map(|bias| &bias.value), &weight.value);
        self.issue("linear_add_rms_norm", |ops| match ops.in_parts(input, &w.ready, shape(w), rows)? {
            Some(parts) => ops.add_parts_rms_norm(x, &parts, bias, weight, rows, eps, sum, y, rstd),
            None => {
                ops.linear(input, &w.ready, shape(w), bias, rows, delta)?;
                ops.add_rms_norm(x, delta, weight, rows, eps, sum, y, rstd)
            }
        });
    }

    fn rms_norm_backward(
        &self,
        dy: &Buffer<bf16>,
        x: &Buffer<bf16>,
        weight: &Param<Self>,
        rstd: &Buffer<f32>,
        rows: usize,
        dx: &mut Buffer<bf16>,
        dweight: &mut Buffer<f32>,
    ) {
        let weight = &weight.value;
        self.issue("rms_norm_backward", |ops| ops.rms_norm_backward(dy, x, weight, rstd, rows, dx, dweight));
    }

    fn linear(&self, x: &Buffer<bf16>, w: &Param<Self>, bias: Option<&Param<Self>>, rows: usize, y: &mut Buffer<bf16>) {
        self.issue("linear", |ops| ops.linear(x, &w.ready, shape(w), bias.map(|b| &b.value), rows, y));
    }

    fn linear_dx(&self, dy: &Buffer<bf16>, w: &Param<Self>, rows: usize, dx: &mut Buffer<bf16>) {
        self.issue("linear_dx", |ops| ops.linear_dx(dy, &w.ready, shape(w), rows, dx));
    }

    fn linear_dw(
        &self,
        dy: &Buffer<bf16>,
        x: &Buffer<bf16>,
        w: &Param<Self>,
        rows: usize,
        dw: &mut Buffer<f32>,
        dbias: Option<&mut Buffer<f32>>,
    ) {
        self.issue("linear_dw", |ops| ops.linear_dw(dy, x, shape(w), rows, dw, dbias));
    }

    fn qk_norm(
        &self,
        qkv: &mut Buffer<bf16>,
        before: &mut Buffer<bf16>,
        weights: (&Param<Self>, &Param<Self>),
        heads: Heads,
        rows: usize,
        eps: f32,
        rstd: &mut Buffer<f32>,
    ) {
        let weights = (&weights.0.value, &weights.1.value);
        self.issue("qk_norm", |ops| ops.qk_norm(qkv, before, weights, heads, rows, eps, rstd));
    }

    fn qk_norm_backward(
        &self,
        dqkv: &mut Buffer<bf16>,
        before: &Buffer<bf16>,
        weights: (&Param<Self>, &Param<Self>),
        rstd: &Buffer<f32>,
        heads: Heads,
        rows: usize,
        dweights: (&mut Buffer<f32>, &mut Buffer<f32>),
    ) {
        let weights = (&weights.0.value, &weights.1.value);
        self.issue("qk_norm_backward", |ops| ops.qk_norm_backward(dqkv, before, weights, rstd, heads, rows, dweights));
    }

    fn rope(
        &self,
        qkv: &mut Buffer<bf16>,
        positions: &Buffer<u32>,
        table: &Buffer<f32>,
        heads: Heads,
        rows: usize,
        inverse: bool,
    ) {
        self.issue("rope", |ops| ops.rope(qkv, positions, table, heads, rows, inverse));
    }

    fn attention(
        &self,
        qkv: &Buffer<bf16>,
        cu_seqlens: &[u32],
        heads: Heads,
        out: &mut Buffer<bf16>,
        lse: &mut Buffer<f32>,
    ) {
        self.issue("attention", |ops| ops.attention(qkv, cu_seqlens, heads, out, lse));
    }

    fn attention_backward(
        &self,
        dout: &Buffer<bf16>,
        qkv: &Buffer<bf16>,
        out: &Buffer<bf16>,
        lse: &Buffer<f32>,
        cu_seqlens: &[u32],
        heads: Heads,
        dqkv: &mut Buffer<bf16>,
    ) {
        self.issue("attention_backward", |ops| ops.attention_backward(dout, qkv, out, lse, cu_seqlens, heads, dqkv));
    }

    fn swiglu(&self, gate_up: &Buffer<bf16>, width: usize, rows: usize, out: &mut Buffer<bf16>) {
        self.issue("swiglu", |ops| ops.swiglu(gate_up, width, rows, out));
    }

    fn swiglu_backward(
        &self,
        dout: &Buffer<bf16>,
        gate_up: &Buffer<bf16>,
        width: usize,
        rows: usize,
        dgate_up: &mut Buffer<bf16>,
    ) {
        self.issue("swiglu_backward", |ops| ops.swiglu_backward(dout, gate_up, width, rows, dgate_up));
    }

    fn gather(&self, x: &Buffer<bf16>, index: &[u32], width: usize, out: &mut Buffer<bf16>) {
        self.issue("gather", |ops| ops.gather(x, index, width, out));
    }

    fn scatter(&self, x: &Buffer<bf16>, index: &[u32], width: usize, rows: usize, out: &mut Buffer<bf16>) {
        self.issue("scatter", |ops| ops.scatter(x, index, width, rows, out));
    }

    fn kept_logits(rows: usize, vocab: usize, room: usize) -> usize {
        head::kept_logits(rows, vocab).min(room)
    }

    fn head(
        &self,
        x: &Buffer<bf16>,
        w: &Param<Self>,
        targets: &[u32],
        logprob: &mut Buffer<f32>,
        entropy: &mut Buffer<f32>,
        lse: &mut Buffer<f32>,
        kept: &mut Buffer<f32>,
    ) {
        self.issue("head", |ops| ops.head(x, head_of(w), targets, logprob, entropy, lse, kept));
    }

    fn head_backward(
        &self,
        x: &Buffer<bf16>,
        w: &Param<Self>,
        targets: &[u32],
        entropy: &Buffer<f32>,
        lse: &Buffer<f32>,
        kept: &mut Buffer<f32>,
        grad_logprob: &[f32],
        grad_entropy: Option<&[f32]>,
        dx: &mut Buffer<bf16>,
        dw: Option<&mut Buffer<f32>>,
    ) {
        let seeds = Seeds { targets, entropy, lse, grad_logprob, grad_entropy };
        self.issue("head_backward", |ops| ops.head_backward(x, head_of(w), &seeds, kept, dx, dw));
    }

    fn logits(&self, x: &Buffer<bf16>, w: &Param<Self>, rows: usize, out: &mut Buffer<f32>) {
        self.issue("logits", |ops| ops.logits(x, head_of(w), rows, out));
    }

    fn sample(&self, logits: &Buffer<f32>, vocab: usize, draws: &[Draw], out: &mut [Drawn]) {
        self.issue("sample", |ops| ops.sample(logits, vocab, draws, out));
    }

    fn kv_cache(&self, layers: usize, heads: Heads, pages: usize) -> KvCache {
        self.issue("allocation of a KV cache", |ops| ops.kv_cache(layers, heads, pages))
            .unwrap_or_else(|| KvCache::absent(&self.driver, layers, heads))
    }

    fn put_rows(&self, rows: [(&mut Buffer<u32>, &[u32]); 3], table: &mut Buffer<u32>, pages: &[(u32, u32)]) {
        self.issue("put_rows", |ops| ops.put_rows(rows, table, pages));
    }

    fn kv_append(&self, cache: &mut KvCache, layer: usize, qkv: &Buffer<bf16>, at: &Paged<'_, Self>) {
        self.issue("kv_append", |ops| ops.kv_append(cache, layer, qkv, at));
    }

    fn rope_append(
        &self,
        qkv: &mut Buffer<bf16>,
        angles: &Buffer<f32>,
        _heads: Heads,
        cache: &mut KvCache,
        layer: usize,
        at: &Paged<'_, Self>,
    ) {
        self.issue("rope_append", |ops| ops.rope_append(qkv, None, angles, cache, layer, at));
    }

    fn linear_rope_append(
        &self,
        x: &Buffer<bf16>,
        (w, bias): (&Param<Self>, Option<&Param<Self>>),
        qkv: &mut Buffer<bf16>,
        angles: &Buffer<f32>,
        _heads: Heads,
        cache: &mut KvCache,
        layer: usize,
        at: &Paged<'_, Self>,
    ) {
        self.issue("linear_rope_append", |ops| {
            ops.linear(x, &w.ready, shape(w), None, at.rows, qkv)?;
            ops.rope_append(qkv, bias.map(|bias| &bias.value), angles, cache, layer, at)
        });
    }

    fn kv_copy(&self, cache: &mut KvCache, copies: &[PageCopy]) {
        if !copies.is_empty() {
            self.issue("kv_copy", |ops| ops.kv_copy(cache, copies));
        }
    }

    fn attention_cached(
        &self,
        cache: &KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        at: &Paged<'_, Self>,
        out: &mut Buffer<bf16>,
    ) {
        self.issue("attention_cached", |ops| ops.attention_cached(cache, layer, qkv, at, out));
    }

    fn attention_prefill(
        &self,
        cache: &KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        at: &Paged<'_, Self>,
        runs: &[Run],
        out: &mut Buffer<bf16>,
    ) {
        self.issue("attention_prefill", |ops| ops.attention_prefill(cache, layer, qkv, at, runs, out));
    }

    fn adapter_merge(&self, value: &mut Buffer<f32>, adapter: &Adapter<Self>, sign: f32) {
        self.issue("adapter_merge", |ops| ops.adapter_merge(value, adapter, sign));
    }

    fn adapter_backward(&self, dw: &Buffer<f32>, adapter: &Adapter<Self>, da: &mut Buffer<f32>, db: &mut Buffer<f32>) {
        self.issue("adapter_backward", |ops| ops.adapter_backward(dw, adapter, da, db));
    }

    fn add_f32(&self, sum: &mut Buffer<f32>, term: &Buffer<f32>) {
        self.issue("add_f32", |ops| ops.add(sum.part_mut(0), term.part(0), term.len()));
    }

    fn square_sum(&self, x: &Buffer<f32>) -> f64 {
        self.square_sums(&[x])[0]
    }

    fn square_sums(&self, all: &[&Buffer<f32>]) -> Vec<f64> {
        self.issue("square_sum", |ops| ops.square_sums(all)).unwrap_or_else(|| vec![f64::NAN; all.len()])
    }

    fn adamw(
        &self,
        value: &mut Buffer<f32>,
        grad: &Buffer<f32>,
        moments: (&mut Buffer<f32>, &mut Buffer<f32>),
        range: Range<usize>,
        rule: &AdamW,
    ) {
        self.issue("adamw", |ops| ops.adamw(value, grad, moments, (range.start, range.len()), rule));
    }

    fn muon(
        &self,
        value: &mut Buffer<f32>,
        grad: &Buffer<f32>,
        momentum: &mut Buffer<f32>,
        at: usize,
        shape: (usize, usize),
        rule: &Muon,
    ) {
        self.issue("muon", |ops| ops.muon(value, grad, momentum, at, shape, rule));
    }
}
