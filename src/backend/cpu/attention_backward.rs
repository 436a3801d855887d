//! Causal attention, backward (Dao 2023, alg. 2), with the scores recomputed.
//!
//! With p = e^(s − lse), D = Σ dout · out and scale 1/√dim:
//! dv = pᵀ dout, dp = dout vᵀ, ds = p (dp − D) scale, dq = ds k, dk = dsᵀ q.
//! A task owns one sequence and one key/value head with the query heads that share
//! it, so nothing is summed across tasks. It walks tiles of sixteen keys; lanes are
//! keys, except in dq where they are dimensions.

use super::attention::{clear_tail, mask, put_column, tiles_len};
use super::simd::{LANES, Simd, kernel, steps};
use super::{Cpu, Heads, Shared, scratch};

/// `dqkv [rows, (query + 2 kv) · dim]` of `dout [rows, query · dim]`.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    cpu: &Cpu,
    dout: &[f32],
    qkv: &[f32],
    out: &[f32],
    lse: &[f32],
    cu_seqlens: &[u32],
    heads: Heads,
    dqkv: &mut [f32],
) {
    let sequences = cu_seqlens.len() - 1;
    let rows = cu_seqlens[sequences] as usize;
    let dqkv = Shared::new(dqkv);
    cpu.tasks(sequences * heads.kv, rows * heads.qkv_width() * 16, |task| {
        let (sequence, kv) = (task / heads.kv, task % heads.kv);
        let (start, end) = (cu_seqlens[sequence] as usize, cu_seqlens[sequence + 1] as usize);
        let job = Job { dout, qkv, out, lse, heads, kv, start, tokens: end - start };
        if start < end {
            job.run(&dqkv);
        }
    });
}

#[derive(Clone, Copy)]
struct Job<'a> {
    dout: &'a [f32],
    qkv: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    heads: Heads,
    kv: usize,
    start: usize,
    tokens: usize,
}

impl Job<'_> {
    fn run(&self, dqkv: &Shared) {
        let Job { heads, tokens, .. } = *self;
        let (dim, group) = (heads.dim, heads.group());
        let tiles = tiles_len(tokens, dim);
        // Transposed keys and values, dk and dv of a tile, dq of the group's heads, D of each.
        scratch(2 * tiles + 2 * LANES * dim + tokens * group * (dim + 1), |buffer| {
            let (keys, rest) = buffer.split_at_mut(tiles);
            let (values, rest) = rest.split_at_mut(tiles);
            let (sums, rest) = rest.split_at_mut(2 * LANES * dim);
            let (dq, delta) = rest.split_at_mut(tokens * group * dim);
            for token in 0..tokens {
                put_column(keys, token, self.row(self.key(), token));
                put_column(values, token, self.row(self.value(), token));
            }
            clear_tail(keys, tokens, dim);
            clear_tail(values, tokens, dim);
            dq.fill(0.0);
            sweep(*self, keys, values, sums, dq, delta, &mut |at| {
                // SAFETY: this task alone has this sequence and these heads, and drops each range before the next.
                unsafe { dqkv.range(at..at + dim) }
            });
            for (pair, dq) in dq.chunks_exact(dim).enumerate() {
                let at = (self.start + pair / group) * heads.qkv_width() + (self.kv * group + pair % group) * dim;
                // SAFETY: as above.
                unsafe { dqkv.range(at..at + dim) }.copy_from_slice(dq);
            }
        });
    }

    /// Column of the key head in a qkv row.
    fn key(&self) -> usize {
        (self.heads.query + self.kv) * self.heads.dim
    }

    fn value(&self) -> usize {
        self.key() + self.heads.kv * self.heads.dim
    }

    #[inline(always)]
    fn row(&self, column: usize, token: usize) -> &[f32] {
        &self.qkv[(self.start + token) * self.heads.qkv_width() + column..][..self.heads.dim]
    }
}

