//! Learning curves: every numeric column of every table of metrics, one plot a metric.

use polars::prelude::{SortMultipleOptions, col};
use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use super::chart::{Chart, Line};
use crate::error::Result;
use crate::train::StepMetrics;

/// The plots of a run.
#[derive(Debug, Serialize)]
pub struct Curves {
    /// What one looks at first.
    main: Vec<Plot>,
    /// Everything else that was measured.
    more: Vec<Plot>,
}

/// One metric, a line for each stage (and run) that measured it.
#[derive(Debug, Serialize)]
struct Plot {
    title: String,
    /// The column's name.
    name: String,
    /// What it means, where the trainer says.
    meaning: Option<&'static str>,
    chart: Chart,
}

/// Gathers lines by metric.
#[derive(Debug, Default)]
pub struct Collector {
    /// In order of first appearance.
    metrics: Vec<(String, Vec<Line>)>,
}

/// What is shown first, in this order: the metric's names, the preferred one first, and its title.
/// A name that ends in `/` stands for a column of each rule.
const MAIN: &[(&[&str], &str)] = &[
    (&["held_out", "evaluation", "accuracy"], "Held-out accuracy"),
    (&["reward", "reward_mean"], "Reward"),
    (&["reward/"], "Reward"),
    (&["language_consistency"], "Language consistency"),
    (&["completion_tokens_mean", "completion_tokens"], "Completion length (tokens)"),
    (&["truncated"], "Completions cut at the limit"),
    (&["entropy"], "Entropy (nats)"),
    (&["kl_reference", "kl"], "KL to the reference"),
    (&["kl_old"], "KL to the sampling policy"),
    (&["loss"], "Loss"),
    (&["worst_group_loss"], "Loss of the worst group"),
    (&["pair_accuracy"], "Pairs ranked rightly"),
    (&["nll"], "Negative log-likelihood (nats a token)"),
    (&["grad_norm"], "Gradient norm"),
];

impl Collector {
    /// Adds the metrics of a run; `run` names it where there are several.
    pub fn add(&mut self, catalog: &Catalog, run: Option<&str>, notes: &mut Vec<String>) {
        for table in catalog.of_class(Class::Metrics) {
            if let Some(lines) = super::noted(read(table, run), notes) {
                for (name, line) in lines {
                    match self.metrics.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, lines)) => lines.push(line),
                        None => self.metrics.push((name, vec![line])),
                    }
                }
            }
        }
    }

    /// The plots; none if nothing was measured.
    ///
    /// # Errors
    /// A chart cannot be drawn.
    pub fn finish(mut self) -> Result<Option<Curves>> {
        let mut curves = Curves { main: Vec::new(), more: Vec::new() };
        for (names, title) in MAIN {
            let rules = names[0].ends_with('/').then_some(names[0]);
            let mut taken: Vec<(String, Vec<Line>)> = Vec::new();
            self.metrics.retain_mut(|(name, lines)| {
                let rule = rules.and_then(|prefix| name.strip_prefix(prefix));
                let wanted = rule.is_some() || (rules.is_none() && names.contains(&name.as_str()));
                if wanted {
                    taken.push((std::mem::take(name), std::mem::take(lines)));
                }
                !wanted
            });
            // A rule's plot is its own; the names of one metric share a plot, the preferred name's
            // values standing where a stage has both.
            if rules.is_none() && taken.len() > 1 {
                taken.sort_by_key(|(name, _)| names.iter().position(|known| known == name));
                let mut lines: Vec<Line> = Vec::new();
                let name = taken[0].0.clone();
                for line in taken.into_iter().flat_map(|(_, lines)| lines) {
                    if lines.iter().all(|known| known.label != line.label) {
                        lines.push(line);
                    }
                }
                taken = vec![(name, lines)];
            }
            for (name, lines) in taken {
                let title = match rules.and_then(|prefix| name.strip_prefix(prefix)) {
                    Some(rule) => format!("{title}: {rule}"),
                    None => (*title).to_owned(),
                };
                curves.main.extend(Plot::of(title, name, &lines)?);
            }
        }
        for (name, lines) in self.metrics {
            curves.more.extend(Plot::of(name.clone(), name, &lines)?);
        }
        Ok((!curves.main.is_empty() || !curves.more.is_empty()).then_some(curves))
    }
}

impl Plot {
    fn of(title: String, name: String, lines: &[Line]) -> Result<Option<Plot>> {
        let meaning = StepMetrics::COLUMNS.iter().find(|(column, _)| *column == name).map(|(_, doc)| doc.trim());
        Ok(Chart::of(lines)?.map(|chart| Plot { title, name, meaning, chart }))
    }
}

/// A line for each column of numbers; steps where it is null or not finite are skipped.
fn read(table: &Table, run: Option<&str>) -> Result<Vec<(String, Line)>> {
    let columns: Vec<&str> = table.numbers().filter(|name| *name != "step").collect();
    let wanted: Vec<_> = std::iter::once("step").chain(columns.iter().copied()).map(col).collect();
    // A stage that was killed after a step and resumed may have written the step twice.
    let order = SortMultipleOptions::default().with_maintain_order(true);
    let frame = table.query(|frame| frame.select(wanted).sort(["step"], order))?;
    let steps = frame.floats("step");
    let label = [run.unwrap_or_default(), table.stage.as_str()];
    let label = label.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
    let line = |name: &str| {
        let values = frame.floats(name);
        let points = steps.iter().zip(values).filter_map(|(step, value)| Some(((*step)?, value?)));
        Line { label: label.clone(), points: points.collect() }
    };
    Ok(columns.into_iter().map(|name| (name.to_owned(), line(name))).filter(|(_, l)| !l.points.is_empty()).collect())
}
