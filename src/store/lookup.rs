//! Random access by id: the index of a join, with bounded memory.
//!
//! The index holds 24 bytes a row (a 128-bit key and a row number, sorted); the
//! rows stay in the file and are decoded in blocks, the last few of which are
//! kept. Asked in file order, every block is decoded once.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::datatypes::Schema;

use super::dataset::{Dataset, Shard};
use super::reader::Batches;
use super::unique::occurs_twice;
use crate::error::{Error, Result};
use crate::schema::{BatchExt, DatasetKind};

/// Decoded bytes that are kept.
const CACHE_BYTES: usize = 256 << 20;
/// What one block should hold decoded.
const BLOCK_BYTES: u64 = 32 << 20;

/// An index over a text column whose values are unique, see [`Lookup::build`].
pub struct Lookup {
    keys: Vec<Key>,
    blocks: Vec<Block>,
    dataset: Dataset,
    kind: Option<DatasetKind>,
    columns: Vec<String>,
    cache: Mutex<VecDeque<(usize, RecordBatch)>>,
    cache_bytes: usize,
    #[cfg(test)]
    decoded: std::sync::atomic::AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    high: u64,
    low: u64,
    /// Row of the dataset, all shards counted through.
    row: u32,
}

/// Rows that are decoded together: a row group or a part of one.
struct Block {
    /// First row of the dataset.
    first_row: u32,
    shard: usize,
    group: usize,
    rows: Range<usize>,
}

impl Lookup {
    /// Indexes `key_column`; `projection` says which columns [`Lookup::get`] gives (all if `None`).
    /// Under a `kind` they are checked and cast to its contract.
    ///
    /// # Errors
    /// A column is missing or of another type; a key is null or occurs twice (both places are named);
    /// the dataset has more than 2³² rows; a file cannot be read.
    pub fn build(
        dataset: &Dataset,
        kind: Option<DatasetKind>,
        key_column: &str,
        projection: Option<&[&str]>,
    ) -> Result<Lookup> {
        let rows = dataset.rows()?;
        if u32::try_from(rows).is_err() {
            return Err(Error::new(format!("{rows} rows are too many for a lookup")).in_file(dataset.location()));
        }
        let columns: Vec<String> = match (projection, kind, dataset.shards().first()) {
            (Some(columns), _, _) => columns.iter().map(|&name| name.to_owned()).collect(),
            (None, Some(kind), _) => kind.columns().iter().map(|column| column.name.to_owned()).collect(),
            (None, None, Some(shard)) => shard.schema()?.fields().iter().map(|field| field.name().clone()).collect(),
            (None, None, None) => Vec::new(),
        };
        // A damaged footer may say anything; but ids that are unique take a byte each at least.
        let mut keys = Vec::with_capacity(rows.min(dataset.bytes()) as usize);
        let mut blocks = Vec::new();
        for (index, shard) in dataset.shards().iter().enumerate() {
            plan_blocks(index, shard, &columns, keys.len() as u32, &mut blocks)?;
            if let Some(kind) = kind {
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                kind.check(shard.schema()?, Some(&names)).map_err(|e| e.in_file(shard))?;
            }
            for batch in shard.batches(kind, Some(&[key_column]))? {
                let batch = batch?;
                let ids = batch.text(key_column).map_err(|e| e.in_file(shard))?;
                for id in ids {
                    let id = id.ok_or_else(|| Error::new("an id is null").in_file(shard).in_field(key_column))?;
                    let (high, low) = hash_id(id);
                    keys.push(Key { high, low, row: keys.len() as u32 });
                }
            }
        }
        keys.sort_unstable();
        let lookup = Lookup {
            keys,
            blocks,
            dataset: dataset.clone(),
            kind,
            columns,
            cache: Mutex::new(VecDeque::new()),
            cache_bytes: CACHE_BYTES,
            #[cfg(test)]
            decoded: Default::default(),
        };
        lookup.refuse_duplicates(key_column)?;
        Ok(lookup)
    }

