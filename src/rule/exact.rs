//! The exact rule: is the answer this string, or one of these?

use super::announce::{announced, bare};
use super::params::{ParamError, choices, params};
use super::text::{normalised, shorten, words};
use super::{Rule, Sample, Verdict, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the answer is exactly the gold string, or one of a set
# What
Compares what follows the reasoning (or stands in its `<answer>` tag) with gold, or
with any of `accept`. What the answer says beside it does not count where it commits
to one string: the inside of its `\boxed{}`, what stands after "the answer is",
"Answer:", "答案" and the like, or the yes, no, true or false that it begins with
("No, it is not raining."). Boxes, or announcements, that differ are wrong. Unless
`strict`, case, white space, markdown, quotes, full-width forms and final
punctuation do not count; with it, only a box is looked into.
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
        /// All that follows the reasoning, or the one string that it commits to.
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

/// Yes and no, by pairs.
const POLAR: [(&str, &str); 6] =
    [("yes", "no"), ("true", "false"), ("oui", "non"), ("ja", "nein"), ("sí", "no"), ("vrai", "faux")];

/// Verbs that make a clause of what follows a comma: "yes, Bob" is two answers.
const VERBS: [&str; 24] = [
    "is", "are", "was", "were", "be", "does", "do", "did", "has", "have", "had", "can", "cannot", "could", "must",
    "will", "would", "isn't", "doesn't", "est", "sont", "ist", "sind", "está",
];

/// The yes or no that a text begins with, before a sentence or clause that does not take it back.
fn polar(text: &str) -> Option<&str> {
    let end = text.find([',', '.', ';', ':', '!', '—', '–'])?;
    let (word, rest) = (text[..end].trim(), &text[end..]);
    let opposite = |other: &str| POLAR.iter().any(|&pair| pair == (word, other) || pair == (other, word));
    let said = POLAR.iter().any(|&(yes, no)| word == yes || word == no);
    let clause = !rest.starts_with(',') || words(rest).any(|word| VERBS.contains(&word));
    (said && clause && !words(rest).any(opposite)).then_some(word)
}

/// The one string that an answer commits to, in its form. It does not depend on gold, so that naming several never
/// pays for one of them.
fn committed(answer: &str, strict: bool) -> Result<String, &'static str> {
    let one = |mut all: Vec<String>| match all.pop() {
        Some(last) if all.iter().all(|other| *other == last) => Ok(last),
        _ => Err("several_answers"),
    };
    let boxes = super::format::boxes(answer);
    if !boxes.is_empty() {
        let insides: Option<Vec<&str>> = boxes.into_iter().collect();
        return one(insides.ok_or("no_answer")?.into_iter().map(|inside| form(bare(inside), strict)).collect());
    }
    if strict {
        return Ok(form(answer, true));
    }
    let reading = |text: &str| {
        let text = normalised(text);
        polar(&text).map(str::to_owned).unwrap_or(text)
    };
    let said: Vec<String> = announced(answer).map(|(_, text)| reading(text)).collect();
    if said.is_empty() { Ok(reading(answer)) } else { one(said) }
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
        let mut found = form(found, strict);
        if found.is_empty() {
            return Verdict::wrong("no_answer");
        }
        let separator = self.config.gold_separator.as_str();
        let equal = |found: &String| {
            let same = |alternative: &str| form(alternative, strict) == *found;
            self.accept.contains(found)
                || gold.is_some_and(|gold| match separator {
                    "" => same(gold),
                    separator => gold.split(separator).filter(|part| !part.trim().is_empty()).any(same),
                })
        };
        if self.config.from == From::Answer && !equal(&found) {
            found = match committed(answer, strict) {
                Ok(text) => text,
                Err(reason) => return Verdict::wrong(reason).with("extracted", shorten(&found, 200)),
            };
        }
        let verdict = if equal(&found) { Verdict::correct("equal") } else { Verdict::wrong("not_equal") };
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
    fn a_commitment_to_one_string_is_read_in_any_dress() {
        let reason = |completion: &str, gold: &str| {
            ExactRule::new(ExactConfig::default()).unwrap().check(&with_gold(completion, gold)).reason
        };
        for answer in [
            r"\boxed{no}",
            r"$\boxed{\text{No}}$",
            r"The answer is \boxed{\text{no}}.",
            r"She lies. \boxed{no} So: \boxed{No}",
            "The answer is no.",
            "**Answer:** no",
            "Final answer: **No**, she is lying.",
            "She lies.\n\nAnswer: no",
            "No, it is not raining.",
            "No. Ann always lies, so what she says is false.",
        ] {
            assert_eq!(reason(answer, "no"), "equal", "{answer}");
            assert_ne!(reason(answer, "yes"), "equal", "{answer}");
        }
        assert_eq!(reason("The answer is Ben and Dora.", "Ben and Dora"), "equal");
        for answer in [
            r"\boxed{no} or \boxed{yes}",
            r"\boxed{no",
            r"\boxed{yes or no}",
            "The answer is yes or no.",
            "Answer: no\nAnswer: yes",
            "No. Yes.",
            "No, or rather yes.",
            "Yes/no",
            "yes, no",
            "no, Bob, nothing of the kind",
            "The answer is not no.",
            "I don't think the answer is no.",
            "No reason to think so.",
            "No one knows, yes or no",
        ] {
            assert_ne!(reason(answer, "no"), "equal", "{answer}");
            assert_ne!(reason(answer, "yes"), "equal", "{answer}");
        }
        let strict = ExactConfig { strict: true, ..ExactConfig::default() };
        assert_eq!(outcome(strict.clone(), r"So \boxed{no}", "no"), Outcome::Correct);
        assert_eq!(outcome(strict, "The answer is no", "no"), Outcome::Wrong);
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
