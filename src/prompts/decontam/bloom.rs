//! A Bloom filter that answers most misses inside the L2 cache, and maps whose keys are hashes already.

use std::hash::{BuildHasherDefault, Hasher};

/// About 16 bits a key, one of them set: one miss in sixteen passes.
pub(super) struct Bloom {
    bits: Vec<u64>,
    mask: u64,
}

impl Bloom {
    pub fn new(keys: usize) -> Bloom {
        let bits = (keys as u64 * 16).next_power_of_two().clamp(1 << 10, 1 << 32);
        Bloom { bits: vec![0; (bits / 64) as usize], mask: bits - 1 }
    }

    pub fn insert(&mut self, hash: u64) {
        let bit = (hash >> 20) & self.mask;
        self.bits[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    /// False only for what was never inserted.
    #[inline]
    pub fn may_hold(&self, hash: u64) -> bool {
        let bit = (hash >> 20) & self.mask;
        self.bits[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }
}

/// Builds the hasher of a map by hashes.
pub(super) type Prehashed = BuildHasherDefault<Same>;

#[derive(Default)]
pub(super) struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = crate::prompts::hash::hash_bytes(bytes, self.0);
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
