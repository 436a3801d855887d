//! Rows gathered by index, and gradients scattered back.

use super::{Cpu, Shared};

/// `out[t] = table[index[t]]`.
pub fn forward(cpu: &Cpu, table: &[f32], width: usize, index: &[u32], out: &mut [f32]) {
    let out = Shared::new(out);
    cpu.rows(index.len(), index.len() * width / 4, |rows| {
        // SAFETY: tasks have different rows.
        let out = unsafe { out.range(rows.start * width..rows.end * width) };
        for (out, &i) in out.chunks_exact_mut(width).zip(&index[rows]) {
            out.copy_from_slice(&table[i as usize * width..][..width]);
        }
    });
}

/// `grad[tokens[t]] += dout[t]`. Each task owns a range of the vocabulary and
/// meets its tokens in the order of t, so sums do not depend on the threads.
pub fn backward(cpu: &Cpu, dout: &[f32], tokens: &[u32], width: usize, grad: &mut [f32]) {
    let vocab = grad.len() / width;
    let grad = Shared::new(grad);
    cpu.rows(vocab, tokens.len() * width / 4, |owned| {
        // SAFETY: tasks own different rows of the table.
        let grad = unsafe { grad.range(owned.start * width..owned.end * width) };
        for (dout, &token) in dout.chunks_exact(width).zip(tokens) {
            if owned.contains(&(token as usize)) {
                let grad = &mut grad[(token as usize - owned.start) * width..][..width];
                grad.iter_mut().zip(dout).for_each(|(g, d)| *g += d);
            }
        }
    });
}
