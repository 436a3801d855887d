//! Groups: the completions of one prompt under one policy, with rewards and advantages.
//!
//! One row a completion; the rows of a group are adjacent, in sample order.

use super::{FinishReason, Outcome, Score};

/// One row of a groups dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRow {
    pub prompt_id: String,
    /// Optimizer step of the policy that sampled the group; (prompt_id, policy_step) names the group.
    pub policy_step: u64,
    pub sample_index: u32,
    pub completion_id: String,
    pub domain: String,
    pub language: String,
    pub difficulty: Option<f64>,
    /// Null where the rules could not tell.
    pub reward: Option<f64>,
    /// (reward − group mean) / (group std + 1e-6), DeepSeekMath eq. 3's A; 0 in a group without
    /// variance; null where reward is null.
    pub advantage: Option<f64>,
    pub outcome: Outcome,
    pub reason: String,
    pub scores: Vec<Score>,
    /// Completions of this group, those without a reward included.
    pub group_size: u32,
    /// Mean and population standard deviation of the group's rewards; null if none has one.
    pub reward_mean: Option<f64>,
    pub reward_std: Option<f64>,
    /// Correct over decided (correct + wrong); null if none is decided.
    pub pass_rate: Option<f64>,
    pub finish_reason: FinishReason,
    pub completion_tokens: Option<u32>,
    /// As in the completions dataset; null where the stage was told not to carry them.
    pub text: Option<String>,
    pub prompt_token_ids: Option<Vec<u32>>,
    pub token_ids: Option<Vec<u32>>,
    pub logprobs: Option<Vec<f32>>,
    pub model: String,
    pub model_digest: String,
    pub rules_digest: String,
    /// Sampling settings as canonical JSON.
    pub sampling: String,
}
