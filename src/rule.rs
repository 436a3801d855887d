//! Rules: checks of one completion, and the rule files that turn their scores into a reward.
//!
//! A rule gets plain text and answers with a [`Verdict`]. It knows nothing of
//! Parquet, engines or trainers, keeps no state between samples, and gives the
//! same verdict on any machine and thread.

mod announce;
pub mod audit;
pub mod choice;
pub mod code;
pub mod constraint;
mod domain;
pub mod exact;
pub mod expression;
pub mod file;
pub mod format;
pub mod http;
pub mod json_schema;
pub mod judge;
pub mod language;
pub mod length;
pub mod overlap;
pub mod params;
pub mod pattern;
pub mod readability;
pub mod registry;
mod remote;
pub mod repetition;
mod text;
pub mod think;

#[cfg(test)]
pub(crate) mod testing;

pub use domain::domain_of;
pub use file::{Judgement, RuleSet};
pub use remote::{Unreached, unreached};
pub mod math;

use crate::schema::{FinishReason, Message, Outcome};

/// What a rule sees of one completion.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// The last user turn.
    pub prompt: &'a str,
    /// All that the model wrote, reasoning included with its tags.
    pub completion: &'a str,
    /// The reference answer, if there is one.
    pub gold: Option<&'a str>,
    /// The prompt's `verification` JSON (unit tests, constraints, choices).
    pub verification: Option<&'a str>,
    /// The prompt's: `math`, `code`, `stem`, `logic`, `general`, or the user's own word.
    pub domain: &'a str,
    /// BCP 47 primary tag; `und` if unknown.
    pub language: &'a str,
    /// 0 (easiest) to 1; `None` if unknown.
    pub difficulty: Option<f64>,
    /// Why the completion ended: an answer may be missing because it was cut.
    pub finish_reason: FinishReason,
    /// Tokens of the completion, where the engine tells.
    pub tokens: Option<u32>,
    /// What else is known of the prompt.
    pub origin: Origin<'a>,
}

/// What is known of a sample's prompt that only a rule which hands samples on to others reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The prompt's id; `None` where rows have none.
    pub prompt_id: Option<&'a str>,
    /// The conversation that was answered; empty where only its question is known.
    pub messages: &'a [Message],
    /// Further columns of the prompt as the text of one JSON object. Where they would have to be read for the purpose,
    /// they are there only if a rule names some ([`Rule::columns`]).
    pub extra: Option<&'a str>,
}

/// What a rule says of a [`Sample`].
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Correct, wrong or cannot tell; decides whether there is a score.
    pub outcome: Outcome,
    /// Usually in [0, 1]; `None` exactly when the outcome is cannot tell.
    pub score: Option<f64>,
    /// A short, stable code in snake case: `not_equal`, `no_answer`, `gold_unparsed`, `truncated`.
    pub reason: &'static str,
    /// What was extracted, how it was read: shown by `rules try`, stored as JSON. Order is kept.
    pub evidence: Vec<(&'static str, String)>,
}

impl Verdict {
    /// Score 1.
    pub fn correct(reason: &'static str) -> Self {
        Verdict { outcome: Outcome::Correct, score: Some(1.0), reason, evidence: Vec::new() }
    }

    /// Score 0.
    pub fn wrong(reason: &'static str) -> Self {
        Verdict { outcome: Outcome::Wrong, score: Some(0.0), reason, evidence: Vec::new() }
    }

    /// No score: the fault is not the completion's.
    pub fn cannot_tell(reason: &'static str) -> Self {
        Verdict { outcome: Outcome::CannotTell, score: None, reason, evidence: Vec::new() }
    }

    /// A graded score; correct from `pass` upwards.
    pub fn graded(score: f64, pass: f64, reason: &'static str) -> Self {
        let outcome = if score >= pass { Outcome::Correct } else { Outcome::Wrong };
        Verdict { outcome, score: Some(score), reason, evidence: Vec::new() }
    }

    /// Adds a piece of evidence.
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.evidence.push((key, value.into()));
        self
    }
}

/// One check of one completion.
pub trait Rule: Send + Sync {
    /// Decides on one sample. Bounded work, no panic on any input.
    fn check(&self, sample: &Sample<'_>) -> Verdict;

    /// Decides on many at once, in order. Rules that wait (a judge, a sandbox)
    /// override this to overlap the waiting.
    fn check_batch(&self, samples: &[Sample<'_>]) -> Vec<Verdict> {
        samples.iter().map(|sample| self.check(sample)).collect()
    }

    /// Further columns of prompts that the rule reads, out of [`Origin::extra`].
    fn columns(&self) -> &[String] {
        &[]
    }
}
