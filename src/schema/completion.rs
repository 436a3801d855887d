//! Completions: one sampled answer to a prompt.

use super::Outcome;
use super::row::dataset;
use crate::words::words;

words! {
    /// Why a completion ended.
    pub enum FinishReason {
        /// The model ended its turn or met a stop string, or the server ended it before the limit: nothing was cut at it.
        Stop = "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" | "tool_calls" | "tool_use" | "function_call"
            | "content_filter",
        /// Cut at the token limit: counted apart everywhere, never retried by default.
        Length = "length" | "max_tokens" | "max_length" | "model_length",
        /// The request failed; `error` says why. Retried by the next run.
        Error = "error" | "abort",
        /// The source does not say (recorded completions).
        Unknown = "unknown",
    }
}

impl FinishReason {
    /// The value of a word that a server has for it, ours among them, whatever its case; unknown where it says nothing,
    /// and `None` of a word that nobody is known to use.
    pub fn from_server(word: &str) -> Option<FinishReason> {
        match word.trim().to_ascii_lowercase().as_str() {
            "" => Some(FinishReason::Unknown),
            word => FinishReason::parse(word),
        }
    }
}

dataset! {
    Completions;

    /// One row of a completions dataset.
    pub struct Completion {
        /// The prompt it answers.
        pub prompt_id: String,
        /// 0-based index among the samples of this prompt under this policy.
        pub sample_index: u32,
        /// 32 hex digits: BLAKE3 over prompt id, sample index, policy step, model digest and sampling.
        pub completion_id: String as unique,
        /// All that the model wrote, reasoning included with its tags; null if the request failed.
        pub text: Option<String> as prose,
        /// Token ids of `text`, and the token that ended it if the model wrote one; null where the engine does not tell.
        pub token_ids: Option<Vec<u32>>,
        /// Natural-log probability of each token under the sampler's policy, nothing cut off, same length as `token_ids`:
        /// `local` at its temperature, servers as they report it (vLLM before temperature, unless it runs with
        /// `--logprobs-mode processed_logprobs`); null where the engine does not tell.
        pub logprobs: Option<Vec<f32>>,
        /// Token ids of the prompt as the engine saw it, template included; null where not told.
        pub prompt_token_ids: Option<Vec<u32>>,
        /// Why it ended: `stop`, `length`, `error` or `unknown`; written by the engine.
        pub finish_reason: FinishReason,
        /// The stop string or token met; null if none.
        pub stop_reason: Option<String>,
        /// Tokens of the prompt, template included; null where the engine does not tell.
        pub prompt_tokens: Option<u32>,
        /// Tokens of the completion; null where the engine does not tell.
        pub completion_tokens: Option<u32>,
        /// `local`, `vllm`, `replay` …
        pub engine: String,
        /// Name of the model as the engine calls it.
        pub model: String,
        /// BLAKE3 of the weights (local), or what identifies a remote model.
        pub model_digest: String,
        /// Optimizer step of the policy that sampled it; 0 for a fixed model.
        pub policy_step: u64,
        /// The seed sent to the sampler; null where it takes none, and of recorded completions.
        pub seed: Option<u64>,
        /// Sampling settings as canonical JSON; of recorded completions those that are known, `{}` if none is.
        pub sampling: String,
        /// What the source of a recorded completion says of it, `correct` or `wrong`; null where it says nothing.
        pub label: Option<Outcome>,
        /// What went wrong; null unless `finish_reason` is `error`.
        pub error: Option<String> as prose,
    }
}
