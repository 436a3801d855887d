//! Rollouts of the policy as it is: sample, judge, keep.

use std::sync::{Arc, Mutex, PoisonError};

use super::GrpoTable;
use crate::engine::local::{LocalEngine, Options};
use crate::engine::{Engine, EngineInfo, Sampling};
use crate::error::{Error, Result};
use crate::rule::file::RuleSet;
use crate::schema::{DatasetKind, GroupRow, Prompt};
use crate::stage::StageContext;
use crate::stage::judged::{Judged, group_rows, is_truncated, sample_and_judge};
use crate::stage::training::{Policy, RolloutLog};
use crate::store::{Location, ShardInfo, ShardWriter, WriterOptions};
use crate::train::{Rollout, ScoredCompletion, ScoredGroup};

/// Rollouts that wait for the next checkpoint, and the shards of those before.
pub struct Rollouts {
    folder: Location,
    pending: Vec<GroupRow>,
    shards: Vec<ShardInfo>,
}

impl Rollouts {
    pub fn new(folder: Location) -> Self {
        Rollouts { folder, pending: Vec::new(), shards: Vec::new() }
    }
}

impl RolloutLog for Rollouts {
    /// One shard holds what was sampled since the last checkpoint: a killed run samples it again,
    /// to the same bytes, and writes the same file.
    fn flush(&mut self) -> Result<Vec<ShardInfo>> {
        if !self.pending.is_empty() {
            let options = WriterOptions::default();
            let mut writer = ShardWriter::create(&self.folder, self.shards.len(), DatasetKind::Groups, options)?;
            writer.push_rows(&std::mem::take(&mut self.pending))?;
            self.shards.push(writer.finish()?);
        }
        Ok(self.shards.clone())
    }

    fn resume(&mut self, shards: Vec<ShardInfo>) {
        self.shards = shards;
    }
}

/// The policy as its own sampler, with the rules behind it.
pub struct OnPolicy<'a> {
    cx: &'a StageContext<'a>,
    engine: LocalEngine,
    /// The policy as it was at the start; a row's `policy_step` says how far it had come.
    info: EngineInfo,
    prompts: Vec<Prompt>,
    rules: RuleSet,
    group_size: u32,
    sampling: Arc<Sampling>,
    sampling_json: String,
    rollouts: Arc<Mutex<Rollouts>>,
}

impl<'a> OnPolicy<'a> {
    /// Prompts are held in memory.
    ///
    /// # Errors
    /// Prompts that cannot be read, or none.
    pub(super) fn new(
        cx: &'a StageContext<'a>,
        policy: &Policy,
        rules: RuleSet,
        table: &GrpoTable,
        rollouts: Arc<Mutex<Rollouts>>,
    ) -> Result<Self> {
        let prompts: Vec<Prompt> = cx.input("prompts")?.rows_of::<Prompt>().collect::<Result<_>>()?;
        let wanted = table.training.prompts_per_rollout;
        if prompts.len() < wanted {
            return Err(Error::new(format!("a rollout wants {wanted} prompts, and there are {}", prompts.len()))
                .hint("lower `training.prompts_per_rollout`, or make more prompts"));
        }
        let (model, tokenizer) = (Arc::clone(&policy.model), Arc::clone(&policy.tokenizer));
        let engine = LocalEngine::new(model, tokenizer, cx.name, Options::default())?;
        let sampling_json = serde_json::to_string(&table.sampling).expect("settings are plain data");
        Ok(OnPolicy {
            cx,
            info: engine.info(),
            engine,
            prompts,
            rules,
            group_size: table.group_size,
            sampling: Arc::new(table.sampling.clone()),
            sampling_json,
            rollouts,
        })
    }
}

impl Rollout for OnPolicy<'_> {
    fn prompts(&self) -> usize {
        self.prompts.len()
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        // A batch that crosses into a new epoch may hold a prompt twice: once is enough.
        let mut seen = std::collections::HashSet::new();
        let asked: Vec<&Prompt> =
            prompts.iter().filter(|i| seen.insert(**i)).map(|&i| &self.prompts[i]).collect();
        let judged = sample_and_judge(
            &self.engine,
            &self.rules,
            &asked,
            self.group_size,
            &self.sampling,
            self.cx.seed,
            step,
        )?;
        let groups = asked.iter().zip(&judged).map(|(prompt, samples)| scored(prompt, samples, step)).collect();
        let mut rollouts = self.rollouts.lock().unwrap_or_else(PoisonError::into_inner);
        for (prompt, samples) in asked.iter().zip(judged) {
            let rows = group_rows(prompt, samples, &self.info, self.rules.digest(), &self.sampling_json, step);
            rollouts.pending.extend(rows);
        }
        Ok(groups)
    }
}

fn scored(prompt: &Prompt, samples: &[Judged], step: u64) -> ScoredGroup {
    let shown = samples.iter().find_map(|s| s.generated.prompt_token_ids.clone());
    let completions = samples.iter().map(|Judged { generated, judgement }| ScoredCompletion {
        tokens: generated.token_ids.clone().unwrap_or_default(),
        logprobs: generated.logprobs.clone(),
        reward: judgement.reward,
        scores: judgement.scores.iter().map(|s| (s.rule.clone(), s.score)).collect(),
        truncated: is_truncated(generated),
    });
    ScoredGroup {
        prompt_id: prompt.prompt_id.clone(),
        policy_step: step,
        prompt: shown.unwrap_or_default(),
        completions: completions.collect(),
    }
}
