//! A file of a dataset on its way to the disk or an object store: hashed and counted as it is written.

use std::io::{BufWriter, Write};

use super::faults::io_error;
use super::spool::Spool;
use super::{Location, ShardInfo};
use crate::error::Result;

/// A file that appears whole, with its digest, or not at all. Dropped without [`Sink::finish`], it
/// leaves nothing behind.
pub(crate) struct Sink {
    out: BufWriter<Spool>,
    hash: blake3::Hasher,
    bytes: u64,
    target: Location,
    /// Relative to the dataset's folder.
    file: String,
}

impl Sink {
    /// Begins a file of the dataset in `folder`; the folder is made if needed.
    ///
    /// # Errors
    /// The folder cannot be written (full, read-only, no permission).
    pub fn create(folder: &Location, file: String) -> Result<Sink> {
        let target = folder.join(&file);
        let out = BufWriter::with_capacity(1 << 20, Spool::create(&target)?);
        Ok(Sink { out, hash: blake3::Hasher::new(), bytes: 0, target, file })
    }

    /// Appends.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|e| io_error("write", &self.target, e))
    }

    /// Ends the file: on the disk (or uploaded), under its name.
    ///
    /// # Errors
    /// The disk or store refuses; then nothing is left under the file's name.
    pub fn finish(self, rows: u64) -> Result<ShardInfo> {
        let Sink { out, hash, bytes, target, file } = self;
        let spool = out.into_inner().map_err(|e| io_error("write", &target, e.into_error()))?;
        spool.publish(&target)?;
        Ok(ShardInfo { file, rows, bytes, blake3: hash.finalize().to_hex().to_string() })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
