//! What a stage reads: which datasets and models those are, whether they are what it wants, and whether they are as
//! they were written.

use std::collections::BTreeMap;

use super::digests::Digests;
use super::models::damaged_model;
use super::plan::{Plan, Planned, locate};
use super::stage_folder::part_wanted;
use crate::error::{Error, Result, nearest};
use crate::recipe::{Recipe, StageTable};
use crate::schema::DatasetKind;
use crate::stage::layout::MODEL;
use crate::stage::{Input, Stage, Wants};
use crate::store::{Dataset, Location, Manifest, hub_hint};

/// A stage's inputs, opened.
#[derive(Default)]
pub(super) struct Inputs {
    pub datasets: BTreeMap<String, Dataset>,
    /// Models, and stages whose figures are read.
    pub folders: BTreeMap<String, Location>,
    /// What names the content of a folder that a stage made.
    pub digests: BTreeMap<String, String>,
}

impl Planned {
    /// Opens the inputs: other stages' folders, or datasets and models of the user's.
    pub(super) fn open_inputs(&self, plan: &Plan, recipe: &Recipe) -> Result<Inputs> {
        let mut inputs = Inputs::default();
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
                inputs.datasets.insert(input.key.clone(), dataset);
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
            inputs.digests.extend(manifest.map(|manifest| (input.key.clone(), manifest.digest())));
            inputs.folders.insert(input.key.clone(), model);
        }
        Ok(inputs)
    }

    /// Compares the shards of inputs with what their manifests say was written. A shard is read once for this, and
    /// again when its size or time changes; object stores look after their bytes themselves.
    ///
    /// # Errors
    /// A shard has other bytes, though as many.
    pub(super) fn check_inputs(&self, digests: &Digests<'_>, inputs: &Inputs) -> Result<()> {
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
}

/// The kind of dataset that a stage has for others.
fn dataset_of(stage: &dyn Stage) -> Option<DatasetKind> {
    stage.output().or_else(|| stage.beside().map(|(kind, _)| kind))
}

/// The kind of dataset that an input is, or will be.
pub(super) fn kind_of<'s>(
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

/// Fails unless an input is a stage, or something of the user's, of the kind that it has to be.
///
/// # Errors
/// An input that does not fit, with the place of its key in the recipe.
pub(super) fn check_input<'s>(
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
