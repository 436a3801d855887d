//! Parquet of any schema: record batches turned into JSON objects, row by row.

use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use serde_json::{Map, Value};

use super::{Format, Item, Place, Row, Rows};
use crate::Result;
use crate::schema::{DatasetKind, SCHEMA_KEY};
use crate::store::{cell_json, guarded};

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
            row.insert(field.name().clone(), cell_json(column.as_ref(), index));
        }
    }
    rows
}
