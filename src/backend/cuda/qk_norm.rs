//! Qwen3's norm of query and key heads, and the rotation after it.

use half::bf16;

use super::buffer::Buffer;
use super::driver::Arg;
use super::ops::{Ops, int};
use crate::backend::Heads;
use crate::error::{Error, Result};

/// Rows that a block of the backward pass sums (CHUNK in qk_norm.cu).
const CHUNK: usize = 16;
/// Dimensions of a head that the kernels hold in registers (MAX_DIM in qk_norm.cu).
const MAX_DIM: usize = 256;

fn check(heads: Heads) -> Result<()> {
    match heads.dim <= MAX_DIM {
        true => Ok(()),
        false => Err(Error::new(format!(
            "the norm of query and key heads covers up to {MAX_DIM} dimensions, not {}",
            heads.dim
        ))),
    }
}

impl Ops<'_> {
    #[allow(clippy::too_many_arguments)]
    pub fn qk_norm(
        &self,
        qkv: &mut Buffer<bf16>,
        before: &mut Buffer<bf16>,
        weights: (&Buffer<f32>, &Buffer<f32>),
        heads: Heads,
        rows: usize,
        eps: f32,
        rstd: &mut Buffer<f32>,
    ) -> Result<()> {
        check(heads)?;
        let Heads { query, kv, dim } = heads;
        let all = rows * heads.qkv_width();
        let args = [
            qkv.write(all),
            before.write(all),
            weights.0.read(dim),
            weights.1.read(dim),
            int(query),
            int(kv),
            int(dim),
            int(rows),
            Arg::Float(eps),
            rstd.write(rows * (query + kv)),
        ];
        self.launch("qk_norm", (rows * (query + 2 * kv)).div_ceil(4), 128, &args)
    }

    /// Both weights' gradients come out of one table of partial sums, side by side.
    #[allow(clippy::too_many_arguments)]
    pub fn qk_norm_backward(
        &mut self,
        dqkv: &mut Buffer<bf16>,
        before: &Buffer<bf16>,
        weights: (&Buffer<f32>, &Buffer<f32>),
        rstd: &Buffer<f32>,
        heads: Heads,
        rows: usize,
        dweights: (&mut Buffer<f32>, &mut Buffer<f32>),
    ) -> Result<()> {
        check(heads)?;
        let Heads { query, kv, dim } = heads;
        let (all, chunks) = (rows * heads.qkv_width(), rows.div_ceil(CHUNK));
        self.begin(&[4 * chunks * 2 * dim])?;
        let partial = self.scratch.take::<f32>(chunks * 2 * dim);
        let args = [
            dqkv.write(all),
            before.read(all),
            weights.0.read(dim),
            weights.1.read(dim),
            rstd.read(rows * (query + kv)),
            int(query),
            int(kv),
            int(dim),
            int(rows),
            partial.write(chunks * 2 * dim),
        ];
        self.launch("qk_norm_backward", chunks, 128, &args)?;
        self.add_columns(dweights.0.part_mut(0), partial, chunks, dim, 2 * dim)?;
        self.add_columns(dweights.1.part_mut(0), partial.from(dim), chunks, dim, 2 * dim)
    }

    /// Rotates query and key heads in place; back where `inverse`.
    pub fn rope(
        &self,
        qkv: &mut Buffer<bf16>,
        positions: &Buffer<u32>,
        table: &Buffer<f32>,
        heads: Heads,
        rows: usize,
        inverse: bool,
    ) -> Result<()> {
        let args = [
            qkv.write(rows * heads.qkv_width()),
            positions.read(rows),
            table.read(table.len()),
            int(heads.query),
            int(heads.kv),
            int(heads.dim),
            Arg::Float(if inverse { -1.0 } else { 1.0 }),
        ];
        self.launch("rope", rows, 128, &args)
    }
}
