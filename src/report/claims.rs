//! What the run was to show: the claims of its recipe, and how its models did.

use serde::Serialize;

use super::catalog::{Catalog, Class, FrameExt, Table};
use crate::error::Result;

/// Claims and evaluations of a run.
#[derive(Debug, Serialize)]
pub struct Claims {
    claims: Vec<Claim>,
    /// Every model over all prompts.
    models: Vec<Evaluation>,
    /// Models by slice, one table a slice: domain, difficulty, language.
    slices: Vec<Slice>,
    /// The samples a prompt was asked for, where all rows agree: the k of pass@k.
    samples: Option<u64>,
}

/// A statement and the two figures it compares.
#[derive(Debug, Serialize)]
struct Claim {
    stage: String,
    claim: Option<String>,
    left: Option<f64>,
    right: Option<f64>,
    margin: Option<f64>,
    holds: Option<bool>,
}

/// One model on one slice.
#[derive(Clone, Debug, Serialize)]
struct Evaluation {
    stage: String,
    model: Option<String>,
    prompts: Option<u64>,
    samples: Option<u64>,
    pass_at_1: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    pass_at_k: Option<f64>,
    cons_at_k: Option<f64>,
    truncated: Option<f64>,
    format: Option<f64>,
    language_consistency: Option<f64>,
    mean_tokens: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Slice {
    name: String,
    models: Vec<Evaluation>,
}

/// The slice of all prompts.
const ALL: &str = "all";

/// Reads the claims and evaluations; none if the run has neither.
pub fn collect(catalog: &Catalog, notes: &mut Vec<String>) -> Option<Claims> {
    let claims: Vec<Claim> =
        catalog.of_class(Class::Claims).filter_map(|t| super::noted(read_claims(t), notes)).flatten().collect();
    let evaluations: Vec<(String, Evaluation)> =
        catalog.of_class(Class::Evaluations).filter_map(|t| super::noted(read_models(t), notes)).flatten().collect();
    if claims.is_empty() && evaluations.is_empty() {
        return None;
    }
    let (mut models, mut slices) = (Vec::new(), Vec::<Slice>::new());
    for (slice, evaluation) in evaluations {
        if slice == ALL {
            models.push(evaluation);
        } else if let Some(known) = slices.iter_mut().find(|known| known.name == slice) {
            known.models.push(evaluation);
        } else {
            slices.push(Slice { name: slice, models: vec![evaluation] });
        }
    }
    let mut all = models.iter().chain(slices.iter().flat_map(|slice| &slice.models)).map(|model| model.samples);
    let first = all.next().flatten();
    let samples = first.filter(|_| all.all(|samples| samples == first));
    Some(Claims { claims, models, slices, samples })
}

fn read_claims(table: &Table) -> Result<Vec<Claim>> {
    let frame = table.query(|frame| frame)?;
    let (mut texts, mut holds) = (frame.texts("claim").into_iter(), frame.flags("holds").into_iter());
    let [mut left, mut right, mut margin] = ["left", "right", "margin"].map(|name| frame.floats(name).into_iter());
    let rows = (0..frame.height()).map(|_| Claim {
        stage: table.stage.clone(),
        claim: texts.next().flatten(),
        left: left.next().flatten(),
        right: right.next().flatten(),
        margin: margin.next().flatten(),
        holds: holds.next().flatten(),
    });
    Ok(rows.collect())
}

/// (slice, figures) of each row.
fn read_models(table: &Table) -> Result<Vec<(String, Evaluation)>> {
    let frame = table.query(|frame| frame)?;
    let (models, slices) = (frame.texts("model"), frame.texts("slice"));
    let [prompts, samples] = ["prompts", "samples"].map(|name| frame.counts(name));
    let figures = [
        "pass_at_1",
        "pass_at_1_low",
        "pass_at_1_high",
        "pass_at_k",
        "cons_at_k",
        "truncated",
        "format",
        "language_consistency",
        "mean_tokens",
    ];
    let figures = figures.map(|name| frame.floats(name));
    let row = |i: usize| {
        let [pass_at_1, low, high, pass_at_k, cons_at_k, truncated, format, language_consistency, mean_tokens] =
            figures.each_ref().map(|column| column[i]);
        let evaluation = Evaluation {
            stage: table.stage.clone(),
            model: models[i].clone(),
            prompts: prompts[i],
            samples: samples[i],
            pass_at_1,
            low,
            high,
            pass_at_k,
            cons_at_k,
            truncated,
            format,
            language_consistency,
            mean_tokens,
        };
        (slices[i].clone().unwrap_or_else(|| ALL.to_owned()), evaluation)
    };
    Ok((0..frame.height()).map(row).collect())
}
