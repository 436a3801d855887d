//! Rows on their way to output shards: in memory while they are few, in temporary files beyond.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};

use super::OutShard;
use crate::error::{Error, Result};
use crate::schema::{CorpusRow, DatasetKind, Row};
use crate::stage::StageContext;
use crate::store::{Dataset, Location, ShardInfo, ShardWriter, WriterOptions};

/// Bytes of rows held in memory before they are spilled.
const MEMORY: usize = 256 << 20;

/// One bucket an output shard.
pub struct Buckets {
    folder: Location,
    buckets: Vec<Bucket>,
    bytes: usize,
}

#[derive(Default)]
struct Bucket {
    batches: Vec<RecordBatch>,
    /// Place of each row, in the order in which rows arrived.
    places: Vec<u32>,
    spill: Option<ShardWriter>,
}

impl Buckets {
    pub fn new(folder: &Location, count: usize) -> Self {
        let buckets = (0..count).map(|_| Bucket::default()).collect();
        Buckets { folder: folder.join("_spill"), buckets, bytes: 0 }
    }

    /// Takes rows, each with its output shard and its place.
    pub fn push(&mut self, mut rows: Vec<(usize, u32, CorpusRow)>) -> Result<()> {
        rows.sort_by_key(|(shard, ..)| *shard);
        let mut rows = rows.into_iter().peekable();
        while let Some((shard, ..)) = rows.peek() {
            let shard = *shard;
            let mut batch = Vec::new();
            while let Some((_, place, row)) = rows.next_if(|(s, ..)| *s == shard) {
                self.buckets[shard].places.push(place);
                batch.push(row);
            }
            let batch = CorpusRow::to_batch(&batch);
            self.bytes += batch.get_array_memory_size();
            self.buckets[shard].batches.push(batch);
        }
        if self.bytes > MEMORY { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        for (index, bucket) in self.buckets.iter_mut().enumerate().filter(|(_, b)| !b.batches.is_empty()) {
            if bucket.spill.is_none() {
                let options = WriterOptions { zstd_level: 1, ..WriterOptions::default() };
                bucket.spill = Some(ShardWriter::create(&self.folder, index, DatasetKind::Corpus, options)?);
            }
            let writer = bucket.spill.as_mut().expect("just made");
            for batch in bucket.batches.drain(..) {
                writer.push(&batch)?;
            }
        }
        self.bytes = 0;
        Ok(())
    }

    /// Sorts each bucket by place and writes it as its output shard.
    pub fn write(mut self, cx: &StageContext<'_>, layout: &[OutShard]) -> Result<Vec<ShardInfo>> {
        let mut shards = Vec::with_capacity(layout.len());
        for (bucket, out) in std::mem::take(&mut self.buckets).into_iter().zip(layout) {
            cx.check_stop()?;
            let mut batches = Vec::new();
            let mut spilled = None;
            if let Some(writer) = bucket.spill {
                let file = self.folder.join(&writer.finish()?.file);
                for batch in Dataset::open(&file)?.batches(Some(DatasetKind::Corpus), None) {
                    batches.push(batch?);
                }
                spilled = Some(file);
            }
            batches.extend(bucket.batches);
            let failed = |e| Error::new("a shard of the corpus cannot be put in order").caused_by(e);
            let all = concat_batches(&DatasetKind::Corpus.arrow(), &batches).map_err(failed)?;
            drop(batches);
            let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
            order.sort_unstable_by_key(|&row| bucket.places[row as usize]);
            let options = WriterOptions { naming: out.naming.clone(), ..WriterOptions::default() };
            let mut writer = ShardWriter::create(cx.folder, out.index, DatasetKind::Corpus, options)?;
            for piece in order.chunks(1024) {
                writer.push(&take_record_batch(&all, &UInt32Array::from(piece.to_vec())).map_err(failed)?)?;
            }
            shards.push(writer.finish()?);
            if let Some(file) = spilled {
                file.delete()?;
            }
        }
        Ok(shards)
    }
}
