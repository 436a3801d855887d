//! The folder of a finished stage, given as a path: which part of it an input means.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::schema::DatasetKind;
use crate::stage::Wants;
use crate::stage::layout::{MODEL, ROLLOUTS};
use crate::store::{Location, MARKER, Manifest, RunFolder};

/// The model that a path of the command line means: a model's folder, that of a stage that trained one, or that of a run in
/// which one stage did.
///
/// # Errors
/// A stage that trained none, a run in which several did; the disk or store refuses.
pub fn find_model(path: &str) -> Result<Location> {
    let folder = part_wanted(Location::parse(path)?, Wants::Model)?;
    // The run's marker is what a model's folder has not.
    if !folder.join(MARKER).exists()? {
        return Ok(folder);
    }
    let mut models = Vec::new();
    for stage in RunFolder::look(&folder)?.stages {
        let stage = folder.join(&stage);
        if Manifest::load(&stage)?.is_some_and(|manifest| has(&manifest, MODEL)) {
            models.push(stage);
        }
    }
    match models.as_slice() {
        [] => Err(Error::usage(format!("{folder} is a run in which no stage has trained a model to its end"))
            .hint("give a folder with config.json, or that of a stage that trains a model")),
        [only] => Ok(only.join(MODEL)),
        several => {
            let names = several.iter().map(Location::to_string).collect::<Vec<_>>().join(", ");
            Err(Error::usage(format!("{folder} is a run with {} models", several.len()))
                .hint(format!("give the folder of one of its stages: {names}")))
        }
    }
}

/// Whether a stage's manifest lists files of this part of its folder.
fn has(manifest: &Manifest, part: &str) -> bool {
    manifest.listed().any(|(file, ..)| file.split('/').next() == Some(part))
}

/// Where what an input wants lies in a folder that is none of the plan's: the folder itself, unless a stage wrote it and
/// keeps that in a part of it. Naming the stage comes to the same place.
///
/// # Errors
/// A stage's folder that holds nothing of the kind; the disk or store refuses.
pub(super) fn part_wanted(folder: Location, wants: Wants) -> Result<Location> {
    let Some(manifest) = Manifest::load(&folder)? else { return Ok(folder) };
    let has = |part: &str| has(&manifest, part);
    let wanted = match wants {
        Wants::Figures => return Ok(folder),
        Wants::Dataset(_) if manifest.has_rows() => return Ok(folder),
        Wants::Dataset(None | Some(DatasetKind::Groups)) if has(ROLLOUTS) => return Ok(folder.join(ROLLOUTS)),
        Wants::Model if has(MODEL) => return Ok(folder.join(MODEL)),
        Wants::Dataset(Some(kind)) => kind.to_string(),
        Wants::Dataset(None) => "dataset".to_owned(),
        Wants::Model => "model".to_owned(),
    };
    let parts: BTreeSet<String> = manifest
        .listed()
        .map(|(file, ..)| file.split_once('/').map_or(file.to_owned(), |(part, _)| format!("{part}/")))
        .collect();
    let parts = parts.into_iter().collect::<Vec<_>>().join(", ");
    let holds = if parts.is_empty() { "nothing".to_owned() } else { parts };
    let hint = match wants {
        Wants::Model => "give the folder of a stage that trains a model, or a folder with config.json".to_owned(),
        Wants::Dataset(Some(_)) => {
            format!("give a dataset of the kind `{wanted}`: the folder of a stage that writes it, or Parquet files")
        }
        _ => "give a dataset: the folder of a stage that writes one, or Parquet files".to_owned(),
    };
    // The place is the recipe's, where the folder is named.
    let kind = &manifest.kind;
    Err(Error::usage(format!("{folder} is the folder of a stage `{kind}`, which holds no {wanted}: it has {holds}"))
        .hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FileInfo, ShardInfo};

    fn folder(kind: &str, schema: Option<DatasetKind>, shards: &[&str], files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let shard = |file: &&str| ShardInfo { file: (*file).to_owned(), rows: 1, bytes: 1, blake3: String::new() };
        let mut manifest = Manifest::new(kind, kind, schema, "f", shards.iter().map(shard).collect());
        let info = |file: &&str| FileInfo { file: (*file).to_owned(), bytes: 1, blake3: String::new() };
        manifest.files = files.iter().map(info).collect();
        manifest.commit(&Location::from(folder.path())).unwrap();
        folder
    }

    #[test]
    fn a_run_stands_for_its_only_model() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().to_str().unwrap();
        let find = || find_model(path).map(|found| found.to_string()).map_err(|error| error.render(false));
        assert_eq!(find().unwrap(), path, "any other folder is the model's own");
        let stage = |name: &str, file: &str| {
            let mut manifest = Manifest::new(name, name, None, "f", Vec::new());
            manifest.files = vec![FileInfo { file: file.to_owned(), bytes: 1, blake3: String::new() }];
            manifest.commit(&Location::from(run.path().join(name).as_path())).unwrap();
        };
        std::fs::write(run.path().join(MARKER), r#"{"name": "r", "stages": ["base", "eval", "rl"]}"#).unwrap();
        stage("2_eval", "evals.parquet");
        assert!(find().unwrap_err().contains("no stage has trained a model"), "{:?}", find());
        stage("1_base", "model/config.json");
        assert_eq!(find().unwrap(), format!("{path}/1_base/model"));
        stage("3_rl", "model/config.json");
        let told = find().unwrap_err();
        assert!(told.contains("a run with 2 models") && told.contains("1_base, ") && told.contains("3_rl"), "{told}");
    }

    #[test]
    fn a_stages_folder_stands_for_what_the_input_wants_of_it() {
        let groups = Wants::Dataset(Some(DatasetKind::Groups));
        let rl = folder("grpo", None, &[], &["metrics.parquet", "model/config.json", "rollouts/part-00000.parquet"]);
        let part = |folder: &tempfile::TempDir, wants| {
            let path = Location::from(folder.path());
            let found = part_wanted(path.clone(), wants).map_err(|error| error.render(false));
            found.map(|found| found.to_string().replace(&path.to_string(), ""))
        };
        assert_eq!(part(&rl, groups).unwrap(), "/rollouts");
        assert_eq!(part(&rl, Wants::Dataset(None)).unwrap(), "/rollouts");
        assert_eq!(part(&rl, Wants::Model).unwrap(), "/model");
        assert_eq!(part(&rl, Wants::Figures).unwrap(), "");
        let told = part(&rl, Wants::Dataset(Some(DatasetKind::Corpus))).unwrap_err();
        assert!(
            told.contains("a stage `grpo`, which holds no corpus: it has metrics.parquet, model/, rollouts/"),
            "{told}"
        );
        let verified = folder("verify", Some(DatasetKind::Verdicts), &[], &[]);
        assert_eq!(part(&verified, groups).unwrap(), "", "whether it is of the kind, its columns tell");
        assert!(part(&verified, Wants::Model).unwrap_err().contains("which holds no model: it has nothing"));
        let texts = folder("export", None, &["train-00000-of-00001.jsonl"], &[]);
        assert!(part(&texts, groups).unwrap_err().contains("holds no groups: it has train-00000-of-00001.jsonl"));
        let rows = folder("export", None, &["train-00000-of-00001.parquet"], &[]);
        assert_eq!(part(&rows, Wants::Dataset(None)).unwrap(), "");
        assert_eq!(part(&tempfile::tempdir().unwrap(), Wants::Model).unwrap(), "", "no stage wrote it");
        assert!(crate::store::Dataset::open(&Location::from(rl.path())).is_err(), "no rows are not an empty dataset");
    }
}
