use super::super::optimizer::OptimizerKind;
use super::super::schedule::Decay;
use super::super::trainer::testing::{VOCAB, assert_resumes_bit_for_bit, shared, tiny_model, train};
use super::*;
use crate::seed::Rng;

/// "a b →" is answered by b, a: something one layer of attention can learn.
fn corpus(rows: usize) -> Vec<Sequence> {
    let mut rng = Rng::new(5);
    let mut token = || 2 + rng.below(u64::from(VOCAB) - 2) as u32;
    (0..rows)
        .map(|_| {
            let (a, b) = (token(), token());
            Sequence::completion(&[a, b, 1], &[b, a, 0])
        })
        .collect()
}

#[test]
fn a_run_of_no_steps_is_refused() {
    let config = SftConfig { epochs: 0, ..SftConfig::default() };
    let error = SftTrainer::new(shared(1), vec![Sequence::completion(&[1], &[2])], config).err().unwrap().to_string();
    assert!(error.contains("`epochs` and `steps` are both 0"), "{error}");
}

fn config(kind: OptimizerKind) -> SftConfig {
    SftConfig {
        steps: 10,
        batch_size: 8,
        tokens_per_microbatch: 20,
        schedule: Schedule { learning_rate: 0.01, decay: Decay::Cosine, warmup_steps: 2, ..Schedule::default() },
        optimizer: OptimizerConfig { kind, weight_decay: 0.1, ..OptimizerConfig::default() },
        seed: 3,
        ..SftConfig::default()
    }
}

#[test]
fn training_lowers_the_loss_with_both_optimizers() {
    for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
        let settings = SftConfig { steps: 150, ..config(kind) };
        let mut trainer = SftTrainer::new(shared(1), corpus(64), settings).unwrap();
        let steps = train(&mut trainer);
        let (first, last) = (steps[0].loss.unwrap(), steps[149].loss.unwrap());
        assert!((first - f64::from(VOCAB).ln()).abs() < 0.2, "a fresh model is uniform: {first}");
        assert!(last < 0.5 * first, "{kind:?}: {first} → {last}");
        assert_eq!(steps[0].tokens, Some(24.0));
    }
}

#[test]
fn a_killed_run_resumes_bit_for_bit() {
    for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
        assert_resumes_bit_for_bit(|| SftTrainer::new(shared(1), corpus(30), config(kind)).unwrap(), 5);
    }
}

#[test]
fn the_loss_does_not_depend_on_how_the_batch_is_cut() {
    let first_step = |tokens_per_microbatch| {
        let settings = SftConfig { tokens_per_microbatch, ..config(OptimizerKind::Adamw) };
        let mut trainer = SftTrainer::new(shared(1), corpus(30), settings).unwrap();
        let metrics = trainer.advance().unwrap().remove(0);
        (metrics.loss.unwrap(), metrics.grad_norm.unwrap())
    };
    let whole = first_step(10_000);
    for budget in [1, 10, 23] {
        let cut = first_step(budget);
        assert!((cut.0 - whole.0).abs() < 1e-6 && (cut.1 - whole.1).abs() < 1e-5, "{cut:?} against {whole:?}");
    }
}

#[test]
fn a_row_that_cannot_be_trained_on_ends_the_run_and_is_named() {
    for (row, fault) in [(&[2][..], "33 tokens do not fit the model's context of 24"), (&[], "no token to train on")] {
        let mut data = corpus(6);
        data.push(Sequence::completion(&[1; 32], row));
        let settings = SftConfig { shuffle: false, ..config(OptimizerKind::Adamw) };
        let error = SftTrainer::new(shared(1), data, settings).unwrap().advance().unwrap_err().to_string();
        assert!(error.contains("sequence 6 cannot be trained on") && error.contains(fault), "{error}");
    }
}

#[test]
fn an_empty_corpus_is_an_error() {
    let empty: Vec<Sequence> = Vec::new();
    let error = SftTrainer::new(shared(1), empty, SftConfig::default()).err().unwrap();
    assert!(error.to_string().contains("no rows"));
}

#[test]
fn weights_that_are_not_finite_are_named_at_the_first_step() {
    let mut model = tiny_model(1);
    let embedding = model.parameters()[0].clone();
    let mut values = model.get(&embedding);
    values.fill(f32::NAN);
    model.set(&embedding, &values);
    model.publish();
    let mut trainer = SftTrainer::new(SharedModel::new(model), corpus(30), config(OptimizerKind::Adamw)).unwrap();
    let error = trainer.advance().unwrap_err().to_string();
    assert!(error.contains("NaN"), "{error}");
}

#[test]
fn more_epochs_than_steps_can_be_counted_are_as_many_as_can() {
    let config = SftConfig { epochs: u64::MAX, batch_size: 4, ..SftConfig::default() };
    assert_eq!(SftTrainer::new(shared(1), corpus(30), config).unwrap().total_steps(), u64::MAX);
}

#[test]
fn validation_is_the_mean_over_tokens_and_changes_no_bit_of_the_training() {
    let held_out = || corpus(70).split_off(61);
    let make = |validation: Vec<Sequence>| {
        SftTrainer::with_validation(shared(1), corpus(30), validation, config(OptimizerKind::Adamw)).unwrap()
    };
    let (mut plain, mut measured) = (make(Vec::new()), make(held_out()));
    assert_eq!(plain.validate().unwrap(), None);
    let before = measured.validate().unwrap().unwrap();
    assert!((before - f64::from(VOCAB).ln()).abs() < 0.2, "a fresh model is uniform: {before}");
    // Rows of their own, one after the other.
    let sequences = held_out();
    let micros = measured.learner.pack(&sequences.iter().collect::<Vec<_>>(), 1, 1);
    assert_eq!(micros.len(), 9);
    let logprobs: Vec<f32> = measured.learner.score(&micros).unwrap().into_iter().flat_map(|s| s.logprobs).collect();
    let mean = -logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() / 27.0;
    assert!(logprobs.len() == 27 && (before - mean).abs() < 1e-12, "{before} {mean}");
    for _ in 0..3 {
        let (a, b) = (plain.advance().unwrap(), measured.advance().unwrap());
        measured.validate().unwrap();
        assert_eq!((a[0].loss, a[0].grad_norm), (b[0].loss, b[0].grad_norm));
    }
    assert!(measured.validate().unwrap().unwrap() < before);
}
