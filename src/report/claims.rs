//! What the run was to show: the claims of its recipe, and how its models did.

use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use crate::error::Result;

/// Claims and evaluations of a run.
#[derive(Debug, Serialize)]
pub struct Claims {
    claims: Vec<Claim>,
    /// Models by evaluation; none of a run with fewer than two.
    overview: Option<Overview>,
    evaluations: Vec<Evaluation>,
}

/// pass@1 on all prompts: a line a model, a column an evaluation.
#[derive(Debug, Serialize)]
struct Overview {
    stages: Vec<String>,
    models: Vec<OverviewLine>,
}

/// In the order of the evaluations; null where the model is not in one.
#[derive(Debug, Serialize)]
struct OverviewLine {
    model: String,
    figures: Vec<Option<Pass>>,
}

/// A pass@1 with its interval.
#[derive(Clone, Copy, Debug, Serialize)]
struct Pass {
    at_1: f64,
    low: Option<f64>,
    high: Option<f64>,
}

/// What one stage measured.
#[derive(Debug, Serialize)]
struct Evaluation {
    /// Empty if no stage of the run did.
    stage: String,
    /// Every model over all prompts.
    models: Vec<Measured>,
    /// Models by slice, one table a slice: domain, difficulty, language, source.
    slices: Vec<Slice>,
    /// Headings of the models' other figures.
    columns: Vec<String>,
}

/// A statement and the two figures it compares.
#[derive(Debug, Serialize)]
struct Claim {
    claim: Option<String>,
    left: Option<f64>,
    right: Option<f64>,
    margin: Option<f64>,
    /// The margin that was claimed.
    at_least: Option<f64>,
    holds: Option<bool>,
}

/// One model on one slice.
#[derive(Debug, Serialize)]
struct Measured {
    model: Option<String>,
    prompts: Option<u64>,
    samples: Option<u64>,
    pass_at_1: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    /// In the order of [`Evaluation::columns`].
    figures: Vec<Figure>,
}

/// A figure and how to tell it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Figure {
    value: Option<f64>,
    is_share: bool,
}

/// A row of a table: slice, figures by heading.
struct Row {
    slice: String,
    measured: Measured,
    figures: Vec<(String, Figure)>,
}

#[derive(Debug, Serialize)]
struct Slice {
    name: String,
    models: Vec<Measured>,
}

/// The slice of all prompts.
const ALL: &str = "all";

/// Reads the claims and evaluations; none if the run has neither.
pub fn collect(catalog: &Catalog, notes: &mut Vec<String>) -> Option<Claims> {
    let claims: Vec<Claim> =
        catalog.of_class(Class::Claims).filter_map(|t| super::noted(read_claims(t), notes)).flatten().collect();
    let mut stages: Vec<(&str, Vec<Row>)> = Vec::new();
    for table in catalog.of_class(Class::Evaluations) {
        let Some(rows) = super::noted(read_models(table), notes) else { continue };
        match stages.iter_mut().find(|(stage, _)| *stage == table.stage) {
            Some((_, known)) => known.extend(rows),
            None => stages.push((&table.stage, rows)),
        }
    }
    let evaluations: Vec<Evaluation> = stages.into_iter().map(|(stage, rows)| evaluation(stage, rows)).collect();
    if claims.is_empty() && evaluations.is_empty() {
        return None;
    }
    let overview = (evaluations.len() > 1).then(|| overview(&evaluations));
    Some(Claims { claims, overview, evaluations })
}

/// The rows of one stage, by slice.
fn evaluation(stage: &str, rows: Vec<Row>) -> Evaluation {
    let mut columns: Vec<String> = Vec::new();
    for (heading, _) in rows.iter().flat_map(|row| &row.figures) {
        if !columns.contains(heading) {
            columns.push(heading.clone());
        }
    }
    let (mut models, mut slices) = (Vec::new(), Vec::<Slice>::new());
    for Row { slice, mut measured, figures } in rows {
        let of = |heading: &String| figures.iter().find(|(known, _)| known == heading).map(|(_, figure)| *figure);
        measured.figures = columns.iter().map(|heading| of(heading).unwrap_or_default()).collect();
        if slice == ALL {
            models.push(measured);
        } else if let Some(known) = slices.iter_mut().find(|known| known.name == slice) {
            known.models.push(measured);
        } else {
            slices.push(Slice { name: slice, models: vec![measured] });
        }
    }
    Evaluation { stage: stage.to_owned(), models, slices, columns }
}

