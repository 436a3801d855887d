//! The overlap rule: how many words does the answer share with gold?

use std::collections::BTreeMap;

use super::params::{ParamError, params};
use super::text::{normalised, words};
use super::{Rule, Sample, Verdict, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Token F1 between the answer and gold
# What
SQuAD's F1 (arXiv 1606.05250): the harmonic mean of the shares of gold's words
found and of the answer's words that are gold's, counted with multiplicity,
after normalising; English articles do not count. Several golds: the best.
# Why
Short factual answers have many right wordings. F1 punishes padding, plain
recall would not.
# Example
    [rules.accuracy]
    kind = "overlap"
    min_f1 = 0.8"#;

params! {
    /// Parameters of the overlap rule.
    pub struct OverlapConfig {
        /// F1 from which the answer counts as correct.
        min_f1: f64 = 0.8,
        /// Splits gold into alternatives, such as `|`; empty takes gold whole.
        gold_separator: String = String::new(),
        /// Below this F1 the rule cannot tell, so that a judge may (`fallback_for`); 0 always decides.
        undecided_below: f64 = 0.0,
    }
}

/// See [`DOC`].
pub struct OverlapRule {
    config: OverlapConfig,
}

impl OverlapRule {
    /// # Errors
    /// `min_f1` outside (0, 1].
    pub fn new(config: OverlapConfig) -> Result<Self, ParamError> {
        if !(config.min_f1 > 0.0 && config.min_f1 <= 1.0) {
            return Err(ParamError::new("min_f1", "`min_f1` must be above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&config.undecided_below) {
            return Err(ParamError::new("undecided_below", "`undecided_below` must be between 0 and 1"));
        }
        Ok(OverlapRule { config })
    }
}

fn bag(text: &str) -> (BTreeMap<&str, usize>, usize) {
    let (mut bag, mut all) = (BTreeMap::new(), 0);
    for word in words(text).filter(|word| !matches!(*word, "a" | "an" | "the")) {
        *bag.entry(word).or_default() += 1;
        all += 1;
    }
    (bag, all)
}

fn f1(answer: &str, gold: &str) -> f64 {
    let (ours, n) = bag(answer);
    let (theirs, m) = bag(gold);
    let shared: usize = ours.iter().map(|(word, &count)| count.min(theirs.get(word).copied().unwrap_or(0))).sum();
    if n + m == 0 { 0.0 } else { 2.0 * shared as f64 / (n + m) as f64 }
}

impl Rule for OverlapRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let Some(gold) = sample.gold.map(normalised).filter(|gold| words(gold).next().is_some()) else {
            return Verdict::cannot_tell("gold_missing");
        };
        let answer = normalised(think::split(sample.completion).answer);
        if answer.is_empty() {
            return Verdict::wrong("no_answer");
        }
        let score = match self.config.gold_separator.as_str() {
            "" => f1(&answer, &gold),
            separator => gold.split(separator).map(|gold| f1(&answer, gold)).fold(0.0, f64::max),
        };
        if score < self.config.undecided_below {
            return Verdict::cannot_tell("little_overlap").with("f1", format!("{score:.3}"));
        }
        let reason = if score >= self.config.min_f1 { "overlaps" } else { "little_overlap" };
        Verdict::graded(score, self.config.min_f1, reason).with("f1", format!("{score:.3}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::with_gold;

    #[test]
    fn f1_is_that_of_squad() {
        let rule = OverlapRule::new(OverlapConfig::default()).unwrap();
        assert_eq!(rule.check(&with_gold("The Eiffel Tower.", "Eiffel tower")).score, Some(1.0));
        assert_eq!(rule.check(&with_gold("tower tower tower", "Eiffel tower")).score, Some(0.4));
        assert_eq!(rule.check(&with_gold("Paris", "Eiffel tower")).score, Some(0.0));
        assert_eq!(rule.check(&with_gold("Paris", "the !")).score, Some(0.0));
        assert_eq!(rule.check(&with_gold("Paris", "...")).reason, "gold_missing");
    }
}
