//! Verdicts: what the rules say of one completion.

use super::row::dataset;
use crate::words::words;

words! {
    /// What a rule decided.
    pub enum Outcome {
        /// The rule accepts the completion.
        Correct = "correct",
        /// The rule rejects it.
        Wrong = "wrong",
        /// The rule cannot decide: gold does not parse, out of budget, judge down. Never scored as 0.
        CannotTell = "cannot_tell",
    }
}

/// One rule's verdict inside a [`VerdictRow`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Score {
    /// The name the rule file gives the rule.
    pub rule: String,
    /// Usually in [0, 1]; null when the outcome is cannot tell.
    pub score: Option<f64>,
    /// `correct`, `wrong` or `cannot_tell`.
    pub outcome: Outcome,
    /// A short, stable code such as `no_answer`, `not_equal`, `gold_unparsed`.
    pub reason: String,
    /// What was extracted and how it was read, as JSON; null if there is nothing to show.
    pub evidence: Option<String>,
}

dataset! {
    Verdicts;

    /// One row of a verdicts dataset: one completion under one rule file.
    pub struct VerdictRow {
        /// The prompt that was answered.
        pub prompt_id: String,
        /// 0-based index among the samples of the prompt.
        pub sample_index: u32,
        /// The completion that was judged.
        pub completion_id: String as unique,
        /// The rule file's reward expression over the scores; null if it cannot be told.
        pub reward: Option<f64>,
        /// The outcome of the rule file's deciding rule (`outcome = …`, by default its first).
        pub outcome: Outcome,
        /// The deciding rule's reason code.
        pub reason: String,
        /// Every rule's verdict, in the rule file's order.
        pub scores: Vec<Score>,
        /// BLAKE3 of the resolved rule file.
        pub rules_digest: String,
    }
}
