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
    /// Measurements that never changed, with their value: no plots.
    constant: Vec<(String, f64)>,
}

/// One metric, a line for each stage of a kind (and run) that measured it.
#[derive(Debug, Serialize)]
struct Plot {
    title: String,
    /// What it means, where the trainer says.
    meaning: Option<&'static str>,
    chart: Chart,
}

/// Gathers lines by metric.
#[derive(Debug, Default)]
pub struct Collector {
    /// In order of first appearance.
    metrics: Vec<(String, Vec<Curve>)>,
}

/// What one stage measured of a metric.
#[derive(Debug)]
struct Curve {
    /// Stages of different kinds measure on different scales, so each kind has its own plot.
    kind: String,
    line: Line,
}

/// What is shown first, in this order: the metric's names, the preferred one first, and its title.
/// A name that ends in `/` stands for a column of each rule.
const MAIN: &[(&[&str], &str)] = &[
    (&["held_out", "evaluation", "accuracy"], "Held-out accuracy"),
    (&["reward", "reward_mean"], "Reward"),
    (&["reward/"], "Reward"),
    (&["language_consistency"], "Language consistency"),
    (&["completion_tokens_mean", "completion_tokens"], "Completion length (tokens)"),
    (&["truncated"], "Truncated completions"),
    (&["entropy"], "Entropy (nats)"),
    (&["kl_reference", "kl"], "KL to the reference"),
    (&["kl_old"], "KL to the sampling policy"),
    (&["loss"], "Loss"),
    (&["validation_loss"], "Validation loss (nats per token)"),
    (&["worst_group_loss"], "Worst-group loss"),
    (&["pair_accuracy"], "Pairs ranked correctly"),
    (&["nll"], "Negative log-likelihood (nats per token)"),
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
        let mut curves = Curves { main: Vec::new(), more: Vec::new(), constant: Vec::new() };
        for (names, title) in MAIN {
            for (name, lines) in self.take(names) {
                let title = match name.strip_prefix(names[0]).filter(|_| names[0].ends_with('/')) {
                    Some(rule) => format!("{title}: {rule}"),
                    None => (*title).to_owned(),
                };
                plot(&mut curves.main, title, &name, lines)?;
            }
        }
        for (name, lines) in self.metrics {
            match constant(&lines) {
                Some(value) => curves.constant.push((name, value)),
                None => plot(&mut curves.more, name.clone(), &name, lines)?,
            }
        }
        let is_empty = curves.main.is_empty() && curves.more.is_empty() && curves.constant.is_empty();
        Ok((!is_empty).then_some(curves))
    }

    /// Takes a metric out, with its lines. `names` are its names, the preferred one first: where a
    /// stage has it under two, the preferred one counts. Of a prefix, every metric that has it.
    fn take(&mut self, names: &[&str]) -> Vec<(String, Vec<Curve>)> {
        let is_prefix = names[0].ends_with('/');
        let wanted = |name: &str| match is_prefix {
            true => name.starts_with(names[0]),
            false => names.contains(&name),
        };
        let (mut taken, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.metrics).into_iter().partition(|(name, _)| wanted(name));
        self.metrics = rest;
        if is_prefix || taken.len() < 2 {
            return taken;
        }
        taken.sort_by_key(|(name, _)| names.iter().position(|known| known == name));
        let name = taken[0].0.clone();
        let mut lines: Vec<Curve> = Vec::new();
        for measured in taken.into_iter().flat_map(|(_, lines)| lines) {
            if lines.iter().all(|known| known.line.label != measured.line.label) {
                lines.push(measured);
            }
        }
        vec![(name, lines)]
    }
}

/// Adds the plots of a metric, one for each kind of stage.
fn plot(plots: &mut Vec<Plot>, title: String, name: &str, lines: Vec<Curve>) -> Result<()> {
    let mut kinds: Vec<(String, Vec<Line>)> = Vec::new();
    for Curve { kind, line } in lines {
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, lines)) => lines.push(line),
            None => kinds.push((kind, vec![line])),
        }
    }
    let meaning = StepMetrics::COLUMNS.iter().find(|(column, _)| *column == name).map(|(_, doc)| doc.trim());
    let alone = kinds.len() == 1;
    for (kind, lines) in kinds {
        let title = if alone { title.clone() } else { format!("{title}: {kind}") };
        plots.extend(Chart::of(&lines)?.map(|chart| Plot { title, meaning, chart }));
    }
    Ok(())
}

/// The one value that every step of every stage has, if it is one.
fn constant(lines: &[Curve]) -> Option<f64> {
    let mut values = lines.iter().flat_map(|measured| measured.line.points.iter().map(|point| point.1));
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// What ends the name of a column of what was measured before a step, where there is one of what was measured after it.
const BEFORE: &str = "_before";

/// A line for each column of numbers; steps where it is null or not finite are skipped.
fn read(table: &Table, run: Option<&str>) -> Result<Vec<(String, Curve)>> {
    let numbers: Vec<&str> = table.numbers().filter(|name| *name != "step").collect();
    let wanted: Vec<_> = std::iter::once("step").chain(numbers.iter().copied()).map(col).collect();
    // What was measured before the first step begins the line of what was measured after later ones.
    let mut columns: Vec<&str> = Vec::new();
    for name in numbers.into_iter().map(|name| name.strip_suffix(BEFORE).unwrap_or(name)) {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    // A stage that was killed after a step and resumed may have written the step twice.
    let order = SortMultipleOptions::default().with_maintain_order(true);
    let frame = table.query(|frame| frame.select(wanted).sort(["step"], order))?;
    let steps = frame.floats("step");
    let label = [run.unwrap_or_default(), table.stage.as_str()];
    let label = label.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" · ");
    let line = |name: &str| {
        let points = |name: &str, shift: f64| {
            let values = steps.iter().zip(frame.floats(name));
            values.filter_map(|(step, value)| Some(((*step)? + shift, value?))).collect::<Vec<_>>()
        };
        Line { label: label.clone(), points: [points(&format!("{name}{BEFORE}"), -1.0), points(name, 0.0)].concat() }
    };
    // Distilling is fine-tuning on another's completions.
    let kind = if table.kind == "distill" { "sft" } else { &table.kind };
    let lines = columns.into_iter().map(|name| (name.to_owned(), Curve { kind: kind.to_owned(), line: line(name) }));
    Ok(lines.filter(|(_, measured)| !measured.line.points.is_empty()).collect())
}
