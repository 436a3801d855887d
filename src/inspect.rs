//! What is in a Parquet file, a stage's folder or a run: `gristmill inspect`.
//!
//! Everything streams: statistics are gathered batch by batch and distinct values
//! estimated from a fixed number of hashes, so memory does not depend on the
//! dataset's size, and any location works.

mod column;
mod show;
mod verify;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde::Serialize;

pub use column::ColumnReport;
use column::ColumnStatistics;
pub use verify::{Verified, verify};

use crate::error::{Error, Result};
use crate::schema::{DatasetKind, VERSION_KEY};
use crate::store::{Dataset, Location, Manifest, RunFolder, cell_text, metrics_so_far};

/// Rows shown.
const SAMPLE_ROWS: usize = 3;

/// What [`inspect`] found; `Display` prints it for people, serde for programs.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
pub enum Inspection {
    /// A Parquet file, a stage's folder, or any folder of Parquet files.
    Dataset(Box<DatasetReport>),
    /// A stage's folder that holds no dataset in Parquet: of training, evaluation, export.
    Stage(Box<OtherReport>),
    /// A folder of stages.
    Run(RunReport),
}

/// A stage that wrote something else than Parquet shards.
#[derive(Clone, Debug, Serialize)]
pub struct OtherReport {
    /// Path or URL of the stage's folder.
    pub location: String,
    /// What its manifest says.
    pub stage: StageReport,
    /// What lies beside the manifest, folders with a `/` at the end.
    pub contents: Vec<String>,
}

/// One dataset, looked at whole.
#[derive(Clone, Debug, Serialize)]
pub struct DatasetReport {
    /// Path or URL of the file or folder.
    pub location: String,
    /// Null for files gristmill did not write.
    pub kind: Option<DatasetKind>,
    /// Version of the contract in the first file.
    pub version: Option<String>,
    /// What the manifest says; null without one.
    pub stage: Option<StageReport>,
    /// Of all files.
    pub rows: u64,
    /// Parquet row groups of all files: what readers stream by.
    pub row_groups: usize,
    /// Of all files as they are stored, compressed.
    pub bytes: u64,
    /// In the order in which they are read as one table.
    pub files: Vec<FileReport>,
    /// In the order of the first file.
    pub columns: Vec<ColumnReport>,
    /// The first rows: column to text, null where the value is.
    pub sample: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// One file of a dataset.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Its path within the dataset.
    pub name: String,
    /// As its footer says.
    pub rows: u64,
    /// As it is stored, compressed.
    pub bytes: u64,
}

/// What a stage's manifest says.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Last part of its path, such as `3_verify`.
    pub folder: String,
    /// The stage's name in the recipe.
    pub stage: String,
    /// What it does: `prompts`, `generate`, `verify` …
    pub kind: String,
    /// BLAKE3 of everything the output depends on, 64 hex digits.
    pub fingerprint: String,
    /// Of all shards; 0 where there are none.
    pub rows: u64,
    /// Files that the manifest lists.
    pub shards: usize,
    /// Of these files, as they are stored.
    pub bytes: u64,
    /// Rows that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Sums over its rows or steps, such as `steps` or `correct`.
    pub counts: BTreeMap<String, u64>,
    /// What else the stage noted, such as its engine or device.
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// A run: its stages in order, and the folders that are not finished.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Path or URL of the run's folder.
    pub location: String,
    /// Those with a manifest, in running order.
    pub stages: Vec<StageReport>,
    /// Stage folders without a manifest: begun, or killed before the end.
    pub unfinished: Vec<String>,
    /// Folders of stages that the recipe no longer has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_over: Vec<String>,
}

impl StageReport {
    fn new(folder: &str, manifest: &Manifest) -> StageReport {
        StageReport {
            folder: folder.to_owned(),
            stage: manifest.stage.clone(),
            kind: manifest.kind.clone(),
            fingerprint: manifest.fingerprint.clone(),
            rows: manifest.rows,
            shards: manifest.shards.len(),
            bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
            drops: manifest.drops.clone(),
            counts: manifest.counts.clone(),
            facts: manifest.facts.clone(),
        }
    }
}

