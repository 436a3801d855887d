//! The paged KV cache and attention over it.

use half::bf16;

use super::buffer::Buffer;
use super::driver::{Arg, Driver};
use super::ops::{Ops, int};
use crate::backend::{Cuda, Heads, KV_PAGE, PageCopy, Paged};
use crate::error::{Error, Result};

/// Query heads that a block of decode attention takes (HEADS in attention_cached.cu).
const BLOCK_HEADS: usize = 8;

/// Keys and values by layer and page.
pub struct KvCache {
    layers: Vec<Buffer<bf16>>,
    heads: Heads,
}

/// The kernel of decode attention for heads of `dim` dimensions.
pub(super) fn kernel(dim: usize) -> Result<&'static str> {
    match dim {
        1..=64 => Some("attention_cached_2"),
        65..=128 => Some("attention_cached_4"),
        129..=256 => Some("attention_cached_8"),
        _ => None,
    }
    .ok_or_else(|| Error::new(format!("decoding on the GPU covers heads of up to 256 dimensions, not {dim}")))
}

impl Ops<'_> {
    /// A pool of `pages` pages in each layer.
    pub fn kv_cache(&self, layers: usize, heads: Heads, pages: usize) -> Result<KvCache> {
        let len = pages * 2 * heads.kv * KV_PAGE * heads.dim;
        let layers = (0..layers).map(|_| Buffer::new(self.driver.clone(), len)).collect::<Result<_>>()?;
        Ok(KvCache { layers, heads })
    }

    /// Stores keys and values of each row.
    pub fn kv_append(
        &mut self,
        cache: &mut KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        at: &Paged<'_, Cuda>,
    ) -> Result<()> {
        let Heads { query, kv, dim } = cache.heads;
        let layer = &mut cache.layers[layer];
        let len = layer.len();
        let args = [
            layer.write(len),
            at.table.read(at.table.len()),
            qkv.read(at.rows * cache.heads.qkv_width()),
            at.slots.read(at.rows),
            at.positions.read(at.rows),
            int(query),
            int(kv),
            int(dim),
            int(KV_PAGE),
            int(at.width),
        ];
        self.launch("kv_append", at.rows, 128, &args)
    }

    /// Copies the beginnings of pages, in every layer.
    pub fn kv_copy(&mut self, cache: &mut KvCache, copies: &[PageCopy]) -> Result<()> {
        for copy in copies {
            for layer in &mut cache.layers {
                let len = layer.len();
                let args = [
                    layer.write(len),
                    Arg::U32(copy.from),
                    Arg::U32(copy.to),
                    int(copy.len),
                    int(cache.heads.dim),
                    int(KV_PAGE),
                ];
                self.launch("kv_copy", 2 * cache.heads.kv, 128, &args)?;
            }
        }
        Ok(())
    }

    /// Attention of each row over what its sequence has in the cache.
    pub fn attention_cached(
        &mut self,
        cache: &KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        at: &Paged<'_, Cuda>,
        out: &mut Buffer<bf16>,
    ) -> Result<()> {
        let heads = cache.heads;
        let Heads { query, kv, dim } = heads;
        let kernel = kernel(dim)?;
        let cached = &cache.layers[layer];
        let args = [
            cached.read(cached.len()),
            at.table.read(at.table.len()),
            qkv.read(at.rows * heads.qkv_width()),
            at.slots.read(at.rows),
            at.positions.read(at.rows),
            int(query),
            int(kv),
            int(dim),
            int(KV_PAGE),
            int(at.width),
            out.write(at.rows * heads.out_width()),
        ];
        let shared = 4 * (BLOCK_HEADS * dim.next_multiple_of(8) + 4 * BLOCK_HEADS * 32 + 4 * BLOCK_HEADS * (dim + 2));
        self.launch_grid(kernel, [at.rows, kv, heads.group().div_ceil(BLOCK_HEADS)], 128, shared, &args)
    }
}

impl KvCache {
    /// Stands where an allocation failed.
    pub(super) fn absent(driver: &std::sync::Arc<dyn Driver>, layers: usize, heads: Heads) -> Self {
        KvCache { layers: (0..layers).map(|_| Buffer::absent(driver.clone(), 0)).collect(), heads }
    }
}
