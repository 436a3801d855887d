//! Rows on their way to their places: in memory while they are few, beyond that in sorted runs on the
//! disk, which they are merged from in the places' order.
//!
//! Memory is bounded by bytes and not by rows, since a row may be a question or a hundred thousand tokens.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;

use super::layout::SPILL;
use super::{StageContext, fitting};
use crate::error::{Error, Result};
use crate::schema::DatasetKind;
use crate::store::{Dataset, Location, Shard, ShardWriter, WriterOptions, row_bytes};

/// Bytes of rows held in memory before they become a run.
const MEMORY: usize = 192 << 20;
/// Rows of a run's row group: what is read beyond the rows wanted at most, at either end.
const RUN_GROUP_ROWS: usize = 4096;
/// Bytes of a run's pages: of every run one a column is in memory.
const RUN_PIECE: usize = 1 << 20;
/// Rows merged at once, by their bytes.
const WINDOW: u64 = 32 << 20;
/// Rows put in order at once: so many, or of so many bytes.
const PIECE_ROWS: usize = 1024;
const PIECE: u64 = 8 << 20;
/// What shards that are written at once may hold together.
const WRITING: u64 = 384 << 20;

/// Collects rows with their places and gives them back in the places' order.
pub struct ExternalSort {
    /// Where runs lie.
    folder: Location,
    kind: DatasetKind,
    memory: usize,
    held: Held,
    runs: Vec<Run>,
    /// Of the row at each place.
    bytes: Vec<u32>,
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

impl ExternalSort {
    /// For rows of a kind; removes what a killed stage left of its runs.
    pub fn new(folder: &Location, kind: DatasetKind) -> Result<Self> {
        let sort = ExternalSort {
            folder: folder.join(SPILL),
            kind,
            memory: MEMORY,
            held: Held::default(),
            runs: Vec::new(),
            bytes: Vec::new(),
        };
        sort.clear()?;
        Ok(sort)
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

    /// Takes the rows of a batch of the kind's columns, each with its place.
    pub fn push(&mut self, batch: RecordBatch, places: impl Iterator<Item = u32>) -> Result<()> {
        let index = self.held.batches.len() as u32;
        for ((row, place), bytes) in places.enumerate().zip(row_bytes(&batch)) {
            self.held.rows.push((place, index, row as u32));
            let at = place as usize;
            if at >= self.bytes.len() {
                self.bytes.resize(at + 1, 0);
            }
            self.bytes[at] = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        self.held.bytes += batch.get_array_memory_size();
        self.held.batches.push(batch);
        if self.held.bytes > self.memory { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        let mut held = std::mem::take(&mut self.held);
        held.rows.sort_unstable();
        let options = WriterOptions {
            zstd_level: 1,
            group_rows: RUN_GROUP_ROWS,
            piece_bytes: RUN_PIECE,
            ..WriterOptions::default()
        };
        let mut writer = ShardWriter::create(&self.folder, self.runs.len(), self.kind, options)?;
        let mut rest = &held.rows[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(self.piece(rest.iter().map(|row| row.0)));
            writer.push(&held.pick(piece)?)?;
            rest = behind;
        }
        let file = self.folder.join(&writer.finish()?.file);
        let shard = Dataset::open(&file)?.shards()[0].clone();
        self.runs.push(Run { file, shard, places: held.rows.iter().map(|(place, ..)| *place).collect() });
        Ok(())
    }

    /// Bytes of the rows at these places.
    fn sizes(&self, places: impl Iterator<Item = u32>) -> impl Iterator<Item = u64> {
        places.map(|place| u64::from(self.bytes[place as usize]))
    }

    /// How many of the next rows, named by their places, are put in order at once: one at least.
    fn piece(&self, places: impl Iterator<Item = u32>) -> usize {
        fitting(self.sizes(places.take(PIECE_ROWS)), PIECE)
    }

    /// Has `make` work on every range of places, several at once as memory allows, and answers with what
    /// it gave for each. The rows are gone afterwards.
    ///
    /// # Errors
    /// The first that fails ends the others.
    pub fn drain<T: Send>(
        mut self,
        cx: &StageContext<'_>,
        ranges: &[Range<u32>],
        make: impl Fn(usize, &mut dyn Iterator<Item = Result<RecordBatch>>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        self.held.rows.sort_unstable();
        let need = ranges.iter().map(|range| self.need(range)).max().unwrap_or(0).max(1);
        let workers = (WRITING / need).clamp(1, cx.threads.max(1) as u64) as usize;
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let made: Mutex<BTreeMap<usize, Result<T>>> = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..workers.min(ranges.len()) {
                scope.spawn(|| {
                    while let Some((index, range)) = take(&next, ranges) {
                        if failed.load(Ordering::Relaxed) {
                            return;
                        }
                        let result = cx.check_stop().and_then(|()| make(index, &mut self.in_order(range.clone())));
                        failed.fetch_or(result.is_err(), Ordering::Relaxed);
                        made.lock().expect("no holder panics").insert(index, result);
                    }
                });
            }
        });
        let made = made.into_inner().expect("no holder panicked").into_values().collect::<Result<Vec<T>>>()?;
        for run in &self.runs {
            run.file.delete()?;
        }
        self.clear()?;
        Ok(made)
    }

    /// Bytes that writing a range of places takes, about.
    fn need(&self, range: &Range<u32>) -> u64 {
        let bytes: u64 = self.bytes[range.start as usize..range.end as usize].iter().map(|&b| u64::from(b)).sum();
        let row_group = WriterOptions::default().group_bytes as u64;
        2 * bytes.min(WINDOW) + 2 * bytes.min(PIECE) + bytes.min(row_group)
    }

    /// The rows of a range of places, in order.
    fn in_order(&self, places: Range<u32>) -> InOrder<'_> {
        InOrder { sort: self, left: places, window: Held::default(), next: 0, failed: false }
    }

    /// The end of the window that begins at a place.
    fn window_end(&self, places: &Range<u32>) -> u32 {
        let rows = fitting(self.sizes(places.clone()), WINDOW);
        places.end.min(places.start + rows as u32)
    }

    /// The rows of a few places, in order.
    fn merge(&self, places: &Range<u32>) -> Result<Held> {
        let mut merged = Held::default();
        for run in &self.runs {
            let (start, end) = within(&run.places, places, |place| *place);
            if start == end {
                continue;
            }
            let mut next = start;
            for batch in run.shard.rows_in(start as u64..end as u64, Some(self.kind), None)? {
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
        Ok(merged)
    }
}

/// The next item that nobody has taken.
fn take<'a, T>(next: &AtomicUsize, items: &'a [T]) -> Option<(usize, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}

/// Rows in the order of their places, piece by piece. Ends after the first error.
struct InOrder<'a> {
    sort: &'a ExternalSort,
    /// Places that no window has reached yet.
    left: Range<u32>,
    window: Held,
    /// The next row of the window.
    next: usize,
    failed: bool,
}

impl Iterator for InOrder<'_> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.next == self.window.rows.len() {
            if self.left.is_empty() {
                return None;
            }
            let end = self.sort.window_end(&self.left);
            let places = self.left.start..end;
            self.left.start = end;
            self.next = 0;
            // The last window's rows go before the next one's come.
            self.window = Held::default();
            match self.sort.merge(&places) {
                Ok(window) => self.window = window,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        if self.failed {
            return None;
        }
        let rest = &self.window.rows[self.next..];
        let piece = self.sort.piece(rest.iter().map(|row| row.0));
        self.next += piece;
        let picked = self.window.pick(&rest[..piece]);
        self.failed = picked.is_err();
        Some(picked)
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
        interleave_record_batch(&batches, &at).map_err(|e| Error::new("rows cannot be put in order").caused_by(e))
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
    fn filled(folder: &Location, n: u32, memory: usize) -> ExternalSort {
        let mut sort = ExternalSort { memory, ..ExternalSort::new(folder, DatasetKind::Corpus).unwrap() };
        let places: Vec<u32> = (0..n).map(|i| (i * 7919) % n).collect();
        for chunk in places.chunks(100) {
            let rows: Vec<CorpusRow> = chunk.iter().map(|&place| row(place)).collect();
            sort.push(CorpusRow::to_batch(&rows), chunk.iter().copied()).unwrap();
        }
        sort.held.rows.sort_unstable();
        sort
    }

    #[test]
    fn rows_come_in_the_order_of_their_places_whether_they_were_spilled_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for (memory, runs) in [(usize::MAX, 0), (1 << 19, 2), (1, 90)] {
            let sort = filled(&folder.path().into(), 9001, memory);
            assert!(sort.runs.len() >= runs, "{} runs", sort.runs.len());
            for range in [0..9001, 0..1, 4000..8200, 9000..9001, 5..5] {
                let pieces = sort.in_order(range.clone()).map(|batch| CorpusRow::from_batch(&batch?));
                let seen = pieces.collect::<Result<Vec<_>>>().unwrap().concat();
                assert_eq!(seen, range.clone().map(row).collect::<Vec<_>>(), "{range:?} of {runs} runs");
            }
            sort.clear().unwrap();
        }
    }

    #[test]
    fn runs_that_a_killed_stage_left_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spill = folder.path().join(SPILL);
        std::mem::forget(filled(&folder.path().into(), 9001, 1));
        std::fs::write(spill.join("part-00200.parquet.tmp-1-1"), "torn").unwrap();
        assert!(std::fs::read_dir(&spill).unwrap().count() > 50);
        ExternalSort::new(&folder.path().into(), DatasetKind::Corpus).unwrap();
        assert!(!spill.exists());
    }
}
