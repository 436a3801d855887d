//! The groups sampled so far: on disk, in memory, and still under way.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::ask::{Key, RolloutBatch};
use crate::error::{Context, Error, Result};
use crate::schema::{DatasetKind, GroupRow, Row};
use crate::stage::training::RolloutLog;
use crate::store::{Dataset, Location, ShardInfo, ShardWriter, WriterOptions};

/// Whole shards on disk, the rest in memory, and what servers were asked for ahead.
///
/// Where a shard ends depends on the rows alone, not on checkpoints, so a killed and resumed run
/// writes the same files. A checkpoint waits for what is under way and keeps it: the policy that it
/// is of will be gone when the run goes on.
pub struct Rollouts {
    folder: Location,
    shard_rows: usize,
    /// A shard ends here, too: what is in it waits in memory, and is in every checkpoint.
    shard_bytes: usize,
    pending: Vec<GroupRow>,
    pending_bytes: usize,
    shards: Vec<ShardInfo>,
    /// Where batches come from that were asked ahead.
    coming: Option<mpsc::Receiver<Result<RolloutBatch>>>,
    /// Those that were asked, in the order they come.
    asked: VecDeque<Key>,
    /// Those that came and were not trained on yet.
    came: Vec<RolloutBatch>,
}

impl Rollouts {
    pub fn new(folder: Location, shard_rows: usize) -> Self {
        Rollouts {
            folder,
            shard_rows,
            shard_bytes: SHARD_BYTES,
            pending: Vec::new(),
            pending_bytes: 0,
            shards: Vec::new(),
            coming: None,
            asked: VecDeque::new(),
            came: Vec::new(),
        }
    }

    /// Batches will come from here.
    pub fn receive_from(&mut self, coming: mpsc::Receiver<Result<RolloutBatch>>) {
        self.coming = Some(coming);
    }

    /// A batch was asked for.
    pub fn expect(&mut self, key: Key) {
        self.asked.push_back(key);
    }

    /// Whether a batch was asked for and not taken.
    pub fn holds(&self, key: &Key) -> bool {
        self.asked.contains(key) || self.came.iter().any(|batch| batch.key == *key)
    }

    /// A batch that was asked for, waiting for it; `tick` is called now and then meanwhile.
    ///
    /// # Errors
    /// Sampling it, or one asked before it, failed.
    pub fn take(&mut self, key: &Key, tick: &dyn Fn()) -> Result<RolloutBatch> {
        loop {
            if let Some(place) = self.came.iter().position(|batch| batch.key == *key) {
                return Ok(self.came.remove(place));
            }
            self.wait(tick)?;
        }
    }

    /// Whether this batch is all that was asked for and has not come.
    pub fn waits_for_nothing_but(&self, key: &Key) -> bool {
        self.asked.iter().all(|asked| asked == key)
    }

