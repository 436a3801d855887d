//! The objectives against PyTorch: vectors that `tests/parity/objectives.py` froze.

use serde_json::Value;

use super::*;

const VECTORS: &str = include_str!("../../../tests/parity/vectors/objectives.json");

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    numbers(value).iter().map(|&v| v as f32).collect()
}

/// Each case of the script with the settings that say the same here.
fn objectives() -> Vec<(&'static str, Box<dyn Objective>, Aggregation)> {
    type Change = fn(&mut GrpoConfig);
    let correction = |kind, cap, floor| Some(Correction { kind, cap, floor });
    let truncated = correction(CorrectionKind::Truncated, 1.3, 0.0);
    let masked = correction(CorrectionKind::Masked, 1.4, 0.7);
    let variants: [(&'static str, Aggregation, Change); 6] = [
        ("grpo", Aggregation::SequenceMean, |c| c.kl_coefficient = 0.04),
        ("dapo", Aggregation::TokenMean, |c| c.clip_high = 0.28),
        ("dr_grpo", Aggregation::Constant { length: 16 }, |_| {}),
        ("gspo", Aggregation::SequenceMean, |c| {
            (c.surrogate, c.clip_low, c.clip_high) = (Surrogate::Sequence, 0.03, 0.04);
        }),
        ("cispo", Aggregation::TokenMean, |c| c.surrogate = Surrogate::Cispo),
        ("dual_clip_k2_entropy", Aggregation::SequenceMean, |c| {
            (c.dual_clip, c.kl_coefficient, c.kl_estimator) = (Some(1.1), 0.1, KlEstimator::K2);
            c.entropy_coefficient = 0.05;
        }),
    ];
    let config = |change: &dyn Fn(&mut GrpoConfig)| {
        let mut config = GrpoConfig { kl_coefficient: 0.0, ..GrpoConfig::default() };
        change(&mut config);
        Box::new(Grpo::new(config).unwrap()) as Box<dyn Objective>
    };
    let preference = |loss| Box::new(Preference::new(PreferenceConfig { loss, beta: 0.3 }).unwrap());
    let mut all: Vec<_> =
        variants.into_iter().map(|(name, aggregation, change)| (name, config(&change), aggregation)).collect();
    all.push((
        "truncated_correction",
        config(&|c| {
            (c.correction, c.kl_coefficient, c.kl_estimator) = (truncated, 0.1, KlEstimator::K1);
        }),
        Aggregation::TokenMean,
    ));
    all.push(("masked_correction", config(&|c| c.correction = masked), Aggregation::TokenMean));
    all.push(("sft", Box::new(Sft), Aggregation::TokenMean));
    all.push(("dpo", preference(PreferenceLoss::Dpo), Aggregation::SequenceMean));
    all.push(("ipo", preference(PreferenceLoss::Ipo), Aggregation::SequenceMean));
    all
}

#[test]
fn losses_and_gradients_are_pytorchs() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let lengths: Vec<usize> = numbers(&vectors["lengths"]).iter().map(|&n| n as usize).collect();
    let offsets: Vec<usize> = std::iter::once(0)
        .chain(lengths.iter().scan(0, |at, n| {
            Some({
                *at += n;
                *at
            })
        }))
        .collect();
    let column = |name: &str| floats(&vectors[name]);
    let (logprobs, entropy, advantages) = (column("logprobs"), column("entropy"), column("advantages"));
    let (old, reference, rollout) = (column("old"), column("reference"), column("rollout"));
    let objectives = objectives();
    assert_eq!(objectives.len(), vectors["cases"].as_object().unwrap().len(), "every case is compared");
    for (name, objective, aggregation) in objectives {
        let expected = &vectors["cases"][name];
        let pairs = lengths.len() / 2;
        let weights = match name {
            "dpo" | "ipo" => vec![1.0 / pairs as f32; lengths.len()],
            _ => aggregation.weights(&lengths),
        };
        let outputs = objective
            .loss(&LossInputs {
                offsets: &offsets,
                weights: &weights,
                logprobs: &logprobs,
                entropy: Some(&entropy),
                old_logprobs: Some(&old),
                reference_logprobs: Some(&reference),
                rollout_logprobs: Some(&rollout),
                advantages: &advantages,
            })
            .unwrap();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + b.abs());
        let loss = expected["loss"].as_f64().unwrap();
        assert!(close(outputs.loss, loss), "{name}: loss {} against {loss}", outputs.loss);
        let gradient = numbers(&expected["logprob_gradient"]);
        for (t, (&ours, &theirs)) in outputs.logprob_gradient.iter().zip(&gradient).enumerate() {
            assert!(close(f64::from(ours), theirs), "{name}: token {t} has gradient {ours} against {theirs}");
        }
        assert!(gradient.iter().any(|&g| g != 0.0));
        assert_eq!(outputs.entropy_gradient.is_some(), !expected["entropy_gradient"].is_null(), "{name}");
        if let Some(ours) = outputs.entropy_gradient {
            let theirs = numbers(&expected["entropy_gradient"]);
            assert!(ours.iter().zip(theirs).all(|(&a, b)| close(f64::from(a), b)), "{name}: entropy");
        }
    }
}
