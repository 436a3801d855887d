//! Prompts asked and judged in one go: what evaluation and on-policy training share.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::engine::{Engine, EngineInfo, Generated, Request, Sampling};
use crate::error::{Error, Result};
use crate::rule::Sample;
use crate::rule::file::{Judgement, RuleSet};
use crate::schema::{FinishReason, GroupRow, Prompt};
use crate::seed::{content_id, sample_seed};
use crate::train::advantage::AdvantageKind;

/// One sample with its verdict.
pub struct Judged {
    pub generated: Generated,
    pub judgement: Judgement,
}

/// Samples every prompt and judges the samples; the result is in the order of prompts and samples.
///
/// # Errors
/// The engine cannot go on, or a request failed: a policy in this process that cannot answer a
/// prompt is a fault of the data, not of a server.
pub fn sample_and_judge(
    engine: &dyn Engine,
    rules: &RuleSet,
    prompts: &[&Prompt],
    samples: u32,
    sampling: &Arc<Sampling>,
    seed: u64,
    step: u64,
) -> Result<Vec<Vec<Judged>>> {
    let place: HashMap<&str, usize> = prompts.iter().enumerate().map(|(i, p)| (p.prompt_id.as_str(), i)).collect();
    if place.len() != prompts.len() {
        return Err(Error::new("the same prompt is asked twice in one batch")
            .hint("remove duplicates, or ask for fewer prompts at once than there are"));
    }
    let mut requests = prompts.iter().map(|prompt| Request {
        prompt_id: prompt.prompt_id.as_str().into(),
        messages: prompt.messages.clone().into(),
        samples: (0..samples).map(|i| (i, sample_seed(seed, &prompt.prompt_id, i, step))).collect(),
        sampling: Arc::clone(sampling),
        policy_step: step,
    });
    let mut answers: Vec<Vec<Option<Generated>>> = prompts.iter().map(|_| vec![None; samples as usize]).collect();
    engine.generate(&mut requests, &mut |generated| {
        let at = place.get(&*generated.prompt_id).copied();
        let slot = at.and_then(|at| answers[at].get_mut(generated.sample_index as usize));
        let Some(slot) = slot else {
            return Err(Error::new(format!("the engine answered what was not asked: {}", generated.prompt_id)));
        };
        if let Some(error) = &generated.error {
            return Err(Error::new(format!("prompt {} cannot be answered: {error}", generated.prompt_id))
                .hint("filter prompts by length, or raise the model's context"));
        }
        *slot = Some(generated);
        Ok(())
    })?;
    let judge = |(prompt, answers): (&&Prompt, Vec<Option<Generated>>)| {
        let answers: Vec<Generated> = answers
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| Error::new(format!("the engine left a sample of prompt {} out", prompt.prompt_id)))?;
        let asked: Vec<Sample<'_>> = answers.iter().map(|generated| view(prompt, generated)).collect();
        let judgements = rules.judge_batch(&asked);
        let pairs = answers.iter().cloned().zip(judgements);
        Ok(pairs.map(|(generated, judgement)| Judged { generated, judgement }).collect())
    };
    prompts.par_iter().zip(answers).map(judge).collect()
}

fn view<'a>(prompt: &'a Prompt, generated: &'a Generated) -> Sample<'a> {
    Sample {
        prompt: prompt.question(),
        completion: generated.text.as_deref().unwrap_or_default(),
        gold: prompt.gold.as_deref(),
        verification: prompt.verification.as_deref(),
        domain: &prompt.domain,
        language: &prompt.language,
        difficulty: prompt.difficulty,
        finish_reason: generated.finish_reason,
        tokens: generated.completion_tokens,
    }
}

/// The rows of one prompt's group.
pub fn group_rows(
    prompt: &Prompt,
    samples: Vec<Judged>,
    info: &EngineInfo,
    rules_digest: &str,
    sampling: &str,
    step: u64,
) -> Vec<GroupRow> {
    let rewards: Vec<Option<f64>> = samples.iter().map(|s| s.judgement.reward).collect();
    let scored = AdvantageKind::GroupStd.advantages(&rewards);
    let decided = |word: crate::schema::Outcome| samples.iter().filter(|s| s.judgement.outcome == word).count() as f64;
    let (correct, wrong) = (decided(crate::schema::Outcome::Correct), decided(crate::schema::Outcome::Wrong));
    let pass_rate = (correct + wrong > 0.0).then(|| correct / (correct + wrong));
    let size = samples.len() as u32;
    let rows = samples.into_iter().zip(scored.advantages);
    rows.map(|(Judged { generated, judgement }, advantage)| GroupRow {
        completion_id: content_id([
            prompt.prompt_id.as_bytes(),
            &generated.sample_index.to_le_bytes(),
            &step.to_le_bytes(),
            info.model_digest.as_bytes(),
            sampling.as_bytes(),
        ]),
        prompt_id: prompt.prompt_id.clone(),
        policy_step: step,
        sample_index: generated.sample_index,
        domain: prompt.domain.clone(),
        language: prompt.language.clone(),
        difficulty: prompt.difficulty,
        reward: judgement.reward,
        advantage,
        outcome: judgement.outcome,
        reason: judgement.reason,
        scores: judgement.scores,
        group_size: size,
        reward_mean: scored.mean,
        reward_std: scored.std,
        pass_rate,
        finish_reason: generated.finish_reason,
        completion_tokens: generated.completion_tokens,
        text: generated.text,
        prompt_token_ids: generated.prompt_token_ids,
        token_ids: generated.token_ids,
        logprobs: generated.logprobs,
        model: info.model.clone(),
        model_digest: info.model_digest.clone(),
        rules_digest: rules_digest.to_owned(),
        sampling: sampling.to_owned(),
    })
    .collect()
}

/// Whether a completion was cut at the token limit.
pub fn is_truncated(generated: &Generated) -> bool {
    generated.finish_reason == FinishReason::Length
}
