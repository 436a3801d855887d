//! Parquet of any schema: record batches turned into JSON objects, row by row.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use serde_json::{Map, Number, Value};

use super::{Item, Place, Row};
use crate::Result;
use crate::error::Context;
use crate::store::guarded;

/// Rows held at once. Small: rows of reasoning data reach hundreds of kilobytes.
const BATCH_ROWS: usize = 256;

/// The rows of an open Parquet file.
pub(super) fn rows(file: File, path: &Path) -> Result<impl Iterator<Item = Result<Item>> + Send + use<>> {
    let path = path.display().to_string();
    let reader = guarded(&path, || {
        ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.with_batch_size(BATCH_ROWS).build())
    })?;
    Ok(Batches { reader, path, ready: Vec::new().into_iter(), row: 0, done: false })
}

struct Batches {
    reader: ParquetRecordBatchReader,
    path: String,
    ready: std::vec::IntoIter<Map<String, Value>>,
    row: u64,
    done: bool,
}

impl Batches {
    fn objects(&mut self) -> Result<Option<Vec<Map<String, Value>>>> {
        let read = guarded(&self.path, || {
            let batch = self.reader.next().transpose().map_err(ParquetError::from)?;
            // A damaged batch may show only where its cells are read.
            Ok(batch.map(|batch| objects(&batch)))
        });
        read?.transpose()
    }
}

impl Iterator for Batches {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(columns) = self.ready.next() {
                let place = Place { row: self.row, line: None };
                self.row += 1;
                return Some(Ok(Item::Row(Row { place, columns })));
            }
            if self.done {
                return None;
            }
            match self.objects() {
                Ok(Some(objects)) => self.ready = objects.into_iter(),
                Ok(None) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error.in_file(&self.path).at_row(self.row)));
                }
            }
        }
    }
}

fn objects(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>> {
    let schema = batch.schema();
    let mut rows = vec![Map::with_capacity(batch.num_columns()); batch.num_rows()];
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        for (index, row) in rows.iter_mut().enumerate() {
            let value = value(column.as_ref(), index).map_err(|error| error.in_field(field.name()))?;
            row.insert(field.name().clone(), value);
        }
    }
    Ok(rows)
}

/// One cell as JSON. Types without a JSON form (dates, decimals) become text; bytes must be UTF-8 or are left out.
fn value(array: &dyn Array, index: usize) -> Result<Value> {
    if array.is_null(index) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($kind:ty) => {
            Value::Number(array.as_primitive::<$kind>().value(index).into())
        };
    }
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(index)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(index).to_f64()),
        DataType::Float32 => float(f64::from(array.as_primitive::<Float32Type>().value(index))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(index)),
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(index).to_owned()),
        DataType::LargeUtf8 => Value::String(array.as_string::<i64>().value(index).to_owned()),
        DataType::Utf8View => Value::String(array.as_string_view().value(index).to_owned()),
        DataType::Binary => bytes(array.as_binary::<i32>().value(index)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(index)),
        DataType::BinaryView => bytes(array.as_binary_view().value(index)),
        DataType::List(_) => list(array.as_list::<i32>().value(index).as_ref())?,
        DataType::LargeList(_) => list(array.as_list::<i64>().value(index).as_ref())?,
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(index).as_ref())?,
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let mut object = Map::with_capacity(fields.len());
            for (field, column) in fields.iter().zip(array.columns()) {
                object.insert(field.name().clone(), value(column.as_ref(), index)?);
            }
            Value::Object(object)
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(index);
            let mut object = Map::with_capacity(entries.len());
            for entry in 0..entries.len() {
                let key = match value(entries.column(0).as_ref(), entry)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, value(entries.column(1).as_ref(), entry)?);
            }
            Value::Object(object)
        }
        DataType::Dictionary(_, _) => {
            let array = array.as_any_dictionary();
            let key = array.normalized_keys()[index];
            value(array.values().as_ref(), key)?
        }
        _ => {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default())
                .or_fail(|| format!("a column of type {} cannot be read", array.data_type()))?;
            Value::String(formatter.value(index).to_string())
        }
    })
}

fn list(array: &dyn Array) -> Result<Value> {
    (0..array.len()).map(|index| value(array, index)).collect::<Result<_>>().map(Value::Array)
}

fn bytes(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or(Value::Null, |text| Value::String(text.to_owned()))
}
