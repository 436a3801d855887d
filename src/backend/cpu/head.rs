//! The head: log-probabilities, entropies and their gradients from tiles of the
//! vocabulary projection. Logits are held whole only where they are no more than the
//! backward pass holds at once anyway.
//!
//! A row's log-sum-exp is taken online over tiles of [`TILE`] tokens. Tiles do not
//! depend on the batch, so neither does a row. With p = e^(z − lse), entropy
//! H = lse − Σ p z, and derivatives g by logprob and h by entropy:
//! dz\[j\] = g (1\[j = target\] − p\[j\]) − h p\[j\] (log p\[j\] + H).

use super::gemm::{Lhs, Rhs, gemm, packed_len};
use super::simd::{Simd, kernel, steps};
use super::{Cpu, Param, Shared, scratch};

/// Tokens of the vocabulary in a tile; a multiple of the GEMM's panel.
pub const TILE: usize = 2048;
/// Rows a task projects at once: a tile of logits stays in the second-level cache.
const ROWS: usize = 96;
/// Logits held at once in the backward pass, where dw sums over rows.
const HELD: usize = 1 << 20;

/// A softmax seen tile by tile.
#[derive(Clone, Copy)]
pub struct Softmax {
    max: f32,
    /// Σ e^(z − max).
    sum: f32,
    /// Σ e^(z − max) z.
    weighted: f32,
}

impl Softmax {
    pub const EMPTY: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };

    /// log Σ e^z.
    pub fn lse(&self) -> f32 {
        self.max + self.sum.ln()
    }

    /// −Σ p log p.
    pub fn entropy(&self) -> f32 {
        (self.lse() - self.weighted / self.sum).max(0.0)
    }

    /// The softmax of a whole row, tile by tile.
    pub fn of(row: &[f32]) -> Self {
        row.chunks(TILE).fold(Softmax::EMPTY, |softmax, tile| softmax.join(tile))
    }

    /// The softmax with one more tile.
    pub fn join(self, tile: &[f32]) -> Self {
        let high = max(tile).max(self.max);
        let fade = (self.max - high).exp();
        let (sum, weighted) = sums(tile, high);
        Softmax { max: high, sum: self.sum * fade + sum, weighted: self.weighted * fade + weighted }
    }
}

kernel! { fn max(row: &[f32]) -> f32 = max_body; }
kernel! { fn sums(row: &[f32], high: f32) -> (f32, f32) = sums_body; }
kernel! { fn seed(row: &mut [f32], lse: f32, entropy: f32, g: f32, h: f32) = seed_body; }

#[inline(always)]
fn max_body<S: Simd>(s: S, row: &[f32]) -> f32 {
    let mut high = s.splat(f32::NEG_INFINITY);
    let whole = row.len() / 16 * 16;
    for (at, _) in steps(whole) {
        high = s.max(high, s.load(row, at));
    }
    row[whole..].iter().fold(s.max_lane(high), |high, &x| if x > high { x } else { high })
}

#[inline(always)]
fn sums_body<S: Simd>(s: S, row: &[f32], high: f32) -> (f32, f32) {
    let (mut sum, mut weighted) = (s.zero(), s.zero());
    let high = s.splat(high);
    for (at, n) in steps(row.len()) {
        let z = s.load_n(row, at, n);
        let mut e = s.exp(s.sub(z, high));
        if n < 16 {
            let mut lanes = s.lanes(e);
            lanes[n..].fill(0.0);
            e = s.load(&lanes, 0);
        }
        sum = s.add(sum, e);
        weighted = s.fma(e, z, weighted);
    }
    (s.sum(sum), s.sum(weighted))
}

/// dz of every token as if none were the target.
#[inline(always)]
fn seed_body<S: Simd>(s: S, row: &mut [f32], lse: f32, entropy: f32, g: f32, h: f32) {
    let (lse, entropy, g, h) = (s.splat(lse), s.splat(entropy), s.splat(-g), s.splat(-h));
    for (at, n) in steps(row.len()) {
        let log_p = s.sub(s.load_n(row, at, n), lse);
        let p = s.exp(log_p);
        let d = s.mul(p, s.fma(h, s.add(log_p, entropy), g));
        s.store_n(row, at, n, d);
    }
}

/// Scratch memory of the backward pass, in bytes.
pub fn scratch_bytes(vocab: usize) -> usize {
    let wide = TILE.min(vocab);
    4 * (HELD / wide).max(ROWS) * wide
}

/// Logits that the forward pass keeps for the backward pass: those of one tile, if they are few.
pub fn kept_logits(rows: usize, vocab: usize) -> usize {
    if vocab <= TILE && rows * vocab <= HELD { rows * vocab } else { 0 }
}

/// Tiles of the vocabulary: first token and number of tokens.
fn tiles(vocab: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..vocab).step_by(TILE).map(move |first| (first, TILE.min(vocab - first)))
}

/// Logits of rows of x for one tile, on this thread.
fn project(x: &[f32], w: &Param<Cpu>, (first, n): (usize, usize), rows: usize, logits: &mut [f32]) {
    let k = w.cols;
    let panels = &w.ready[packed_len(first, k)..];
    let x = Lhs { data: x, row: k, col: 1 };
    gemm(&Cpu::serial(), (rows, n, k), x, Rhs::Panels { data: panels }, logits, n, false);
}