    /// Changes how many decoded bytes are kept (256 MiB); at least one block always is.
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    fn refuse_duplicates(&self, column: &str) -> Result<()> {
        // The pair that comes first in the files, so that the message does not depend on hashes.
        let pairs = self.keys.windows(2).filter(|pair| (pair[0].high, pair[0].low) == (pair[1].high, pair[1].low));
        let Some(pair) = pairs.min_by_key(|pair| pair[1].row) else { return Ok(()) };
        Err(occurs_twice(self.place(pair[0].row), self.place(pair[1].row), column))
    }

    /// The shard of a row of the dataset, and the row within it.
    fn place(&self, row: u32) -> (&Shard, u64) {
        let block = &self.blocks[self.block_of(row)];
        let shard_start =
            self.blocks.iter().find(|other| other.shard == block.shard).map_or(0, |first| first.first_row);
        (&self.dataset.shards()[block.shard], u64::from(row - shard_start))
    }

    /// Points an error that is about the row of an id at its file and row.
    pub fn locate(&self, id: &str, error: Error) -> Error {
        match self.find(id).map(|row| self.place(row)) {
            Some((shard, row)) => error.in_file(shard).at_row(row),
            None => error,
        }
    }

    fn block_of(&self, row: u32) -> usize {
        self.blocks.partition_point(|block| block.first_row <= row) - 1
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the id occurs; reads nothing.
    pub fn contains(&self, id: &str) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &str) -> Option<u32> {
        let (high, low) = hash_id(id);
        let index = self.keys.binary_search_by(|key| (key.high, key.low).cmp(&(high, low))).ok()?;
        Some(self.keys[index].row)
    }

    /// The row of an id: a batch of the projected columns and the row within it.
    ///
    /// # Errors
    /// The file cannot be read, or breaks the contract.
    pub fn get(&self, id: &str) -> Result<Option<(RecordBatch, usize)>> {
        let Some(row) = self.find(id) else { return Ok(None) };
        let index = self.block_of(row);
        let within = (row - self.blocks[index].first_row) as usize;
        Ok(Some((self.block(index)?, within)))
    }

    /// The rows of these ids, one for each and in their order, as one batch. Holds one block at a
    /// time beside them, however the ids are scattered. Nothing is asked of an empty list: its
    /// batch has no columns.
    ///
    /// # Errors
    /// An id does not occur; the file cannot be read, or breaks the contract.
    pub fn gather(&self, ids: &StringArray) -> Result<RecordBatch> {
        // (block, row within it, row of the result)
        let mut wanted = Vec::with_capacity(ids.len());
        for (out, id) in ids.iter().enumerate() {
            let id = id.unwrap_or_default();
            let row = self.find(id).ok_or_else(|| {
                Error::new(format!("there is no row with the id `{id}`")).in_file(self.dataset.location())
            })?;
            let block = self.block_of(row);
            wanted.push((block, row - self.blocks[block].first_row, out));
        }
        wanted.sort_unstable_by_key(|&(block, _, out)| (block, out));
        let failed = |e| Error::new("rows cannot be joined").in_file(self.dataset.location()).caused_by(e);
        let mut parts = Vec::new();
        let mut places = vec![(0, 0); wanted.len()];
        for of_block in wanted.chunk_by(|a, b| a.0 == b.0) {
            for (at, &(.., out)) in of_block.iter().enumerate() {
                places[out] = (parts.len(), at);
            }
            let rows: UInt32Array = of_block.iter().map(|&(_, row, _)| row).collect::<Vec<_>>().into();
            parts.push(take_record_batch(&self.block(of_block[0].0)?, &rows).map_err(failed)?);
        }
        match &parts[..] {
            [] => Ok(RecordBatch::new_empty(Arc::new(Schema::empty()))),
            [only] => Ok(only.clone()),
            parts => interleave_record_batch(&parts.iter().collect::<Vec<_>>(), &places).map_err(failed),
        }
    }

