//! Causal attention, backward (Dao 2023, alg. 2), with the scores recomputed.
//!
//! With p = e^(s − lse), D = Σ dout · out and scale 1/√dim:
//! dv = pᵀ dout, dp = dout vᵀ, ds = p (dp − D) scale, dq = ds k, dk = dsᵀ q.
//! A task owns one sequence and one key/value head with the query heads that share
//! it, so nothing is summed across tasks. It walks tiles of sixteen keys; lanes are
//! keys, except in dq where they are dimensions.

use super::attention::{mask, tiles_len, to_tiles};
use super::simd::{LANES, Simd, kernel, steps};
use super::{Cpu, Heads, Shared, scratch};

/// Queries that are taken together.
const QUERIES: usize = 4;

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
            let (width, rows) = (heads.qkv_width(), &self.qkv[self.start * heads.qkv_width()..]);
            to_tiles(&rows[self.key()..], width, tokens, dim, keys);
            to_tiles(&rows[self.value()..], width, tokens, dim, values);
            dq.fill(0.0);
            let sweep = match dim {
                16 => sweep::<16>,
                32 => sweep::<32>,
                64 => sweep::<64>,
                128 => sweep::<128>,
                _ => sweep::<0>,
            };
            sweep(*self, keys, values, sums, dq, delta, dqkv);
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
    /// Heads of `DIM` dimensions, of any number where that is 0. This task alone has this sequence and these heads of
    /// `dqkv`.
    fn sweep<const DIM: usize>(
        job: Job<'_>, keys: &[f32], values: &[f32], sums: &mut [f32], dq: &mut [f32], delta: &mut [f32], dqkv: &Shared<'_>,
    ) = sweep_body;
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sweep_body<S: Simd, const DIM: usize>(
    s: S,
    job: Job<'_>,
    keys: &[f32],
    values: &[f32],
    sums: &mut [f32],
    dq: &mut [f32],
    delta: &mut [f32],
    dqkv: &Shared<'_>,
) {
    let dim = if DIM > 0 { DIM } else { job.heads.dim };
    let (group, tokens) = (job.heads.group(), job.tokens);
    let (width, out_width) = (job.heads.qkv_width(), job.heads.out_width());
    // Where pair (token, head of the group) has its row of `out` and `dout`.
    let at = |pair: usize| (job.start + pair / group) * out_width + (job.kv * group + pair % group) * dim;
    // Queries that nothing is asked of, such as a prompt's in the last layer, add 0 to every sum.
    let idle = (0..tokens * group).take_while(|&pair| job.dout[at(pair)..][..dim].iter().all(|&d| d == 0.0)).count();
    for (pair, delta) in delta.iter_mut().enumerate().skip(idle) {
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
        let span = first * dim..(first + LANES) * dim;
        let mut tile = Tile { first, keys: &keys[span.clone()], values: &values[span], dkeys, dvalues, dq, delta };
        let (mut pair, end) = (idle.max(first * group), tokens * group);
        while end - pair >= QUERIES {
            queries::<S, QUERIES>(s, &job, &mut tile, pair, dim);
            pair += QUERIES;
        }
        while pair < end {
            queries::<S, 1>(s, &job, &mut tile, pair, dim);
            pair += 1;
        }
        let live = LANES.min(tokens - first);
        for (column, sums) in [(job.key(), &*dkeys), (job.value(), &*dvalues)] {
            for (i, n) in steps(dim) {
                let mut block = [s.zero(); LANES];
                for (slot, sum) in block.iter_mut().zip(sums[i * LANES..].chunks_exact(LANES)) {
                    *slot = s.load(sum, 0);
                }
                for (j, row) in s.transpose(block).into_iter().enumerate().take(live) {
                    let at = (job.start + first + j) * width + column;
                    // SAFETY: no other task has this sequence and this head, and the range is dropped at once.
                    s.store_n(unsafe { dqkv.range(at..at + dim) }, i, n, row);
                }
            }
        }
    }
    for (pair, dq) in dq.chunks_exact(dim).enumerate() {
        let at = (job.start + pair / group) * width + (job.kv * group + pair % group) * dim;
        // SAFETY: as above.
        let row = unsafe { dqkv.range(at..at + dim) };
        for (i, n) in steps(dim) {
            s.store_n(row, i, n, s.load_n(dq, i, n));
        }
    }
}

