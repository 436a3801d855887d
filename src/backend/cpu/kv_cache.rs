//! Keys and values of the tokens seen so far.
//!
//! Each layer, slot and key/value head has its keys transposed in tiles of sixteen,
//! as attention's row kernel reads them, then its values as rows.

use super::attention::{put_column, tiles_len};
use crate::backend::Heads;

/// Room for `slots` sequences of `capacity` tokens in each layer.
pub struct KvCache {
    layers: Vec<Vec<f32>>,
    heads: Heads,
    capacity: usize,
}

impl KvCache {
    /// Zeroed.
    pub fn new(layers: usize, heads: Heads, slots: usize, capacity: usize) -> Self {
        let mut cache = KvCache { layers: Vec::new(), heads, capacity };
        cache.layers = (0..layers).map(|_| vec![0.0; slots * heads.kv * cache.head_len()]).collect();
        cache
    }

    fn keys_len(&self) -> usize {
        tiles_len(self.capacity, self.heads.dim)
    }

    fn head_len(&self) -> usize {
        self.keys_len() + self.capacity * self.heads.dim
    }

    fn at(&self, slot: usize, kv: usize) -> usize {
        (slot * self.heads.kv + kv) * self.head_len()
    }

    /// Transposed keys, and values, of one head.
    pub fn head(&self, layer: usize, slot: usize, kv: usize) -> (&[f32], &[f32]) {
        self.layers[layer][self.at(slot, kv)..][..self.head_len()].split_at(self.keys_len())
    }

    /// Stores the key and value heads of each row of `qkv`.
    pub fn append(&mut self, layer: usize, qkv: &[f32], slots: &[u32], positions: &[u32]) {
        let Heads { query, kv, dim } = self.heads;
        let rows = qkv.chunks_exact(self.heads.qkv_width());
        for ((row, &slot), &position) in rows.zip(slots).zip(positions) {
            let (slot, position) = (slot as usize, position as usize);
            assert!(position < self.capacity, "position {position} of a cache of {}", self.capacity);
            for head in 0..kv {
                let key = &row[(query + head) * dim..][..dim];
                let value = &row[(query + kv + head) * dim..][..dim];
                let (at, len, keys) = (self.at(slot, head), self.head_len(), self.keys_len());
                let (keys, values) = self.layers[layer][at..at + len].split_at_mut(keys);
                put_column(keys, position, key);
                values[position * dim..][..dim].copy_from_slice(value);
            }
        }
    }

    /// Copies the first `len` tokens of slot `from` to slot `to`, in every layer.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        let (keys, dim) = (self.keys_len(), self.heads.dim);
        for head in 0..self.heads.kv {
            let (from, to) = (self.at(from, head), self.at(to, head));
            for layer in &mut self.layers {
                layer.copy_within(from..from + tiles_len(len, dim), to);
                layer.copy_within(from + keys..from + keys + len * dim, to + keys);
            }
        }
    }
}
