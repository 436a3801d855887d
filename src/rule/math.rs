//! The math rule: is a completion's answer mathematically the gold answer?
//!
//! extract → parse → normalise → compare, each in its own file. The verdict has three values:
//! correct, wrong, and cannot tell with the reason. A gold answer that does not parse
//! is a fault of the dataset and never scored.
//!
//! Work is bounded by a step count ([`MathConfig::steps`]), so a verdict is the same on
//! any machine. No step recurses on the depth of its input. Stated limits: answers of
//! 200 kB, 60,000 nodes, numerals of 20,000 digits, exact results of 2¹⁹ bits.
//!
//! **Error probability.** Exact rationals are compared exactly. Rational functions are
//! compared at two random points modulo 2⁶¹ − 1: two different ones of total degree d
//! pass with probability at most (d / 2⁶¹)² (Schwartz 1980, Zippel 1979), and a difference
//! found there is certain. Everything else is evaluated with error bounds at points inside
//! the real domain: a difference found is certain, and equality is accepted when four points
//! agree within bounds below 10⁻⁷ relative (10⁻¹⁰ for constants; 40 points, of both signs,
//! where a function may be another one beyond zero, and as many where it has steps) and, where the
//! functions allow it, agree once more to 60 digits. Two different constants
//! built from fewer than 80 roots and functions agree so far only by extreme coincidence.

mod ast;
mod budget;
mod clean;
mod compare;
mod config;
mod copied;
mod denial;
mod eval;
mod extract;
mod judge;
mod lex;
mod number;
mod parse;
mod reading;
mod spelled;
mod text;
mod units;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::sync::Arc;

use self::compare::Finding;
pub use self::config::{DOC, MathConfig, Tags, Think, Tolerance};
use self::copied::{COPIED, Question};
pub use self::extract::Place;
use self::extract::{Extracted, Region, region};
use self::judge::{clip, judge, prepare, show};
use self::lex::Commas;
use self::reading::{Reading, Unread};
use super::params::ParamError;
use super::{Rule, Sample, Verdict};
use crate::schema::FinishReason;

/// Whether two answers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equivalence {
    /// They were shown to be.
    Equal,
    /// They were shown not to be, or differ in form where form counts.
    Different,
    /// Neither could be shown; the reason is a stable code.
    CannotTell(&'static str),
}

/// A gold answer, parsed once for all completions of its group.
#[derive(Clone, Debug)]
struct Gold {
    integer: Option<i64>,
    reading: Result<Reading, Unread>,
    /// Readings with its commas as separators or as decimal points, where they make sense too.
    others: Vec<Reading>,
}

/// Checks the final answer of a completion against the gold answer.
#[derive(Clone, Debug, Default)]
pub struct MathRule {
    config: MathConfig,
}

impl MathRule {
    /// A rule with these settings.
    ///
    /// # Errors
    /// Settings under which no answer could be found or compared: see [`MathConfig`].
    pub fn new(config: MathConfig) -> Result<Self, ParamError> {
        config.check()?;
        Ok(MathRule { config })
    }

    fn verdict(
        &self,
        prompt: &str,
        completion: &str,
        gold: &Gold,
        finish: FinishReason,
        decimal_comma: bool,
    ) -> Verdict {
        let gold_reading = match &gold.reading {
            Ok(reading) => reading,
            Err(Unread::Budget) => return Verdict::cannot_tell("budget").with("step", "gold"),
            Err(_) => return Verdict::cannot_tell("gold_unparsed").with("step", "gold"),
        };
        let truncated = finish == FinishReason::Length;
        let Some(found) = self.find(region(completion, &self.config)) else {
            return Verdict::wrong(if truncated { "truncated" } else { "no_answer" }).with("step", "extract");
        };
        let mut evidence = vec![("extracted", clip(&found.text)), ("where", found.place.as_str().to_string())];
        let (mut finding, parsed) = judge(gold, &found, &self.config, decimal_comma);
        if finding.is_equal() && self.copies(prompt, completion, gold, &found, decimal_comma) {
            finding = Finding::Different(COPIED);
        }
        if let Some(parsed) = parsed {
            evidence.push(("parsed", parsed));
        }
        evidence.push(("gold_parsed", show(gold_reading)));
        let mut verdict = match finding {
            Finding::Equal(step) => Verdict::correct("equal").with("step", step),
            Finding::Different("answer_unparsed") => Verdict::wrong("answer_unparsed").with("step", "parse"),
            Finding::Different("different_kind") => Verdict::wrong("different_kind").with("step", "kind"),
            Finding::Different(why @ compare::INCONSISTENT) => Verdict::wrong(why).with("step", "consistency"),
            Finding::Different(COPIED) => Verdict::wrong(COPIED).with("step", "prompt"),
            Finding::Different(step) => Verdict::wrong("not_equal").with("step", step),
            Finding::Unknown(why) => Verdict::cannot_tell(why).with("step", "compare"),
        };
        evidence.append(&mut verdict.evidence);
        verdict.evidence = evidence;
        verdict
    }

