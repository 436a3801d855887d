//! Confidence intervals of a proportion, and the normal quantile they need.

use super::Interval;

/// The Wilson score interval of a success probability after `c` successes in `n` trials
/// (Wilson 1927): the p with |c/n − p| ≤ z √(p(1−p)/n), z the two-sided normal quantile.
///
/// The interval's `mean` is c/n. Unlike the textbook interval it is never empty at c = 0 or c = n. `confidence` lies in (0, 1).
/// `None` without trials, or if `c > n`.
pub fn wilson(n: u64, c: u64, confidence: f64) -> Option<Interval> {
    if n == 0 || c > n || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let (c, n) = (c as f64, n as f64);
    let p = c / n;
    let z = normal_quantile(0.5 + 0.5 * confidence);
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Interval { mean: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

/// The x with Φ(x) = p, for p in (0, 1): Acklam's rational approximation, relative error below 1.2e-9.
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 5] =
        [-5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 4] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
    let polynomial = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, k| sum * x + k);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    if p < 0.02425 {
        tail(p)
    } else if p > 1.0 - 0.02425 {
        -tail(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        q * polynomial(&A, r) / (polynomial(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, x) in [(0.5, 0.0), (0.975, 1.959963984540054), (0.995, 2.575829303548901), (0.001, -3.090232306167813)]
        {
            assert!((normal_quantile(p) - x).abs() < 1e-8, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn the_wilson_interval_is_the_published_one() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29 at 95 %.
        let cases = [
            ((263, 81), (0.2553, 0.3662)),
            ((148, 15), (0.0624, 0.1605)),
            ((20, 0), (0.0, 0.1611)),
            ((29, 1), (0.0061, 0.1718)),
        ];
        for ((n, c), (low, high)) in cases {
            let interval = wilson(n, c, 0.95).unwrap();
            assert!(
                (interval.low - low).abs() < 5e-5 && (interval.high - high).abs() < 5e-5,
                "{c} of {n}: {interval:?}"
            );
        }
        assert_eq!(wilson(0, 0, 0.95), None);
        assert_eq!(wilson(3, 4, 0.95), None);
    }
}
