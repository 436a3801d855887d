use super::super::check::{Case, assert_gradient};
use super::super::{Aggregation, KlEstimator};
use super::*;

fn grpo(change: impl FnOnce(&mut GrpoConfig)) -> Grpo {
    let mut config = GrpoConfig::default();
    change(&mut config);
    Grpo::new(config).unwrap()
}

/// One sequence whose tokens have these log ratios to π_old, and the reference given.
fn one(advantage: f32, log_ratios: &[f32]) -> Case {
    let mut case = Case::random(5, &[log_ratios.len()]);
    case.old = case.logprobs.iter().zip(log_ratios).map(|(l, r)| l - r).collect();
    case.advantages = vec![advantage];
    case
}

#[test]
fn every_option_has_the_gradient_of_its_loss() {
    let case = Case::random(3, &[5, 1, 0, 8, 3, 6]);
    let truncated = Correction { kind: CorrectionKind::Truncated, cap: 1.2, floor: 0.0 };
    let masked = Correction { kind: CorrectionKind::Masked, cap: 1.5, floor: 0.6 };
    let variants = [
        grpo(|_| {}),
        grpo(|c| c.kl_coefficient = 0.0),
        grpo(|c| (c.kl_coefficient, c.kl_estimator) = (0.5, KlEstimator::K1)),
        grpo(|c| (c.kl_coefficient, c.kl_estimator) = (0.5, KlEstimator::K2)),
        grpo(|c| (c.kl_coefficient, c.kl_estimator) = (0.5, KlEstimator::K3)),
        grpo(|c| c.entropy_coefficient = 0.03),
        grpo(|c| (c.clip_low, c.clip_high) = (0.2, 0.28)),
        grpo(|c| c.dual_clip = Some(1.1)),
        grpo(|c| c.surrogate = Surrogate::Sequence),
        grpo(|c| (c.surrogate, c.clip_low, c.clip_high) = (Surrogate::Sequence, 0.01, 0.01)),
        grpo(|c| c.correction = Some(truncated)),
        grpo(|c| c.correction = Some(masked)),
        grpo(|c| (c.surrogate, c.correction) = (Surrogate::Sequence, Some(truncated))),
    ];
    for (i, variant) in variants.iter().enumerate() {
        println!("variant {i}: {:?}", variant.config);
        assert_gradient(variant, &case.inputs(), 2e-4);
    }
}

#[test]
fn aggregations_change_weights_and_keep_gradients_exact() {
    let lengths = [5, 1, 8];
    for aggregation in [Aggregation::SequenceMean, Aggregation::TokenMean, Aggregation::Constant { length: 16 }] {
        let mut case = Case::random(9, &lengths);
        case.weights = aggregation.weights(&lengths);
        assert_gradient(&grpo(|c| c.aggregation = aggregation), &case.inputs(), 2e-4);
    }
}

#[test]
fn cispo_keeps_the_gradient_of_clipped_tokens_and_bounds_its_weight() {
    let case = one(0.5, &[2.0, 0.1, -1.0]);
    let cispo = grpo(|c| (c.surrogate, c.kl_coefficient) = (Surrogate::Cispo, 0.0));
    let outputs = cispo.loss(&case.inputs()).unwrap();
    // With the weight sg[min(ρ, 1.2)] frozen, the loss is linear in log π.
    for (gradient, ratio) in outputs.logprob_gradient.iter().zip([2.0f64, 0.1, -1.0]) {
        let expected = -f64::from(case.weights[0]) * ratio.exp().min(1.2) * 0.5;
        assert!((f64::from(*gradient) - expected).abs() < 1e-6);
    }
    assert_eq!(outputs.metrics.clip_high.value(), Some(1.0 / 3.0));
}

#[test]
fn clipping_is_asymmetric_and_counted_apart() {
    let dapo = grpo(|c| (c.clip_low, c.clip_high, c.kl_coefficient) = (0.2, 0.28, 0.0));
    let ratio = |r: f32| r.ln();
    let good = one(1.0, &[ratio(1.27), ratio(1.29), ratio(0.5)]);
    let outputs = dapo.loss(&good.inputs()).unwrap();
    let stopped: Vec<bool> = outputs.logprob_gradient.iter().map(|&g| g == 0.0).collect();
    assert_eq!(stopped, [false, true, false]);
    assert_eq!((outputs.metrics.clip_high.sum, outputs.metrics.clip_low.sum), (1.0, 0.0));

    let bad = one(-1.0, &[ratio(0.79), ratio(0.81), ratio(5.0)]);
    let outputs = dapo.loss(&bad.inputs()).unwrap();
    let stopped: Vec<bool> = outputs.logprob_gradient.iter().map(|&g| g == 0.0).collect();
    assert_eq!(stopped, [true, false, false]);
    let dual = grpo(|c| (c.dual_clip, c.kl_coefficient) = (Some(3.0), 0.0)).loss(&bad.inputs()).unwrap();
    assert_eq!((dual.logprob_gradient[2], dual.metrics.clip_dual.sum), (0.0, 1.0));
}

