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
after normalising; English articles do not count. Several golds: the best. With
`in_order` only the longest common subsequence counts (ROUGE-L's F1, Lin 2004).
# Why
Short factual answers have many right wordings. F1 punishes padding, plain
recall would not; but a bag of gold's words in any order has all of it, so an
answer of more than a few words is safer `in_order`.
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
        /// Words count only in gold's order.
        in_order: bool = false,
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

/// Words that count; the length of a text is that of this list.
fn counted(text: &str) -> Vec<&str> {
    words(text).filter(|word| !matches!(*word, "a" | "an" | "the")).collect()
}

fn f1(shared: usize, answer: &[&str], gold: &[&str]) -> f64 {
    let all = answer.len() + gold.len();
    if all == 0 { 0.0 } else { 2.0 * shared as f64 / all as f64 }
}

/// Words of both, counted with multiplicity.
fn common(answer: &[&str], gold: &[&str]) -> usize {
    let bag = |words: &[&str]| {
        let mut bag: BTreeMap<String, usize> = BTreeMap::new();
        words.iter().for_each(|word| *bag.entry((*word).to_owned()).or_default() += 1);
        bag
    };
    let theirs = bag(gold);
    bag(answer).iter().map(|(word, &count)| count.min(theirs.get(word).copied().unwrap_or(0))).sum()
}

/// Length of the longest common subsequence, in time the product and space the length of `gold`.
fn subsequence(answer: &[&str], gold: &[&str]) -> usize {
    let mut row = vec![0usize; gold.len() + 1];
    for word in answer {
        let mut diagonal = 0;
        for (i, other) in gold.iter().enumerate() {
            let above = row[i + 1];
            row[i + 1] = if word == other { diagonal + 1 } else { above.max(row[i]) };
            diagonal = above;
        }
    }
    row[gold.len()]
}

/// Most pairs of words that are compared for their order.
const MAX_PAIRS: usize = 20_000_000;

impl OverlapRule {
    /// `None` if the texts are too long for their order to be compared.
    fn score(&self, answer: &str, gold: &str) -> Option<f64> {
        let (ours, theirs) = (counted(answer), counted(gold));
        let bag = f1(common(&ours, &theirs), &ours, &theirs);
        if !self.config.in_order || bag == 0.0 {
            return Some(bag);
        }
        (ours.len().saturating_mul(theirs.len()) <= MAX_PAIRS).then(|| f1(subsequence(&ours, &theirs), &ours, &theirs))
    }
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
            "" => self.score(&answer, &gold),
            separator => gold
                .split(separator)
                .map(|gold| self.score(&answer, gold))
                .try_fold(0.0, |most: f64, score| Some(most.max(score?))),
        };
        let Some(score) = score else { return Verdict::cannot_tell("too_long") };
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

    #[test]
    fn shuffled_words_are_worth_less_where_order_counts() {
        let gold = "the treaty ended the war between France and Spain";
        let shuffled = "Spain and France between war the ended treaty the";
        let free = OverlapRule::new(OverlapConfig::default()).unwrap();
        assert_eq!(free.check(&with_gold(shuffled, gold)).score, Some(1.0));
        let kept = OverlapRule::new(OverlapConfig { in_order: true, ..OverlapConfig::default() }).unwrap();
        assert_eq!(kept.check(&with_gold("Treaty ended war between France and Spain.", gold)).score, Some(1.0));
        assert!(kept.check(&with_gold(shuffled, gold)).score.unwrap() < 0.5);
        let long = "one two ".repeat(10_000);
        assert_eq!(kept.check(&with_gold(&long, &long)).reason, "too_long");
    }

    #[test]
    fn the_longest_common_subsequence_is_found() {
        let of = |a: &str, b: &str| subsequence(&counted(a), &counted(b));
        assert_eq!(of("x y z", "x z"), 2);
        assert_eq!(of("z y x", "x y z"), 1);
        assert_eq!(of("", "x"), 0);
        assert_eq!(of("p q r s t", "q s u t"), 3);
    }
}
