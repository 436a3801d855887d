//! The mini model against the machine and, side by side, against PyTorch eager.
//!
//! `cargo bench --bench model` prints tokens per second of a training step and of
//! batched decoding, and how much of the machine's measured f32 GEMM rate the
//! step's linear layers reach. With `GRISTMILL_TORCH=python` (an interpreter that
//! has torch) it runs `benches/model_torch.py` in turn with its own and prints the
//! ratios. `GRISTMILL_THREADS` sets the threads of both (2). Times are CPU seconds
//! a thread, so that a busy machine does not blur the ratio, and the best of
//! several runs; wall-clock rates are printed beside.
//!
//! What a step cannot go below: its linear layers and head are 5.9 GFLOP (6.8 were
//! prompts not left out of the last layer and logits not kept), 52 ms of a core that
//! does 113 GFLOP/s. With attention (5 ms backward, 3 ms forward), SwiGLU (3 ms),
//! norms (1.5 ms) and the rest it took 68 ms where it was least disturbed.

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use gristmill::backend::{Backend, Cpu, Heads, Param};
use gristmill::engine::local::LocalEngine;
use gristmill::engine::{Engine, Request, SampleSeed, Sampling};
use gristmill::model::memory::{self, Limits};
use gristmill::model::{Config, Model, Scores, SharedModel, Tokenizer};
use gristmill::schema::{Message, Role};
use gristmill::train::objective::LossOutputs;
use gristmill::train::{Learner, OptimizerConfig, Sequence};

const VOCAB: usize = 110;
const HIDDEN: usize = 64;
const FF: usize = 192;
const LAYERS: usize = 2;
const HEADS: Heads = Heads { query: 4, kv: 2, dim: 16 };
/// R1-mini's shape: prompts of 14 tokens, completions of 29.
const PROMPT: usize = 14;
const COMPLETION: usize = 29;
const SEQUENCES: usize = 256;
const RUNS: usize = 7;

fn main() {
    let threads = std::env::var("GRISTMILL_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let cpu = Cpu::with_threads(threads).expect("threads start");
    let micro = micro();
    println!("threads {threads}, {SEQUENCES} sequences of {PROMPT} + {COMPLETION} tokens, {micro} in a micro-batch");
    let peak = peak(&cpu);
    println!("f32 GEMM, 768 cubed                         {peak:8.1} GFLOP/s of CPU time a thread");
    let linear = linear_rate(&cpu);
    println!("linear layers of a training step            {linear:8.1} GFLOP/s ({:.0}%)", 100.0 * linear / peak);
    let train = train(&cpu);
    report("training", train);
    let decode = decode(&cpu);
    report("decoding", decode);
    if let Ok(python) = std::env::var("GRISTMILL_TORCH") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/model_torch.py");
        let output = Command::new(python).arg(script).arg(threads.to_string()).output().expect("python runs");
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let rate = |what: &str| -> f64 {
            let line = text.lines().find(|l| l.starts_with(what)).expect("the script prints its rates");
            line.split_whitespace().rev().nth(1).and_then(|n| n.parse().ok()).expect("a rate")
        };
        println!("training against PyTorch eager              {:8.2}x", train.0 / rate("torch training"));
        println!("decoding against PyTorch eager              {:8.2}x", decode.0 / rate("torch decoding"));
    }
}

/// Tokens per CPU second a thread times threads, and per second of wall clock.
type Rates = (f64, f64);

fn report(what: &str, (cpu, wall): Rates) {
    println!("{what:<43} {cpu:8.0} tokens/s by CPU time, {wall:.0} by the wall clock");
}

/// CPU seconds this process has used.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Best CPU seconds and best wall seconds of some runs, after one to warm up.
fn best(mut work: impl FnMut()) -> (f64, f64) {
    work();
    let (mut cpu, mut wall) = (f64::MAX, f64::MAX);
    for _ in 0..RUNS {
        let (start, clock) = (cpu_seconds(), Instant::now());
        work();
        cpu = cpu.min(cpu_seconds() - start);
        wall = wall.min(clock.elapsed().as_secs_f64());
    }
    (cpu, wall)
}

fn matrix(cpu: &Cpu, rows: usize, cols: usize) -> Param<Cpu> {
    let value = (0..rows * cols).map(|i| (i % 17) as f32 * 0.01 - 0.08).collect();
    let mut param = Param { value, ready: cpu.ready(rows, cols, true), rows, cols };
    cpu.publish(&mut param);
    param
}

/// GFLOP/s of a large product; the script beside prints PyTorch's for the same.
fn peak(cpu: &Cpu) -> f64 {
    const N: usize = 768;
    let (w, x) = (matrix(cpu, N, N), vec![0.01f32; N * N]);
    let mut y = vec![0.0f32; N * N];
    let flops = 2.0 * (N * N * N) as f64 * 1e-9;
    let ours = best(|| cpu.run(|| cpu.linear(&x, &w, None, N, &mut y))).0;
    small_shapes();
    flops / ours
}

/// GFLOP/s at the mini model's forward shapes, on one thread.
fn small_shapes() {
    let cpu = &Cpu::serial();
    for (m, n, k) in [(32, 128, 64), (512, 128, 64), (2048, 384, 64), (2048, 64, 192)] {
        let (w, x) = (matrix(cpu, n, k), vec![0.01f32; m * k]);
        let mut y = vec![0.0f32; m * n];
        let times = (2_000_000_000 / (2 * m * n * k)).max(1);
        let flops = 2.0 * (m * n * k * times) as f64 * 1e-9;
        let ours = best(|| (0..times).for_each(|_| cpu.linear(&x, &w, None, m, &mut y))).0;
        println!("    {m} x {n} x {k}: {:.1} GFLOP/s", flops / ours);
    }
}

