//! Causal attention, forward: over packed sequences and over a KV cache.
//!
//! Both call one row kernel, so a token decoded alone gets the bits it gets in
//! training. Keys lie transposed in tiles of sixteen (`[tile][dim][16]`), so that a
//! vector of scores is one fused multiply-add for each dimension, with no sum across
//! lanes. Softmax is online over blocks of 64 keys (Dao et al. 2022): memory is
//! linear in the length.

use super::simd::{LANES, Simd, kernel, steps};
use super::{Cpu, Heads, KvCache, Shared, scratch};
use crate::backend::{KV_PAGE, Paged, Run};

/// Tiles of keys whose softmax is taken together.
const BLOCK_TILES: usize = 4;
/// Queries that share the keys they load.
const QUERIES: usize = 4;
/// Tokens of a prompt that one task takes.
const PIECE: usize = 32;
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
        if tokens == 0 {
            return;
        }
        let key = (heads.query + kv) * dim;
        scratch(tiles_len(tokens, dim), |keys| {
            to_tiles(&qkv[start * width + key..], width, tokens, dim, keys);
            let keys = Tiles { data: keys, at: 0, step: LANES * dim, row: LANES, pages: None };
            let at = start * width + key + heads.kv * dim;
            let values = Tiles { data: qkv, at, step: LANES * width, row: width, pages: None };
            let queries = Rows { data: &qkv[start * width + kv * group * dim..], width };
            let place = start * heads.query + kv * group;
            // SAFETY: tasks have different sequences or different heads.
            unsafe { Job { keys, values, queries, heads, tokens, seen: 1, out: &out, lse: Some(&lse), place }.run() };
        });
    });
}

kernel! {
    /// Transposes rows of `dim` elements, `width` apart, into tiles; lanes past the last token are 0.
    pub fn to_tiles(rows: &[f32], width: usize, tokens: usize, dim: usize, tiles: &mut [f32]) = to_tiles_body;
}

#[inline(always)]
fn to_tiles_body<S: Simd>(s: S, rows: &[f32], width: usize, tokens: usize, dim: usize, tiles: &mut [f32]) {
    for (first, tile) in (0..tokens).step_by(LANES).zip(tiles.chunks_exact_mut(LANES * dim)) {
        let live = LANES.min(tokens - first);
        for (at, n) in steps(dim) {
            let mut block = [s.zero(); LANES];
            for (row, slot) in rows[first * width + at..].chunks(width).zip(&mut block[..live]) {
                *slot = s.load_n(row, 0, n);
            }
            for (column, slot) in s.transpose(block).into_iter().zip(tile[at * LANES..].chunks_exact_mut(LANES)).take(n)
            {
                s.store(slot, 0, column);
            }
        }
    }
}

/// Rows against the cache: row r attends to positions `0..=positions[r]` of its sequence.
pub fn cached(cpu: &Cpu, cache: &KvCache, layer: usize, qkv: &[f32], at: &Paged<'_, Cpu>, out: &mut [f32]) {
    let heads = cache.heads();
    let (slots, positions) = (&at.slots[..at.rows], &at.positions[..at.rows]);
    let (width, dim, group) = (heads.qkv_width(), heads.dim, heads.group());
    let out = Shared::new(out);
    let work = positions.iter().map(|&p| p as usize + 1).sum::<usize>() * heads.out_width() / 4;
    cpu.rows(slots.len(), work, |rows| {
        for row in rows {
            let pages = &at.table[slots[row] as usize * at.width..][..at.width];
            for kv in 0..heads.kv {
                let (keys, values) = cache.head(layer, pages, kv);
                let queries = Rows { data: &qkv[row * width + kv * group * dim..], width };
                let (seen, place) = (positions[row] as usize + 1, row * heads.query + kv * group);
                // SAFETY: tasks have different rows.
                unsafe { Job { keys, values, queries, heads, tokens: 1, seen, out: &out, lse: None, place }.run() };
            }
        }
    });
}

/// As [`cached`] of runs of rows: neighbours share the keys they load.
pub fn prefill(
    cpu: &Cpu,
    cache: &KvCache,
    layer: usize,
    qkv: &[f32],
    at: &Paged<'_, Cpu>,
    runs: &[Run],
    out: &mut [f32],
) {
    let heads = cache.heads();
    let (width, dim, group) = (heads.qkv_width(), heads.dim, heads.group());
    // Of a length that keeps cores busy with one prompt.
    let pieces: Vec<(usize, usize, usize)> = runs
        .iter()
        .flat_map(|run| {
            let (first, rows, position) = (run.row as usize, run.rows as usize, run.position as usize);
            (0..rows).step_by(PIECE).map(move |i| (first + i, PIECE.min(rows - i), position + i))
        })
        .collect();
    let keys = |&(_, tokens, position): &(usize, usize, usize)| tokens * (position + tokens);
    let work = pieces.iter().map(keys).sum::<usize>() * heads.out_width() / 4;
    let out = Shared::new(out);
    cpu.tasks(pieces.len() * heads.kv, work, |task| {
        let ((row, tokens, position), kv) = (pieces[task / heads.kv], task % heads.kv);
        let pages = &at.table[at.slots[row] as usize * at.width..][..at.width];
        let (keys, values) = cache.head(layer, pages, kv);
        let queries = Rows { data: &qkv[row * width + kv * group * dim..], width };
        let (seen, place) = (position + 1, row * heads.query + kv * group);
        // SAFETY: tasks have different rows or different heads.
        unsafe { Job { keys, values, queries, heads, tokens, seen, out: &out, lse: None, place }.run() };
    });
}

