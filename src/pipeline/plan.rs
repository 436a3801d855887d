//! The plan: stages in an order in which each finds its inputs, and what is already there.

use std::collections::{BTreeMap, HashMap};

use super::digests::Digests;
use crate::error::{Error, Result};
use crate::recipe::{Recipe, StageTable};
use crate::stage::{self, Input, Materials, Stage};
use crate::store::{Dataset, Location, Manifest};

/// The stages of a recipe in running order.
pub struct Plan {
    pub stages: Vec<Planned>,
}

/// One stage of the plan.
pub struct Planned {
    pub name: String,
    pub kind: String,
    /// `1_prompts`: the number is the place in the running order.
    pub folder: Location,
    pub inputs: Vec<Input>,
    pub(super) stage: Box<dyn Stage>,
    pub(super) table: StageTable,
}

/// Why a stage will, or will not, run.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its manifest has the fingerprint it would have now.
    Cached,
    /// Nothing is there.
    New,
    /// An input, the configuration or a file changed since the manifest was written.
    Changed,
    /// A kill left some shards; they are kept.
    Partial { shards: usize },
    /// It is complete but holds rows that failed and are to be tried again.
    Retry { failed: u64 },
    /// One of its inputs will be made first.
    Waits,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Cached => f.write_str("cached: nothing it depends on has changed"),
            State::New => f.write_str("will run: nothing is there yet"),
            State::Changed => f.write_str("will run: its configuration, an input or a file has changed"),
            State::Partial { shards } => write!(f, "will continue: {shards} shards are there"),
            State::Retry { failed } => write!(f, "will retry {failed} rows that failed"),
            State::Waits => f.write_str("will run: after its inputs"),
        }
    }
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
        for (table, _, inputs) in &parts {
            for input in inputs {
                check_input(recipe, table, input, |name| index.get(name).map(|&i| parts[i].1.output()))?;
            }
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
    /// Opens the inputs: other stages' folders, or datasets of the user's.
    pub(super) fn open_inputs(&self, plan: &Plan, recipe: &Recipe) -> Result<BTreeMap<String, Dataset>> {
        let mut datasets = BTreeMap::new();
        for input in &self.inputs {
            let location = match plan.find(&input.of) {
                Some(stage) => stage.folder.clone(),
                None => Location::parse(&recipe.resolve(&input.of))?,
            };
            let dataset = Dataset::open(&location)
                .map_err(|e| e.context(format!("the input `{}` of `{}`", input.key, self.name)))?;
            datasets.insert(input.key.clone(), dataset);
        }
        Ok(datasets)
    }

    /// Digests of the files that the stage reads beside its inputs.
    pub(super) fn materials(&self, recipe: &Recipe, digests: &Digests) -> Result<Vec<(String, String)>> {
        let resolve = |path: &str| recipe.resolve(path);
        let digest_file = |path: &str| digests.of_path(path);
        self.stage
            .materials(&Materials { resolve: &resolve, digest_file: &digest_file })
            .map_err(|e| e.context(format!("stage `{}`", self.name)))
    }

    /// What the output depends on, as one BLAKE3 in hex.
    pub(super) fn fingerprint(
        &self,
        recipe: &Recipe,
        digests: &Digests,
        inputs: &BTreeMap<String, Dataset>,
    ) -> Result<String> {
        let materials = self.materials(recipe, digests)?;
        let mut input_digests = BTreeMap::new();
        for (key, dataset) in inputs {
            let digest = match dataset.manifest() {
                Some(manifest) => manifest.digest(),
                None => {
                    let mut hasher = blake3::Hasher::new();
                    for shard in dataset.shards() {
                        hasher.update(digests.of_path(&shard.location().to_string())?.as_bytes());
                    }
                    hasher.finalize().to_hex().to_string()
                }
            };
            input_digests.insert(key.clone(), digest);
        }
        let mut config = self.table.config.to_json();
        // Input names are not part of what the bytes depend on: their digests are.
        for input in &self.inputs {
            if let Some(map) = config.as_object_mut() {
                map.shift_remove(&input.key);
            }
        }
        let all = serde_json::json!({
            "format": Manifest::FORMAT,
            "schema": self.stage.output().map(|kind| (kind.to_string(), kind.version())),
            "kind": self.kind,
            "config": config,
            "seed": recipe.seed,
            "shard_rows": recipe.shard_rows,
            "inputs": input_digests,
            "materials": materials,
        });
        Ok(blake3::hash(all.to_string().as_bytes()).to_hex().to_string())
    }
}

fn locate(table: &StageTable, key: &str, error: Error) -> Error {
    match table.config.get(key) {
        Some(node) => node.origin.locate(error),
        None => table.origin.locate(error),
    }
}

fn check_input(
    recipe: &Recipe,
    table: &StageTable,
    input: &Input,
    output_of: impl Fn(&str) -> Option<Option<crate::schema::DatasetKind>>,
) -> Result<()> {
    match output_of(&input.of) {
        Some(output) => match (output, input.kind) {
            (Some(output), Some(wanted)) if output != wanted => {
                let message = format!("`{}` must be {wanted}, but the stage `{}` writes {output}", input.key, input.of);
                Err(locate(table, &input.key, Error::usage(message)))
            }
            _ => Ok(()),
        },
        None => {
            let path = recipe.resolve(&input.of);
            if Location::parse(&path)?.exists()? {
                return Ok(());
            }
            let message = format!(
                "`{}` of the stage `{}` is neither a stage nor a dataset: `{}`",
                input.key, table.name, input.of
            );
            let names: Vec<&str> = recipe.stages.iter().map(|s| s.name.as_str()).collect();
            let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, &input.of));
            let hint = match near {
                Some(name) if strsim::damerau_levenshtein(name, &input.of) <= 2 => format!("did you mean `{name}`?"),
                _ => format!("the stages are: {}; no file or folder `{path}` exists", names.join(", ")),
            };
            Err(locate(table, &input.key, Error::usage(message)).hint(hint))
        }
    }
}

/// Indices of the stages so that inputs come first; of several that could be next, the one
/// written first.
fn running_order(recipe: &Recipe, inputs: &[&[Input]]) -> Result<Vec<usize>> {
    let index: HashMap<&str, usize> = recipe.stages.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    let needs: Vec<Vec<usize>> = inputs
        .iter()
        .map(|inputs| inputs.iter().filter_map(|input| index.get(input.of.as_str()).copied()).collect())
        .collect();
    let mut order = Vec::new();
    let mut placed = vec![false; needs.len()];
    while order.len() < needs.len() {
        let next = (0..needs.len()).find(|&i| !placed[i] && needs[i].iter().all(|&j| placed[j]));
        match next {
            Some(i) => {
                placed[i] = true;
                order.push(i);
            }
            None => return Err(cycle(recipe, &needs, &placed)),
        }
    }
    Ok(order)
}

fn cycle(recipe: &Recipe, needs: &[Vec<usize>], placed: &[bool]) -> Error {
    let mut path: Vec<usize> = Vec::new();
    let mut at = (0..needs.len()).find(|&i| !placed[i]).expect("called when some stage is not placed");
    while !path.contains(&at) {
        path.push(at);
        at = *needs[at].iter().find(|&&j| !placed[j]).expect("an unplaced stage waits for an unplaced one");
    }
    let start = path.iter().position(|&i| i == at).expect("the loop ended on it");
    let mut names: Vec<&str> = path[start..].iter().map(|&i| recipe.stages[i].name.as_str()).collect();
    names.push(names[0]);
    recipe.stages[at].origin.locate(Error::usage(format!("the stages form a cycle: {}", names.join(" ← "))))
}
