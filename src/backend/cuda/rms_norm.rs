//! RMSNorm, alone and with the residual sum before it.

use half::bf16;

use super::buffer::Buffer;
use super::driver::Arg;
use super::ops::{Ops, int};
use crate::error::Result;

/// Rows that a block of the backward pass sums (CHUNK in rms_norm.cu).
const CHUNK: usize = 32;

/// Scratch memory of the backward pass, in bytes.
pub(super) fn scratch_bytes(rows: usize, width: usize) -> usize {
    4 * rows.div_ceil(CHUNK) * width
}

impl Ops<'_> {
    #[allow(clippy::too_many_arguments)]
    pub fn rms_norm(
        &self,
        x: &Buffer<bf16>,
        weight: &Buffer<f32>,
        rows: usize,
        eps: f32,
        y: &mut Buffer<bf16>,
        rstd: &mut Buffer<f32>,
    ) -> Result<()> {
        let width = weight.len();
        let all = rows * width;
        let args =
            [x.read(all), weight.read(width), int(rows), int(width), Arg::Float(eps), y.write(all), rstd.write(rows)];
        self.launch("rms_norm", rows.div_ceil(4), 128, &args)
    }

    #[allow(clippy::too_many_arguments)]
    pub fn add_rms_norm(
        &self,
        x: &Buffer<bf16>,
        delta: &Buffer<bf16>,
        weight: &Buffer<f32>,
        rows: usize,
        eps: f32,
        sum: &mut Buffer<bf16>,
        y: &mut Buffer<bf16>,
        rstd: &mut Buffer<f32>,
    ) -> Result<()> {
        let width = weight.len();
        let all = rows * width;
        let args = [
            x.read(all),
            delta.read(all),
            weight.read(width),
            int(rows),
            int(width),
            Arg::Float(eps),
            sum.write(all),
            y.write(all),
            rstd.write(rows),
        ];
        self.launch("add_rms_norm", rows.div_ceil(4), 128, &args)
    }

    /// `dx += ∂/∂x`, `dweight += ∂/∂w`, the latter by chunks of rows that are then added in a fixed order.
    #[allow(clippy::too_many_arguments)]
    pub fn rms_norm_backward(
        &mut self,
        dy: &Buffer<bf16>,
        x: &Buffer<bf16>,
        weight: &Buffer<f32>,
        rstd: &Buffer<f32>,
        rows: usize,
        dx: &mut Buffer<bf16>,
        dweight: &mut Buffer<f32>,
    ) -> Result<()> {
        let width = weight.len();
        let (all, chunks) = (rows * width, rows.div_ceil(CHUNK));
        self.begin(&[4 * chunks * width])?;
        let partial = self.scratch.take::<f32>(chunks * width);
        let args = [
            dy.read(all),
            x.read(all),
            weight.read(width),
            rstd.read(rows),
            int(rows),
            int(width),
            dx.write(all),
            partial.write(chunks * width),
        ];
        self.launch_grid("rms_norm_backward", [chunks, 1, 1], 128, 4 * width, &args)?;
        self.add_columns(dweight.part_mut(0), partial, chunks, width, width)
    }
}
