//! The decoder over the CUDA backend: training and decoding against the CPU's, and against itself.
//! On the GPU where one was asked for (`GRISTMILL_TEST_DEVICE=cuda`), else with the kernels on the host.

use std::sync::Arc;

use gristmill::backend::cuda::matmul::WORKSPACE;
use gristmill::backend::{AdamW, Backend, Cpu, Cuda, Draw, Drawn, Heads, Muon};
use gristmill::model::memory::{Load, estimate};
use gristmill::model::{Batch, Config, Decoder, LoraConfig, Model, ParamKind, Row, Update};
use half::bf16;
use serde_json::json;

use crate::gpu;
use crate::host::{Host, cuda};
use crate::shim::on_host;

/// Llama with tensor-core heads, and Qwen3 with biases, an untied head and heads that only the plain kernels cover.
pub fn configs() -> [Config; 2] {
    let fresh = |dim| Config::fresh(110, 64, 96, 2, Heads { query: 2, kv: 1, dim }, 64, &[1]).unwrap();
    let mut raw = fresh(24).raw().clone();
    for (key, value) in [
        ("architectures", json!(["Qwen3ForCausalLM"])),
        ("attention_bias", json!(true)),
        ("tie_word_embeddings", json!(false)),
    ] {
        raw.insert(key.to_owned(), value);
    }
    [fresh(64), Config::from_json(raw).unwrap()]
}

/// A model whose weights bf16 holds exactly: both backends start from the same.
pub fn model<B: Backend>(backend: B, config: &Config) -> Model<B> {
    let mut model = Model::init_on(backend, config.clone(), 3);
    for info in model.parameters().to_vec() {
        // Larger than a fresh model's, so that its distributions are not flat.
        let scale = if info.kind == ParamKind::Norm { 1.0 } else { 4.0 };
        let values: Vec<f32> = model.get(&info).iter().map(|x| bf16::from_f32(x * scale).to_f32()).collect();
        model.set(&info, &values);
    }
    model.publish();
    model
}

/// Two sequences, scored from their third token on.
fn batch() -> Batch {
    let mut batch = Batch::new();
    for (n, step) in [(19u32, 7), (12, 13)] {
        let tokens: Vec<u32> = (0..n).map(|i| (i * step + 3) % 110).collect();
        batch.push(&tokens, |i| i > 2);
    }
    batch
}

/// What a few steps of cross-entropy give: the loss before each, and the weights after the last.
pub fn train<B: Backend>(model: Model<B>, steps: u64, muon: bool) -> (Vec<f64>, Vec<Vec<f32>>) {
    train_with(model, steps, muon, false)
}

fn train_with<B: Backend>(mut model: Model<B>, steps: u64, muon: bool, offload: bool) -> (Vec<f64>, Vec<Vec<f32>>) {
    let (mut work, mut grads) = (model.workspace(), model.grads());
    let mut moments = if offload { model.moments_on_host() } else { model.moments() };
    let batch = batch();
    let seeds = vec![-1.0 / batch.scored() as f32; batch.scored()];
    let mut losses = Vec::new();
    for step in 1..=steps {
        let scores = model.forward(&mut work, &batch).unwrap();
        losses.push(-scores.logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() / batch.scored() as f64);
        grads.zero();
        model.backward(&mut work, &batch, &seeds, None, &mut grads).unwrap();
        let adamw = AdamW { lr: 2e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step, grad_scale: 1.0 };
        let rule = Muon { lr: 0.02, momentum: 0.9, nesterov: true, weight_decay: 0.0, iterations: 5, grad_scale: 1.0 };
        model.update(&grads, &mut moments, |info| match info.kind {
            ParamKind::Matrix if muon => Update::Muon(rule),
            _ => Update::AdamW(adamw),
        });
    }
    model.backend().finish().unwrap();
    let weights = model.parameters().iter().map(|info| model.get(info)).collect();
    (losses, weights)
}

