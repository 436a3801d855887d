//! From judged samples to the rows of the table.

use std::collections::BTreeMap;

use super::EvalTable;
use super::samples::Benchmark;
use super::table::EvalRow;
use crate::eval::{Options, PromptResult, SampleResult, counts, summarise};
use crate::rule::file::RuleSet;
use crate::rule::math::{Equivalence, MathConfig, equivalent};
use crate::schema::{FinishReason, Outcome, Score};
use crate::stage::judged::sample_result;

/// What the figures need of one sample.
pub(super) struct Brief {
    /// `None` if its request failed.
    pub result: Option<SampleResult>,
    scores: Vec<(String, Option<f64>)>,
    tokens: Option<u32>,
}

impl Brief {
    /// Of a sample's columns in a groups dataset.
    pub fn of(outcome: Outcome, scores: &[Score], finish_reason: FinishReason, tokens: Option<u32>) -> Self {
        Brief {
            result: sample_result(outcome, scores, finish_reason),
            scores: scores.iter().map(|s| (s.rule.clone(), s.score)).collect(),
            tokens,
        }
    }
}

/// The judged samples of one model.
pub(super) struct Judged {
    /// Of each prompt, in the order of samples.
    pub samples: Vec<Vec<Brief>>,
    /// Samples of each prompt; where prompts have different numbers, the most.
    pub each: u64,
    /// The rules whose mean scores are told, by name.
    pub rules: Vec<String>,
}

impl Judged {
    /// Samples whose request failed.
    pub fn failed(&self) -> u64 {
        self.samples.iter().flatten().filter(|sample| sample.result.is_none()).count() as u64
    }

    /// Lines for people about prompts with too few samples that are correct or wrong for one of the `ks`: those are not in
    /// its figure.
    pub fn too_few(&self, ks: &[u64]) -> Vec<String> {
        let decided = |samples: &Vec<Brief>| counts(samples.iter().filter_map(|sample| sample.result.as_ref())).0;
        let decided: Vec<u64> = self.samples.iter().map(decided).filter(|&n| n > 0).collect();
        let line = |k: &u64| {
            let few = decided.iter().filter(|n| *n < k).count();
            let of = decided.len();
            (few > 0).then(|| format!("pass@{k}: {few} of {of} prompts have fewer judged samples and are not in it"))
        };
        ks.iter().filter_map(line).collect()
    }
}

/// The whole first, then each slice.
pub(super) fn rows(
    name: &str,
    benchmark: &Benchmark<'_>,
    table: &EvalTable,
    seed: u64,
    judged: &Judged,
) -> Vec<EvalRow> {
    let (prompts, rules) = (benchmark.prompts, benchmark.rules);
    let Judged { samples: judged, each, rules: scored } = judged;
    let mut slices: Vec<(String, Vec<usize>)> = vec![("all".to_owned(), (0..prompts.len()).collect())];
    for slice in &table.slices {
        let mut found = BTreeMap::<String, Vec<usize>>::new();
        for (index, prompt) in prompts.iter().enumerate() {
            found.entry(slice.of(prompt)).or_default().push(index);
        }
        slices.extend(found.into_iter().filter(|(_, members)| members.len() < prompts.len()));
    }
    let options = Options { ks: table.ks.clone(), seed, ..Options::default() };
    let math = math_config(rules);
    let equal = |a: &str, b: &str| equivalent(a, b, &math) == Equivalence::Equal;
    let results: Vec<PromptResult> = prompts
        .iter()
        .zip(judged)
        .map(|(prompt, samples)| PromptResult {
            domain: prompt.domain.clone(),
            samples: samples.iter().filter_map(|s| s.result.clone()).collect(),
        })
        .collect();
    let rows = slices.into_iter().map(|(slice, members)| {
        let summary = summarise(members.iter().map(|&i| &results[i]), &options, equal);
        let samples = || members.iter().flat_map(|&i| &judged[i]);
        let scores = scored.iter().map(|rule| {
            let scores: Vec<f64> = samples().filter_map(|s| s.scores.iter().find(|(r, _)| r == rule)?.1).collect();
            (rule.clone(), mean(&scores))
        });
        let failed = samples().filter(|s| s.result.is_none()).count();
        let tokens: Vec<f64> = samples().filter_map(|s| s.tokens.map(f64::from)).collect();
        EvalRow {
            model: name.to_owned(),
            slice,
            prompts: summary.prompts,
            samples: *each,
            pass_at_1: summary.pass_at_1.map(|i| i.mean),
            pass_at_1_low: summary.pass_at_1.map(|i| i.low),
            pass_at_1_high: summary.pass_at_1.map(|i| i.high),
            pass_at_k: summary.pass_at_k.iter().map(|(k, _, i)| (*k, i.map(|i| i.mean))).collect(),
            majority: summary.majority.map(|i| i.mean),
            majority_low: summary.majority.map(|i| i.low),
            majority_high: summary.majority.map(|i| i.high),
            vote_gain: summary.vote_gain.map(|i| i.mean),
            vote_gain_low: summary.vote_gain.map(|i| i.low),
            vote_gain_high: summary.vote_gain.map(|i| i.high),
            without_vote: summary.without_vote as f64 / summary.prompts.max(1) as f64,
            truncated: summary.truncated as f64 / summary.samples.max(1) as f64,
            undecided: summary.undecided as f64 / summary.samples.max(1) as f64,
            failed: failed as f64 / samples().count().max(1) as f64,
            mean_tokens: mean(&tokens),
            scores: scores.collect(),
        }
    });
    rows.collect()
}

