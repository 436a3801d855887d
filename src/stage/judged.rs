//! Prompts asked and judged in one go: what evaluation and on-policy training share.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;

use crate::engine::{Engine, EngineInfo, Generated, Request, SampleSeed, Sampling};
use crate::error::{Error, Result};
use crate::eval::{SampleResult, pass_rate};
use crate::rule::file::{Judgement, RuleSet};
use crate::rule::{Origin, Sample, Unreached, unreached};
use crate::schema::{FinishReason, GroupRow, Outcome, Prompt, Score};
use crate::seed::content_id;
use crate::train::advantage::AdvantageKind;

/// One sample with its verdict; of a request that failed, with the judgement that nothing can be told.
pub struct Judged {
    pub generated: Generated,
    pub judgement: Judgement,
}

impl Judged {
    /// What figures are made of; `None` of a request that failed.
    pub fn result(&self) -> Option<SampleResult> {
        sample_result(self.judgement.outcome, &self.judgement.scores, self.generated.finish_reason)
    }
}

/// What figures are made of one sample; `None` of a request that failed.
pub fn sample_result(outcome: Outcome, scores: &[Score], finish_reason: FinishReason) -> Option<SampleResult> {
    if finish_reason == FinishReason::Error {
        return None;
    }
    // The deciding rule's finding: the first that extracted an answer.
    let answer = scores.iter().find_map(|score| {
        let evidence: serde_json::Value = serde_json::from_str(score.evidence.as_deref()?).ok()?;
        let found = evidence.get("extracted").or_else(|| evidence.get("picked"))?;
        found.as_str().map(str::to_owned)
    });
    let correct = match outcome {
        Outcome::Correct => Some(true),
        Outcome::Wrong => Some(false),
        Outcome::CannotTell => None,
    };
    let truncated = finish_reason == FinishReason::Length;
    Some(SampleResult { answer, correct, truncated })
}

/// Samples every prompt and judges the samples; the result is in the order of prompts and samples.
///
/// # Errors
/// The engine cannot go on, or no server of the rules does. A request that fails is a sample without a completion.
pub fn sample_and_judge(
    engine: &dyn Engine,
    rules: &RuleSet,
    prompts: &[&Prompt],
    samples: u32,
    sampling: &Arc<Sampling>,
    seed: u64,
    step: u64,
) -> Result<Vec<Vec<Judged>>> {
    let mut asked = Asked::new(prompts, samples)?;
    asked.ask(engine, sampling, seed, step)?;
    let judged = judge(rules, prompts, asked.whole()?);
    ensure_judged(judged.iter().flatten())?;
    Ok(judged)
}

/// The samples of some prompts, as far as they are there.
pub struct Asked<'a> {
    prompts: &'a [&'a Prompt],
    place: HashMap<&'a str, usize>,
    answers: Vec<Vec<Option<Generated>>>,
}

