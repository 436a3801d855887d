//! RMSNorm, alone and with the residual sum before it.
//!
//! y = x̂ · w with x̂ = x · rstd and rstd = 1/√(mean x² + ε). Backward, for g = dy · w:
//! dx = rstd (g − x̂ · mean(g · x̂)), dw = Σ_rows dy · x̂.

use super::simd::{Simd, kernel, steps};
use super::{Cpu, Shared, scratch};

/// Rows whose part of dw is summed together: fixed, so that threads change nothing.
const CHUNK: usize = 256;

/// `y = rms_norm(x)`.
pub fn forward(cpu: &Cpu, x: &[f32], weight: &[f32], rows: usize, eps: f32, y: &mut [f32], rstd: &mut [f32]) {
    let width = weight.len();
    let (y, rstd) = (Shared::new(y), Shared::new(rstd));
    cpu.rows(rows, rows * width, |r| {
        let span = r.start * width..r.end * width;
        // SAFETY: tasks have different rows.
        let (y, rstd) = unsafe { (y.range(span.clone()), rstd.range(r)) };
        norm_rows(&x[span], weight, eps, y, rstd);
    });
}

/// `sum = x + delta`, `y = rms_norm(sum)`.
#[allow(clippy::too_many_arguments)]
pub fn forward_add(
    cpu: &Cpu,
    x: &[f32],
    delta: &[f32],
    weight: &[f32],
    rows: usize,
    eps: f32,
    sum: &mut [f32],
    y: &mut [f32],
    rstd: &mut [f32],
) {
    let width = weight.len();
    let (sum, y, rstd) = (Shared::new(sum), Shared::new(y), Shared::new(rstd));
    cpu.rows(rows, rows * width, |r| {
        let span = r.start * width..r.end * width;
        // SAFETY: tasks have different rows.
        let (sum, y, rstd) = unsafe { (sum.range(span.clone()), y.range(span.clone()), rstd.range(r)) };
        add_norm_rows(&x[span.clone()], &delta[span], weight, eps, sum, y, rstd);
    });
}

/// `dx += ∂/∂x`, `dweight += ∂/∂w`.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    cpu: &Cpu,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    rows: usize,
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    let chunks = rows.div_ceil(CHUNK);
    let dx = Shared::new(dx);
    scratch(chunks * width, |partial| {
        partial.fill(0.0);
        cpu.chunks_mut(partial, width, rows * width, |chunk, partial| {
            let r = chunk * CHUNK..rows.min((chunk + 1) * CHUNK);
            let span = r.start * width..r.end * width;
            // SAFETY: chunks have different rows.
            let dx = unsafe { dx.range(span.clone()) };
            norm_rows_backward(&dy[span.clone()], &x[span], weight, &rstd[r], dx, partial);
        });
        for partial in partial.chunks_exact(width) {
            dweight.iter_mut().zip(partial).for_each(|(d, p)| *d += p);
        }
    });
}

kernel! {
    /// Rows of `weight.len()` elements, normalised.
    pub fn norm_rows(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], rstd: &mut [f32]) = norm_rows_body;
}
kernel! {
    fn add_norm_rows(
        x: &[f32], delta: &[f32], weight: &[f32], eps: f32, sum: &mut [f32], y: &mut [f32], rstd: &mut [f32],
    ) = add_norm_rows_body;
}
kernel! {
    /// `dx += …`, `dweight += …` for rows of `weight.len()` elements.
    pub fn norm_rows_backward(
        dy: &[f32], x: &[f32], weight: &[f32], rstd: &[f32], dx: &mut [f32], dweight: &mut [f32],
    ) = norm_rows_backward_body;
}

#[inline(always)]
fn norm_rows_body<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], rstd: &mut [f32]) {
    let width = weight.len();
    for ((x, y), rstd) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(rstd) {
        let mut squares = s.zero();
        for (at, n) in steps(width) {
            let v = s.load_n(x, at, n);
            squares = s.fma(v, v, squares);
        }
        *rstd = 1.0 / (s.sum(squares) / width as f32 + eps).sqrt();
        scale(s, x, *rstd, weight, y);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn add_norm_rows_body<S: Simd>(
    s: S,
    x: &[f32],
    delta: &[f32],
    weight: &[f32],
    eps: f32,
    sum: &mut [f32],
    y: &mut [f32],
    rstd: &mut [f32],
) {
    let width = weight.len();
    for (row, rstd) in rstd.iter_mut().enumerate() {
        let span = row * width..(row + 1) * width;
        let (x, delta) = (&x[span.clone()], &delta[span.clone()]);
        let sum = &mut sum[span.clone()];
        let mut squares = s.zero();
        for (at, n) in steps(width) {
            let v = s.add(s.load_n(x, at, n), s.load_n(delta, at, n));
            s.store_n(sum, at, n, v);
            squares = s.fma(v, v, squares);
        }
        *rstd = 1.0 / (s.sum(squares) / width as f32 + eps).sqrt();
        scale(s, sum, *rstd, weight, &mut y[span]);
    }
}

/// `y = (x · rstd) · weight`.
#[inline(always)]
fn scale<S: Simd>(s: S, x: &[f32], rstd: f32, weight: &[f32], y: &mut [f32]) {
    let rstd = s.splat(rstd);
    for (at, n) in steps(weight.len()) {
        let v = s.mul(s.mul(s.load_n(x, at, n), rstd), s.load_n(weight, at, n));
        s.store_n(y, at, n, v);
    }
}

#[inline(always)]
fn norm_rows_backward_body<S: Simd>(
    s: S,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    rstd: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    for (row, &rstd) in rstd.iter().enumerate() {
        let span = row * width..(row + 1) * width;
        let (dy, x, dx) = (&dy[span.clone()], &x[span.clone()], &mut dx[span]);
        let r = s.splat(rstd);
        let mut dot = s.zero();
        for (at, n) in steps(width) {
            let (d, hat) = (s.load_n(dy, at, n), s.mul(s.load_n(x, at, n), r));
            dot = s.fma(s.mul(d, s.load_n(weight, at, n)), hat, dot);
            let sum = s.fma(d, hat, s.load_n(dweight, at, n));
            s.store_n(dweight, at, n, sum);
        }
        let mean = s.splat(s.sum(dot) / width as f32);
        for (at, n) in steps(width) {
            let g = s.mul(s.load_n(dy, at, n), s.load_n(weight, at, n));
            let hat = s.mul(s.load_n(x, at, n), r);
            let d = s.sub(g, s.mul(hat, mean));
            let d = s.fma(r, d, s.load_n(dx, at, n));
            s.store_n(dx, at, n, d);
        }
    }
}
