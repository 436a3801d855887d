//! The journal: what is already done inside a stage, safe against a kill at any byte.
//!
//! A file of records: length (u32, little endian), the first 8 bytes of the payload's
//! BLAKE3, payload. Opening replays the valid records, cuts off a torn tail, and says what else could not
//! be read ([`Journal::lost`]). On an
//! object store, whose objects cannot grow, each flush writes the records since the
//! last one as an object of its own, in the same form.
//!
//! A record can be read back by its [`Place`]: whoever waits with many large ones keeps
//! their places and not their bytes.

mod replay;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::faults::{io_error, of_temporary};
use super::location;
use super::lock::{is_locked, lock_soon};
use super::pending::sync_folder;
use super::spool::temporary;
use super::{Location, together};
use crate::error::{Error, Result};
pub use replay::Lost;
use replay::{checksum, replay};

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
    lost: Lost,
    /// Half a record lies at its end and could not be cut off: nothing may be written behind it.
    broken: bool,
}

/// Where a record's bytes can be read again; see [`Journal::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    offset: u64,
    bytes: u32,
}

impl Place {
    /// Bytes of the record.
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }
}

enum Out {
    /// The file, and how long its whole records are.
    Local(File, u64),
    Segments {
        next: u64,
        pending: Vec<u8>,
        /// All records, which objects that are written give back only whole; and how long they are.
        copy: File,
        length: u64,
    },
}

impl Journal {
    /// Opens or makes the journal; `take` gets every record written so far, in order, with its place.
    ///
    /// A tail that is no record (the process was killed while writing it) is cut off, see [`Journal::lost`].
    ///
    /// # Errors
    /// `take` fails; another process has the journal open; the file is no journal; the disk or store refuses.
    pub fn open(
        location: &Location,
        policy: SyncPolicy,
        mut take: impl FnMut(Place, &[u8]) -> Result<()>,
    ) -> Result<Journal> {
        let mut lost = Lost::default();
        let out = match location.place() {
            location::Place::Local(path) => {
                location.parent().create_folder()?;
                let fail = |e| io_error("open the journal", location, e);
                let mut options = OpenOptions::new();
                let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
                match lock_soon(|| file.try_lock()) {
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
                let replayed = replay(&file, location, &mut take)?;
                lost = replayed.lost;
                let valid = replayed.valid;
                if valid == 0 {
                    lost = Lost { tail: length, torn: length > 0, ..Lost::default() };
                    file.set_len(0).map_err(fail)?;
                    file.rewind().map_err(fail)?;
                    file.write_all(MAGIC).map_err(fail)?;
                    // The name of a new file must outlive a power cut too.
                    sync_folder(path.parent().unwrap_or(path)).map_err(fail)?;
                } else {
                    file.set_len(valid).map_err(fail)?;
                    file.seek(SeekFrom::Start(valid)).map_err(fail)?;
                }
                file.sync_all().map_err(fail)?;
                Out::Local(file, valid.max(MAGIC.len() as u64))
            }
            location::Place::Remote { .. } => {
                let (mut next, mut copy, mut length) = (0, temporary()?, 0);
                let mut copied = |_: Place, record: &[u8]| {
                    copy.write_all(record).map_err(|e| io_error("copy the journal", location, of_temporary(e)))?;
                    let place = Place { offset: length, bytes: record.len() as u32 };
                    length += record.len() as u64;
                    take(place, record)
                };
                each_segment(location, |number, segment, bytes| {
                    lost.add(replay(bytes, segment, &mut copied)?.lost);
                    next = next.max(number + 1);
                    Ok(())
                })?;
                Out::Segments { next, pending: MAGIC.to_vec(), copy, length }
            }
        };
        let (location, last_sync) = (location.clone(), Instant::now());
        Ok(Journal { location, out, policy, unsynced: 0, last_sync, lost, broken: false })
    }

    /// Reads what a journal holds without opening it for writing; nothing if there is none. Answers with
    /// what could not be read.
    ///
    /// # Errors
    /// `take` fails, or the disk or store refuses.
    pub fn replay(location: &Location, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<Lost> {
        let mut take = |_: Place, record: &[u8]| take(record);
        let mut lost = Lost::default();
        match location.place() {
            location::Place::Local(path) => match File::open(path) {
                Ok(file) => lost = replay(file, location, &mut take)?.lost,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(io_error("read the journal", location, e)),
            },
            location::Place::Remote { .. } => {
                each_segment(location, |_, segment, bytes| {
                    lost.add(replay(bytes, segment, &mut take)?.lost);
                    Ok(())
                })?;
            }
        }
        Ok(lost)
    }

    /// The first record of a journal, which says what it is of; `None` if it has none.
    ///
    /// # Errors
    /// As [`Journal::replay`].
    pub fn first(location: &Location) -> Result<Option<Vec<u8>>> {
        let (input, location): (Box<dyn Read>, Location) = match location.place() {
            location::Place::Local(path) => match File::open(path) {
                Ok(file) => (Box::new(BufReader::new(file)), location.clone()),
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(io_error("read the journal", location, e)),
            },
            location::Place::Remote { .. } => match segments(location)?.into_iter().next() {
                Some((_, segment)) => {
                    let bytes = together::read(std::slice::from_ref(&segment))?.swap_remove(0);
                    (Box::new(std::io::Cursor::new(bytes)), segment)
                }
                None => return Ok(None),
            },
        };
        replay::first(input, &location)
    }

    /// Whether a process has the journal open for writing; false where that cannot be told.
    pub fn is_in_use(location: &Location) -> bool {
        location.as_local().and_then(|path| File::open(path).ok()).is_some_and(|file| is_locked(&file))
    }

    /// Deletes the journal at a location, if there is one.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn delete(location: &Location) -> Result<()> {
        match location.place() {
            location::Place::Local(_) => location.delete(),
            location::Place::Remote { .. } => {
                let objects: Vec<Location> = location.list()?.iter().map(|entry| location.join(&entry.name)).collect();
                together::delete(&objects)
            }
        }
    }

    /// Bytes of its records, and the objects that they lie in: none on a local disk.
    pub fn extent(&self) -> (u64, u64) {
        match &self.out {
            Out::Local(_, length) => (*length, 0),
            Out::Segments { next, length, .. } => (*length, *next),
        }
    }

    /// What of it could not be read when it was opened.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Appends one record of at most 1 GiB and says where it can be read again.
    ///
    /// # Errors
    /// The record is too long, or the disk or store refuses.
    pub fn append(&mut self, record: &[u8]) -> Result<Place> {
        if record.len() > MAX_RECORD {
            return Err(
                Error::new(format!("a journal record of {} bytes is too long", record.len())).in_file(&self.location)
            );
        }
        if self.broken {
            return Err(Error::new("nothing more can be written to the journal: half a record lies at its end")
                .in_file(&self.location)
                .hint("run the same command again: it goes on from the last whole record"));
        }
        let mut framed = Vec::with_capacity(HEADER + record.len());
        framed.extend_from_slice(&(record.len() as u32).to_le_bytes());
        framed.extend_from_slice(&checksum(record));
        framed.extend_from_slice(record);
        let offset = match &mut self.out {
            // One write a record: what a kill can tear is the last one only.
            Out::Local(file, length) => {
                if let Err(e) = file.write_all(&framed) {
                    // Half a record would hide whatever is appended once there is space again.
                    self.broken = file.set_len(*length).and_then(|()| file.seek(SeekFrom::Start(*length))).is_err();
                    return Err(io_error("write the journal", &self.location, e));
                }
                *length += framed.len() as u64;
                *length - record.len() as u64
            }
            Out::Segments { pending, copy, length, .. } => {
                let refused = |e| io_error("copy the journal", &self.location, of_temporary(e));
                copy.write_all(record).map_err(refused)?;
                pending.extend_from_slice(&framed);
                *length += record.len() as u64;
                *length - record.len() as u64
            }
        };
        self.unsynced += 1;
        if self.unsynced >= self.policy.records || self.last_sync.elapsed() >= self.policy.interval {
            self.sync()?;
        }
        Ok(Place { offset, bytes: record.len() as u32 })
    }

    /// A record of this journal again, as it was when it was written or replayed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn read(&self, place: Place) -> Result<Vec<u8>> {
        let (Out::Local(file, _) | Out::Segments { copy: file, .. }) = &self.out;
        let mut record = vec![0; place.bytes()];
        file.read_exact_at(&mut record, place.offset).map_err(|e| io_error("read the journal", &self.location, e))?;
        Ok(record)
    }

