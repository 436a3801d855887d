//! The journal: what is already done inside a stage, safe against a kill at any byte.
//!
//! A file of records: length (u32, little endian), the first 8 bytes of the payload's
//! BLAKE3, payload. Opening replays the valid records and cuts off a torn tail. On an
//! object store, whose objects cannot grow, each flush writes the records since the
//! last one as an object of its own, in the same form.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use super::Location;
use super::faults::io_error;
use super::location::Place;
use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"gmjrnl1\n";
const HEADER: usize = 12;
/// No record is longer; a length beyond this is damage.
const MAX_RECORD: usize = 1 << 30;

/// When records must be safe against a power cut (or, remotely, uploaded). Locally, a
/// record is safe against a kill of the process as soon as `append` returns.
#[derive(Clone, Copy, Debug)]
pub struct SyncPolicy {
    /// After this many records …
    pub records: usize,
    /// … or this long after the last flush, checked when the next record comes.
    pub interval: Duration,
}

impl Default for SyncPolicy {
    /// Every 256 records or 2 seconds.
    fn default() -> Self {
        SyncPolicy { records: 256, interval: Duration::from_secs(2) }
    }
}

/// An append-only log of byte records with one writer at a time.
pub struct Journal {
    location: Location,
    out: Out,
    policy: SyncPolicy,
    unsynced: usize,
    last_sync: Instant,
    recovered_bytes: u64,
}

enum Out {
    Local(File),
    Segments { next: u64, pending: Vec<u8> },
}

