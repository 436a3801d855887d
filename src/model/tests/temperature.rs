//! A policy at a temperature: its logits divided by it, in scores and gradients and in what servers get.

use super::*;

fn at(temperature: f32) -> Model {
    let mut model = mini(2);
    // Norms that differ from weight to weight, as trained ones do.
    let norm = model.parameters().iter().find(|info| info.name == "model.norm.weight").unwrap().clone();
    model.set(&norm, &(0..norm.len()).map(|i| 0.5 + i as f32 / 40.0).collect::<Vec<_>>());
    model.publish();
    model.set_temperature(temperature).unwrap();
    model
}

/// The model whose last norm has the temperature in it: the same policy, at temperature 1.
fn with_norm_divided(temperature: f32) -> Model {
    let mut model = at(1.0);
    let norm = model.parameters().iter().find(|info| info.name == "model.norm.weight").unwrap().clone();
    let divided: Vec<f32> = model.get(&norm).iter().map(|w| w / temperature).collect();
    model.set(&norm, &divided);
    model.publish();
    model
}

#[test]
fn scores_are_of_the_divided_logits() {
    let (batch, temperature) = (corpus(5), 0.7f32);
    let logits = at(1.0).logits(&mut at(1.0).workspace(), &batch).unwrap();
    let scores = at(temperature).forward(&mut at(temperature).workspace(), &batch).unwrap();
    for (i, row) in logits.chunks_exact(110).enumerate() {
        let divided: Vec<f64> = row.iter().map(|&z| f64::from(z) / f64::from(temperature)).collect();
        let lse = divided.iter().map(|z| z.exp()).sum::<f64>().ln();
        let logprob = divided[batch.targets[i] as usize] - lse;
        let entropy = divided.iter().map(|z| (lse - z) * (z - lse).exp()).sum::<f64>();
        assert!((f64::from(scores.logprobs[i]) - logprob).abs() < 1e-5, "{i}");
        assert!((f64::from(scores.entropies[i]) - entropy).abs() < 1e-5, "{i}");
    }
}

#[test]
fn gradients_are_by_the_weights_as_they_are() {
    let batch = corpus(7);
    // Halves and doubles are exact in f32, so the two ways must agree to the bit.
    for temperature in [0.5f32, 2.0] {
        let gradient = |model: &Model| {
            let (mut work, mut grads) = (model.workspace(), model.grads());
            let scores = model.forward(&mut work, &batch).unwrap();
            model.backward(&mut work, &batch, &scores.logprobs, Some(&scores.entropies), &mut grads).unwrap();
            grads
        };
        let (model, other) = (at(temperature), with_norm_divided(temperature));
        let (ours, theirs) = (gradient(&model), gradient(&other));
        for info in model.parameters() {
            let by_chain_rule = |g: f32| if info.name == "model.norm.weight" { g / temperature } else { g };
            let theirs: Vec<u32> = theirs.get(info).into_iter().map(|g| by_chain_rule(g).to_bits()).collect();
            assert_eq!(ours.get(info).into_iter().map(f32::to_bits).collect::<Vec<_>>(), theirs, "{}", info.name);
        }
    }
}

#[test]
fn an_update_is_seen_at_the_temperature_too() {
    let batch = corpus(3);
    let mut model = at(0.7);
    let norm = model.parameters().iter().find(|info| info.name == "model.norm.weight").unwrap().clone();
    let before = model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
    model.set(&norm, &vec![2.0; norm.len()]);
    model.publish();
    assert_ne!(model.forward(&mut model.workspace(), &batch).unwrap().logprobs, before);
    model.set_temperature(1.0).unwrap();
    let mut plain = at(1.0);
    plain.set(&norm, &vec![2.0; norm.len()]);
    plain.publish();
    let logprobs = |model: &Model| model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
    assert_eq!(logprobs(&model), logprobs(&plain), "and nothing of it stays");
    assert!(model.set_temperature(0.0).is_err() && model.set_temperature(f32::NAN).is_err());
}

#[test]
fn checkpoints_hold_the_weights_and_servers_get_the_policy() {
    let (model, batch) = (at(0.7), corpus(3));
    let (saved, served) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    model.save(saved.path(), Dtype::F32).unwrap();
    model.save_untied(served.path(), Dtype::F32).unwrap();
    assert_eq!(Model::load(saved.path()).unwrap().digest(), at(1.0).digest());
    let served = Model::load(served.path()).unwrap();
    let logprobs = |model: &Model| model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
    assert_eq!(logprobs(&served), logprobs(&model), "at temperature 1 it is the policy at its own");
}

#[test]
fn every_device_that_has_the_model_has_its_temperature() {
    let (config, batch) = (at(1.0).config().clone(), corpus(3));
    let mut model = Model::init_on(Cpu::with_threads(2).unwrap().as_devices(3), config.clone(), 5);
    let plain = model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
    model.set_temperature(0.7).unwrap();
    for device in 0..3 {
        let copy = model.on(device);
        let scores = copy.forward(&mut copy.workspace(), &batch).unwrap();
        assert_eq!(copy.temperature(), 0.7);
        assert_eq!(scores.logprobs, model.forward(&mut model.workspace(), &batch).unwrap().logprobs);
        assert_ne!(scores.logprobs, plain);
    }
}
