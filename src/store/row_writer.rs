//! Rows written one by one: they wait until they are worth encoding, and no longer.

use super::writer::PIECE_ROWS;
use super::{Location, ShardInfo, ShardWriter, WriterOptions};
use crate::error::Result;
use crate::schema::Row;

/// Writes one shard of rows; memory does not depend on how many. Dropped without [`RowWriter::finish`], it leaves
/// nothing behind.
pub struct RowWriter<R> {
    writer: ShardWriter,
    waiting: Vec<R>,
    bytes: usize,
}

impl<R: Row> RowWriter<R> {
    /// Begins shard `index` of the dataset in `folder`; the folder is made if needed.
    ///
    /// # Errors
    /// As [`ShardWriter::create`].
    pub fn create(folder: &Location, index: usize, options: WriterOptions) -> Result<RowWriter<R>> {
        let writer = ShardWriter::create(folder, index, R::KIND, options)?;
        Ok(RowWriter { writer, waiting: Vec::new(), bytes: 0 })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// As [`ShardWriter::push_rows`].
    pub fn push(&mut self, row: R) -> Result<()> {
        self.bytes += row.bytes();
        self.waiting.push(row);
        if self.waiting.len() < PIECE_ROWS && self.bytes < self.writer.piece_bytes() {
            return Ok(());
        }
        self.encode()
    }

    fn encode(&mut self) -> Result<()> {
        self.writer.push_rows(&self.waiting)?;
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Rows appended so far.
    pub fn rows(&self) -> u64 {
        self.writer.rows() + self.waiting.len() as u64
    }

    /// Ends the shard: on the disk (or uploaded), under its name.
    ///
    /// # Errors
    /// As [`ShardWriter::finish`].
    pub fn finish(mut self) -> Result<ShardInfo> {
        self.encode()?;
        self.writer.finish()
    }
}
