//! The funnel: what came into each stage, what left it, and what was dropped, by reason and domain.

use std::collections::{BTreeMap, BTreeSet};

use polars::prelude::{
    DataType, JoinArgs, JoinType, LazyFrame, SortMultipleOptions, UnionArgs, UniqueKeepStrategy, col, cols, concat,
    len, lit,
};
use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use super::run::{Run, StageFolder};
use crate::error::{Error, Result};

/// From prompts to corpus rows.
#[derive(Debug, Serialize)]
pub struct Funnel {
    steps: Vec<Step>,
    domains: Option<Domains>,
    pass_rates: Vec<PassRates>,
}

/// One stage of the data plane.
#[derive(Debug, Serialize)]
struct Step {
    stage: String,
    kind: String,
    rows: u64,
    /// What the rows are.
    unit: &'static str,
    /// Of the widest step, in percent.
    width: f64,
    /// Other counts of the manifest: (what, n).
    counts: Vec<(String, u64)>,
    /// Rows dropped: (reason, n), most first.
    drops: Vec<(String, u64)>,
    dropped: u64,
}

/// Rows by domain (lines) and stage (columns).
#[derive(Debug, Serialize)]
struct Domains {
    stages: Vec<String>,
    lines: Vec<(String, Vec<u64>)>,
}

/// How many groups have which pass rate, before and after a selection.
#[derive(Debug, Serialize)]
struct PassRates {
    stage: String,
    bins: Vec<Bin>,
}

#[derive(Debug, Serialize)]
struct Bin {
    from: f64,
    to: f64,
    before: u64,
    after: u64,
    /// Of the fullest bin before the selection, in percent.
    before_width: f64,
    after_width: f64,
}

/// Stages of the funnel and what their rows are.
const UNITS: [(&str, &str); 8] = [
    ("prompts", "prompts"),
    ("generate", "completions"),
    ("verify", "verdicts"),
    ("group", "completions in groups"),
    ("select", "completions kept"),
    ("corpus", "corpus rows"),
    ("preferences", "preference pairs"),
    ("export", "rows written"),
];

/// The funnel of the finished stages; none if there are none of the data plane.
pub fn collect(run: &Run, catalog: &Catalog, notes: &mut Vec<String>) -> Option<Funnel> {
    let mut steps: Vec<Step> = run.stages.iter().filter_map(step).collect();
    let widest = steps.iter().map(|step| step.rows).max()?.max(1);
    for step in &mut steps {
        step.width = 100.0 * step.rows as f64 / widest as f64;
    }
    let domains = super::noted(domains(catalog), notes).flatten();
    Some(Funnel { steps, domains, pass_rates: run.stages.iter().filter_map(pass_rates).collect() })
}

fn step(stage: &StageFolder) -> Option<Step> {
    let manifest = stage.manifest.as_ref()?;
    let (_, unit) = UNITS.into_iter().find(|(kind, _)| *kind == manifest.kind)?;
    let mut drops: Vec<(String, u64)> = manifest.drops.clone().into_iter().collect();
    drops.sort_by(|(a, n), (b, m)| (m, a).cmp(&(n, b)));
    // What repeats the number of rows says nothing.
    let tells =
        |(what, n): &(&String, &u64)| **n > 0 && !(**n == manifest.rows && ["kept", "rows"].contains(&what.as_str()));
    Some(Step {
        stage: manifest.stage.clone(),
        kind: manifest.kind.clone(),
        rows: manifest.rows,
        unit,
        width: 0.0,
        counts: manifest.counts.iter().filter(tells).map(|(what, n)| (what.clone(), *n)).collect(),
        dropped: drops.iter().map(|(_, n)| n).sum(),
        drops,
    })
}

