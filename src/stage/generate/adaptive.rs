//! Adaptive sampling: a prompt gets samples in rounds until enough is known of it.
//!
//! Each round's completions are judged when all of them have come, and what is decided depends on
//! nothing else; so the number of samples is a function of the completions, whatever the order they
//! came in, the servers, or a kill in between.

use std::ops::Range;

use serde::Deserialize;

use crate::engine::Request;
use crate::error::{Error, Result};
use crate::eval::wilson;
use crate::rule::{RuleSet, Sample, Unreached};
use crate::schema::{Completion, FinishReason, Outcome, Prompt};
use crate::stage::judged::{ensure_reached, sample};

/// `until = { … }` of a generate stage: when a prompt has enough samples.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Until {
    /// Judges the completions: a rule file, or the name of a built-in one.
    pub rules: String,
    /// Most samples of a prompt.
    pub samples: u32,
    /// Enough once so many are correct.
    pub correct: Option<u32>,
    /// Enough once the Wilson interval of the pass rate is at most this wide, in (0, 1).
    pub width: Option<f64>,
    /// Of that interval.
    #[serde(default = "confidence")]
    pub confidence: f64,
    /// Samples of each round after the first; default as many as in the first.
    pub round: Option<u32>,
}

fn confidence() -> f64 {
    0.95
}

impl Until {
    /// # Errors
    /// A usage error that names the key: nothing to stop at, or a number out of range. `first` is
    /// the size of the first round.
    pub fn validate(&self, first: u32) -> Result<()> {
        let wrong = |key: &str, what: String| Err(Error::usage(what).in_field(format!("until.{key}")));
        if self.correct.is_none() && self.width.is_none() {
            return wrong("correct", "sampling would always go to the limit: set `correct`, `width` or both".into());
        }
        if self.samples < first {
            return wrong("samples", format!("at most {} samples, but the first round has {first}", self.samples));
        }
        if self.correct == Some(0) || self.round == Some(0) {
            return wrong(if self.round == Some(0) { "round" } else { "correct" }, "must be at least 1".into());
        }
        if self.width.is_some_and(|width| !(width > 0.0 && width < 1.0)) {
            return wrong("width", "an interval's width lies between 0 and 1".into());
        }
        if !(self.confidence > 0.5 && self.confidence < 1.0) {
            return wrong("confidence", "lies between 0.5 and 1, such as 0.95".into());
        }
        Ok(())
    }
}

/// A validated [`Until`] with its rules.
pub(super) struct Adaptive {
    until: Until,
    rules: RuleSet,
    round: u32,
}

impl Adaptive {
    /// # Errors
    /// The rule file does not load, or a rule in it cannot work here.
    pub fn new(until: &Until, first: u32, rules_path: &str) -> Result<Self> {
        let rules = RuleSet::load(rules_path)?;
        rules.ensure_ready()?;
        Ok(Adaptive { round: until.round.unwrap_or(first), until: until.clone(), rules })
    }

    fn enough(&self, asked: &Asked) -> bool {
        let narrow = |width| {
            wilson(asked.decided, asked.correct, self.until.confidence).is_some_and(|i| i.high - i.low <= width)
        };
        self.until.correct.is_some_and(|correct| asked.correct >= u64::from(correct))
            || self.until.width.is_some_and(narrow)
    }
}

/// One prompt that is sampled adaptively.
pub(super) struct Asked {
    prompt: Prompt,
    /// The first round's request; the samples of later ones differ.
    pub request: Request,
    /// Most samples there can be.
    limit: u32,
    /// Samples 0..asked are there or on their way.
    asked: u32,
    /// Of those, how many are on their way.
    pub waiting: usize,
    /// Completions that are not judged yet: (text, why it ended, tokens).
    fresh: Vec<(String, FinishReason, Option<u32>)>,
    correct: u64,
    /// Judged correct or wrong; the others could not be told.
    decided: u64,
}

impl Asked {
    /// `available` is the most samples that the engine has of this prompt, if there is such a limit.
    pub fn new(prompt: Prompt, request: Request, until: &Until, available: Option<usize>) -> Self {
        Asked {
            prompt,
            limit: available.map_or(until.samples, |n| until.samples.min(n as u32)),
            asked: request.samples.len() as u32,
            request,
            waiting: 0,
            fresh: Vec::new(),
            correct: 0,
            decided: 0,
        }
    }

    /// Notes a completion of the current round. One that failed counts as not told.
    pub fn arrived(&mut self, completion: &Completion) {
        if let (Some(text), true) = (&completion.text, completion.finish_reason != FinishReason::Error) {
            self.fresh.push((text.clone(), completion.finish_reason, completion.completion_tokens));
        }
    }

