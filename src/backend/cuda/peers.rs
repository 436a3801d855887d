//! Several GPUs that hold copies of one model: gradients are added up and weights given out.
//!
//! A group is a first backend with the others as its peers, and a [`Link`] that moves memory between them. Sums are
//! not the link's: each owner takes the others' pieces and adds them itself, in the order of the devices. So the bits
//! are those of the same sum on one device, whatever way a library would have taken through the machine. It moves
//! what a reduce-scatter and an all-gather move: each device receives every byte that it owns from each of the others.

use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::{Buffer, Span};
use super::driver::Driver;
use super::{Cuda, Replicated};
use crate::error::{Error, Result};

/// Elements that a device takes from another at a time: enough to fill a connection, little beside a model.
const PIECE: usize = 1 << 20;
/// Copies that are handed to the link at once.
const AT_ONCE: usize = 256;

/// Memory on a device of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its place in the group.
    pub device: usize,
    /// Device address, in bytes.
    pub address: u64,
}

/// A copy from one device to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What is read.
    pub from: Place,
    /// What is written; on another device than `from`.
    pub to: Place,
    /// Length of both ranges.
    pub bytes: usize,
}

/// Moves memory between the devices of a group.
pub trait Link: Send + Sync {
    /// Issues these copies. Each is done after what was issued before on both of its devices, and before what is
    /// issued there from now on.
    ///
    /// # Safety
    /// The ranges lie within live allocations and do not overlap.
    ///
    /// # Errors
    /// What the library that moves them reports.
    unsafe fn copy(&self, transfers: &[Transfer]) -> Result<()>;
}

/// What the first of a group knows of it.
pub(super) struct Peers {
    others: Vec<Cuda>,
    link: Box<dyn Link>,
    /// Of each device: room for a piece of each of the others.
    incoming: Mutex<Vec<Buffer<f32>>>,
}

/// A part of one buffer whose sum its owner makes.
struct Piece {
    part: usize,
    owner: usize,
    at: usize,
    len: usize,
}

impl Cuda {
    /// Backends over several devices, each with a copy of every model that is made on the first.
    ///
    /// # Errors
    /// Fewer than two devices.
    pub fn group(devices: Vec<Arc<dyn Driver>>, link: Box<dyn Link>) -> Result<Self> {
        Cuda::joined(devices.into_iter().map(Cuda::on).collect(), link)
    }

    /// As [`Cuda::group`], of backends.
    pub(super) fn joined(all: Vec<Cuda>, link: Box<dyn Link>) -> Result<Self> {
        let mut all = all.into_iter();
        let (Some(mut first), others) = (all.next(), all.collect::<Vec<_>>()) else {
            return Err(Error::usage("a group of no devices"));
        };
        if others.is_empty() {
            return Err(Error::usage("a group needs two devices"));
        }
        first.peers = Some(Arc::new(Peers { others, link, incoming: Mutex::default() }));
        Ok(first)
    }

    pub(super) fn others(&self) -> &[Cuda] {
        self.peers.as_ref().map_or(&[], |peers| &peers.others)
    }

    fn device(&self, device: usize) -> &Cuda {
        device.checked_sub(1).map_or(self, |other| &self.others()[other])
    }

    /// Hands copies to the link, unless a device has failed.
    fn transfer(&self, peers: &Peers, transfers: &[Transfer]) {
        // In the order of the devices: operations and recordings of other threads are over, and wait.
        let devices = 0..=peers.others.len();
        let turns: Vec<_> = devices.clone().map(|device| self.device(device).turn()).collect();
        if devices.clone().any(|device| self.device(device).has_failed()) {
            return;
        }
        for some in transfers.chunks(AT_ONCE) {
            // SAFETY: every range was cut from a buffer that its caller lent alone.
            let result = unsafe { peers.link.copy(some) };
            if self.keep("exchange between GPUs", result).is_none() {
                break;
            }
        }
        drop(turns);
    }

    pub(super) fn reduce_parts(&self, parts: &mut [Replicated<'_, Cuda>]) {
        let Some(peers) = &self.peers else { return };
        let devices = 1 + peers.others.len();
        let mut incoming = peers.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        if incoming.is_empty() {
            *incoming = (0..devices).map(|device| self.device(device).buffer(PIECE * peers.others.len())).collect();
        }
        // In each round every owner makes one piece, so that all connections are busy.
        for round in rounds(parts, devices) {
            let mut transfers = Vec::with_capacity(devices * devices);
            for &Piece { part, owner, at, len } in &round {
                for from in (0..devices).filter(|&from| from != owner) {
                    transfers.push(Transfer {
                        from: Place { device: from, address: address(parts[part].copies[from].part(at), len) },
                        to: Place { device: owner, address: address(incoming[owner].part(slot(from, owner)), len) },
                        bytes: len * size_of::<f32>(),
                    });
                }
            }
            self.transfer(peers, &transfers);
            for &Piece { part, owner, at, len } in &round {
                let (sum, taken) = (parts[part].copies[owner].part_mut(at), &mut incoming[owner]);
                self.device(owner).issue("reduce", |ops| {
                    // ((g₀ + g₁) + g₂) + …: those before the owner are added up where they came in.
                    let before = taken.part_mut(0);
                    for from in 1..owner {
                        ops.add(before, taken.part(slot(from, owner)), len)?;
                    }
                    if owner > 0 {
                        ops.add(sum, before, len)?;
                    }
                    for from in owner + 1..devices {
                        ops.add(sum, taken.part(slot(from, owner)), len)?;
                    }
                    Ok(())
                });
            }
        }
    }

    pub(super) fn spread_parts(&self, parts: &mut [Replicated<'_, Cuda>]) {
        let Some(peers) = &self.peers else { return };
        let mut transfers = Vec::new();
        for Replicated { copies, owner } in parts {
            let len = copies[*owner].len();
            let from = Place { device: *owner, address: address(copies[*owner].part(0), len) };
            for (device, copy) in copies.iter().enumerate().filter(|(device, _)| device != owner && len > 0) {
                let to = Place { device, address: address(copy.part(0), len) };
                transfers.push(Transfer { from, to, bytes: len * size_of::<f32>() });
            }
        }
        self.transfer(peers, &transfers);
    }
}

/// Where `len` elements begin.
fn address(span: Span<f32>, len: usize) -> u64 {
    // Panics where there are fewer.
    let _ = span.read(len);
    span.address()
}

/// Where an owner keeps what comes from a device: the others in their order.
fn slot(from: usize, owner: usize) -> usize {
    PIECE * (from - usize::from(from > owner))
}

/// The pieces of all parts, at most one of each owner in a round.
fn rounds(parts: &[Replicated<'_, Cuda>], devices: usize) -> Vec<Vec<Piece>> {
    let mut rounds: Vec<Vec<Piece>> = Vec::new();
    let mut made = vec![0; devices];
    for (part, Replicated { copies, owner }) in parts.iter().enumerate() {
        let (owner, all) = (*owner, copies[*owner].len());
        for at in (0..all).step_by(PIECE) {
            if made[owner] == rounds.len() {
                rounds.push(Vec::new());
            }
            rounds[made[owner]].push(Piece { part, owner, at, len: PIECE.min(all - at) });
            made[owner] += 1;
        }
    }
    rounds
}
