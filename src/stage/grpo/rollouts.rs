//! The groups sampled so far: on disk, in memory, and still under way.

mod unfinished;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::ask::{Came, Key, Part, RolloutBatch};
use crate::error::{Context, Error, Result};
use crate::schema::{DatasetKind, GroupRow, Row};
use crate::stage::layout::PENDING;
use crate::stage::training::RolloutLog;
use crate::store::{Dataset, Location, ShardInfo, ShardWriter, WriterOptions};

/// Whole shards on disk, the rest in memory, and what servers were asked for ahead.
///
/// Where a shard ends depends on the rows alone, not on checkpoints, so a killed and resumed run
/// writes the same files. A checkpoint waits for what is under way and keeps it: the policy that it
/// is of will be gone when the run goes on. Once the user has stopped it keeps what was answered by then
/// ([`unfinished`]), with that policy.
pub struct Rollouts<'a> {
    folder: Location,
    shard_rows: usize,
    /// A shard ends here, too: what is in it waits in memory, and is in every checkpoint.
    shard_bytes: usize,
    pending: Vec<GroupRow>,
    pending_bytes: usize,
    shards: Vec<ShardInfo>,
    /// Where batches come from that servers were asked for.
    coming: Option<Coming<'a>>,
    /// Those that were asked, in the order they come.
    asked: VecDeque<Key>,
    /// Those that came and were not trained on yet.
    came: Vec<RolloutBatch>,
    /// Those of the collection under way: their rows are not the log's before it is whole.
    taken: Vec<RolloutBatch>,
    /// Those that were asked and did not come whole.
    parts: Vec<Part>,
    /// Whether there are answers that no checkpoint has.
    unstored: bool,
}

/// Where batches come from that servers were asked for.
pub struct Coming<'a> {
    pub batches: mpsc::Receiver<Result<Came>>,
    /// Folder of the weights they are of: those of a step lie in [`weights_of`].
    pub policy: PathBuf,
    /// Called now and then by whoever waits for them: stops the servers once the user says so.
    pub tick: Box<dyn Fn() + Send + 'a>,
}

/// Where the weights of a step are, for servers.
pub fn weights_of(policy: &Path, step: u64) -> PathBuf {
    policy.join(format!("step-{step:06}"))
}

impl<'a> Rollouts<'a> {
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
            taken: Vec::new(),
            parts: Vec::new(),
            unstored: false,
        }
    }

    /// Batches will come from here.
    pub fn receive_from(&mut self, coming: Coming<'a>) {
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

    /// A batch that came and was not taken yet.
    pub fn came(&mut self, key: &Key) -> Option<RolloutBatch> {
        let place = self.came.iter().position(|batch| batch.key == *key)?;
        Some(self.came.remove(place))
    }

    /// A batch that was asked for, waiting for it.
    ///
    /// # Errors
    /// Sampling it, or one asked before it, failed; [`Error::interrupted`] if the user stopped before it was whole.
    pub fn take(&mut self, key: &Key) -> Result<RolloutBatch> {
        loop {
            if let Some(batch) = self.came(key) {
                return Ok(batch);
            }
            if self.parts.iter().any(|part| part.key == *key) {
                return Err(Error::interrupted());
            }
            self.wait()?;
        }
    }

    /// Waits for the next batch, or for as much of it as there is.
    fn wait(&mut self) -> Result<()> {
        let ended = || Error::new("the thread that samples has ended");
        let coming = self.coming.as_ref().ok_or_else(ended)?;
        let came = loop {
            (coming.tick)();
            match coming.batches.recv_timeout(TICK) {
                Ok(came) => break came,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ended()),
            }
        };
        self.asked.pop_front();
        match came? {
            Came::Whole(batch) => {
                self.unstored = true;
                self.came.push(batch);
            }
            Came::Part(part) => {
                self.unstored |= !part.answered.is_empty();
                self.parts.push(part);
            }
        }
        Ok(())
    }

    /// What there is of batches that are to be asked for again, in the order they were asked.
    pub fn go_on(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }

    /// Keeps a batch of the collection under way.
    pub fn keep(&mut self, batch: RolloutBatch) {
        self.taken.push(batch);
    }

    /// The collection under way is whole: its batches are the log's.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn collected(&mut self) -> Result<()> {
        let groups = std::mem::take(&mut self.taken).into_iter().flat_map(|batch| batch.groups);
        groups.into_iter().try_for_each(|rows| self.push(rows))
    }

    /// The collection under way came to nothing: whoever goes on takes its batches again.
    pub fn give_back(&mut self) {
        self.unstored |= !self.taken.is_empty();
        self.came.append(&mut self.taken);
    }

    /// Adds the rows of one group.
    fn push(&mut self, rows: impl IntoIterator<Item = GroupRow>) -> Result<()> {
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

/// File of a batch that came and was not trained on, in the order they came.
fn ahead(index: usize) -> String {
    format!("ahead-{index}.rows")
}

fn write_rows<R: Row>(checkpoint: &Path, file: &str, rows: &[R]) -> Result<()> {
    let folder = Location::from(checkpoint);
    let mut writer = ShardWriter::create(&folder, 0, R::KIND, WriterOptions::default())?;
    writer.push_rows(rows)?;
    let written = checkpoint.join(writer.finish()?.file);
    std::fs::rename(&written, checkpoint.join(file)).or_fail(|| format!("cannot rename {}", written.display()))
}

/// The rows in a checkpoint's file, if it has that.
fn read_rows<R: Row + Send + 'static>(checkpoint: &Path, file: &str) -> Result<Option<Vec<R>>> {
    let path = checkpoint.join(file);
    if !path.exists() {
        return Ok(None);
    }
    Dataset::open(&Location::from(path))?.rows_of::<R>().collect::<Result<_>>().map(Some)
}

impl RolloutLog for Rollouts<'_> {
    fn unstored(&self) -> bool {
        self.unstored
    }

    fn store(&mut self, checkpoint: &Path, step: u64) -> Result<Vec<ShardInfo>> {
        while !self.asked.is_empty() {
            self.wait()?;
        }
        if !self.pending.is_empty() {
            write_rows(checkpoint, PENDING, &self.pending)?;
        }
        for (index, batch) in self.came.iter().enumerate() {
            write_rows(checkpoint, &ahead(index), &batch.groups.concat())?;
        }
        let policy = self.coming.as_ref().map(|coming| coming.policy.as_path());
        unfinished::store(checkpoint, step, &self.parts, policy)?;
        self.unstored = false;
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
        self.parts = unfinished::resume(checkpoint, self.coming.as_ref().map(|coming| coming.policy.as_path()))?;
        self.unstored = false;
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
        let shards = rollouts.store(checkpoint.path(), 1).unwrap();
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