    /// The samples to ask now: none while the round is not whole, or once there are enough.
    ///
    /// # Errors
    /// A server of the rules is down: how many samples are enough cannot be known.
    pub fn next_round(&mut self, adaptive: &Adaptive) -> Result<Range<u32>> {
        if self.waiting > 0 {
            return Ok(self.asked..self.asked);
        }
        let fresh = std::mem::take(&mut self.fresh);
        let samples: Vec<Sample<'_>> =
            fresh.iter().map(|(text, reason, tokens)| sample(&self.prompt, text, *reason, *tokens)).collect();
        let judged = adaptive.rules.judge_batch(&samples);
        ensure_reached(Unreached::Down, judged.iter().map(|judgement| (judgement.reward, &*judgement.scores)))?;
        let outcomes: Vec<Outcome> = judged.into_iter().map(|judgement| judgement.outcome).collect();
        self.correct += outcomes.iter().filter(|o| **o == Outcome::Correct).count() as u64;
        self.decided += outcomes.iter().filter(|o| **o != Outcome::CannotTell).count() as u64;
        if adaptive.enough(self) {
            self.limit = self.asked;
        }
        let round = self.asked..self.limit.min(self.asked.saturating_add(adaptive.round));
        self.asked = round.end;
        Ok(round)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::{SampleSeed, Sampling};

    const RULES: &str = "reward = \"answer\"\n\n[rules.answer]\nkind = \"exact\"\n";

    fn asked(until: &Until, first: u32) -> Asked {
        let prompt = Prompt {
            prompt_id: "p".into(),
            messages: Vec::new(),
            gold: Some("yes".into()),
            solution: None,
            verification: None,
            domain: "math".into(),
            language: "en".into(),
            difficulty: None,
            source: "test".into(),
            license: None,
            extra: None,
        };
        let request = Request {
            prompt_id: "p".into(),
            messages: [].into(),
            samples: (0..first).map(|i| SampleSeed { index: i, seed: 0 }).collect(),
            sampling: Arc::new(Sampling::default()),
            policy_step: 0,
        };
        Asked::new(prompt, request, until, None)
    }

    fn until(correct: Option<u32>, width: Option<f64>) -> Until {
        Until { rules: String::new(), samples: 20, correct, width, confidence: 0.95, round: Some(3) }
    }

    /// How many samples are asked if sample `i` is correct where `correct(i)`.
    fn total(until: &Until, first: u32, correct: impl Fn(u32) -> bool) -> u32 {
        let rules = RuleSet::parse(RULES, "test").unwrap();
        let adaptive = Adaptive { until: until.clone(), rules, round: until.round.unwrap_or(first) };
        let mut asked = asked(until, first);
        let mut round = 0..first;
        while !round.is_empty() {
            // The order of arrival plays no part.
            asked.fresh = round
                .clone()
                .rev()
                .map(|i| (if correct(i) { "yes" } else { "no" }.into(), FinishReason::Stop, None))
                .collect();
            round = asked.next_round(&adaptive).unwrap();
        }
        asked.asked
    }

    #[test]
    fn a_prompt_is_asked_until_so_many_are_correct() {
        assert_eq!(total(&until(Some(2), None), 4, |_| true), 4, "the first round was enough");
        assert_eq!(total(&until(Some(2), None), 4, |i| i >= 6), 10, "two rounds of three more");
        assert_eq!(total(&until(Some(2), None), 4, |_| false), 20, "and never beyond the limit");
    }

    #[test]
    fn a_prompt_is_asked_until_its_pass_rate_is_known_well_enough() {
        // Wilson at 95 %: 4 of 4 is 0.49 wide, 7 of 7 0.35, 10 of 10 0.28; half of them right stays wide.
        assert_eq!(total(&until(None, Some(0.3)), 4, |_| true), 10);
        assert_eq!(total(&until(None, Some(0.3)), 4, |_| false), 10);
        assert_eq!(total(&until(None, Some(0.3)), 4, |i| i % 2 == 0), 20);
    }

    #[test]
    fn settings_that_stop_nothing_are_refused() {
        let refused = |until: Until| until.validate(4).unwrap_err().to_string();
        assert!(refused(until(None, None)).contains("always go to the limit"));
        assert!(refused(Until { samples: 3, ..until(Some(1), None) }).contains("first round has 4"));
        assert!(refused(until(None, Some(1.5))).contains("until.width"));
        assert!(refused(Until { round: Some(0), ..until(Some(1), None) }).contains("until.round"));
        until(Some(1), Some(0.2)).validate(4).unwrap();
    }
}
