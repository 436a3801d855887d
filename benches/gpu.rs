//! The CUDA backend on a card, for `benches/gpu/all.sh`; without one, a line that says so.
//!
//! `cargo bench --bench gpu -- train 0.5B` prints tokens per second of training steps (forward, backward, AdamW) on
//! random weights of Qwen2.5's shape; `decode 0.5B` of batched decoding; `logprobs 0.5B` of a scoring pass over
//! 16,384 tokens with its peak memory; `all 0.5B` of the three on one model, the scoring first. Each figure is the best of
//! several runs after warming up, with all runs beside it: one JSON object a line, as soon as it is there.

use std::time::Instant;

use gristmill::Result;
use gristmill::backend::{AdamW, Backend, Cuda, Draw, Drawn, Heads};
use gristmill::model::{Batch, Config, Decoder, Model, Row, Update};
use serde_json::json;

/// Steps of a run, and runs.
const STEPS: usize = 10;
const RUNS: usize = 5;
/// Tokens of a packed sequence, and of a micro-batch.
const LENGTH: usize = 1024;
const MICRO: usize = 16_384;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let (work, size) = (args.first().map_or("train", String::as_str), args.get(1).map_or("0.5B", String::as_str));
    let gpu = match Cuda::open(0) {
        Ok(gpu) => gpu,
        Err(error) => return println!("not run: {error}"),
    };
    let works: &[&str] = if work == "all" { &["logprobs", "decode", "train"] } else { &[work] };
    if let Err(error) = bench(&gpu, works, size) {
        eprintln!("{}", error.render(false));
        std::process::exit(1);
    }
}

/// Qwen2.5's published shapes.
fn config(size: &str) -> Result<Config> {
    let (hidden, ff, layers, query, kv, dim) = match size {
        "0.5B" => (896, 4864, 24, 14, 2, 64),
        "1.5B" => (1536, 8960, 28, 12, 2, 128),
        "3B" => (2048, 11_008, 36, 16, 2, 128),
        _ => return Err(gristmill::Error::usage(format!("no shape `{size}`")).hint("0.5B, 1.5B or 3B")),
    };
    let fresh = Config::fresh(151_936, hidden, ff, layers, Heads { query, kv, dim }, 4096, &[151_645])?;
    let mut raw = fresh.raw().clone();
    raw.insert("architectures".to_owned(), json!(["Qwen2ForCausalLM"]));
    Config::from_json(raw)
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u64).map(|i| (i * 2_654_435_761 % 151_000) as u32).collect()
}

fn packed(rows: usize) -> Batch {
    let mut batch = Batch::new();
    let tokens = tokens(rows + rows / LENGTH);
    tokens.chunks(LENGTH + 1).for_each(|sequence| batch.push(sequence, |_| true));
    batch
}

fn bench(gpu: &Cuda, works: &[&str], size: &str) -> Result<()> {
    let mut model = Model::init_on(gpu.clone(), config(size)?, 1);
    gpu.finish()?;
    for &work in works {
        let runs = match work {
            "train" => train(gpu, &mut model)?,
            "logprobs" => logprobs(&model)?,
            "decode" => decode(gpu, &model)?,
            other => {
                return Err(
                    gristmill::Error::usage(format!("no bench `{other}`")).hint("train, decode, logprobs or all")
                );
            }
        };
        let best = runs.iter().copied().fold(0.0, f64::max);
        let (free, all) = gpu.memory()?;
        let used = all - free;
        println!(
            "{}",
            json!({ "bench": work, "size": size, "tokens_per_second": best, "runs": runs, "memory_used": used })
        );
    }
    Ok(())
}

/// Tokens per second of each run of `work`, which does some and waits for them.
fn measure(mut work: impl FnMut() -> Result<usize>) -> Result<Vec<f64>> {
    work()?;
    let timed = |_| -> Result<f64> {
        let start = Instant::now();
        let tokens = work()?;
        Ok(tokens as f64 / start.elapsed().as_secs_f64())
    };
    (0..RUNS).map(timed).collect()
}

fn train(gpu: &Cuda, model: &mut Model<Cuda>) -> Result<Vec<f64>> {
    let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
    let batch = packed(MICRO);
    let seeds = vec![-1.0 / batch.scored() as f32; batch.scored()];
    let mut step = 0;
    measure(|| {
        for _ in 0..STEPS {
            step += 1;
            model.forward(&mut work, &batch)?;
            grads.zero();
            model.backward(&mut work, &batch, &seeds, None, &mut grads)?;
            let grad_scale = 1.0 / grads.norm().max(1.0) as f32;
            let rule = AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step, grad_scale };
            model.update(&grads, &mut moments, |_| Update::AdamW(rule));
        }
        gpu.finish()?;
        Ok(STEPS * batch.rows())
    })
}

fn logprobs(model: &Model<Cuda>) -> Result<Vec<f64>> {
    let mut work = model.workspace();
    let batch = packed(MICRO);
    measure(|| model.forward(&mut work, &batch).map(|scores| scores.logprobs.len()))
}

/// 256 sequences with prompts of 64 tokens, 192 tokens each.
fn decode(gpu: &Cuda, model: &Model<Cuda>) -> Result<Vec<f64>> {
    let (slots, prompt, count) = (256usize, 64usize, 192usize);
    let mut decoder = Decoder::new(gpu.clone(), model, slots, prompt + count, 4096);
    let prompt = tokens(prompt);
    measure(|| {
        let rows = (0..slots as u32).flat_map(|slot| {
            let row = move |(position, &token): (usize, &u32)| Row { token, slot, position: position as u32 };
            prompt.iter().enumerate().map(row)
        });
        model.prefill(&mut decoder, &rows.collect::<Vec<_>>());
        let mut last = vec![7u32; slots];
        let mut drawn = vec![Drawn::default(); slots];
        for i in 0..count {
            let position = (prompt.len() + i) as u32;
            let rows = (0..slots as u32).map(|slot| Row { token: last[slot as usize], slot, position });
            let draw = |seed| Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, index: i as u64 };
            let draws: Vec<Draw> = (0..slots as u64).map(draw).collect();
            model.decode(&mut decoder, &rows.collect::<Vec<_>>(), &draws, &mut drawn)?;
            last.iter_mut().zip(&drawn).for_each(|(last, drawn)| *last = drawn.token);
        }
        Ok(slots * count)
    })
}
