//! pass@1 and pass@k of one prompt.

/// pass@1 as the mean over samples: c / n. `None` without samples.
pub fn pass_rate(n: u64, c: u64) -> Option<f64> {
    (n > 0).then(|| c as f64 / n as f64)
}

/// The unbiased estimate of pass@k from n samples of which c are correct:
/// 1 − C(n−c, k) / C(n, k), the chance that k samples drawn without replacement
/// hold a correct one (Chen et al. 2021, arXiv 2107.03374, eq. 1).
///
/// Computed as 1 − Π (1 − k / i) for i in n−c+1..=n, which neither overflows nor
/// loses precision. `None` if `k` is 0, `k > n` or `c > n`: fewer than k samples
/// give no unbiased estimate.
pub fn pass_at_k(n: u64, c: u64, k: u64) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    let all_wrong: f64 = (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - all_wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The share of all k-subsets of n samples that hold one of the c first.
    fn by_counting_subsets(n: u64, c: u64, k: u64) -> f64 {
        let correct = (1u64 << c) - 1;
        let subsets = (0..1u64 << n).filter(|set| u64::from(set.count_ones()) == k);
        let (all, hits) =
            subsets.fold((0u64, 0u64), |(all, hits), set| (all + 1, hits + u64::from(set & correct != 0)));
        hits as f64 / all as f64
    }

    proptest! {
        #[test]
        fn pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n in 1u64..13, c in 0u64..13, k in 1u64..13) {
            if c <= n && k <= n {
                let estimate = pass_at_k(n, c, k).unwrap();
                prop_assert!((estimate - by_counting_subsets(n, c, k)).abs() < 1e-12);
            } else {
                prop_assert_eq!(pass_at_k(n, c, k), None);
            }
        }

        #[test]
        fn pass_at_k_grows_with_k_and_is_the_rate_at_one(n in 1u64..2_000, c in 0u64..2_000, k in 1u64..2_000) {
            let (c, k) = (c.min(n), k.min(n));
            prop_assert!((pass_at_k(n, c, 1).unwrap() - pass_rate(n, c).unwrap()).abs() < 1e-9);
            let (less, more) = (pass_at_k(n, c, k).unwrap(), pass_at_k(n, c, (k + 1).min(n)).unwrap());
            prop_assert!((0.0..=1.0).contains(&less) && more >= less - 1e-12);
        }
    }

    #[test]
    fn impossible_counts_give_no_estimate() {
        assert_eq!(pass_at_k(4, 2, 0), None);
        assert_eq!(pass_at_k(4, 2, 5), None);
        assert_eq!(pass_at_k(4, 5, 1), None);
        assert_eq!(pass_rate(0, 0), None);
    }
}