    /// Waits for the next batch.
    fn wait(&mut self, tick: &dyn Fn()) -> Result<()> {
        let ended = || Error::new("the thread that samples has ended");
        let coming = self.coming.as_ref().ok_or_else(ended)?;
        let batch = loop {
            match coming.recv_timeout(TICK) {
                Ok(batch) => break batch,
                Err(RecvTimeoutError::Timeout) => tick(),
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        };
        self.asked.pop_front();
        self.came.push(batch?);
        Ok(())
    }

    /// Adds the rows of one group.
    pub fn push(&mut self, rows: impl IntoIterator<Item = GroupRow>) -> Result<()> {
        for row in rows {
            self.pending_bytes += row.bytes();
            self.pending.push(row);
        }
        if self.pending.len() >= self.shard_rows || self.pending_bytes >= self.shard_bytes {
            self.write_shard()?;
        }
        Ok(())
    }

    fn write_shard(&mut self) -> Result<()> {
        let options = WriterOptions::default();
        let mut writer = ShardWriter::create(&self.folder, self.shards.len(), DatasetKind::Groups, options)?;
        writer.push_rows(&self.pending)?;
        self.shards.push(writer.finish()?);
        self.pending.clear();
        self.pending_bytes = 0;
        Ok(())
    }
}

/// Most bytes of a shard's rows but for its last group: as many as 16,384 completions of some 4,000 tokens.
const SHARD_BYTES: usize = 1 << 30;

/// How often whoever waits for a batch looks up.
const TICK: Duration = Duration::from_millis(50);

/// File of the pending rows within a checkpoint. Files of rows are Parquet, and not called so: once the stage has finished
/// the rows are in its shards too, and whoever looks for `**/*.parquet` must not find them twice.
const PENDING: &str = "pending.rows";

/// File of a batch that came and was not trained on, in the order they came.
fn ahead(index: usize) -> String {
    format!("ahead-{index}.rows")
}

fn write_rows(checkpoint: &Path, file: &str, rows: &[GroupRow]) -> Result<()> {
    let folder = Location::from(checkpoint);
    let mut writer = ShardWriter::create(&folder, 0, DatasetKind::Groups, WriterOptions::default())?;
    writer.push_rows(rows)?;
    let written = checkpoint.join(writer.finish()?.file);
    std::fs::rename(&written, checkpoint.join(file)).or_fail(|| format!("cannot rename {}", written.display()))
}

/// The rows in a checkpoint's file, if it has that.
fn read_rows(checkpoint: &Path, file: &str) -> Result<Option<Vec<GroupRow>>> {
    let path = checkpoint.join(file);
    if !path.exists() {
        return Ok(None);
    }
    Dataset::open(&Location::from(path))?.rows_of::<GroupRow>().collect::<Result<_>>().map(Some)
}

impl RolloutLog for Rollouts {
    fn store(&mut self, checkpoint: &Path) -> Result<Vec<ShardInfo>> {
        while !self.asked.is_empty() {
            self.wait(&|| {})?;
        }
        if !self.pending.is_empty() {
            write_rows(checkpoint, PENDING, &self.pending)?;
        }
        for (index, batch) in self.came.iter().enumerate() {
            write_rows(checkpoint, &ahead(index), &batch.groups.concat())?;
        }
        Ok(self.shards.clone())
    }

    fn resume(&mut self, checkpoint: &Path, shards: Vec<ShardInfo>) -> Result<()> {
        self.shards = shards;
        self.pending = read_rows(checkpoint, PENDING)?.unwrap_or_default();
        self.pending_bytes = self.pending.iter().map(Row::bytes).sum();
        self.came.clear();
        for index in 0.. {
            let Some(rows) = read_rows(checkpoint, &ahead(index))? else { break };
            self.came.extend(RolloutBatch::of_rows(rows));
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<ShardInfo>> {
        if !self.pending.is_empty() {
            self.write_shard()?;
        }
        Ok(self.shards.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_ends_by_its_bytes_too_and_a_resumed_run_ends_it_at_the_same_row() {
        let golden = Location::from(std::path::PathBuf::from("datasets/golden/v1/groups.parquet"));
        let row = Dataset::open(&golden).unwrap().rows_of::<GroupRow>().next().unwrap().unwrap();
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let [folder, other, checkpoint] = &folders[..] else { unreachable!("three") };
        let begin = |folder: &tempfile::TempDir| {
            let mut rollouts = Rollouts::new(folder.path().into(), 1000);
            rollouts.shard_bytes = 4 * row.bytes();
            rollouts
        };
        let group = || std::iter::repeat_n(row.clone(), 3);
        let mut rollouts = begin(folder);
        (0..3).try_for_each(|_| rollouts.push(group())).unwrap();
        let shards = rollouts.store(checkpoint.path()).unwrap();
        assert_eq!(shards.iter().map(|shard| shard.rows).collect::<Vec<_>>(), [6], "three rows wait");
        let mut resumed = begin(other);
        resumed.resume(checkpoint.path(), shards).unwrap();
        for rollouts in [&mut rollouts, &mut resumed] {
            rollouts.push(group()).unwrap();
            let shards = rollouts.finish().unwrap();
            assert_eq!(shards.iter().map(|shard| shard.rows).collect::<Vec<_>>(), [6, 6]);
        }
    }
}
