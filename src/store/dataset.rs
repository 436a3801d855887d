//! A dataset: which files it is made of, and what their footers say.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::ParquetMetaData;

use super::reader::{self, Batches, Rows};
use super::{Entry, Location, MANIFEST_FILE, Manifest};
use crate::error::{Error, Result};
use crate::schema::{DatasetKind, Row, SCHEMA_KEY};

/// Parquet files read as one table, in file order.
#[derive(Clone, Debug)]
pub struct Dataset {
    location: Location,
    shards: Vec<Shard>,
    manifest: Option<Arc<Manifest>>,
}

/// One Parquet file of a dataset. Its footer is read when first asked for, once.
#[derive(Clone)]
pub struct Shard(Arc<ShardInner>);

struct ShardInner {
    location: Location,
    name: String,
    bytes: u64,
    mark: Option<String>,
    footer: OnceLock<ArrowReaderMetadata>,
}

/// What a training stage measured: a table of all that equal runs have in common, with a row an optimizer step.
pub const METRICS: &str = "metrics.parquet";

/// Whether entries of a folder without a manifest are of a stage that has trained some steps and is not finished.
fn is_training(entries: &[Entry]) -> bool {
    let has = |name: &str, is_folder: bool| entries.iter().any(|e| e.name == name && e.is_folder == is_folder);
    has("checkpoints", true) && has(METRICS, false)
}

/// The metrics so far of a training stage that is not finished; `None` of any other folder.
///
/// # Errors
/// The folder cannot be listed.
pub fn metrics_so_far(folder: &Location) -> Result<Option<Location>> {
    let entries = folder.list()?;
    let finished = entries.iter().any(|entry| entry.name == MANIFEST_FILE);
    Ok((!finished && is_training(&entries)).then(|| folder.join(METRICS)))
}

impl Dataset {
    /// Opens one Parquet file, a stage's folder (its manifest says which files), a Hugging Face
    /// layout (`data/*.parquet`, every split; see [`Dataset::split`]), or any folder of Parquet files. Files
    /// whose names begin with `_` or `.` are no data: other programs' metadata and temporary files.
    ///
    /// # Errors
    /// There is nothing, or nothing in Parquet; the stage that wrote the folder leaves no rows in it; a shard of the
    /// manifest is missing or has another size.
    pub fn open(location: &Location) -> Result<Dataset> {
        if let Some(entry) = location.look()? {
            let shard = Shard::new(location.clone(), entry.name, entry.bytes, entry.mark);
            return Ok(Dataset { location: location.clone(), shards: vec![shard], manifest: None });
        }
        if let Some(manifest) = Manifest::load(location)? {
            return Dataset::of_manifest(location, manifest);
        }
        let mut shards = Vec::new();
        let entries = location.list()?;
        if is_training(&entries) {
            return Err(Error::new(
                "the stage that trains a model here is not finished: it has no rows for others yet",
            )
            .in_file(location)
            .hint(format!("run it again to go on; `{METRICS}` in the folder says how far it is")));
        }
        let has_data = entries.iter().any(|entry| entry.is_folder && entry.name == "data");
        for (prefix, folder) in [("data/", location.join("data")), ("", location.clone())] {
            if !shards.is_empty() || (prefix == "data/" && !has_data) {
                continue;
            }
            let entries = folder.list()?;
            let is_data = |entry: &Entry| {
                !entry.is_folder && entry.name.ends_with(".parquet") && !entry.name.starts_with(['_', '.'])
            };
            shards.extend(entries.into_iter().filter(is_data).map(|entry| {
                let name = format!("{prefix}{}", entry.name);
                Shard::new(folder.join(&entry.name), name, entry.bytes, entry.mark)
            }));
        }
        if shards.is_empty() {
            let error = if location.exists()? {
                let unfinished = entries.iter().any(|entry| entry.name.contains(".parquet.tmp-"));
                let hint = if unfinished {
                    "the stage that writes it did not finish: run it again"
                } else {
                    "give a Parquet file or a folder of them"
                };
                Error::new("there is no Parquet file in this folder").hint(hint)
            } else {
                Error::new("there is no such file or folder").hint("check the path")
            };
            return Err(error.in_file(location));
        }
        Ok(Dataset { location: location.clone(), shards, manifest: None })
    }

    fn of_manifest(location: &Location, manifest: Manifest) -> Result<Dataset> {
        if !manifest.has_rows() {
            return Err(Error::new(format!("the folder of a finished stage `{}` holds no dataset", manifest.kind))
                .in_file(location)
                .hint("give a folder in it that holds Parquet files, or the folder of a stage that writes a dataset"));
        }
        manifest.check_shards(location)?;
        let shards = manifest
            .shards
            .iter()
            .map(|info| Shard::new(location.join(&info.file), info.file.clone(), info.bytes, None));
        let shards = shards.collect();
        Ok(Dataset { location: location.clone(), shards, manifest: Some(Arc::new(manifest)) })
    }

