//! Bootstrap confidence intervals, clustered by prompt.

use crate::seed::stream;

/// A mean with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Interval {
    /// Of the values themselves, not of the resamples.
    pub mean: f64,
    /// Lower end: the (1 − level)/2 quantile of the resampled means.
    pub low: f64,
    /// Upper end: the (1 + level)/2 quantile.
    pub high: f64,
}

/// The mean of per-prompt values and its percentile bootstrap interval (Efron 1979).
///
/// `values` holds one value per prompt (a pass rate, a vote's 0 or 1): prompts are
/// drawn with replacement, each with all its samples, because samples of one prompt
/// are not independent. `resamples` of 1,000 to 10,000 are usual; `level` is the
/// coverage, such as 0.95, and is clamped to [0, 1]. The same seed gives the same
/// interval. `None` for no values; a single value or no resamples give an interval
/// of width 0.
pub fn bootstrap_mean(values: &[f64], resamples: usize, level: f64, seed: u64) -> Option<Interval> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if resamples == 0 {
        return Some(Interval { mean, low: mean, high: mean });
    }
    let mut means: Vec<f64> = (0..resamples as u64)
        .map(|resample| {
            let mut rng = stream(seed, "eval/bootstrap", resample);
            (0..values.len()).map(|_| values[rng.below(values.len() as u64) as usize]).sum::<f64>() / count
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
    Some(Interval { mean, low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) })
}

/// Linear interpolation between order statistics (type 7, as numpy's default).
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seed::Rng;

    #[test]
    fn the_interval_of_a_proportion_is_about_what_theory_says() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 4 == 0)).collect();
        let Interval { mean, low, high } = bootstrap_mean(&values, 4_000, 0.95, 1).unwrap();
        // 1.96 · √(0.25 · 0.75 / 400) = 0.0424.
        assert_eq!(mean, 0.25);
        assert!((mean - low - 0.0424).abs() < 0.005 && (high - mean - 0.0424).abs() < 0.005, "{low} {high}");
    }

    #[test]
    fn intervals_cover_the_truth_about_as_often_as_they_say() {
        let mut rng = Rng::new(2);
        let covered = (0..300)
            .filter(|round| {
                let values: Vec<f64> = (0..60).map(|_| rng.uniform()).collect();
                let interval = bootstrap_mean(&values, 300, 0.9, *round).unwrap();
                (interval.low..=interval.high).contains(&0.5)
            })
            .count();
        assert!((250..=290).contains(&covered), "{covered} of 300 at 90%");
    }

    proptest! {
        #[test]
        fn an_interval_holds_no_value_outside_the_data_and_repeats_for_its_seed(
            values in proptest::collection::vec(-5.0f64..5.0, 1..40), seed: u64,
        ) {
            let interval = bootstrap_mean(&values, 200, 0.95, seed).unwrap();
            let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            prop_assert!(interval.low <= interval.high);
            prop_assert!(interval.low >= least - 1e-9 && interval.high <= most + 1e-9);
            prop_assert_eq!(Some(interval), bootstrap_mean(&values, 200, 0.95, seed));
        }
    }

    #[test]
    fn no_values_no_interval() {
        assert_eq!(bootstrap_mean(&[], 100, 0.95, 0), None);
        assert_eq!(bootstrap_mean(&[0.5], 0, 0.95, 0), Some(Interval { mean: 0.5, low: 0.5, high: 0.5 }));
    }
}
