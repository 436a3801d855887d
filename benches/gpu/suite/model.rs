//! Training steps and batched decoding of a whole model.

use std::time::Instant;

use gristmill::Result;
use gristmill::backend::{AdamW, Backend, Cuda, Draw, Drawn, STEP_ROWS};
use gristmill::model::memory::{Limits, logits_room, token_bytes};
use gristmill::model::{Decoder, Model, ParamKind, Row, Update};

use super::shapes::{Decoding, packed, tokens};
use super::{Card, Figure, Scale, Shape, Unit};

/// Tokens of training steps: forward, backward, AdamW.
/// A figure after each run: if time runs out, what was found so far is there.
pub fn train(
    card: &Card,
    model: &mut Model<Cuda>,
    shape: &Shape,
    scale: &Scale,
    print: &mut dyn FnMut(Figure),
) -> Result<()> {
    let gpu = card.gpu();
    let (mut work, mut grads, mut moments) = (model.workspace(), model.grads(), model.moments());
    let batch = packed(scale.rows, scale.length, shape.vocab);
    // As a trainer does.
    model.reserve(&mut work, batch.rows())?;
    let kept = logits_room::<Cuda>(model.config(), gpu.free_bytes().unwrap_or(0), None);
    model.keep_logits(&mut work, kept)?;
    let seeds = vec![-1.0 / batch.scored() as f32; batch.scored()];
    let mut step = 0;
    let mut run = || -> Result<f64> {
        let start = Instant::now();
        for _ in 0..scale.steps {
            step += 1;
            model.forward(&mut work, &batch)?;
            grads.zero();
            model.backward(&mut work, &batch, &seeds, None, &mut grads)?;
            let grad_scale = 1.0 / grads.norm().max(1.0) as f32;
            let rule = AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step, grad_scale };
            model.update(&grads, &mut moments, |_| Update::AdamW(rule));
        }
        gpu.finish()?;
        Ok(start.elapsed().as_secs_f64())
    };
    run()?;
    let mut seconds = Vec::new();
    for _ in 0..scale.runs {
        seconds.push(run()?);
        let amount = (scale.steps * batch.rows()) as f64;
        let figure = Figure::new("train", &shape.name, Unit::Tokens, amount, seconds.clone());
        print(figure.with("steps", scale.steps).with("memory_used", card.used()?));
    }
    Ok(())
}

/// Bytes that decoding must read: of each step all weights, as products read them, and the keys and values of every
/// sequence so far. An embedding that is the head too counts once.
pub fn decoded_bytes(model: &Model<Cuda>, decoding: &Decoding) -> u64 {
    let weight = |kind: ParamKind| match kind {
        ParamKind::Norm | ParamKind::Bias => 4,
        ParamKind::Embedding | ParamKind::Head | ParamKind::Matrix => 2,
    };
    let weights: usize = model.parameters().iter().map(|info| weight(info.kind) * info.len()).sum();
    let Decoding { sequences, prompt, tokens } = *decoding;
    // Step i reads what is cached: prompt + i tokens, and its own.
    let cached: usize = (0..tokens).map(|i| prompt + i + 1).sum();
    (tokens * weights + sequences * cached * token_bytes::<Cuda>(model.config())) as u64
}

/// The rows of `sequences` prompts.
fn prompt_rows(sequences: usize, prompt: &[u32]) -> Vec<Row> {
    let of = |slot| {
        let row = move |(position, &token): (usize, &u32)| Row { token, slot, position: position as u32 };
        prompt.iter().enumerate().map(row)
    };
    (0..sequences as u32).flat_map(of).collect()
}

/// Tokens of long prompts, as the engine takes them: in steps of its size. A figure after each run.
pub fn prefill(
    card: &Card,
    model: &Model<Cuda>,
    shape: &Shape,
    scale: &Scale,
    print: &mut dyn FnMut(Figure),
) -> Result<()> {
    let gpu = card.gpu();
    let (sequences, len) = scale.prompts;
    let step = Limits::default().within::<Cuda>(model.config(), gpu.free_bytes()).prefill;
    let mut decoder = Decoder::new(gpu.clone(), model, sequences, len, step);
    let rows = prompt_rows(sequences, &tokens(len, shape.vocab));
    let mut run = || -> Result<f64> {
        let start = Instant::now();
        model.prefill(&mut decoder, &rows);
        gpu.finish()?;
        Ok(start.elapsed().as_secs_f64())
    };
    run()?;
    let mut seconds = Vec::new();
    for _ in 0..scale.runs {
        seconds.push(run()?);
        let figure = Figure::new("prefill", &shape.name, Unit::Tokens, rows.len() as f64, seconds.clone());
        print(figure.with("sequences", sequences).with("step", step));
    }
    Ok(())
}

/// Tokens of many sequences at once, their prompts not counted. A figure after each run.
pub fn decode(
    card: &Card,
    model: &Model<Cuda>,
    shape: &Shape,
    scale: &Scale,
    print: &mut dyn FnMut(Figure),
) -> Result<()> {
    let gpu = card.gpu();
    let Decoding { sequences, prompt, tokens: count } = scale.decode;
    let mut decoder = Decoder::new(gpu.clone(), model, sequences, prompt + count, STEP_ROWS.min(sequences * prompt));
    let prompt = tokens(prompt, shape.vocab);
    let mut last = vec![0; sequences];
    let mut drawn = vec![Drawn::default(); sequences];
    let mut run = || -> Result<f64> {
        model.prefill(&mut decoder, &prompt_rows(sequences, &prompt));
        gpu.finish()?;
        last.fill(7);
        let start = Instant::now();
        for i in 0..count {
            let position = (prompt.len() + i) as u32;
            let rows = (0..sequences as u32).map(|slot| Row { token: last[slot as usize], slot, position });
            let draw = |seed| Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed, index: i as u64 };
            let draws: Vec<Draw> = (0..sequences as u64).map(draw).collect();
            model.decode(&mut decoder, &rows.collect::<Vec<_>>(), &draws, &mut drawn)?;
            last.iter_mut().zip(&drawn).for_each(|(last, drawn)| *last = drawn.token);
        }
        Ok(start.elapsed().as_secs_f64())
    };
    run()?;
    let mut seconds = Vec::new();
    for _ in 0..scale.runs {
        seconds.push(run()?);
        let figure = Figure::new("decode", &shape.name, Unit::Tokens, (sequences * count) as f64, seconds.clone());
        let bytes = decoded_bytes(model, &scale.decode);
        print(figure.with("sequences", sequences).with("bytes", bytes).with("memory_used", card.used()?));
    }
    Ok(())
}