#[test]
fn logprobs_and_every_gradient_are_the_cpus_to_the_rounding_of_activations() {
    let Some(gpu) = cuda() else { return };
    for (config, temperature) in configs().into_iter().zip([1.0, 0.7]) {
        let (mut reference, mut model) = (model(Cpu::new(), &config), model(gpu.clone(), &config));
        reference.set_temperature(temperature).unwrap();
        model.set_temperature(temperature).unwrap();
        let batch = batch();
        let (mut work, mut there) = (reference.workspace(), model.workspace());
        let (want, found) = (reference.forward(&mut work, &batch).unwrap(), model.forward(&mut there, &batch).unwrap());
        for (what, want, found) in
            [("logprob", &want.logprobs, &found.logprobs), ("entropy", &want.entropies, &found.entropies)]
        {
            for (want, found) in want.iter().zip(found) {
                assert!((want - found).abs() < 0.03, "{what} {found} for {want}");
            }
        }
        let seeds: Vec<f32> = (0..batch.scored()).map(|i| [-1.0, 0.5][i % 2]).collect();
        let (mut grads, mut grads_there) = (reference.grads(), model.grads());
        reference.backward(&mut work, &batch, &seeds, Some(&vec![0.1; seeds.len()]), &mut grads).unwrap();
        model.backward(&mut there, &batch, &seeds, Some(&vec![0.1; seeds.len()]), &mut grads_there).unwrap();
        assert!((grads.norm() - grads_there.norm()).abs() < 0.02 * grads.norm());
        for info in model.parameters() {
            let (want, found) = (grads.get(info), grads_there.get(info));
            let error: f32 = want.iter().zip(&found).map(|(w, f)| (w - f).powi(2)).sum();
            let size: f32 = want.iter().map(|w| w * w).sum();
            assert!(error.sqrt() <= 0.04 * size.sqrt(), "{}: {} of {}", info.name, error.sqrt(), size.sqrt());
        }
    }
}

#[test]
fn training_follows_the_cpus_curve() {
    let Some(gpu) = cuda() else { return };
    let [config, _] = configs();
    for muon in [false, true] {
        let (here, there) = (model(Cpu::new(), &config), model(gpu.clone(), &config));
        same_curve(train(here, 4, muon).0, train(there, 4, muon).0);
    }
}

#[test]
fn adapters_follow_the_cpus_curve() {
    let Some(gpu) = cuda() else { return };
    let [config, _] = configs();
    let lora = LoraConfig { rank: 8, alpha: 64.0 };
    let here = model(Cpu::new(), &config).with_lora(lora, 1).unwrap();
    let there = model(gpu, &config).with_lora(lora, 1).unwrap();
    same_curve(train(here, 5, false).0, train(there, 5, false).0);
}

pub fn same_curve(want: Vec<f64>, found: Vec<f64>) {
    assert!(want.last().unwrap() < &(0.97 * want[0]), "it learns: {want:?}");
    for (want, found) in want.iter().zip(&found) {
        assert!((want - found).abs() < 0.01 * want, "{found} for {want}");
    }
}

#[test]
fn logits_that_are_kept_change_no_bit_and_take_what_they_were_given() {
    if !on_host() {
        return;
    }
    let [config, _] = configs();
    let host = Arc::new(Host::default());
    let model = model(Cuda::on(host.clone()), &config);
    let batch = batch();
    let seeds: Vec<f32> = (0..batch.scored()).map(|i| [-1.0, 0.5][i % 2]).collect();
    let pass = |bytes: Option<u64>| {
        let (mut work, mut grads) = (model.workspace(), model.grads());
        model.reserve(&mut work, batch.rows()).unwrap();
        let before = host.allocated();
        bytes.iter().for_each(|&bytes| model.keep_logits(&mut work, bytes).unwrap());
        let taken = host.allocated() - before;
        let scores = model.forward(&mut work, &batch).unwrap();
        model.backward(&mut work, &batch, &seeds, None, &mut grads).unwrap();
        let grads: Vec<Vec<f32>> = model.parameters().iter().map(|info| grads.get(info)).collect();
        (taken, scores, grads)
    };
    let all = 4 * Cuda::kept_logits(batch.rows(), config.vocab_size, usize::MAX) as u64;
    let (_, scores, grads) = pass(None);
    for (bytes, taken) in [(0, 0), (4000, 4000), (all, all), (u64::MAX, all)] {
        assert!(pass(Some(bytes)) == (taken, scores.clone(), grads.clone()), "{bytes} bytes");
    }
}

