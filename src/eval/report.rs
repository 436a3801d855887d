//! Summaries over prompts.

use std::collections::HashSet;

use super::{Interval, PromptResult, SampleResult, bootstrap_mean, counts, majority, pass_at_k, pass_rate};

/// How to summarise.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The ks of pass@k; those above a prompt's decided samples leave that prompt out.
    pub ks: Vec<u64>,
    /// Bootstrap resamples; 1,000 by default, and 0 gives intervals of width 0.
    pub resamples: usize,
    /// Coverage of the intervals, from 0 to 1; 0.95 by default.
    pub level: f64,
    /// Of the bootstrap's draws; 0 by default.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { ks: vec![], resamples: 1_000, level: 0.95, seed: 0 }
    }
}

/// The figures of a set of prompts. Intervals are clustered by prompt.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    /// All prompts, those that could not be judged included.
    pub prompts: u64,
    /// Prompts with no decided sample: in no other figure but the shares below.
    pub undecided_prompts: u64,
    /// Samples of all prompts, truncated and undecided ones included.
    pub samples: u64,
    /// Samples cut at the token limit.
    pub truncated: u64,
    /// Samples that the rules could not judge: in no figure.
    pub undecided: u64,
    /// Mean over prompts of the share of correct samples.
    pub pass_at_1: Option<Interval>,
    /// (k, prompts with at least k decided samples, mean of the unbiased estimate over them).
    pub pass_at_k: Vec<(u64, u64, Option<Interval>)>,
    /// Share of prompts whose majority answer is correct. A prompt whose samples have no answer at all
    /// counts as wrong; one whose winner is undecided is left out, and so is one of `without_vote`.
    pub majority: Option<Interval>,
    /// Judged prompts whose samples have no answer, in a domain where a sample without one was judged correct: its rules
    /// (running a program, a test of the text) extract nothing that could be voted on.
    pub without_vote: u64,
    /// By how much the vote beats one sample: the mean over prompts of the two figures' difference. The interval is of
    /// pairs, so a gain that is above 0 on most prompts shows where two intervals side by side would overlap.
    pub vote_gain: Option<Interval>,
}

/// Summarises prompts; `equal` says whether two answers are the same (see [`majority`]).
pub fn summarise<'a>(
    results: impl IntoIterator<Item = &'a PromptResult>,
    options: &Options,
    mut equal: impl FnMut(&str, &str) -> bool,
) -> Summary {
    let results: Vec<&PromptResult> = results.into_iter().collect();
    let unvoted: HashSet<&str> =
        results.iter().filter(|r| r.samples.iter().any(is_right_unnamed)).map(|r| r.domain.as_str()).collect();
    let mut summary = Summary {
        prompts: 0,
        undecided_prompts: 0,
        samples: 0,
        truncated: 0,
        undecided: 0,
        pass_at_1: None,
        pass_at_k: Vec::new(),
        majority: None,
        without_vote: 0,
        vote_gain: None,
    };
    let (mut rates, mut elected, mut gains) = (Vec::new(), Vec::new(), Vec::new());
    let mut estimates = vec![Vec::new(); options.ks.len()];
    for result in results {
        let (n, c) = counts(&result.samples);
        let truncated = result.samples.iter().filter(|sample| sample.truncated).count() as u64;
        summary.prompts += 1;
        summary.samples += result.samples.len() as u64;
        summary.truncated += truncated;
        summary.undecided += result.samples.len() as u64 - n;
        let Some(rate) = pass_rate(n, c) else {
            summary.undecided_prompts += 1;
            continue;
        };
        rates.push(rate);
        for (k, estimates) in options.ks.iter().zip(&mut estimates) {
            estimates.extend(pass_at_k(n, c, *k));
        }
        if unvoted.contains(result.domain.as_str()) && ballots(result).all(|answer| answer.is_none()) {
            summary.without_vote += 1;
        } else if let Some(correct) = elected_is_correct(result, &mut equal) {
            let correct = f64::from(u8::from(correct));
            elected.push(correct);
            gains.push(correct - rate);
        }
    }
    let interval = |values: &[f64]| bootstrap_mean(values, options.resamples, options.level, options.seed);
    summary.pass_at_1 = interval(&rates);
    summary.majority = interval(&elected);
    summary.vote_gain = interval(&gains);
    summary.pass_at_k = options
        .ks
        .iter()
        .zip(&estimates)
        .map(|(k, estimates)| (*k, estimates.len() as u64, interval(estimates)))
        .collect();
    summary
}

/// Whether a sample is correct by rules that name no answer.
fn is_right_unnamed(sample: &SampleResult) -> bool {
    sample.correct == Some(true) && sample.answer.is_none()
}

/// What each sample votes for; one in which the rules find no answer, as in most that were cut, does not vote.
fn ballots(result: &PromptResult) -> impl Iterator<Item = Option<&str>> {
    result.samples.iter().map(|sample| sample.answer.as_deref())
}

/// Whether the majority answer is correct; `None` where the rules cannot tell of it.
fn elected_is_correct(result: &PromptResult, equal: impl FnMut(&str, &str) -> bool) -> Option<bool> {
    match majority(ballots(result), equal) {
        None => Some(false),
        Some(winner) => result.samples[winner].correct,
    }
}