impl<'a> Asked<'a> {
    /// So many samples of each prompt, none of them there.
    ///
    /// # Errors
    /// A prompt comes twice.
    pub fn new(prompts: &'a [&'a Prompt], samples: u32) -> Result<Self> {
        let place: HashMap<&str, usize> = prompts.iter().enumerate().map(|(i, p)| (p.prompt_id.as_str(), i)).collect();
        if place.len() != prompts.len() {
            return Err(Error::new("the same prompt is asked twice in one batch")
                .hint("remove duplicates, or ask for fewer prompts at once than there are"));
        }
        Ok(Asked { prompts, place, answers: prompts.iter().map(|_| vec![None; samples as usize]).collect() })
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// It answers none of these prompts.
    pub fn take(&mut self, generated: Generated) -> Result<()> {
        let at = self.place.get(&*generated.prompt_id).copied();
        let slot = at.and_then(|at| self.answers[at].get_mut(generated.sample_index as usize));
        let Some(slot) = slot else {
            return Err(Error::new(format!("the engine answered what was not asked: {}", generated.prompt_id)));
        };
        *slot = Some(generated);
        Ok(())
    }

    /// Asks for what is not there.
    ///
    /// # Errors
    /// The engine cannot go on; what it had answered until then is there.
    pub fn ask(&mut self, engine: &dyn Engine, sampling: &Arc<Sampling>, seed: u64, step: u64) -> Result<()> {
        let missing = |answers: &[Option<Generated>]| -> Vec<u32> {
            (0..).zip(answers).filter(|(_, answer)| answer.is_none()).map(|(i, _)| i).collect()
        };
        let missing: Vec<Vec<u32>> = self.answers.iter().map(|answers| missing(answers)).collect();
        let left = self.prompts.iter().zip(missing).filter(|(_, samples)| !samples.is_empty());
        let mut requests = left.map(|(prompt, samples)| Request {
            prompt_id: prompt.prompt_id.as_str().into(),
            messages: prompt.messages.clone().into(),
            samples: samples.into_iter().map(|i| SampleSeed::new(seed, &prompt.prompt_id, i, step)).collect(),
            sampling: Arc::clone(sampling),
            policy_step: step,
        });
        engine.generate(&mut requests, &mut |generated| self.take(generated))
    }

    /// All samples, in the order of prompts and samples.
    ///
    /// # Errors
    /// One is not there.
    pub fn whole(self) -> Result<Vec<Vec<Generated>>> {
        let whole = self.prompts.iter().zip(self.answers).map(|(prompt, answers)| {
            let answers: Option<Vec<Generated>> = answers.into_iter().collect();
            answers.ok_or_else(|| Error::new(format!("the engine left a sample of prompt {} out", prompt.prompt_id)))
        });
        whole.collect()
    }

    /// Those that are there and did not fail.
    pub fn answered(self) -> Vec<Generated> {
        self.answers.into_iter().flatten().flatten().filter(|generated| generated.error.is_none()).collect()
    }
}

/// Judges the answers to each of the prompts, in their order.
pub fn judge<P: Borrow<Prompt> + Sync>(
    rules: &RuleSet,
    prompts: &[P],
    answers: Vec<Vec<Generated>>,
) -> Vec<Vec<Judged>> {
    let judge = |(prompt, answers): (&P, Vec<Generated>)| {
        let prompt = prompt.borrow();
        let answered = answers.iter().filter(|generated| generated.error.is_none());
        let asked: Vec<Sample<'_>> = answered.map(|generated| view(prompt, generated)).collect();
        let mut judgements = rules.judge_batch(&asked).into_iter();
        let judged = answers.into_iter().map(|generated| {
            let judgement = match generated.error {
                None => judgements.next().expect("a judgement for each answer"),
                Some(_) => request_failed(),
            };
            Judged { generated, judgement }
        });
        judged.collect()
    };
    prompts.par_iter().zip(answers).map(judge).collect()
}

/// Refuses to go on where not one sample could be had.
///
/// # Errors
/// There are samples, and all of them failed; with the first one's fault.
pub fn ensure_some_answer<'a>(samples: impl Iterator<Item = &'a Judged> + Clone) -> Result<()> {
    let fault = |judged: &'a Judged| judged.generated.error.as_deref();
    match samples.clone().find_map(fault) {
        Some(first) if samples.clone().all(|judged| fault(judged).is_some()) => {
            Err(none_answered(samples.count(), first))
        }
        _ => Ok(()),
    }
}

/// Refuses to go on where not one sample has a reward because no server of the rules answered.
///
/// # Errors
/// See [`ensure_reached`].
pub fn ensure_judged<'a>(samples: impl Iterator<Item = &'a Judged>) -> Result<()> {
    ensure_reached(Unreached::Call, samples.map(|sample| (sample.judgement.reward, &*sample.judgement.scores)))
}

