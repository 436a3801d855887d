//! Corpus: the SFT dataset, messages with reasoning and answer, and each row's lineage.

use super::Message;
use super::row::dataset;

dataset! {
    Corpus;

    /// One row of a corpus.
    pub struct CorpusRow {
        /// The whole conversation; the last turn is the assistant's, reasoning included with its tags.
        pub messages: Vec<Message>,
        /// The chain of thought alone; null if the row has none.
        pub reasoning: Option<String> as prose,
        /// What follows the reasoning.
        pub answer: String as prose,
        /// `reasoning` or `other`, or the user's own track.
        pub track: String,
        /// The prompt's domain.
        pub domain: String,
        /// The prompt's language, BCP 47 primary tag; `und` if unknown.
        pub language: String,
        /// The prompt's difficulty in [0, 1]; null if unknown.
        pub difficulty: Option<f64>,
        /// The prompt's data source.
        pub source: String,
        /// SPDX licence id of the source; null if unknown.
        pub license: Option<String>,
        /// Tokens of the completion; null where the engine did not tell.
        pub completion_tokens: Option<u32>,
        /// The prompt the row answers.
        pub prompt_id: String,
        /// 0-based index among the samples of the prompt.
        pub sample_index: u32,
        /// The completion the row was made of.
        pub completion_id: String as unique,
        /// The completion's reward; null where no rule scored it.
        pub reward: Option<f64>,
        /// Name of the model that wrote it, as its engine calls it.
        pub model: String,
        /// BLAKE3 of the model's weights, or what identifies a remote model.
        pub model_digest: String,
        /// BLAKE3 of the rule file that judged it.
        pub rules_digest: String,
        /// Sampling settings as canonical JSON.
        pub sampling: String,
    }
}