kernel! {
    fn sweep(
        job: Job<'_>, keys: &[f32], values: &[f32], sums: &mut [f32], dq: &mut [f32], delta: &mut [f32], put: Put<'_, '_>,
    ) = sweep_body;
}

type Put<'a, 'b> = &'a mut dyn FnMut(usize) -> &'b mut [f32];

/// `put(at)` lends a head's gradient in the output. Nothing here may be a closure
/// handed to another function: outside the kernel it would lose the instructions.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sweep_body<S: Simd>(
    s: S,
    job: Job<'_>,
    keys: &[f32],
    values: &[f32],
    sums: &mut [f32],
    dq: &mut [f32],
    delta: &mut [f32],
    put: Put<'_, '_>,
) {
    let (dim, group, tokens) = (job.heads.dim, job.heads.group(), job.tokens);
    let out_width = job.heads.out_width();
    let root = 1.0 / (dim as f32).sqrt();
    let scale = s.splat(root);
    // Where pair (token, head of the group) has its row of `out` and `dout`.
    let at = |pair: usize| (job.start + pair / group) * out_width + (job.kv * group + pair % group) * dim;
    for (pair, delta) in delta.iter_mut().enumerate() {
        let (out, dout) = (&job.out[at(pair)..][..dim], &job.dout[at(pair)..][..dim]);
        let mut sum = s.zero();
        for (i, n) in steps(dim) {
            sum = s.fma(s.load_n(out, i, n), s.load_n(dout, i, n), sum);
        }
        *delta = s.sum(sum);
    }
    let (dkeys, dvalues) = sums.split_at_mut(LANES * dim);
    for first in (0..tokens).step_by(LANES) {
        dkeys.fill(0.0);
        dvalues.fill(0.0);
        let keys = &keys[first * dim..(first + LANES) * dim];
        let values = &values[first * dim..(first + LANES) * dim];
        for token in first..tokens {
            let live = mask(s, (token + 1 - first).min(LANES));
            for head in 0..group {
                let pair = token * group + head;
                let query = job.row((job.kv * group + head) * dim, token);
                let dout = &job.dout[at(pair)..][..dim];
                let (mut dot, mut dp) = (s.zero(), s.zero());
                for d in 0..dim {
                    dot = s.fma(s.splat(query[d]), s.load(keys, d * LANES), dot);
                    dp = s.fma(s.splat(dout[d]), s.load(values, d * LANES), dp);
                }
                let lse = job.lse[(job.start + token) * job.heads.query + job.kv * group + head];
                let score = s.fma(dot, scale, live);
                let p = s.exp(s.sub(score, s.splat(lse)));
                let ds = s.mul(s.mul(p, s.sub(dp, s.splat(delta[pair]))), scale);
                for d in 0..dim {
                    let sum = s.fma(s.splat(query[d]), ds, s.load(dkeys, d * LANES));
                    s.store(dkeys, d * LANES, sum);
                    let sum = s.fma(s.splat(dout[d]), p, s.load(dvalues, d * LANES));
                    s.store(dvalues, d * LANES, sum);
                }
                let ds = s.lanes(ds);
                let dq = &mut dq[pair * dim..(pair + 1) * dim];
                let seen = (token + 1 - first).min(LANES);
                for (i, n) in steps(dim) {
                    let mut sum = s.load_n(dq, i, n);
                    for (j, &ds) in ds[..seen].iter().enumerate() {
                        sum = s.fma(s.splat(ds), s.load_n(job.row(job.key(), first + j), i, n), sum);
                    }
                    s.store_n(dq, i, n, sum);
                }
            }
        }
        let width = job.heads.qkv_width();
        for j in 0..LANES.min(tokens - first) {
            let row = (job.start + first + j) * width;
            for (column, sums) in [(job.key(), &*dkeys), (job.value(), &*dvalues)] {
                for (slot, sum) in put(row + column).iter_mut().zip(sums[j..].iter().step_by(LANES)) {
                    *slot = *sum;
                }
            }
        }
    }
}