/// Looks at a Parquet file, a stage's folder, a folder of Parquet files, or a run's folder; of a stage that trains and is
/// not finished, at its metrics so far.
///
/// # Errors
/// There is none of these at the location, or a file cannot be read.
pub fn inspect(location: &Location) -> Result<Inspection> {
    if location.size()?.is_none() {
        match Manifest::load(location)? {
            Some(manifest) if !manifest.shards.iter().any(|shard| shard.file.ends_with(".parquet")) => {
                return Ok(Inspection::Stage(Box::new(inspect_other(location, &manifest)?)));
            }
            Some(_) => {}
            None => {
                let run = inspect_run(location)?;
                if !run.stages.is_empty() || !run.unfinished.is_empty() {
                    return Ok(Inspection::Run(run));
                }
                if let Some(metrics) = metrics_so_far(location)? {
                    return Ok(Inspection::Dataset(Box::new(inspect_dataset(&metrics)?)));
                }
            }
        }
    }
    Ok(Inspection::Dataset(Box::new(inspect_dataset(location)?)))
}

fn inspect_other(location: &Location, manifest: &Manifest) -> Result<OtherReport> {
    let entries = location.list()?.into_iter().filter(|entry| !entry.name.starts_with('_'));
    let contents = entries.map(|entry| if entry.is_folder { entry.name + "/" } else { entry.name });
    let stage = StageReport::new(location.file_name(), manifest);
    Ok(OtherReport { location: location.to_string(), stage, contents: contents.collect() })
}

fn inspect_run(location: &Location) -> Result<RunReport> {
    let RunFolder { stages: folders, left_over, .. } = RunFolder::look(location)?;
    let mut stages = Vec::new();
    let mut unfinished = Vec::new();
    for folder in folders {
        match Manifest::load(&location.join(&folder))? {
            Some(manifest) => stages.push(StageReport::new(&folder, &manifest)),
            None => unfinished.push(folder),
        }
    }
    Ok(RunReport { location: location.to_string(), stages, unfinished, left_over })
}

fn inspect_dataset(location: &Location) -> Result<DatasetReport> {
    let dataset = Dataset::open(location)?;
    let kind = dataset.kind()?;
    let mut files = Vec::with_capacity(dataset.shards().len());
    let mut row_groups = 0;
    for shard in dataset.shards() {
        row_groups += shard.parquet_metadata()?.num_row_groups();
        files.push(FileReport { name: shard.name().to_owned(), rows: shard.rows()?, bytes: shard.bytes() });
    }
    let Some(first) = dataset.shards().first() else {
        return Err(Error::new("the dataset has no files").in_file(location));
    };
    let schema = first.schema()?.clone();
    let mut statistics: Vec<ColumnStatistics> =
        schema.fields().iter().map(|field| ColumnStatistics::new(field, kind)).collect();
    let mut sample = Vec::new();
    for shard in dataset.shards() {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        for batch in shard.batches(None, Some(&names))? {
            let batch = batch?;
            for statistics in &mut statistics {
                statistics.add(&batch).map_err(|e| e.in_file(shard))?;
            }
            for row in 0..batch.num_rows().min(SAMPLE_ROWS.saturating_sub(sample.len())) {
                sample.push(show_row(&batch, row));
            }
        }
    }
    Ok(DatasetReport {
        location: location.to_string(),
        kind,
        version: schema.metadata().get(VERSION_KEY).cloned(),
        stage: dataset.manifest().map(|manifest| StageReport::new(location.file_name(), manifest)),
        rows: dataset.rows()?,
        row_groups,
        bytes: dataset.bytes(),
        files,
        columns: statistics.into_iter().map(ColumnStatistics::report).collect(),
        sample,
    })
}

fn show_row(batch: &RecordBatch, row: usize) -> serde_json::Map<String, serde_json::Value> {
    let show = |column: &arrow::array::ArrayRef| match column.is_null(row) {
        true => serde_json::Value::Null,
        false => cell_text(column, row).unwrap_or_else(|| "<cannot be shown>".to_owned()).into(),
    };
    let schema = batch.schema();
    schema.fields().iter().zip(batch.columns()).map(|(field, column)| (field.name().clone(), show(column))).collect()
}

#[cfg(test)]
#[path = "inspect/tests.rs"]
mod tests;
