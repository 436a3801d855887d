//! Whole steps of GRPO through the library: the engine samples from the weights that the trainer updates.
//!
//! As `gristmill` runs them where a recipe says nothing of its engine, without files and rule files: a completion's reward is a
//! coin that its tokens toss. No token ends a turn, so every completion has the length that was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use gristmill::backend::{Backend, Cuda};
use gristmill::engine::local::LocalEngine;
use gristmill::engine::{Engine, Generated, Request, SampleSeed, Sampling};
use gristmill::model::Tokenizer;
use gristmill::model::memory::Limits;
use gristmill::schema::{FinishReason, Message, Role};
use gristmill::train::objective::GrpoConfig;
use gristmill::train::{
    GrpoTrainer, GrpoTrainerConfig, OptimizerConfig, Rollout, Schedule, ScoredCompletion, ScoredGroup, Trainer,
};
use gristmill::{Error, Result};
use serde_json::json;

use super::shapes::{Grpo, tokens};
use super::{Card, Figure, Scale, Shape, Shared, Unit};

/// After the first step a figure of the first, which has memory taken and work recorded in it; after each later one, a
/// figure of all later ones.
pub fn grpo(card: &Card, model: &Shared, shape: &Shape, scale: &Scale, print: &mut dyn FnMut(Figure)) -> Result<()> {
    let Grpo { prompts, group, prompt, tokens, steps } = scale.grpo;
    let tokenizer = Arc::new(words(shape.vocab)?);
    let engine = LocalEngine::new(model.clone(), tokenizer, "random weights", Limits::default())?;
    let sampler = Sampler {
        engine,
        messages: messages(prompts, prompt, shape.vocab),
        group: group as u32,
        sampling: Arc::new(Sampling { temperature: 1.0, top_p: 1.0, max_tokens: tokens as u32, ..Sampling::default() }),
    };
    let config = GrpoTrainerConfig {
        steps: steps + 1,
        prompts_per_rollout: prompts,
        minibatches: 1,
        objective: GrpoConfig { kl_coefficient: 0.0, ..GrpoConfig::default() },
        schedule: Schedule::constant(1e-6),
        optimizer: OptimizerConfig::default(),
        tokens_per_microbatch: scale.rows,
        ..GrpoTrainerConfig::default()
    };
    let mut trainer = GrpoTrainer::new(model.clone(), None, sampler, config)?;
    trainer.keep_logits(Limits::default())?;
    let (mut seconds, mut rollouts, mut updates) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..=steps {
        let start = Instant::now();
        let metrics = trainer.advance()?;
        card.gpu().finish()?;
        let took = start.elapsed().as_secs_f64();
        let [metrics] = &metrics[..] else {
            return Err(Error::new(format!("a rollout batch made {} updates, not one", metrics.len())));
        };
        if step == 1 {
            (seconds, rollouts, updates) = Default::default();
        }
        seconds.push(took);
        rollouts.push(metrics.rollout_seconds);
        updates.push(metrics.update_seconds);
        let name = if step == 0 { "grpo, first step" } else { "grpo" };
        print(
            Figure::new(name, &shape.name, Unit::Steps, 1.0, seconds.clone())
                .with("prompts", prompts)
                .with("group", group)
                .with("completion_tokens", metrics.completion_tokens_mean)
                .with("rollout_seconds", json!(rollouts))
                .with("update_seconds", json!(updates))
                .with("updated", metrics.skipped == Some(0.0))
                .with("memory_used", card.used()?),
        );
    }
    Ok(())
}

/// Prompts of so many tokens each.
fn messages(prompts: usize, length: usize, vocab: usize) -> Vec<Arc<[Message]>> {
    let all = tokens(prompts * length, vocab);
    let message = |tokens: &[u32]| {
        let content = tokens.iter().map(|token| format!("t{token}")).collect::<Vec<_>>().join(" ");
        Arc::from([Message { role: Role::User, content }])
    };
    all.chunks(length).map(message).collect()
}

/// A tokenizer with a word for every token of the vocabulary, none of which ends a turn.
fn words(vocab: usize) -> Result<Tokenizer> {
    let words: serde_json::Map<String, serde_json::Value> =
        (0..vocab).map(|id| (format!("t{id}"), json!(id))).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "t0"},
    });
    let config = json!({ "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}" });
    Tokenizer::from_json(&file.to_string(), config.as_object().cloned().unwrap_or_default())
}

/// The policy as its own sampler.
struct Sampler {
    engine: LocalEngine<Cuda>,
    messages: Vec<Arc<[Message]>>,
    group: u32,
    sampling: Arc<Sampling>,
}

impl Rollout for Sampler {
    fn prompts(&self) -> usize {
        self.messages.len()
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        let request = |&i: &usize| {
            let prompt_id: Arc<str> = format!("prompt {i}").into();
            let samples = (0..self.group).map(|sample| SampleSeed::new(1, &prompt_id, sample, step)).collect();
            let (messages, sampling) = (self.messages[i].clone(), self.sampling.clone());
            Request { prompt_id, messages, samples, sampling, policy_step: step }
        };
        let mut answers: BTreeMap<Arc<str>, Vec<Generated>> = BTreeMap::new();
        self.engine.generate(&mut prompts.iter().map(request), &mut |answer| {
            match &answer.error {
                Some(error) => return Err(Error::new(error.clone())),
                None => answers.entry(answer.prompt_id.clone()).or_default().push(answer),
            }
            Ok(())
        })?;
        Ok(answers.into_iter().map(|(prompt_id, answers)| scored(&prompt_id, step, answers)).collect())
    }
}

fn scored(prompt_id: &str, step: u64, mut answers: Vec<Generated>) -> ScoredGroup {
    answers.sort_by_key(|answer| answer.sample_index);
    let prompt = answers.iter_mut().find_map(|answer| answer.prompt_token_ids.take()).unwrap_or_default();
    let completion = |answer: Generated| {
        let tokens = answer.token_ids.unwrap_or_default();
        let coin = tokens.iter().map(|&token| u64::from(token)).sum::<u64>() % 2;
        ScoredCompletion {
            tokens,
            logprobs: answer.logprobs,
            reward: Some(coin as f64),
            scores: Vec::new(),
            truncated: answer.finish_reason == FinishReason::Length,
        }
    };
    let completions = answers.into_iter().map(completion).collect();
    ScoredGroup { prompt_id: prompt_id.to_owned(), policy_step: step, prompt, completions }
}
