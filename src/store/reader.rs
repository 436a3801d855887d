//! Reading shards: local files and ranged requests behind one reader, batches under the contract.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use bytes::{Buf, Bytes};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::Location;
use super::dataset::Shard;
use super::faults::io_error;
use super::guard::guarded;
use super::location::Place;
use super::remote::wait;
use crate::error::{Error, Result};
use crate::schema::{DatasetKind, Projection, Row};

/// Most rows of a batch.
const BATCH_ROWS: usize = 8192;
/// What a batch should hold decoded.
const BATCH_BYTES: u64 = 32 << 20;
/// Object stores are read in aligned blocks of this size, and this many are kept:
/// a scan goes through as many columns at once as a row group has.
const BLOCK_BYTES: u64 = 4 << 20;
const BLOCKS_KEPT: usize = 16;

/// The batches of a shard, in file order. Ends after the first error.
pub struct Batches {
    file: String,
    projection: Option<Projection>,
    reader: Option<ParquetRecordBatchReader>,
    next_row: u64,
}

impl Batches {
    pub(super) fn open(
        shard: &Shard,
        kind: Option<DatasetKind>,
        columns: Option<&[&str]>,
        groups: Option<Range<usize>>,
    ) -> Result<Batches> {
        Batches::open_window(shard, kind, columns, groups, None)
    }

    /// As [`Batches::open`]; of the row groups' rows only those in `window`.
    pub(super) fn open_window(
        shard: &Shard,
        kind: Option<DatasetKind>,
        columns: Option<&[&str]>,
        groups: Option<Range<usize>>,
        window: Option<Range<usize>>,
    ) -> Result<Batches> {
        let file = shard.to_string();
        let footer = shard.footer()?;
        let metadata = footer.metadata();
        let groups = groups.unwrap_or(0..metadata.num_row_groups());
        if groups.end > metadata.num_row_groups() {
            let message =
                format!("there is no row group {}, the file has {}", groups.end - 1, metadata.num_row_groups());
            return Err(Error::new(message).in_file(file));
        }
        let (projection, indices) = match kind {
            Some(kind) => {
                let projection = kind.check(footer.schema(), columns).map_err(|e| e.in_file(&file))?;
                let indices = projection.indices.clone();
                (Some(projection), Some(indices))
            }
            None => (None, columns.map(|names| plain_indices(shard, names)).transpose()?),
        };
        let mask = match &indices {
            Some(indices) => ProjectionMask::roots(footer.parquet_schema(), indices.iter().copied()),
            None => ProjectionMask::all(),
        };
        let first_row = (0..groups.start).map(|group| metadata.row_group(group).num_rows() as u64).sum::<u64>();
        // Who names a window wants it in one piece, if that is not too large.
        let most = window.as_ref().map_or(BATCH_ROWS, |window| window.len().max(1));
        let batch_rows = groups.clone().map(|group| batch_rows(metadata, group, &mask, most)).min().unwrap_or(most);
        let source = Source::open(shard.location(), shard.bytes())?;
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(source, footer.clone())
            .with_projection(mask)
            .with_row_groups(groups.collect())
            .with_batch_size(batch_rows);
        let mut next_row = first_row;
        if let Some(window) = window {
            next_row += window.start as u64;
            builder = builder.with_offset(window.start).with_limit(window.len());
        }
        let reader = guarded(&file, || builder.build())?;
        Ok(Batches { file, projection, reader: Some(reader), next_row })
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let next = guarded(&self.file, || reader.next().transpose().map_err(ParquetError::from));
        let batch = match next.map_err(|e| e.context(format!("reading rows from {}", self.next_row)))? {
            Some(batch) => batch,
            None => return Ok(None),
        };
        let first_row = self.next_row;
        self.next_row += batch.num_rows() as u64;
        match &self.projection {
            Some(projection) => projection.conform(first_row, &batch).map(Some).map_err(|e| e.in_file(&self.file)),
            None => Ok(Some(batch)),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance().transpose();
        if !matches!(result, Some(Ok(_))) {
            self.reader = None;
        }
        result
    }
}

/// The rows of a shard as structs. Ends after the first error.
pub struct Rows<R> {
    batches: Batches,
    rows: std::vec::IntoIter<R>,
}

impl<R: Row> Rows<R> {
    pub(super) fn new(batches: Batches) -> Self {
        Rows { batches, rows: Vec::new().into_iter() }
    }
}

impl<R: Row> Iterator for Rows<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            let first_row = self.batches.next_row;
            let rows = match self.batches.next()? {
                Ok(batch) => R::from_batch(&batch),
                Err(error) => return Some(Err(error)),
            };
            match rows {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => {
                    self.batches.reader = None;
                    return Some(Err(error
                        .in_file(&self.batches.file)
                        .context(format!("in the rows from {first_row}"))));
                }
            }
        }
    }
}

