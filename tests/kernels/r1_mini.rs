//! The embedded recipe on the CUDA backend: its models are tiny, so their heads and rows are sizes that no large model has.

use std::process::Command;
use std::sync::Arc;

use gristmill::backend::{Backend, Cpu, Cuda, Heads};
use gristmill::model::Config;
use gristmill::procedural::mini::vocabulary;

use crate::gpu;
use crate::host::{Host, cuda};
use crate::model::{decode, model, same_curve, train};
use crate::shim::on_host;

const RECIPE: &str = include_str!("../../datasets/r1_mini.toml");

/// The models that the recipe makes from nothing, by stage; all others are trained from these.
fn models() -> Vec<(String, Config)> {
    let recipe: toml::Table = RECIPE.parse().unwrap();
    let stages = recipe["stages"].as_table().unwrap().iter();
    let new = stages.filter_map(|(name, stage)| Some((name, stage.get("init")?)));
    new.map(|(name, init)| {
        assert_eq!(init["tokenizer"].as_str(), Some("mini"));
        let size = |key: &str| Some(init.get(key)?.as_integer().unwrap() as usize);
        let [hidden, intermediate, layers, query, context] =
            ["hidden", "intermediate", "layers", "heads", "context"].map(|key| size(key).unwrap());
        let heads =
            Heads { query, kv: size("kv_heads").unwrap_or(query), dim: size("head_dim").unwrap_or(hidden / query) };
        let vocab = vocabulary().len();
        (name.clone(), Config::fresh(vocab, hidden, intermediate, layers, heads, context, &[2]).unwrap())
    })
    .collect()
}

#[test]
fn every_model_of_the_recipe_is_covered() {
    let models = models();
    assert_eq!(models.len(), 2, "the base and the student");
    for (name, config) in models {
        Cuda::covers(config.heads, config.vocab_size).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_dry_run_on_a_gpu_refuses_no_stage() {
    if gpu::device().is_some() {
        println!("skipped on a GPU: benches/gpu/r1_mini.sh runs the recipe itself");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["run", "r1_mini", "--set", "device=cuda", "--dry-run", "--out"])
        .arg(out.path().join("run"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let trained = ["base", "r1_zero", "cold_start", "sft", "final_rl", "r1", "student_base", "student_rl", "eval"];
    for stage in trained {
        assert!(said.contains(stage), "{stage}: {said}");
    }
    assert!(said.matches("on a GPU").count() + said.matches("on the GPU").count() >= trained.len(), "{said}");
}

/// Each model's training and decoding on this backend, beside the CPU's.
fn compare(gpu: &Cuda) {
    for (name, config) in models() {
        println!("{name}");
        for muon in [true, false] {
            same_curve(train(model(Cpu::new(), &config), 3, muon).0, train(model(gpu.clone(), &config), 3, muon).0);
        }
        let (there, reference) = (model(gpu.clone(), &config), model(Cpu::new(), &config));
        let prompt: Vec<u32> = (0..21).map(|i| i * 5 % 110).collect();
        let sequences = decode(&there, &prompt, 12);
        let mut batch = gristmill::model::Batch::new();
        for drawn in &sequences {
            batch.push_completion(&prompt, &drawn.iter().map(|d| d.token).collect::<Vec<_>>());
        }
        let cpu = reference.forward(&mut reference.workspace(), &batch).unwrap().logprobs;
        for (sampled, cpu) in sequences.iter().flatten().map(|d| d.logprob).zip(cpu) {
            assert!((sampled - cpu).abs() < 0.03, "{name}: sampled {sampled}, {cpu} on the CPU");
        }
    }
}

#[test]
fn its_models_learn_and_decode_as_on_the_cpu() {
    if let Some(gpu) = cuda() {
        compare(&gpu);
    }
}

#[test]
pub fn and_where_cublaslt_has_no_algorithm_for_any_of_their_shapes() {
    if gpu::device().is_none() && on_host() {
        let host = Arc::new(Host::without_algorithms());
        compare(&Cuda::on(host.clone()));
        assert!(host.refused() > 0);
    }
}
