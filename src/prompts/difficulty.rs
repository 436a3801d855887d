//! Difficulty from measured pass rates: 1 − correct / total, and the window worth training on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::schema::Prompt;
use crate::{Error, Result};

/// Attempts by prompt, summed over as many measurements as there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PassRates {
    attempts: BTreeMap<String, (u64, u64)>,
}

/// The pass rates to keep. open-r1 trains on 0.1 to 0.9: a prompt always or never solved has no gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PassWindow {
    /// Lowest pass rate that stays, inclusive.
    pub min: f64,
    /// Highest pass rate that stays, inclusive.
    pub max: f64,
    /// Keep prompts that were never measured.
    pub keep_unmeasured: bool,
}

impl Default for PassWindow {
    fn default() -> Self {
        PassWindow { min: 0.1, max: 0.9, keep_unmeasured: false }
    }
}

impl PassWindow {
    /// # Errors
    /// No pass rate is inside.
    pub fn check(&self) -> Result<()> {
        if self.min <= self.max && self.max >= 0.0 && self.min <= 1.0 {
            return Ok(());
        }
        Err(Error::usage(format!("pass_rate: no rate is from {} to {}", self.min, self.max))
            .hint("both are shares from 0 to 1, `min` the lower"))
    }
}

/// `(prompt_id, correct, total)`; rows without an attempt say nothing.
impl FromIterator<(String, u64, u64)> for PassRates {
    fn from_iter<I: IntoIterator<Item = (String, u64, u64)>>(rows: I) -> Self {
        let mut rates = PassRates::default();
        rates.extend(rows);
        rates
    }
}

impl Extend<(String, u64, u64)> for PassRates {
    fn extend<I: IntoIterator<Item = (String, u64, u64)>>(&mut self, rows: I) {
        for (prompt_id, correct, total) in rows.into_iter().filter(|(_, _, total)| *total > 0) {
            let entry = self.attempts.entry(prompt_id).or_default();
            entry.0 += correct.min(total);
            entry.1 += total;
        }
    }
}

impl PassRates {
    /// Correct over all attempts, 0 to 1; `None` if never measured.
    pub fn rate(&self, prompt_id: &str) -> Option<f64> {
        self.attempts.get(prompt_id).map(|(correct, total)| *correct as f64 / *total as f64)
    }

    /// Sets the difficulty of a measured prompt; others keep theirs.
    pub fn apply(&self, prompt: &mut Prompt) {
        if let Some(rate) = self.rate(&prompt.prompt_id) {
            prompt.difficulty = Some(1.0 - rate);
        }
    }

    /// Why this prompt is outside the window (code and detail), or `None` if it stays.
    pub fn reason(&self, prompt_id: &str, window: &PassWindow) -> Option<(&'static str, String)> {
        match self.rate(prompt_id) {
            None if window.keep_unmeasured => None,
            None => Some(("unmeasured", "no pass rate".to_owned())),
            Some(rate) if rate < window.min || rate > window.max => {
                Some(("pass_rate", format!("{rate:.3}, wanted from {} to {}", window.min, window.max)))
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_add_up_and_the_window_is_inclusive() {
        let rates: PassRates =
            [("a".to_owned(), 1, 8), ("a".to_owned(), 3, 8), ("b".to_owned(), 8, 8), ("c".to_owned(), 0, 0)]
                .into_iter()
                .collect();
        assert_eq!(rates.rate("a"), Some(0.25));
        let window = PassWindow { min: 0.25, max: 0.9, keep_unmeasured: false };
        assert_eq!(rates.reason("a", &window), None);
        assert_eq!(rates.reason("b", &window).unwrap(), ("pass_rate", "1.000, wanted from 0.25 to 0.9".to_owned()));
        assert_eq!(rates.reason("c", &window).unwrap().0, "unmeasured");
        assert!(window.check().is_ok() && PassWindow { min: 0.9, max: 0.1, ..window }.check().is_err());
        let mut prompt = super::super::filter::tests::prompt("q");
        prompt.prompt_id = "a".to_owned();
        rates.apply(&mut prompt);
        assert_eq!(prompt.difficulty, Some(0.75));
    }
}