/// How the rule file reads answers: the settings of its first math rule.
fn math_config(rules: &RuleSet) -> MathConfig {
    let Some((name, _)) = rules.rules().find(|(_, kind)| *kind == "math") else { return MathConfig::default() };
    let read = || -> Option<MathConfig> {
        let file: toml::Table = rules.resolved().parse().ok()?;
        let mut settings = file.get("rules")?.get(name)?.as_table()?.clone();
        // What every kind of rule may have is none of its own settings.
        settings.retain(|key, _| !["kind", "domains", "languages", "fallback_for"].contains(&key));
        settings.try_into().ok()
    };
    read().expect("the rule file's settings were read when it was loaded")
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_with_too_few_judged_samples_for_a_k_are_told() {
        let brief = |outcome| Brief::of(outcome, &[], FinishReason::Stop, None);
        let failed = || Brief::of(Outcome::CannotTell, &[], FinishReason::Error, None);
        let judged = Judged {
            samples: vec![
                vec![brief(Outcome::Correct), brief(Outcome::Wrong), brief(Outcome::Wrong)],
                vec![brief(Outcome::Wrong), brief(Outcome::Correct), brief(Outcome::CannotTell), failed()],
                vec![brief(Outcome::CannotTell)],
            ],
            each: 4,
            rules: Vec::new(),
        };
        assert_eq!(judged.failed(), 1);
        assert_eq!(judged.too_few(&[2]), [""; 0]);
        assert_eq!(judged.too_few(&[2, 3]), ["pass@3: 1 of 2 prompts have fewer judged samples and are not in it"]);
    }

    #[test]
    fn votes_compare_answers_as_the_rule_file_does() {
        let file = "reward = \"sum\"\n[rules.form]\nkind = \"format\"\nstyle = \"think_answer\"\n\
                    [rules.sum]\nkind = \"math\"\ndomains = [\"math\"]\nstrict_units = true\ntolerance = { absolute = 0.5 }\n";
        let config = math_config(&RuleSet::parse(file, "test").unwrap());
        let equal = |a, b| equivalent(a, b, &config) == Equivalence::Equal;
        assert!(equal("7", "7.4") && !equal("7", "7.6"));
        let plain = "reward = \"form\"\n[rules.form]\nkind = \"format\"\nstyle = \"think_answer\"\n";
        assert_eq!(math_config(&RuleSet::parse(plain, "test").unwrap()), MathConfig::default());
    }
}
