//! Qwen3's norm of every query and key head: RMSNorm over the head's dimensions.

use super::rms_norm::{norm_rows, norm_rows_backward};
use super::{Cpu, Heads, Shared, scratch};

/// Rows whose part of the weight gradients is summed together.
const CHUNK: usize = 256;

/// Normalises query and key heads in place; keeps what they were.
#[allow(clippy::too_many_arguments)]
pub fn forward(
    cpu: &Cpu,
    qkv: &mut [f32],
    before: &mut [f32],
    weights: (&[f32], &[f32]),
    heads: Heads,
    rows: usize,
    eps: f32,
    rstd: &mut [f32],
) {
    let (width, normed, query) = (heads.qkv_width(), heads.query + heads.kv, heads.query * heads.dim);
    let both = normed * heads.dim;
    let (qkv, before, rstd) = (Shared::new(qkv), Shared::new(before), Shared::new(rstd));
    cpu.rows(rows, rows * width, |r| {
        let span = r.start * width..r.end * width;
        // SAFETY: tasks have different rows.
        let (qkv, before, rstd) =
            unsafe { (qkv.range(span.clone()), before.range(span), rstd.range(r.start * normed..r.end * normed)) };
        before.copy_from_slice(qkv);
        for ((x, y), rstd) in
            before.chunks_exact(width).zip(qkv.chunks_exact_mut(width)).zip(rstd.chunks_exact_mut(normed))
        {
            let (q_rstd, k_rstd) = rstd.split_at_mut(heads.query);
            norm_rows(&x[..query], weights.0, eps, &mut y[..query], q_rstd);
            norm_rows(&x[query..both], weights.1, eps, &mut y[query..both], k_rstd);
        }
    });
}

/// Turns the gradient of normalised rows into that of the rows before, in place.
#[allow(clippy::too_many_arguments)]
pub fn backward(
    cpu: &Cpu,
    dqkv: &mut [f32],
    before: &[f32],
    weights: (&[f32], &[f32]),
    rstd: &[f32],
    heads: Heads,
    rows: usize,
    dweights: (&mut Vec<f32>, &mut Vec<f32>),
) {
    let (width, normed, query, dim) = (heads.qkv_width(), heads.query + heads.kv, heads.query * heads.dim, heads.dim);
    let both = normed * dim;
    let chunks = rows.div_ceil(CHUNK);
    let dqkv = Shared::new(dqkv);
    scratch(chunks * 2 * dim, |partial| {
        partial.fill(0.0);
        cpu.chunks_mut(partial, 2 * dim, rows * width, |chunk, partial| {
            let (dq, dk) = partial.split_at_mut(dim);
            for row in chunk * CHUNK..rows.min((chunk + 1) * CHUNK) {
                // SAFETY: chunks have different rows.
                let d = unsafe { dqkv.range(row * width..row * width + both) };
                let x = &before[row * width..][..both];
                let (q_rstd, k_rstd) = rstd[row * normed..(row + 1) * normed].split_at(heads.query);
                scratch(both, |dx| {
                    dx.fill(0.0);
                    norm_rows_backward(&d[..query], &x[..query], weights.0, q_rstd, &mut dx[..query], dq);
                    norm_rows_backward(&d[query..], &x[query..], weights.1, k_rstd, &mut dx[query..], dk);
                    d.copy_from_slice(dx);
                });
            }
        });
        for partial in partial.chunks_exact(2 * dim) {
            let (q, k) = partial.split_at(dim);
            dweights.0.iter_mut().zip(q).for_each(|(d, p)| *d += p);
            dweights.1.iter_mut().zip(k).for_each(|(d, p)| *d += p);
        }
    });
}
