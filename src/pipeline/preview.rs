//! A dry run: what each stage would do, why, and how much of it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::digests::Digests;
use super::folder::{check_owner, find_renumbered};
use super::foresee::{Foreseen, foresee};
use super::memory::Needs;
use super::models::refuse_losses;
use super::plan::{Plan, Planned};
use super::run::{Options, Reporter};
use super::stage_folder::part_wanted;
use super::state::State;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::stage::{Input, InputRows};
use crate::store::{Dataset, Location, Manifest};

/// What a run would do.
#[derive(Debug, serde::Serialize)]
pub struct Preview {
    /// The recipe's.
    pub name: String,
    /// Path or URL of the run's folder.
    pub out: String,
    /// None: nothing ran. Who reads a run's summary finds it here too.
    stages: [(); 0],
    /// What each stage would do, in running order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<StagePreview>,
    /// What the run would end with before anything runs, as where a finished model would be lost.
    #[serde(skip)]
    pub refusal: Option<Error>,
    /// Wall-clock time of looking.
    pub seconds: f64,
}

/// What a stage would do.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StagePreview {
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

/// Says what a run of a recipe in the folder `out` would do, and does nothing.
///
/// # Errors
/// A recipe or inputs that the run itself could not read; a folder that is another recipe's.
pub fn preview(recipe: &Recipe, out: &Location, options: &Options, reporter: &dyn Reporter) -> Result<Preview> {
    let start = Instant::now();
    let mut plan = Plan::new(recipe, out)?;
    plan.check_names(options)?;
    check_owner(recipe, out)?;
    find_renumbered(&mut plan, out, true)?;
    // Nothing is written, so Ctrl-C may end the process where it stands.
    let stop = AtomicBool::new(false);
    let digests = Digests::load(out, &stop);
    for visit in plan.visits(options) {
        visit.planned.materials(recipe, &digests)?;
    }
    let stages = stages(&plan, recipe, options, &digests, reporter)?;
    Ok(Preview {
        name: recipe.name.clone(),
        out: out.to_string(),
        stages: [],
        plan: stages,
        refusal: refuse_losses(&plan, recipe, options, &digests).err(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn stages(
    plan: &Plan,
    recipe: &Recipe,
    options: &Options,
    digests: &Digests<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<StagePreview>> {
    let mut needs = Needs::new(plan, recipe);
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
            let inputs = InputRows::new(planned.inputs.iter().map(|input| (input, rows_of(input))));
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

fn described(planned: &Planned, state: &State, rows: Option<u64>, tokens: Option<u64>) -> StagePreview {
    StagePreview {
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