    /// A block, decoded now or not long ago.
    fn block(&self, index: usize) -> Result<RecordBatch> {
        if let Some(batch) = self.cached(index) {
            return Ok(batch);
        }
        // Decoded outside the lock: threads that want different blocks do not wait for each other.
        let batch = self.decode(&self.blocks[index])?;
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !cache.iter().any(|(cached, _)| *cached == index) {
            cache.push_back((index, batch.clone()));
        }
        let mut bytes: usize = cache.iter().map(|(_, batch)| batch.get_array_memory_size()).sum();
        while bytes > self.cache_bytes && cache.len() > 1 {
            let oldest = cache.pop_front().map_or(0, |(_, batch)| batch.get_array_memory_size());
            bytes -= oldest;
        }
        Ok(batch)
    }

    fn cached(&self, index: usize) -> Option<RecordBatch> {
        let mut cache = self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let position = cache.iter().position(|(cached, _)| *cached == index)?;
        let entry = cache.remove(position)?;
        let batch = entry.1.clone();
        cache.push_back(entry);
        Some(batch)
    }

    fn decode(&self, block: &Block) -> Result<RecordBatch> {
        #[cfg(test)]
        self.decoded.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let shard = &self.dataset.shards()[block.shard];
        let names: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let groups = Some(block.group..block.group + 1);
        let batches: Vec<RecordBatch> =
            Batches::open_window(shard, self.kind, Some(&names), groups, Some(block.rows.clone()))?
                .collect::<Result<_>>()?;
        let joined = match &batches[..] {
            [batch] => batch.clone(),
            [first, ..] => concat_batches(&first.schema(), &batches)
                .map_err(|e| Error::new("cannot join rows").in_file(shard).caused_by(e))?,
            [] => return Err(Error::new("rows are missing").in_file(shard)),
        };
        if joined.num_rows() != block.rows.len() {
            return Err(Error::new("the file changed while it was read").in_file(shard));
        }
        Ok(joined)
    }

    /// How many blocks were decoded so far, and how many the dataset has.
    #[cfg(test)]
    pub(super) fn decoded_blocks(&self) -> (u64, u64) {
        (self.decoded.load(std::sync::atomic::Ordering::Relaxed), self.blocks.len() as u64)
    }
}

/// Cuts a shard's row groups into blocks of about [`BLOCK_BYTES`] of the wanted columns.
fn plan_blocks(index: usize, shard: &Shard, columns: &[String], first_row: u32, blocks: &mut Vec<Block>) -> Result<()> {
    let mut first_row = first_row;
    for (group, metadata) in shard.parquet_metadata()?.row_groups().iter().enumerate() {
        let wanted = metadata
            .columns()
            .iter()
            .filter(|column| column.column_path().parts().first().is_some_and(|root| columns.contains(root)));
        let bytes: u64 = wanted.map(|column| column.uncompressed_size().max(0) as u64).sum();
        let rows = metadata.num_rows().max(0) as u64;
        let parts = bytes.div_ceil(BLOCK_BYTES).clamp(1, rows.max(1));
        let step = rows.div_ceil(parts).max(1) as usize;
        for start in (0..rows as usize).step_by(step) {
            let end = (start + step).min(rows as usize);
            blocks.push(Block { first_row, shard: index, group, rows: start..end });
            first_row += (end - start) as u32;
        }
    }
    Ok(())
}

/// The 128 bits of a content id, or of the BLAKE3 of any other text.
pub(crate) fn hash_id(id: &str) -> (u64, u64) {
    let lowercase_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let value = if id.len() == 32 && id.bytes().all(lowercase_hex) {
        u128::from_str_radix(id, 16).expect("32 hex digits are 128 bits")
    } else {
        u128::from_be_bytes(blake3::hash(id.as_bytes()).as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
    };
    ((value >> 64) as u64, value as u64)
}