/// Reads the footer of a Parquet file.
pub(super) fn load_footer(location: &Location, bytes: u64) -> Result<ArrowReaderMetadata> {
    let file = location.to_string();
    let name = location.file_name().trim_end_matches(".gz").trim_end_matches(".zst");
    if [".jsonl", ".json", ".csv", ".tsv"].iter().any(|ending| name.ends_with(ending)) {
        return Err(Error::new("this is no Parquet file, which stages read").in_file(file).hint(
            "rows of JSONL, JSON or CSV become datasets by stages: questions by `prompts` (`sources`), conversations to \
             train on by `prompts` with `layout = \"chat\"` and then `corpus`, completions by `generate` with the engine \
             `replay`; `gristmill score` judges rows of JSONL as they are",
        ));
    }
    if bytes < 12 {
        let what = if bytes == 0 { "the file is empty".to_owned() } else { format!("the file has {bytes} bytes") };
        return Err(Error::new(format!("this is not a Parquet file: {what}"))
            .in_file(file)
            .hint("write or download it again; a Parquet file begins and ends with `PAR1`"));
    }
    let source = Source::open(location, bytes)?;
    guarded(&file, || ArrowReaderMetadata::load(&source, ArrowReaderOptions::new()))
}

fn plain_indices(shard: &Shard, names: &[&str]) -> Result<Vec<usize>> {
    let schema = shard.schema()?;
    let find = |name: &&str| {
        schema.index_of(name).map_err(|_| {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            Error::new(format!("there is no column `{name}`"))
                .in_file(shard)
                .in_field(*name)
                .hint(format!("the file has {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// Rows, `most` at most, a batch may have so that it holds about [`BATCH_BYTES`], by the footer's sizes.
fn batch_rows(
    metadata: &parquet::file::metadata::ParquetMetaData,
    group: usize,
    mask: &ProjectionMask,
    most: usize,
) -> usize {
    let group = metadata.row_group(group);
    let leaves = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
    let bytes: u64 = leaves.map(|(_, column)| column.uncompressed_size().max(0) as u64).sum();
    let rows = group.num_rows().max(1) as u64;
    let fitting = BATCH_BYTES * rows / bytes.max(1);
    usize::try_from(fitting).unwrap_or(most).clamp(1, most)
}

/// The bytes of a file: from the disk, or by ranged requests.
pub(super) enum Source {
    Local(File),
    Remote(RemoteFile),
}

/// BLAKE3 of a file of so many bytes, in hex.
///
/// # Errors
/// It cannot be read.
pub(super) fn digest(location: &Location, bytes: u64) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut source = Source::open(location, bytes)?.sequential()?;
    hasher.update_reader(&mut source).map_err(|e| io_error("read", location, e))?;
    Ok(hasher.finalize().to_hex().to_string())
}

impl Source {
    pub fn open(location: &Location, bytes: u64) -> Result<Source> {
        match location.place() {
            Place::Local(path) => File::open(path).map(Source::Local).map_err(|e| io_error("read", location, e)),
            Place::Remote { store, path, .. } => Ok(Source::Remote(RemoteFile {
                store: store.clone(),
                path: path.clone(),
                bytes,
                blocks: Arc::new(Mutex::new(VecDeque::new())),
            })),
        }
    }

    /// From the first byte to the last.
    pub fn sequential(self) -> Result<SourceReader> {
        match self {
            Source::Local(file) => Ok(SourceReader::Local(BufReader::with_capacity(1 << 20, file))),
            Source::Remote(file) => Ok(SourceReader::Remote { file, position: 0 }),
        }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Source::Local(file) => Length::len(file),
            Source::Remote(file) => file.bytes,
        }
    }
}

impl ChunkReader for Source {
    type T = SourceReader;

    fn get_read(&self, start: u64) -> ParquetResult<SourceReader> {
        match self {
            Source::Local(file) => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(start))?;
                Ok(SourceReader::Local(BufReader::new(file)))
            }
            Source::Remote(file) => Ok(SourceReader::Remote { file: file.clone(), position: start }),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Source::Local(file) => file.get_bytes(start, length),
            Source::Remote(file) => Ok(file.range(start, length)?),
        }
    }
}

/// A sequential reader over a [`Source`].
pub(super) enum SourceReader {
    Local(BufReader<File>),
    Remote { file: RemoteFile, position: u64 },
}

impl Read for SourceReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            SourceReader::Local(file) => file.read(out),
            SourceReader::Remote { file, position } => {
                if *position >= file.bytes {
                    return Ok(0);
                }
                let block = file.block(*position / BLOCK_BYTES)?;
                let mut rest = block.slice((*position % BLOCK_BYTES) as usize..);
                let count = rest.len().min(out.len());
                rest.copy_to_slice(&mut out[..count]);
                *position += count as u64;
                Ok(count)
            }
        }
    }
}