/// Whether there is room for the logits of one tile.
fn keeps(kept: &[f32], rows: usize, vocab: usize) -> bool {
    vocab <= TILE && kept.len() >= rows * vocab
}

/// Scores `targets.len()` rows, and keeps their logits where there is room.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    cpu: &Cpu,
    x: &[f32],
    w: &Param<Cpu>,
    targets: &[u32],
    logprob: &mut [f32],
    entropy: &mut [f32],
    lse: &mut [f32],
    kept: &mut [f32],
) {
    let (rows, vocab, k) = (targets.len(), w.rows, w.cols);
    let keeps = keeps(kept, rows, vocab);
    let each = ROWS.min(rows.div_ceil(cpu.threads()).next_multiple_of(12));
    let (logprob, entropy, lse) = (Shared::new(logprob), Shared::new(entropy), Shared::new(lse));
    let kept = Shared::new(kept);
    cpu.tasks(rows.div_ceil(each), rows * vocab * k / 8, |task| {
        let span = task * each..rows.min((task + 1) * each);
        // SAFETY: tasks have different rows.
        let (logprob, entropy, lse) =
            unsafe { (logprob.range(span.clone()), entropy.range(span.clone()), lse.range(span.clone())) };
        let (x, targets) = (&x[span.start * k..span.end * k], &targets[span.clone()]);
        let mut softmax = [Softmax::EMPTY; ROWS];
        scratch(if keeps { 0 } else { span.len() * TILE.min(vocab) }, |logits| {
            // SAFETY: as above.
            let logits = if keeps { unsafe { kept.range(span.start * vocab..span.end * vocab) } } else { logits };
            for (first, n) in tiles(vocab) {
                project(x, w, (first, n), targets.len(), logits);
                for (row, logits) in logits[..targets.len() * n].chunks_exact(n).enumerate() {
                    softmax[row] = softmax[row].join(logits);
                    if let Some(z) = (targets[row] as usize).checked_sub(first).and_then(|j| logits.get(j)) {
                        logprob[row] = *z;
                    }
                }
            }
        });
        for (row, softmax) in softmax[..targets.len()].iter().enumerate() {
            lse[row] = softmax.lse();
            entropy[row] = softmax.entropy();
            logprob[row] -= lse[row];
        }
    });
}

/// What seeds the backward pass, for each row.
pub struct Seeds<'a> {
    pub targets: &'a [u32],
    pub entropy: &'a [f32],
    pub lse: &'a [f32],
    pub grad_logprob: &'a [f32],
    pub grad_entropy: Option<&'a [f32]>,
}

/// `dx = dz w`, `dw += dzᵀ x` if it is asked for; logits that were kept become dz.
pub fn backward(
    cpu: &Cpu,
    x: &[f32],
    w: &Param<Cpu>,
    seeds: &Seeds,
    kept: &mut [f32],
    dx: &mut [f32],
    mut dw: Option<&mut [f32]>,
) {
    let (rows, vocab, k) = (seeds.targets.len(), w.rows, w.cols);
    let wide = TILE.min(vocab);
    let keeps = keeps(kept, rows, vocab);
    let held = if keeps { rows } else { (HELD / wide).max(ROWS) };
    let each = ROWS.min(rows.div_ceil(cpu.threads()).next_multiple_of(12));
    scratch(if keeps { 0 } else { held.min(rows) * wide }, |dz| {
        let dz = if keeps { kept } else { dz };
        for start in (0..rows).step_by(held.max(1)) {
            let end = rows.min(start + held);
            for tile in tiles(vocab) {
                let n = tile.1;
                let (out, shared) = (Shared::new(dx), Shared::new(dz));
                cpu.tasks((end - start).div_ceil(each), (end - start) * n * k / 4, |task| {
                    let span = start + task * each..end.min(start + (task + 1) * each);
                    // SAFETY: tasks have different rows.
                    let (dx, dz) = unsafe {
                        (
                            out.range(span.start * k..span.end * k),
                            shared.range((span.start - start) * n..(span.end - start) * n),
                        )
                    };
                    if !keeps {
                        project(&x[span.start * k..span.end * k], w, tile, span.len(), dz);
                    }
                    for (row, dz) in span.clone().zip(dz.chunks_exact_mut(n)) {
                        let g = seeds.grad_logprob[row];
                        let h = seeds.grad_entropy.map_or(0.0, |h| h[row]);
                        seed(dz, seeds.lse[row], seeds.entropy[row], g, h);
                        let target = (seeds.targets[row] as usize).checked_sub(tile.0);
                        if let Some(z) = target.and_then(|j| dz.get_mut(j)) {
                            *z += g;
                        }
                    }
                    let weights = Rhs::Rows { data: &w.value[tile.0 * k..], row: k };
                    let a = Lhs { data: dz, row: n, col: 1 };
                    gemm(&Cpu::serial(), (span.len(), k, n), a, weights, dx, k, tile.0 > 0);
                });
                if let Some(dw) = dw.as_deref_mut() {
                    let a = Lhs { data: dz, row: 1, col: n };
                    let b = Rhs::Rows { data: &x[start * k..], row: k };
                    gemm(cpu, (n, k, end - start), a, b, &mut dw[tile.0 * k..], k, true);
                }
            }
        }
    });
}
