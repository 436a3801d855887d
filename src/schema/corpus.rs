//! Corpus: the SFT dataset, messages with reasoning and answer, and each row's lineage.

use super::Message;

/// One row of a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct CorpusRow {
    /// The whole conversation; the last turn is the assistant's, reasoning included with its tags.
    pub messages: Vec<Message>,
    /// The chain of thought alone; null if the row has none.
    pub reasoning: Option<String>,
    /// What follows the reasoning.
    pub answer: String,
    /// `reasoning` or `other`, or the user's own track.
    pub track: String,
    pub domain: String,
    pub language: String,
    pub difficulty: Option<f64>,
    /// The prompt's data source and licence.
    pub source: String,
    pub license: Option<String>,
    /// Tokens of the completion; null where the engine did not tell.
    pub completion_tokens: Option<u32>,
    pub prompt_id: String,
    pub sample_index: u32,
    pub completion_id: String,
    pub reward: Option<f64>,
    pub model: String,
    pub model_digest: String,
    pub rules_digest: String,
    /// Sampling settings as canonical JSON.
    pub sampling: String,
}