/// GFLOP/s over the forward and both backward products of every linear layer.
fn linear_rate(cpu: &Cpu) -> f64 {
    let rows = micro() * (PROMPT + COMPLETION - 1);
    let shapes = [(HEADS.qkv_width(), HIDDEN), (HIDDEN, HIDDEN), (2 * FF, HIDDEN), (HIDDEN, FF)];
    let weights: Vec<_> = shapes.iter().map(|&(out, input)| matrix(cpu, out, input)).collect();
    let wide = 2 * FF;
    let (x, dy) = (vec![0.01f32; rows * wide], vec![0.01f32; rows * wide]);
    let (mut y, mut dw) = (vec![0.0f32; rows * wide], vec![0.0f32; wide * HIDDEN]);
    let flops: usize = shapes.iter().map(|(out, input)| 6 * rows * out * input).sum();
    let times = (SEQUENCES / micro()).max(1);
    let mut all = 0.0;
    for (pass, name) in ["forward", "dx", "dw"].into_iter().enumerate() {
        let seconds = best(|| {
            cpu.run(|| {
                for w in weights.iter().flat_map(|w| std::iter::repeat_n(w, times)) {
                    match pass {
                        0 => cpu.linear(&x, w, None, rows, &mut y),
                        1 => cpu.linear_dx(&dy, w, rows, &mut y),
                        _ => cpu.linear_dw(&dy, &x, w, rows, &mut dw, None),
                    }
                }
            });
        })
        .0;
        println!("    {name}: {:.1} GFLOP/s", (flops * times) as f64 / 3.0 * 1e-9 / seconds);
        all += seconds;
    }
    (flops * times) as f64 * 1e-9 / all
}

/// Sequences of a micro-batch: as many as the trainer takes together, unless `GRISTMILL_MICRO` says.
fn micro() -> usize {
    let cached = memory::cached_rows::<Cpu>(&config()) / (PROMPT + COMPLETION - 1);
    std::env::var("GRISTMILL_MICRO").ok().and_then(|n| n.parse().ok()).unwrap_or(cached)
}

fn config() -> Config {
    Config::fresh(VOCAB, HIDDEN, FF, LAYERS, HEADS, 128, &[1]).expect("sizes fit")
}

fn train(cpu: &Cpu) -> Rates {
    let model = SharedModel::new(Model::init_on(cpu.clone(), config(), 1));
    let mut learner = Learner::new(model, OptimizerConfig { weight_decay: 0.1, ..Default::default() }).expect("sound");
    let sequence = |i: usize| {
        let tokens: Vec<u32> = (0..PROMPT + COMPLETION).map(|t| ((t * t + i * 7) % VOCAB) as u32).collect();
        Sequence::completion(&tokens[..PROMPT], &tokens[PROMPT..])
    };
    let sequences: Vec<Sequence> = (0..SEQUENCES).map(sequence).collect();
    let micros = learner.pack(&sequences.iter().collect::<Vec<_>>(), 1, micro() * (PROMPT + COMPLETION - 1));
    let share = -1.0 / (SEQUENCES * COMPLETION) as f32;
    let (seconds, wall) = best(|| {
        let loss = |_: usize, scores: &Scores| {
            Ok(LossOutputs { logprob_gradient: vec![share; scores.logprobs.len()], ..LossOutputs::default() })
        };
        learner.accumulate(&micros, loss).expect("a sound batch");
        assert!(learner.step(1e-4, String::new).expect("a finite gradient").applied);
    });
    let tokens = (SEQUENCES * (PROMPT + COMPLETION)) as f64;
    (tokens / seconds * cpu.threads() as f64, tokens / wall)
}

fn decode(cpu: &Cpu) -> Rates {
    let mut words: Vec<String> = ["<unk>", "<end>"].map(String::from).into();
    words.extend((2..VOCAB).map(|i| format!("w{i}")));
    let tokenizer = Tokenizer::words(&words, "<unk>", "<end>", "{{ messages[0].content }}").expect("words are sound");
    let model = Model::init_on(cpu.clone(), config(), 1);
    let limits = Limits { batch: Some(SEQUENCES), ..Limits::default() };
    let engine = LocalEngine::new(SharedModel::new(model), Arc::new(tokenizer), "mini", limits).expect("fits");
    let sampling =
        Arc::new(Sampling { temperature: 1.0, top_p: 1.0, max_tokens: COMPLETION as u32, ..Sampling::default() });
    let requests: Vec<Request> = (0..SEQUENCES / 16)
        .map(|i| {
            let content = (0..PROMPT).map(|t| format!("w{}", 2 + (t * 5 + i) % 100)).collect::<Vec<_>>().join(" ");
            Request {
                prompt_id: i.to_string().into(),
                messages: [Message { role: Role::User, content }].into(),
                samples: (0..16).map(|s| SampleSeed { index: s, seed: (i * 16) as u64 + u64::from(s) }).collect(),
                sampling: sampling.clone(),
                policy_step: 0,
            }
        })
        .collect();
    let mut tokens = 0;
    let (seconds, wall) = best(|| {
        tokens = 0;
        let mut sink = |answer: gristmill::engine::Generated| {
            tokens += answer.completion_tokens.unwrap_or(0);
            Ok(())
        };
        engine.generate(&mut requests.iter().cloned(), &mut sink).expect("the engine answers");
    });
    let tokens = f64::from(tokens);
    (tokens / seconds * cpu.threads() as f64, tokens / wall)
}
