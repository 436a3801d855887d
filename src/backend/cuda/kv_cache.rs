//! The paged KV cache and attention over it.

use half::bf16;

use super::buffer::Buffer;
use super::driver::Arg;
use super::kv_pages::KvPages;
use super::ops::{Ops, int};
use super::scratch::Kept;
use crate::backend::Heads;
use crate::error::{Error, Result};

/// Tokens of a page.
pub(super) const PAGE: usize = 16;
/// Query heads that a block of decode attention takes (HEADS in attention_cached.cu).
const BLOCK_HEADS: usize = 8;

/// Keys and values by layer and page, and which page holds which tokens of which slot.
pub struct KvCache {
    layers: Vec<Buffer<bf16>>,
    pages: KvPages,
    table: Kept,
    heads: Heads,
    capacity: usize,
}

impl Ops<'_> {
    /// Room for `slots` sequences of `capacity` tokens each.
    pub fn kv_cache(&self, layers: usize, heads: Heads, slots: usize, capacity: usize) -> Result<KvCache> {
        let pages = KvPages::new(slots, capacity, PAGE);
        let len = pages.pages() * 2 * heads.kv * PAGE * heads.dim;
        let layers = (0..layers).map(|_| Buffer::new(self.driver.clone(), len)).collect::<Result<_>>()?;
        Ok(KvCache { layers, pages, table: Kept::new(self.driver), heads, capacity })
    }

    /// Stores keys and values. Layer 0 begins a step: it is where pages are found for the step's rows.
    pub fn kv_append(
        &mut self,
        cache: &mut KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        slots: &[u32],
        positions: &[u32],
    ) -> Result<()> {
        let Heads { query, kv, dim } = cache.heads;
        if layer == 0 {
            self.kv_plan(cache, slots, positions)?;
        }
        let rows = slots.len();
        let table = cache.table.load(self.driver, cache.pages.table())?;
        let slots = self.scratch.slots.load(self.driver, slots)?;
        let positions = self.scratch.positions.load(self.driver, positions)?;
        let layer = &mut cache.layers[layer];
        let len = layer.len();
        let args = [
            layer.write(len),
            table.read(cache.pages.table().len()),
            qkv.read(rows * cache.heads.qkv_width()),
            slots.read(rows),
            positions.read(rows),
            int(query),
            int(kv),
            int(dim),
            int(PAGE),
            int(cache.pages.most()),
        ];
        self.launch("kv_append", rows, 128, &args)
    }

    /// Finds a page for every row. What was shared and is now written is copied first, in every layer.
    fn kv_plan(&mut self, cache: &mut KvCache, slots: &[u32], positions: &[u32]) -> Result<()> {
        for (&slot, &position) in slots.iter().zip(positions) {
            let position = position as usize;
            if position >= cache.capacity {
                return Err(Error::new(format!("position {position} of a KV cache of {} tokens", cache.capacity)));
            }
            let Some(copy) = cache.pages.write(slot as usize, position) else { continue };
            for layer in &mut cache.layers {
                let len = layer.len();
                let args = [
                    layer.write(len),
                    Arg::U32(copy.from),
                    Arg::U32(copy.to),
                    int(copy.len),
                    int(cache.heads.dim),
                    int(PAGE),
                ];
                self.launch("kv_copy", 2 * cache.heads.kv, 128, &args)?;
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    pub fn attention_cached(
        &mut self,
        cache: &KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        slots: &[u32],
        positions: &[u32],
        heads: Heads,
        out: &mut Buffer<bf16>,
    ) -> Result<()> {
        let Heads { query, kv, dim } = heads;
        let kernel = match dim {
            _ if dim % 8 != 0 => None,
            0..=64 => Some("attention_cached_2"),
            65..=128 => Some("attention_cached_4"),
            129..=256 => Some("attention_cached_8"),
            _ => None,
        };
        let kernel =
            kernel.ok_or_else(|| Error::new(format!("decoding covers heads of 8, 16, … 256 dimensions, not {dim}")))?;
        let rows = slots.len();
        let table = cache.table.current();
        let slots = self.scratch.slots.load(self.driver, slots)?;
        let positions = self.scratch.positions.load(self.driver, positions)?;
        let cached = &cache.layers[layer];
        let args = [
            cached.read(cached.len()),
            table.read(cache.pages.table().len()),
            qkv.read(rows * heads.qkv_width()),
            slots.read(rows),
            positions.read(rows),
            int(query),
            int(kv),
            int(dim),
            int(PAGE),
            int(cache.pages.most()),
            out.write(rows * heads.out_width()),
        ];
        let shared = 4 * (BLOCK_HEADS * dim + 4 * BLOCK_HEADS * 32 + 4 * BLOCK_HEADS * (dim + 2));
        self.launch_grid(kernel, [rows, kv, heads.group().div_ceil(BLOCK_HEADS)], 128, shared, &args)
    }
}

impl KvCache {
    /// Stands where an allocation failed.
    pub(super) fn absent(driver: &std::sync::Arc<dyn super::driver::Driver>, heads: Heads) -> Self {
        KvCache { layers: Vec::new(), pages: KvPages::new(0, 0, PAGE), table: Kept::new(driver), heads, capacity: 0 }
    }

    /// Lends the first `len` tokens of a slot to another.
    pub(super) fn share(&mut self, from: u32, to: u32, len: usize) {
        self.pages.share(from as usize, to as usize, len);
    }
}
