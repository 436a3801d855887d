//! What goes wrong on a GPU, made to happen on the host: a step is skipped and counted, or the run ends with a clear
//! error; the last checkpoint is whole, and a run that resumes from it ends in the same bits.

use std::path::Path;
use std::sync::Arc;

use gristmill::backend::{Backend, Cpu, Cuda, Heads};
use gristmill::engine::local::LocalEngine;
use gristmill::engine::{Engine, Generated, Request, SampleSeed, Sampling};
use gristmill::model::memory::Limits;
use gristmill::model::{Config, Model, SharedModel, Tokenizer};
use gristmill::schema::{Message, Role};
use gristmill::train::{
    Cadence, Checkpoints, GrpoTrainer, GrpoTrainerConfig, Observer, Offline, OptimizerConfig, ScoredCompletion,
    ScoredGroup, Sequence, SftConfig, SftTrainer, StepMetrics, Trainer, resume, run,
};
use gristmill::{Error, Result};

use crate::host::{Fault, Host};
use crate::model::{configs, model};
use crate::shim::on_host;

fn bits(model: &SharedModel<Cuda>) -> Vec<u32> {
    let model = model.read();
    model.parameters().iter().flat_map(|info| model.get(info)).map(f32::to_bits).collect()
}

/// GRPO on four stored groups, two a step.
fn grpo(host: &Arc<Host>) -> GrpoTrainer<'static, Cuda> {
    let model = SharedModel::new(model(Cuda::on(host.clone()), &configs()[0]));
    let completion = |i: u32, reward: f64| ScoredCompletion {
        tokens: (0..4).map(|t| (11 * i + t) % 110).collect(),
        logprobs: None,
        reward: Some(reward),
        scores: Vec::new(),
        truncated: false,
    };
    let group = |i: u32| ScoredGroup {
        prompt_id: format!("prompt-{i}"),
        policy_step: 0,
        prompt: vec![i + 1, i + 2],
        completions: vec![completion(2 * i, 1.0), completion(2 * i + 1, 0.0)],
    };
    let config = GrpoTrainerConfig {
        steps: 8,
        prompts_per_rollout: 2,
        minibatches: 1,
        tokens_per_microbatch: 32,
        shuffle: false,
        objective: gristmill::train::objective::GrpoConfig { kl_coefficient: 0.0, ..Default::default() },
        optimizer: OptimizerConfig { max_bad_steps: 2, ..OptimizerConfig::default() },
        ..GrpoTrainerConfig::default()
    };
    GrpoTrainer::new(model, None, Offline((0..4).map(group).collect::<Vec<_>>()), config).unwrap()
}

#[test]
fn a_gradient_that_is_no_number_is_skipped_counted_and_in_the_end_stops_the_run_with_the_prompts() {
    if !on_host() {
        return;
    }
    let host = Arc::new(Host::default());
    let mut trainer = grpo(&host);
    let before = bits(trainer.model());
    let nan = Fault::Nan("swiglu_backward", 1);
    host.fail(nan);
    let skipped = trainer.advance().unwrap().remove(0);
    assert_eq!(skipped.skipped, Some(1.0));
    assert!(skipped.grad_norm.is_some_and(|norm| !norm.is_finite()), "{:?}", skipped.grad_norm);
    assert_eq!(bits(trainer.model()), before, "a skipped step changes nothing");
    let good = trainer.advance().unwrap().remove(0);
    assert_eq!(good.skipped, Some(0.0), "nothing of it is left");
    assert_ne!(bits(trainer.model()), before);
    host.fail(nan);
    assert_eq!(trainer.advance().unwrap()[0].skipped, Some(1.0));
    host.fail(nan);
    let error = trainer.advance().unwrap_err().to_string();
    assert!(error.contains("2 steps in a row") && error.contains("prompts prompt-2, prompt-3"), "{error}");
}