/// One head's keys, transposed, or values, in tiles of sixteen tokens: one after the other, or in pages.
#[derive(Clone, Copy)]
pub struct Tiles<'a> {
    pub data: &'a [f32],
    /// Where the head begins within a tile, and how far it is from one tile to the next.
    pub at: usize,
    pub step: usize,
    /// From one token's values to the next one's.
    pub row: usize,
    pub pages: Option<&'a [u32]>,
}

// A page is a tile.
const _: () = assert!(KV_PAGE == LANES);

impl<'a> Tiles<'a> {
    /// From the first token of tile `i` on.
    #[inline(always)]
    fn tile(self, i: usize) -> &'a [f32] {
        let i = self.pages.map_or(i, |pages| pages[i] as usize);
        &self.data[i * self.step + self.at..]
    }
}

/// Parts of rows: row i starts at element `i · width`.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [f32],
    width: usize,
}

/// Queries of some tokens and of the heads that share one key/value head.
struct Job<'a> {
    keys: Tiles<'a>,
    values: Tiles<'a>,
    /// The group's queries, one after the other.
    queries: Rows<'a>,
    heads: Heads,
    tokens: usize,
    /// Keys that the first token sees; each sees one more.
    seen: usize,
    out: &'a Shared<'a>,
    lse: Option<&'a Shared<'a>>,
    /// The first token's first head among all heads of all tokens: where results go.
    place: usize,
}

impl Job<'_> {
    /// # Safety
    /// No other job has the same heads of the same tokens.
    unsafe fn run(&self) {
        // Whole vectors of the usual widths have code of their own.
        match self.heads.dim {
            16 => attend::<1, 1>(self),
            32 => attend::<2, 1>(self),
            64 => attend::<4, 1>(self),
            128 => attend::<8, 1>(self),
            0..16 => attend::<1, 0>(self),
            17..64 => attend::<4, 0>(self),
            _ => attend::<MAX_HEAD_VECTORS, 0>(self),
        }
    }
}

kernel! {
    /// Heads of up to `VECTORS · 16` dimensions, of just so many where `EXACT` is 1.
    fn attend<const VECTORS: usize, const EXACT: usize>(job: &Job<'_>) = attend_body;
}

#[inline(always)]
fn attend_body<S: Simd, const VECTORS: usize, const EXACT: usize>(s: S, job: &Job<'_>) {
    let dim = if EXACT == 1 { VECTORS * LANES } else { job.heads.dim };
    let (mut pair, pairs) = (0, job.tokens * job.heads.group());
    while pairs - pair >= QUERIES {
        queries::<S, QUERIES, VECTORS>(s, job, pair, dim);
        pair += QUERIES;
    }
    // A token decoded alone has no more than its group.
    if pairs - pair >= 2 {
        queries::<S, 2, VECTORS>(s, job, pair, dim);
        pair += 2;
    }
    if pair < pairs {
        queries::<S, 1, VECTORS>(s, job, pair, dim);
    }
}

/// R queries from `pair` on, where a pair is a token and a head of the group.
// Indices name a query, a tile and a vector in several arrays at once.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn queries<S: Simd, const R: usize, const VECTORS: usize>(s: S, job: &Job<'_>, pair: usize, dim: usize) {
    let group = job.heads.group();
    let mut query = [&job.queries.data[..0]; R];
    let (mut seen, mut place) = ([0; R], [0; R]);
    for r in 0..R {
        let (token, head) = ((pair + r) / group, (pair + r) % group);
        query[r] = &job.queries.data[token * job.queries.width + head * dim..][..dim];
        seen[r] = job.seen + token;
        place[r] = job.place + token * job.heads.query + head;
    }
    let longest = seen[R - 1];
    let scale = s.splat(1.0 / (dim as f32).sqrt());
    assert!(dim <= VECTORS * LANES);
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
            let keys = &job.keys.tile(at / LANES)[..LANES * dim];
            let mut dot = [s.zero(); R];
            for d in 0..dim {
                let key = s.load(keys, d * LANES);
                for r in 0..R {
                    dot[r] = s.fma(s.splat(query[r][d]), key, dot[r]);
                }
            }
            for r in 0..R {
                let live = seen[r].saturating_sub(at).min(LANES);
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
            if first > 0 {
                // A block with no live key changes nothing.
                let fade = s.exp(s.splat(top[r] - high));
                total[r] = s.mul(total[r], fade);
                for v in 0..vectors {
                    acc[r][v] = s.mul(acc[r][v], fade);
                }
            }
            top[r] = high;
            for tile in 0..tiles {
                let p = s.exp(s.sub(scores[r][tile], s.splat(high)));
                total[r] = s.add(total[r], p);
                s.store(&mut weights[r], tile * LANES, p);
            }
        }
        for tile in 0..tiles {
            let held = job.values.tile(first / LANES + tile);
            for j in 0..(longest - first - tile * LANES).min(LANES) {
                let value = &held[j * job.values.row..][..dim];
                for v in 0..vectors {
                    let value = s.load_n(value, v * LANES, lanes(v));
                    for r in 0..R {
                        acc[r][v] = s.fma(s.splat(weights[r][tile * LANES + j]), value, acc[r][v]);
                    }
                }
            }
        }
    }
    for r in 0..R {
        let sum = s.sum(total[r]);
        let inverse = s.splat(1.0 / sum);
        // SAFETY: the caller of `run` promises that nobody else has this head of this token.
        let out = unsafe { job.out.range(place[r] * dim..(place[r] + 1) * dim) };
        for (at, n) in steps(dim) {
            s.store_n(out, at, n, s.mul(acc[r][at / LANES], inverse));
        }
        if let Some(lse) = job.lse {
            // SAFETY: as above.
            let lse = unsafe { lse.range(place[r]..place[r] + 1) };
            lse[0] = top[r] + sum.ln();
        }
    }
}
