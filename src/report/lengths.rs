//! How long completions are, by outcome: cut chains of thought show here before they show in a reward.

use polars::prelude::{DataType, Expr, LazyFrame, QuantileMethod, SortMultipleOptions, col, len, lit};
use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use super::chart::{Chart, Line};
use crate::error::Result;

/// Lengths of one stage's completions.
#[derive(Debug, Serialize)]
pub struct Lengths {
    stage: String,
    unit: &'static str,
    lines: Vec<LengthLine>,
    /// How many completions are how long, by outcome.
    chart: Option<Chart>,
}

#[derive(Debug, Serialize)]
struct LengthLine {
    outcome: String,
    completions: u64,
    mean: Option<f64>,
    p10: Option<f64>,
    median: Option<f64>,
    p90: Option<f64>,
    max: Option<f64>,
}

/// Bars of the distribution.
const BINS: f64 = 30.0;

/// Lengths of the scored completions of each stage that has some; of plain completions if
/// nothing scored them.
///
/// # Errors
/// A chart cannot be drawn.
pub fn collect(catalog: &Catalog, notes: &mut Vec<String>) -> Result<Vec<Lengths>> {
    let mut tables: Vec<&Table> = catalog.of_class(Class::Groups).filter(|table| table.kind == "group").collect();
    tables.extend(catalog.rollouts());
    if tables.is_empty() {
        tables.extend(catalog.of_class(Class::Completions));
    }
    let mut all = Vec::new();
    for table in tables {
        if let Some(Some(lengths)) = super::noted(read(table), notes) {
            all.push(lengths);
        }
    }
    Ok(all)
}

fn read(table: &Table) -> Result<Option<Lengths>> {
    let tokens = col("completion_tokens").cast(DataType::Float64);
    let characters = || col("text").str().len_chars().cast(DataType::Float64);
    // Engines may not tell tokens; mixing the two units would be worse than the coarser one.
    let has_tokens = table.has("completion_tokens") && {
        let known = table.query(|frame| frame.select([tokens.clone().count().alias("n")]))?;
        known.counts("n") != [Some(0)]
    };
    let (length, unit) = match has_tokens {
        true => (tokens, "tokens"),
        false if table.has("text") => (characters(), "characters"),
        false => return Ok(None),
    };
    let outcome = if table.has("outcome") { "outcome" } else { "finish_reason" };
    // Texts are read a part at a time; a number and a word of each completion are kept.
    let of = if has_tokens { "completion_tokens" } else { "text" };
    let rows = table.query_by_parts(&[of, outcome], |frame, _| {
        frame
            .select([length.clone().alias("length"), col(outcome).alias("outcome")])
            .filter(col("length").is_not_null())
    })?;
    let query = |query: &dyn Fn(LazyFrame) -> LazyFrame| table.of_rows(&rows, query);
    let quantile = |q: f64, name: &str| col("length").quantile(lit(q), QuantileMethod::Nearest).alias(name);
    let figures = || -> Vec<Expr> {
        vec![
            len().alias("completions"),
            col("length").mean().alias("mean"),
            quantile(0.1, "p10"),
            quantile(0.5, "median"),
            quantile(0.9, "p90"),
            col("length").max().alias("max"),
        ]
    };
    let whole = query(&|rows| rows.select(figures()))?;
    let Some(longest) = whole.floats("max").first().copied().flatten() else { return Ok(None) };
    let by_outcome = query(&|rows| {
        rows.group_by([col("outcome")]).agg(figures()).sort(["outcome"], SortMultipleOptions::default())
    })?;
    let mut lines = Vec::new();
    for frame in [&whole, &by_outcome] {
        let outcomes = frame.texts("outcome");
        let completions = frame.counts("completions");
        let columns = ["mean", "p10", "median", "p90", "max"].map(|name| frame.floats(name));
        lines.extend(outcomes.into_iter().enumerate().map(|(i, outcome)| {
            let [mean, p10, median, p90, max] = columns.each_ref().map(|column| column[i]);
            let outcome = outcome.unwrap_or_else(|| "all".to_owned());
            LengthLine { outcome, completions: completions[i].unwrap_or(0), mean, p10, median, p90, max }
        }));
    }
    let width = (longest / BINS).ceil().max(1.0);
    let bins = query(&|rows| {
        let bin = (col("length") / lit(width)).cast(DataType::Int64).alias("bin");
        rows.group_by([col("outcome"), bin])
            .agg([len().alias("n")])
            .sort(["outcome", "bin"], SortMultipleOptions::default())
    })?;
    let chart = Chart::of(&distribution(&bins, width))?;
    Ok(Some(Lengths { stage: table.stage.clone(), unit, lines, chart }))
}

/// A line for each outcome through the middles of all bins, empty ones included.
fn distribution(bins: &polars::prelude::DataFrame, width: f64) -> Vec<Line> {
    let rows = bins.texts("outcome").into_iter().zip(bins.floats("bin")).zip(bins.floats("n"));
    let last = bins.floats("bin").into_iter().flatten().fold(0.0, f64::max) as usize;
    let mut lines: Vec<Line> = Vec::new();
    for ((outcome, bin), n) in rows {
        let (Some(bin), Some(n)) = (bin, n) else { continue };
        let label = outcome.unwrap_or_else(|| "all".to_owned());
        if lines.last().is_none_or(|line| line.label != label) {
            let points = (0..=last).map(|bin| ((bin as f64 + 0.5) * width, 0.0)).collect();
            lines.push(Line { label, points });
        }
        let line = lines.last_mut().expect("one was just made if there was none");
        line.points[bin as usize].1 = n;
    }
    lines
}
