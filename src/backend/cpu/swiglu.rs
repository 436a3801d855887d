//! SwiGLU: out = silu(g) · u with silu(g) = g σ(g); rows hold g then u.
//!
//! Backward: du = dout g σ, dg = dout u σ (1 + g (1 − σ)).

use super::simd::{Simd, kernel, steps};
use super::{Cpu, Shared};

/// `out [rows, width]` of `gate_up [rows, 2 width]`.
pub fn forward(cpu: &Cpu, gate_up: &[f32], width: usize, rows: usize, out: &mut [f32]) {
    let out = Shared::new(out);
    cpu.rows(rows, rows * width * 4, |r| {
        // SAFETY: tasks have different rows.
        let out = unsafe { out.range(r.start * width..r.end * width) };
        forward_rows(&gate_up[r.start * 2 * width..r.end * 2 * width], width, out);
    });
}

/// `dgate_up [rows, 2 width]`.
pub fn backward(cpu: &Cpu, dout: &[f32], gate_up: &[f32], width: usize, rows: usize, dgate_up: &mut [f32]) {
    let dgate_up = Shared::new(dgate_up);
    cpu.rows(rows, rows * width * 4, |r| {
        let span = r.start * 2 * width..r.end * 2 * width;
        // SAFETY: tasks have different rows.
        let d = unsafe { dgate_up.range(span.clone()) };
        backward_rows(&dout[r.start * width..r.end * width], &gate_up[span], width, d);
    });
}

kernel! { fn forward_rows(gate_up: &[f32], width: usize, out: &mut [f32]) = forward_body; }
kernel! { fn backward_rows(dout: &[f32], gate_up: &[f32], width: usize, d: &mut [f32]) = backward_body; }

#[inline(always)]
fn sigmoid<S: Simd>(s: S, g: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, s.exp(s.sub(s.zero(), g))))
}

#[inline(always)]
fn forward_body<S: Simd>(s: S, gate_up: &[f32], width: usize, out: &mut [f32]) {
    for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
        let (gate, up) = row.split_at(width);
        for (at, n) in steps(width) {
            let g = s.load_n(gate, at, n);
            let v = s.mul(s.mul(g, sigmoid(s, g)), s.load_n(up, at, n));
            s.store_n(out, at, n, v);
        }
    }
}

#[inline(always)]
fn backward_body<S: Simd>(s: S, dout: &[f32], gate_up: &[f32], width: usize, d: &mut [f32]) {
    let one = s.splat(1.0);
    for ((row, d), dout) in
        gate_up.chunks_exact(2 * width).zip(d.chunks_exact_mut(2 * width)).zip(dout.chunks_exact(width))
    {
        let (gate, up) = row.split_at(width);
        let (dgate, dup) = d.split_at_mut(width);
        for (at, n) in steps(width) {
            let (g, u, o) = (s.load_n(gate, at, n), s.load_n(up, at, n), s.load_n(dout, at, n));
            let sigma = sigmoid(s, g);
            let slope = s.mul(sigma, s.fma(g, s.sub(one, sigma), one));
            s.store_n(dgate, at, n, s.mul(s.mul(o, u), slope));
            s.store_n(dup, at, n, s.mul(o, s.mul(g, sigma)));
        }
    }
}
