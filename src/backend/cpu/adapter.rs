//! Adapters of low rank: folded into their matrix, and their gradients from the matrix's.

use super::gemm::{Lhs, Rhs, gemm};
use super::{Adapter, Cpu, scratch};

/// `value += sign · scale · b a`.
pub fn fold(cpu: &Cpu, value: &mut [f32], adapter: &Adapter<Cpu>, sign: f32) {
    let (rank, (out, input)) = (adapter.rank, adapter.shape);
    scratch(out * rank, |b| {
        b.iter_mut().zip(&adapter.b).for_each(|(to, from)| *to = sign * adapter.scale * from);
        let (b, a) = (Lhs { data: b, row: rank, col: 1 }, Rhs::Rows { data: &adapter.a, row: input });
        gemm(cpu, (out, input, rank), b, a, value, input, true);
    });
}

/// `da += scale · bᵀ dw`, `db += scale · dw aᵀ`.
pub fn backward(cpu: &Cpu, dw: &[f32], adapter: &Adapter<Cpu>, da: &mut [f32], db: &mut [f32]) {
    let (rank, (out, input), scale) = (adapter.rank, adapter.shape, adapter.scale);
    scratch(out * rank, |b| {
        b.iter_mut().zip(&adapter.b).for_each(|(to, from)| *to = scale * from);
        let flipped = Lhs { data: b, row: 1, col: rank };
        gemm(cpu, (rank, input, out), flipped, Rhs::Rows { data: dw, row: input }, da, input, true);
    });
    scratch(input * rank, |a| {
        for (i, row) in adapter.a.chunks_exact(input).enumerate() {
            row.iter().enumerate().for_each(|(j, x)| a[j * rank + i] = scale * x);
        }
        let (dw, a) = (Lhs { data: dw, row: input, col: 1 }, Rhs::Rows { data: a, row: rank });
        gemm(cpu, (out, rank, input), dw, a, db, rank, true);
    });
}
