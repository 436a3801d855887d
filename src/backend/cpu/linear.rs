//! Linear layers: y = x wᵀ + b and its three gradients.

use super::gemm::{Lhs, Rhs, gemm};
use super::{Cpu, Param, Shared};

/// Columns of a bias gradient that one task sums.
const BIAS_BLOCK: usize = 64;

/// `y = x wᵀ + b`.
pub fn forward(cpu: &Cpu, x: &[f32], w: &Param<Cpu>, bias: Option<&[f32]>, rows: usize, y: &mut [f32]) {
    let (n, k) = (w.rows, w.cols);
    if let Some(bias) = bias {
        for row in y[..rows * n].chunks_exact_mut(n) {
            row.copy_from_slice(bias);
        }
    }
    let x = Lhs { data: x, row: k, col: 1 };
    gemm(cpu, (rows, n, k), x, Rhs::Panels { data: &w.ready }, y, n, bias.is_some());
}

/// `dx = dy w`.
pub fn backward_input(cpu: &Cpu, dy: &[f32], w: &Param<Cpu>, rows: usize, dx: &mut [f32]) {
    let (k, n) = (w.rows, w.cols);
    let dy = Lhs { data: dy, row: k, col: 1 };
    gemm(cpu, (rows, n, k), dy, Rhs::Rows { data: &w.value, row: n }, dx, n, false);
}

/// `dw += dyᵀ x`, w `[out, in]`.
pub fn backward_weight(cpu: &Cpu, dy: &[f32], x: &[f32], (out, input): (usize, usize), rows: usize, dw: &mut [f32]) {
    let dy = Lhs { data: dy, row: 1, col: out };
    gemm(cpu, (out, input, rows), dy, Rhs::Rows { data: x, row: input }, dw, input, true);
}

/// `dbias += Σ dy`, each column summed in the order of the rows.
pub fn backward_bias(cpu: &Cpu, dy: &[f32], rows: usize, dbias: &mut [f32]) {
    let width = dbias.len();
    let shared = Shared::new(dbias);
    cpu.tasks(width.div_ceil(BIAS_BLOCK), rows * width / 4, |block| {
        let columns = block * BIAS_BLOCK..width.min((block + 1) * BIAS_BLOCK);
        // SAFETY: tasks have different columns.
        let sum = unsafe { shared.range(columns.clone()) };
        for row in dy[..rows * width].chunks_exact(width) {
            sum.iter_mut().zip(&row[columns.clone()]).for_each(|(s, d)| *s += d);
        }
    });
}