/// Sixteen keys and values from token `first` on, transposed, with their gradients, and the queries' `dq` and D.
struct Tile<'a> {
    first: usize,
    keys: &'a [f32],
    values: &'a [f32],
    dkeys: &'a mut [f32],
    dvalues: &'a mut [f32],
    dq: &'a mut [f32],
    delta: &'a [f32],
}

/// R queries from `pair` on against one tile: they share what they load, and their chains of sums hide one another's
/// latency. Each sum has the order it would have if the queries came one by one.
// Indices name a query in several arrays at once.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn queries<S: Simd, const R: usize>(s: S, job: &Job<'_>, tile: &mut Tile<'_>, pair: usize, dim: usize) {
    let (group, first) = (job.heads.group(), tile.first);
    let out_width = job.heads.out_width();
    let scale = s.splat(1.0 / (dim as f32).sqrt());
    let mut query = [&job.qkv[..0]; R];
    let mut dout = [&job.dout[..0]; R];
    let (mut dot, mut dp) = ([s.zero(); R], [s.zero(); R]);
    for r in 0..R {
        let (token, head) = ((pair + r) / group, job.kv * group + (pair + r) % group);
        query[r] = &job.row(head * dim, token)[..dim];
        dout[r] = &job.dout[(job.start + token) * out_width + head * dim..][..dim];
    }
    for d in 0..dim {
        let (key, value) = (s.load(tile.keys, d * LANES), s.load(tile.values, d * LANES));
        for r in 0..R {
            dot[r] = s.fma(s.splat(query[r][d]), key, dot[r]);
            dp[r] = s.fma(s.splat(dout[r][d]), value, dp[r]);
        }
    }
    let (mut p, mut ds) = (dot, dp);
    let mut seen = 0;
    for r in 0..R {
        let (token, head) = ((pair + r) / group, job.kv * group + (pair + r) % group);
        seen = (token + 1 - first).min(LANES);
        let lse = job.lse[(job.start + token) * job.heads.query + head];
        let score = s.fma(dot[r], scale, mask(s, seen));
        p[r] = s.exp(s.sub(score, s.splat(lse)));
        ds[r] = s.mul(s.mul(p[r], s.sub(dp[r], s.splat(tile.delta[pair + r]))), scale);
    }
    for d in 0..dim {
        let (mut dkey, mut dvalue) = (s.load(tile.dkeys, d * LANES), s.load(tile.dvalues, d * LANES));
        for r in 0..R {
            dkey = s.fma(s.splat(query[r][d]), ds[r], dkey);
            dvalue = s.fma(s.splat(dout[r][d]), p[r], dvalue);
        }
        s.store(tile.dkeys, d * LANES, dkey);
        s.store(tile.dvalues, d * LANES, dvalue);
    }
    // The last query sees the most keys; those a query does not see have ds = 0.
    let mut lanes = [[0.0; LANES]; R];
    for r in 0..R {
        lanes[r] = s.lanes(ds[r]);
    }
    for (i, n) in steps(dim) {
        let mut sum = [s.zero(); R];
        for r in 0..R {
            sum[r] = s.load_n(&tile.dq[(pair + r) * dim..(pair + r + 1) * dim], i, n);
        }
        for j in 0..seen {
            let key = s.load_n(job.row(job.key(), first + j), i, n);
            for r in 0..R {
                sum[r] = s.fma(s.splat(lanes[r][j]), key, sum[r]);
            }
        }
        for r in 0..R {
            s.store_n(&mut tile.dq[(pair + r) * dim..(pair + r + 1) * dim], i, n, sum[r]);
        }
    }
}
