//! A dry run: what each stage would do, why, and how much of it.

use std::collections::BTreeMap;

use super::digests::Digests;
use super::memory::Needs;
use super::plan::{Plan, Planned, State};
use super::run::{Options, Reporter};
use crate::error::Result;
use crate::recipe::Recipe;
use crate::store::{Dataset, Location, Manifest};

/// What a stage would do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Preview {
    /// Its name in the recipe.
    pub stage: String,
    /// What it does: `prompts`, `generate`, `verify` …
    pub kind: String,
    /// Path or URL, whether it is there yet or not.
    pub folder: String,
    /// Whether it would run, and why, in words.
    pub state: String,
    /// Rows it has, or would write, as far as that can be told beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Most tokens it would have sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

/// Says what a run would do, and does nothing.
///
/// # Errors
/// Inputs that cannot be read, as the run itself would find them.
pub(super) fn preview(
    plan: &Plan,
    recipe: &Recipe,
    options: &Options,
    digests: &Digests,
    needs: &mut Needs<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<Preview>> {
    let mut previews = Vec::new();
    let mut forced = false;
    // Of each stage that was looked at: whether it would run, and the rows it has then.
    let mut seen: BTreeMap<&str, (bool, Option<u64>)> = BTreeMap::new();
    for (index, planned) in plan.stages.iter().enumerate() {
        forced |= options.from.as_deref() == Some(planned.name.as_str());
        if options.only.as_ref().is_some_and(|only| *only != planned.name) {
            continue;
        }
        let waits = planned.inputs.iter().any(|input| seen.get(input.of.as_str()).is_some_and(|(runs, _)| *runs));
        let state = if waits {
            State::Waits
        } else {
            let inputs = planned.open_inputs(plan, recipe)?;
            let fingerprint = planned.fingerprint(recipe, digests, &inputs)?;
            if forced { State::Forced } else { planned.state(&fingerprint)? }
        };
        let runs = state != State::Cached;
        let (rows, tokens) = if runs {
            let rows_of = |of: &str| match seen.get(of) {
                Some((_, rows)) => *rows,
                None => rows_of_input(plan, recipe, of),
            };
            let inputs: Vec<Option<u64>> = planned.inputs.iter().map(|input| rows_of(&input.of)).collect();
            (planned.stage.expected_rows(&inputs), planned.stage.expected_tokens(&inputs))
        } else {
            (Manifest::load(&planned.folder)?.map(|manifest| manifest.rows), None)
        };
        let progress = reporter.stage(index + 1, plan.stages.len(), &planned.name, &state);
        match (runs, rows, tokens) {
            (false, ..) | (true, None, None) => {}
            (true, Some(rows), None) => progress.say(&format!("about {rows} rows")),
            (true, None, Some(tokens)) => progress.say(&format!("at most {tokens} tokens")),
            (true, Some(rows), Some(tokens)) => progress.say(&format!("about {rows} rows, at most {tokens} tokens")),
        }
        if runs && let Some(line) = needs.describe(planned)? {
            progress.say(&line);
        }
        // What a model has beside it is not counted in its manifest.
        seen.insert(&planned.name, (runs, rows.filter(|_| planned.stage.output().is_some())));
        previews.push(described(planned, &state, rows, tokens));
    }
    Ok(previews)
}

fn described(planned: &Planned, state: &State, rows: Option<u64>, tokens: Option<u64>) -> Preview {
    Preview {
        stage: planned.name.clone(),
        kind: planned.kind.clone(),
        folder: planned.folder.to_string(),
        state: state.to_string(),
        rows,
        tokens,
    }
}

/// Rows of an input that no stage of this dry run makes; `None` if it is no dataset.
fn rows_of_input(plan: &Plan, recipe: &Recipe, of: &str) -> Option<u64> {
    let location = match plan.find(of) {
        Some(stage) => stage.folder.clone(),
        None => Location::parse(&recipe.resolve(of)).ok()?,
    };
    Dataset::open(&location).ok()?.rows().ok()
}