/// A long row comes fifth. Its activations were planned for; the lists of its rows that go over to the device were not.
fn sft(host: &Arc<Host>) -> SftTrainer<'static, Cuda> {
    let row = |i: u32| {
        let tokens: Vec<u32> = (0..if i == 4 { 24 } else { 6 }).map(|t| (7 * i + 3 * t) % 110).collect();
        Sequence::completion(&tokens[..2], &tokens[2..])
    };
    let model = SharedModel::new(model(Cuda::on(host.clone()), &configs()[0]));
    let config =
        SftConfig { steps: 6, batch_size: 1, tokens_per_microbatch: 8, shuffle: false, ..SftConfig::default() };
    SftTrainer::new(model, (0..6).map(row).collect::<Vec<_>>(), config).unwrap()
}

/// Arms a fault after a step.
struct Arming<'a>(&'a Host, u64, Option<Fault>);

impl Observer for Arming<'_> {
    fn on_step(&mut self, metrics: &StepMetrics) -> Result<()> {
        if metrics.step + 1 == self.1 {
            self.2.take().into_iter().for_each(|fault| self.0.fail(fault));
        }
        Ok(())
    }
}

const EVERY_STEP: Cadence = Cadence { evaluate_every: 0, checkpoint_every: 1, evaluate_before: false };

/// Runs into a fault, and again from the last checkpoint on a device that works. The error, the step of that
/// checkpoint, and whether the run ended in the bits of one without a fault.
fn stopped(after: u64, fault: Fault) -> (Error, u64, bool) {
    let dir = tempfile::tempdir().unwrap();
    let folder = |path: &Path| Checkpoints::open(path, 2).unwrap();
    let host = Arc::new(Host::default());
    let error = {
        let mut trainer = sft(&host);
        run(&mut trainer, Some(&folder(dir.path())), EVERY_STEP, &mut Arming(&host, after, Some(fault))).unwrap_err()
    };
    let checkpoints = folder(dir.path());
    checkpoints.latest().unwrap().expect("steps before the fault left one").verify().unwrap();
    let mut resumed = sft(&Arc::new(Host::default()));
    let step = resume(&mut resumed, &checkpoints).unwrap().unwrap().step;
    run(&mut resumed, Some(&checkpoints), EVERY_STEP, &mut Arming(&host, 0, None)).unwrap();
    let mut straight = sft(&Arc::new(Host::default()));
    run(&mut straight, None, EVERY_STEP, &mut Arming(&host, 0, None)).unwrap();
    (error, step, bits(resumed.model()) == bits(straight.model()))
}

#[test]
fn out_of_memory_in_the_middle_of_a_run_leaves_the_last_checkpoint() {
    if !on_host() {
        return;
    }
    let (error, step, same) = stopped(2, Fault::Memory(1));
    assert_eq!((step, same), (4, true));
    let said = format!("{error:?}");
    assert!(said.contains("on the GPU: the GPU has no ") && said.contains("bytes more"), "{said}");
    assert!(said.contains("lower the micro-batch"), "{said}");
}

#[test]
fn a_device_that_dies_in_the_middle_of_an_update_leaves_no_checkpoint_of_it() {
    if !on_host() {
        return;
    }
    // In the third step's update: some tensors have moved, some have not.
    let (error, step, same) = stopped(2, Fault::Dead("adamw", 3, "uncorrectable ECC error encountered"));
    assert_eq!((step, same), (2, true));
    assert!(error.to_string().contains("adamw on the GPU: uncorrectable ECC error"), "{error}");
    // In a forward pass.
    let (error, step, same) = stopped(1, Fault::Dead("attention_64", 1, "an illegal memory access was encountered"));
    assert_eq!((step, same), (1, true));
    assert!(error.to_string().contains("attention on the GPU: an illegal memory access"), "{error}");
}

#[test]
fn a_device_that_dies_in_a_backward_pass_is_no_gradient_to_skip() {
    if !on_host() {
        return;
    }
    let host = Arc::new(Host::default());
    let mut trainer = grpo(&host);
    host.fail(Fault::Dead("attention_dkv_64", 1, "unspecified launch failure"));
    let error = trainer.advance().unwrap_err().to_string();
    assert!(error.contains("unspecified launch failure"), "{error}");
}

