//! Reading a journal: which of its bytes are records, and what was lost.
//!
//! A kill tears the last record at most, which is then shorter than its head says. Anything else that is
//! no record is damage: one record whose bytes changed is passed over as long as a valid one follows
//! where it should end; what comes behind that cannot be told from rubbish.
//!
//! Checksums of millions of records take longer than reading them, so they are compared a block at a
//! time by all threads. Records are handed over in their order.

use std::io::{ErrorKind, Read};

use rayon::prelude::*;

use super::{HEADER, MAGIC, MAX_RECORD, Place};
use crate::error::{Error, Result};
use crate::store::Location;
use crate::store::faults::io_error;

/// What of a journal could not be read when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Damaged records between valid ones, and their bytes.
    pub records: u64,
    /// Bytes of these records.
    pub bytes: u64,
    /// Bytes behind the last valid record, which opening cuts off.
    pub tail: u64,
    /// Whether these are one record that was being written, as a kill leaves it.
    pub torn: bool,
}

impl Lost {
    /// What was lost, for people; `None` if nothing was.
    pub fn told(&self, location: &Location) -> Option<String> {
        let mut parts = Vec::new();
        if self.records > 0 {
            parts.push(format!("{} damaged records ({} bytes) are passed over", self.records, self.bytes));
        }
        match (self.tail, self.torn) {
            (0, _) => {}
            (tail, true) => parts.push(format!("its last record was not whole ({tail} bytes, as after a kill)")),
            (tail, false) => parts.push(format!("its last {tail} bytes are damaged and cut off")),
        }
        (!parts.is_empty()).then(|| format!("{location}: {}; what they held is done again", parts.join("; ")))
    }

    pub(super) fn add(&mut self, other: Lost) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.tail += other.tail;
        self.torn |= other.torn;
    }
}

/// The length of a journal's valid part (0 if not even the magic is whole), and what else there was.
pub(super) struct Replayed {
    pub valid: u64,
    pub lost: Lost,
}

/// Bytes that are read and checked at once.
const BLOCK: usize = 8 << 20;

/// A record in a block: where its payload lies.
struct Frame {
    start: usize,
    end: usize,
    sum: [u8; 8],
}

/// Hands every valid record over, with its place.
pub(super) fn replay(
    mut input: impl Read,
    location: &Location,
    take: &mut impl FnMut(Place, &[u8]) -> Result<()>,
) -> Result<Replayed> {
    let fail = |e| io_error("read the journal", location, e);
    if !has_magic(&mut input, location)? {
        return Ok(Replayed { valid: 0, lost: Lost::default() });
    }
    let mut lost = Lost::default();
    // Offsets in the file: of the block, and of the end of the last valid record.
    let (mut offset, mut valid) = (MAGIC.len() as u64, MAGIC.len() as u64);
    let mut block = Vec::with_capacity(BLOCK);
    let mut wanted = BLOCK;
    // Bytes of a damaged record that the next one decides about.
    let mut doubtful = 0u64;
    let mut damaged = false;
    while !damaged {
        let missing = wanted.saturating_sub(block.len()) as u64;
        input.by_ref().take(missing).read_to_end(&mut block).map_err(fail)?;
        let at_end = block.len() < wanted;
        let (frames, mut used, next) = frames(&block);
        let good: Vec<bool> =
            frames.par_iter().with_min_len(64).map(|f| checksum(&block[f.start..f.end]) == f.sum).collect();
        for (frame, good) in frames.iter().zip(good) {
            let bytes = (frame.end - frame.start) as u32;
            let whole = HEADER as u64 + u64::from(bytes);
            if !good {
                damaged = doubtful > 0;
                if damaged {
                    break;
                }
                doubtful = whole;
                continue;
            }
            lost.records += u64::from(doubtful > 0);
            lost.bytes += std::mem::take(&mut doubtful);
            let place = Place { offset: offset + frame.start as u64, bytes };
            take(place, &block[frame.start..frame.end])?;
            valid = place.offset + u64::from(bytes);
        }
        let Some(next) = next else {
            damaged = true;
            break;
        };
        if at_end {
            used = block.len();
        }
        block.drain(..used);
        offset += used as u64;
        wanted = BLOCK.max(next);
        if at_end {
            break;
        }
    }
    let rest = std::io::copy(&mut input, &mut std::io::sink()).map_err(fail)?;
    lost.tail = offset + block.len() as u64 + rest - valid;
    lost.torn = lost.tail > 0 && !damaged && doubtful == 0;
    Ok(Replayed { valid, lost })
}

/// The whole records in a block; how many bytes they fill; and how many the next one needs, `None` if its
/// head is none.
fn frames(block: &[u8]) -> (Vec<Frame>, usize, Option<usize>) {
    let mut frames = Vec::new();
    let mut at = 0;
    loop {
        let Some((head, _)) = block[at..].split_first_chunk::<HEADER>() else { return (frames, at, Some(HEADER)) };
        let [a, b, c, d, sum @ ..] = *head;
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        if bytes > MAX_RECORD {
            return (frames, at, None);
        }
        let start = at + HEADER;
        if block.len() - start < bytes {
            return (frames, at, Some(HEADER + bytes));
        }
        at = start + bytes;
        frames.push(Frame { start, end: at, sum });
    }
}

/// The first record, if it is whole.
pub(super) fn first(mut input: impl Read, location: &Location) -> Result<Option<Vec<u8>>> {
    let fail = |e| io_error("read the journal", location, e);
    let mut head = [0; HEADER];
    if !has_magic(&mut input, location)? {
        return Ok(None);
    }
    match input.read_exact(&mut head) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map_err(fail)?,
    }
    let [a, b, c, d, sum @ ..] = head;
    let bytes = u32::from_le_bytes([a, b, c, d]);
    let mut payload = Vec::new();
    input.take(u64::from(bytes)).read_to_end(&mut payload).map_err(fail)?;
    Ok((payload.len() == bytes as usize && checksum(&payload) == sum).then_some(payload))
}

/// Whether the magic is whole.
///
/// # Errors
/// The file begins with something else.
fn has_magic(input: &mut impl Read, location: &Location) -> Result<bool> {
    let mut magic = Vec::new();
    let read = input.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic);
    read.map_err(|e| io_error("read the journal", location, e))?;
    if !MAGIC.starts_with(&magic) {
        return Err(Error::new("this is not a gristmill journal").in_file(location).hint("move the file away"));
    }
    Ok(magic.len() == MAGIC.len())
}

pub(super) fn checksum(payload: &[u8]) -> [u8; 8] {
    blake3::hash(payload).as_bytes()[..8].try_into().expect("a digest has 32 bytes")
}