    /// Whether an answer that is equal to gold only repeats the prompt.
    fn copies(&self, prompt: &str, completion: &str, gold: &Gold, found: &Extracted, decimal_comma: bool) -> bool {
        if copied::is_number_apart(found) {
            return false;
        }
        let commas = if decimal_comma { Commas::Decimal } else { Commas::Thousands };
        let meets =
            |part: &str| judge(gold, &Extracted::at(part, found.place), &self.config, decimal_comma).0.is_equal();
        Question::new(prompt, gold, commas, self.config.steps)
            .is_some_and(|question| question.is_repeated_by(found, completion, meets))
    }

    fn find(&self, region: Region<'_>) -> Option<Extracted> {
        let (text, found) = match region {
            Region::Text(text) => (text, extract::extract(text, &self.config.extract)),
            Region::Tagged(text) => (text, extract::extract_tagged(text, &self.config.extract)),
            Region::Unfinished => return None,
        };
        if !self.config.last_number {
            return found;
        }
        let Some(mut found) = found else { return extract::extract(text, &[Place::LastNumber]) };
        if found.place == Place::LastLine
            && let Some(number) = extract::extract(&found.text, &[Place::LastNumber])
        {
            found.narrower.push(number.text);
        }
        Some(found)
    }
}

/// A gold answer with the text and settings it was parsed under.
struct Cached {
    text: String,
    config: MathConfig,
    decimal_comma: bool,
    gold: Arc<Gold>,
}

thread_local! {
    /// The gold answer parsed last on this thread: a group's completions share it.
    static LAST_GOLD: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

impl Rule for MathRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let Some(gold) = sample.gold.filter(|g| !g.trim().is_empty()) else {
            return Verdict::cannot_tell("no_gold");
        };
        let comma = self.config.decimal_comma.unwrap_or_else(|| writes_decimal_comma(sample.language));
        let prepared = LAST_GOLD.with_borrow_mut(|cache| match cache {
            Some(c) if c.text == gold && c.decimal_comma == comma && c.config == self.config => c.gold.clone(),
            _ => {
                let prepared = Arc::new(prepare(gold, &self.config, comma));
                *cache = Some(Cached {
                    text: gold.to_string(),
                    config: self.config.clone(),
                    decimal_comma: comma,
                    gold: prepared.clone(),
                });
                prepared
            }
        });
        self.verdict(sample.prompt, sample.completion, &prepared, sample.finish_reason, comma)
    }
}

/// Languages that write 3,14 for three and fourteen hundredths.
fn writes_decimal_comma(language: &str) -> bool {
    matches!(
        language,
        "de" | "fr"
            | "es"
            | "it"
            | "pt"
            | "ru"
            | "nl"
            | "pl"
            | "cs"
            | "sv"
            | "da"
            | "nb"
            | "no"
            | "fi"
            | "tr"
            | "uk"
            | "vi"
            | "id"
            | "el"
            | "hu"
            | "ro"
            | "bg"
    )
}

/// Whether two answers (not completions) are the same; the first counts as gold for tolerances.
pub fn equivalent(a: &str, b: &str, config: &MathConfig) -> Equivalence {
    let comma = config.decimal_comma.unwrap_or(false);
    let gold = prepare(a, config, comma);
    if let Err(fault) = gold.reading {
        return Equivalence::CannotTell(if fault == Unread::Budget { "budget" } else { "gold_unparsed" });
    }
    let found = Extracted { text: b.to_string(), place: Place::Boxed, narrower: Vec::new(), end: None, boxes: None };
    match judge(&gold, &found, config, comma).0 {
        Finding::Equal(_) => Equivalence::Equal,
        Finding::Different("answer_unparsed") => Equivalence::CannotTell("answer_unparsed"),
        Finding::Different(_) => Equivalence::Different,
        Finding::Unknown(why) => Equivalence::CannotTell(why),
    }
}