#[test]
fn the_first_update_has_ratio_one_and_the_policy_gradient() {
    let mut case = Case::random(4, &[3, 2]);
    case.advantages = vec![1.0, -2.0];
    let inputs = LossInputs { old_logprobs: None, ..case.inputs() };
    let outputs = grpo(|c| c.kl_coefficient = 0.0).loss(&inputs).unwrap();
    let expected = [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0, 2.0 / 4.0, 2.0 / 4.0];
    for (gradient, expected) in outputs.logprob_gradient.iter().zip(expected) {
        assert!((f64::from(*gradient) - expected).abs() < 1e-6);
    }
    assert_eq!((outputs.metrics.ratio.value(), outputs.metrics.kl_old.value()), (Some(1.0), Some(0.0)));
}

#[test]
fn a_missing_rollout_logprob_counts_as_the_old_one_never_as_zero() {
    let mut case = Case::random(6, &[4]);
    case.rollout = case.old.clone();
    case.rollout[2] = f32::NAN;
    let corrected = grpo(|c| c.correction = Some(Correction::default())).loss(&case.inputs()).unwrap();
    let plain = grpo(|_| {}).loss(&LossInputs { rollout_logprobs: None, ..case.inputs() }).unwrap();
    assert_eq!(corrected.logprob_gradient, plain.logprob_gradient);
    assert_eq!(corrected.metrics.rollout_missing.value(), Some(0.25));
    assert_eq!(corrected.metrics.rollout_gap_max.value(), Some(0.0));
}

#[test]
fn a_masked_correction_drops_the_policy_gradient_and_keeps_the_penalty() {
    let mut case = one(1.0, &[0.0, 0.0]);
    case.rollout = vec![case.old[0] - 3.0, case.old[1]];
    let masked = Correction { kind: CorrectionKind::Masked, cap: 2.0, floor: 0.5 };
    let with = |kl| {
        grpo(|c| (c.correction, c.kl_coefficient) = (Some(masked), kl)).loss(&case.inputs()).unwrap().logprob_gradient
    };
    assert_eq!(with(0.0)[0], 0.0);
    assert_ne!(with(0.1)[0], 0.0);
    assert_ne!(with(0.0)[1], 0.0);
}

#[test]
fn extreme_logprobs_stay_finite() {
    for (logprob, old, reference) in [(-1e4f32, -1e-3f32, -1e4f32), (-1e-3, -1e4, -1e4), (-1e4, -1e4, -1e-3)] {
        for surrogate in [Surrogate::Token, Surrogate::Sequence, Surrogate::Cispo] {
            for advantage in [5.0f32, -5.0] {
                let inputs = LossInputs {
                    offsets: &[0, 1],
                    weights: &[1.0],
                    logprobs: &[logprob],
                    entropy: Some(&[0.0]),
                    old_logprobs: Some(&[old]),
                    reference_logprobs: Some(&[reference]),
                    rollout_logprobs: Some(&[reference]),
                    advantages: &[advantage],
                };
                let outputs = grpo(|c| {
                    (c.surrogate, c.correction, c.entropy_coefficient) = (surrogate, Some(Correction::default()), 0.1);
                })
                .loss(&inputs)
                .unwrap();
                assert!(outputs.loss.is_finite() && outputs.logprob_gradient[0].is_finite());
            }
        }
    }
}

#[test]
fn an_empty_batch_is_zero_and_a_missing_input_is_named() {
    let empty = LossInputs { offsets: &[0], reference_logprobs: Some(&[]), ..Default::default() };
    let outputs = grpo(|_| {}).loss(&empty).unwrap();
    assert_eq!((outputs.loss, outputs.logprob_gradient.len()), (0.0, 0));
    let case = Case::random(2, &[2]);
    let no_reference = LossInputs { reference_logprobs: None, ..case.inputs() };
    assert!(grpo(|_| {}).loss(&no_reference).unwrap_err().to_string().contains("reference"));
    let no_advantages = LossInputs { advantages: &[], ..case.inputs() };
    assert!(grpo(|_| {}).loss(&no_advantages).unwrap_err().to_string().contains("advantages"));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let bad = |change: fn(&mut GrpoConfig)| {
        let mut config = GrpoConfig::default();
        change(&mut config);
        Grpo::new(config).unwrap_err().to_string()
    };
    assert!(bad(|c| c.clip_low = -0.1).contains("clip_low"));
    assert!(bad(|c| c.clip_high = f64::NAN).contains("clip_high"));
    assert!(bad(|c| c.dual_clip = Some(1.0)).contains("dual_clip"));
    assert!(bad(|c| (c.dual_clip, c.surrogate) = (Some(3.0), Surrogate::Cispo)).contains("no dual clip"));
    assert!(bad(|c| c.correction = Some(Correction { cap: 0.5, ..Default::default() })).contains("correction.cap"));
}
