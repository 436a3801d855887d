//! The reference backend: f32, all cores, no device.
//!
//! One file for each operation. Rows are shared out over a rayon pool; what is
//! summed across rows is summed in chunks whose size is fixed, so the number of
//! threads changes nothing but the time.

mod adapter;
mod attention;
mod attention_backward;
mod embedding;
mod gemm;
mod head;
mod kv_cache;
mod linear;
mod optimizer;
mod parallel;
mod qk_norm;
mod rms_norm;
mod rope;
mod sample;
pub(crate) mod simd;
mod swiglu;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

pub use kv_cache::KvCache;
use parallel::{SendPtr, Shared, scratch};

use super::{AdamW, Adapter, Backend, Draw, Drawn, Heads, Muon, PageCopy, Paged, Param, Replicated, Run, StepShape};
use crate::error::{Context, Error, Result};

/// Weights below which decoding runs a worker on each core: such a model stays in
/// a core's caches, and its steps are too short to be shared out.
const SMALL_MODEL: usize = 4 << 20;

/// The CPU backend: a handle on the threads it may use.
#[derive(Clone, Default)]
pub struct Cpu {
    pool: Pool,
    /// Devices beside this one that it acts as.
    peers: usize,
}

#[derive(Clone, Default)]
enum Pool {
    /// Everything on the calling thread.
    Serial,
    /// The process's rayon pool.
    #[default]
    Global,
    Own(Arc<rayon::ThreadPool>),
}

/// Weights that stay in a core's second-level cache beside their gradients, and bytes of activations that mostly do.
const CACHED_WEIGHTS: usize = 256 << 10;
const CACHED_BYTES: usize = 2 << 20;

impl Cpu {
    /// Uses the process's thread pool.
    pub fn new() -> Self {
        Cpu::default()
    }

    /// Stays on the calling thread: for workers that are one of many themselves.
    pub fn serial() -> Self {
        Cpu { pool: Pool::Serial, peers: 0 }
    }

    /// Uses a pool of its own.
    ///
    /// # Errors
    /// Where the system gives no more threads.
    pub fn with_threads(threads: usize) -> Result<Self> {
        if threads == 1 {
            return Ok(Cpu::serial());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.or_fail(|| format!("cannot start {threads} threads"))?;
        Ok(Cpu { pool: Pool::Own(Arc::new(pool)), peers: 0 })
    }

    /// Acts as so many devices, which share the threads: what several GPUs do, where there is none. There is nothing to
    /// gain from it but that.
    pub fn as_devices(self, devices: usize) -> Self {
        Cpu { peers: devices.max(1) - 1, ..self }
    }

    /// Threads that share the work.
    pub fn threads(&self) -> usize {
        match &self.pool {
            Pool::Serial => 1,
            Pool::Global => rayon::current_num_threads(),
            Pool::Own(pool) => pool.current_num_threads(),
        }
    }
}

impl Backend for Cpu {
    type F32 = Vec<f32>;
    type Act = Vec<f32>;
    type U32 = Vec<u32>;
    /// Panels of the transposed matrix, see `gemm::pack`; empty for vectors.
    type Ready = Vec<f32>;
    type KvCache = KvCache;
    type Recordings = ();

    const ACT_BYTES: usize = size_of::<f32>();
    /// The system gives pages when they are written.
    const RESERVES: bool = false;

    fn ready_bytes(rows: usize, cols: usize, matrix: bool) -> usize {
        if matrix { 4 * gemm::packed_len(rows, cols) } else { 0 }
    }

    fn scratch_bytes(shape: &StepShape) -> usize {
        let muon = shape.muon.map_or(0, |(rows, cols)| {
            let (short, long) = (rows.min(cols), rows.max(cols));
            4 * (3 * rows * cols + 2 * short * short + gemm::packed_len(short, long))
        });
        let adapter = shape.adapter.map_or(0, |((out, input), rank)| 4 * rank * (out + input));
        head::scratch_bytes(shape.vocab).max(muon).max(adapter)
    }

    fn cached_rows(weights: usize, row_bytes: usize) -> usize {
        // Larger weights are better read seldom.
        if weights <= CACHED_WEIGHTS { (CACHED_BYTES / row_bytes.max(1)).max(64) } else { usize::MAX }
    }

