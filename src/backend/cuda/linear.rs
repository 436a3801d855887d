//! Linear layers by cuBLASLt, their bias by kernels.

use half::bf16;

use super::buffer::{Buffer, Span};
use super::driver::{Arg, Kind};
use super::matmul::{Out, Product};
use super::ops::{MOST_BLOCKS, Ops, int};
use crate::backend::STEP_ROWS;
use crate::error::Result;

/// Rows that a block of a bias's gradient sums (COLUMN_CHUNK in reduce.cu).
const COLUMN_CHUNK: usize = 64;

/// `y [rows, out] = x [rows, in] wᵀ`, w `[out, in]`.
pub(super) fn forward(rows: usize, (out, input): (usize, usize), kind: Out) -> Product {
    let (m, n, k) = (rows, out, input);
    Product { m, n, k, a_transposed: false, b_transposed: true, out: kind, accumulate: false, parts: 1 }
}

/// `dx [rows, in] = dy [rows, out] w`.
pub(super) fn backward_input(rows: usize, (out, input): (usize, usize), kind: Out, accumulate: bool) -> Product {
    let (m, n, k) = (rows, input, out);
    Product { m, n, k, a_transposed: false, b_transposed: false, out: kind, accumulate, parts: 1 }
}

/// `dw [out, in] += dyᵀ x`.
pub(super) fn backward_weight(rows: usize, (out, input): (usize, usize)) -> Product {
    let (m, n, k) = (out, input, rows);
    Product { m, n, k, a_transposed: true, b_transposed: false, out: Out::F32, accumulate: true, parts: 1 }
}

/// Rows up to which a product may be cut into parts: more of them keep a GPU busy by themselves. No decoding step has more,
/// so a sequence has the same bits in all of them.
const FEW_ROWS: usize = STEP_ROWS;

/// Parts that k is cut into where there are few rows. By the weight's shape alone, so that a row's bits do not depend
/// on how many there are: a decoding step of 256 rows has 14 to 56 tiles of `down`'s result (896 wide in Qwen2.5-0.5B,
/// sums of 4,864) for over a hundred multiprocessors, each of which walks through all of k.
fn parts(rows: usize, (out, input): (usize, usize)) -> usize {
    const PARTS: usize = 4;
    // Each part begins where a row's address is a multiple of 128 bytes, and is long enough to be worth a block.
    let fits = input.is_multiple_of(PARTS * 64) && input / PARTS >= 768;
    if (1..=FEW_ROWS).contains(&rows) && out <= 4096 && input >= 2 * out && fits { PARTS } else { 1 }
}

/// Scratch memory of [`Ops::in_parts`] with so many rows or fewer, in bytes.
pub(super) fn scratch_bytes(rows: usize, shape: (usize, usize)) -> usize {
    let rows = rows.min(FEW_ROWS);
    match parts(rows, shape) {
        1 => 0,
        count => 4 * count * rows * shape.0,
    }
}

/// A linear layer's result in parts, in scratch memory.
pub(super) struct Parts {
    sums: Span<f32>,
    pub count: usize,
    len: usize,
}

impl Parts {
    /// All of them, to be read.
    pub fn read(&self) -> Arg {
        self.sums.read(self.len)
    }
}

/// A bias, or none.
pub(super) fn optional(bias: Option<&Buffer<f32>>, width: usize) -> Arg {
    bias.map_or(Arg::null(Kind::F32), |bias| bias.read(width))
}

