//! What the stage writes: prompts that stay as shards, and lists of what does not, for people.

use std::cell::RefCell;

use super::{CONFLICTS, HITS, StageContext, StageOutcome};
use crate::error::Result;
use crate::prompts::prepare::Sink;
use crate::prompts::{Dropped, GoldConflict, Hit};
use crate::schema::Prompt;
use crate::store::{FileWriter, Location, RowWriter, ShardInfo, WriterOptions};

/// Writes what stays as shards, what goes as lists.
pub(super) struct Shards<'a> {
    cx: &'a StageContext<'a>,
    /// The shard under way.
    writer: Option<RowWriter<Prompt>>,
    shards: Vec<ShardInfo>,
    /// Rows that cannot be read are in this list too.
    drops: &'a RefCell<Lines>,
    hits: Lines,
    conflicts: Lines,
}

impl<'a> Shards<'a> {
    pub fn new(cx: &'a StageContext<'a>, drops: &'a RefCell<Lines>) -> Self {
        let lines = |name| Lines::new(cx.folder.join(name));
        let (hits, conflicts) = (lines(HITS), lines(CONFLICTS));
        Shards { cx, writer: None, shards: Vec::new(), drops, hits, conflicts }
    }

    fn writer(&mut self) -> Result<&mut RowWriter<Prompt>> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            none => Ok(none.insert(RowWriter::create(self.cx.folder, self.shards.len(), WriterOptions::default())?)),
        }
    }

    fn end_shard(&mut self) -> Result<()> {
        self.shards.extend(self.writer.take().map(RowWriter::finish).transpose()?);
        Ok(())
    }

    pub fn finish(mut self) -> Result<StageOutcome> {
        if self.shards.is_empty() {
            self.writer()?;
        }
        self.end_shard()?;
        for lines in [self.hits, self.conflicts] {
            lines.finish()?;
        }
        Ok(StageOutcome { shards: self.shards, ..StageOutcome::default() })
    }
}

impl Sink for Shards<'_> {
    fn keep(&mut self, prompt: Prompt) -> Result<()> {
        let writer = self.writer()?;
        writer.push(prompt)?;
        if writer.rows() == self.cx.shard_rows as u64 { self.end_shard() } else { Ok(()) }
    }

    fn drop(&mut self, drop: Dropped) -> Result<()> {
        self.drops.borrow_mut().push(&drop)
    }

    fn hit(&mut self, hit: Hit) -> Result<()> {
        self.hits.push(&hit)
    }

    fn conflict(&mut self, conflict: GoldConflict) -> Result<()> {
        self.conflicts.push(&conflict)
    }
}

/// JSON lines, written as they come; the file appears whole at the end, and not at all if there is no line.
pub(super) struct Lines {
    file: Location,
    writer: Option<FileWriter>,
    line: Vec<u8>,
}

impl Lines {
    pub fn new(file: Location) -> Self {
        Lines { file, writer: None, line: Vec::new() }
    }

    pub fn push(&mut self, row: &impl serde::Serialize) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, row).expect("plain data into memory");
        self.line.push(b'\n');
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(FileWriter::create(&self.file)?),
        };
        writer.write(&self.line)
    }

    pub fn finish(self) -> Result<()> {
        self.writer.map_or(Ok(()), FileWriter::finish)
    }
}
