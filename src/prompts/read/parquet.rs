//! Parquet of any schema: record batches turned into JSON objects, row by row.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use serde_json::{Map, Number, Value};

use super::{Format, Item, Place, Row, Rows};
use crate::Result;
use crate::schema::{DatasetKind, SCHEMA_KEY};
use crate::store::{cell_text, guarded};

/// Rows held at once. Small: rows of reasoning data reach hundreds of kilobytes.
const BATCH_ROWS: usize = 256;

/// The rows of an open Parquet file.
pub(super) fn rows(file: File, path: &Path) -> Result<Rows> {
    let path = path.display().to_string();
    let (reader, dataset) = guarded(&path, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let dataset = builder.schema().metadata().get(SCHEMA_KEY).cloned();
        Ok((builder.with_batch_size(BATCH_ROWS).build()?, dataset))
    })?;
    let items = Box::new(Batches { reader, path, ready: Vec::new().into_iter(), row: 0, done: false });
    Ok(Rows { items, format: Format::Parquet, is_prompts: dataset.as_deref() == Some(DatasetKind::Prompts.as_str()) })
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
        guarded(&self.path, || {
            let batch = self.reader.next().transpose().map_err(ParquetError::from)?;
            // A damaged batch may show only where its cells are read.
            Ok(batch.map(|batch| objects(&batch)))
        })
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

fn objects(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    let mut rows = vec![Map::with_capacity(batch.num_columns()); batch.num_rows()];
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        for (index, row) in rows.iter_mut().enumerate() {
            row.insert(field.name().clone(), value(column.as_ref(), index));
        }
    }
    rows
}

/// One cell as JSON. Types without a JSON form (dates, decimals) become text; what has none either, such as bytes that are
/// not UTF-8, is null.
fn value(array: &dyn Array, index: usize) -> Value {
    if array.is_null(index) {
        return Value::Null;
    }
    macro_rules! number {
        ($kind:ty) => {
            Value::Number(array.as_primitive::<$kind>().value(index).into())
        };
    }
    let float = |x: f64| Number::from_f64(x).map_or(Value::Null, Value::Number);
    match array.data_type() {
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
        DataType::Float16 => float(shortest_f16(array.as_primitive::<Float16Type>().value(index))),
        DataType::Float32 => float(shortest_f32(array.as_primitive::<Float32Type>().value(index))),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(index)),
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(index).to_owned()),
        DataType::LargeUtf8 => Value::String(array.as_string::<i64>().value(index).to_owned()),
        DataType::Utf8View => Value::String(array.as_string_view().value(index).to_owned()),
        DataType::Binary => bytes(array.as_binary::<i32>().value(index)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(index)),
        DataType::BinaryView => bytes(array.as_binary_view().value(index)),
        DataType::List(_) => list(array.as_list::<i32>().value(index).as_ref()),
        DataType::LargeList(_) => list(array.as_list::<i64>().value(index).as_ref()),
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(index).as_ref()),
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let mut object = Map::with_capacity(fields.len());
            for (field, column) in fields.iter().zip(array.columns()) {
                object.insert(field.name().clone(), value(column.as_ref(), index));
            }
            Value::Object(object)
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(index);
            let mut object = Map::with_capacity(entries.len());
            for entry in 0..entries.len() {
                let key = match value(entries.column(0).as_ref(), entry) {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                object.insert(key, value(entries.column(1).as_ref(), entry));
            }
            Value::Object(object)
        }
        DataType::Dictionary(_, _) => {
            let array = array.as_any_dictionary();
            let key = array.normalized_keys()[index];
            value(array.values().as_ref(), key)
        }
        _ => cell_text(array, index).map_or(Value::Null, Value::String),
    }
}

/// The number that its shortest decimal form says: 0.1 where it is stored as 0.100000001490116, since a gold
/// answer is what was written and not how it was kept.
fn shortest_f32(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::NAN)
}

/// As [`shortest_f32`]: the fewest digits that lead back to the stored number, all of them of a whole one.
fn shortest_f16(x: half::f16) -> f64 {
    let exact = x.to_f64();
    if exact.fract() == 0.0 {
        return exact;
    }
    let rounded = (0..5).filter_map(|digits| format!("{exact:.digits$e}").parse::<f64>().ok());
    let mut same = rounded.filter(|rounded| half::f16::from_f64(*rounded) == x);
    same.next().unwrap_or(exact)
}

fn list(array: &dyn Array) -> Value {
    (0..array.len()).map(|index| value(array, index)).collect()
}

fn bytes(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or(Value::Null, |text| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float16Array, Float32Array, TimestampMicrosecondArray, TimestampSecondArray};

    use super::*;

    fn cells(column: ArrayRef) -> Vec<Value> {
        (0..column.len()).map(|row| value(column.as_ref(), row)).collect()
    }

    #[test]
    fn a_short_float_is_the_number_that_was_written() {
        let written = [0.1, 72.0, 9.81, -1e-3, 1e30, 16777216.0];
        let column = Float32Array::from_iter_values(written.map(|x| x as f32));
        assert_eq!(cells(Arc::new(column)), written.map(Value::from));
        let written = [0.1, 72.0, 9.81, 0.333, 65504.0];
        let column = Float16Array::from_iter_values(written.map(half::f16::from_f64));
        assert_eq!(cells(Arc::new(column)), written.map(Value::from));
        let nothing = Float32Array::from_iter_values([f32::NAN, f32::INFINITY]);
        assert_eq!(cells(Arc::new(nothing)), [Value::Null, Value::Null]);
    }

    #[test]
    fn instants_are_read_in_utc_and_one_out_of_range_costs_no_row() {
        let zoned = TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_000), None]).with_timezone("UTC");
        assert_eq!(cells(Arc::new(zoned)), [Value::from("2023-11-14T22:13:20Z"), Value::Null]);
        assert_eq!(cells(Arc::new(TimestampSecondArray::from(vec![i64::MAX]))), [Value::Null]);
    }
}
