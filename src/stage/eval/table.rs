//! `evals.parquet`: a row for each model and slice; and the figures that claims refer to.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use serde::{Deserialize, Serialize};

use super::slice::SOURCE;
use crate::error::Result;
use crate::stage::training::write_table;

/// The figures of one model on one slice of the prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    pub model: String,
    /// `all`, or `domain=…`, `language=…`, `difficulty=…`, `source=…`.
    pub slice: String,
    pub prompts: u64,
    /// Samples of each prompt; of groups of different sizes, the most.
    pub samples: u64,
    /// Mean over prompts of the share of correct samples, with its 95% bootstrap interval.
    pub pass_at_1: Option<f64>,
    pub pass_at_1_low: Option<f64>,
    pub pass_at_1_high: Option<f64>,
    /// (k, unbiased pass@k).
    pub pass_at_k: Vec<(u64, Option<f64>)>,
    /// Share of prompts whose majority answer is correct (cons@k, k = `samples`).
    pub majority: Option<f64>,
    pub majority_low: Option<f64>,
    pub majority_high: Option<f64>,
    /// By how much the vote beats one sample, prompt by prompt, with the interval of the pairs.
    pub vote_gain: Option<f64>,
    pub vote_gain_low: Option<f64>,
    pub vote_gain_high: Option<f64>,
    /// Share of prompts that are in no vote, since the rules find no answer in what they judge correct.
    pub without_vote: f64,
    /// Shares of the answered samples: cut at the token limit; not to be judged by the rules.
    pub truncated: f64,
    pub undecided: f64,
    /// Share of samples whose request failed: they are in no other figure.
    pub failed: f64,
    pub mean_tokens: Option<f64>,
    /// Each rule's mean score.
    pub scores: Vec<(String, Option<f64>)>,
}

impl EvalRow {
    /// The chief figures as one line for people.
    pub fn describe(&self) -> String {
        let figure = |value: Option<f64>| value.map_or_else(|| "not known".to_owned(), |value| format!("{value:.3}"));
        let majority = format!("majority of {} {}", self.samples, figure(self.majority));
        let mut line = format!("pass@1 {}, {majority}", figure(self.pass_at_1));
        if self.undecided > 0.0 {
            line += &format!("; the rules could not tell of {:.1}% of the samples", 100.0 * self.undecided);
        }
        line
    }
}

