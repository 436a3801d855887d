//! Work that is the same at every step, recorded once and replayed (CUDA graphs).
//!
//! A decoding step is some hundred launches of a few microseconds each: issuing them one by one takes longer than
//! doing them. The first time, work is issued as it is (kernels are compiled, algorithms chosen, scratch memory taken);
//! the second time it is recorded; from then on the recording is replayed. A recording holds addresses, so it is good
//! for as long as every allocation that it names is the one it was; else the work is recorded again.
//!
//! The recorder stands between the backend and the device: it numbers allocations, so that one that was freed and
//! another made in its place are told apart, and refuses what a recording cannot hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Arg, Driver, Grid, Pointer};
use super::matmul::Product;
use crate::error::{Error, Result};

/// A device whose allocations are numbered and whose work can be recorded.
pub(super) struct Recorder {
    device: Arc<dyn Driver>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Live allocations by first address: bytes and number.
    live: BTreeMap<u64, (usize, u64)>,
    /// Allocations made so far.
    made: u64,
    /// Allocations freed so far.
    freed: u64,
    recording: Option<Named>,
    /// Allocations and recordings that were dropped meanwhile: a device cannot wait for its work while it records.
    dropped: Vec<u64>,
    forgotten: Vec<u64>,
}

/// Allocations by address and number.
type Named = BTreeSet<(u64, u64)>;

/// Recorded work, and the allocations it was recorded with.
pub(super) struct Recording {
    recorder: Arc<Recorder>,
    id: u64,
    named: Named,
    /// Allocations freed when these were last found to be live.
    freed: u64,
}

impl Recorder {
    pub fn new(device: Arc<dyn Driver>) -> Self {
        Recorder { device, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to record.
    ///
    /// # Errors
    /// Where the device cannot.
    pub fn begin(&self) -> Result<()> {
        // Held: nothing is freed between the two, which would wait for the device.
        let mut state = self.state();
        self.device.begin_recording()?;
        state.recording = Some(Named::new());
        Ok(())
    }

    /// Ends recording, whatever came of it.
    ///
    /// # Errors
    /// Where what was issued cannot be recorded.
    pub fn end(self: &Arc<Self>) -> Result<Recording> {
        let mut state = self.state();
        let recorded = self.device.end_recording();
        let named = state.recording.take().unwrap_or_default();
        let freed = state.freed;
        for address in std::mem::take(&mut state.dropped) {
            // SAFETY: its owner was dropped while work was recorded.
            unsafe { self.give_back(&mut state, address) };
        }
        std::mem::take(&mut state.forgotten).into_iter().for_each(|id| self.device.forget(id));
        drop(state);
        Ok(Recording { recorder: Arc::clone(self), id: recorded?, named, freed })
    }

    /// # Safety
    /// As [`Driver::free`].
    unsafe fn give_back(&self, state: &mut State, address: u64) {
        state.live.remove(&address);
        state.freed += 1;
        // SAFETY: the caller's address.
        unsafe { self.device.free(address) };
    }

    /// Issues recorded work, if every allocation it names is the one it was; says whether it was.
    ///
    /// # Errors
    /// What the device reports.
    pub fn replay(&self, recording: &mut Recording) -> Result<bool> {
        let state = self.state();
        if state.freed != recording.freed {
            let lives = |(address, number): &(u64, u64)| state.live.get(address).is_some_and(|(_, n)| n == number);
            if !recording.named.iter().all(lives) {
                return Ok(false);
            }
            recording.freed = state.freed;
        }
        drop(state);
        // SAFETY: what it names was found live above, and was as long as its launches say when it was recorded.
        unsafe { self.device.replay(recording.id)? };
        Ok(true)
    }

    fn name(&self, addresses: impl IntoIterator<Item = u64>) {
        let state = &mut *self.state();
        let Some(named) = &mut state.recording else { return };
        for address in addresses {
            let holding = state.live.range(..=address).next_back();
            named.extend(holding.map(|(first, (_, number))| (*first, *number)));
        }
    }

    fn refused(&self, what: &str) -> Result<()> {
        match self.state().recording {
            Some(_) => Err(Error::new(format!("{what} cannot be recorded"))),
            None => Ok(()),
        }
    }

    fn made(&self, address: u64, bytes: usize) -> u64 {
        let mut state = self.state();
        state.made += 1;
        let number = state.made;
        state.live.insert(address, (bytes, number));
        address
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut state = self.recorder.state();
        match state.recording {
            Some(_) => state.forgotten.push(self.id),
            None => self.recorder.device.forget(self.id),
        }
    }
}

impl Driver for Recorder {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.refused("taking memory")?;
        Ok(self.made(self.device.allocate(bytes)?, bytes))
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        self.refused("taking memory")?;
        Ok(self.made(self.device.allocate_host(bytes)?, bytes))
    }

    unsafe fn free(&self, address: u64) {
        let mut state = self.state();
        if state.recording.is_some() {
            return state.dropped.push(address);
        }
        // SAFETY: the caller's address.
        unsafe { self.give_back(&mut state, address) };
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.refused("a copy from the host")?;
        // SAFETY: the caller's range.
        unsafe { self.device.write(to, bytes) }
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.refused("a copy to the host")?;
        // SAFETY: the caller's range.
        unsafe { self.device.read(from, bytes) }
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        self.name([at]);
        // SAFETY: the caller's range.
        unsafe { self.device.zero(at, bytes) }
    }

    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        self.name(args.iter().filter_map(|arg| match arg {
            Arg::Pointer(Pointer { address, .. }) if *address != 0 => Some(*address),
            _ => None,
        }));
        // SAFETY: the caller's arguments.
        unsafe { self.device.launch(file, name, grid, args) }
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<bool> {
        self.name([a, b, c]);
        // SAFETY: the caller's addresses.
        unsafe { self.device.multiply(product, a, b, c) }
    }

    fn synchronize(&self) -> Result<()> {
        self.refused("waiting")?;
        self.device.synchronize()
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.device.memory()
    }

    fn begin_recording(&self) -> Result<()> {
        self.device.begin_recording()
    }

    fn end_recording(&self) -> Result<u64> {
        self.device.end_recording()
    }

    unsafe fn replay(&self, recorded: u64) -> Result<()> {
        // SAFETY: the caller's recording.
        unsafe { self.device.replay(recorded) }
    }

    fn forget(&self, recorded: u64) {
        self.device.forget(recorded);
    }
}