/// The name of a difficulty's band of `bands` equal ones: `0.25–0.50`; `unknown` for `None` and NaN.
pub fn difficulty_band(difficulty: Option<f64>, bands: u32) -> String {
    let bands = bands.max(1);
    match difficulty.filter(|d| !d.is_nan()) {
        None => "unknown".to_owned(),
        Some(difficulty) => {
            let band = ((difficulty.clamp(0.0, 1.0) * f64::from(bands)) as u32).min(bands - 1);
            let edge = |band: u32| f64::from(band) / f64::from(bands);
            format!("{:.2}–{:.2}", edge(band), edge(band + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(answer: &str, correct: Option<bool>) -> SampleResult {
        SampleResult { answer: Some(answer.to_owned()), correct, truncated: false }
    }

    fn prompt(domain: &str, samples: Vec<SampleResult>) -> PromptResult {
        PromptResult { domain: domain.to_owned(), samples }
    }

    #[test]
    fn truncated_samples_count_as_the_rules_decided_and_are_counted_apart() {
        let cut = |answer: Option<&str>, correct| SampleResult {
            answer: answer.map(str::to_owned),
            correct,
            truncated: true,
        };
        let (named, silent) = (cut(Some("5"), Some(true)), cut(None, Some(false)));
        let results = [prompt("math", vec![sample("7", Some(false)), named, silent, sample("5", Some(true))])];
        let summary = summarise(&results, &Options { ks: vec![2], ..Options::default() }, |a, b| a == b);
        assert_eq!((summary.samples, summary.truncated, summary.undecided), (4, 2, 0));
        assert_eq!(summary.pass_at_1.unwrap().mean, 0.5);
        assert_eq!(summary.majority.unwrap().mean, 1.0);
        // Of 6 pairs only the pair of the two wrong samples has no correct one.
        let (k, prompts, estimate) = summary.pass_at_k[0];
        assert!(k == 2 && prompts == 1 && (estimate.unwrap().mean - 5.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn undecided_samples_and_prompts_are_left_out_and_counted() {
        let results =
            [prompt("math", vec![sample("1", None), sample("2", Some(true))]), prompt("math", vec![sample("1", None)])];
        let summary = summarise(&results, &Options { ks: vec![2], ..Options::default() }, |_, _| false);
        assert_eq!((summary.prompts, summary.undecided_prompts, summary.undecided), (2, 1, 2));
        assert_eq!(summary.pass_at_1.unwrap().mean, 1.0);
        assert_eq!(summary.pass_at_k, [(2, 0, None)]);
        // The first answer wins the tie, and nobody can tell whether it is right.
        assert_eq!(summary.majority, None);
    }

    #[test]
    fn a_prompt_without_any_answer_loses_its_vote() {
        let silent = SampleResult { answer: None, correct: Some(false), truncated: false };
        let summary = summarise(&[prompt("math", vec![silent])], &Options::default(), |_, _| false);
        assert_eq!(summary.majority.unwrap().mean, 0.0);
    }

    #[test]
    fn where_rules_name_no_answers_there_is_no_vote() {
        let silent = |correct| SampleResult { answer: None, correct: Some(correct), truncated: false };
        let programs =
            vec![prompt("code", vec![silent(true), silent(true)]), prompt("code", vec![silent(false), silent(false)])];
        let summary = summarise(&programs, &Options::default(), |_, _| false);
        assert_eq!((summary.pass_at_1.unwrap().mean, summary.majority, summary.vote_gain), (0.5, None, None));
        assert_eq!(summary.without_vote, 2);
        // Where answers are what is judged, none is a wrong one.
        let mut both = programs;
        both.push(prompt("math", vec![sample("1", Some(true)), silent(false)]));
        both.push(prompt("math", vec![silent(false), silent(false)]));
        let summary = summarise(&both, &Options::default(), |_, _| false);
        assert_eq!((summary.majority.unwrap().mean, summary.without_vote), (0.5, 2));
    }

    #[test]
    fn a_votes_gain_is_measured_on_pairs() {
        // Three of four right on every prompt: the vote gains a quarter on each, whatever the prompts' mean.
        let three =
            vec![sample("1", Some(true)), sample("1", Some(true)), sample("2", Some(false)), sample("1", Some(true))];
        let mut results = vec![prompt("math", three); 30];
        results.extend(vec![prompt("math", vec![sample("1", Some(false)); 4]); 30]);
        let summary = summarise(&results, &Options::default(), |_, _| false);
        let gain = summary.vote_gain.unwrap();
        assert_eq!(gain.mean, 0.125);
        assert!(gain.low > 0.05, "{gain:?}");
        assert!(summary.majority.unwrap().low < summary.pass_at_1.unwrap().high, "side by side nothing shows");
    }

    #[test]
    fn prompts_weigh_the_same_however_many_samples_they_have() {
        let results =
            [prompt("math", vec![sample("1", Some(true)); 8]), prompt("logic", vec![sample("1", Some(false))])];
        assert_eq!(summarise(&results, &Options::default(), |_, _| false).pass_at_1.unwrap().mean, 0.5);
    }

    #[test]
    fn difficulties_fall_into_bands_with_both_ends() {
        assert_eq!(difficulty_band(Some(0.0), 4), "0.00–0.25");
        assert_eq!(difficulty_band(Some(1.0), 4), "0.75–1.00");
        assert_eq!(difficulty_band(Some(f64::NAN), 4), "unknown");
        assert_eq!(difficulty_band(None, 4), "unknown");
    }
}