/// Each model's pass@1 in each evaluation; models in the order in which they come first.
fn overview(evaluations: &[Evaluation]) -> Overview {
    let mut names: Vec<&str> = Vec::new();
    for name in evaluations.iter().flat_map(|of| &of.models).filter_map(|model| model.model.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let figure = |name: &str, of: &Evaluation| {
        let model = of.models.iter().find(|model| model.model.as_deref() == Some(name))?;
        Some(Pass { at_1: model.pass_at_1?, low: model.low, high: model.high })
    };
    let line = |name: &str| OverviewLine {
        model: name.to_owned(),
        figures: evaluations.iter().map(|of| figure(name, of)).collect(),
    };
    Overview {
        stages: evaluations.iter().map(|of| of.stage.clone()).collect(),
        models: names.into_iter().map(line).collect(),
    }
}

fn read_claims(table: &Table) -> Result<Vec<Claim>> {
    let frame = table.query(|frame| frame)?;
    let (mut texts, mut holds) = (frame.texts("claim").into_iter(), frame.flags("holds").into_iter());
    let [mut left, mut right, mut margin, mut at_least] =
        ["left", "right", "margin", "at_least"].map(|name| frame.floats(name).into_iter());
    let rows = (0..frame.height()).map(|_| Claim {
        claim: texts.next().flatten(),
        left: left.next().flatten(),
        right: right.next().flatten(),
        margin: margin.next().flatten(),
        at_least: at_least.next().flatten(),
        holds: holds.next().flatten(),
    });
    Ok(rows.collect())
}

fn read_models(table: &Table) -> Result<Vec<Row>> {
    let frame = table.query(|frame| frame)?;
    let (models, slices) = (frame.texts("model"), frame.texts("slice"));
    let [prompts, samples] = ["prompts", "samples"].map(|name| frame.counts(name));
    let [pass_at_1, low, high] = ["pass_at_1", "pass_at_1_low", "pass_at_1_high"].map(|name| frame.floats(name));
    let k = samples.iter().flatten().next().filter(|k| samples.iter().all(|other| other.as_ref() == Some(k)));
    let others: Vec<(String, bool, Vec<Option<f64>>)> = table
        .numbers()
        .filter(|name| !["prompts", "samples", "pass_at_1"].contains(name))
        .filter(|name| !name.ends_with("_low") && !name.ends_with("_high"))
        .map(|name| (name, frame.floats(name)))
        // What nobody measured, and what nobody failed at, need no column.
        .filter(|(name, values)| values.iter().flatten().any(|x| *name != "undecided" || *x != 0.0))
        .map(|(name, values)| {
            // A vote can lose to one sample.
            let is_share = name == "vote_gain"
                || !name.contains("tokens") && values.iter().flatten().all(|x| (0.0..=1.0).contains(x));
            (heading(name, k.copied()), is_share, values)
        })
        .collect();
    let row = |i: usize| Row {
        slice: slices[i].clone().unwrap_or_else(|| ALL.to_owned()),
        measured: Measured {
            model: models[i].clone(),
            prompts: prompts[i],
            samples: samples[i],
            pass_at_1: pass_at_1[i],
            low: low[i],
            high: high[i],
            figures: Vec::new(),
        },
        figures: others
            .iter()
            .map(|(heading, is_share, values)| (heading.clone(), Figure { value: values[i], is_share: *is_share }))
            .collect(),
    };
    Ok((0..frame.height()).map(row).collect())
}

/// A column's name for people; `k` is how many samples each prompt has.
fn heading(column: &str, k: Option<u64>) -> String {
    if let Some((what, at)) = column.split_once("_at_") {
        let at = k.filter(|_| at == "k").map_or_else(|| at.to_owned(), |k| k.to_string());
        return format!("{what}@{at}");
    }
    column.strip_prefix("score/").unwrap_or(column).replace('_', " ")
}
