//! The paged KV cache and attention over it.

use std::collections::HashSet;

use half::bf16;

use super::buffer::Buffer;
use super::driver::{Arg, Driver};
use super::geometry::{attention_passes, prefill_tiles};
use super::linear::optional;
use super::ops::{MOST_BLOCKS, Ops, int};
use crate::backend::{Cuda, Heads, KV_PAGE, PageCopy, Paged, Run};
use crate::error::{Error, Result};

/// Query heads that a block of decode attention takes (HEADS in attention_cached.cu).
const BLOCK_HEADS: usize = 8;

// PAGE in attention.cu.
const _: () = assert!(KV_PAGE == 16);

/// Keys and values by layer and page.
pub struct KvCache {
    /// Of all layers, one after the other.
    pages: Buffer<bf16>,
    layers: usize,
    /// Elements of a layer.
    layer_len: usize,
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
        let layer_len = pages * 2 * heads.kv * KV_PAGE * heads.dim;
        Ok(KvCache { pages: Buffer::new(self.driver.clone(), layers * layer_len)?, layers, layer_len, heads })
    }

    /// The beginnings of `tokens`, `positions` and `slots`, and pages of the table by place: in one copy.
    pub fn put_rows(
        &mut self,
        rows: [(&mut Buffer<u32>, &[u32]); 3],
        table: &mut Buffer<u32>,
        pages: &[(u32, u32)],
    ) -> Result<()> {
        let count = rows[0].1.len();
        let mut packed = Vec::with_capacity(3 * count + 2 * pages.len());
        for (_, values) in &rows {
            assert_eq!(values.len(), count, "a token, a position and a slot for each row");
            packed.extend_from_slice(values);
        }
        for &(place, page) in pages {
            assert!((place as usize) < table.len(), "place {place} of a table of {}", table.len());
            packed.extend([place, page]);
        }
        self.begin(&[4 * packed.len()])?;
        let there = self.scratch.take::<u32>(packed.len());
        self.write(there, &packed)?;
        let [tokens, positions, slots] = rows.map(|(buffer, _)| buffer.write(count));
        let all = table.len();
        let args = [there.read(packed.len()), int(count), int(pages.len()), tokens, positions, slots, table.write(all)];
        self.launch("put_rows", count.max(pages.len()).div_ceil(256), 256, &args)
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
        let args = [
            cache.pages.part_mut(layer * cache.layer_len).write(cache.layer_len),
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

    /// Adds a bias, turns queries and keys of each row, and stores keys and values.
    pub fn rope_append(
        &mut self,
        qkv: &mut Buffer<bf16>,
        bias: Option<&Buffer<f32>>,
        angles: &Buffer<f32>,
        cache: &mut KvCache,
        layer: usize,
        at: &Paged<'_, Cuda>,
    ) -> Result<()> {
        let Heads { query, kv, dim } = cache.heads;
        let args = [
            qkv.write(at.rows * cache.heads.qkv_width()),
            optional(bias, cache.heads.qkv_width()),
            angles.read(angles.len()),
            cache.pages.part_mut(layer * cache.layer_len).write(cache.layer_len),
            at.table.read(at.table.len()),
            at.slots.read(at.rows),
            at.positions.read(at.rows),
            int(query),
            int(kv),
            int(dim),
            int(KV_PAGE),
            int(at.width),
        ];
        self.launch("rope_append", at.rows, 128, &args)
    }

    /// Copies the beginnings of pages, in every layer; as if one after the other.
    pub fn kv_copy(&mut self, cache: &mut KvCache, copies: &[PageCopy]) -> Result<()> {
        let words: Vec<u32> = copies.iter().flat_map(|copy| [copy.from, copy.to, copy.len as u32]).collect();
        self.begin(&[4 * words.len()])?;
        let mut there = self.scratch.take::<u32>(words.len());
        self.write(there, &words)?;
        let (len, layer, kv, dim) = (cache.pages.len(), cache.layer_len, cache.heads.kv, cache.heads.dim);
        for count in independent(copies) {
            let args = [cache.pages.write(len), there.read(3 * count), Arg::U64(layer as u64), int(dim), int(KV_PAGE)];
            self.launch_grid("kv_copy", [2 * kv, count, cache.layers], 128, 0, &args)?;
            there = there.from(3 * count);
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
        let args = [
            cache.pages.part(layer * cache.layer_len).read(cache.layer_len),
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

    /// Attention of runs of rows over what their sequences have in the cache.
    pub fn attention_prefill(
        &mut self,
        cache: &KvCache,
        layer: usize,
        qkv: &Buffer<bf16>,
        at: &Paged<'_, Cuda>,
        runs: &[Run],
        out: &mut Buffer<bf16>,
    ) -> Result<()> {
        let heads = cache.heads;
        let passes = attention_passes(heads.dim)?;
        let Some(pass) = passes.prefill else {
            return self.attention_cached(cache, layer, qkv, at, out);
        };
        let tiles = prefill_tiles(runs, passes.tile);
        let count = tiles.len() / 3;
        let tiles = self.scratch.tiles.load(self.driver, &tiles)?;
        let args = [
            qkv.read(at.rows * heads.qkv_width()),
            cache.pages.part(layer * cache.layer_len).read(cache.layer_len),
            at.table.read(at.table.len()),
            at.slots.read(at.rows),
            tiles.read(3 * count),
            int(heads.query),
            int(heads.kv),
            int(at.width),
            out.write(at.rows * heads.out_width()),
        ];
        self.launch_grid(pass.kernel, [count * pass.blocks, heads.query, 1], 128, pass.shared, &args)
    }
}

impl KvCache {
    /// Stands where an allocation failed.
    pub(super) fn absent(driver: &std::sync::Arc<dyn Driver>, layers: usize, heads: Heads) -> Self {
        KvCache { pages: Buffer::absent(driver.clone(), 0), layers, layer_len: 0, heads }
    }
}

/// How many copies each launch takes: those of one are done in any order, so none names a page that another writes.
fn independent(copies: &[PageCopy]) -> Vec<usize> {
    let (mut counts, mut read, mut written) = (Vec::new(), HashSet::new(), HashSet::new());
    for copy in copies {
        let meets = written.contains(&copy.from) || written.contains(&copy.to) || read.contains(&copy.to);
        match counts.last_mut() {
            Some(count) if !meets && *count < MOST_BLOCKS => *count += 1,
            _ => {
                read.clear();
                written.clear();
                counts.push(1);
            }
        }
        read.insert(copy.from);
        written.insert(copy.to);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_a_launch_unless_one_writes_what_another_names() {
        let counts = |pairs: &[(u32, u32)]| {
            independent(&pairs.iter().map(|&(from, to)| PageCopy { from, to, len: 3 }).collect::<Vec<_>>())
        };
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(counts(&[(1, 2), (1, 3), (1, 4), (5, 6)]), [4], "a prompt's page is read by all");
        assert_eq!(counts(&[(1, 2), (2, 3)]), [1, 1], "what was just written");
        assert_eq!(counts(&[(1, 2), (4, 1), (5, 6)]), [1, 2], "a page that was let go in between");
        assert_eq!(counts(&[(1, 2), (3, 2)]), [1, 1]);
        assert_eq!(counts(&[(1, 2); 3]), [1, 1, 1]);
    }
}