/// Writes the table into the stage's folder.
///
/// # Errors
/// The disk refuses.
pub fn write(folder: &Path, rows: &[EvalRow]) -> Result<()> {
    let text = |of: fn(&EvalRow) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let count = |of: fn(&EvalRow) -> u64| Arc::new(UInt64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
    let number = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let each = |of: fn(&EvalRow) -> Option<f64>| number(rows.iter().map(of).collect());
    let mut columns = vec![
        ("model".to_owned(), text(|r| &r.model)),
        ("slice".to_owned(), text(|r| &r.slice)),
        ("prompts".to_owned(), count(|r| r.prompts)),
        ("samples".to_owned(), count(|r| r.samples)),
        ("pass_at_1".to_owned(), each(|r| r.pass_at_1)),
        ("pass_at_1_low".to_owned(), each(|r| r.pass_at_1_low)),
        ("pass_at_1_high".to_owned(), each(|r| r.pass_at_1_high)),
    ];
    for (index, (k, _)) in rows.first().map_or(&[][..], |r| &r.pass_at_k).iter().enumerate() {
        columns.push((format!("pass_at_{k}"), number(rows.iter().map(|r| r.pass_at_k[index].1).collect())));
    }
    columns.extend([
        ("cons_at_k".to_owned(), each(|r| r.majority)),
        ("cons_at_k_low".to_owned(), each(|r| r.majority_low)),
        ("cons_at_k_high".to_owned(), each(|r| r.majority_high)),
        ("vote_gain".to_owned(), each(|r| r.vote_gain)),
        ("vote_gain_low".to_owned(), each(|r| r.vote_gain_low)),
        ("vote_gain_high".to_owned(), each(|r| r.vote_gain_high)),
        ("without_vote".to_owned(), each(|r| Some(r.without_vote))),
        ("truncated".to_owned(), each(|r| Some(r.truncated))),
        ("undecided".to_owned(), each(|r| Some(r.undecided))),
        ("failed".to_owned(), each(|r| Some(r.failed))),
        ("mean_tokens".to_owned(), each(|r| r.mean_tokens)),
    ]);
    // Groups that were judged by other rules have other scores.
    let mut rules: Vec<&str> = Vec::new();
    for (rule, _) in rows.iter().flat_map(|row| &row.scores) {
        if !rules.contains(&rule.as_str()) {
            rules.push(rule);
        }
    }
    for rule in rules {
        let of = |row: &EvalRow| row.scores.iter().find(|(known, _)| known == rule)?.1;
        columns.push((format!("score/{rule}"), number(rows.iter().map(of).collect())));
    }
    write_table(&folder.join("evals.parquet"), columns)
}

/// The table that the stage ends with, line by line: each model on all prompts, and by source where that is asked for.
pub fn told(rows: &[EvalRow]) -> Vec<String> {
    let rows: Vec<&EvalRow> = rows.iter().filter(|r| r.slice == "all" || r.slice.starts_with(SOURCE)).collect();
    let percent = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{:.1}%", 100.0 * value));
    let interval = |row: &EvalRow| match (row.pass_at_1_low, row.pass_at_1_high) {
        (Some(low), Some(high)) => format!("{:.1} to {:.1}%", 100.0 * low, 100.0 * high),
        _ => "–".to_owned(),
    };
    let name = |row: &EvalRow| match row.slice.as_str() {
        "all" => row.model.clone(),
        slice => format!("{}, {slice}", row.model),
    };
    let column = |heading: String, cell: &dyn Fn(&EvalRow) -> String| -> Vec<String> {
        std::iter::once(heading).chain(rows.iter().map(|row| cell(row))).collect()
    };
    let samples: HashSet<u64> = rows.iter().map(|row| row.samples).collect();
    let votes = match samples.iter().next() {
        Some(k) if samples.len() == 1 => format!("cons@{k}"),
        _ => "cons@k".to_owned(),
    };
    let mut columns = vec![
        column("model".to_owned(), &name),
        column("prompts".to_owned(), &|row| row.prompts.to_string()),
        column("pass@1".to_owned(), &|row| percent(row.pass_at_1)),
        column("95% interval".to_owned(), &interval),
    ];
    for (at, (k, _)) in rows.first().map_or(&[][..], |row| &row.pass_at_k).iter().enumerate() {
        columns.push(column(format!("pass@{k}"), &|row| percent(row.pass_at_k[at].1)));
    }
    columns.push(column(votes, &|row| percent(row.majority)));
    columns.push(column("truncated".to_owned(), &|row| percent(Some(row.truncated))));
    if rows.iter().any(|row| row.undecided > 0.0) {
        columns.push(column("undecided".to_owned(), &|row| percent(Some(row.undecided))));
    }
    if rows.iter().any(|row| row.failed > 0.0) {
        columns.push(column("failed".to_owned(), &|row| percent(Some(row.failed))));
    }
    let tokens = |row: &EvalRow| row.mean_tokens.map_or_else(|| "–".to_owned(), |tokens| format!("{tokens:.1}"));
    columns.push(column("mean tokens".to_owned(), &tokens));
    let line = |at: usize| {
        let mut line = String::new();
        for (index, cells) in columns.iter().enumerate() {
            let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            line += &match index {
                0 => format!("{:<width$}", cells[at]),
                _ => format!("  {:>width$}", cells[at]),
            };
        }
        line
    };
    (0..=rows.len()).map(line).collect()
}

/// Figures of the whole of each model: `MODEL.pass_at_1`, `MODEL.cons_at_k`, `MODEL.vote_gain_low`, `MODEL.RULE` …
pub fn figures(rows: &[EvalRow]) -> serde_json::Map<String, serde_json::Value> {
    let mut figures = serde_json::Map::new();
    for row in rows.iter().filter(|r| r.slice == "all") {
        let mut put = |name: &str, value: Option<f64>| {
            figures.extend(value.map(|value| (format!("{}.{name}", row.model), value.into())));
        };
        put("pass_at_1", row.pass_at_1);
        put("cons_at_k", row.majority);
        put("vote_gain", row.vote_gain);
        put("vote_gain_low", row.vote_gain_low);
        row.pass_at_k.iter().for_each(|(k, value)| put(&format!("pass_at_{k}"), *value));
        put("truncated", Some(row.truncated));
        put("mean_tokens", row.mean_tokens);
        row.scores.iter().for_each(|(rule, value)| put(rule, *value));
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pass_at_1: Option<f64>, undecided: f64) -> EvalRow {
        EvalRow {
            model: "m".into(),
            slice: "all".into(),
            prompts: 4,
            samples: 2,
            pass_at_1,
            pass_at_1_low: None,
            pass_at_1_high: None,
            pass_at_k: Vec::new(),
            majority: pass_at_1,
            majority_low: None,
            majority_high: None,
            vote_gain: None,
            vote_gain_low: None,
            vote_gain_high: None,
            truncated: 0.0,
            undecided,
            failed: 0.0,
            without_vote: 0.0,
            mean_tokens: None,
            scores: Vec::new(),
        }
    }

    #[test]
    fn the_stage_ends_with_a_table_of_models() {
        let r1 = EvalRow {
            model: "r1".into(),
            pass_at_1_low: Some(0.4),
            pass_at_1_high: Some(0.625),
            pass_at_k: vec![(2, Some(0.75))],
            truncated: 0.25,
            mean_tokens: Some(31.25),
            ..row(Some(0.5), 0.0)
        };
        let base = EvalRow { model: "base model".into(), pass_at_k: vec![(2, None)], ..row(None, 0.0) };
        let by_source = EvalRow { slice: "source=aime".into(), ..r1.clone() };
        let by_domain = EvalRow { slice: "domain=math".into(), ..r1.clone() };
        assert_eq!(
            told(&[r1, by_domain, by_source, base]),
            [
                "model            prompts  pass@1   95% interval  pass@2  cons@2  truncated  mean tokens",
                "r1                     4   50.0%  40.0 to 62.5%   75.0%   50.0%      25.0%         31.2",
                "r1, source=aime        4   50.0%  40.0 to 62.5%   75.0%   50.0%      25.0%         31.2",
                "base model             4       –              –       –       –       0.0%            –",
            ]
        );
        let other = EvalRow { samples: 4, failed: 0.5, ..row(Some(1.0), 0.125) };
        assert_eq!(
            told(&[row(Some(1.0), 0.0), other])[0],
            "model  prompts  pass@1  95% interval  cons@k  truncated  undecided  failed  mean tokens"
        );
    }

    #[test]
    fn a_figure_that_is_not_known_is_no_number_and_what_was_not_judged_is_told() {
        assert_eq!(row(Some(0.5), 0.0).describe(), "pass@1 0.500, majority of 2 0.500");
        let most = row(Some(0.0), 0.996).describe();
        assert_eq!(most, "pass@1 0.000, majority of 2 0.000; the rules could not tell of 99.6% of the samples");
        assert!(row(None, 1.0).describe().starts_with("pass@1 not known, majority of 2 not known; "));
    }
}
