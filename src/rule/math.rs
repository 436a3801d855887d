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
//! found there is certain. Everything else is evaluated with error bounds at up to twelve
//! points inside the real domain: a difference found is certain, and equality is
//! accepted when four points agree within bounds below 10⁻⁷ relative (10⁻¹⁰ for constants)
//! and, where the functions allow it, agree once more to 60 digits. Two different constants
//! built from fewer than 80 roots and functions agree so far only by extreme coincidence.

mod ast;
mod budget;
mod clean;
mod compare;
mod eval;
mod extract;
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

use self::budget::Budget;
use self::compare::{Comparison, Finding};
pub use self::extract::{Extracted, Place};
use self::extract::{Region, region};
use self::lex::Commas;
use self::reading::{Reading, Unread, breaks_off, plain_integer};
use super::{Rule, Sample, Verdict};
use crate::schema::FinishReason;

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
    fn look(self) -> bool {
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

/// Whether two answers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equivalence {
    Equal,
    Different,
    /// Neither could be shown; the reason is a stable code.
    CannotTell(&'static str),
}

/// A gold answer, parsed once for all completions of its group.
#[derive(Clone, Debug)]
pub struct Gold {
    integer: Option<i64>,
    reading: Result<Reading, Unread>,
    /// Readings with its commas as separators or as decimal points, where they make sense too.
    others: Vec<Reading>,
}

impl Gold {
    /// `text`, `number`, or `expression`: what the gold answer was read as; `unread` if it was not.
    pub fn kind(&self) -> &'static str {
        match &self.reading {
            Ok(r) if r.is_text() => "text",
            Ok(r) if r.value(r.root).is_some() => "number",
            Ok(_) => "expression",
            Err(_) => "unread",
        }
    }

    /// The gold answer as it was understood, or `None` if it does not parse.
    pub fn parsed(&self) -> Option<String> {
        self.reading.as_ref().ok().map(show)
    }
}

/// Checks the final answer of a completion against the gold answer.
#[derive(Clone, Debug, Default)]
pub struct MathRule {
    config: MathConfig,
}

impl MathRule {
    /// A rule with these settings.
    pub fn new(config: MathConfig) -> Self {
        MathRule { config }
    }

    pub fn config(&self) -> &MathConfig {
        &self.config
    }

    /// Parses a gold answer; also accepts a solution that ends in a box or `####`.
    pub fn prepare(&self, gold: &str) -> Gold {
        prepare(gold, &self.config, self.config.decimal_comma.unwrap_or(false))
    }

    /// Checks a completion against a gold answer parsed before.
    pub fn check_prepared(&self, completion: &str, gold: &Gold, finish: FinishReason) -> Verdict {
        self.verdict(completion, gold, finish, self.config.decimal_comma.unwrap_or(false))
    }

    fn verdict(&self, completion: &str, gold: &Gold, finish: FinishReason, decimal_comma: bool) -> Verdict {
        let gold_reading = match &gold.reading {
            Ok(reading) => reading,
            Err(Unread::Budget) => return Verdict::cannot_tell("budget").with("step", "gold"),
            Err(_) => return Verdict::cannot_tell("gold_unparsed").with("step", "gold"),
        };
        let truncated = finish == FinishReason::Length;
        let Region::Text(text) = region(completion, &self.config) else {
            return Verdict::wrong(if truncated { "truncated" } else { "no_answer" }).with("step", "extract");
        };
        let Some(found) = self.find(text) else {
            return Verdict::wrong(if truncated { "truncated" } else { "no_answer" }).with("step", "extract");
        };
        let mut evidence = vec![("extracted", clip(&found.text)), ("where", found.place.name().to_string())];
        let (finding, parsed) = judge(gold, &found, &self.config, decimal_comma);
        if let Some(parsed) = parsed {
            evidence.push(("parsed", parsed));
        }
        evidence.push(("gold_parsed", show(gold_reading)));
        let mut verdict = match finding {
            Finding::Equal(step) => Verdict::correct("equal").with("step", step),
            Finding::Different("answer_unparsed") => Verdict::wrong("answer_unparsed").with("step", "parse"),
            Finding::Different("different_kind") => Verdict::wrong("different_kind").with("step", "kind"),
            Finding::Different(why @ compare::INCONSISTENT) => Verdict::wrong(why).with("step", "consistency"),
            Finding::Different(step) => Verdict::wrong("not_equal").with("step", step),
            Finding::Unknown(why) => Verdict::cannot_tell(why).with("step", "compare"),
        };
        evidence.append(&mut verdict.evidence);
        verdict.evidence = evidence;
        verdict
    }

