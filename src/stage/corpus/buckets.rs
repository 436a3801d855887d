//! Rows on their way to their places: in memory while they are few, beyond that in sorted runs
//! on the disk, which the output shards are merged from.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use rayon::prelude::*;

use super::OutShard;
use crate::error::{Error, Result};
use crate::schema::DatasetKind;
use crate::stage::StageContext;
use crate::store::{Dataset, Location, Shard, ShardInfo, ShardWriter, WriterOptions};

/// Bytes of rows held in memory before they become a run.
const MEMORY: usize = 256 << 20;
/// Rows of a run's row group: what a shard reads beyond its own rows at most, at either end.
const RUN_GROUP_ROWS: usize = 4096;
/// Rows put in order at once.
const PIECE: usize = 1024;

/// Collects rows with their places and writes them in the places' order.
pub struct Buckets {
    /// Where runs lie.
    folder: Location,
    memory: usize,
    held: Held,
    runs: Vec<Run>,
}

/// Rows in memory.
#[derive(Default)]
struct Held {
    batches: Vec<RecordBatch>,
    /// (place, batch, row)
    rows: Vec<(u32, u32, u32)>,
    bytes: usize,
}

/// Rows on the disk, sorted by place.
struct Run {
    file: Location,
    shard: Shard,
    places: Vec<u32>,
}

impl Buckets {
    /// Removes what a killed stage left of its runs.
    pub fn new(folder: &Location) -> Result<Self> {
        let buckets =
            Buckets { folder: folder.join("_spill"), memory: MEMORY, held: Held::default(), runs: Vec::new() };
        buckets.clear()?;
        Ok(buckets)
    }

    fn clear(&self) -> Result<()> {
        for entry in self.folder.list()?.iter().filter(|entry| !entry.is_folder) {
            self.folder.join(&entry.name).delete()?;
        }
        if let Some(path) = self.folder.as_local() {
            // An empty folder would be in the way of nothing, so that it cannot be removed is no fault.
            let _ = std::fs::remove_dir(path);
        }
        Ok(())
    }