    /// Where it lies.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Its files, in order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The stage's manifest, if it has one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_deref()
    }

    /// Only the files of a split (`train`, `validation`): those called `train-…` or `train.parquet`.
    pub fn split(&self, name: &str) -> Dataset {
        let of_split = |shard: &&Shard| {
            let file = shard.name().rsplit('/').next().unwrap_or_default();
            file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-') || rest == ".parquet")
        };
        Dataset { shards: self.shards.iter().filter(of_split).cloned().collect(), ..self.clone() }
    }

    /// Rows of all shards, from their footers.
    ///
    /// # Errors
    /// A footer cannot be read.
    pub fn rows(&self) -> Result<u64> {
        self.shards.iter().map(Shard::rows).sum()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(Shard::bytes).sum()
    }

    /// The kind the manifest or the first file's metadata names; `None` for files that gristmill did not write.
    ///
    /// # Errors
    /// The first footer cannot be read.
    pub fn kind(&self) -> Result<Option<DatasetKind>> {
        if let Some(schema) = self.manifest.as_ref().and_then(|manifest| manifest.schema.as_ref()) {
            return Ok(Some(schema.name));
        }
        let Some(shard) = self.shards.first() else { return Ok(None) };
        Ok(shard.schema()?.metadata().get(SCHEMA_KEY).and_then(|name| DatasetKind::parse(name)))
    }

    /// Checks every shard's columns against the contract, reading footers only.
    ///
    /// # Errors
    /// As [`DatasetKind::check`], naming the file.
    pub fn check(&self, kind: DatasetKind, columns: Option<&[&str]>) -> Result<()> {
        self.shards
            .iter()
            .try_for_each(|shard| kind.check(shard.schema()?, columns).map(drop).map_err(|e| e.in_file(shard)))
    }

    /// The batches of all shards, one after the other; see [`Shard::batches`].
    pub fn batches<'a>(
        &'a self,
        kind: Option<DatasetKind>,
        columns: Option<&'a [&'a str]>,
    ) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        self.shards.iter().flat_map(move |shard| -> Box<dyn Iterator<Item = Result<RecordBatch>>> {
            match shard.batches(kind, columns) {
                Ok(batches) => Box::new(batches),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        })
    }

    /// The rows of all shards, one after the other.
    pub fn rows_of<R: Row + Send + 'static>(&self) -> impl Iterator<Item = Result<R>> + Send + '_ {
        self.shards.iter().flat_map(|shard| -> Box<dyn Iterator<Item = Result<R>> + Send> {
            match shard.rows_of::<R>() {
                Ok(rows) => Box::new(rows),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        })
    }
}

impl Shard {
    fn new(location: Location, name: String, bytes: u64, mark: Option<String>) -> Shard {
        Shard(Arc::new(ShardInner { location, name, bytes, mark, footer: OnceLock::new() }))
    }

    /// Where it lies.
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// Its path within the dataset.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Of an object, what changes when its bytes do; see [`Entry::mark`].
    pub fn mark(&self) -> Option<&str> {
        self.0.mark.as_deref()
    }

    pub(super) fn footer(&self) -> Result<&ArrowReaderMetadata> {
        if let Some(footer) = self.0.footer.get() {
            return Ok(footer);
        }
        let footer = reader::load_footer(&self.0.location, self.0.bytes)?;
        Ok(self.0.footer.get_or_init(|| footer))
    }

    /// Rows, from the footer.
    ///
    /// # Errors
    /// The file is no Parquet file, or cannot be read.
    pub fn rows(&self) -> Result<u64> {
        Ok(u64::try_from(self.parquet_metadata()?.file_metadata().num_rows()).unwrap_or(0))
    }

    /// The Arrow schema of the file as it is.
    ///
    /// # Errors
    /// As [`Shard::rows`].
    pub fn schema(&self) -> Result<&SchemaRef> {
        Ok(self.footer()?.schema())
    }

    /// The footer: row groups, sizes, statistics.
    ///
    /// # Errors
    /// As [`Shard::rows`].
    pub fn parquet_metadata(&self) -> Result<&ParquetMetaData> {
        Ok(self.footer()?.metadata())
    }

    /// Streams the file row group by row group. Under a `kind` the columns are checked and cast to its
    /// contract; `columns` picks some, in that order. Batches hold at most 8,192 rows and some 32 MiB.
    ///
    /// # Errors
    /// The schema does not fit, or the file cannot be read; while iterating, a damaged page, a null or
    /// a number where the contract allows none, with the row.
    pub fn batches(&self, kind: Option<DatasetKind>, columns: Option<&[&str]>) -> Result<Batches> {
        Batches::open(self, kind, columns, None)
    }

    /// Streams one row group; see [`Shard::batches`].
    ///
    /// # Errors
    /// As [`Shard::batches`]; there is no such row group.
    pub fn row_group(&self, index: usize, kind: Option<DatasetKind>, columns: Option<&[&str]>) -> Result<Batches> {
        Batches::open(self, kind, columns, Some(index..index + 1))
    }

    /// Streams a range of the file's rows, decoding only the row groups it touches; see [`Shard::batches`].
    ///
    /// # Errors
    /// As [`Shard::batches`].
    pub fn rows_in(&self, rows: Range<u64>, kind: Option<DatasetKind>, columns: Option<&[&str]>) -> Result<Batches> {
        let (mut first, mut groups, mut start) = (0, 0..0, 0);
        for (index, group) in self.parquet_metadata()?.row_groups().iter().enumerate() {
            let end = first + group.num_rows().max(0) as u64;
            if end <= rows.start {
                (groups, start) = (index + 1..index + 1, end);
            } else if first < rows.end {
                groups.end = index + 1;
            }
            first = end;
        }
        let window = (rows.start - start) as usize..(rows.end.max(rows.start) - start) as usize;
        Batches::open_window(self, kind, columns, Some(groups), Some(window))
    }

    /// Streams the file as row structs.
    ///
    /// # Errors
    /// As [`Shard::batches`].
    pub fn rows_of<R: Row>(&self) -> Result<Rows<R>> {
        Ok(Rows::new(self.batches(Some(R::KIND), None)?))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.location.fmt(f)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({})", self.0.location)
    }
}
