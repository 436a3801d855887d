//! Gradient norm, AdamW and Muon.

use super::gemm::{Lhs, Rhs, gemm, pack, packed_len};
use super::simd::{Simd, kernel, steps};
use super::{AdamW, Cpu, Muon, Shared, scratch};

/// Elements summed together: fixed, so that threads change nothing.
const CHUNK: usize = 1 << 14;

/// `sum += term`.
pub fn add(cpu: &Cpu, sum: &mut [f32], term: &[f32]) {
    cpu.chunks_mut(sum, CHUNK, term.len(), |i, sum| {
        sum.iter_mut().zip(&term[i * CHUNK..]).for_each(|(sum, term)| *sum += term);
    });
}

/// Σ x² in f64 over chunks summed in f32 lanes.
pub fn square_sum(cpu: &Cpu, x: &[f32]) -> f64 {
    let mut sums = vec![0.0; x.len().div_ceil(CHUNK)];
    cpu.chunks_mut(&mut sums, 1, x.len() / 4, |i, sum| {
        sum[0] = square_sum_of(&x[i * CHUNK..x.len().min((i + 1) * CHUNK)]);
    });
    sums.into_iter().map(f64::from).sum()
}

kernel! { fn square_sum_of(x: &[f32]) -> f32 = square_sum_body; }

#[inline(always)]
fn square_sum_body<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sum = s.zero();
    for (at, n) in steps(x.len()) {
        let v = s.load_n(x, at, n);
        sum = s.fma(v, v, sum);
    }
    s.sum(sum)
}

/// m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g²,
/// w ← w (1 − lr λ) − lr m̂ / (√v̂ + ε), with hats for the bias corrections.
pub fn adamw(cpu: &Cpu, value: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32], rule: &AdamW) {
    let corrections = [rule.beta1, rule.beta2].map(|b| 1.0 - f64::from(b).powf(rule.step as f64));
    let step = (f64::from(rule.lr) / corrections[0]) as f32;
    let root = (1.0 / corrections[1].sqrt()) as f32;
    let (first, second) = (Shared::new(first), Shared::new(second));
    cpu.chunks_mut(value, CHUNK, grad.len() * 2, |i, value| {
        let span = i * CHUNK..i * CHUNK + value.len();
        // SAFETY: chunks do not overlap.
        let (first, second) = unsafe { (first.range(span.clone()), second.range(span.clone())) };
        adamw_chunk(value, &grad[span], first, second, *rule, step, root);
    });
}

