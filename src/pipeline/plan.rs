//! The plan: stages in an order in which each finds its inputs, and what is already there.

use std::collections::{BTreeMap, HashMap};

use super::depends::Depends;
use super::digests::Digests;
use super::models::damaged_model;
use super::stage_folder::part_wanted;
use crate::device::Device;
use crate::error::{Error, Result, nearest};
use crate::recipe::{Recipe, StageTable};
use crate::schema::DatasetKind;
use crate::stage::{self, Input, MODEL, Materials, Stage, Surroundings, Wants};
use crate::store::{Dataset, Location, Manifest, hub_hint};

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

/// A stage's inputs, opened.
#[derive(Default)]
pub struct Opened {
    pub datasets: BTreeMap<String, Dataset>,
    /// Models, and stages whose figures are read.
    pub folders: BTreeMap<String, Location>,
    /// What names the content of a folder that a stage made.
    digests: BTreeMap<String, String>,
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
    /// What is there is a model that was trained to its end, with another of these.
    Replaces {
        /// What is another now, in words.
        changed: String,
    },
    /// `--from` asks for it.
    Forced,
    /// It is complete, but so many of its shards are gone or were cut since.
    Damaged {
        /// Those to be made again.
        shards: usize,
    },
    /// It has a model that was trained to its end, of which so many files are gone or were cut.
    Broken {
        /// Of the model's folder and what lies beside it.
        files: usize,
    },
    /// A kill left some shards; they are kept.
    Partial {
        /// Those that are whole.
        shards: usize,
    },
    /// A kill left checkpoints: it goes on from the newest, of this step.
    Resumes {
        /// Optimizer steps that it has done.
        step: u64,
    },
    /// A kill left checkpoints, but what they were trained with has changed since: so many steps would be lost.
    Discards {
        /// Optimizer steps of the newest checkpoint.
        steps: u64,
    },
    /// It is complete but holds rows that failed and are to be tried again.
    Retry {
        /// Rows whose request failed.
        failed: u64,
    },
    /// One of its inputs will be made first.
    Waits,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Cached => f.write_str("cached: nothing it depends on has changed"),
            State::New => f.write_str("will run: nothing is there yet"),
            State::Changed => f.write_str("will run: its configuration, an input or a file has changed"),
            State::Replaces { changed } => {
                write!(f, "will not run: its finished model was trained with another {changed}")
            }
            State::Forced => f.write_str("will run: `--from` asks for it"),
            State::Damaged { shards: 1 } => f.write_str("will make a shard again that is gone or was cut"),
            State::Damaged { shards } => write!(f, "will make {shards} shards again that are gone or were cut"),
            State::Broken { files } => {
                write!(f, "will not run: of its finished model, files that are gone or were cut: {files}")
            }
            State::Partial { shards } => write!(f, "will continue: {shards} shards are there"),
            State::Resumes { step } => write!(f, "will continue: from the checkpoint of step {step}"),
            State::Discards { steps } => {
                write!(
                    f,
                    "will not run: its configuration, an input or a file has changed, and {steps} steps would be lost"
                )
            }
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
        let stage_of = |name: &str| index.get(name).map(|&i| &*parts[i].1);
        for (table, stage, inputs) in &parts {
            for input in inputs {
                check_input(recipe, table, input, stage_of)?;
            }
            let kind = |key: &str| match inputs.iter().find(|input| input.key == key) {
                None => Ok(None),
                Some(input) => kind_of(recipe, input, stage_of),
            };
            let resolve = |path: &str| recipe.resolve(path);
            let checked = stage.check(&Surroundings { resolve: &resolve, kind: &kind });
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
    /// Opens the inputs: other stages' folders, or datasets and models of the user's.
    pub(super) fn open_inputs(&self, plan: &Plan, recipe: &Recipe) -> Result<Opened> {
        let mut opened = Opened::default();
        for input in &self.inputs {
            let stage = plan.find(&input.of).map(|stage| stage.folder.clone());
            let context = |e: Error| e.context(format!("the input `{}` of `{}`", input.key, self.name));
            let location = match &stage {
                Some(folder) => folder.clone(),
                None => part_wanted(Location::parse(&recipe.resolve(&input.of))?, input.wants).map_err(context)?,
            };
            // A folder without a manifest is unfinished, whatever shards it has by now.
            let manifest = Manifest::load(&location)?;
            if stage.is_some() && manifest.is_none() {
                let error = Error::new(format!("the stage `{}` is not finished", input.of)).in_file(&location);
                return Err(context(error.hint("run the recipe without `--only`, or that stage first")));
            }
            if let Wants::Dataset(_) = input.wants {
                let beside =
                    plan.find(&input.of).and_then(|of| of.stage.beside()).map(|(_, folder)| location.join(folder));
                let dataset = Dataset::open(&beside.unwrap_or(location)).map_err(context)?;
                opened.datasets.insert(input.key.clone(), dataset);
                continue;
            }
            if let (Some(_), Wants::Model, Some(manifest)) = (&stage, input.wants, &manifest)
                && let Some((file, bytes)) = manifest.damaged(&location)?.into_iter().next()
            {
                let what = bytes.map_or("is gone".to_owned(), |bytes| format!("was cut to {bytes} bytes"));
                return Err(context(damaged_model(&input.of, &location.join(file), &what)));
            }
            let model = match (&stage, input.wants) {
                (Some(_), Wants::Model) => location.join(MODEL),
                (None, Wants::Model) => location.local_folder().map_err(context)?.into(),
                _ => location,
            };
            opened.digests.extend(manifest.map(|manifest| (input.key.clone(), manifest.digest())));
            opened.folders.insert(input.key.clone(), model);
        }
        Ok(opened)
    }

    /// Compares the shards of inputs with what their manifests say was written. A shard is read once for this, and
    /// again when its size or time changes; object stores look after their bytes themselves.
    ///
    /// # Errors
    /// A shard has other bytes, though as many.
    pub(super) fn check_inputs(&self, digests: &Digests, inputs: &Opened) -> Result<()> {
        for (key, dataset) in &inputs.datasets {
            let Some(manifest) = dataset.manifest() else { continue };
            for (shard, written) in dataset.shards().iter().zip(&manifest.shards) {
                let Some(path) = shard.location().as_local() else { continue };
                if digests.of_file(path)? != written.blake3 {
                    return Err(Error::new("the shard has other bytes than were written: it was damaged or edited")
                        .in_file(path.display())
                        .hint("bring it back; or delete the file and run the recipe that made it: it makes what is missing, and nothing else")
                        .context(format!("the input `{key}` of `{}`", self.name)));
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// This process lacks what the stage needs of it; with the place in the recipe that asks for it.
    pub(super) fn check_process(&self) -> Result<()> {
        self.stage.check_process().map_err(|fault| locate(&self.table, &fault.key, fault.error))
    }

    /// Digests of the files that the stage reads beside its inputs.
    pub(super) fn materials(&self, recipe: &Recipe, digests: &Digests) -> Result<Vec<(String, String)>> {
        let resolve = |path: &str| recipe.resolve(path);
        let digest_file = |path: &str| digests.of_path(path);
        self.stage
            .materials(&Materials { resolve: &resolve, digest_file: &digest_file })
            .map_err(|e| e.context(format!("stage `{}`", self.name)))
    }

    /// What the output depends on.
    pub(super) fn depends(&self, recipe: &Recipe, digests: &Digests, inputs: &Opened) -> Result<Depends> {
        let mut materials = self.materials(recipe, digests)?;
        let mut input_digests = inputs.digests.clone();
        for (key, folder) in inputs.folders.iter().filter(|(key, _)| !inputs.digests.contains_key(*key)) {
            let mut hasher = blake3::Hasher::new();
            for file in stage::model_files(std::path::Path::new(&folder.to_string())) {
                hasher.update(digests.of_path(&file)?.as_bytes());
            }
            input_digests.insert(key.clone(), hasher.finalize().to_hex().to_string());
        }
        for (key, dataset) in &inputs.datasets {
            let digest = match dataset.manifest() {
                Some(manifest) => manifest.digest(),
                None => {
                    let mut hasher = blake3::Hasher::new();
                    for shard in dataset.shards() {
                        hasher.update(digests.of_shard(shard)?.as_bytes());
                    }
                    hasher.finalize().to_hex().to_string()
                }
            };
            input_digests.insert(key.clone(), digest);
        }
        let mut config = self.table.config.to_json();
        // Names of inputs and paths of files are not what the bytes depend on: digests of both are. How the work is
        // done is not what is computed.
        let inputs = self.inputs.iter().map(|input| input.key.as_str());
        for key in inputs.chain(self.stage.unfingerprinted_keys()) {
            remove(&mut config, key);
        }
        // A GPU rounds differently than the CPU. Which of them it is, and how many, is no reason to lose what was trained.
        let device = (recipe.device != Device::Cpu).then(|| recipe.device.make());
        if self.stage.writes_model() || self.kind == "generate" || self.kind == "eval" {
            materials.extend(device.map(|device| ("device".to_owned(), device.to_owned())));
        }
        Ok(Depends::new(serde_json::json!({
            "format": Manifest::FORMAT,
            "schema": self.stage.output().map(|kind| (kind.to_string(), kind.version())),
            "kind": self.kind,
            "version": self.stage.version(),
            "config": config,
            "seed": recipe.seed,
            "shard_rows": recipe.shard_rows,
            "inputs": input_digests,
            "materials": materials,
        })))
    }
}

/// Removes a dotted key from a table, and a table within it that nothing is left of: that is as if neither had been
/// written. A number is an item of a list, `*` every one of them.
fn remove(value: &mut serde_json::Value, key: &str) {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (value, rest) {
        (serde_json::Value::Object(map), None) => drop(map.shift_remove(first)),
        (serde_json::Value::Object(map), Some(rest)) => {
            let Some(inner) = map.get_mut(first) else { return };
            remove(inner, rest);
            if inner.as_object().is_some_and(serde_json::Map::is_empty) {
                map.shift_remove(first);
            }
        }
        (serde_json::Value::Array(items), Some(rest)) => {
            let of_item = |i: &usize| first == "*" || first.parse() == Ok(*i);
            items.iter_mut().enumerate().filter(|(i, _)| of_item(i)).for_each(|(_, item)| remove(item, rest));
        }
        _ => {}
    }
}

/// Points an error at a key of a stage's table, dotted, or at as much of it as is written there.
fn locate(table: &StageTable, key: &str, error: Error) -> Error {
    match table.config.nearest(key) {
        Some(node) => node.origin.locate(error),
        None => table.origin.locate(error),
    }
}

/// The kind of dataset that a stage has for others.
fn dataset_of(stage: &dyn Stage) -> Option<DatasetKind> {
    stage.output().or_else(|| stage.beside().map(|(kind, _)| kind))
}

/// The kind of dataset that an input is, or will be.
fn kind_of<'s>(
    recipe: &Recipe,
    input: &Input,
    stage_of: impl Fn(&str) -> Option<&'s dyn Stage>,
) -> Result<Option<DatasetKind>> {
    match (stage_of(&input.of), input.wants) {
        (Some(stage), _) => Ok(dataset_of(stage)),
        (None, Wants::Dataset(_)) => {
            Dataset::open(&part_wanted(Location::parse(&recipe.resolve(&input.of))?, input.wants)?)?.kind()
        }
        (None, _) => Ok(None),
    }
}

fn check_input<'s>(
    recipe: &Recipe,
    table: &StageTable,
    input: &Input,
    stage_of: impl Fn(&str) -> Option<&'s dyn Stage>,
) -> Result<()> {
    match stage_of(&input.of) {
        Some(stage) => {
            let writes = match (stage.output(), stage.writes_model()) {
                (Some(kind), _) => kind.to_string(),
                (None, true) => "a model".to_owned(),
                (None, false) => "figures".to_owned(),
            };
            let wanted = match input.wants {
                Wants::Dataset(Some(kind)) => (dataset_of(stage) != Some(kind)).then(|| kind.to_string()),
                Wants::Dataset(None) => dataset_of(stage).is_none().then(|| "a dataset".to_owned()),
                Wants::Model => (!stage.writes_model()).then(|| "a model".to_owned()),
                Wants::Figures => None,
            };
            match wanted {
                None => Ok(()),
                Some(wanted) => {
                    let message =
                        format!("`{}` must be {wanted}, but the stage `{}` writes {writes}", input.key, input.of);
                    Err(locate(table, &input.key, Error::usage(message)))
                }
            }
        }
        None => {
            let path = recipe.resolve(&input.of);
            let location = Location::parse(&path)?;
            if location.exists()? {
                return part_wanted(location, input.wants).map(drop).map_err(|e| locate(table, &input.key, e));
            }
            let what = if input.wants == Wants::Model { "model's folder" } else { "dataset" };
            if recipe.is_one_stage {
                // There is no other stage that it could name: the default of an option that is missing, unless it stands
                // in a list or a table, which has none.
                let is_given = input.key.contains('.') || table.config.get(&input.key).is_some();
                let (error, hint) = match is_given {
                    false => (
                        Error::usage(format!("`{}` needs `{}`: a {what}", table.kind, input.key)),
                        format!("give it with `--{}`", input.key),
                    ),
                    true => (
                        Error::usage(format!("`{}` is no {what}: `{path}`", input.key)),
                        hub_hint(&input.of)
                            .unwrap_or_else(|| "there is no such file or folder: check the path".to_owned()),
                    ),
                };
                return Err(locate(table, &input.key, error).hint(hint));
            }
            let message = format!(
                "`{}` of the stage `{}` is neither a stage nor a {what}: `{}`",
                input.key, table.name, input.of
            );
            let names: Vec<&str> = recipe.stages.iter().map(|s| s.name.as_str()).collect();
            let hint = match nearest(&input.of, names.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the stages are: {}; no file or folder `{path}` exists", names.join(", ")),
            };
            let error = locate(table, &input.key, Error::usage(message)).hint(hint);
            Err(hub_hint(&input.of).into_iter().fold(error, Error::hint))
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

#[cfg(test)]
mod tests;
