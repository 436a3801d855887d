//! Every prompt that did not stay, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::import::Imported;

/// One dropped prompt: a row of the drop log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Dropped {
    /// Made as a kept prompt's is, of its content: 32 hex digits.
    pub prompt_id: String,
    /// The prompt's data source.
    pub source: String,
    /// The file it was read from.
    pub file: String,
    /// 0-based row of that file.
    pub row: u64,
    /// 1-based line where the row starts; null for Parquet.
    pub line: Option<usize>,
    /// A short, stable code: `too_short`, `too_long`, `language`, `no_gold`, `duplicate_id`, `exact_duplicate`,
    /// `gold_conflict`, `near_duplicate`, `contaminated`, `unmeasured`, `pass_rate`, `sampled_out`.
    pub reason: &'static str,
    /// What decided it: the kept prompt it duplicates, the n-gram, the length.
    pub detail: String,
}

impl Dropped {
    pub(super) fn new(from: &Imported, reason: &'static str, detail: impl Into<String>) -> Self {
        Dropped {
            prompt_id: from.prompt.prompt_id.clone(),
            source: from.prompt.source.clone(),
            file: from.file.to_string(),
            row: from.place.row,
            line: from.place.line,
            reason,
            detail: detail.into(),
        }
    }
}

/// Two prompts that ask the same and have different golds: one of the golds is wrong, or the questions are not as
/// equal as their normal forms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GoldConflict {
    /// The later one of the two.
    pub prompt_id: String,
    /// The kept prompt, which came earlier.
    pub of: String,
    /// Whether it was dropped: the two are the same but for white space.
    pub dropped: bool,
    /// The prompt's gold.
    pub gold: Option<String>,
    /// The file the prompt was read from.
    pub file: String,
    /// 0-based row of that file.
    pub row: u64,
    /// 1-based line where the row starts; null for Parquet.
    pub line: Option<usize>,
}

impl GoldConflict {
    pub(super) fn new(from: &Imported, of: String, dropped: bool) -> Self {
        GoldConflict {
            prompt_id: from.prompt.prompt_id.clone(),
            of,
            dropped,
            gold: from.prompt.gold.clone(),
            file: from.file.to_string(),
            row: from.place.row,
            line: from.place.line,
        }
    }
}

/// Drops by reason.
pub type DropCounts = BTreeMap<String, u64>;