impl Ops<'_> {
    /// `y = x wᵀ + b`.
    pub fn linear(
        &mut self,
        x: &Buffer<bf16>,
        w: &Buffer<bf16>,
        shape: (usize, usize),
        bias: Option<&Buffer<f32>>,
        rows: usize,
        y: &mut Buffer<bf16>,
    ) -> Result<()> {
        if let Some(parts) = self.in_parts(x, w, shape, rows)? {
            let args = [y.write(rows * shape.0), parts.read(), optional(bias, shape.0), int(parts.count), int(shape.0)];
            return self.launch_grid("join_parts", [shape.0.div_ceil(1024), rows, 1], 128, 0, &args);
        }
        self.multiply(&forward(rows, shape, Out::Bf16), x.part(0), w.part(0), y.part_mut(0))?;
        let Some(bias) = bias else { return Ok(()) };
        let width = shape.0;
        for first in (0..rows).step_by(MOST_BLOCKS) {
            let rows = MOST_BLOCKS.min(rows - first);
            let args = [y.part_mut(first * width).write(rows * width), bias.read(width), int(width)];
            self.launch_grid("add_bias", [width.div_ceil(1024), rows, 1], 128, 0, &args)?;
        }
        Ok(())
    }

    /// `x wᵀ` with k cut into parts, which a kernel adds later; `None`, and nothing done, where it is not.
    pub fn in_parts(
        &mut self,
        x: &Buffer<bf16>,
        w: &Buffer<bf16>,
        shape: (usize, usize),
        rows: usize,
    ) -> Result<Option<Parts>> {
        let count = parts(rows, shape);
        if count == 1 {
            return Ok(None);
        }
        let len = count * rows * shape.0;
        self.begin(&[4 * len])?;
        let sums = self.scratch.take::<f32>(len);
        let product = Product { parts: count, ..forward(rows, shape, Out::F32) };
        let found = self.try_multiply(&product, x.part(0), w.part(0), sums)?;
        Ok(found.then_some(Parts { sums, count, len }))
    }

    /// `dx = dy w`.
    pub fn linear_dx(
        &self,
        dy: &Buffer<bf16>,
        w: &Buffer<bf16>,
        shape: (usize, usize),
        rows: usize,
        dx: &mut Buffer<bf16>,
    ) -> Result<()> {
        self.multiply(&backward_input(rows, shape, Out::Bf16, false), dy.part(0), w.part(0), dx.part_mut(0))
    }

    /// `dw += dyᵀ x`, `dbias += Σ dy`.
    pub fn linear_dw(
        &mut self,
        dy: &Buffer<bf16>,
        x: &Buffer<bf16>,
        shape: (usize, usize),
        rows: usize,
        dw: &mut Buffer<f32>,
        dbias: Option<&mut Buffer<f32>>,
    ) -> Result<()> {
        self.multiply(&backward_weight(rows, shape), dy.part(0), x.part(0), dw.part_mut(0))?;
        match dbias {
            Some(dbias) => self.column_sums(dy.part(0), rows, shape.0, dbias),
            None => Ok(()),
        }
    }

    fn column_sums(&mut self, x: Span<bf16>, rows: usize, width: usize, out: &mut Buffer<f32>) -> Result<()> {
        let chunks = rows.div_ceil(COLUMN_CHUNK);
        self.begin(&[4 * chunks * width])?;
        let partial = self.scratch.take::<f32>(chunks * width);
        let args = [partial.write(chunks * width), x.read(rows * width), int(rows), int(width)];
        self.launch_grid("column_sum", [width.div_ceil(256), chunks, 1], 32, 0, &args)?;
        self.add_columns(out.part_mut(0), partial, chunks, width, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_few_rows_of_long_sums_are_cut() {
        assert_eq!(parts(256, (896, 4864)), 4, "down of Qwen2.5-0.5B");
        assert_eq!(parts(1, (896, 4864)), parts(1024, (896, 4864)), "by the weight's shape alone");
        assert_eq!(parts(1025, (896, 4864)), 1);
        assert_eq!([(1536, 8960), (3584, 18944)].map(|shape| parts(64, shape)), [4, 4], "1.5B and 7B");
        assert_eq!(scratch_bytes(1 << 20, (896, 4864)), 4 * 4 * 1024 * 896, "however many rows a step may have");
        for shape in [(896, 896), (9728, 896), (1152, 896), (151_936, 896), (896, 4864 + 64), (64, 256)] {
            assert_eq!(parts(256, shape), 1, "{shape:?}");
        }
    }
}