kernel! {
    fn adamw_chunk(
        value: &mut [f32], grad: &[f32], first: &mut [f32], second: &mut [f32], rule: AdamW, step: f32, root: f32,
    ) = adamw_body;
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn adamw_body<S: Simd>(
    s: S,
    value: &mut [f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    rule: AdamW,
    step: f32,
    root: f32,
) {
    let (keep1, add1) = (s.splat(rule.beta1), s.splat(1.0 - rule.beta1));
    let (keep2, add2) = (s.splat(rule.beta2), s.splat(1.0 - rule.beta2));
    let (decay, scale) = (s.splat(1.0 - rule.lr * rule.weight_decay), s.splat(rule.grad_scale));
    let (step, root, eps) = (s.splat(-step), s.splat(root), s.splat(rule.eps));
    for (at, n) in steps(value.len()) {
        let g = s.mul(s.load_n(grad, at, n), scale);
        let m = s.fma(keep1, s.load_n(first, at, n), s.mul(add1, g));
        let v = s.fma(keep2, s.load_n(second, at, n), s.mul(add2, s.mul(g, g)));
        s.store_n(first, at, n, m);
        s.store_n(second, at, n, v);
        let ratio = s.div(m, s.fma(s.sqrt(v), root, eps));
        let w = s.fma(step, ratio, s.mul(s.load_n(value, at, n), decay));
        s.store_n(value, at, n, w);
    }
}

/// Coefficients of the quintic Newton–Schulz iteration (Jordan 2024).
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];

/// m ← μ m + (1 − μ) g; u = m, or (1 − μ) g + μ m with Nesterov;
/// w ← w (1 − lr λ) − lr √max(1, rows/cols) · NewtonSchulz(u).
pub fn muon(
    cpu: &Cpu,
    value: &mut [f32],
    grad: &[f32],
    momentum: &mut [f32],
    (rows, cols): (usize, usize),
    rule: &Muon,
) {
    let len = rows * cols;
    scratch(len, |update| {
        momentum_chunk(update, momentum, grad, rule.momentum, rule.grad_scale, rule.nesterov);
        if rows > cols {
            scratch(len, |flipped| {
                transpose(update, cols, flipped);
                orthogonalise(cpu, flipped, (cols, rows), rule.iterations);
                transpose(flipped, rows, update);
            });
        } else {
            orthogonalise(cpu, update, (rows, cols), rule.iterations);
        }
        let step = -rule.lr * (rows as f32 / cols as f32).max(1.0).sqrt();
        let decay = 1.0 - rule.lr * rule.weight_decay;
        descend(value, update, step, decay);
    });
}

kernel! {
    /// m ← μ m + (1 − μ) s g, and u as [`muon`] says.
    fn momentum_chunk(update: &mut [f32], momentum: &mut [f32], grad: &[f32], mu: f32, scale: f32, nesterov: bool)
        = momentum_body;
}

#[inline(always)]
fn momentum_body<S: Simd>(
    s: S,
    update: &mut [f32],
    momentum: &mut [f32],
    grad: &[f32],
    mu: f32,
    scale: f32,
    nesterov: bool,
) {
    let (keep, add, scale) = (s.splat(mu), s.splat(1.0 - mu), s.splat(scale));
    for (at, n) in steps(update.len()) {
        let g = s.mul(add, s.mul(s.load_n(grad, at, n), scale));
        let m = s.fma(keep, s.load_n(momentum, at, n), g);
        s.store_n(momentum, at, n, m);
        s.store_n(update, at, n, if nesterov { s.fma(keep, m, g) } else { m });
    }
}

kernel! {
    /// w ← w · decay + step · u.
    fn descend(value: &mut [f32], update: &[f32], step: f32, decay: f32) = descend_body;
}

#[inline(always)]
fn descend_body<S: Simd>(s: S, value: &mut [f32], update: &[f32], step: f32, decay: f32) {
    let (step, decay) = (s.splat(step), s.splat(decay));
    for (at, n) in steps(value.len()) {
        let w = s.mul(s.load_n(value, at, n), decay);
        s.store_n(value, at, n, s.fma(step, s.load_n(update, at, n), w));
    }
}

kernel! {
    /// x ← a x + b y.
    fn combine(x: &mut [f32], a: f32, y: &[f32], b: f32) = combine_body;
}

#[inline(always)]
fn combine_body<S: Simd>(s: S, x: &mut [f32], a: f32, y: &[f32], b: f32) {
    let (a, b) = (s.splat(a), s.splat(b));
    for (at, n) in steps(x.len()) {
        let y = s.mul(b, s.load_n(y, at, n));
        s.store_n(x, at, n, s.fma(a, s.load_n(x, at, n), y));
    }
}

/// `to[j, i] = from[i, j]`, from having `cols` columns.
fn transpose(from: &[f32], cols: usize, to: &mut [f32]) {
    let rows = from.len() / cols;
    for (i, row) in from.chunks_exact(cols).enumerate() {
        row.iter().enumerate().for_each(|(j, &x)| to[j * rows + i] = x);
    }
}

/// X ← a X + (b A + c A²) X with A = X Xᵀ, from X / ‖X‖: drives singular values towards 1.
fn orthogonalise(cpu: &Cpu, x: &mut [f32], (rows, cols): (usize, usize), iterations: u32) {
    let norm = square_sum(cpu, x).sqrt() as f32 + 1e-7;
    x.iter_mut().for_each(|x| *x /= norm);
    let [a, b, c] = QUINTIC;
    scratch(2 * rows * rows + packed_len(rows, cols) + rows * cols, |buffer| {
        let (gram, rest) = buffer.split_at_mut(rows * rows);
        let (poly, rest) = rest.split_at_mut(rows * rows);
        let (panels, next) = rest.split_at_mut(packed_len(rows, cols));
        for _ in 0..iterations {
            pack(cpu, x, rows, cols, panels);
            let lhs = Lhs { data: x, row: cols, col: 1 };
            gemm(cpu, (rows, rows, cols), lhs, Rhs::Panels { data: panels }, gram, rows, false);
            let square = Lhs { data: gram, row: rows, col: 1 };
            gemm(cpu, (rows, rows, rows), square, Rhs::Rows { data: gram, row: rows }, poly, rows, false);
            combine(poly, c, gram, b);
            let lhs = Lhs { data: poly, row: rows, col: 1 };
            gemm(cpu, (rows, cols, rows), lhs, Rhs::Rows { data: x, row: cols }, next, cols, false);
            combine(x, a, next, 1.0);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Rng;

    #[test]
    fn adamw_takes_the_papers_first_step() {
        let rule = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.5, step: 1, grad_scale: 2.0 };
        let (mut w, mut m, mut v) = (vec![1.0; 20], vec![0.0; 20], vec![0.0; 20]);
        adamw(&Cpu::new(), &mut w, &[3.0; 20], &mut m, &mut v, &rule);
        // The first step is lr · sign(g) after decay.
        assert!(w.iter().all(|w| (w - (0.95 - 0.1)).abs() < 1e-6), "{w:?}");
        assert!(m.iter().all(|m| (m - 0.6).abs() < 1e-6) && v.iter().all(|v| (v - 0.36).abs() < 1e-5));
    }

    #[test]
    fn muon_moves_along_an_almost_orthogonal_matrix() {
        for (rows, cols) in [(24, 40), (40, 24)] {
            let mut rng = Rng::new(3);
            let grad: Vec<f32> = (0..rows * cols).map(|_| rng.normal() as f32).collect();
            let (mut w, mut m) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
            let rule =
                Muon { lr: -1.0, momentum: 0.9, nesterov: true, weight_decay: 0.0, iterations: 8, grad_scale: 1.0 };
            muon(&Cpu::new(), &mut w, &grad, &mut m, (rows, cols), &rule);
            // ‖update‖² is the sum of squared singular values, each in about (0.7, 1.2).
            let scale = (rows as f64 / cols as f64).max(1.0);
            let mean = square_sum(&Cpu::new(), &w) / scale / 24.0;
            assert!((0.5..1.45).contains(&mean), "{mean}");
        }
    }
}
