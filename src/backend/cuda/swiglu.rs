//! SwiGLU, forward and backward.

use half::bf16;

use super::buffer::Buffer;
use super::ops::{MOST_BLOCKS, Ops, int};
use crate::error::Result;

impl Ops<'_> {
    pub fn swiglu(&self, gate_up: &Buffer<bf16>, width: usize, rows: usize, out: &mut Buffer<bf16>) -> Result<()> {
        for first in (0..rows).step_by(MOST_BLOCKS) {
            let rows = MOST_BLOCKS.min(rows - first);
            let from = gate_up.part(first * 2 * width).read(rows * 2 * width);
            let args = [from, int(width), out.part_mut(first * width).write(rows * width)];
            self.launch_grid("swiglu", [width.div_ceil(1024), rows, 1], 128, 0, &args)?;
        }
        Ok(())
    }

    pub fn swiglu_backward(
        &self,
        dout: &Buffer<bf16>,
        gate_up: &Buffer<bf16>,
        width: usize,
        rows: usize,
        dgate_up: &mut Buffer<bf16>,
    ) -> Result<()> {
        for first in (0..rows).step_by(MOST_BLOCKS) {
            let rows = MOST_BLOCKS.min(rows - first);
            let (at, all) = (first * 2 * width, rows * 2 * width);
            let args = [
                dout.part(first * width).read(rows * width),
                gate_up.part(at).read(all),
                int(width),
                dgate_up.part_mut(at).write(all),
            ];
            self.launch_grid("swiglu_backward", [width.div_ceil(1024), rows, 1], 128, 0, &args)?;
        }
        Ok(())
    }
}
