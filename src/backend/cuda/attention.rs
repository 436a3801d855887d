//! Attention over packed sequences: tensor-core kernels for heads of 64 and 128, plain ones for the others.

use half::bf16;

use super::buffer::{Buffer, Span};
use super::geometry::attention_tiles;
use super::ops::{Ops, int};
use crate::backend::Heads;
use crate::error::{Error, Result};

/// The kernels for one size of head, and their dynamic shared memory in bytes.
pub(super) struct Passes {
    forward: &'static str,
    dq: &'static str,
    dkv: &'static str,
    shared: usize,
    /// The plain kernels take the dimension as an argument.
    plain: bool,
}

/// The kernels for heads of `dim` dimensions.
pub(super) fn passes(dim: usize) -> Result<Passes> {
    let (forward, dq, dkv, plain) = match dim {
        64 => ("attention_64", "attention_dq_64", "attention_dkv_64", false),
        128 => ("attention_128", "attention_dq_128", "attention_dkv_128", false),
        1..=256 => ("attention_plain", "attention_dq_plain", "attention_dkv_plain", true),
        _ => return Err(Error::new(format!("attention covers heads of up to 256 dimensions, not {dim}"))),
    };
    Ok(Passes { forward, dq, dkv, shared: if plain { 0 } else { 512 * dim }, plain })
}

impl Ops<'_> {
    /// The tiles of these sequences on the device, how many, and how many rows the sequences have.
    fn tiles(&mut self, cu_seqlens: &[u32]) -> Result<(Span<u32>, usize, usize)> {
        let tiles = attention_tiles(cu_seqlens);
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
        let passes = passes(dim)?;
        let (tiles, count, rows) = self.tiles(cu_seqlens)?;
        let mut args = vec![qkv.read(rows * heads.qkv_width()), tiles.read(3 * count), int(query), int(kv)];
        args.extend(passes.plain.then(|| int(dim)));
        args.extend([out.write(rows * heads.out_width()), lse.write(rows * query)]);
        self.launch_grid(passes.forward, [count, query, 1], 128, passes.shared, &args)
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
        let passes = passes(dim)?;
        let (tiles, count, rows) = self.tiles(cu_seqlens)?;
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
        self.launch_grid(passes.dq, [count, query, 1], 128, passes.shared, &args)?;
        self.launch_grid(passes.dkv, [count, kv, 1], 128, passes.shared, &args)
    }
}
