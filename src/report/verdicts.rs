//! What each rule said: means, outcomes, and the reasons behind what was not accepted.

use polars::prelude::{DataType, ExplodeOptions, Expr, LazyFrame, SortMultipleOptions, col, cols, len, lit};
use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use crate::error::Result;

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

fn read(table: &Table) -> Result<Verdicts> {
    let outcome = |word: &str| col("outcome").eq(lit(word)).cast(DataType::UInt64).sum().alias(word);
    let rules = table.query(|frame| {
        exploded(frame, &[]).group_by_stable([col("rule")]).agg([
            len().alias("verdicts"),
            col("score").mean().alias("mean"),
            col("score").std(0).alias("std"),
            outcome("correct"),
            outcome("wrong"),
            outcome("cannot_tell"),
        ])
    })?;
    let most_first = SortMultipleOptions::default().with_order_descending_multi([true, false, false]);
    let reasons = table.query(|frame| {
        exploded(frame, &[])
            .filter(col("outcome").neq(lit("correct")))
            .group_by([col("rule"), col("reason")])
            .agg([len().alias("n")])
            .sort(["n", "rule", "reason"], most_first)
    })?;
    let of_rule: Vec<_> =
        reasons.texts("rule").into_iter().zip(reasons.texts("reason")).zip(reasons.counts("n")).collect();
    let names = rules.texts("rule");
    let [means, stds] = ["mean", "std"].map(|name| rules.floats(name));
    let [verdicts, correct, wrong, cannot_tell] =
        ["verdicts", "correct", "wrong", "cannot_tell"].map(|name| rules.counts(name));
    let line = |(i, name): (usize, &Option<String>)| RuleLine {
        rule: name.clone().unwrap_or_default(),
        verdicts: verdicts[i].unwrap_or(0),
        mean: means[i],
        std: stds[i],
        correct: correct[i].unwrap_or(0),
        wrong: wrong[i].unwrap_or(0),
        cannot_tell: cannot_tell[i].unwrap_or(0),
        reasons: of_rule
            .iter()
            .filter(|((rule, _), _)| rule == name)
            .take(REASONS)
            .map(|((_, reason), n)| (reason.clone().unwrap_or_default(), n.unwrap_or(0)))
            .collect(),
    };
    Ok(Verdicts { stage: table.stage.clone(), rules: names.iter().enumerate().map(line).collect() })
}
