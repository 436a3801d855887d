//! Ids and seeds: everything that makes a run reproducible derives from content.
//!
//! A completion's seed depends on (run seed, prompt id, sample index, policy step)
//! and on nothing else, so threads, shards and resume points cannot change it.

/// A content id: the first 128 bits of BLAKE3 over the length-prefixed parts, as 32 hex digits.
///
/// Length prefixes keep `["ab", "c"]` and `["a", "bc"]` apart. With 128 bits a
/// billion rows collide with probability about 1e-21.
pub fn content_id<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The seed of one sample of one prompt under one policy.
pub fn sample_seed(run_seed: u64, prompt_id: &str, sample_index: u32, policy_step: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill 2026 sample seed");
    hasher.update(&run_seed.to_le_bytes());
    hasher.update(&policy_step.to_le_bytes());
    hasher.update(&sample_index.to_le_bytes());
    hasher.update(prompt_id.as_bytes());
    // 63 bits: vLLM and PyTorch take seeds as signed 64-bit integers.
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a digest has 32 bytes")) >> 1
}

/// A named stream of random numbers below a run's seed, such as `("shuffle", 0)`.
pub fn stream(run_seed: u64, name: &str, index: u64) -> Rng {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill 2026 stream");
    hasher.update(&run_seed.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    hasher.update(name.as_bytes());
    Rng::new(u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a digest has 32 bytes")))
}

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, every value once a period.
///
/// For shuffles, generators and initial weights. Token sampling uses the
/// counter-based generator of `backend::philox`, which the CUDA kernels share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream's beginning; any seed is as good as another, 0 included.
    pub fn new(seed: u64) -> Self {
        Rng { state: seed }
    }

    /// The state, to store in a checkpoint; `Rng::new(state)` continues the stream.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n without modulo bias (Lemire's multiply-shift with rejection). `n` must be positive.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "an empty range has no element");
        let threshold = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low.wrapping_add(self.below(high.wrapping_sub(low) as u64 + 1) as i64)
    }

    /// One element. `items` must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Standard normal (Box–Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Fisher–Yates, in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(content_id([&b"ab"[..], b"c"]), content_id([&b"a"[..], b"bc"]));
    }

    #[test]
    fn a_seed_depends_on_each_of_its_parts_and_fits_63_bits() {
        let base = sample_seed(1, "p", 0, 0);
        for other in
            [sample_seed(2, "p", 0, 0), sample_seed(1, "q", 0, 0), sample_seed(1, "p", 1, 0), sample_seed(1, "p", 0, 1)]
        {
            assert_ne!(base, other);
            assert!(other <= i64::MAX as u64);
        }
    }

    #[test]
    fn below_reaches_every_value_and_no_other() {
        let mut rng = Rng::new(7);
        let mut seen = [0u32; 6];
        for _ in 0..6_000 {
            seen[rng.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }
}
