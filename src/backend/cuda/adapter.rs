//! Adapters of low rank: folded into their matrix, and their gradients from the matrix's. Factors are rounded to bf16
//! for the products, sums are f32; what was folded in is taken out again by the same product.

use half::bf16;

use super::buffer::{Buffer, Span};
use super::driver::Arg;
use super::matmul::{Out, Product};
use super::ops::Ops;
use crate::backend::{Adapter, Cuda};
use crate::error::Result;

/// Scratch memory of [`Ops::adapter_backward`], in bytes.
pub(super) fn scratch_bytes(((out, input), rank): ((usize, usize), usize)) -> usize {
    2 * out * input + 6 * rank * (out + input)
}

fn product(m: usize, n: usize, k: usize) -> Product {
    Product { m, n, k, a_transposed: false, b_transposed: false, out: Out::F32, accumulate: true, parts: 1 }
}

impl Ops<'_> {
    /// `value += sign · scale · b a`.
    pub fn adapter_merge(&mut self, value: &mut Buffer<f32>, adapter: &Adapter<Cuda>, sign: f32) -> Result<()> {
        let (rank, (out, input)) = (adapter.rank, adapter.shape);
        self.begin(&[2 * rank * input, 4 * out * rank, 2 * out * rank])?;
        let a = self.scratch.take::<bf16>(rank * input);
        self.round(a, adapter.a.part(0), rank * input)?;
        let b = self.scaled(adapter.b.part(0), out * rank, sign * adapter.scale)?;
        self.multiply(&product(out, input, rank), b, a, value.part_mut(0))
    }

    /// `da += scale · bᵀ dw`, `db += scale · dw aᵀ`.
    pub fn adapter_backward(
        &mut self,
        dw: &Buffer<f32>,
        adapter: &Adapter<Cuda>,
        da: &mut Buffer<f32>,
        db: &mut Buffer<f32>,
    ) -> Result<()> {
        let (rank, (out, input), scale) = (adapter.rank, adapter.shape, adapter.scale);
        let [a, b] = [rank * input, out * rank];
        self.begin(&[2 * out * input, 4 * a, 2 * a, 4 * b, 2 * b])?;
        let rounded = self.scratch.take::<bf16>(out * input);
        self.round(rounded, dw.part(0), out * input)?;
        let a = self.scaled(adapter.a.part(0), a, scale)?;
        let b = self.scaled(adapter.b.part(0), b, scale)?;
        let by_b = Product { a_transposed: true, ..product(rank, input, out) };
        self.multiply(&by_b, b, rounded, da.part_mut(0))?;
        let by_a = Product { b_transposed: true, ..product(out, rank, input) };
        self.multiply(&by_a, rounded, a, db.part_mut(0))
    }

    /// `factor · x`, rounded once; in scratch memory.
    fn scaled(&mut self, x: Span<f32>, len: usize, factor: f32) -> Result<Span<bf16>> {
        let (wide, rounded) = (self.scratch.take::<f32>(len), self.scratch.take::<bf16>(len));
        self.zero(wide, len)?;
        let args = [wide.write(len), x.read(len), Arg::U64(len as u64), Arg::Float(0.0), Arg::Float(factor)];
        self.launch("muon_update", len.div_ceil(1024), 256, &args)?;
        self.round(rounded, wide, len)?;
        Ok(rounded)
    }
}
