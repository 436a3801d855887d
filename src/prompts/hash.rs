//! The hashes that duplicates and overlaps are found by. Stable: they decide what a dataset holds.

const K: [u64; 3] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

/// Multiply and fold, the step of wyhash (Wang Yi 2019).
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product ^ (product >> 64)) as u64
}

/// A fast 64-bit hash in the manner of wyhash. Stable: it decides what a dataset holds.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut state = seed.wrapping_add(1).wrapping_mul(K[0]) ^ (bytes.len() as u64).wrapping_mul(K[1]);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        state = fold(state ^ u64::from_le_bytes(word.try_into().expect("chunks of eight")), K[2]);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(last), K[1]);
    }
    fold(state ^ K[0], K[2])
}

/// Calls `each` with the hash of every window of `n` hashes, by a rolling polynomial mod 2^64.
/// Nothing is called where there are fewer than `n`.
pub(crate) fn rolling(hashes: &[u64], n: usize, mut each: impl FnMut(usize, u64)) {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    if n == 0 || hashes.len() < n {
        return;
    }
    let top = (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut state = 0u64;
    for (i, &hash) in hashes.iter().enumerate() {
        if i >= n {
            state = state.wrapping_sub(hashes[i - n].wrapping_mul(top));
        }
        state = state.wrapping_mul(BASE).wrapping_add(hash);
        if i + 1 >= n {
            each(i + 1 - n, fold(state ^ K[0], K[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_rolling_window_equals_a_fresh_one(hashes in prop::collection::vec(any::<u64>(), 0..40), n in 1usize..8) {
            let mut rolled = Vec::new();
            rolling(&hashes, n, |at, hash| rolled.push((at, hash)));
            prop_assert_eq!(rolled.len(), (hashes.len() + 1).saturating_sub(n));
            for (at, hash) in rolled {
                let mut fresh = None;
                rolling(&hashes[at..at + n], n, |_, hash| fresh = Some(hash));
                prop_assert_eq!(Some(hash), fresh);
            }
        }
    }
}
