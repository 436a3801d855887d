//! Settings of the math rule: where the answer stands, and which differences from gold are granted.

use super::Place;

/// Which differences from gold are granted.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// None.
    Exact,
    /// Where gold is a decimal of at least three digits, an answer with more digits (or an exact
    /// expression) that rounds to it; where gold is a fraction whose decimals never end, 14 of
    /// them or more.
    GoldPrecision,
    /// |answer − gold| ≤ limit · |gold|.
    Relative(f64),
    /// |answer − gold| ≤ limit.
    Absolute(f64),
}

/// What reasoning tags mean for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Think {
    /// Look after the closing tag where there is one; an open tag that never closes is truncation.
    Auto,
    /// The closing tag must be there.
    Required,
    /// Tags are plain text.
    Ignore,
}

impl Think {
    pub(super) fn look(self) -> bool {
        self != Think::Ignore
    }
}

/// A pair of reasoning tags.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tags {
    pub open: String,
    pub close: String,
}

/// Settings of the math rule, as in a rule file.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathConfig {
    /// Places to look for the answer, in order.
    pub extract: Vec<Place>,
    /// As a last resort take the last number of the text. Off: it rewards listing numbers.
    pub last_number: bool,
    /// Units, currency and percent signs must be there and agree.
    pub strict_units: bool,
    /// An answer of 72% is accepted for a bare gold of 72, as "what percent …?" asks. Off: a percent
    /// sign that gold lacks always divides by 100, so 72% is 0.72.
    pub bare_percent: bool,
    pub tolerance: Tolerance,
    pub think: Think,
    pub think_tags: Vec<Tags>,
    /// A comma between digits is the decimal point. Unset: decided by the sample's language.
    pub decimal_comma: Option<bool>,
    /// Step budget of one comparison; the default is at most 10 ms of work.
    pub steps: u64,
}

impl Default for MathConfig {
    fn default() -> Self {
        MathConfig {
            extract: vec![Place::Boxed, Place::Hash, Place::FinalAnswer, Place::LastMath, Place::LastLine],
            last_number: false,
            strict_units: false,
            bare_percent: true,
            tolerance: Tolerance::GoldPrecision,
            think: Think::Auto,
            think_tags: vec![Tags { open: "<think>".into(), close: "</think>".into() }],
            decimal_comma: None,
            steps: 1_000_000,
        }
    }
}
