//! A rollout batch: some prompts asked and judged, the same whoever samples and on whatever thread.

use std::sync::Arc;

use crate::engine::{Engine, EngineInfo, Generated, Sampling};
use crate::error::{Error, ErrorKind, Result};
use crate::rule::file::RuleSet;
use crate::schema::{FinishReason, GroupRow, Prompt};
use crate::stage::judged::{Asked, ensure_judged, ensure_some_answer, group_rows, judge};
use crate::train::{ScoredCompletion, ScoredGroup};

/// What is asked, and how it is judged.
pub struct Asker {
    pub prompts: Vec<Prompt>,
    pub rules: RuleSet,
    pub group_size: u32,
    /// Prompts of a batch that is no refill: if not one of them is answered, something is wrong with more than a prompt.
    pub per_rollout: usize,
    /// How completions are drawn, as their rows say.
    pub sampling: Sampling,
    /// How they are asked for: at temperature 1 where the weights that are sent have the temperature in them.
    pub asked: Arc<Sampling>,
    pub seed: u64,
    /// The policy as it was at the start; a row's `policy_step` says how far it had come.
    pub info: EngineInfo,
}

/// Which rollout a batch is: the policy's step and the prompts' ids.
pub type Key = (u64, Vec<String>);

/// One rollout batch, sampled and judged.
pub struct RolloutBatch {
    pub key: Key,
    /// The rows of each group, in the order of the prompts.
    pub groups: Vec<Vec<GroupRow>>,
    /// Seconds in which servers took over the policy for it, if they did.
    pub reload_seconds: Option<f64>,
    /// What happened to the servers meanwhile, a line each for people.
    pub news: Vec<String>,
}

/// A batch that was asked for and is not whole, since the user stopped.
pub struct Part {
    pub key: Key,
    /// What was answered until then.
    pub answered: Vec<Generated>,
}

/// What came of a batch that was asked for.
pub enum Came {
    Whole(RolloutBatch),
    Part(Part),
}

impl Asker {
    fn chosen(&self, prompts: &[usize]) -> Vec<&Prompt> {
        prompts.iter().map(|&i| &self.prompts[i]).collect()
    }

    /// What the batch of these prompts is called.
    pub fn key(&self, step: u64, prompts: &[usize]) -> Key {
        (step, self.chosen(prompts).iter().map(|prompt| prompt.prompt_id.clone()).collect())
    }

    /// Samples what is not answered yet, and judges.
    ///
    /// # Errors
    /// The engine cannot go on; a whole batch of which nothing was answered, or judged for want of a server.
    pub fn ask(&self, engine: &dyn Engine, step: u64, prompts: &[usize], answered: Vec<Generated>) -> Result<Came> {
        let chosen = self.chosen(prompts);
        let mut asked = Asked::new(&chosen, self.group_size)?;
        answered.into_iter().try_for_each(|answer| asked.take(answer))?;
        match asked.ask(engine, &self.asked, self.seed, step) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                return Ok(Came::Part(Part { key: self.key(step, prompts), answered: asked.answered() }));
            }
            outcome => outcome?,
        }
        let judged = judge(&self.rules, &chosen, asked.whole()?);
        if prompts.len() >= self.per_rollout {
            ensure_some_answer(judged.iter().flatten())?;
            ensure_judged(judged.iter().flatten())?;
        }
        let sampling = serde_json::to_string(&self.sampling).expect("settings are plain data");
        let rows = |(prompt, samples): (&&Prompt, _)| {
            group_rows(prompt, samples, &self.info, self.rules.digest(), &sampling, step)
        };
        let groups = chosen.iter().zip(judged).map(rows).collect();
        let key = self.key(step, prompts);
        Ok(Came::Whole(RolloutBatch { key, groups, reload_seconds: None, news: Vec::new() }))
    }

    /// Where prompts with these ids are.
    ///
    /// # Errors
    /// One of them is not asked in this run.
    pub fn places(&self, ids: &[String]) -> Result<Vec<usize>> {
        let place = |id: &String| {
            let found = self.prompts.iter().position(|prompt| prompt.prompt_id == *id);
            found.ok_or_else(|| Error::new(format!("a checkpoint asks the prompt {id}, which is not there")))
        };
        ids.iter().map(place).collect()
    }
}

impl RolloutBatch {
    /// The batch of rows that were stored group by group.
    pub fn of_rows(rows: Vec<GroupRow>) -> Option<Self> {
        let step = rows.first()?.policy_step;
        let mut groups: Vec<Vec<GroupRow>> = Vec::new();
        for row in rows {
            match groups.last_mut() {
                Some(group) if group[0].prompt_id == row.prompt_id => group.push(row),
                _ => groups.push(vec![row]),
            }
        }
        let ids = groups.iter().map(|group| group[0].prompt_id.clone()).collect();
        Some(RolloutBatch { key: (step, ids), groups, reload_seconds: None, news: Vec::new() })
    }

    /// As the trainer takes it: requests that failed are left out, and groups of nothing else.
    pub fn scored(&self) -> Vec<ScoredGroup> {
        self.groups.iter().map(|rows| scored(rows)).filter(|group| !group.completions.is_empty()).collect()
    }
}

fn scored(rows: &[GroupRow]) -> ScoredGroup {
    let answered = rows.iter().filter(|row| row.finish_reason != FinishReason::Error);
    let completions = answered.map(|row| ScoredCompletion {
        tokens: row.token_ids.clone().unwrap_or_default(),
        logprobs: row.logprobs.clone(),
        reward: row.reward,
        scores: row.scores.iter().map(|s| (s.rule.clone(), s.score)).collect(),
        truncated: row.finish_reason == FinishReason::Length,
    });
    ScoredGroup {
        prompt_id: rows[0].prompt_id.clone(),
        policy_step: rows[0].policy_step,
        prompt: rows.iter().find_map(|row| row.prompt_token_ids.clone()).unwrap_or_default(),
        completions: completions.collect(),
    }
}
