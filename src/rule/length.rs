//! The length rule: bounds and the length rewards of the literature.

use super::params::{ParamError, choices, params};
use super::{Rule, Sample, Verdict, text, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"A reward or a bound on length
# What
`bounds` is right between `min` and `max`. The rest grade a length L:
`soft_overlong` (DAPO, arXiv 2503.14476 eq. 13) 0 up to `max - buffer`, then down
to -1 at `max`; `linear` (Kimi k1.5, arXiv 2501.12599 section 2.3.3, with fixed
bounds) 0.5 - (L - min)/(max - min); `cosine` (arXiv 2502.03373) from `at_zero`
at L = 0 to `at_max` at L = max along half a cosine, `beyond` above it.
# Why
Policies grow longer because long is rarely punished, or shorter when every
token costs. Whether a *wrong* answer should also earn the reward is the
expression's business: `if(accuracy, length, min(0, length))` is Kimi's.
# Example
    [rules.overlong]
    kind = "length"
    shape = "soft_overlong"
    max = 20480
    buffer = 4096"#;

choices! {
    /// How a length becomes a score.
    pub enum Shape {
        /// 1 from `min` to `max`, else 0.
        Bounds = "bounds",
        /// DAPO's soft overlong punishment, in [-1, 0].
        SoftOverlong = "soft_overlong",
        /// Kimi's length reward with fixed bounds, clamped to [-0.5, 0.5].
        Linear = "linear",
        /// Half a cosine from `at_zero` to `at_max`.
        Cosine = "cosine",
    }
}

choices! {
    /// What is counted.
    pub enum Unit {
        /// Tokens as the engine counted them; the whole completion only.
        Tokens = "tokens",
        /// Unicode characters.
        Chars = "chars",
        /// Words; each character of scripts without spaces.
        Words = "words",
    }
}

choices! {
    /// The part that is measured.
    pub enum Of {
        /// All of it, tags included.
        Completion = "completion",
        /// The chain of thought.
        Reasoning = "reasoning",
        /// What follows it.
        Answer = "answer",
    }
}

params! {
    /// Parameters of the length rule.
    pub struct LengthConfig {
        /// How a length becomes a score.
        shape: Shape = Shape::Bounds,
        /// What is counted.
        unit: Unit = Unit::Tokens,
        /// The part that is measured.
        of: Of = Of::Completion,
        /// Least length (`bounds`, `linear`).
        min: usize = 0,
        /// Greatest length; required by every shape but `bounds`.
        max: Option<usize> = None,
        /// Width of the soft zone below `max` (`soft_overlong`).
        buffer: usize = 0,
        /// Score at length 0 (`cosine`).
        at_zero: f64 = 1.0,
        /// Score at `max` (`cosine`).
        at_max: f64 = 0.0,
        /// Score beyond `max` (`cosine`).
        beyond: f64 = -1.0,
    }
}

/// See [`DOC`].
pub struct LengthRule {
    config: LengthConfig,
    max: f64,
}

impl LengthRule {
    /// # Errors
    /// A missing or contradictory `max`, `min`, `buffer`; tokens of a part; scores that are not finite.
    pub fn new(config: LengthConfig) -> Result<Self, ParamError> {
        let max = match (config.max, config.shape) {
            (Some(max), _) => max,
            (None, Shape::Bounds) => usize::MAX,
            (None, _) => return Err(ParamError::new("max", "this shape needs a `max`").hint("max = 32768")),
        };
        if max <= config.min && !matches!(config.shape, Shape::Bounds) || max < config.min {
            return Err(ParamError::new("max", "`max` must be above `min`"));
        }
        if matches!(config.shape, Shape::SoftOverlong) && !(1..=max).contains(&config.buffer) {
            return Err(
                ParamError::new("buffer", "`buffer` must be between 1 and `max`").hint("DAPO: max 20480, buffer 4096")
            );
        }
        if matches!(config.unit, Unit::Tokens) && !matches!(config.of, Of::Completion) {
            return Err(
                ParamError::new("of", "tokens are known for the whole completion only").hint("unit = \"words\"")
            );
        }
        for (field, value) in [("at_zero", config.at_zero), ("at_max", config.at_max), ("beyond", config.beyond)] {
            if !value.is_finite() {
                return Err(ParamError::new(field, format!("`{field}` must be finite")));
            }
        }
        Ok(LengthRule { max: max as f64, config })
    }
}

impl Rule for LengthRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let part = match self.config.of {
            Of::Completion => sample.completion,
            Of::Reasoning => think::split(sample.completion).reasoning.unwrap_or(""),
            Of::Answer => think::split(sample.completion).answer,
        };
        let length = match (self.config.unit, sample.tokens) {
            (Unit::Tokens, Some(tokens)) => tokens as usize,
            (Unit::Tokens, None) => return Verdict::cannot_tell("tokens_unknown"),
            (Unit::Chars, _) => part.chars().count(),
            (Unit::Words, _) => text::words(part).count(),
        };
        let (l, min, max) = (length as f64, self.config.min as f64, self.max);
        let verdict = match self.config.shape {
            Shape::Bounds if l < min => Verdict::wrong("too_short"),
            Shape::Bounds if l > max => Verdict::wrong("too_long"),
            Shape::Bounds => Verdict::correct("in_bounds"),
            Shape::SoftOverlong => {
                let buffer = self.config.buffer as f64;
                let score = ((max - buffer - l) / buffer).clamp(-1.0, 0.0);
                Verdict::graded(score, 0.0, if score < 0.0 { "overlong" } else { "in_bounds" })
            }
            Shape::Linear => {
                let score = (0.5 - (l - min) / (max - min)).clamp(-0.5, 0.5);
                Verdict::graded(score, 0.0, if score < 0.0 { "long" } else { "short" })
            }
            Shape::Cosine if l > max => Verdict::graded(self.config.beyond, f64::INFINITY, "too_long"),
            Shape::Cosine => {
                let fall = 0.5 * (1.0 + (std::f64::consts::PI * l / max).cos());
                let score = self.config.at_max + (self.config.at_zero - self.config.at_max) * fall;
                Verdict::graded(score, f64::NEG_INFINITY, "in_bounds")
            }
        };
        verdict.with("length", length.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::sample;

    fn score(config: LengthConfig, tokens: u32) -> f64 {
        let mut s = sample("x");
        s.tokens = Some(tokens);
        LengthRule::new(config).unwrap().check(&s).score.unwrap()
    }

    #[test]
    fn dapo_is_flat_then_falls_to_minus_one() {
        let dapo = || LengthConfig { shape: Shape::SoftOverlong, max: Some(20480), buffer: 4096, ..Default::default() };
        assert_eq!(score(dapo(), 16384), 0.0);
        assert_eq!(score(dapo(), 16384 + 2048), -0.5);
        assert_eq!(score(dapo(), 30000), -1.0);
    }

    #[test]
    fn kimi_and_cosine_at_their_ends() {
        let kimi = || LengthConfig { shape: Shape::Linear, min: 100, max: Some(200), ..Default::default() };
        assert_eq!((score(kimi(), 100), score(kimi(), 150), score(kimi(), 500)), (0.5, 0.0, -0.5));
        let cosine =
            || LengthConfig { shape: Shape::Cosine, max: Some(100), at_zero: 2.0, at_max: 1.0, ..Default::default() };
        assert_eq!((score(cosine(), 0), score(cosine(), 101)), (2.0, -1.0));
        assert!((score(cosine(), 50) - 1.5).abs() < 1e-12 && (score(cosine(), 100) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn bounds_count_words_and_unknown_tokens_are_not_zero() {
        let config = LengthConfig { unit: Unit::Words, of: Of::Answer, max: Some(3), ..Default::default() };
        let rule = LengthRule::new(config).unwrap();
        assert_eq!(rule.check(&sample("<think>one two three four</think>a b c")).reason, "in_bounds");
        assert_eq!(rule.check(&sample("你好吗？好")).reason, "too_long");
        let tokens = LengthRule::new(LengthConfig::default()).unwrap();
        assert_eq!(tokens.check(&sample("x")).reason, "tokens_unknown");
    }

    #[test]
    fn contradictions_are_errors() {
        assert!(LengthRule::new(LengthConfig { shape: Shape::Cosine, ..Default::default() }).is_err());
        assert!(LengthRule::new(LengthConfig { min: 5, max: Some(4), ..Default::default() }).is_err());
        assert!(LengthRule::new(LengthConfig { of: Of::Answer, ..Default::default() }).is_err());
    }
}
