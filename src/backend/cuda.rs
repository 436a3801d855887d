//! The CUDA backend: bf16 weights and activations, f32 masters, sums and statistics.
//!
//! Linear layers and the head's products are cuBLASLt's ([`matmul`]), the rest is `kernels/`, compiled by
//! NVRTC at first use ([`compile`]). Everything of NVIDIA's is loaded at run time (cudarc, dynamic loading), so one
//! binary runs everywhere. The operations know the device through the narrow [`driver::Driver`] only, and each launch
//! is compared with the kernel's declaration ([`signature`]); the tests run them all on the host that way.
//!
//! A decoding step is recorded and replayed ([`recorder`]); optimizer state may lie in the host's memory.
//!
//! What differs from the reference: attention over packed sequences rounds its weights to bf16 and decode
//! attention does not, so a sampled token's logprob equals the trainer's to bf16's rounding, not to the bit.
//! The same launches on the same card give the same bits. GPU.md says what waits for a GPU.

mod adapter;
mod attention;
mod backend;
mod buffer;
pub mod compile;
pub mod device;
pub mod driver;
mod embedding;
pub mod geometry;
mod head;
pub mod kernels;
mod kv_cache;
pub mod library;
mod linear;
pub mod matmul;
pub mod nccl;
pub mod opened;
mod ops;
mod optimizer;
pub mod peers;
mod pinned;
mod qk_norm;
mod recorder;
mod recordings;
pub mod requirements;
mod rms_norm;
mod sample;
mod scratch;
pub mod signature;
mod staging;
mod swiglu;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use half::bf16;

use super::Replicated;
use crate::error::{Error, Result};
pub use buffer::Buffer;
use driver::{Driver, Element};
pub use kv_cache::KvCache;
use ops::Ops;
use peers::Peers;
use recorder::Recorder;
use recordings::Attempt;
pub use recordings::Recordings;
use scratch::Scratch;

/// A GPU as a backend. Clones share the device and its one stream of work, as all of a process do ([`opened`]).
#[derive(Clone)]
pub struct Cuda {
    recorder: Arc<Recorder>,
    /// The recorder, as what buffers and operations know.
    driver: Arc<dyn Driver>,
    shared: Arc<Shared>,
    /// The rest of a group, where this is its first.
    peers: Option<Arc<Peers>>,
}

struct Shared {
    /// Held for all launches of an operation: two threads' operations do not mix.
    turn: Mutex<Turn>,
    /// Told when a recording ends.
    recorded: Condvar,
    /// The first failure. Nothing is issued after it.
    failure: Mutex<Option<Failure>>,
}

struct Turn {
    scratch: Scratch,
    /// Work that one thread records; others wait until it has ended.
    recording: Option<Attempt>,
}

struct Failure {
    text: String,
    /// With its hints and cause, for whoever asks first.
    error: Option<Error>,
}

impl Cuda {
    /// The backend over some driver.
    pub fn on(device: Arc<dyn Driver>) -> Self {
        let recorder = Arc::new(Recorder::new(device));
        let driver: Arc<dyn Driver> = recorder.clone();
        let turn = Mutex::new(Turn { scratch: Scratch::new(&driver), recording: None });
        let shared = Arc::new(Shared { turn, recorded: Condvar::new(), failure: Mutex::default() });
        Cuda { recorder, driver, shared, peers: None }
    }

    /// Free and total bytes of the GPU's memory.
    ///
    /// # Errors
    /// Where the driver does not tell.
    pub fn memory(&self) -> Result<(usize, usize)> {
        self.driver.memory()
    }

    /// Activations of these values, rounded: for looking at operations one by one.
    pub fn put_act(&self, values: &[f32]) -> Buffer<bf16> {
        let values: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
        let mut buffer = self.buffer(values.len());
        self.issue("copy", |ops| ops.write(buffer.part_mut(0), &values));
        buffer
    }

    /// The first `len` activations; NaN once the backend has failed.
    pub fn get_act(&self, buffer: &Buffer<bf16>, len: usize) -> Vec<f32> {
        let values = self.issue("copy", |ops| ops.read(buffer.part(0), len));
        values.map_or_else(|| vec![f32::NAN; len], |values| values.into_iter().map(bf16::to_f32).collect())
    }

    fn has_failed(&self) -> bool {
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The first failure, if there was one.
    fn failure(&self) -> Result<()> {
        match &mut *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Failure { text, error }) => Err(error.take().unwrap_or_else(|| Error::new(text.clone()))),
            None => Ok(()),
        }
    }

    /// Keeps the first failure.
    fn keep<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
                let error = error.context(format!("{what} on the GPU"));
                failure.get_or_insert_with(|| Failure { text: error.to_string(), error: Some(error) });
            })
            .ok()
    }

    /// Waits for what was issued on this GPU.
    fn wait(&self) {
        if !self.has_failed() {
            let turn = self.turn();
            let ended = self.driver.synchronize();
            drop(turn);
            self.keep("work", ended);
        }
    }

    /// Waits for this thread's turn: another's operation, or all that it records.
    fn turn(&self) -> MutexGuard<'_, Turn> {
        let turn = self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let me = std::thread::current().id();
        let waits = |turn: &mut Turn| turn.recording.as_ref().is_some_and(|attempt| attempt.by != me);
        self.shared.recorded.wait_while(turn, waits).unwrap_or_else(PoisonError::into_inner)
    }

    /// Issues an operation, unless an earlier one failed.
    fn issue<T>(&self, what: &str, work: impl FnOnce(&mut Ops) -> Result<T>) -> Option<T> {
        let mut turn = self.turn();
        let Turn { scratch, recording } = &mut *turn;
        if self.has_failed() || recording.as_ref().is_some_and(|attempt| attempt.fault.is_some()) {
            return None;
        }
        let result = work(&mut Ops { driver: &self.driver, scratch });
        match (recording, result) {
            // Issued as it is, it may work.
            (Some(attempt), Err(error)) => {
                attempt.fault = Some(error.context(what.to_owned()));
                None
            }
            (_, result) => self.keep(what, result),
        }
    }

    fn buffer<T: Element>(&self, len: usize) -> Buffer<T> {
        self.issue("allocation", |ops| Buffer::new(ops.driver.clone(), len))
            .unwrap_or_else(|| Buffer::absent(self.driver.clone(), len))
    }
}
