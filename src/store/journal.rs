//! The journal: what is already done inside a stage, safe against a kill at any byte.
//!
//! A file of records: length (u32, little endian), the first 8 bytes of the payload's
//! BLAKE3, payload. Opening replays the valid records and cuts off a torn tail. On an
//! object store, whose objects cannot grow, each flush writes the records since the
//! last one as an object of its own, in the same form.
//!
//! A record can be read back by its [`Place`]: whoever waits with many large ones keeps
//! their places and not their bytes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::Location;
use super::faults::io_error;
use super::location::{self, sync_folder};
use super::lock::{is_locked, lock_soon};
use super::spool::temporary;
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
    /// Opens or makes the journal; `replay` gets every record written so far, in order, with its place.
    ///
    /// A torn tail (the process was killed while writing) is cut off, see [`Journal::recovered_bytes`].
    ///
    /// # Errors
    /// `replay` fails; another process has the journal open; the file is no journal; the disk or store refuses.
    pub fn open(
        location: &Location,
        policy: SyncPolicy,
        mut replay: impl FnMut(Place, &[u8]) -> Result<()>,
    ) -> Result<Journal> {
        let mut recovered_bytes = 0;
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
                let valid = replay_file(&mut BufReader::with_capacity(1 << 20, &file), location, &mut replay)?;
                recovered_bytes = length - valid;
                if valid == 0 {
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
                    copy.write_all(record).map_err(|e| io_error("copy the journal", location, e))?;
                    let place = Place { offset: length, bytes: record.len() as u32 };
                    length += record.len() as u64;
                    replay(place, record)
                };
                for (number, segment) in segments(location)? {
                    let bytes = segment.read()?;
                    recovered_bytes += bytes.len() as u64 - replay_file(&mut bytes.as_ref(), &segment, &mut copied)?;
                    next = next.max(number + 1);
                }
                Out::Segments { next, pending: MAGIC.to_vec(), copy, length }
            }
        };
        Ok(Journal { location: location.clone(), out, policy, unsynced: 0, last_sync: Instant::now(), recovered_bytes })
    }

    /// Reads what a journal holds without opening it for writing; nothing if there is none.
    ///
    /// # Errors
    /// `replay` fails, or the disk or store refuses.
    pub fn replay(location: &Location, mut replay: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut replay = |_: Place, record: &[u8]| replay(record);
        match location.place() {
            location::Place::Local(path) => match File::open(path) {
                Ok(file) => replay_file(&mut BufReader::with_capacity(1 << 20, file), location, &mut replay).map(drop),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
                Err(e) => Err(io_error("read the journal", location, e)),
            },
            location::Place::Remote { .. } => segments(location)?.into_iter().try_for_each(|(_, segment)| {
                replay_file(&mut segment.read()?.as_ref(), &segment, &mut replay).map(drop)
            }),
        }
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
                Some((_, segment)) => (Box::new(std::io::Cursor::new(segment.read()?)), segment),
                None => return Ok(None),
            },
        };
        let mut records = Records::of(input, &location)?;
        Ok(records.next()?.map(|_| std::mem::take(&mut records.payload)))
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
                location.list()?.iter().try_for_each(|entry| location.join(&entry.name).delete())
            }
        }
    }

    /// Bytes of a torn tail that opening cut off.
    pub fn recovered_bytes(&self) -> u64 {
        self.recovered_bytes
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
        let mut framed = Vec::with_capacity(HEADER + record.len());
        framed.extend_from_slice(&(record.len() as u32).to_le_bytes());
        framed.extend_from_slice(&checksum(record));
        framed.extend_from_slice(record);
        let offset = match &mut self.out {
            // One write a record: what a kill can tear is the last one only.
            Out::Local(file, length) => {
                if let Err(e) = file.write_all(&framed) {
                    // Half a record would hide whatever is appended once there is space again.
                    let _ = file.set_len(*length).and_then(|()| file.seek(SeekFrom::Start(*length)));
                    return Err(io_error("write the journal", &self.location, e));
                }
                *length += framed.len() as u64;
                *length - record.len() as u64
            }
            Out::Segments { pending, copy, length, .. } => {
                copy.write_all(record).map_err(|e| io_error("copy the journal", &self.location, e))?;
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

    /// A record of this journal again.
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

fn checksum(payload: &[u8]) -> [u8; 8] {
    blake3::hash(payload).as_bytes()[..8].try_into().expect("a digest has 32 bytes")
}

/// Replays the valid records; returns the length of the valid part, 0 if not even the magic is whole.
fn replay_file(
    input: &mut impl Read,
    location: &Location,
    replay: &mut impl FnMut(Place, &[u8]) -> Result<()>,
) -> Result<u64> {
    let mut records = Records::of(input, location)?;
    while let Some(place) = records.next()? {
        replay(place, &records.payload)?;
    }
    Ok(records.valid)
}

/// The valid records of a file, one after the other.
struct Records<'a, R> {
    input: R,
    location: &'a Location,
    /// Bytes up to the end of the last valid record; 0 if not even the magic is whole.
    valid: u64,
    payload: Vec<u8>,
}

impl<'a, R: Read> Records<'a, R> {
    fn of(mut input: R, location: &'a Location) -> Result<Self> {
        let mut magic = Vec::new();
        let read = input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic);
        read.map_err(|e| io_error("read the journal", location, e))?;
        if !MAGIC.starts_with(&magic) {
            return Err(Error::new("this is not a gristmill journal").in_file(location).hint("move the file away"));
        }
        let valid = if magic.len() < MAGIC.len() { 0 } else { MAGIC.len() as u64 };
        Ok(Records { input, location, valid, payload: Vec::new() })
    }

    /// Reads the next record into `payload`; `None` at the end, or where a kill tore one.
    fn next(&mut self) -> Result<Option<Place>> {
        let fail = |e| io_error("read the journal", self.location, e);
        if self.valid == 0 {
            return Ok(None);
        }
        let mut header = Vec::with_capacity(HEADER);
        self.input.by_ref().take(HEADER as u64).read_to_end(&mut header).map_err(fail)?;
        if header.len() < HEADER {
            return Ok(None);
        }
        let (length, sum) = header.split_at(4);
        let bytes = u32::from_le_bytes(length.try_into().expect("split at four"));
        if bytes as usize > MAX_RECORD {
            return Ok(None);
        }
        self.payload.clear();
        self.input.by_ref().take(u64::from(bytes)).read_to_end(&mut self.payload).map_err(fail)?;
        if self.payload.len() < bytes as usize || checksum(&self.payload) != sum {
            return Ok(None);
        }
        let offset = self.valid + HEADER as u64;
        self.valid = offset + u64::from(bytes);
        Ok(Some(Place { offset, bytes }))
    }
}
