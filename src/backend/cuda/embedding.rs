//! Rows by index: the embedding, its gradient, and the rows that the head scores.

use half::bf16;

use super::buffer::Buffer;
use super::ops::{Ops, int};
use crate::error::Result;

impl Ops<'_> {
    /// `out[i] = table[index[i]]`.
    pub fn embed(
        &self,
        table: &Buffer<bf16>,
        index: &Buffer<u32>,
        rows: usize,
        width: usize,
        out: &mut Buffer<bf16>,
    ) -> Result<()> {
        let args = [out.write(rows * width), table.read(table.len()), index.read(rows), int(width)];
        self.launch("gather_rows", rows, 128, &args)
    }

    /// `grad[tokens[t]] += dout[t]`: the first position of a token owns its row and follows the chain of the others.
    pub fn embed_backward(
        &mut self,
        dout: &Buffer<bf16>,
        tokens: &Buffer<u32>,
        rows: usize,
        width: usize,
        grad: &mut Buffer<f32>,
    ) -> Result<()> {
        self.begin(&[4 * rows, 4 * rows])?;
        let (next, first) = (self.scratch.take::<u32>(rows), self.scratch.take::<u32>(rows));
        let args = [next.write(rows), first.write(rows), tokens.read(rows), int(rows)];
        self.launch("embed_chain", rows.div_ceil(4), 128, &args)?;
        let all = grad.len();
        let args = [
            grad.write(all),
            dout.read(rows * width),
            tokens.read(rows),
            next.read(rows),
            first.read(rows),
            int(rows),
            int(width),
        ];
        self.launch_grid("embed_backward", [rows, width.div_ceil(256), 1], 32, 0, &args)
    }

    /// `out[i] = x[index[i]]`, the index on the host.
    pub fn gather(&mut self, x: &Buffer<bf16>, index: &[u32], width: usize, out: &mut Buffer<bf16>) -> Result<()> {
        let rows = index.len();
        let index = self.scratch.index.load(self.driver, index)?;
        let args = [out.write(rows * width), x.read(x.len()), index.read(rows), int(width)];
        self.launch("gather_rows", rows, 128, &args)
    }

    /// `out = 0`, then `out[index[i]] = x[i]`.
    pub fn scatter(
        &mut self,
        x: &Buffer<bf16>,
        index: &[u32],
        width: usize,
        rows: usize,
        out: &mut Buffer<bf16>,
    ) -> Result<()> {
        self.zero(out.part_mut(0), rows * width)?;
        let count = index.len();
        let index = self.scratch.index.load(self.driver, index)?;
        let args = [out.write(rows * width), x.read(count * width), index.read(count), int(width)];
        self.launch("scatter_rows", count, 128, &args)
    }
}
