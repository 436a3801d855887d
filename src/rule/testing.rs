//! Samples for the tests of rules.

use super::{Origin, Sample};
use crate::schema::FinishReason;

/// A finished English maths completion without gold.
pub(crate) fn sample(completion: &str) -> Sample<'_> {
    Sample {
        prompt: "What is 2 + 2?",
        completion,
        gold: None,
        verification: None,
        domain: "math",
        language: "en",
        difficulty: None,
        finish_reason: FinishReason::Stop,
        tokens: None,
        origin: Origin::default(),
    }
}

/// The same with gold.
pub(crate) fn with_gold<'a>(completion: &'a str, gold: &'a str) -> Sample<'a> {
    Sample { gold: Some(gold), ..sample(completion) }
}
