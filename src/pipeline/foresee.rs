//! What each stage will find when its turn comes, as far as that can be told before anything runs.

use std::collections::BTreeMap;

use super::digests::Digests;
use super::plan::{Plan, Planned};
use super::run::Options;
use super::state::State;
use super::visits::Visit;
use crate::error::Result;
use crate::recipe::Recipe;

/// A stage that the run comes to.
pub(super) struct Foreseen<'p> {
    pub planned: &'p Planned,
    /// Its place in the running order, from 0.
    pub index: usize,
    pub state: State,
}

/// The stages that a run comes to, in order.
///
/// # Errors
/// Inputs that cannot be read, as the run itself would find them.
pub(super) fn foresee<'p>(
    plan: &'p Plan,
    recipe: &Recipe,
    options: &Options,
    digests: &Digests<'_>,
) -> Result<Vec<Foreseen<'p>>> {
    let mut found: Vec<Foreseen<'p>> = Vec::new();
    // Stages that run, and whether what they leave is surely another dataset or model than what is there.
    let mut running: BTreeMap<&str, bool> = BTreeMap::new();
    for Visit { index, planned, forced } in plan.visits(options) {
        let anew = planned.inputs.iter().find(|input| running.get(input.of.as_str()) == Some(&true));
        let waits = planned.inputs.iter().any(|input| running.contains_key(input.of.as_str()));
        let state = match anew {
            Some(input) if !forced => {
                let changed = || format!("input `{}`, which stage `{}` will make anew", input.key, input.of);
                planned.loses(changed)?.unwrap_or(State::Waits)
            }
            _ if waits => State::Waits,
            _ => {
                let inputs = planned.open_inputs(plan, recipe)?;
                let depends = planned.depends(recipe, digests, &inputs)?;
                if forced { State::Forced } else { planned.state(&depends)? }
            }
        };
        if state != State::Cached {
            let is_other =
                anew.is_some() || matches!(state, State::Changed | State::Replaces { .. } | State::Extends { .. });
            running.insert(&planned.name, is_other);
        }
        found.push(Foreseen { planned, index, state });
    }
    Ok(found)
}