/// Refuses to go on where not one completion has a reward because no server of the rules answered: what is written down
/// as not known would stay so, and a trainer would go on without rewards. Completions that no rule took are no matter.
/// Of a few completions it may be themselves that a server fails on: for those, `least` is that it is down.
///
/// # Errors
/// Which rule got no answer, and why.
pub fn ensure_reached<'a>(least: Unreached, verdicts: impl Iterator<Item = (Option<f64>, &'a [Score])>) -> Result<()> {
    let (mut count, mut lost) = (0, None);
    for (reward, scores) in verdicts.filter(|(_, scores)| !scores.is_empty()) {
        let Some((how, score)) = unreached(reward, scores) else { return Ok(()) };
        if how == Unreached::Down || least == Unreached::Call {
            lost.get_or_insert(score);
        }
        count += 1;
    }
    let Some(score) = lost else { return Ok(()) };
    let evidence: serde_json::Value =
        score.evidence.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let why = evidence["error"].as_str().unwrap_or(&score.reason);
    Err(Error::new(format!("rule `{}` could judge none of {count} completions: {why}", score.rule))
        .hint("mend the server and run again: what was finished before is kept"))
}

/// What is said where all of so many requests failed.
pub fn none_answered(count: usize, first: &str) -> Error {
    let error = Error::new(format!("not one of {count} requests was answered; the first: {first}"));
    // Engines say of a prompt that is too long what the context is.
    match first.contains("context") {
        true => error.hint("filter prompts by length, or raise the model's context"),
        false => error,
    }
}

/// Names a completion: BLAKE3 over what the column says.
pub fn completion_id(model_digest: &str, sampling: &str, prompt_id: &str, sample: u32, step: u64) -> String {
    content_id([
        prompt_id.as_bytes(),
        &sample.to_le_bytes(),
        &step.to_le_bytes(),
        model_digest.as_bytes(),
        sampling.as_bytes(),
    ])
}

/// What is said of a request that failed: there is nothing to judge.
pub fn request_failed() -> Judgement {
    Judgement { reward: None, outcome: Outcome::CannotTell, reason: "request_failed".to_owned(), scores: Vec::new() }
}

fn view<'a>(prompt: &'a Prompt, generated: &'a Generated) -> Sample<'a> {
    let text = generated.text.as_deref().unwrap_or_default();
    sample(prompt, text, generated.finish_reason, generated.completion_tokens)
}

/// What the rules see of a completion of a prompt.
pub fn sample<'a>(
    prompt: &'a Prompt,
    completion: &'a str,
    finish_reason: FinishReason,
    tokens: Option<u32>,
) -> Sample<'a> {
    Sample {
        prompt: prompt.question(),
        completion,
        gold: prompt.gold.as_deref(),
        verification: prompt.verification.as_deref(),
        domain: &prompt.domain,
        language: &prompt.language,
        difficulty: prompt.difficulty,
        finish_reason,
        tokens,
        origin: Origin {
            prompt_id: Some(&prompt.prompt_id),
            messages: &prompt.messages,
            extra: prompt.extra.as_deref(),
        },
    }
}

