//! Parquet rows as JSON: of a file, or of a folder's files as one table.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};

use super::{Row, is_read};
use crate::error::{Context, Result};
use crate::store::{Dataset, Location};

/// Most bytes of the rows read at once.
const MAX_BATCH: i64 = 64 << 20;

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

/// A reader of batches of at most `size` rows, fewer where rows are large.
///
/// # Errors
/// The file is not there, or is not Parquet.
pub fn open(file: &Path, size: usize) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let source = File::open(file).or_fail(|| format!("cannot read {}", file.display()))?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(source).or_fail(|| format!("{} is not Parquet", file.display()))?;
    let fit = batch_size(builder.metadata(), size);
    Ok(builder.with_batch_size(fit))
}

fn batch_size(metadata: &ParquetMetaData, most: usize) -> usize {
    let largest = metadata.row_groups().iter().map(|group| group.total_byte_size() / group.num_rows().max(1)).max();
    let fit = MAX_BATCH / largest.unwrap_or(0).max(1);
    usize::try_from(fit).unwrap_or(most).clamp(1, most)
}

/// The columns of a batch that rules may read, without dictionaries.
pub struct Columns(Vec<(String, ArrayRef)>);

impl Columns {
    /// # Errors
    /// A dictionary that does not decode.
    pub fn of(batch: &RecordBatch) -> Result<Columns> {
        let schema = batch.schema();
        let read = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| is_read(field.name()));
        let columns = read.map(|(field, column)| {
            let column = match column.data_type() {
                DataType::Dictionary(_, values) => arrow::compute::cast(column, values)
                    .or_fail(|| format!("cannot read the column `{}`", field.name()))?,
                _ => column.clone(),
            };
            Ok((field.name().clone(), column))
        });
        Ok(Columns(columns.collect::<Result<_>>()?))
    }

    /// One row.
    pub fn row(&self, i: usize) -> Row {
        self.0.iter().map(|(name, column)| (name.clone(), json(column, i))).collect()
    }
}

/// Hands on what rules read of each row, in chunks of at most `size`, in order.
///
/// # Errors
/// A file that cannot be read, or what `each` fails with.
pub(super) fn read(files: &[PathBuf], size: usize, mut each: impl FnMut(Vec<Row>) -> Result<()>) -> Result<()> {
    for file in files {
        let unread = || format!("cannot read {}", file.display());
        for batch in open(file, size)?.build().or_fail(unread)? {
            let batch = batch.or_fail(unread)?;
            let columns = Columns::of(&batch)?;
            each((0..batch.num_rows()).map(|i| columns.row(i)).collect())?;
        }
    }
    Ok(())
}

/// One value as JSON; bytes, and numbers that JSON does not have, are null.
fn json(array: &ArrayRef, i: usize) -> Value {
    if array.is_null(i) {
        return Value::Null;
    }
    let any = array.as_any();
    if let Some(texts) = any.downcast_ref::<StringArray>() {
        return texts.value(i).into();
    }
    if let Some(texts) = any.downcast_ref::<LargeStringArray>() {
        return texts.value(i).into();
    }
    if let Some(texts) = any.downcast_ref::<StringViewArray>() {
        return texts.value(i).into();
    }
    if let Some(flags) = any.downcast_ref::<BooleanArray>() {
        return flags.value(i).into();
    }
    match array.data_type() {
        DataType::List(_) => list(&array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(i)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let map: Map<String, Value> =
                fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), json(column, i))).collect();
            Value::Object(map)
        }
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(i)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Value::Null,
        // As it is printed: an f32 of 0.1 is 0.1, and no 64-bit integer is rounded.
        kind if kind.is_numeric() => {
            let text = array_value_to_string(array, i).unwrap_or_default();
            serde_json::from_str::<serde_json::Number>(&text).map_or(Value::Null, Value::Number)
        }
        _ => array_value_to_string(array, i).map_or(Value::Null, Value::String),
    }
}

fn list(items: &ArrayRef) -> Value {
    Value::Array((0..items.len()).map(|i| json(items, i)).collect())
}
