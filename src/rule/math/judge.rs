//! A gold answer made ready, and an extracted answer judged by it, in each reading that a comma or a sentence allows.

use super::budget::Budget;
use super::compare::{Comparison, DENIED, Finding, INCONSISTENT};
use super::extract::{self, Extracted, Place};
use super::lex::Commas;
use super::reading::{Reading, Unread, breaks_off, plain_integer};
use super::text;
use super::{Gold, MathConfig};

/// Longest gold, in bytes, that is an answer rather than a solution.
const SHORT_GOLD: usize = 160;

/// Parses a gold answer, or a solution that ends in a box or `####`.
pub(super) fn prepare(gold: &str, config: &MathConfig, decimal_comma: bool) -> Gold {
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

/// The only numeral with a comma in `text` is the one that `other` writes with a point: "3,14 cm" and 3.14,
/// "1.234,5" and 1234.5. Where commas part values, nothing less makes one a decimal point: "x = 2, 5", "-1,0".
fn has_decimal_of(text: &str, other: &str) -> bool {
    // Inside brackets commas part values.
    if text.contains(['(', '[', '=']) || text.contains("\\{") {
        return false;
    }
    let Some((before, behind)) = text.split_once(',') else { return false };
    let part = |c: char| c.is_ascii_digit() || c == '.';
    let whole = &before[before.trim_end_matches(part).len()..];
    let decimals = &behind[..behind.bytes().take_while(u8::is_ascii_digit).count()];
    let thousands = decimals.len() == 3 && whole.len() <= 3 && whole != "0";
    if whole.is_empty() || decimals.bytes().all(|b| b == b'0') || behind.contains(',') || thousands {
        return false;
    }
    let other = other.replace("{,}", ".");
    let pointed = format!("{}.{decimals}", whole.replace('.', ""));
    !other.contains(',') && other.split(|c| !part(c)).any(|numeral| numeral.trim_end_matches('.') == pointed)
}

/// Compares an extracted answer as it is said; then, where it is a derivation, what it ends on. One that
/// contradicts itself or takes itself back ends on nothing.
pub(super) fn judge(
    gold: &Gold,
    found: &Extracted,
    config: &MathConfig,
    decimal_comma: bool,
) -> (Finding, Option<String>) {
    let said = judge_said(gold, found, config, decimal_comma);
    let Some(end) = &found.end else { return said };
    if said.0.is_equal() || matches!(said.0, Finding::Different(INCONSISTENT | DENIED)) {
        return said;
    }
    let end = Extracted { text: end.clone(), place: found.place, narrower: Vec::new(), end: None, boxes: None };
    let ended = judge_said(gold, &end, config, decimal_comma);
    if ended.0.is_equal() || ended.0 == Finding::Different(INCONSISTENT) { ended } else { said }
}

/// Compares an extracted answer, trying narrower readings of a sentence and other readings of commas.
fn judge_said(gold: &Gold, found: &Extracted, config: &MathConfig, decimal_comma: bool) -> (Finding, Option<String>) {
    if let (Some(a), Some(b)) = (gold.integer, plain_integer(found.text.trim()))
        && (a == b || !config.tolerance.spans_integers())
    {
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
        let mut finding = Comparison::new(gold_reading, &pred, config, &mut budget).run();
        if !finding.is_equal() && (pred.ambiguous_comma || !gold.others.is_empty()) {
            finding = other_commas(gold, gold_reading, &pred, text, config, &mut budget).unwrap_or(finding);
        }
        if !finding.is_equal() {
            finding = common_logarithms(gold_reading, &pred, config, &mut budget).unwrap_or(finding);
        }
        if !finding.is_equal()
            && let Some(products) = pred.with_products(gold_reading, &mut budget)
        {
            let other = Comparison::new(gold_reading, &products, config, &mut budget).run();
            finding = if other.is_equal() { other } else { finding };
        }
        // A sentence that is no expression: look at the formulas and numbers in it.
        let prose = pred.has_words() && !gold_reading.has_words();
        if !finding.is_equal()
            && let Some((count, all)) = &found.boxes
            && gold_reading.parts() == *count
            && let Ok(pred) = Reading::new(all, commas, &mut budget)
        {
            let parts = Comparison::new(gold_reading, &pred, config, &mut budget).run();
            if parts.is_equal() {
                return (parts, Some(show(&pred)));
            }
        }
        // What breaks off is no sentence that a number could be read out of.
        let option = behind_letter.is_some() && text::choice(&gold_reading.text).is_none();
        let denied = finding == Finding::Different(DENIED);
        if finding.is_equal() || denied || !(prose || option) || breaks_off(text) {
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
            let said = commas != Commas::Decimal || has_decimal_of(text, &gold_reading.source);
            if commas != pred.commas
                && said
                && let Ok(other) = Reading::new(text, commas, budget)
            {
                others.push(other);
            }
        }
    }
    let decimal = |r: &Reading| r.commas == Commas::Decimal && gold_reading.commas != Commas::Decimal;
    let golds = std::iter::once(gold_reading).chain(&gold.others);
    for gold in golds {
        for pred in std::iter::once(pred).chain(&others) {
            // 10,20 is a list, unless the answer is 10.20; 0,125 is none.
            let sure = || gold.source.starts_with("0,") || has_decimal_of(&gold.source, &pred.source);
            if decimal(gold) && (decimal(pred) || !sure()) {
                continue;
            }
            // A decimal comma in the answer needs a gold that is one number.
            if pred.commas == Commas::Decimal && gold.ambiguous_comma && gold.commas != Commas::Decimal {
                continue;
            }
            let finding = Comparison::new(gold, pred, config, budget).run();
            if finding.is_equal() {
                return Some(finding);
            }
        }
    }
    None
}

/// A bare `\log` is natural or to the base ten, all of them alike: equality under the second reading counts.
fn common_logarithms(gold: &Reading, pred: &Reading, config: &MathConfig, budget: &mut Budget) -> Option<Finding> {
    if gold.arena.logs.is_empty() && pred.arena.logs.is_empty() {
        return None;
    }
    let (gold, pred) = (gold.to_base_ten(budget)?, pred.to_base_ten(budget)?);
    let finding = Comparison::new(&gold, &pred, config, budget).run();
    finding.is_equal().then_some(finding)
}

/// How an answer was read, for people: its value where it has one.
pub(super) fn show(reading: &Reading) -> String {
    match reading.value(reading.root) {
        Some(value) => clip(&value.show()),
        None => clip(&reading.source),
    }
}

pub(super) fn clip(text: &str) -> String {
    const LIMIT: usize = 400;
    if text.len() <= LIMIT {
        return text.to_string();
    }
    format!("{}…", &text[..text.floor_char_boundary(LIMIT)])
}
