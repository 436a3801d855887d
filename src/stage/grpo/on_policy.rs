//! Rollouts of the policy: sample, judge, keep.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::GrpoStage;
use super::ask::{Asker, Came, Part, RolloutBatch};
use super::rollouts::Rollouts;
use super::sampler::{Sampler, SamplerConfig};
use crate::backend::Backend;
use crate::engine::{Generated, Sampling};
use crate::error::{Error, Result};
use crate::model::Tokenizer;
use crate::rule::file::RuleSet;
use crate::schema::Prompt;
use crate::stage::stoppable::Stoppable;
use crate::stage::training::{Drops, Policy};
use crate::stage::unruled::{Undecided, Unruled};
use crate::stage::{Progress, StageContext};
use crate::train::{Rollout, ScoredGroup};

/// The policy as its own sampler, with the rules behind it.
pub struct OnPolicy<'a, B: Backend> {
    sampler: Sampler<B>,
    asker: Arc<Asker>,
    rollouts: Arc<Mutex<Rollouts<'a>>>,
    reload_seconds: Option<f64>,
    /// Of the completions that were asked for since the process began.
    undecided: Undecided,
    /// Tokens of the longest prompt.
    longest_prompt: usize,
    /// Set by Ctrl-C.
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
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
        rollouts: Arc<Mutex<Rollouts<'a>>>,
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
        let connected = stage.sampler.open(cx, policy, &prompts)?;
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
            info: connected.info(policy),
        });
        let sampler = connected.start(cx, &asker, &mut rollouts.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok((
            OnPolicy {
                sampler,
                asker,
                rollouts,
                reload_seconds: None,
                undecided: Undecided::default(),
                longest_prompt,
                stop: cx.stop,
                progress: cx.progress,
            },
            drops,
        ))
    }

    /// A batch of the policy as it was after `step` optimizer steps.
    fn batch(&mut self, step: u64, prompts: &[usize]) -> Result<RolloutBatch> {
        let key = self.asker.key(step, prompts);
        match &self.sampler {
            Sampler::Local(engine) => {
                if let Some(batch) = self.log().came(&key) {
                    return Ok(batch);
                }
                let stoppable = Stoppable { engine: &**engine, stop: self.stop };
                match self.asker.ask(&stoppable, step, prompts, Vec::new())? {
                    Came::Whole(batch) => Ok(batch),
                    // Asked again as a whole: on a GPU the bits of an answer may depend on those beside it.
                    Came::Part(_) => Err(Error::interrupted()),
                }
            }
            Sampler::Servers(_) => {
                let begun = self.log().go_on();
                for Part { key: (step, ids), answered } in begun {
                    let prompts = self.asker.places(&ids)?;
                    self.ask(step, &prompts, answered)?;
                }
                if !self.log().holds(&key) {
                    self.ask(step, prompts, Vec::new())?;
                }
                self.log().take(&key)
            }
        }
    }

    /// Asks servers for a batch, which comes to the log.
    fn ask(&mut self, step: u64, prompts: &[usize], answered: Vec<Generated>) -> Result<()> {
        let Sampler::Servers(servers) = &mut self.sampler else {
            return Err(Error::usage("the policy's own engine cannot sample while its weights change")
                .in_field("training.rollouts_ahead")
                .hint("sample on servers: `engine = { kind = \"vllm\", … }`"));
        };
        servers.ask(step, prompts, answered)?;
        let key = self.asker.key(step, prompts);
        self.log().expect(key);
        Ok(())
    }

    fn log(&self) -> MutexGuard<'_, Rollouts<'a>> {
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
        let batch = self.batch(step, prompts).inspect_err(|_| self.log().give_back())?;
        batch.news.iter().for_each(|line| self.progress.say(line));
        self.reload_seconds = batch.reload_seconds;
        let groups = batch.scored();
        for row in batch.groups.iter().flatten() {
            self.undecided.see(row.reward.is_none().then_some(&row.reason));
        }
        self.log().keep(batch);
        Ok(groups)
    }

    fn collected(&mut self) -> Result<()> {
        self.log().collected()
    }

    fn longest(&self, context: usize) -> usize {
        let completion = self.asker.sampling.max_tokens as usize;
        context.min((self.longest_prompt + completion).saturating_sub(1))
    }

    fn begin(&mut self, step: u64, prompts: &[usize]) -> Result<()> {
        self.ask(step, prompts, Vec::new())
    }

    fn without_reward(&self) -> Option<String> {
        Some(self.undecided.reasons()).filter(|reasons| !reasons.is_empty())
    }

    fn reload_seconds(&self) -> Option<f64> {
        self.reload_seconds
    }
}