/// The rows of one prompt's group. Their advantages are DeepSeekMath's of the rewards as judged, as the column says:
/// a trainer makes its own of them, with its kind of advantage and its shaping.
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
    let decided = |word: Outcome| samples.iter().filter(|s| s.judgement.outcome == word).count() as u64;
    let (correct, wrong) = (decided(Outcome::Correct), decided(Outcome::Wrong));
    let pass_rate = pass_rate(correct + wrong, correct);
    let size = samples.len() as u32;
    let rows = samples.into_iter().zip(scored.advantages);
    rows.map(|(Judged { generated, judgement }, advantage)| GroupRow {
        completion_id: completion_id(&info.model_digest, sampling, &prompt.prompt_id, generated.sample_index, step),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::eval::counts;
    use crate::stage::stoppable::Stoppable;

    /// Answers `7`, cut at its limit for every second sample; a prompt that is called so cannot be answered.
    struct Answering;

    impl Engine for Answering {
        fn info(&self) -> EngineInfo {
            EngineInfo { engine: "scripted", model: String::new(), model_digest: String::new(), deterministic: true }
        }

        fn generate(
            &self,
            requests: &mut (dyn Iterator<Item = Request> + Send),
            sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
        ) -> Result<()> {
            for request in requests {
                for &SampleSeed { index: sample_index, .. } in &request.samples {
                    let error = request.prompt_id.starts_with("bad").then(|| "too long".to_owned());
                    let cut = sample_index % 2 == 1;
                    sink(Generated {
                        prompt_id: request.prompt_id.clone(),
                        sample_index,
                        text: error.is_none().then(|| "<answer> 7 </answer>".to_owned()),
                        token_ids: None,
                        logprobs: None,
                        prompt_token_ids: None,
                        finish_reason: match (&error, cut) {
                            (Some(_), _) => FinishReason::Error,
                            (None, true) => FinishReason::Length,
                            (None, false) => FinishReason::Stop,
                        },
                        stop_reason: None,
                        prompt_tokens: None,
                        completion_tokens: None,
                        error,
                        label: None,
                    })?;
                }
            }
            Ok(())
        }
    }

    fn prompt(id: &str) -> Prompt {
        Prompt {
            prompt_id: id.to_owned(),
            messages: Vec::new(),
            gold: Some("7".to_owned()),
            solution: None,
            verification: None,
            domain: "math".to_owned(),
            language: "en".to_owned(),
            difficulty: None,
            source: String::new(),
            license: None,
            extra: None,
        }
    }

    fn ask(engine: &dyn Engine, ids: &[&str]) -> Result<Vec<Vec<Judged>>> {
        // A rule that a cut does not matter to: nor does it to figures.
        let rules = RuleSet::parse(
            "reward = \"seven\"\n[rules.seven]\nkind = \"regex\"\npattern = '7'\nregion = \"completion\"\n",
            "test",
        )?;
        let prompts: Vec<Prompt> = ids.iter().map(|id| prompt(id)).collect();
        let asked: Vec<&Prompt> = prompts.iter().collect();
        sample_and_judge(engine, &rules, &asked, 4, &Arc::new(Sampling::default()), 1, 0)
    }

    #[test]
    fn a_prompt_that_cannot_be_answered_is_rows_that_say_so_and_the_others_are_judged() {
        let judged = ask(&Answering, &["good", "bad"]).unwrap();
        assert!(judged[0].iter().all(|sample| sample.judgement.reward == Some(1.0)));
        assert!(judged[1].iter().all(|sample| sample.result().is_none() && sample.judgement.reward.is_none()));
        ensure_some_answer(judged.iter().flatten()).unwrap();
        let error = ensure_some_answer(judged[1].iter()).unwrap_err().to_string();
        assert!(error.contains("not one of 4 requests was answered; the first: too long"), "{error}");
        let rows =
            group_rows(&prompt("bad"), ask(&Answering, &["bad"]).unwrap().remove(0), &Answering.info(), "", "", 3);
        assert!(rows.iter().all(|row| row.finish_reason == FinishReason::Error && row.reason == "request_failed"));
    }

    #[test]
    fn a_right_answer_counts_though_what_came_behind_it_was_cut() {
        let samples: Vec<_> = ask(&Answering, &["good"]).unwrap().iter().flatten().filter_map(Judged::result).collect();
        assert_eq!(counts(&samples), (4, 4));
    }

    #[test]
    fn a_user_who_stops_waits_for_one_answer_at_most() {
        let stop = AtomicBool::new(false);
        let engine = Stoppable { engine: &Answering, stop: &stop };
        assert!(ask(&engine, &["good"]).is_ok());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let error = ask(&engine, &["good"]).err().unwrap();
        assert_eq!(error.kind(), crate::error::ErrorKind::Interrupted);
    }
}