#[test]
fn optimizer_state_in_the_hosts_memory_changes_no_bit() {
    let Some(gpu) = cuda() else { return };
    let [config, _] = configs();
    for muon in [false, true] {
        let run = |offload: bool| train_with(model(gpu.clone(), &config), 2, muon, offload);
        assert!(run(false) == run(true));
    }
}

#[test]
fn optimizer_state_in_the_hosts_memory_takes_none_of_the_devices() {
    if !on_host() {
        return;
    }
    let [config, _] = configs();
    let host = Arc::new(Host::default());
    let there = model(Cuda::on(host.clone()), &config);
    let before = host.allocated();
    let moments = there.moments_on_host();
    assert_eq!((host.allocated() - before, host.pinned()), (0, 8 * there.size() as u64));
    drop(moments);
    assert_eq!(host.pinned(), 0);
}

#[test]
fn two_runs_have_the_same_bits() {
    let Some(gpu) = cuda() else { return };
    let bits = |gpu: Cuda, config: &Config| {
        let (losses, weights) = train(model(gpu, config), 2, true);
        let weights: Vec<u32> = weights.into_iter().flatten().map(f32::to_bits).collect();
        (losses.into_iter().map(f64::to_bits).collect::<Vec<_>>(), weights)
    };
    let [_, config] = configs();
    // The second meets scratch memory that is used, and on the host another order of threads.
    let first = bits(gpu.clone(), &config);
    assert!(first == bits(gpu, &config), "two runs differ");
}

/// Memory of a step on the host, where allocations can be counted.
#[test]
fn the_estimate_is_what_a_step_allocates() {
    if !on_host() {
        return;
    }
    for config in configs() {
        for (recompute, lora) in [(false, None), (true, None), (true, Some(8))] {
            let host = Arc::new(Host::default());
            let mut model = model(Cuda::on(host.clone()), &config);
            if let Some(rank) = lora {
                model = model.with_lora(LoraConfig { rank, alpha: 1.0 }, 1).unwrap();
            }
            let batch = batch();
            let mut work = if recompute { model.recomputing_workspace() } else { model.workspace() };
            let (mut grads, mut moments) = (model.grads(), model.moments());
            model.reserve(&mut work, batch.rows()).unwrap();
            let reserved = host.allocated();
            model.forward(&mut work, &batch).unwrap();
            model.backward(&mut work, &batch, &vec![-1.0; batch.scored()], None, &mut grads).unwrap();
            let rule =
                Muon { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.0, iterations: 1, grad_scale: 1.0 };
            model.update(&grads, &mut moments, |info| match info.kind {
                ParamKind::Matrix if lora.is_none() => Update::Muon(rule),
                _ => Update::Keep,
            });
            let load = Load { rows: batch.rows(), recompute, trains: true, muon: true, lora, ..Load::default() };
            let mut said = estimate::<Cuda>(&config, &load);
            // cuBLASLt's, which the host does not have.
            said.workspace -= WORKSPACE as u64;
            let found = host.allocated();
            assert!(found <= said.total() && said.total() - found < found / 50, "{found} bytes of {said:?}");
            assert!(found - reserved < said.workspace, "only the operations' own memory is taken later");
        }
    }
}

