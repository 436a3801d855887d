//! What a column is, and how a file is checked against the contract.

use std::fmt;

/// The datasets that stages exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetKind {
    Prompts,
    Completions,
    Verdicts,
    Groups,
    Corpus,
    Preferences,
}

/// The types a column may have; each maps to one Arrow type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    U32,
    U64,
    F64,
    /// list<uint32>
    TokenIds,
    /// list<float32>
    Logprobs,
    /// list<struct<role: utf8, content: utf8>>
    Messages,
    /// list<struct<rule: utf8, score: float64?, outcome: utf8, reason: utf8, evidence: utf8?>>
    Scores,
}

/// One column of a dataset.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub column_type: ColumnType,
    pub nullable: bool,
    /// What it means, its unit, who writes it, what null means.
    pub doc: &'static str,
}

impl fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatasetKind::Prompts => "prompts",
            DatasetKind::Completions => "completions",
            DatasetKind::Verdicts => "verdicts",
            DatasetKind::Groups => "groups",
            DatasetKind::Corpus => "corpus",
            DatasetKind::Preferences => "preferences",
        })
    }
}