/// What `select` noted of its groups' pass rates.
fn pass_rates(stage: &StageFolder) -> Option<PassRates> {
    let manifest = stage.manifest.as_ref()?;
    let side = |side: &str| -> Option<Vec<u64>> {
        let bins = manifest.facts.get(&format!("groups_by_pass_rate_{side}"))?.as_array()?;
        Some(bins.iter().map(|bin| bin.as_u64().unwrap_or(0)).collect())
    };
    let (before, after) = (side("before")?, side("after")?);
    let fullest = before.iter().chain(&after).copied().max()?.max(1) as f64;
    let width = |n: u64| 100.0 * n as f64 / fullest;
    let n = before.len().max(1) as f64;
    let bins = before.iter().zip(&after).enumerate().map(|(i, (&before, &after))| Bin {
        from: i as f64 / n,
        to: (i + 1) as f64 / n,
        before,
        after,
        before_width: width(before),
        after_width: width(after),
    });
    Some(PassRates { stage: manifest.stage.clone(), bins: bins.collect() })
}

/// Rows by domain. Datasets that do not carry a domain get it from the run's prompts.
fn domains(catalog: &Catalog) -> Result<Option<Domains>> {
    let prompts: Vec<&Table> = catalog.of_class(Class::Prompts).filter(|table| table.has("domain")).collect();
    // Rollouts of training stages are many times the prompts, and texts have kinds and no domains.
    let stages_of = ["prompts", "generate", "group", "select", "corpus"];
    let classes = [Class::Prompts, Class::Completions, Class::Groups, Class::Corpus];
    let mut stages: Vec<String> = Vec::new();
    let mut cells: Vec<BTreeMap<String, u64>> = Vec::new();
    let counted = |table: &&Table| classes.contains(&table.class) && stages_of.contains(&table.kind.as_str());
    let known = match prompts.is_empty() {
        true => None,
        false => {
            let known = prompts.iter().map(|table| Ok(table.scan()?.select([col("prompt_id"), col("domain")])));
            let known = concat(known.collect::<Result<Vec<LazyFrame>>>()?, UnionArgs::default())
                .map_err(|e| Error::new("the run's prompts do not fit together").caused_by(e))?;
            Some(known.unique(Some(cols(["prompt_id"])), UniqueKeepStrategy::Any))
        }
    };
    for table in catalog.tables.iter().filter(counted) {
        let of = if table.has("domain") { "domain" } else { "prompt_id" };
        if of == "prompt_id" && prompts.is_empty() {
            continue;
        }
        let counted = |frame: LazyFrame| frame.group_by([col(of)]).agg([len().alias("rows")]);
        let parts = table.query_by_parts(&[of], |frame, _| counted(frame))?;
        let frame = table.of_rows(&parts, |rows| {
            let rows = match &known {
                Some(known) if of == "prompt_id" => {
                    rows.join(known.clone(), [col(of)], [col(of)], JoinArgs::new(JoinType::Left))
                }
                _ => rows,
            };
            rows.select([col("domain").fill_null(lit("unknown")), col("rows").cast(DataType::UInt64)])
                .group_by([col("domain")])
                .agg([col("rows").sum()])
                .sort(["domain"], SortMultipleOptions::default())
        })?;
        let at = stages.iter().position(|stage| *stage == table.stage).unwrap_or_else(|| {
            stages.push(table.stage.clone());
            cells.push(BTreeMap::new());
            stages.len() - 1
        });
        for (domain, rows) in frame.texts("domain").into_iter().zip(frame.counts("rows")) {
            *cells[at].entry(domain.unwrap_or_default()).or_default() += rows.unwrap_or(0);
        }
    }
    let names: BTreeSet<&String> = cells.iter().flat_map(BTreeMap::keys).collect();
    let line = |name: &String| cells.iter().map(|cells| cells.get(name).copied().unwrap_or(0)).collect();
    let lines: Vec<(String, Vec<u64>)> = names.into_iter().map(|name| (name.clone(), line(name))).collect();
    Ok((!lines.is_empty()).then_some(Domains { stages, lines }))
}