/// Memory of a step on a card, as its driver tells it: that of a model large enough that what allocations are rounded up to
/// is little beside it.
#[test]
fn a_step_takes_no_more_of_a_card_than_the_estimate() {
    let Some(device) = gpu::device() else {
        return println!("skipped: the driver of a GPU is to say what is free");
    };
    let gpu = Cuda::on(device.clone());
    let config = Config::fresh(2048, 256, 1024, 4, Heads { query: 4, kv: 2, dim: 64 }, 512, &[0]).unwrap();
    // Kernels and algorithms are loaded, and scratch memory is taken.
    train(model(gpu.clone(), &config), 1, false);
    let free = || gpu.memory().unwrap().0 as u64;
    let before = free();
    let mut model = model(gpu.clone(), &config);
    let batch = batch();
    let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
    model.forward(&mut work, &batch).unwrap();
    model.backward(&mut work, &batch, &vec![-1.0; batch.scored()], None, &mut grads).unwrap();
    let rule = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
    model.update(&grads, &mut moments, |_| Update::AdamW(rule));
    gpu.finish().unwrap();
    let found = before - free();
    let said = estimate::<Cuda>(&config, &Load { rows: batch.rows(), trains: true, ..Load::default() });
    let buffers = 8 * model.parameters().len() as u64;
    println!("{found} bytes of {said:?}");
    // A driver hands out pages of 2 MiB.
    assert!(found <= said.total() + buffers * (2 << 20), "{found} bytes of {said:?}");
    assert!(found >= said.total() - said.workspace - said.activations, "{found} bytes of {said:?}");
}

/// Decodes `count` tokens of two sequences that share a prompt; their ids and logprobs.
pub fn decode(model: &Model<Cuda>, prompt: &[u32], count: usize) -> Vec<Vec<Drawn>> {
    let mut decoder = Decoder::new(model.backend().clone(), model, 2, 64, 16);
    let shared = prompt.len() - 1;
    let row = |slot: u32, position: usize, token: u32| Row { token, slot, position: position as u32 };
    let rows: Vec<Row> = (0..shared).map(|i| row(0, i, prompt[i])).collect();
    model.prefill(&mut decoder, &rows);
    decoder.share(0, 1, shared);
    let mut sequences = vec![Vec::new(); 2];
    let mut last = [prompt[shared]; 2];
    for i in 0..count {
        let rows: Vec<Row> = [1, 0].map(|slot| row(slot, shared + i, last[slot as usize])).to_vec();
        let draws = [1, 0].map(|slot| Draw {
            temperature: slot as f32,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 5 + slot,
            index: i as u64,
        });
        let mut drawn = [Drawn::default(); 2];
        model.decode(&mut decoder, &rows, &draws, &mut drawn).unwrap();
        for (drawn, slot) in drawn.into_iter().zip([1, 0]) {
            last[slot] = drawn.token;
            sequences[slot].push(drawn);
        }
    }
    sequences
}

#[test]
fn what_is_decoded_scores_as_the_trainer_says_and_as_the_cpu_says() {
    let Some(gpu) = cuda() else { return };
    for (config, temperature) in configs().into_iter().zip([0.7, 1.0]) {
        let (mut model, mut reference) = (model(gpu.clone(), &config), model(Cpu::new(), &config));
        model.set_temperature(temperature).unwrap();
        reference.set_temperature(temperature).unwrap();
        let prompt: Vec<u32> = (0..21).map(|i| i * 5 % 110).collect();
        let sequences = decode(&model, &prompt, 9);
        let mut batch = Batch::new();
        for drawn in &sequences {
            batch.push_completion(&prompt, &drawn.iter().map(|d| d.token).collect::<Vec<_>>());
        }
        let sampled: Vec<f32> = sequences.iter().flatten().map(|d| d.logprob).collect();
        let trainer = model.forward(&mut model.workspace(), &batch).unwrap().logprobs;
        let cpu = reference.forward(&mut reference.workspace(), &batch).unwrap().logprobs;
        for ((sampled, trainer), cpu) in sampled.iter().zip(&trainer).zip(&cpu) {
            assert!((sampled - trainer).abs() < 0.03, "sampled {sampled}, scored {trainer}");
            assert!((sampled - cpu).abs() < 0.03, "sampled {sampled}, {cpu} on the CPU");
        }
        assert_eq!(decode(&model, &prompt, 9), sequences, "the same seeds draw the same tokens");
    }
}
