//! Rollouts of the policy: sample, judge, keep.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::GrpoStage;
use super::ask::{Asker, Key, RolloutBatch};
use super::rollouts::Rollouts;
use super::sampler::{Sampler, SamplerConfig};
use crate::backend::Backend;
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::rule::file::RuleSet;
use crate::schema::Prompt;
use crate::stage::stoppable::Stoppable;
use crate::stage::training::{Drops, Policy};
use crate::stage::unruled::Unruled;
use crate::stage::{Progress, StageContext};
use crate::train::{Rollout, ScoredGroup};

/// The policy as its own sampler, with the rules behind it.
pub struct OnPolicy<'a, B: Backend> {
    sampler: Sampler<B>,
    asker: Arc<Asker>,
    rollouts: Arc<Mutex<Rollouts>>,
    reload_seconds: Option<f64>,
    /// Tokens of the longest prompt.
    longest_prompt: usize,
    /// Set by Ctrl-C.
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
    /// The step whose rollouts are in the log, or begin to be.
    logged: Option<u64>,
}

impl<'a, B: Backend> OnPolicy<'a, B> {
    /// Prompts are held in memory. Those that no policy of this shape can answer are left out from the start, listed
    /// in the stage's folder and counted by reason.
    ///
    /// # Errors
    /// Prompts that cannot be read, or too few; no server, or one that cannot be used.
    pub(super) fn new(
        cx: &StageContext<'a>,
        policy: &Policy<B>,
        rules: RuleSet,
        stage: &GrpoStage,
        rollouts: Arc<Mutex<Rollouts>>,
    ) -> Result<(Self, Drops)> {
        let table = &stage.table;
        let prompts: Vec<Prompt> = cx.input("prompts")?.rows_of::<Prompt>().collect::<Result<_>>()?;
        let context = policy.model.read().config().context;
        let Askable { prompts, longest: longest_prompt, drops } = askable(prompts, &policy.tokenizer, context)?;
        let training = &table.training;
        let per_rollout = training.prompts_per_rollout;
        // All that may be asked of one policy: a prompt asked twice would be sampled twice with the same seeds.
        let batches = 1 + training.rollouts_ahead as usize + training.refill_rounds as usize;
        let wanted = per_rollout.saturating_mul(batches);
        if prompts.len() < wanted {
            let at_once = if batches > 1 { ", those made ahead and refills included," } else { "" };
            let others =
                if drops.counts.is_empty() { String::new() } else { format!(" that can be asked (others: {drops})") };
            return Err(Error::new(format!(
                "a rollout{at_once} wants {wanted} prompts, and there are {}{others}",
                prompts.len()
            ))
            .hint("lower `training.prompts_per_rollout`, or make more prompts"));
        }
        Unruled::of(&rules, &prompts).warning("prompts").iter().for_each(|line| cx.progress.say(line));
        let opening = stage.sampler.open(cx, policy, &prompts)?;
        // Servers get weights that have the temperature in them.
        let temperature = match &stage.sampler {
            SamplerConfig::Local(_) => stage.sampling.temperature,
            SamplerConfig::Vllm(_) => 1.0,
        };
        let mut asked = Sampling { temperature, ..stage.sampling.clone() };
        // A server stops where the model that it began with does.
        asked.stop_token_ids.extend(policy.new_end);
        let asker = Arc::new(Asker {
            prompts,
            rules,
            group_size: table.group_size,
            per_rollout,
            sampling: stage.sampling.clone(),
            asked: Arc::new(asked),
            seed: cx.seed,
            info: opening.info(policy),
        });
        let sampler = opening.start(&asker, &mut rollouts.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok((
            OnPolicy {
                sampler,
                asker,
                rollouts,
                reload_seconds: None,
                longest_prompt,
                stop: cx.stop,
                progress: cx.progress,
                logged: None,
            },
            drops,
        ))
    }

    /// A batch from the servers. Ctrl-C ends the waiting where the batch can be asked again: it is of the
    /// policy as it is now, and not one of several rounds of which an earlier one is in the log. Batches
    /// made ahead are of weights that will be gone, so they are waited for.
    fn taken(&self, step: u64, key: &Key) -> Result<RolloutBatch> {
        let mut log = self.log();
        let again = self.logged != Some(step) && log.waits_for_nothing_but(key);
        let tick = || {
            if let (true, Sampler::Served(served), true) = (again, &self.sampler, self.stop.load(Relaxed)) {
                served.stop();
            }
        };
        log.take(key, &tick)
    }

    fn log(&self) -> MutexGuard<'_, Rollouts> {
        self.rollouts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The prompts that can be asked.
struct Askable {
    prompts: Vec<Prompt>,
    /// Tokens of the longest.
    longest: usize,
    drops: Drops,
}

/// Leaves out what cannot be asked, with the reason.
///
/// # Errors
/// Not one of them can be asked; with the first one's fault.
fn askable(prompts: Vec<Prompt>, tokenizer: &Tokenizer, context: usize) -> Result<Askable> {
    // Tokens, or what is wrong.
    let look = |prompt: &Prompt| match tokenizer.encode_chat(&prompt.messages).map(|tokens| tokens.len()) {
        Err(error) => Err(("refused", error)),
        Ok(0) => Err(("empty", Error::new("the prompt has no tokens"))),
        Ok(n) if n >= context => Err((
            "too_long",
            Error::new(format!("{n} tokens leave no room in a context of {context}")).hint(
                "take a model with a longer context, or keep shorter prompts: `filter.max_words` of stage `prompts`",
            ),
        )),
        Ok(n) => Ok(n),
    };
    let looked: Vec<std::result::Result<usize, (&str, Error)>> = prompts.par_iter().map(look).collect();
    let (mut kept, mut drops, mut seen, mut longest) = (Vec::new(), Drops::default(), HashSet::new(), 0);
    let mut first = None;
    for (prompt, mut looked) in prompts.into_iter().zip(looked) {
        if !seen.insert(prompt.prompt_id.clone()) {
            looked = Err(("duplicate_id", Error::new("asked already")));
        }
        match looked {
            Ok(tokens) => {
                longest = longest.max(tokens);
                kept.push(prompt);
            }
            Err((reason, error)) => {
                let detail = error.to_string();
                first.get_or_insert(error);
                drops.add([("prompt_id", prompt.prompt_id.into())], reason, &detail);
            }
        }
    }
    match first {
        // What keeps all of them from being asked is to be mended, not the number of prompts.
        Some(error) if kept.is_empty() => Err(error.context(format!("no prompt can be asked ({drops})"))),
        _ => {
            drops.say(format!("{} prompts cannot be asked and are left out", drops.total()));
            Ok(Askable { prompts: kept, longest, drops })
        }
    }
}

impl<B: Backend> Rollout for OnPolicy<'_, B> {
    fn prompts(&self) -> usize {
        self.asker.prompts.len()
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        let key = self.asker.key(step, prompts);
        // Under way, or restored from a checkpoint.
        let begun = self.log().holds(&key);
        let batch = match &self.sampler {
            Sampler::Local(engine) if !begun => {
                let engine = &**engine;
                // Ctrl-C ends a rollout, but not where an earlier round of this step is in the log already.
                let stoppable = Stoppable { engine, stop: self.stop };
                let engine: &dyn Engine = if self.logged == Some(step) { engine } else { &stoppable };
                self.asker.ask(engine, step, prompts)?
            }
            Sampler::Local(_) => self.log().take(&key, &|| {})?,
            Sampler::Served(_) => {
                if !begun {
                    self.begin(step, prompts)?;
                }
                self.taken(step, &key)?
            }
        };
        batch.news.iter().for_each(|line| self.progress.say(line));
        self.reload_seconds = batch.reload_seconds;
        self.logged = Some(step);
        let groups = batch.scored();
        let mut log = self.log();
        for rows in batch.groups {
            log.push(rows)?;
        }
        drop(log);
        Ok(groups)
    }

    fn longest(&self, context: usize) -> usize {
        let completion = self.asker.sampling.max_tokens as usize;
        context.min((self.longest_prompt + completion).saturating_sub(1))
    }

    fn begin(&mut self, step: u64, prompts: &[usize]) -> Result<()> {
        let Sampler::Served(served) = &mut self.sampler else {
            return Err(Error::usage("the policy's own engine cannot sample while its weights change")
                .in_field("training.rollouts_ahead")
                .hint("sample on servers: `engine = { kind = \"vllm\", … }`"));
        };
        served.ask(step, prompts)?;
        let key = self.asker.key(step, prompts);
        self.log().expect(key);
        Ok(())
    }

    fn reload_seconds(&self) -> Option<f64> {
        self.reload_seconds
    }
}
