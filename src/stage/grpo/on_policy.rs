//! Rollouts of the policy as it is: sample, judge, keep.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::GrpoTable;
use super::sampler::{Sampler, SamplerConfig};
use crate::backend::Backend;
use crate::engine::{EngineInfo, Sampling};
use crate::error::{Error, Result};
use crate::rule::file::RuleSet;
use crate::schema::{DatasetKind, GroupRow, Prompt};
use crate::stage::StageContext;
use crate::stage::judged::{Judged, group_rows, is_truncated, sample_and_judge};
use crate::stage::training::{Policy, RolloutLog};
use crate::store::{Dataset, Location, ShardInfo, ShardWriter, WriterOptions};
use crate::train::{Rollout, ScoredCompletion, ScoredGroup};

/// The groups sampled so far: whole shards on disk, the rest in memory.
///
/// Where a shard ends depends on the rows alone, not on checkpoints, so a killed and resumed run
/// writes the same files.
pub struct Rollouts {
    folder: Location,
    shard_rows: usize,
    pending: Vec<GroupRow>,
    shards: Vec<ShardInfo>,
}

impl Rollouts {
    pub fn new(folder: Location, shard_rows: usize) -> Self {
        Rollouts { folder, shard_rows, pending: Vec::new(), shards: Vec::new() }
    }

    /// Adds the rows of one rollout batch.
    fn push(&mut self, rows: impl IntoIterator<Item = GroupRow>) -> Result<()> {
        self.pending.extend(rows);
        if self.pending.len() >= self.shard_rows { self.write_shard() } else { Ok(()) }
    }

    fn write_shard(&mut self) -> Result<()> {
        let options = WriterOptions::default();
        let mut writer = ShardWriter::create(&self.folder, self.shards.len(), DatasetKind::Groups, options)?;
        writer.push_rows(&self.pending)?;
        self.shards.push(writer.finish()?);
        self.pending.clear();
        Ok(())
    }
}

/// Folder of the pending rows within a checkpoint.
const PENDING: &str = "pending";

impl RolloutLog for Rollouts {
    fn store(&self, checkpoint: &Path) -> Result<Vec<ShardInfo>> {
        if !self.pending.is_empty() {
            let folder = Location::parse(&checkpoint.join(PENDING).display().to_string())?;
            let mut writer = ShardWriter::create(&folder, 0, DatasetKind::Groups, WriterOptions::default())?;
            writer.push_rows(&self.pending)?;
            writer.finish()?;
        }
        Ok(self.shards.clone())
    }

    fn resume(&mut self, checkpoint: &Path, shards: Vec<ShardInfo>) -> Result<()> {
        let pending = checkpoint.join(PENDING);
        self.shards = shards;
        self.pending = match pending.exists() {
            true => {
                let dataset = Dataset::open(&Location::parse(&pending.display().to_string())?)?;
                dataset.rows_of::<GroupRow>().collect::<Result<_>>()?
            }
            false => Vec::new(),
        };
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<ShardInfo>> {
        if !self.pending.is_empty() {
            self.write_shard()?;
        }
        Ok(self.shards.clone())
    }
}

/// The policy as its own sampler, with the rules behind it.
pub struct OnPolicy<'a, B: Backend> {
    cx: &'a StageContext<'a>,
    sampler: Sampler<B>,
    /// The policy as it was at the start; a row's `policy_step` says how far it had come.
    info: EngineInfo,
    prompts: Vec<Prompt>,
    rules: RuleSet,
    group_size: u32,
    sampling: Arc<Sampling>,
    sampling_json: String,
    rollouts: Arc<Mutex<Rollouts>>,
}

impl<'a, B: Backend> OnPolicy<'a, B> {
    /// Prompts are held in memory.
    ///
    /// # Errors
    /// Prompts that cannot be read, or none; no server, or one that cannot be used.
    pub(super) fn new(
        cx: &'a StageContext<'a>,
        policy: &Policy<B>,
        rules: RuleSet,
        table: &GrpoTable,
        sampler: &SamplerConfig,
        rollouts: Arc<Mutex<Rollouts>>,
    ) -> Result<Self> {
        let prompts: Vec<Prompt> = cx.input("prompts")?.rows_of::<Prompt>().collect::<Result<_>>()?;
        let wanted = table.training.prompts_per_rollout;
        if prompts.len() < wanted {
            return Err(Error::new(format!("a rollout wants {wanted} prompts, and there are {}", prompts.len()))
                .hint("lower `training.prompts_per_rollout`, or make more prompts"));
        }
        let sampler = Sampler::open(sampler, cx, policy)?;
        let sampling_json = serde_json::to_string(&table.sampling).expect("settings are plain data");
        Ok(OnPolicy {
            cx,
            info: sampler.info(policy),
            sampler,
            prompts,
            rules,
            group_size: table.group_size,
            sampling: Arc::new(table.sampling.clone()),
            sampling_json,
            rollouts,
        })
    }
}

impl<B: Backend> Rollout for OnPolicy<'_, B> {
    fn prompts(&self) -> usize {
        self.prompts.len()
    }

    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        // A batch that crosses into a new epoch may hold a prompt twice: once is enough.
        let mut seen = std::collections::HashSet::new();
        let asked: Vec<&Prompt> = prompts.iter().filter(|i| seen.insert(**i)).map(|&i| &self.prompts[i]).collect();
        let judged = sample_and_judge(
            self.sampler.at_step(step)?,
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
            rollouts.push(rows)?;
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
