//! Writing shards: Parquet laid out for scanning, the same bytes for the same rows.
//!
//! Rows are re-cut into pieces whose ends depend on the rows alone, and row
//! groups end between pieces, so neither the caller's batch sizes nor its
//! threads show in the file. A shard is written under a temporary name and
//! renamed when it is whole and on the disk.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use super::Location;
use super::faults::write_error;
use super::sink::Sink;
use crate::error::{Error, Result};
use crate::schema::{ColumnType, DatasetKind, Row, SCHEMA_KEY, VERSION_KEY, Values};

/// Rows handed to the encoder at once: Parquet's own mini-batch, so that page ends do not move.
pub(super) const PIECE_ROWS: usize = 1024;
/// Rows become one batch of at most so many bytes: its columns have 32-bit offsets.
const BATCH_BYTES: usize = 64 << 20;
/// What a row may hold, so that a piece with it is far from those offsets' end.
const ROW_BYTES: usize = 1 << 30;

/// One finished shard, as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Its path within the stage's folder, `/` between the parts.
    pub file: String,
    /// As its footer says; of files in other formats, what their writer counted.
    pub rows: u64,
    /// Of the file, as it is stored.
    pub bytes: u64,
    /// BLAKE3 of the file, 64 hex digits.
    pub blake3: String,
}

/// How shards are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `part-00000.parquet`
    Part,
    /// `data/train-00000-of-00004.parquet`: what the Hugging Face hub and `datasets` expect.
    HuggingFace {
        /// `train`, `test` or the user's own word.
        split: String,
        /// Shards in all, which must be known from the start.
        shards: usize,
    },
}

impl Naming {
    /// The file of shard `index`, relative to the dataset's folder.
    pub fn file(&self, index: usize) -> String {
        match self {
            Naming::Part => format!("part-{index:05}.parquet"),
            Naming::HuggingFace { split, shards } => format!("data/{split}-{index:05}-of-{shards:05}.parquet"),
        }
    }
}

/// How a shard is laid out.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Decides the file's name, not its bytes.
    pub naming: Naming,
    /// Most rows of a row group.
    pub group_rows: usize,
    /// A row group ends when its rows hold this many bytes, before encoding.
    pub group_bytes: usize,
    /// So many bytes of rows are encoded at once, and so long are pages at most: what a reader holds of a column.
    pub piece_bytes: usize,
    /// zstd level, 1 to 22.
    pub zstd_level: i32,
}

impl Default for WriterOptions {
    /// Groups of 65,536 rows or 64 MiB, pieces of 8 MiB, zstd level 3, `part-00000.parquet`.
    fn default() -> Self {
        WriterOptions {
            naming: Naming::Part,
            group_rows: 64 << 10,
            group_bytes: 64 << 20,
            piece_bytes: 8 << 20,
            zstd_level: 3,
        }
    }
}

/// Writes one shard. Dropped without [`ShardWriter::finish`], it leaves nothing behind.
pub struct ShardWriter {
    kind: DatasetKind,
    schema: SchemaRef,
    options: WriterOptions,
    target: Location,
    writer: ArrowWriter<Sink>,
    /// Slices not yet long enough for a piece, with their bytes.
    pending: VecDeque<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
    group_bytes: usize,
    rows: u64,
}

