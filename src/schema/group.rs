//! Groups: the completions of one prompt under one policy, with rewards and advantages.
//!
//! One row a completion; the rows of a group are adjacent, in sample order.

use super::row::dataset;
use super::{FinishReason, Outcome, Score};

dataset! {
    Groups;

    /// One row of a groups dataset.
    pub struct GroupRow {
        /// The prompt the group answers.
        pub prompt_id: String,
        /// Optimizer step of the policy that sampled the group; (prompt_id, policy_step) names the group.
        pub policy_step: u64,
        /// 0-based index among the samples of the group.
        pub sample_index: u32,
        /// As in the completions dataset.
        pub completion_id: String as unique,
        /// The prompt's domain.
        pub domain: String,
        /// The prompt's language, BCP 47 primary tag; `und` if unknown.
        pub language: String,
        /// The prompt's difficulty in [0, 1]; null if unknown.
        pub difficulty: Option<f64>,
        /// The rule file's reward; null where the rules could not tell.
        pub reward: Option<f64>,
        /// (reward − group mean) / (group std + 1e-6), DeepSeekMath eq. 3's A; 0 in a group without
        /// variance; null where reward is null.
        pub advantage: Option<f64>,
        /// The deciding rule's outcome: `correct`, `wrong` or `cannot_tell`.
        pub outcome: Outcome,
        /// The deciding rule's reason code.
        pub reason: String,
        /// Every rule's verdict, in the rule file's order.
        pub scores: Vec<Score>,
        /// Completions of this group, those without a reward included.
        pub group_size: u32,
        /// Mean of the group's rewards; null if none has one.
        pub reward_mean: Option<f64>,
        /// Population standard deviation of the group's rewards, 0 where they differ by rounding alone; null if none
        /// has one.
        pub reward_std: Option<f64>,
        /// Correct over decided (correct + wrong); null if none is decided.
        pub pass_rate: Option<f64>,
        /// Why the completion ended, as in the completions dataset.
        pub finish_reason: FinishReason,
        /// Tokens of the completion; null where the engine did not tell.
        pub completion_tokens: Option<u32>,
        /// As in the completions dataset; null too where the stage was told not to carry it.
        pub text: Option<String> as prose,
        /// As in the completions dataset; null too where the stage was told not to carry it.
        pub prompt_token_ids: Option<Vec<u32>>,
        /// As in the completions dataset; null too where the stage was told not to carry it.
        pub token_ids: Option<Vec<u32>>,
        /// As in the completions dataset; null too where the stage was told not to carry it.
        pub logprobs: Option<Vec<f32>>,
        /// Name of the model, as its engine calls it.
        pub model: String,
        /// BLAKE3 of the model's weights, or what identifies a remote model.
        pub model_digest: String,
        /// BLAKE3 of the resolved rule file.
        pub rules_digest: String,
        /// Sampling settings as canonical JSON.
        pub sampling: String,
    }
}
