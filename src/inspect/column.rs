//! Statistics of one column, gathered batch by batch in constant memory.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::schema::DatasetKind;

/// Smallest hashes kept: the estimate's relative error is about 1/√1022, 3 %.
const SKETCH: usize = 1024;

/// One column: what it is and what its values are like.
#[derive(Clone, Debug, Serialize)]
pub struct ColumnReport {
    /// As the file has it.
    pub name: String,
    /// As the file has it, in Arrow's words.
    pub data_type: String,
    /// What the contract says of it; null for columns it does not know.
    pub doc: Option<String>,
    /// Rows where it is null.
    pub nulls: u64,
    /// Distinct values: exact below 1,024, an estimate within about 3 % above; null for nested columns.
    pub distinct: Option<u64>,
    /// Least, mean and largest number; of texts their length in characters; of lists their length.
    /// Null if there is no value. NaN and infinities are left out.
    pub range: Option<Range>,
}

/// Least, mean and largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Range {
    /// What is measured: `value` or `length`.
    pub of: &'static str,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

pub(super) struct ColumnStatistics {
    name: String,
    data_type: DataType,
    doc: Option<String>,
    nulls: u64,
    smallest_hashes: BTreeSet<u64>,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl ColumnStatistics {
    pub fn new(field: &Field, kind: Option<DatasetKind>) -> Self {
        ColumnStatistics {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            doc: kind.and_then(|kind| kind.column(field.name())).map(|column| column.doc()),
            nulls: 0,
            smallest_hashes: BTreeSet::new(),
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }

    pub fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let array = batch
            .column_by_name(&self.name)
            .ok_or_else(|| Error::new("the column is missing in this file").in_field(&self.name))?;
        self.nulls += array.logical_null_count() as u64;
        match flat_type(array.data_type()) {
            Flat::Text => {
                let array = self.cast(array, &DataType::LargeUtf8)?;
                for text in array.as_string::<i64>().iter().flatten() {
                    self.measure(text.chars().count() as f64);
                    self.remember(text);
                }
            }
            Flat::Number => {
                let array = self.cast(array, &DataType::Float64)?;
                for value in array.as_primitive::<Float64Type>().iter().flatten() {
                    self.measure(value);
                    self.remember(value.to_bits());
                }
            }
            Flat::List => {
                let lengths = arrow::compute::kernels::length::length(array.as_ref())
                    .map_err(|e| Error::new("cannot measure the column").in_field(&self.name).caused_by(e))?;
                let lengths = self.cast(&lengths, &DataType::Float64)?;
                lengths.as_primitive::<Float64Type>().iter().flatten().for_each(|length| self.measure(length));
            }
            Flat::Other => {}
        }
        Ok(())
    }

    fn cast(&self, array: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
        cast(array, target).map_err(|e| Error::new("cannot measure the column").in_field(&self.name).caused_by(e))
    }

    fn measure(&mut self, value: f64) {
        if value.is_finite() {
            self.count += 1;
            self.sum += value;
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
    }

    /// Keeps the k smallest hashes: with k of them, the k-th at a fraction f of the hash range,
    /// there are about (k − 1) / f distinct values (Bar-Yossef et al. 2002).
    fn remember(&mut self, value: impl Hash) {
        // Fixed keys: the same file gives the same estimate.
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let hash = hasher.finish();
        let full = self.smallest_hashes.len() == SKETCH;
        if full && self.smallest_hashes.last().is_some_and(|&largest| hash >= largest) {
            return;
        }
        if self.smallest_hashes.insert(hash) && full {
            self.smallest_hashes.pop_last();
        }
    }

    pub fn report(self) -> ColumnReport {
        let flat = flat_type(&self.data_type);
        let distinct = match (flat, self.smallest_hashes.last()) {
            (Flat::List | Flat::Other, _) => None,
            (_, Some(&largest)) if self.smallest_hashes.len() == SKETCH => {
                Some(((SKETCH - 1) as f64 / ((largest as f64 + 1.0) / u64::MAX as f64)).round() as u64)
            }
            _ => Some(self.smallest_hashes.len() as u64),
        };
        let range = (self.count > 0).then(|| Range {
            of: if matches!(flat, Flat::Number) { "value" } else { "length" },
            min: self.min,
            mean: self.sum / self.count as f64,
            max: self.max,
        });
        ColumnReport {
            name: self.name,
            data_type: self.data_type.to_string(),
            doc: self.doc,
            nulls: self.nulls,
            distinct,
            range,
        }
    }
}

#[derive(Clone, Copy)]
enum Flat {
    Text,
    Number,
    List,
    Other,
}

fn flat_type(data_type: &DataType) -> Flat {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Flat::Text,
        DataType::Dictionary(_, value) => flat_type(value),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _) => Flat::List,
        DataType::Boolean => Flat::Number,
        other if other.is_numeric() => Flat::Number,
        _ => Flat::Other,
    }
}