/// An object read in blocks; the last few are kept.
#[derive(Clone)]
pub(super) struct RemoteFile {
    store: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
    bytes: u64,
    blocks: Arc<Mutex<VecDeque<(u64, Bytes)>>>,
}

impl RemoteFile {
    fn range(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start + length as u64;
        if end > self.bytes {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object ends before its pages do"));
        }
        let (first, last) = (start / BLOCK_BYTES, end.saturating_sub(1).max(start) / BLOCK_BYTES);
        if first == last {
            let offset = (start % BLOCK_BYTES) as usize;
            return Ok(self.block(first)?.slice(offset..offset + length));
        }
        if length as u64 > 2 * BLOCK_BYTES {
            return self.fetch(start..end);
        }
        let mut joined = Vec::with_capacity(length);
        for index in first..=last {
            let from = start.saturating_sub(index * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
            let to = (end - index * BLOCK_BYTES).min(BLOCK_BYTES) as usize;
            joined.extend_from_slice(&self.block(index)?[from..to]);
        }
        Ok(joined.into())
    }

    fn block(&self, index: u64) -> io::Result<Bytes> {
        let blocks = || self.blocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, block)) = blocks().iter().find(|(kept, _)| *kept == index) {
            return Ok(block.clone());
        }
        let start = index * BLOCK_BYTES;
        let block = self.fetch(start..(start + BLOCK_BYTES).min(self.bytes))?;
        let mut blocks = blocks();
        if blocks.len() == BLOCKS_KEPT {
            blocks.pop_front();
        }
        blocks.push_back((index, block.clone()));
        Ok(block)
    }

    fn fetch(&self, range: Range<u64>) -> io::Result<Bytes> {
        let (store, path) = (self.store.clone(), self.path.clone());
        let wanted = range.end - range.start;
        let bytes = wait(async move { store.get_range(&path, range).await }).map_err(io::Error::other)?;
        if bytes.len() as u64 != wanted {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object changed while it was read"));
        }
        Ok(bytes)
    }
}
