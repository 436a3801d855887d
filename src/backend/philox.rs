//! Philox4x32-10 (Salmon et al. 2011): random numbers that are a function of a counter.
//!
//! Sampling draws token n of a completion from (completion seed, n), so the same
//! completion comes out whatever batch, thread or device it rode in. The CUDA
//! kernels compute the same function.

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The ten rounds: four random words of a 128-bit counter under a 64-bit key.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [low, high] = [0, 1].map(|i| u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]));
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The random number in [0, 1) of token `index` of the completion with this seed: 24 bits.
pub fn uniform(seed: u64, index: u64) -> f32 {
    let counter = [index as u32, (index >> 32) as u32, 0, 0];
    let word = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32])[0];
    (word >> 8) as f32 * (1.0 / (1 << 24) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 (`kat_vectors`).
    #[test]
    fn known_answers() {
        assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32_10([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let answer = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox4x32_10(counter, [0xa409_3822, 0x299f_31d0]), answer);
    }

    #[test]
    fn draws_are_uniform_and_differ_by_seed_and_index() {
        let mean = (0..100_000).map(|i| f64::from(uniform(i / 1000, i % 1000))).sum::<f64>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.004, "{mean}");
        assert_ne!(uniform(7, 0), uniform(8, 0));
        assert_ne!(uniform(7, 0), uniform(7, 1 << 32));
    }
}
