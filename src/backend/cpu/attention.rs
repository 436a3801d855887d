//! Causal attention, forward: over packed sequences and over a KV cache.
//!
//! Both call one row kernel, so a token decoded alone gets the bits it gets in
//! training. Keys lie transposed in tiles of sixteen (`[tile][dim][16]`), so that a
//! vector of scores is one fused multiply-add for each dimension, with no sum across
//! lanes. Softmax is online over blocks of 64 keys (Dao et al. 2022): memory is
//! linear in the length.

use std::array::from_fn;

use super::simd::{LANES, Simd, kernel, steps};
use super::{Cpu, Heads, KvCache, Shared, scratch};

/// Tiles of keys whose softmax is taken together.
const BLOCK_TILES: usize = 4;
/// Queries that share the keys they load.
const QUERIES: usize = 4;
/// Widest head the row kernel keeps in registers, in vectors.
pub const MAX_HEAD_VECTORS: usize = 16;

/// Adding `MASK[16 - n..]` to scores leaves n of them and makes the others −∞.
pub static MASK: [f32; 2 * LANES] = {
    let mut mask = [0.0; 2 * LANES];
    let mut i = LANES;
    while i < 2 * LANES {
        mask[i] = f32::NEG_INFINITY;
        i += 1;
    }
    mask
};

/// The mask that leaves the first `n` (at most 16) lanes.
#[inline(always)]
pub fn mask<S: Simd>(s: S, n: usize) -> S::V {
    s.load(&MASK, LANES - n)
}

/// Length of one head's transposed keys.
pub fn tiles_len(tokens: usize, dim: usize) -> usize {
    tokens.div_ceil(LANES) * LANES * dim
}

/// Writes column `token` of transposed tiles.
#[inline(always)]
pub fn put_column(tiles: &mut [f32], token: usize, column: &[f32]) {
    let at = token / LANES * LANES * column.len() + token % LANES;
    for (slot, &x) in tiles[at..].iter_mut().step_by(LANES).zip(column) {
        *slot = x;
    }
}

/// Packed sequences: `out [rows, query · dim]`, `lse [rows, query]`.
pub fn forward(cpu: &Cpu, qkv: &[f32], cu_seqlens: &[u32], heads: Heads, out: &mut [f32], lse: &mut [f32]) {
    let (width, dim, group) = (heads.qkv_width(), heads.dim, heads.group());
    let sequences = cu_seqlens.len() - 1;
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let rows = cu_seqlens[sequences] as usize;
    cpu.tasks(sequences * heads.kv, rows * width * 8, |task| {
        let (sequence, kv) = (task / heads.kv, task % heads.kv);
        let (start, end) = (cu_seqlens[sequence] as usize, cu_seqlens[sequence + 1] as usize);
        let tokens = end - start;
        let key = (heads.query + kv) * dim;
        let value = key + heads.kv * dim;
        scratch(tiles_len(tokens, dim), |keys| {
            for token in 0..tokens {
                put_column(keys, token, &qkv[(start + token) * width + key..][..dim]);
            }
            clear_tail(keys, tokens, dim);
            let values = Strided { data: &qkv[start * width..], row: width, at: value };
            let job = Job { keys, values, dim, pairs: tokens * group };
            job.run(
                |pair| {
                    let (token, head) = (pair / group, kv * group + pair % group);
                    (&qkv[(start + token) * width + head * dim..][..dim], token + 1)
                },
                |pair, result, row_lse| {
                    let (row, head) = (start + pair / group, kv * group + pair % group);
                    let at = row * heads.query + head;
                    // SAFETY: tasks have different sequences or different heads.
                    unsafe {
                        out.range(at * dim..(at + 1) * dim).copy_from_slice(result);
                        lse.range(at..at + 1)[0] = row_lse;
                    }
                },
            );
        });
    });
}

/// The lanes past the last token would otherwise hold whatever was there, NaN perhaps.
pub fn clear_tail(tiles: &mut [f32], tokens: usize, dim: usize) {
    if !tokens.is_multiple_of(LANES) {
        let last = tokens / LANES * LANES * dim;
        for row in tiles[last..].chunks_exact_mut(LANES) {
            row[tokens % LANES..].fill(0.0);
        }
    }
}

/// Rows against the cache: row r attends to positions `0..=positions[r]` of its slot.
#[allow(clippy::too_many_arguments)]
pub fn cached(
    cpu: &Cpu,
    cache: &KvCache,
    layer: usize,
    qkv: &[f32],
    slots: &[u32],
    positions: &[u32],
    heads: Heads,
    out: &mut [f32],
) {
    let (width, dim, group) = (heads.qkv_width(), heads.dim, heads.group());
    let out = Shared::new(out);
    let work = positions.iter().map(|&p| p as usize + 1).sum::<usize>() * heads.out_width() / 4;
    cpu.rows(slots.len(), work, |rows| {
        for row in rows {
            for kv in 0..heads.kv {
                let (keys, values) = cache.head(layer, slots[row] as usize, kv);
                let values = Strided { data: values, row: dim, at: 0 };
                let job = Job { keys, values, dim, pairs: group };
                job.run(
                    |pair| (&qkv[row * width + (kv * group + pair) * dim..][..dim], positions[row] as usize + 1),
                    |pair, result, _| {
                        let at = (row * heads.query + kv * group + pair) * dim;
                        // SAFETY: tasks have different rows.
                        unsafe { out.range(at..at + dim) }.copy_from_slice(result);
                    },
                );
            }
        }
    });
}

