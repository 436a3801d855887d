//! Engines: prompts and sampling settings in, completions out.
//!
//! An engine knows nothing of our datasets. It pulls requests as it has room and
//! hands completions back in any order, so memory does not depend on the
//! dataset's size.

pub mod local;
pub mod replay;
pub mod vllm;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::schema::{FinishReason, Message};
use crate::seed::sample_seed;

/// How tokens are drawn. Serialised as canonical JSON into every completion.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]; 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// Floor relative to the most likely token's probability; 0 is off.
    pub min_p: f32,
    /// Most tokens a completion may have.
    pub max_tokens: u32,
    /// Strings that end a completion.
    pub stop: Vec<String>,
    /// Token ids that end a completion, beside the model's own end of turn.
    pub stop_token_ids: Vec<u32>,
}

impl Default for Sampling {
    /// The paper's evaluation settings: temperature 0.6, top-p 0.95.
    fn default() -> Self {
        Sampling {
            temperature: 0.6,
            top_p: 0.95,
            top_k: 0,
            min_p: 0.0,
            max_tokens: 4096,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
        }
    }
}

/// One sample of a prompt, and the seed that it is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleSeed {
    /// Which of the prompt's samples it is, from 0.
    pub index: u32,
    /// Decides what is drawn, for engines that take seeds.
    pub seed: u64,
}

impl SampleSeed {
    /// That sample of a prompt in a run with that seed, under the policy of that optimizer step.
    pub fn new(run_seed: u64, prompt_id: &str, index: u32, policy_step: u64) -> SampleSeed {
        SampleSeed { index, seed: sample_seed(run_seed, prompt_id, index, policy_step) }
    }
}

/// One prompt and the samples wanted of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt row's `prompt_id`.
    pub prompt_id: Arc<str>,
    /// The conversation up to the turn that the model writes.
    pub messages: Arc<[Message]>,
    /// One for each completion wanted.
    pub samples: Vec<SampleSeed>,
    /// How each of them is drawn.
    pub sampling: Arc<Sampling>,
    /// Optimizer step of the policy that is asked; 0 for a fixed model.
    pub policy_step: u64,
}

/// What came of one sample of a [`Request`].
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The request's.
    pub prompt_id: Arc<str>,
    /// The request's, from 0.
    pub sample_index: u32,
    /// All that the model wrote, reasoning included with its tags; `None` if it failed.
    pub text: Option<String>,
    /// The completion as tokens, its end token included where it has one; `None` if the engine does not tell.
    pub token_ids: Option<Vec<u32>>,
    /// Log-probability of each of `token_ids` in nats; `None` if it was not asked for.
    pub logprobs: Option<Vec<f32>>,
    /// The prompt as the model read it, template included; `None` if the engine does not tell.
    pub prompt_token_ids: Option<Vec<u32>>,
    /// Why the completion ends where it does.
    pub finish_reason: FinishReason,
    /// The stop string or token id that ended it; `None` for the end token and for what was cut.
    pub stop_reason: Option<String>,
    /// As the engine counts; `None` if it does not.
    pub prompt_tokens: Option<u32>,
    /// As the engine counts, all continuations together; `None` if it does not.
    pub completion_tokens: Option<u32>,
    /// Set exactly when `finish_reason` is `Error`.
    pub error: Option<String>,
    /// What the source of a recorded completion says of it; `None` for what was just made.
    pub label: Option<bool>,
}

impl Generated {
    /// What comes of a sample whose request failed, and why it did.
    pub fn failed(prompt_id: Arc<str>, sample_index: u32, error: impl Into<String>) -> Self {
        Generated {
            prompt_id,
            sample_index,
            text: None,
            token_ids: None,
            logprobs: None,
            prompt_token_ids: None,
            finish_reason: FinishReason::Error,
            stop_reason: None,
            prompt_tokens: None,
            completion_tokens: None,
            error: Some(error.into()),
            label: None,
        }
    }
}

/// What a completion records of who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// `local`, `vllm` or `replay`.
    pub engine: &'static str,
    /// The name of the model that answers.
    pub model: String,
    /// BLAKE3 of the weights, or what identifies a remote model.
    pub model_digest: String,
    /// Whether the same request gives the same bytes again.
    pub deterministic: bool,
}

/// Something that answers prompts.
pub trait Engine: Send + Sync {
    /// Who answers; the same as long as the engine lives.
    fn info(&self) -> EngineInfo;

    /// How many samples of a prompt there are; `None` if as many as one asks for.
    fn available(&self, _request: &Request) -> Option<usize> {
        None
    }

    /// How many samples it holds altogether; `None` if it makes them.
    fn holds(&self) -> Option<u64> {
        None
    }

    /// Whether its samples are drawn as a request asks; else they were made before, with settings and seeds that it
    /// does not know.
    fn draws(&self) -> bool {
        true
    }

    /// What it holds and cannot serve, by reason.
    fn left_out(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Answers every request; `sink` is called once for each sample, in any order.
    ///
    /// # Errors
    /// Only when the engine cannot go on (no server left, model changed) or
    /// `sink` fails. A request that fails is a [`Generated`] with an error.
    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()>;
}
