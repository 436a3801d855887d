//! Rotary position embedding: pairs (x[i], x[i + dim/2]) turned by the position's angle.

use super::simd::{Simd, kernel};
use super::{Cpu, Heads, Shared};

/// Rotates query and key heads in place; `inverse` turns back, which is the gradient.
pub fn apply(cpu: &Cpu, qkv: &mut [f32], positions: &[u32], table: &[f32], heads: Heads, inverse: bool) {
    let width = heads.qkv_width();
    let qkv = Shared::new(qkv);
    cpu.rows(positions.len(), positions.len() * width, |rows| {
        // SAFETY: tasks have different rows.
        let qkv = unsafe { qkv.range(rows.start * width..rows.end * width) };
        rotate_rows(qkv, &positions[rows], table, heads, if inverse { -1.0 } else { 1.0 });
    });
}

kernel! {
    fn rotate_rows(qkv: &mut [f32], positions: &[u32], table: &[f32], heads: Heads, sign: f32) = rotate_rows_body;
}

/// The loop has no `Simd` operations: the compiler turns it into vectors of whatever width fits half a head.
#[inline(always)]
fn rotate_rows_body<S: Simd>(_: S, qkv: &mut [f32], positions: &[u32], table: &[f32], heads: Heads, sign: f32) {
    let (dim, half) = (heads.dim, heads.dim / 2);
    for (row, &position) in qkv.chunks_exact_mut(heads.qkv_width()).zip(positions) {
        let (cos, sin) = table[position as usize * dim..][..dim].split_at(half);
        for head in row[..(heads.query + heads.kv) * dim].chunks_exact_mut(dim) {
            let (a, b) = head.split_at_mut(half);
            for i in 0..half {
                let (x, y, sin) = (a[i], b[i], sin[i] * sign);
                a[i] = x * cos[i] - y * sin;
                b[i] = y * cos[i] + x * sin;
            }
        }
    }
}