/// Rows of values inside wider rows.
#[derive(Clone, Copy)]
struct Strided<'a> {
    data: &'a [f32],
    row: usize,
    at: usize,
}

/// Queries that attend to one key/value head.
struct Job<'a> {
    keys: &'a [f32],
    values: Strided<'a>,
    dim: usize,
    pairs: usize,
}

impl Job<'_> {
    /// `query(i)` is a query and how many keys it sees; `done(i, out, lse)` takes the result.
    #[inline]
    fn run<'q>(&self, query: impl Fn(usize) -> (&'q [f32], usize), mut done: impl FnMut(usize, &[f32], f32)) {
        let mut out = [0.0; QUERIES * MAX_HEAD_VECTORS * LANES];
        let mut lse = [0.0; QUERIES];
        let mut pair = 0;
        while pair < self.pairs {
            let count = if self.pairs - pair >= QUERIES { QUERIES } else { 1 };
            let queries: [_; QUERIES] = from_fn(|i| query(pair + i.min(count - 1)));
            let many = count == QUERIES;
            match self.dim.div_ceil(LANES) {
                1 if many => attend::<4, 1>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                1 => attend::<1, 1>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                2 if many => attend::<4, 2>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                2 => attend::<1, 2>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                3..=4 if many => attend::<4, 4>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                3..=4 => attend::<1, 4>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                5..=8 if many => attend::<4, 8>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                5..=8 => attend::<1, 8>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                _ if many => attend::<4, 16>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
                _ => attend::<1, 16>(self.keys, self.values, self.dim, &queries, &mut out, &mut lse),
            }
            for i in 0..count {
                done(pair + i, &out[i * self.dim..(i + 1) * self.dim], lse[i]);
            }
            pair += count;
        }
    }
}

kernel! {
    /// R queries of `VECTORS · 16` or fewer dimensions; `out [R, dim]`, `lse [R]`.
    fn attend<const R: usize, const VECTORS: usize>(
        keys: &[f32], values: Strided<'_>, dim: usize, queries: &[(&[f32], usize); QUERIES], out: &mut [f32], lse: &mut [f32],
    ) = attend_body;
}

// Indices name a query, a tile and a vector in several arrays at once.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn attend_body<S: Simd, const R: usize, const VECTORS: usize>(
    s: S,
    keys: &[f32],
    values: Strided<'_>,
    dim: usize,
    queries: &[(&[f32], usize); QUERIES],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let scale = s.splat(1.0 / (dim as f32).sqrt());
    let mut longest = 0;
    for (query, seen) in &queries[..R] {
        assert!(query.len() == dim && dim <= VECTORS * LANES);
        longest = longest.max(*seen);
    }
    let lanes = |v: usize| LANES.min(dim - v * LANES);
    let vectors = dim.div_ceil(LANES);
    let mut acc = [[s.zero(); VECTORS]; R];
    let mut total = [s.zero(); R];
    let mut top = [f32::NEG_INFINITY; R];
    let block = BLOCK_TILES * LANES;
    for first in (0..longest).step_by(block) {
        let tiles = (longest - first).div_ceil(LANES).min(BLOCK_TILES);
        let mut scores = [[s.splat(f32::NEG_INFINITY); BLOCK_TILES]; R];
        for tile in 0..tiles {
            let at = first + tile * LANES;
            let keys = &keys[at * dim..(at + LANES) * dim];
            let mut dot = [s.zero(); R];
            for d in 0..dim {
                let key = s.load(keys, d * LANES);
                for r in 0..R {
                    dot[r] = s.fma(s.splat(queries[r].0[d]), key, dot[r]);
                }
            }
            for r in 0..R {
                let live = queries[r].1.saturating_sub(at).min(LANES);
                scores[r][tile] = s.fma(dot[r], scale, mask(s, live));
            }
        }
        let mut weights = [[0.0f32; BLOCK_TILES * LANES]; R];
        for r in 0..R {
            let mut high = scores[r][0];
            for tile in 1..tiles {
                high = s.max(high, scores[r][tile]);
            }
            let high = s.max_lane(high);
            let high = if high > top[r] { high } else { top[r] };
            // e^(−∞) = 0 drops what the first block finds; a block with no live key changes nothing.
            let fade = s.exp(s.splat(top[r] - high));
            top[r] = high;
            total[r] = s.mul(total[r], fade);
            for v in 0..vectors {
                acc[r][v] = s.mul(acc[r][v], fade);
            }
            for tile in 0..tiles {
                let p = s.exp(s.sub(scores[r][tile], s.splat(high)));
                total[r] = s.add(total[r], p);
                s.store(&mut weights[r], tile * LANES, p);
            }
        }
        for j in 0..(longest - first).min(block) {
            let value = &values.data[(first + j) * values.row + values.at..][..dim];
            for v in 0..vectors {
                let value = s.load_n(value, v * LANES, lanes(v));
                for r in 0..R {
                    acc[r][v] = s.fma(s.splat(weights[r][j]), value, acc[r][v]);
                }
            }
        }
    }
    for r in 0..R {
        let sum = s.sum(total[r]);
        let inverse = s.splat(1.0 / sum);
        let out = &mut out[r * dim..(r + 1) * dim];
        for (at, n) in steps(dim) {
            s.store_n(out, at, n, s.mul(acc[r][at / LANES], inverse));
        }
        lse[r] = top[r] + sum.ln();
    }
}