impl ShardWriter {
    /// Begins shard `index` of the dataset in `folder`; the folder is made if needed.
    ///
    /// # Errors
    /// The folder cannot be written (full, read-only, no permission).
    pub fn create(folder: &Location, index: usize, kind: DatasetKind, options: WriterOptions) -> Result<ShardWriter> {
        let file = options.naming.file(index);
        let target = folder.join(&file);
        let sink = Sink::create(folder, file)?;
        let schema = kind.arrow();
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties(kind, &options)?))
            .map_err(|e| write_error(&target, e))?;
        Ok(ShardWriter {
            kind,
            schema,
            options,
            target,
            writer,
            pending: VecDeque::new(),
            pending_rows: 0,
            pending_bytes: 0,
            group_bytes: 0,
            rows: 0,
        })
    }

    /// Appends the rows of a batch that holds all columns of the contract.
    ///
    /// # Errors
    /// The batch does not fit the contract, or the disk refuses.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = self.kind.conform(batch).map_err(|e| e.context(format!("writing {}", self.target)))?;
        let sizes = row_bytes(&batch);
        let mut start = 0;
        for (row, bytes) in sizes.into_iter().enumerate() {
            self.pending_rows += 1;
            self.pending_bytes += bytes;
            if self.pending_rows == PIECE_ROWS || self.pending_bytes >= self.options.piece_bytes {
                self.pending.push_back(batch.slice(start, row + 1 - start));
                start = row + 1;
                self.write_piece()?;
            }
        }
        if start < batch.num_rows() {
            self.pending.push_back(batch.slice(start, batch.num_rows() - start));
        }
        Ok(())
    }

    /// Appends rows.
    ///
    /// # Errors
    /// As [`ShardWriter::push`]; a row of more than 1 GiB.
    pub fn push_rows<R: Row>(&mut self, rows: &[R]) -> Result<()> {
        if R::KIND != self.kind {
            return Err(
                Error::new(format!("{} rows do not belong in a {} dataset", R::KIND, self.kind)).in_file(&self.target)
            );
        }
        let mut rest = rows;
        while let Some(first) = rest.first() {
            let mut bytes = first.bytes();
            if bytes > ROW_BYTES {
                return Err(Error::new(format!("a row holds {bytes} bytes, and can hold {ROW_BYTES} at most"))
                    .in_file(&self.target)
                    .at_row(self.rows())
                    .hint("leave it out, or shorten its longest text"));
            }
            let fits = |row: &&R| {
                bytes += row.bytes();
                bytes <= BATCH_BYTES
            };
            let (batch, behind) = rest.split_at(1 + rest[1..].iter().take(PIECE_ROWS - 1).take_while(fits).count());
            self.push(&R::to_batch(batch))?;
            rest = behind;
        }
        Ok(())
    }

    /// Bytes of rows that are worth encoding at once.
    pub(super) fn piece_bytes(&self) -> usize {
        self.options.piece_bytes
    }

    /// Rows appended so far.
    pub fn rows(&self) -> u64 {
        self.rows + self.pending_rows as u64
    }

    /// Bytes in the file so far; what is still being encoded is not counted.
    pub fn bytes_written(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    fn write_piece(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = match self.pending.len() {
            1 => self.pending[0].clone(),
            _ => concat_batches(&self.schema, &self.pending)
                .map_err(|e| Error::new("cannot join rows").in_file(&self.target).caused_by(e))?,
        };
        self.pending.clear();
        let fail = |e| write_error(&self.target, e);
        self.writer.write(&piece).map_err(fail)?;
        self.rows += self.pending_rows as u64;
        self.group_bytes += self.pending_bytes;
        (self.pending_rows, self.pending_bytes) = (0, 0);
        if self.writer.in_progress_rows() + PIECE_ROWS > self.options.group_rows
            || self.group_bytes >= self.options.group_bytes
        {
            self.writer.flush().map_err(fail)?;
            self.group_bytes = 0;
        }
        Ok(())
    }

    /// Ends the shard: on the disk (or uploaded), under its name.
    ///
    /// # Errors
    /// The disk or store refuses; then nothing is left under the shard's name.
    pub fn finish(mut self) -> Result<ShardInfo> {
        self.write_piece()?;
        let ShardWriter { writer, target, rows, .. } = self;
        writer.into_inner().map_err(|e| write_error(&target, e))?.finish(rows)
    }
}

/// How each column is encoded: dictionaries for words that repeat, statistics where a reader can skip by them.
fn properties(kind: DatasetKind, options: &WriterOptions) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(options.zstd_level)
        .map_err(|e| Error::usage("the zstd level must be from 1 to 22").caused_by(e))?;
    let metadata = [(SCHEMA_KEY, kind.as_str().to_owned()), (VERSION_KEY, kind.version().to_string())];
    let mut builder = WriterProperties::builder()
        .set_created_by("gristmill".to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_write_batch_size(PIECE_ROWS)
        // Row groups end where `write_piece` says.
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(metadata.map(|(key, value)| KeyValue::new(key.to_owned(), value)).to_vec()));
    for column in kind.columns() {
        let path = ColumnPath::from(column.name);
        let nested = |parts: &[&str]| ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect());
        match column.column_type {
            // No dictionary and no statistics pay for running text.
            ColumnType::Text if column.values == Values::Prose => {}
            ColumnType::Text | ColumnType::U32 | ColumnType::U64 | ColumnType::F64 => {
                builder = builder
                    .set_column_statistics_enabled(path.clone(), EnabledStatistics::Page)
                    .set_column_dictionary_enabled(path, column.values == Values::Repeated);
            }
            ColumnType::TokenIds => {}
            // The exponent bytes of logprobs are alike: apart from the rest they compress.
            ColumnType::Logprobs => {
                let path = nested(&[column.name, "list", "element"]);
                builder = builder.set_column_encoding(path, Encoding::BYTE_STREAM_SPLIT);
            }
            ColumnType::Messages => {
                let path = nested(&[column.name, "list", "element", "role"]);
                builder = builder.set_column_dictionary_enabled(path, true);
            }
            ColumnType::Scores => {
                for field in ["rule", "score", "outcome", "reason"] {
                    let path = nested(&[column.name, "list", "element", field]);
                    builder = builder.set_column_dictionary_enabled(path, true);
                }
            }
        }
    }
    Ok(builder.build())
}

/// Bytes of data in each row, by content alone: the same however the batch was cut or built.
pub(crate) fn row_bytes(batch: &RecordBatch) -> Vec<usize> {
    let mut bytes = vec![0; batch.num_rows()];
    for column in batch.columns() {
        add_bytes(column, &mut bytes);
    }
    bytes
}

fn add_bytes(array: &ArrayRef, bytes: &mut [usize]) {
    match array.data_type() {
        DataType::Utf8 => {
            for (bytes, ends) in bytes.iter_mut().zip(array.as_string::<i32>().value_offsets().windows(2)) {
                *bytes += (ends[1] - ends[0]) as usize + 4;
            }
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            let mut items = vec![0; last - first];
            add_bytes(&list.values().slice(first, last - first), &mut items);
            for (bytes, ends) in bytes.iter_mut().zip(offsets.windows(2)) {
                *bytes += items[ends[0] as usize - first..ends[1] as usize - first].iter().sum::<usize>() + 4;
            }
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().for_each(|column: &Arc<dyn Array>| add_bytes(column, bytes))
        }
        other => {
            let width = other.primitive_width().unwrap_or(0);
            bytes.iter_mut().for_each(|bytes| *bytes += width);
        }
    }
}