    /// Makes all records safe: on the disk, or uploaded.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn sync(&mut self) -> Result<()> {
        if self.unsynced > 0 {
            match &mut self.out {
                Out::Local(file, _) => {
                    file.sync_data().map_err(|e| io_error("write the journal", &self.location, e))?;
                }
                Out::Segments { next, pending, .. } => {
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
        drop(self);
        Journal::delete(&location)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Best effort: whoever must know calls `sync`.
        let _ = self.sync();
    }
}

/// The objects of a journal in an object store, in order, with their numbers.
fn segments(location: &Location) -> Result<Vec<(u64, Location)>> {
    let number = |name: &str| name.strip_prefix("segment-").and_then(|n| n.parse::<u64>().ok());
    let entries = location.list()?;
    Ok(entries.iter().filter_map(|entry| Some((number(&entry.name)?, location.join(&entry.name)))).collect())
}

/// Calls `take` with each object of a journal in an object store: its number, its place, its bytes.
fn each_segment(location: &Location, mut take: impl FnMut(u64, &Location, &[u8]) -> Result<()>) -> Result<()> {
    for some in segments(location)?.chunks(together::AT_ONCE) {
        let files: Vec<Location> = some.iter().map(|(_, file)| file.clone()).collect();
        for ((number, file), bytes) in some.iter().zip(together::read(&files)?) {
            take(*number, file, &bytes)?;
        }
    }
    Ok(())
}