impl Journal {
    /// Opens or makes the journal; `replay` gets every record written so far, in order.
    ///
    /// A torn tail (the process was killed while writing) is cut off, see [`Journal::recovered_bytes`].
    ///
    /// # Errors
    /// `replay` fails; another process has the journal open; the file is no journal; the disk or store refuses.
    pub fn open(
        location: &Location,
        policy: SyncPolicy,
        mut replay: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Journal> {
        let mut recovered_bytes = 0;
        let out = match location.place() {
            Place::Local(path) => {
                location.parent().create_folder()?;
                let fail = |e| io_error("open the journal", location, e);
                let mut options = OpenOptions::new();
                let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(Error::new("another process is writing here")
                            .in_file(location)
                            .hint("wait for it to end, or choose another output folder"));
                    }
                    // Some network file systems know no locks; the journal works without.
                    Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {}
                    Err(TryLockError::Error(e)) => return Err(fail(e)),
                }
                let length = file.metadata().map_err(fail)?.len();
                let valid = replay_file(&mut BufReader::with_capacity(1 << 20, &file), location, &mut replay)?;
                recovered_bytes = length - valid;
                if valid == 0 {
                    file.set_len(0).map_err(fail)?;
                    file.rewind().map_err(fail)?;
                    file.write_all(MAGIC).map_err(fail)?;
                } else {
                    file.set_len(valid).map_err(fail)?;
                    file.seek(SeekFrom::Start(valid)).map_err(fail)?;
                }
                file.sync_all().map_err(fail)?;
                Out::Local(file)
            }
            Place::Remote { .. } => {
                let mut next = 0;
                for entry in location.list()? {
                    let Some(number) = entry.name.strip_prefix("segment-").and_then(|n| n.parse::<u64>().ok()) else {
                        continue;
                    };
                    let segment = location.join(&entry.name);
                    let bytes = segment.read()?;
                    recovered_bytes += bytes.len() as u64 - replay_file(&mut bytes.as_ref(), &segment, &mut replay)?;
                    next = next.max(number + 1);
                }
                Out::Segments { next, pending: MAGIC.to_vec() }
            }
        };
        Ok(Journal { location: location.clone(), out, policy, unsynced: 0, last_sync: Instant::now(), recovered_bytes })
    }

    /// Reads what a journal holds without opening it for writing; nothing if there is none.
    ///
    /// # Errors
    /// `replay` fails, or the disk or store refuses.
    pub fn replay(location: &Location, mut replay: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match location.place() {
            Place::Local(path) => match File::open(path) {
                Ok(file) => replay_file(&mut BufReader::with_capacity(1 << 20, file), location, &mut replay).map(drop),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                Err(e) => Err(io_error("read the journal", location, e)),
            },
            Place::Remote { .. } => {
                for entry in location.list()?.iter().filter(|entry| entry.name.starts_with("segment-")) {
                    let segment = location.join(&entry.name);
                    replay_file(&mut segment.read()?.as_ref(), &segment, &mut replay)?;
                }
                Ok(())
            }
        }
    }

    /// Deletes the journal at a location, if there is one.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn delete(location: &Location) -> Result<()> {
        match location.place() {
            Place::Local(_) => location.delete(),
            Place::Remote { .. } => location.list()?.iter().try_for_each(|entry| location.join(&entry.name).delete()),
        }
    }

    /// Bytes of a torn tail that opening cut off.
    pub fn recovered_bytes(&self) -> u64 {
        self.recovered_bytes
    }

    /// Appends one record of at most 1 GiB.
    ///
    /// # Errors
    /// The record is too long, or the disk or store refuses.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        if record.len() > MAX_RECORD {
            return Err(
                Error::new(format!("a journal record of {} bytes is too long", record.len())).in_file(&self.location)
            );
        }
        let mut framed = Vec::with_capacity(HEADER + record.len());
        framed.extend_from_slice(&(record.len() as u32).to_le_bytes());
        framed.extend_from_slice(&checksum(record));
        framed.extend_from_slice(record);
        match &mut self.out {
            // One write a record: what a kill can tear is the last one only.
            Out::Local(file) => {
                file.write_all(&framed).map_err(|e| io_error("write the journal", &self.location, e))?
            }
            Out::Segments { pending, .. } => pending.extend_from_slice(&framed),
        }
        self.unsynced += 1;
        if self.unsynced >= self.policy.records || self.last_sync.elapsed() >= self.policy.interval {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes all records safe: on the disk, or uploaded.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn sync(&mut self) -> Result<()> {
        if self.unsynced > 0 {
            match &mut self.out {
                Out::Local(file) => {
                    file.sync_data().map_err(|e| io_error("write the journal", &self.location, e))?;
                }
                Out::Segments { next, pending } => {
                    self.location.join(&format!("segment-{next:010}")).write(pending.clone())?;
                    *next += 1;
                    pending.truncate(MAGIC.len());
                }
            }
        }
        self.unsynced = 0;
        self.last_sync = Instant::now();
        Ok(())
    }

    /// Deletes the journal: what it kept is committed elsewhere.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn remove(mut self) -> Result<()> {
        self.unsynced = 0;
        let location = self.location.clone();
        let remote = matches!(self.out, Out::Segments { .. });
        drop(self);
        if remote {
            return location.list()?.iter().try_for_each(|entry| location.join(&entry.name).delete());
        }
        location.delete()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Best effort: whoever must know calls `sync`.
        let _ = self.sync();
    }
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    blake3::hash(payload).as_bytes()[..8].try_into().expect("a digest has 32 bytes")
}

/// Replays the valid records; returns the length of the valid part, 0 if not even the magic is whole.
fn replay_file(
    input: &mut impl Read,
    location: &Location,
    replay: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let fail = |e| io_error("read the journal", location, e);
    let mut magic = Vec::new();
    input.take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(fail)?;
    if !MAGIC.starts_with(&magic) {
        return Err(Error::new("this is not a gristmill journal").in_file(location).hint("move the file away"));
    }
    if magic.len() < MAGIC.len() {
        return Ok(0);
    }
    let mut valid = MAGIC.len() as u64;
    let mut payload = Vec::new();
    loop {
        let mut header = Vec::with_capacity(HEADER);
        input.take(HEADER as u64).read_to_end(&mut header).map_err(fail)?;
        if header.len() < HEADER {
            return Ok(valid);
        }
        let (length, sum) = header.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("split at four")) as usize;
        if length > MAX_RECORD {
            return Ok(valid);
        }
        payload.clear();
        input.take(length as u64).read_to_end(&mut payload).map_err(fail)?;
        if payload.len() < length || checksum(&payload) != sum {
            return Ok(valid);
        }
        replay(&payload)?;
        valid += (HEADER + length) as u64;
    }
}
