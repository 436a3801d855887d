//! What an evaluation tells apart beside the whole.

use serde::Deserialize;

use crate::eval::difficulty_band;
use crate::schema::Prompt;

/// What the slices by source begin with.
pub(super) const SOURCE: &str = "source=";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Slice {
    Domain,
    Language,
    Difficulty,
    Source,
}

impl Slice {
    pub(super) fn of(self, prompt: &Prompt) -> String {
        match self {
            Slice::Domain => format!("domain={}", prompt.domain),
            Slice::Language => format!("language={}", prompt.language),
            Slice::Difficulty => format!("difficulty={}", difficulty_band(prompt.difficulty, 4)),
            Slice::Source => format!("{SOURCE}{}", prompt.source),
        }
    }
}
