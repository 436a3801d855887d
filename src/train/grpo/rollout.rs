//! Scored groups, and where they come from.

use serde::{Deserialize, Serialize};

use crate::error::Result;

use super::super::batch::{Packed, Source};

/// The completions of one prompt under one policy, with their rewards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredGroup {
    /// What failures and logs call the group.
    pub prompt_id: String,
    /// Optimizer step of the policy that sampled it.
    pub policy_step: u64,
    /// The prompt as the policy saw it, template included.
    pub prompt: Vec<u32>,
    /// In sample order; at least two of them must differ in reward to teach anything.
    pub completions: Vec<ScoredCompletion>,
}

/// One completion of a [`ScoredGroup`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoredCompletion {
    /// Token ids, the end-of-turn token included if the model wrote it.
    pub tokens: Vec<u32>,
    /// The sampler's log-probability of each token; `None`, or NaN for a token, where it is not known.
    pub logprobs: Option<Vec<f32>>,
    /// `None` where the rules could not tell: such a completion is not trained on.
    pub reward: Option<f64>,
    /// Each rule's score, in the rule file's order; `None` where it could not tell.
    pub scores: Vec<(String, Option<f64>)>,
    /// Whether it was cut at the token limit.
    pub truncated: bool,
}

/// Its completions go into micro-batches one by one.
impl Packed for ScoredGroup {
    fn rows(&self, context: usize) -> Option<usize> {
        let rows = |completion: &ScoredCompletion| (self.prompt.len() + completion.tokens.len()).saturating_sub(1);
        self.completions.iter().map(rows).filter(|&rows| rows <= context).max()
    }
}

/// Where a GRPO trainer gets scored groups: an engine with rules behind it, or a stored dataset.
pub trait Rollout {
    /// Number of prompts there are to ask. They are asked by index, in the trainer's order.
    fn prompts(&self) -> usize;

    /// The groups of these prompts. On policy, they are sampled from the shared model that the
    /// trainer was made with, which has done `step` optimizer steps; a stored dataset does not look
    /// at it. A prompt that failed may be left out.
    ///
    /// The same arguments must give the same groups, else a resumed run is not the same run.
    ///
    /// # Errors
    /// When no more groups can be had: the training stops.
    fn rollout(&mut self, step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>>;

    /// The batch of these rollouts is whole, and is trained on: those since the last call. Where a rollout failed
    /// instead, the trainer asks for all of them again once it goes on.
    ///
    /// # Errors
    /// The rollouts cannot be kept: the training stops.
    fn collected(&mut self) -> Result<()> {
        Ok(())
    }

    /// Packed tokens of the longest completion with its prompt that it can give, of those that a model with this context
    /// can be trained on: all that fits, where it does not know better.
    fn longest(&self, context: usize) -> usize {
        context
    }

    /// Begins a rollout of the policy as it is now, after `step` optimizer steps: the trainer will
    /// ask for it with these arguments once the policy has moved on. Called only where
    /// [`super::GrpoTrainerConfig::rollouts_ahead`] is above 0; a source that looks at the policy must
    /// not look later.
    ///
    /// # Errors
    /// The rollout cannot be begun: the training stops.
    fn begin(&mut self, _step: u64, _prompts: &[usize]) -> Result<()> {
        Ok(())
    }

    /// Why completions that were asked for have no reward, the commonest reasons with their numbers; `None` where all have
    /// one, or it is not known.
    fn without_reward(&self) -> Option<String> {
        None
    }

    /// Seconds in which a remote sampler took over the policy for the last rollout; `None` where
    /// there is nothing to take over.
    fn reload_seconds(&self) -> Option<f64> {
        None
    }
}

/// A rollout that was begun and not trained on yet: the arguments of [`Rollout::begin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::train) struct Ahead {
    pub step: u64,
    pub prompts: Vec<usize>,
}

/// Groups that were sampled and scored before: "prompt i" is row i of the data.
pub struct Offline<S>(pub S);

impl<S: Source<ScoredGroup>> Rollout for Offline<S> {
    fn prompts(&self) -> usize {
        self.0.len()
    }

    fn rollout(&mut self, _step: u64, prompts: &[usize]) -> Result<Vec<ScoredGroup>> {
        prompts.iter().map(|&i| self.0.get(i)).collect()
    }

    fn longest(&self, context: usize) -> usize {
        self.0.longest(context)
    }
}
