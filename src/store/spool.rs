//! Files written and read as streams wherever they lie: an object passes through a temporary file.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};

use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use super::Location;
use super::faults::{io_error, of_temporary};
use super::location::Place;
use super::pending::PendingFile;
use super::remote::{remote_error, upload, wait};
use crate::error::{Context, Result};

/// A file written piece by piece that appears whole or not at all. Dropped without
/// [`FileWriter::finish`], it leaves nothing behind.
pub struct FileWriter {
    out: BufWriter<Spool>,
    target: Location,
}

impl FileWriter {
    /// Begins a file; the folders above it are made.
    ///
    /// # Errors
    /// The disk is full or read-only, or permission is denied.
    pub fn create(target: &Location) -> Result<FileWriter> {
        Ok(FileWriter { out: BufWriter::with_capacity(1 << 18, Spool::create(target)?), target: target.clone() })
    }

    /// Appends.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| io_error("write", &self.target, e))
    }

    /// Ends the file: on the disk (or uploaded), under its name.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn finish(self) -> Result<()> {
        let FileWriter { out, target } = self;
        let spool = out.into_inner().map_err(|e| io_error("write", &target, e.into_error()))?;
        spool.publish(&target)
    }
}

impl Location {
    /// The file, open for reading and seeking; an object is fetched into a temporary file first.
    ///
    /// # Errors
    /// There is no such file, or the disk or store refuses to give it.
    pub fn open(&self) -> Result<File> {
        match self.place() {
            Place::Local(path) => File::open(path).map_err(|e| io_error("open", self, e)),
            Place::Remote { store, path, .. } => {
                let (store, path, name) = (store.clone(), path.clone(), self.to_string());
                let mut file = temporary()?;
                wait(async move {
                    let remote = |e| remote_error("read", &name, e);
                    let mut chunks = store.get(&path).await.map_err(remote)?.into_stream();
                    while let Some(chunk) = chunks.try_next().await.map_err(remote)? {
                        file.write_all(&chunk).map_err(|e| io_error("copy", &name, of_temporary(e)))?;
                    }
                    file.seek(SeekFrom::Start(0)).map_err(|e| io_error("read a temporary copy of", &name, e))?;
                    Ok(file)
                })
            }
        }
    }
}

/// Where bytes wait until their file gets its name.
pub(super) enum Spool {
    Local(PendingFile),
    /// Object stores want the size first, and an upload that fails must be able to start again.
    Remote(File),
}

impl Spool {
    pub(super) fn create(target: &Location) -> Result<Spool> {
        Ok(match target.place() {
            Place::Local(path) => Spool::Local(PendingFile::create(path)?),
            Place::Remote { .. } => Spool::Remote(temporary()?),
        })
    }

    /// Gives the file the name that the spool was created for.
    pub(super) fn publish(self, target: &Location) -> Result<()> {
        match (self, target.place()) {
            (Spool::Local(pending), _) => pending.publish(),
            (Spool::Remote(mut spooled), Place::Remote { store, path, .. }) => {
                spooled.seek(SeekFrom::Start(0)).map_err(|e| io_error("read back", target, e))?;
                upload(store, path, &target.to_string(), spooled)
            }
            (Spool::Remote(_), Place::Local(_)) => unreachable!("a spool is made for remote targets only"),
        }
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Spool::Local(pending) => pending.file.write(bytes),
            Spool::Remote(file) => file.write(bytes).map_err(of_temporary),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An unnamed temporary file.
pub(super) fn temporary() -> Result<File> {
    let file = tempfile::tempfile().or_fail(|| "cannot make a temporary file".to_owned());
    file.map_err(|e| e.in_file(std::env::temp_dir().display()).hint("TMPDIR names the folder for temporary files"))
}
