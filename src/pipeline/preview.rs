//! A dry run: what each stage would do, why, and how much of it.

use std::collections::BTreeMap;

use super::digests::Digests;
use super::foresee::{Foreseen, foresee};
use super::memory::Needs;
use super::plan::{Plan, Planned};
use super::run::{Options, Reporter};
use super::stage_folder::part_wanted;
use super::state::State;
use crate::error::Result;
use crate::recipe::Recipe;
use crate::stage::Input;
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
    // Of each stage that was looked at: the rows it has then.
    let mut seen: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for Foreseen { planned, index, state } in foresee(plan, recipe, options, digests)? {
        let runs = state != State::Cached;
        let (rows, tokens) = if runs {
            let rows_of = |input: &Input| match seen.get(input.of.as_str()) {
                Some(rows) => *rows,
                None => rows_of_input(plan, recipe, input),
            };
            let inputs: Vec<Option<u64>> = planned.inputs.iter().map(rows_of).collect();
            (planned.stage.expected_rows(&inputs), planned.stage.expected_tokens(&inputs))
        } else {
            (Manifest::load(&planned.folder)?.map(|manifest| manifest.rows), None)
        };
        let progress = reporter.stage(index + 1, plan.stages.len(), &planned.name, &state);
        match (runs, rows, tokens) {
            (false, ..) | (true, None, None) => {}
            (true, None, Some(0)) => progress.say("no tokens: nothing is sampled"),
            (true, Some(rows), None) => progress.say(&format!("about {rows} rows")),
            (true, None, Some(tokens)) => progress.say(&format!("at most {tokens} tokens")),
            (true, Some(rows), Some(tokens)) => progress.say(&format!("about {rows} rows, at most {tokens} tokens")),
        }
        if state == State::Changed
            && options.part.is_none()
            && let Some(line) = Manifest::load(&planned.folder)?.and_then(|made| planned.stage.keeps(&made))
        {
            progress.say(&line);
        }
        if runs && let Some(line) = needs.describe(planned)? {
            progress.say(&line);
        }
        if runs && let Err(error) = planned.check_process() {
            progress.say(&format!("it cannot run here as it is: {}", error.message()));
        }
        // What a model has beside it is not counted in its manifest.
        seen.insert(&planned.name, rows.filter(|_| planned.stage.output().is_some()));
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
fn rows_of_input(plan: &Plan, recipe: &Recipe, input: &Input) -> Option<u64> {
    let location = match plan.find(&input.of) {
        Some(stage) => stage.folder.clone(),
        None => part_wanted(Location::parse(&recipe.resolve(&input.of)).ok()?, input.wants).ok()?,
    };
    Dataset::open(&location).ok()?.rows().ok()
}
