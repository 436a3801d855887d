//! The exact rule: is the answer this string, or one of these?

use super::params::{ParamError, choices, params};
use super::text::{normalised, shorten};
use super::{Rule, Sample, Verdict, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the answer is exactly the gold string, or one of a set
# What
Compares what follows the reasoning (or stands in its `<answer>` tag, or in its
only `\boxed{}`) with gold, or with any of `accept`. Unless `strict`, case,
white space, markdown, quotes, full-width forms and final punctuation do not
count.
# Why
For classification, logic puzzles, short factual answers: anything where one
string is right and mathematics would only get in the way.
# Example
    [rules.accuracy]
    kind = "exact"
    gold_separator = "|""#;

choices! {
    /// Where the answer is looked for.
    pub enum From {
        /// All that follows the reasoning.
        Answer = "answer",
        /// The last line of the answer that has text.
        LastLine = "last_line",
        /// The inside of the answer's only `\boxed{}`.
        Boxed = "boxed",
    }
}

params! {
    /// Parameters of the exact rule.
    pub struct ExactConfig {
        /// Where the answer is looked for.
        from: From = From::Answer,
        /// Strings that are right whatever gold says; without gold, the only ones.
        accept: Vec<String> = Vec::new(),
        /// Splits gold into alternatives, such as `|`; empty takes gold whole.
        gold_separator: String = String::new(),
        /// Compare bytes, surrounding white space apart.
        strict: bool = false,
    }
}

/// See [`DOC`].
pub struct ExactRule {
    config: ExactConfig,
    accept: Vec<String>,
}

impl ExactRule {
    /// # Errors
    /// None today; the signature is that of every rule.
    pub fn new(config: ExactConfig) -> Result<Self, ParamError> {
        let accept = config.accept.iter().map(|text| form(text, config.strict)).collect();
        Ok(ExactRule { config, accept })
    }
}

fn form(text: &str, strict: bool) -> String {
    if strict { text.trim().to_owned() } else { normalised(text) }
}

impl Rule for ExactRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let strict = self.config.strict;
        let gold = sample.gold.map(str::trim).filter(|gold| !gold.is_empty());
        if gold.is_none() && self.accept.is_empty() {
            return Verdict::cannot_tell("gold_missing");
        }
        let answer = think::split(sample.completion).answer;
        let found = match self.config.from {
            From::Answer => answer,
            From::LastLine => answer.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(""),
            From::Boxed => match super::format::boxes(answer)[..] {
                [Some(inside)] => inside,
                [] => return Verdict::wrong("no_answer"),
                _ => return Verdict::wrong("several_answers"),
            },
        };
        let found = form(found, strict);
        if found.is_empty() {
            return Verdict::wrong("no_answer");
        }
        let separator = self.config.gold_separator.as_str();
        let same = |alternative: &str| form(alternative, strict) == found;
        let equal = self.accept.contains(&found)
            || gold.is_some_and(|gold| match separator {
                "" => same(gold),
                separator => gold.split(separator).filter(|part| !part.trim().is_empty()).any(same),
            });
        let verdict = if equal { Verdict::correct("equal") } else { Verdict::wrong("not_equal") };
        verdict.with("extracted", shorten(&found, 200))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::with_gold;
    use crate::schema::Outcome;

    fn outcome(config: ExactConfig, completion: &str, gold: &str) -> Outcome {
        ExactRule::new(config).unwrap().check(&with_gold(completion, gold)).outcome
    }

    #[test]
    fn dress_does_not_count_and_content_does() {
        let config = ExactConfig::default;
        assert_eq!(outcome(config(), "<think>x</think> **Paris**.", "paris"), Outcome::Correct);
        assert_eq!(outcome(config(), "<think>Paris</think> London", "paris"), Outcome::Wrong);
        assert_eq!(outcome(config(), "Paris or London", "paris"), Outcome::Wrong);
        assert_eq!(outcome(ExactConfig { strict: true, ..config() }, "Paris", "paris"), Outcome::Wrong);
    }

    #[test]
    fn alternatives_and_places() {
        let set = ExactConfig { gold_separator: "|".into(), ..ExactConfig::default() };
        assert_eq!(outcome(set.clone(), "UK", "United Kingdom|UK"), Outcome::Correct);
        assert_eq!(outcome(set, "U", "United Kingdom|UK"), Outcome::Wrong);
        let last = ExactConfig { from: From::LastLine, ..ExactConfig::default() };
        assert_eq!(outcome(last, "Reasons.\n\nYes\n", "yes"), Outcome::Correct);
        let boxed = ExactConfig { from: From::Boxed, ..ExactConfig::default() };
        assert_eq!(outcome(boxed.clone(), r"so \boxed{yes}", "yes"), Outcome::Correct);
        assert_eq!(outcome(boxed, r"\boxed{no} \boxed{yes}", "yes"), Outcome::Wrong);
    }

    #[test]
    fn without_gold_the_rule_cannot_tell() {
        assert_eq!(outcome(ExactConfig::default(), "x", " "), Outcome::CannotTell);
    }
}
