//! What each rule said: means, outcomes, and the reasons behind what was not accepted.

use std::collections::BTreeMap;

use polars::prelude::{DataType, ExplodeOptions, Expr, LazyFrame, col, cols, len};
use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use crate::error::Result;
use crate::schema::Outcome;

/// The rules of one stage.
#[derive(Debug, Serialize)]
pub struct Verdicts {
    stage: String,
    rules: Vec<RuleLine>,
}

#[derive(Debug, Serialize)]
struct RuleLine {
    rule: String,
    verdicts: u64,
    /// Over the verdicts that have a score.
    mean: Option<f64>,
    std: Option<f64>,
    correct: u64,
    wrong: u64,
    cannot_tell: u64,
    /// (reason, n) of verdicts that are not `correct`, most first.
    reasons: Vec<(String, u64)>,
}

/// Reasons listed for a rule.
const REASONS: usize = 4;

/// The rules of every dataset of verdicts, and of rollouts that training stages judged. Groups
/// that only repeat verdicts of the run are left out.
pub fn collect(catalog: &Catalog, notes: &mut Vec<String>) -> Vec<Verdicts> {
    let mut tables: Vec<&Table> = catalog.of_class(Class::Verdicts).collect();
    if tables.is_empty() {
        tables.extend(catalog.of_class(Class::Groups).find(|table| table.kind == "group"));
    }
    tables.extend(catalog.rollouts());
    let read = |table: &&Table| table.has("scores").then(|| super::noted(read(table), notes)).flatten();
    let mut all = Vec::new();
    all.extend(tables.iter().filter_map(read).filter(|verdicts| !verdicts.rules.is_empty()));
    all
}

/// One row a rule's verdict, with the fields of its struct as columns.
pub fn exploded(frame: LazyFrame, beside: &[&str]) -> LazyFrame {
    let wanted: Vec<Expr> = beside.iter().copied().chain(["scores"]).map(col).collect();
    let scores = || cols(["scores"]);
    let options = ExplodeOptions { empty_as_null: true, keep_nulls: true };
    frame.select(wanted).explode(scores(), options).unnest(scores(), None).filter(col("rule").is_not_null())
}

/// What one rule came to.
#[derive(Default)]
struct Sums {
    verdicts: u64,
    /// Verdicts with a score, their mean, and the sum of squared distances from it.
    scored: f64,
    mean: f64,
    squares: f64,
    outcomes: [u64; 3],
    reasons: BTreeMap<String, u64>,
}

impl Sums {
    /// Adds scores by their number, mean and population variance (Chan et al. 1979).
    fn add_scores(&mut self, n: f64, mean: f64, variance: f64) {
        let (total, apart) = (self.scored + n, mean - self.mean);
        self.squares += variance * n + apart * apart * self.scored * n / total;
        self.mean += apart * n / total;
        self.scored = total;
    }

    fn line(self, rule: String) -> RuleLine {
        let known = self.scored > 0.0;
        let mut reasons: Vec<(String, u64)> = self.reasons.into_iter().collect();
        // Most first; of equals the first by name.
        reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        reasons.truncate(REASONS);
        let [correct, wrong, cannot_tell] = self.outcomes;
        RuleLine {
            rule,
            verdicts: self.verdicts,
            mean: known.then_some(self.mean),
            std: known.then(|| (self.squares / self.scored).sqrt()),
            correct,
            wrong,
            cannot_tell,
            reasons,
        }
    }
}

/// Verdicts hold their evidence, so a part of the table is read at a time.
fn read(table: &Table) -> Result<Verdicts> {
    let score = || col("score").cast(DataType::Float64);
    let sums = table.query_by_parts(&["scores"], |frame, _| {
        exploded(frame, &[]).group_by_stable([col("rule"), col("reason"), col("outcome")]).agg([
            len().alias("verdicts"),
            score().count().alias("scored"),
            score().mean().alias("mean"),
            score().var(0).alias("variance"),
        ])
    })?;
    let (names, reasons, outcomes) = (sums.texts("rule"), sums.texts("reason"), sums.texts("outcome"));
    let [verdicts, scored] = ["verdicts", "scored"].map(|name| sums.counts(name));
    let [means, variances] = ["mean", "variance"].map(|name| sums.floats(name));
    // In the order in which they come first.
    let mut rules: Vec<(String, Sums)> = Vec::new();
    for row in 0..sums.height() {
        let name = names[row].clone().unwrap_or_default();
        let at = rules.iter().position(|(rule, _)| *rule == name).unwrap_or_else(|| {
            rules.push((name, Sums::default()));
            rules.len() - 1
        });
        let (n, rule) = (verdicts[row].unwrap_or(0), &mut rules[at].1);
        rule.verdicts += n;
        if let (Some(scored), Some(mean), Some(variance)) = (scored[row], means[row], variances[row]) {
            rule.add_scores(scored as f64, mean, variance);
        }
        let outcome = outcomes[row].as_deref().and_then(Outcome::parse);
        if let Some(outcome) = outcome {
            rule.outcomes[outcome as usize] += n;
        }
        if outcome != Some(Outcome::Correct) {
            *rule.reasons.entry(reasons[row].clone().unwrap_or_default()).or_default() += n;
        }
    }
    let rules = rules.into_iter().map(|(name, sums)| sums.line(name)).collect();
    Ok(Verdicts { stage: table.stage.clone(), rules })
}
