//! The regex rule: does a pattern match, or what does it capture?

use regex::{Regex, RegexBuilder};

use super::params::{ParamError, choices, params};
use super::text::{normalised, shorten};
use super::{Rule, Sample, Verdict, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether a regular expression matches, or captures the gold answer
# What
Looks for `pattern` in the answer (or reasoning, or whole completion). With a
capture group named `answer`, its last match is compared with gold; without
one, a match is right (or wrong, with `forbid`).
# Why
The quickest way to a rule of your own: answer lines, banned phrases, required
headings. Matching takes time linear in the text, whatever the pattern.
# Example
    [rules.accuracy]
    kind = "regex"
    pattern = '(?i)final answer:\s*(?P<answer>.+)'"#;

choices! {
    /// The text a pattern is looked for in.
    pub enum Region {
        /// What follows the reasoning.
        Answer = "answer",
        /// The chain of thought.
        Reasoning = "reasoning",
        /// Everything, tags included.
        Completion = "completion",
    }
}

impl Region {
    /// The text of the region.
    pub(crate) fn of(self, completion: &str) -> &str {
        match self {
            Region::Answer => think::split(completion).answer,
            Region::Reasoning => think::split(completion).reasoning.unwrap_or(""),
            Region::Completion => completion,
        }
    }
}

params! {
    /// Parameters of the regex rule.
    pub struct RegexConfig {
        /// The regular expression (Rust's `regex` syntax: no look-around, linear time).
        pattern: String = String::new(),
        /// Where to look.
        region: Region = Region::Answer,
        /// Right when the pattern does *not* match.
        forbid: bool = false,
        /// Least number of matches.
        min_matches: usize = 1,
        /// Most matches; unlimited if not given. `1` refuses a list of candidates.
        max_matches: Option<usize> = None,
    }
}

/// See [`DOC`].
pub struct RegexRule {
    config: RegexConfig,
    pattern: Regex,
    captures: bool,
}

/// Compiles a pattern with bounded memory.
pub(crate) fn compile(pattern: &str, field: &'static str) -> Result<Regex, ParamError> {
    RegexBuilder::new(pattern).size_limit(4 << 20).dfa_size_limit(4 << 20).nest_limit(100).build().map_err(|error| {
        let text = error.to_string();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("not a regular expression");
        ParamError::new(field, format!("the pattern does not compile: {}", last.trim_start_matches("error: ").trim()))
            .hint("single quotes keep backslashes as they are: pattern = '\\d+'")
    })
}

impl RegexRule {
    /// # Errors
    /// An empty or faulty pattern; groups of which none is named `answer`; bounds that exclude everything;
    /// `forbid` with a capture group.
    pub fn new(config: RegexConfig) -> Result<Self, ParamError> {
        if config.pattern.is_empty() {
            return Err(ParamError::new("pattern", "a regex rule needs a `pattern`"));
        }
        let pattern = compile(&config.pattern, "pattern")?;
        let captures = pattern.capture_names().flatten().any(|name| name == "answer");
        if pattern.captures_len() > 1 && !captures && !config.forbid {
            // Whoever writes it has a comparison with gold in mind, and every match would be right.
            return Err(ParamError::new("pattern", "only a group named `answer` is compared with gold")
                .hint("write (?P<answer>…) for the answer, or (?:…) for a group that only groups"));
        }
        if config.forbid && captures {
            return Err(ParamError::new("forbid", "a forbidden pattern cannot capture an answer"));
        }
        if config.max_matches.is_some_and(|most| most < config.min_matches) {
            return Err(ParamError::new("max_matches", "`max_matches` is below `min_matches`"));
        }
        Ok(RegexRule { config, pattern, captures })
    }
}

impl Rule for RegexRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let text = self.config.region.of(sample.completion);
        if self.config.forbid {
            return match self.pattern.find(text) {
                Some(found) => Verdict::wrong("forbidden_match").with("match", shorten(found.as_str(), 200)),
                None => Verdict::correct("no_match"),
            };
        }
        let gold = sample.gold.map(str::trim).filter(|gold| !gold.is_empty());
        if self.captures && gold.is_none() {
            return Verdict::cannot_tell("gold_missing");
        }
        let enough = self.config.max_matches.map_or(self.config.min_matches.max(1), |most| most + 1);
        let (count, last) = if self.captures {
            let mut count = 0;
            let mut last = None;
            for captures in self.pattern.captures_iter(text) {
                count += 1;
                last = captures.name("answer").map(|found| found.as_str());
            }
            (count, last)
        } else {
            (self.pattern.find_iter(text).take(enough).count(), None)
        };
        if count < self.config.min_matches {
            return Verdict::wrong(if self.captures { "no_answer" } else { "no_match" });
        }
        if self.config.max_matches.is_some_and(|most| count > most) {
            return Verdict::wrong("too_many_matches").with("matches", count.to_string());
        }
        match (self.captures, last, gold) {
            (true, Some(found), Some(gold)) => {
                let equal = normalised(found) == normalised(gold);
                let verdict = if equal { Verdict::correct("equal") } else { Verdict::wrong("not_equal") };
                verdict.with("extracted", shorten(found, 200))
            }
            (true, ..) => Verdict::wrong("no_answer"),
            _ => Verdict::correct("match"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::with_gold;

    fn rule(pattern: &str) -> RegexConfig {
        RegexConfig { pattern: pattern.into(), ..RegexConfig::default() }
    }

    fn reason(config: RegexConfig, completion: &str) -> &'static str {
        RegexRule::new(config).unwrap().check(&with_gold(completion, "4")).reason
    }

    #[test]
    fn a_named_group_is_compared_with_gold() {
        let config = rule(r"(?i)answer:\s*(?P<answer>\S+)");
        assert_eq!(reason(config.clone(), "Answer: 5\nAnswer: 4."), "equal");
        assert_eq!(reason(config.clone(), "Answer: 5"), "not_equal");
        assert_eq!(reason(config.clone(), "4"), "no_answer");
        assert_eq!(reason(RegexConfig { max_matches: Some(1), ..config }, "Answer: 5 Answer: 4"), "too_many_matches");
    }

    #[test]
    fn patterns_may_be_forbidden_and_confined() {
        let config = RegexConfig { forbid: true, ..rule("as an AI") };
        assert_eq!(reason(config.clone(), "<think>as an AI</think> 4"), "no_match");
        assert_eq!(
            reason(RegexConfig { region: Region::Reasoning, ..config }, "<think>as an AI</think> 4"),
            "forbidden_match"
        );
    }

    #[test]
    fn faulty_parameters_are_errors() {
        assert!(RegexRule::new(rule("(")).is_err());
        assert!(RegexRule::new(rule("")).is_err());
        assert!(RegexRule::new(rule(&"(?:a{999}){999}".repeat(3))).is_err());
        for unread in [r"answer: (\d+)", r"answer: (?P<value>\d+)"] {
            assert!(RegexRule::new(rule(unread)).is_err(), "every match of {unread} would be right");
            assert!(RegexRule::new(RegexConfig { forbid: true, ..rule(unread) }).is_ok());
        }
        assert!(RegexRule::new(rule(r"answer(?:s|ed)? (is|=) (?P<answer>\d+)")).is_ok());
        assert!(RegexRule::new(RegexConfig { forbid: true, ..rule("(?P<answer>a)") }).is_err());
    }
}