    fn covers(heads: Heads, _vocab: usize) -> Result<()> {
        let most = attention::MAX_HEAD_VECTORS * simd::LANES;
        match heads.dim <= most {
            true => Ok(()),
            false => Err(Error::new(format!("attention covers heads of up to {most} dimensions, not {}", heads.dim))),
        }
    }

    fn name(&self) -> &'static str {
        "cpu"
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Pool::Serial => work(),
            Pool::Global => rayon::scope(|_| work()),
            Pool::Own(pool) => pool.install(work),
        }
    }

    fn workers(&self, weights: usize) -> Vec<Self> {
        match weights {
            0..SMALL_MODEL => vec![Cpu::serial(); self.threads()],
            _ => vec![Cpu { peers: 0, ..self.clone() }],
        }
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn peers(&self) -> Vec<Self> {
        vec![Cpu { peers: 0, ..self.clone() }; self.peers]
    }

    fn reduce(&self, parts: &mut [Replicated<'_, Self>]) {
        for part in parts {
            let (first, others) = part.copies.split_first_mut().expect("there is a device");
            others.iter().for_each(|other| self.add_f32(first, other));
            if let Some(owner) = part.owner.checked_sub(1) {
                std::mem::swap(*first, others[owner]);
            }
        }
    }

    fn broadcast(&self, parts: &mut [Replicated<'_, Self>]) {
        for part in parts {
            let owner = std::mem::take(part.copies[part.owner]);
            part.copies.iter_mut().for_each(|copy| (**copy).clone_from(&owner));
        }
    }

    fn f32(&self, len: usize) -> Vec<f32> {
        vec![0.0; len]
    }

    fn act(&self, len: usize) -> Vec<f32> {
        vec![0.0; len]
    }

    fn u32(&self, len: usize) -> Vec<u32> {
        vec![0; len]
    }

    fn put_f32(&self, buffer: &mut Vec<f32>, at: usize, source: &[f32]) {
        buffer[at..at + source.len()].copy_from_slice(source);
    }

    fn put_u32(&self, buffer: &mut Vec<u32>, source: &[u32]) {
        buffer[..source.len()].copy_from_slice(source);
    }

    fn get_f32(&self, buffer: &Vec<f32>, range: Range<usize>) -> Vec<f32> {
        buffer[range].to_vec()
    }

    fn zero_f32(&self, buffer: &mut Vec<f32>) {
        buffer.fill(0.0);
    }

    fn zero_act(&self, buffer: &mut Vec<f32>, len: usize) {
        buffer[..len].fill(0.0);
    }

    fn ready(&self, rows: usize, cols: usize, matrix: bool) -> Vec<f32> {
        vec![0.0; if matrix { gemm::packed_len(rows, cols) } else { 0 }]
    }

    fn publish(&self, param: &mut Param<Self>) {
        if !param.ready.is_empty() {
            gemm::pack(self, &param.value, param.rows, param.cols, &mut param.ready);
        }
    }

    fn embed(&self, table: &Param<Self>, tokens: &Vec<u32>, rows: usize, out: &mut Vec<f32>) {
        embedding::forward(self, &table.value, table.cols, &tokens[..rows], out);
    }

    fn embed_backward(&self, dout: &Vec<f32>, tokens: &Vec<u32>, rows: usize, width: usize, grad: &mut Vec<f32>) {
        embedding::backward(self, dout, &tokens[..rows], width, grad);
    }

    fn rms_norm(
        &self,
        x: &Vec<f32>,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        y: &mut Vec<f32>,
        rstd: &mut Vec<f32>,
    ) {
        rms_norm::forward(self, x, &weight.value, rows, eps, y, rstd);
    }

    fn add_rms_norm(
        &self,
        x: &Vec<f32>,
        delta: &Vec<f32>,
        weight: &Param<Self>,
        rows: usize,
        eps: f32,
        sum: &mut Vec<f32>,
        y: &mut Vec<f32>,
        rstd: &mut Vec<f32>,
    ) {
        rms_norm::forward_add(self, x, delta, &weight.value, rows, eps, sum, y, rstd);
    }

    fn rms_norm_backward(
        &self,
        dy: &Vec<f32>,
        x: &Vec<f32>,
        weight: &Param<Self>,
        rstd: &Vec<f32>,
        rows: usize,
        dx: &mut Vec<f32>,
        dweight: &mut Vec<f32>,
    ) {
        rms_norm::backward(self, dy, x, &weight.value, rstd, rows, dx, dweight);
    }

    fn linear(&self, x: &Vec<f32>, w: &Param<Self>, bias: Option<&Param<Self>>, rows: usize, y: &mut Vec<f32>) {
        linear::forward(self, x, w, bias.map(|b| &b.value[..]), rows, y);
    }

    fn linear_dx(&self, dy: &Vec<f32>, w: &Param<Self>, rows: usize, dx: &mut Vec<f32>) {
        linear::backward_input(self, dy, w, rows, dx);
    }

    fn linear_dw(
        &self,
        dy: &Vec<f32>,
        x: &Vec<f32>,
        w: &Param<Self>,
        rows: usize,
        dw: &mut Vec<f32>,
        dbias: Option<&mut Vec<f32>>,
    ) {
        linear::backward_weight(self, dy, x, (w.rows, w.cols), rows, dw);
        if let Some(dbias) = dbias {
            linear::backward_bias(self, dy, rows, dbias);
        }
    }

    fn qk_norm(
        &self,
        qkv: &mut Vec<f32>,
        before: &mut Vec<f32>,
        weights: (&Param<Self>, &Param<Self>),
        heads: Heads,
        rows: usize,
        eps: f32,
        rstd: &mut Vec<f32>,
    ) {
        qk_norm::forward(self, qkv, before, (&weights.0.value, &weights.1.value), heads, rows, eps, rstd);
    }

    fn qk_norm_backward(
        &self,
        dqkv: &mut Vec<f32>,
        before: &Vec<f32>,
        weights: (&Param<Self>, &Param<Self>),
        rstd: &Vec<f32>,
        heads: Heads,
        rows: usize,
        dweights: (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        let weights = (&weights.0.value[..], &weights.1.value[..]);
        qk_norm::backward(self, dqkv, before, weights, rstd, heads, rows, dweights);
    }

    fn rope(
        &self,
        qkv: &mut Vec<f32>,
        positions: &Vec<u32>,
        table: &Vec<f32>,
        heads: Heads,
        rows: usize,
        inverse: bool,
    ) {
        rope::apply(self, qkv, &positions[..rows], table, heads, inverse);
    }

    fn attention(&self, qkv: &Vec<f32>, cu_seqlens: &[u32], heads: Heads, out: &mut Vec<f32>, lse: &mut Vec<f32>) {
        attention::forward(self, qkv, cu_seqlens, heads, out, lse);
    }

    fn attention_backward(
        &self,
        dout: &Vec<f32>,
        qkv: &Vec<f32>,
        out: &Vec<f32>,
        lse: &Vec<f32>,
        cu_seqlens: &[u32],
        heads: Heads,
        dqkv: &mut Vec<f32>,
    ) {
        attention_backward::backward(self, dout, qkv, out, lse, cu_seqlens, heads, dqkv);
    }

    fn swiglu(&self, gate_up: &Vec<f32>, width: usize, rows: usize, out: &mut Vec<f32>) {
        swiglu::forward(self, gate_up, width, rows, out);
    }

    fn swiglu_backward(&self, dout: &Vec<f32>, gate_up: &Vec<f32>, width: usize, rows: usize, dgate_up: &mut Vec<f32>) {
        swiglu::backward(self, dout, gate_up, width, rows, dgate_up);
    }

    fn gather(&self, x: &Vec<f32>, index: &[u32], width: usize, out: &mut Vec<f32>) {
        embedding::forward(self, x, width, index, out);
    }

    fn scatter(&self, x: &Vec<f32>, index: &[u32], width: usize, rows: usize, out: &mut Vec<f32>) {
        out[..rows * width].fill(0.0);
        for (row, &at) in x.chunks_exact(width).zip(index) {
            out[at as usize * width..][..width].copy_from_slice(row);
        }
    }

    fn kept_logits(rows: usize, vocab: usize, _room: usize) -> usize {
        head::kept_logits(rows, vocab)
    }

    fn head(
        &self,
        x: &Vec<f32>,
        w: &Param<Self>,
        targets: &[u32],
        logprob: &mut Vec<f32>,
        entropy: &mut Vec<f32>,
        lse: &mut Vec<f32>,
        kept: &mut Vec<f32>,
    ) {
        head::forward(self, x, w, targets, logprob, entropy, lse, kept);
    }

    fn head_backward(
        &self,
        x: &Vec<f32>,
        w: &Param<Self>,
        targets: &[u32],
        entropy: &Vec<f32>,
        lse: &Vec<f32>,
        kept: &mut Vec<f32>,
        grad_logprob: &[f32],
        grad_entropy: Option<&[f32]>,
        dx: &mut Vec<f32>,
        dw: Option<&mut Vec<f32>>,
    ) {
        let seeds = head::Seeds { targets, entropy, lse, grad_logprob, grad_entropy };
        head::backward(self, x, w, &seeds, kept, dx, dw.map(|dw| &mut dw[..]));
    }

    fn logits(&self, x: &Vec<f32>, w: &Param<Self>, rows: usize, out: &mut Vec<f32>) {
        linear::forward(self, x, w, None, rows, out);
    }

    fn sample(&self, logits: &Vec<f32>, vocab: usize, draws: &[Draw], out: &mut [Drawn]) {
        sample::sample(self, logits, vocab, draws, out);
    }

    fn kv_cache(&self, layers: usize, heads: Heads, pages: usize) -> KvCache {
        KvCache::new(layers, heads, pages)
    }

    fn put_rows(&self, rows: [(&mut Vec<u32>, &[u32]); 3], table: &mut Vec<u32>, pages: &[(u32, u32)]) {
        rows.into_iter().for_each(|(buffer, values)| self.put_u32(buffer, values));
        pages.iter().for_each(|&(place, page)| table[place as usize] = page);
    }

    fn kv_append(&self, cache: &mut KvCache, layer: usize, qkv: &Vec<f32>, at: &Paged<'_, Self>) {
        cache.append(layer, qkv, (at.table, at.width), &at.slots[..at.rows], &at.positions[..at.rows]);
    }

    fn kv_copy(&self, cache: &mut KvCache, copies: &[PageCopy]) {
        copies.iter().for_each(|copy| cache.copy(*copy));
    }

    fn attention_cached(
        &self,
        cache: &KvCache,
        layer: usize,
        qkv: &Vec<f32>,
        at: &Paged<'_, Self>,
        out: &mut Vec<f32>,
    ) {
        attention::cached(self, cache, layer, qkv, at, out);
    }

    fn attention_prefill(
        &self,
        cache: &KvCache,
        layer: usize,
        qkv: &Vec<f32>,
        at: &Paged<'_, Self>,
        runs: &[Run],
        out: &mut Vec<f32>,
    ) {
        attention::prefill(self, cache, layer, qkv, at, runs, out);
    }

    fn adapter_merge(&self, value: &mut Vec<f32>, adapter: &Adapter<Self>, sign: f32) {
        adapter::fold(self, value, adapter, sign);
    }

    fn adapter_backward(&self, dw: &Vec<f32>, adapter: &Adapter<Self>, da: &mut Vec<f32>, db: &mut Vec<f32>) {
        adapter::backward(self, dw, adapter, da, db);
    }

    fn add_f32(&self, sum: &mut Vec<f32>, term: &Vec<f32>) {
        optimizer::add(self, sum, term);
    }

    fn square_sum(&self, x: &Vec<f32>) -> f64 {
        optimizer::square_sum(self, x)
    }

    fn adamw(
        &self,
        value: &mut Vec<f32>,
        grad: &Vec<f32>,
        moments: (&mut Vec<f32>, &mut Vec<f32>),
        range: Range<usize>,
        rule: &AdamW,
    ) {
        let (first, second) = (&mut moments.0[range.clone()], &mut moments.1[range.clone()]);
        optimizer::adamw(self, &mut value[range.clone()], &grad[range], first, second, rule);
    }

    fn muon(
        &self,
        value: &mut Vec<f32>,
        grad: &Vec<f32>,
        momentum: &mut Vec<f32>,
        at: usize,
        shape: (usize, usize),
        rule: &Muon,
    ) {
        let range = at..at + shape.0 * shape.1;
        optimizer::muon(self, &mut value[range.clone()], &grad[range.clone()], &mut momentum[range], shape, rule);
    }
}
