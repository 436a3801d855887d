//! Parquet rows as JSON: of a file, or of a folder's files as one table.

use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::{Row, is_read};
use crate::error::{Error, Result};
use crate::store::{Batches, Dataset, Location, Shard, cell_json, guarded};

/// The files of a path that names Parquet, in order: a file, or the shards of a folder. None for anything else.
///
/// # Errors
/// A folder that cannot be read, or has no Parquet file.
pub fn files(path: &str) -> Result<Option<Vec<PathBuf>>> {
    if !Path::new(path).is_dir() {
        return Ok(path.ends_with(".parquet").then(|| vec![PathBuf::from(path)]));
    }
    let folder = Dataset::open(&Location::parse(path)?)?;
    Ok(Some(folder.shards().iter().filter_map(|shard| shard.location().as_local().map(Path::to_owned)).collect()))
}

fn shard(file: &Path) -> Result<Shard> {
    let dataset = Dataset::open(&Location::from(file))?;
    dataset.shards().first().cloned().ok_or_else(|| Error::new("this is no Parquet file").in_file(file.display()))
}

/// The columns of a file.
///
/// # Errors
/// The file is not there, or is not Parquet.
pub fn schema(file: &Path) -> Result<SchemaRef> {
    Ok(shard(file)?.schema()?.clone())
}

/// The rows of a file, in batches of at most `size` that hold what they seem to. Ends after the first error.
pub struct Tables {
    file: String,
    size: usize,
    batches: Batches,
    /// What is left of the last batch.
    rest: Option<RecordBatch>,
}

impl Tables {
    /// All columns, or those that rules may read and those of these names.
    ///
    /// # Errors
    /// The file is not there, or is not Parquet.
    pub fn open(file: &Path, size: usize, only_read: Option<&[String]>) -> Result<Tables> {
        let shard = shard(file)?;
        let names: Vec<&str> = shard.schema()?.fields().iter().map(|field| field.name().as_str()).collect();
        let read = only_read.map(|more| names.into_iter().filter(|name| is_read(name, more)).collect::<Vec<_>>());
        let batches = shard.batches(None, read.as_deref())?;
        Ok(Tables { file: shard.to_string(), size, batches, rest: None })
    }
}

impl Iterator for Tables {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = match self.rest.take() {
            Some(rest) => rest,
            None => match self.batches.next()?.and_then(|batch| whole(&self.file, batch)) {
                Ok(batch) => batch,
                Err(error) => return Some(Err(error)),
            },
        };
        let rows = batch.num_rows();
        if rows > self.size {
            self.rest = Some(batch.slice(self.size, rows - self.size));
        }
        Some(Ok(batch.slice(0, rows.min(self.size))))
    }
}

/// The batch, if its texts are texts and its offsets lead into it: of a damaged file they may not.
fn whole(file: &str, batch: RecordBatch) -> Result<RecordBatch> {
    guarded(file, || {
        batch.columns().iter().try_for_each(|column| column.to_data().validate_full())?;
        Ok(batch)
    })
}

/// The columns of a batch that rules may read.
pub struct Columns(Vec<(String, ArrayRef)>);

impl Columns {
    /// Of all the batch has, with those of the names in `more`.
    pub fn of(batch: &RecordBatch, more: &[String]) -> Columns {
        let schema = batch.schema();
        let read = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| is_read(field.name(), more));
        Columns(read.map(|(field, column)| (field.name().clone(), column.clone())).collect())
    }

    /// One row.
    pub fn row(&self, i: usize) -> Row {
        self.0.iter().map(|(name, column)| (name.clone(), cell_json(column, i))).collect()
    }
}

/// Hands on what rules read of each row, in chunks of at most `size`, in order.
///
/// # Errors
/// A file that cannot be read, or what `each` fails with.
pub(super) fn read(
    files: &[PathBuf],
    size: usize,
    more: &[String],
    mut each: impl FnMut(Vec<Row>) -> Result<()>,
) -> Result<()> {
    for file in files {
        for batch in Tables::open(file, size, Some(more))? {
            let batch = batch?;
            let columns = Columns::of(&batch, more);
            each((0..batch.num_rows()).map(|i| columns.row(i)).collect())?;
        }
    }
    Ok(())
}
