//! Keys and values of the tokens seen so far, in pages of sixteen tokens.
//!
//! Each page and key/value head has its keys transposed, `[dim][16]`: one tile as attention's row kernel reads
//! them; then its values as rows.

use super::attention::{Tiles, put_column};
use crate::backend::{Heads, KV_PAGE, PageCopy};

/// A pool of pages in each layer. The system lends their memory as they are written.
pub struct KvCache {
    layers: Vec<Vec<f32>>,
    heads: Heads,
}

/// The pages of one sequence, and the page and token of a position.
fn place(table: &[u32], width: usize, slot: u32, position: u32) -> (usize, usize) {
    let (slot, position) = (slot as usize, position as usize);
    (table[slot * width + position / KV_PAGE] as usize, position % KV_PAGE)
}

impl KvCache {
    /// Zeroed.
    pub fn new(layers: usize, heads: Heads, pages: usize) -> Self {
        let mut cache = KvCache { layers: Vec::new(), heads };
        cache.layers = (0..layers).map(|_| vec![0.0; pages * cache.page_len()]).collect();
        cache
    }

    /// Shape of the heads that the pages hold.
    pub fn heads(&self) -> Heads {
        self.heads
    }

    /// Keys, or values, of one head and page.
    fn half_len(&self) -> usize {
        KV_PAGE * self.heads.dim
    }

    fn page_len(&self) -> usize {
        2 * self.heads.kv * self.half_len()
    }

    /// Transposed keys, and values, of one head of the sequence with these pages.
    pub fn head<'a>(&'a self, layer: usize, pages: &'a [u32], kv: usize) -> (Tiles<'a>, Tiles<'a>) {
        let (data, step, at) = (&self.layers[layer][..], self.page_len(), 2 * kv * self.half_len());
        let half = |at| Tiles { data, at, step, row: self.heads.dim, pages: Some(pages) };
        (half(at), half(at + self.half_len()))
    }

    /// Stores the key and value heads of each row of `qkv`.
    pub fn append(
        &mut self,
        layer: usize,
        qkv: &[f32],
        (table, width): (&[u32], usize),
        slots: &[u32],
        positions: &[u32],
    ) {
        let Heads { query, kv, dim } = self.heads;
        let (page_len, half) = (self.page_len(), self.half_len());
        let rows = qkv.chunks_exact(self.heads.qkv_width());
        for ((row, &slot), &position) in rows.zip(slots).zip(positions) {
            let (page, token) = place(table, width, slot, position);
            let page = &mut self.layers[layer][page * page_len..][..page_len];
            for (head, both) in page.chunks_exact_mut(2 * half).enumerate() {
                let key = &row[(query + head) * dim..][..dim];
                let value = &row[(query + kv + head) * dim..][..dim];
                let (keys, values) = both.split_at_mut(half);
                if token == 0 {
                    // Attention reads whole tiles: what an earlier sequence left must not be NaN.
                    keys.fill(0.0);
                }
                put_column(keys, token, key);
                values[token * dim..][..dim].copy_from_slice(value);
            }
        }
    }

    /// Copies the beginning of a page, in every layer. Keys are transposed, so all of theirs go.
    pub fn copy(&mut self, copy: PageCopy) {
        let len = self.page_len();
        for layer in &mut self.layers {
            layer.copy_within(copy.from as usize * len..(copy.from as usize + 1) * len, copy.to as usize * len);
        }
    }
}