#[test]
fn shapes_that_the_kernels_do_not_cover_are_told_with_what_they_cover() {
    let heads = |dim| Heads { query: 2, kv: 1, dim };
    for (dim, vocab, word) in [
        (300, 100, "up to 256 dimensions, not 300"),
        (0, 100, "up to 256 dimensions, not 0"),
        (64, 300_000, "up to 262144 tokens, not 300000"),
    ] {
        let error = Cuda::covers(heads(dim), vocab).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    for dim in [2, 8, 12, 256] {
        assert!(Cuda::covers(heads(dim), 1 << 18).is_ok());
    }
    assert!(Cpu::covers(heads(12), 300_000).is_ok());
    assert!(Cpu::covers(heads(300), 100).unwrap_err().to_string().contains("not 300"));
    // A model's folder is refused before its weights are read.
    let dir = tempfile::tempdir().unwrap();
    let config = Config::fresh(10, 24, 16, 1, heads(258), 32, &[1]).unwrap();
    Model::init(config, 1).save(dir.path(), gristmill::model::Dtype::F32).unwrap();
    let error = Model::load_on(Cuda::on(Arc::new(Host::default())), dir.path()).err().unwrap().to_string();
    assert!(error.contains("not 258") && error.contains(&dir.path().display().to_string()), "{error}");
}

#[test]
fn a_model_that_does_not_fit_is_told_when_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    Model::init(configs()[0].clone(), 1).save(dir.path(), gristmill::model::Dtype::F32).unwrap();
    let host = Arc::new(Host::default());
    host.fail(Fault::Memory(5));
    let error = Model::load_on(Cuda::on(host), dir.path()).err().unwrap().to_string();
    assert!(error.contains("loading the model: allocation on the GPU"), "{error}");
}

/// Answers of an engine on the CUDA backend with so many bytes of cache.
fn answers(cache_bytes: usize, batch: usize) -> (Vec<Generated>, u64) {
    let words: Vec<String> =
        ["<unk>", "<end>"].map(String::from).into_iter().chain((0..108).map(|i| format!("w{i}"))).collect();
    let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
    let tokenizer = Tokenizer::words(&words, "<unk>", "<end>", template).unwrap();
    let model = SharedModel::new(model(Cuda::on(Arc::new(Host::default())), &configs()[1]));
    let limits = Limits { batch: Some(batch), cache_bytes: Some(cache_bytes), prefill: Some(16) };
    let engine = LocalEngine::new(model, Arc::new(tokenizer), "tiny", limits).unwrap();
    let sampling = Arc::new(Sampling { temperature: 1.0, top_p: 1.0, max_tokens: 20, ..Sampling::default() });
    let request = |i: usize| Request {
        prompt_id: format!("p{i}").into(),
        messages: [Message { role: Role::User, content: format!("w{i} w{}", i + 40).repeat(1 + 3 * i) }].into(),
        samples: (0..3).map(|s| SampleSeed { index: s, seed: 100 * i as u64 + u64::from(s) }).collect(),
        sampling: sampling.clone(),
        policy_step: 0,
    };
    let mut all = Vec::new();
    engine
        .generate(&mut (0..3).map(request), &mut |generated| {
            all.push(generated);
            Ok(())
        })
        .unwrap();
    all.sort_by_key(|g| (g.prompt_id.clone(), g.sample_index));
    (all, engine.displacements())
}

#[test]
fn a_pool_of_pages_that_is_too_small_costs_time_and_changes_nothing() {
    if !on_host() {
        return;
    }
    // 16 tokens of 2 layers, 2 · 1 heads of 24, in bf16.
    let page = 16 * 2 * 2 * 24 * 2;
    let (want, ample) = answers(1 << 20, 8);
    let (found, displaced) = answers(5 * page, 8);
    assert_eq!(found, want);
    assert!(ample == 0 && displaced > 0, "{displaced} sequences gave way");
}