    /// Takes the rows of a batch of the corpus's columns, each with its place.
    pub fn push(&mut self, batch: RecordBatch, places: impl Iterator<Item = u32>) -> Result<()> {
        let index = self.held.batches.len() as u32;
        self.held.rows.extend(places.enumerate().map(|(row, place)| (place, index, row as u32)));
        self.held.bytes += batch.get_array_memory_size();
        self.held.batches.push(batch);
        if self.held.bytes > self.memory { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let mut held = std::mem::take(&mut self.held);
        held.rows.sort_unstable();
        let options = WriterOptions { zstd_level: 1, group_rows: RUN_GROUP_ROWS, ..WriterOptions::default() };
        let mut writer = ShardWriter::create(&self.folder, self.runs.len(), DatasetKind::Corpus, options)?;
        for piece in held.rows.chunks(PIECE) {
            writer.push(&held.pick(piece)?)?;
        }
        let file = self.folder.join(&writer.finish()?.file);
        let shard = Dataset::open(&file)?.shards()[0].clone();
        self.runs.push(Run { file, shard, places: held.rows.iter().map(|(place, ..)| *place).collect() });
        Ok(())
    }

    /// Writes every output shard, several at once.
    pub fn write(mut self, cx: &StageContext<'_>, layout: &[OutShard]) -> Result<Vec<ShardInfo>> {
        self.held.rows.sort_unstable();
        let shards = layout.par_iter().map(|out| {
            cx.check_stop()?;
            let options = WriterOptions { naming: out.naming.clone(), ..WriterOptions::default() };
            let mut writer = ShardWriter::create(cx.folder, out.index, DatasetKind::Corpus, options)?;
            self.merge(&out.places, |batch| {
                cx.progress.advance(batch.num_rows() as u64);
                writer.push(&batch)
            })?;
            writer.finish()
        });
        let shards = shards.collect::<Result<Vec<_>>>()?;
        for run in &self.runs {
            run.file.delete()?;
        }
        self.clear()?;
        Ok(shards)
    }

    /// The rows of a range of places, in order.
    fn merge(&self, places: &Range<u32>, mut give: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let mut merged = Held::default();
        for run in &self.runs {
            let (start, end) = within(&run.places, places, |place| *place);
            let mut next = start;
            for batch in run.shard.rows_in(start as u64..end as u64, Some(DatasetKind::Corpus), None)? {
                let batch = batch?;
                let index = merged.batches.len() as u32;
                let rows = 0..batch.num_rows();
                merged.rows.extend(rows.map(|row| (run.places[next + row], index, row as u32)));
                next += batch.num_rows();
                merged.batches.push(batch);
            }
        }
        let (start, end) = within(&self.held.rows, places, |row| row.0);
        // Only the batches that these rows are in: looking through all of them costs each piece.
        let mut renumbered: BTreeMap<u32, u32> = BTreeMap::new();
        for &(place, batch, row) in &self.held.rows[start..end] {
            let index = *renumbered.entry(batch).or_insert_with(|| {
                merged.batches.push(self.held.batches[batch as usize].clone());
                merged.batches.len() as u32 - 1
            });
            merged.rows.push((place, index, row));
        }
        merged.rows.sort_unstable();
        merged.rows.chunks(PIECE).try_for_each(|piece| give(merged.pick(piece)?))
    }
}

/// The part of what is sorted by place that lies in a range of places.
fn within<T>(sorted: &[T], places: &Range<u32>, place: impl Fn(&T) -> u32) -> (usize, usize) {
    (sorted.partition_point(|row| place(row) < places.start), sorted.partition_point(|row| place(row) < places.end))
}

impl Held {
    /// Rows in the order in which they are named.
    fn pick(&self, rows: &[(u32, u32, u32)]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let at: Vec<(usize, usize)> = rows.iter().map(|&(_, batch, row)| (batch as usize, row as usize)).collect();
        interleave_record_batch(&batches, &at)
            .map_err(|e| Error::new("rows of the corpus cannot be put in order").caused_by(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{CorpusRow, Row};

    fn row(number: u32) -> CorpusRow {
        CorpusRow {
            messages: Vec::new(),
            reasoning: None,
            answer: format!("{number}").repeat(40),
            track: "t".into(),
            domain: "d".into(),
            language: "en".into(),
            difficulty: None,
            source: "s".into(),
            license: None,
            completion_tokens: Some(number),
            prompt_id: "p".into(),
            sample_index: number,
            completion_id: format!("c{number}"),
            reward: Some(1.0),
            model: "m".into(),
            model_digest: String::new(),
            rules_digest: String::new(),
            sampling: "{}".into(),
        }
    }

    /// Places 0…`n` in an order far from sorted, pushed in batches of 100.
    fn filled(folder: &Location, n: u32, memory: usize) -> Buckets {
        let mut buckets = Buckets { memory, ..Buckets::new(folder).unwrap() };
        let places: Vec<u32> = (0..n).map(|i| (i * 7919) % n).collect();
        for chunk in places.chunks(100) {
            let rows: Vec<CorpusRow> = chunk.iter().map(|&place| row(place)).collect();
            buckets.push(CorpusRow::to_batch(&rows), chunk.iter().copied()).unwrap();
        }
        buckets.held.rows.sort_unstable();
        buckets
    }

    #[test]
    fn rows_come_in_the_order_of_their_places_whether_they_were_spilled_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for (memory, runs) in [(usize::MAX, 0), (1 << 19, 2), (1, 90)] {
            let buckets = filled(&folder.path().into(), 9001, memory);
            assert!(buckets.runs.len() >= runs, "{} runs", buckets.runs.len());
            for range in [0..9001, 0..1, 4000..8200, 9000..9001, 5..5] {
                let mut seen = Vec::new();
                let take = |batch: RecordBatch| {
                    seen.extend(CorpusRow::from_batch(&batch)?);
                    Ok(())
                };
                buckets.merge(&range, take).unwrap();
                assert_eq!(seen, range.clone().map(row).collect::<Vec<_>>(), "{range:?} of {runs} runs");
            }
            buckets.clear().unwrap();
        }
    }

    #[test]
    fn runs_that_a_killed_stage_left_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spill = folder.path().join("_spill");
        std::mem::forget(filled(&folder.path().into(), 9001, 1));
        std::fs::write(spill.join("part-00200.parquet.tmp-1-1"), "torn").unwrap();
        assert!(std::fs::read_dir(&spill).unwrap().count() > 50);
        Buckets::new(&folder.path().into()).unwrap();
        assert!(!spill.exists());
    }
}
