//! Rotary position embedding: pairs (x[i], x[i + dim/2]) turned by the position's angle.

use super::simd::{LANES, Simd, kernel, steps};
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

/// a cos − b sin and b cos + a sin, with two roundings of the products as the formula has them.
#[inline(always)]
fn rotate_rows_body<S: Simd>(s: S, qkv: &mut [f32], positions: &[u32], table: &[f32], heads: Heads, sign: f32) {
    let (dim, half) = (heads.dim, heads.dim / 2);
    let sign = s.splat(sign);
    if dim == LANES {
        // One vector a head: b, a beside a, b.
        for (row, &position) in qkv.chunks_exact_mut(heads.qkv_width()).zip(positions) {
            let (cos, sin) = table[position as usize * dim..][..dim].split_at(half);
            let (cos, sin) = (s.load_n(cos, 0, half), s.mul(s.load_n(sin, 0, half), sign));
            let cos = s.add(cos, s.swap_halves(cos));
            let sin = s.sub(s.swap_halves(sin), sin);
            for head in row[..(heads.query + heads.kv) * dim].chunks_exact_mut(dim) {
                let x = s.load(head, 0);
                s.store(head, 0, s.add(s.mul(x, cos), s.mul(s.swap_halves(x), sin)));
            }
        }
        return;
    }
    for (row, &position) in qkv.chunks_exact_mut(heads.qkv_width()).zip(positions) {
        let (cos, sin) = table[position as usize * dim..][..dim].split_at(half);
        let turned = &mut row[..(heads.query + heads.kv) * dim];
        for (at, n) in steps(half) {
            let (cos, sin) = (s.load_n(cos, at, n), s.mul(s.load_n(sin, at, n), sign));
            for head in turned.chunks_exact_mut(dim) {
                let (a, b) = head.split_at_mut(half);
                let (x, y) = (s.load_n(a, at, n), s.load_n(b, at, n));
                s.store_n(a, at, n, s.sub(s.mul(x, cos), s.mul(y, sin)));
                s.store_n(b, at, n, s.add(s.mul(y, cos), s.mul(x, sin)));
            }
        }
    }
}