    fn find(&self, text: &str) -> Option<Extracted> {
        let found = extract::extract(text, &self.config.extract);
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
        self.verdict(sample.completion, &prepared, sample.finish_reason, comma)
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

/// The answer in a completion, where the configuration says to look.
pub fn extract_answer(completion: &str, config: &MathConfig) -> Option<Extracted> {
    match region(completion, config) {
        Region::Text(text) => MathRule { config: config.clone() }.find(text),
        Region::Unfinished => None,
    }
}

/// Whether two answers (not completions) are the same; the first counts as gold for tolerances.
pub fn equivalent(a: &str, b: &str, config: &MathConfig) -> Equivalence {
    let comma = config.decimal_comma.unwrap_or(false);
    let gold = prepare(a, config, comma);
    if let Err(fault) = gold.reading {
        return Equivalence::CannotTell(if fault == Unread::Budget { "budget" } else { "gold_unparsed" });
    }
    let found = Extracted { text: b.to_string(), place: Place::Boxed, narrower: Vec::new(), boxes: None };
    match judge(&gold, &found, config, comma).0 {
        Finding::Equal(_) => Equivalence::Equal,
        Finding::Different("answer_unparsed") => Equivalence::CannotTell("answer_unparsed"),
        Finding::Different(_) => Equivalence::Different,
        Finding::Unknown(why) => Equivalence::CannotTell(why),
    }
}

/// Longest gold, in bytes, that is an answer rather than a solution.
const SHORT_GOLD: usize = 160;

fn prepare(gold: &str, config: &MathConfig, decimal_comma: bool) -> Gold {
    // Solutions carry their answer in a box or after ####.
    let inner = if gold.contains(r"\boxed") || gold.contains(r"\fbox") || gold.contains("####") {
        extract::extract(gold, &[Place::Boxed, Place::Hash])
    } else {
        None
    };
    let gold = match &inner {
        // A short gold of several boxes has several parts; in a long solution the last box is the answer.
        Some(Extracted { boxes: Some((_, all)), .. }) if gold.len() <= SHORT_GOLD => all.as_str(),
        Some(found) => found.text.as_str(),
        None => gold,
    };
    let commas = if decimal_comma { Commas::Decimal } else { Commas::Thousands };
    let mut budget = Budget::new(config.steps);
    let mut reading = Reading::new(gold, commas, &mut budget);
    // A solution in words that announces its answer.
    if matches!(&reading, Ok(r) if r.is_text() && gold.len() > SHORT_GOLD)
        && let Some(found) = extract::extract(gold, &[Place::FinalAnswer])
    {
        let mut texts = std::iter::once(&found.text).chain(&found.narrower);
        let announced = texts.find_map(|text| Reading::new(text, commas, &mut budget).ok().filter(|r| !r.is_text()));
        reading = announced.map_or(reading, Ok);
    }
    let mut others = Vec::new();
    if matches!(&reading, Ok(r) if r.ambiguous_comma) {
        // "2,000" is no list: its second number would begin with a zero.
        if !gold.contains(",0") {
            let commas = if decimal_comma { Commas::Thousands } else { Commas::Separate };
            others.extend(Reading::new(gold, commas, &mut budget));
        }
        if !decimal_comma && lone_decimal(gold) {
            others.extend(Reading::new(gold, Commas::Decimal, &mut budget));
        }
    }
    // "(B) 12" stands for B and for 12.
    others.extend(text::behind_choice(gold).and_then(|behind| Reading::new(behind, commas, &mut budget).ok()));
    Gold { integer: plain_integer(gold.trim()), reading, others }
}

/// "1,22" and "0,111": one comma, not as between thousands, and more than one digit behind it. "1,2" is a list.
fn lone_decimal(gold: &str) -> bool {
    let Some((whole, behind)) = gold.trim().trim_matches('$').split_once(',') else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = whole.trim_start_matches('-');
    digits(whole) && digits(behind) && behind.len() > 1 && (behind.len() != 3 || whole == "0")
}

/// "3,14 cm" and "1.234,5": commas that cannot part thousands, each before one number's decimals.
fn lone_decimal_in_answer(text: &str) -> bool {
    // Inside brackets commas part values.
    if text.contains(['(', '[']) || text.contains("\\{") {
        return false;
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    bytes.iter().enumerate().filter(|&(_, b)| *b == b',').all(|(at, _)| {
        let behind = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let before = bytes[..at].iter().rev().take_while(|b| b.is_ascii_digit()).count();
        let whole_is_zero = before == 1 && digit(at - 1) && bytes[at - 1] == b'0';
        behind == 0 || before == 0 || behind != 3 || before > 3 || whole_is_zero
    })
}

/// Compares an extracted answer, trying narrower readings of a sentence and other readings of commas.
fn judge(gold: &Gold, found: &Extracted, config: &MathConfig, decimal_comma: bool) -> (Finding, Option<String>) {
    if let (Some(a), Some(b)) = (gold.integer, plain_integer(found.text.trim())) {
        let finding = if a == b { Finding::Equal("exact") } else { Finding::Different("exact") };
        return (finding, Some(b.to_string()));
    }
    let Ok(gold_reading) = &gold.reading else { return (Finding::Unknown("gold_unparsed"), None) };
    let commas = if decimal_comma { Commas::Decimal } else { Commas::Thousands };
    let mut budget = Budget::new(config.steps);
    let mut best: Option<(Finding, Option<String>)> = None;
    // "(B) 12" stands for B and for 12.
    let behind_letter = text::behind_choice(&found.text).map(str::to_string);
    for text in std::iter::once(&found.text).chain(&found.narrower).chain(&behind_letter) {
        let pred = match Reading::new(text, commas, &mut budget) {
            Ok(pred) => pred,
            Err(fault) => {
                let finding = match fault {
                    _ if text.trim() == gold_reading.source => Finding::Equal("same_text"),
                    Unread::Budget => Finding::Unknown("budget"),
                    _ => Finding::Different("answer_unparsed"),
                };
                best.get_or_insert((finding, None));
                if breaks_off(text) {
                    break;
                }
                continue;
            }
        };
        let mut comparison = Comparison::new(gold_reading, &pred, config, budget);
        let mut finding = comparison.run();
        budget = comparison.budget;
        if !finding.is_equal() && (pred.ambiguous_comma || !gold.others.is_empty()) {
            finding = other_commas(gold, gold_reading, &pred, text, config, &mut budget).unwrap_or(finding);
        }
        // A sentence that is no expression: look at the formulas and numbers in it.
        let prose = pred.has_words() && !gold_reading.has_words();
        if !finding.is_equal()
            && let Some((count, all)) = &found.boxes
            && gold_reading.parts() == *count
            && let Ok(pred) = Reading::new(all, commas, &mut budget)
        {
            let mut comparison = Comparison::new(gold_reading, &pred, config, budget.clone());
            let parts = comparison.run();
            if parts.is_equal() {
                return (parts, Some(show(&pred)));
            }
        }
        // What breaks off is no sentence that a number could be read out of.
        if finding.is_equal() || !prose || breaks_off(text) {
            return (finding, Some(show(&pred)));
        }
        best.get_or_insert((finding, Some(show(&pred))));
    }
    best.unwrap_or((Finding::Different("answer_unparsed"), None))
}

/// `1,234` may be two numbers and `3,14` a decimal: equality under another reading counts.
fn other_commas(
    gold: &Gold,
    gold_reading: &Reading,
    pred: &Reading,
    text: &str,
    config: &MathConfig,
    budget: &mut Budget,
) -> Option<Finding> {
    let mut others = Vec::new();
    if pred.ambiguous_comma {
        for commas in [Commas::Thousands, Commas::Separate, Commas::Decimal] {
            // 1,234 is no 1.234 where commas part thousands.
            if commas == Commas::Decimal && !lone_decimal_in_answer(text) {
                continue;
            }
            if commas != pred.commas
                && let Ok(other) = Reading::new(text, commas, budget)
            {
                others.push(other);
            }
        }
    }
    let golds = std::iter::once(gold_reading).chain(&gold.others);
    for gold in golds {
        for pred in std::iter::once(pred).chain(&others) {
            // A decimal comma in the answer needs a gold that is one number.
            if pred.commas == Commas::Decimal && gold.ambiguous_comma && gold.commas != Commas::Decimal {
                continue;
            }
            let mut comparison = Comparison::new(gold, pred, config, budget.clone());
            let finding = comparison.run();
            *budget = comparison.budget;
            if finding.is_equal() {
                return Some(finding);
            }
        }
    }
    None
}

/// How an answer was read, for people: its value where it has one.
fn show(reading: &Reading) -> String {
    match reading.value(reading.root) {
        Some(value) => clip(&value.show()),
        None => clip(&reading.source),
    }
}

fn clip(text: &str) -> String {
    const LIMIT: usize = 400;
    if text.len() <= LIMIT {
        return text.to_string();
    }
    let mut end = LIMIT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}
