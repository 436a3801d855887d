//! `[[examples]]`: completions with the verdict a rule file must give them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Judgement, RuleSet};
use crate::rule::{Origin, Sample};
use crate::schema::{FinishReason, Outcome};

/// One example of a rule file.
#[derive(Clone, Debug)]
pub struct Example {
    /// The author's name for it, or its number.
    pub name: Option<String>,
    /// One-based line of its `[[examples]]`.
    pub line: usize,
    /// Where it is written.
    span: Range<usize>,
    raw: RawExample,
}

/// What an example may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Outcome correct and reward above 0.
    Accept,
    /// Outcome wrong, or a reward of 0 or less.
    Reject,
    /// No reward.
    CannotTell,
}

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExample {
    name: Option<String>,
    #[serde(default)]
    prompt: String,
    completion: String,
    gold: Option<String>,
    verification: Option<toml::Value>,
    domain: Option<String>,
    language: Option<String>,
    difficulty: Option<f64>,
    tokens: Option<u32>,
    #[serde(default)]
    truncated: bool,
    expect: Option<Expect>,
    outcome: Option<Outcome>,
    reason: Option<String>,
    reward: Option<f64>,
    #[serde(default)]
    scores: BTreeMap<String, f64>,
}

impl RawExample {
    pub(super) const KEYS: &'static [&'static str] = &[
        "name",
        "prompt",
        "completion",
        "gold",
        "verification",
        "domain",
        "language",
        "difficulty",
        "tokens",
        "truncated",
        "expect",
        "outcome",
        "reason",
        "reward",
        "scores",
    ];

    /// Whether it expects anything; verification tables become JSON text.
    pub(super) fn check(mut self, line: usize, span: Range<usize>) -> Result<Example, (String, String)> {
        let expects = self.expect.is_some() || self.outcome.is_some() || self.reward.is_some() || self.reason.is_some();
        if !expects && self.scores.is_empty() {
            return Err((
                "this example expects nothing".into(),
                "expect = \"accept\", or \"reject\", or reward = 1.0".into(),
            ));
        }
        if let Some(verification) = self.verification.take() {
            let text = match verification {
                toml::Value::String(text) => text,
                table => serde_json::to_string(&table).map_err(|e| (format!("verification: {e}"), String::new()))?,
            };
            self.verification = Some(toml::Value::String(text));
        }
        Ok(Example { name: self.name.clone(), line, span, raw: self })
    }
}

impl Example {
    /// Rules whose scores it expects.
    pub(super) fn scored(&self) -> impl Iterator<Item = &str> {
        self.raw.scores.keys().map(String::as_str)
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The sample that the rules see. Domain `math` and language `en` unless it says otherwise.
    pub fn sample(&self) -> Sample<'_> {
        let raw = &self.raw;
        Sample {
            prompt: &raw.prompt,
            completion: &raw.completion,
            gold: raw.gold.as_deref(),
            verification: raw.verification.as_ref().and_then(toml::Value::as_str),
            domain: raw.domain.as_deref().unwrap_or("math"),
            language: raw.language.as_deref().unwrap_or("en"),
            difficulty: raw.difficulty,
            finish_reason: if raw.truncated { FinishReason::Length } else { FinishReason::Stop },
            tokens: raw.tokens,
            origin: Origin::default(),
        }
    }

    /// Judges the example; what differs from what it expects, one line each. Empty is a pass.
    pub fn run(&self, rules: &RuleSet) -> (Judgement, Vec<String>) {
        let judgement = rules.judge(&self.sample());
        let raw = &self.raw;
        let mut faults = Vec::new();
        let paid = judgement.reward.is_some_and(|reward| reward > 0.0);
        let got = || match judgement.reward {
            Some(reward) => format!("reward {reward}, outcome {:?} ({})", judgement.outcome, judgement.reason),
            None => format!("no reward, outcome {:?} ({})", judgement.outcome, judgement.reason),
        };
        let kept = match raw.expect {
            None => true,
            Some(Expect::Accept) => paid && judgement.outcome == Outcome::Correct,
            Some(Expect::Reject) => judgement.reward.is_some() && (!paid || judgement.outcome == Outcome::Wrong),
            Some(Expect::CannotTell) => judgement.reward.is_none(),
        };
        if !kept {
            faults.push(format!("expected {:?}, got {}", raw.expect.unwrap_or(Expect::Accept), got()));
        }
        if let Some(outcome) = raw.outcome.filter(|outcome| *outcome != judgement.outcome) {
            faults.push(format!("expected outcome {outcome:?}, got {}", got()));
        }
        if let Some(reason) = raw.reason.as_ref().filter(|reason| **reason != judgement.reason) {
            faults.push(format!("expected reason `{reason}`, got `{}`", judgement.reason));
        }
        let close = |a: f64, b: Option<f64>| b.is_some_and(|b| (a - b).abs() <= 1e-6);
        if let Some(reward) = raw.reward.filter(|reward| !close(*reward, judgement.reward)) {
            faults.push(format!("expected reward {reward}, got {}", got()));
        }
        for (rule, &expected) in &raw.scores {
            match judgement.scores.iter().find(|score| score.rule == *rule) {
                None => faults.push(format!("rule `{rule}` gave no score here")),
                Some(score) if !close(expected, score.score) => {
                    let found = score.score.map_or("none".to_owned(), |score| score.to_string());
                    faults.push(format!("expected `{rule}` = {expected}, got {found} ({})", score.reason));
                }
                Some(_) => {}
            }
        }
        (judgement, faults)
    }
}
