//! Attention over packed sequences: tensor-core kernels for heads of 64 and 128, plain ones for the others.

use half::bf16;

use super::buffer::{Buffer, Span};
use super::geometry::{attention_passes, attention_tiles};
use super::ops::{Ops, int};
use crate::backend::Heads;
use crate::error::Result;

impl Ops<'_> {
    /// The tiles of these sequences on the device, how many, and how many rows the sequences have.
    fn tiles(&mut self, cu_seqlens: &[u32], tile: u32) -> Result<(Span<u32>, usize, usize)> {
        let tiles = attention_tiles(cu_seqlens, tile);
        let rows = cu_seqlens.last().map_or(0, |&rows| rows as usize);
        Ok((self.scratch.tiles.load(self.driver, &tiles)?, tiles.len() / 3, rows))
    }

    pub fn attention(
        &mut self,
        qkv: &Buffer<bf16>,
        cu_seqlens: &[u32],
        heads: Heads,
        out: &mut Buffer<bf16>,
        lse: &mut Buffer<f32>,
    ) -> Result<()> {
        let Heads { query, kv, dim } = heads;
        let passes = attention_passes(dim)?;
        let (tiles, count, rows) = self.tiles(cu_seqlens, passes.tile)?;
        let mut args = vec![qkv.read(rows * heads.qkv_width()), tiles.read(3 * count), int(query), int(kv)];
        args.extend(passes.plain.then(|| int(dim)));
        args.extend([out.write(rows * heads.out_width()), lse.write(rows * query)]);
        let pass = passes.forward;
        self.launch_grid(pass.kernel, [count * pass.blocks, query, 1], 128, pass.shared, &args)
    }

    #[allow(clippy::too_many_arguments)]
    pub fn attention_backward(
        &mut self,
        dout: &Buffer<bf16>,
        qkv: &Buffer<bf16>,
        out: &Buffer<bf16>,
        lse: &Buffer<f32>,
        cu_seqlens: &[u32],
        heads: Heads,
        dqkv: &mut Buffer<bf16>,
    ) -> Result<()> {
        let Heads { query, kv, dim } = heads;
        let passes = attention_passes(dim)?;
        let (tiles, count, rows) = self.tiles(cu_seqlens, passes.tile)?;
        let items = rows * query;
        self.begin(&[4 * items])?;
        let delta = self.scratch.take::<f32>(items);
        let args = [dout.read(items * dim), out.read(items * dim), int(items), int(dim), delta.write(items)];
        self.launch("attention_delta", items.div_ceil(4), 128, &args)?;
        let mut args = vec![
            dout.read(items * dim),
            qkv.read(rows * heads.qkv_width()),
            lse.read(items),
            delta.read(items),
            tiles.read(3 * count),
            int(query),
            int(kv),
        ];
        args.extend(passes.plain.then(|| int(dim)));
        args.push(dqkv.write(rows * heads.qkv_width()));
        for (pass, heads) in [(passes.dq, query), (passes.dkv, kv)] {
            self.launch_grid(pass.kernel, [count * pass.blocks, heads, 1], 128, pass.shared, &args)?;
        }
        Ok(())
    }
}
