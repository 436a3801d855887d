//! The plan: stages in an order in which each finds its inputs.

use std::collections::HashMap;

use super::digests::Digests;
use super::inputs::{check_input, kind_of};
use super::order::running_order;
use crate::error::{Error, Result};
use crate::recipe::{Recipe, StageTable};
use crate::stage::{self, CheckContext, Input, Materials, Stage};
use crate::store::Location;

/// The stages of a recipe in running order.
pub struct Plan {
    /// Each after all that it reads from.
    pub stages: Vec<Planned>,
}

/// One stage of the plan.
pub struct Planned {
    /// Its key in the recipe.
    pub name: String,
    /// What it does: `prompts`, `generate`, `verify` …
    pub kind: String,
    /// `1_prompts`: the number is the place in the running order.
    pub folder: Location,
    /// What its table names, in the stage's order.
    pub inputs: Vec<Input>,
    pub(super) stage: Box<dyn Stage>,
    pub(super) table: StageTable,
}

impl Plan {
    /// Reads every stage's table, connects them, and orders them.
    ///
    /// # Errors
    /// An unknown kind or key, an input that is neither a stage nor a dataset, an input of the
    /// wrong kind, a cycle: each with its place in the recipe.
    pub fn new(recipe: &Recipe, out: &Location) -> Result<Plan> {
        let mut parts = Vec::new();
        for table in &recipe.stages {
            let stage = stage::build(table)?;
            let inputs = stage.inputs();
            parts.push((table, stage, inputs));
        }
        let index: HashMap<&str, usize> = parts.iter().enumerate().map(|(i, (t, ..))| (t.name.as_str(), i)).collect();
        let stage_of = |name: &str| index.get(name).map(|&i| &*parts[i].1);
        for (table, stage, inputs) in &parts {
            for input in inputs {
                check_input(recipe, table, input, stage_of)?;
            }
            let kind = |key: &str| match inputs.iter().find(|input| input.key == key) {
                None => Ok(None),
                Some(input) => kind_of(recipe, input, stage_of),
            };
            let checked = stage.check(&CheckContext { base: &recipe.base, kind: &kind });
            checked.map_err(|fault| locate(table, &fault.key, fault.error))?;
        }
        let order = running_order(recipe, &parts.iter().map(|(.., inputs)| inputs.as_slice()).collect::<Vec<_>>())?;
        let mut parts: Vec<_> = parts.into_iter().map(Some).collect();
        let stages = order
            .iter()
            .enumerate()
            .map(|(number, &i)| {
                let (table, stage, inputs) = parts[i].take().expect("an order names each stage once");
                let folder = out.join(&format!("{}_{}", number + 1, table.name));
                Planned {
                    name: table.name.clone(),
                    kind: table.kind.clone(),
                    folder,
                    inputs,
                    stage,
                    table: table.clone(),
                }
            })
            .collect();
        Ok(Plan { stages })
    }

    pub(super) fn find(&self, name: &str) -> Option<&Planned> {
        self.stages.iter().find(|s| s.name == name)
    }
}

impl Planned {
    /// # Errors
    /// This process lacks what the stage needs of it; with the place in the recipe that asks for it.
    pub(super) fn check_process(&self) -> Result<()> {
        self.stage.check_process().map_err(|fault| locate(&self.table, &fault.key, fault.error))
    }

    /// Digests of the files that the stage reads beside its inputs.
    pub(super) fn materials(&self, recipe: &Recipe, digests: &Digests<'_>) -> Result<Vec<(String, String)>> {
        let digest_file = |path: &str| digests.of_path(path);
        self.stage
            .materials(&Materials {
                base: &recipe.base,
                digest_file: &digest_file,
                check_stop: &|| digests.check_stop(),
            })
            .map_err(|e| e.context(format!("stage `{}`", self.name)))
    }
}

/// Points an error at a key of a stage's table, dotted, or at as much of it as is written there.
pub(super) fn locate(table: &StageTable, key: &str, error: Error) -> Error {
    match table.config.nearest(key) {
        Some(node) => node.origin.locate(error),
        None => table.origin.locate(error),
    }
}

#[cfg(test)]
mod tests;
