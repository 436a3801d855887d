//! Settings of the math rule: where the answer stands, and which differences from gold are granted.

use serde_json::{Value, json};

use super::Place;
use crate::rule::params::{ParamError, ParamType, choices, params};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the final answer equals gold as mathematics
# What
Extracts the answer (a box, `####`, "the final answer is" in ten languages …),
parses it and gold to exact expressions and compares: exactly where possible,
then symbolically, then at many random points. A step budget bounds the work;
gold that does not parse is reported, never scored.
# Why
The accuracy reward of R1-Zero and R1.
# Example
    [rules.accuracy]
    kind = "math"
    domains = ["math"]"#;

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

impl Tolerance {
    /// Whether two different whole numbers may pass for one another.
    pub(super) fn spans_integers(self) -> bool {
        matches!(self, Tolerance::Relative(_) | Tolerance::Absolute(_))
    }
}

impl ParamType for Tolerance {
    fn schema() -> Value {
        let limit = |name: &str, description: &str| {
            json!({"type": "object", "title": format!("{{ {name} = limit }}"), "description": description,
                "properties": {name: {"type": "number", "minimum": 0}}, "required": [name], "additionalProperties": false})
        };
        json!({"oneOf": [
            {"const": "exact", "description": "No difference."},
            {"const": "gold_precision", "description": "An answer with more digits than a decimal gold of at least three \
                digits, or an exact expression, may round to it; a gold fraction may be written with 14 decimals or more."},
            limit("relative", "|answer - gold| <= limit * |gold|."),
            limit("absolute", "|answer - gold| <= limit."),
        ]})
    }
}

choices! {
    /// What reasoning tags mean for the answer.
    pub enum Think {
        /// Look after the closing tag where there is one; an open tag that never closes is truncation.
        Auto = "auto",
        /// The closing tag must be there.
        Required = "required",
        /// Tags are plain text.
        Ignore = "ignore",
    }
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
    /// Such as `<think>`.
    pub open: String,
    /// Such as `</think>`.
    pub close: String,
}

impl ParamType for Tags {
    fn schema() -> Value {
        let tag = json!({"type": "string", "minLength": 1});
        json!({"type": "object", "properties": {"open": tag, "close": tag}, "required": ["open", "close"],
            "additionalProperties": false})
    }
}

params! {
    /// Settings of the math rule, as in a rule file.
    pub struct MathConfig {
        /// Places to look for the answer, in this order; the first that is there counts.
        extract: Vec<Place> = vec![Place::Boxed, Place::Hash, Place::FinalAnswer, Place::LastMath, Place::LastLine],
        /// As a last resort take the last number of the text. Off: it rewards listing numbers.
        last_number: bool = false,
        /// Units, currency and percent signs must be there and agree.
        strict_units: bool = false,
        /// An answer of 72% is accepted for a bare gold of 72, as "what percent …?" asks. Off: a percent
        /// sign that gold lacks always divides by 100, so 72% is 0.72.
        bare_percent: bool = true,
        /// Which differences from a number in gold are granted.
        tolerance: Tolerance = Tolerance::GoldPrecision,
        /// What reasoning tags mean for the answer.
        think: Think = Think::Auto,
        /// The pairs of tags that reasoning stands between.
        think_tags: Vec<Tags> = vec![Tags { open: "<think>".into(), close: "</think>".into() }],
        /// A comma between digits is the decimal point. Unset: decided by the sample's language.
        decimal_comma: Option<bool> = None,
        /// Most steps of one comparison; one that needs more cannot tell. The default is at most 10 ms of work.
        steps: u64 = 1_000_000,
    }
}

impl MathConfig {
    /// # Errors
    /// No place to look, tags without text, no steps, a limit that is negative or not finite.
    pub(super) fn check(&self) -> Result<(), ParamError> {
        if self.extract.is_empty() {
            let error = ParamError::new("extract", "`extract` names no place: no answer would ever be found");
            return Err(error.hint("extract = [\"boxed\"]"));
        }
        if self.think_tags.iter().any(|tags| tags.open.is_empty() || tags.close.is_empty()) {
            let error = ParamError::new("think_tags", "a reasoning tag is empty: it would stand everywhere");
            return Err(error.hint("think = \"ignore\" takes tags for plain text"));
        }
        if let Tolerance::Relative(limit) | Tolerance::Absolute(limit) = self.tolerance
            && !(limit.is_finite() && limit >= 0.0)
        {
            let error = ParamError::new("tolerance", format!("{limit} is no limit: it must be finite and at least 0"));
            return Err(error.hint("tolerance = { relative = 0.01 }"));
        }
        if self.steps == 0 {
            return Err(ParamError::new("steps", "`steps` must be at least 1").hint("leave it out for the default"));
        }
        Ok(())
    }
}
