//! MinHash signatures (Broder 1997): the share of equal lanes of two signatures estimates the
//! Jaccard similarity J of the two sets, with standard error sqrt(J(1 − J) / lanes).

use super::hash::fold;
use crate::seed::Rng;

/// Lanes computed together: two AVX2 registers, four of SSE2.
const BLOCK: usize = 16;

/// A family of hash functions on 64-bit elements, one per lane.
///
/// Lane k is x ↦ a_k · (x_low ⊕ b_k) mod 2^32 with a_k odd, a permutation of the
/// 32-bit words, on elements that are themselves well mixed. The minimum is
/// taken over the high bits, which depend on all of x.
#[derive(Clone, Debug)]
pub struct MinHasher {
    multipliers: Vec<[u32; BLOCK]>,
    masks: Vec<[u32; BLOCK]>,
    lanes: usize,
}

impl MinHasher {
    /// `lanes` functions from a seed; the same seed gives the same signatures on every machine.
    pub fn new(lanes: usize, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let blocks = lanes.div_ceil(BLOCK);
        let mut block = |odd: u32| std::array::from_fn(|_| (rng.next_u64() >> 32) as u32 | odd);
        let multipliers = (0..blocks).map(|_| block(1)).collect();
        let masks = (0..blocks).map(|_| block(0)).collect();
        MinHasher { multipliers, masks, lanes }
    }

    /// The signature of a set; repeated elements do not count. All lanes are `u32::MAX` for the empty set.
    pub fn signature(&self, elements: &[u64]) -> Vec<u32> {
        let mixed: Vec<u32> = elements.iter().map(|&x| (fold(x, 0x9fb2_1c65_1e98_df25) >> 32) as u32).collect();
        let mut signature = Vec::with_capacity(self.multipliers.len() * BLOCK);
        for (multipliers, masks) in self.multipliers.iter().zip(&self.masks) {
            signature.extend_from_slice(&minima(&mixed, multipliers, masks));
        }
        signature.truncate(self.lanes);
        signature
    }
}

/// One block of lanes over all elements, with the widest instructions at hand. Integers: every path gives the same bits.
fn minima(elements: &[u32], multipliers: &[u32; BLOCK], masks: &[u32; BLOCK]) -> [u32; BLOCK] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as just asked.
        return unsafe { minima_avx2(elements, multipliers, masks) };
    }
    minima_portable(elements, multipliers, masks)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn minima_avx2(elements: &[u32], multipliers: &[u32; BLOCK], masks: &[u32; BLOCK]) -> [u32; BLOCK] {
    minima_portable(elements, multipliers, masks)
}

#[inline(always)]
fn minima_portable(elements: &[u32], multipliers: &[u32; BLOCK], masks: &[u32; BLOCK]) -> [u32; BLOCK] {
    let mut least = [u32::MAX; BLOCK];
    for &x in elements {
        for lane in 0..BLOCK {
            least[lane] = least[lane].min((x ^ masks[lane]).wrapping_mul(multipliers[lane]));
        }
    }
    least
}

/// The share of equal lanes.
pub fn similarity<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    let equal = a.iter().zip(b).filter(|(x, y)| x == y).count();
    equal as f64 / a.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Rng;
    use proptest::prelude::*;

    /// Two sets of `size` elements each that share `shared`.
    fn sets(seed: u64, size: usize, shared: usize) -> (Vec<u64>, Vec<u64>) {
        let mut rng = Rng::new(seed);
        let mut draw = |n: usize| (0..n).map(|_| rng.next_u64()).collect::<Vec<_>>();
        let (common, left, right) = (draw(shared), draw(size - shared), draw(size - shared));
        ([common.clone(), left].concat(), [common, right].concat())
    }

    #[test]
    fn the_estimate_is_unbiased_with_the_textbook_error() {
        let (size, trials, lanes) = (60, 400, 112);
        for shared in [20, 40, 54] {
            let jaccard = shared as f64 / (2 * size - shared) as f64;
            let errors: Vec<f64> = (0..trials)
                .map(|trial| {
                    let hasher = MinHasher::new(lanes, 1_000 + trial);
                    let (a, b) = sets(trial, size, shared);
                    similarity(&hasher.signature(&a), &hasher.signature(&b)) - jaccard
                })
                .collect();
            let mean = errors.iter().sum::<f64>() / trials as f64;
            let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / trials as f64).sqrt();
            let expected = (jaccard * (1.0 - jaccard) / lanes as f64).sqrt();
            assert!(mean.abs() < 4.0 * expected / (trials as f64).sqrt(), "J {jaccard:.2}: bias {mean:.4}");
            assert!(deviation < 1.25 * expected, "J {jaccard:.2}: deviation {deviation:.4}, expected {expected:.4}");
        }
    }

    #[test]
    fn one_fixed_family_is_unbiased_over_many_sets() {
        let hasher = MinHasher::new(112, 1);
        let trials = 500;
        let mean = (0..trials)
            .map(|trial| {
                let (a, b) = sets(trial, 50, 40);
                similarity(&hasher.signature(&a), &hasher.signature(&b))
            })
            .sum::<f64>()
            / trials as f64;
        assert!((mean - 40.0 / 60.0).abs() < 0.01, "{mean}");
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(mut elements in prop::collection::vec(any::<u64>(), 0..50), seed: u64) {
            let hasher = MinHasher::new(24, seed);
            let signature = hasher.signature(&elements);
            prop_assert_eq!(signature.len(), 24);
            elements.extend_from_within(..elements.len() / 2);
            elements.reverse();
            prop_assert_eq!(hasher.signature(&elements), signature);
        }

        #[test]
        fn every_instruction_set_gives_the_same_bits(elements in prop::collection::vec(any::<u32>(), 0..50), seed: u64) {
            let hasher = MinHasher::new(BLOCK, seed);
            let (a, b) = (&hasher.multipliers[0], &hasher.masks[0]);
            prop_assert_eq!(minima(&elements, a, b), minima_portable(&elements, a, b));
        }
    }
}
