//! The pinned memory that copies pass through ([`staging`](super::staging)), on a GPU's stream.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{CudaStream, DriverError, result, sys};

use super::staging::{Bus, Staging};

const HALF: usize = Staging::<Pinned>::HALF;

/// Two pieces of pinned memory on a stream.
pub(super) struct Pinned {
    stream: Arc<CudaStream>,
    memory: [*mut u8; 2],
    done: [sys::CUevent; 2],
}

// SAFETY: memory and events belong to this value alone, and a context's are good in every thread that is bound to it.
unsafe impl Send for Pinned {}

impl Pinned {
    /// # Errors
    /// Where the host has no pinned memory to give.
    pub fn new(stream: Arc<CudaStream>) -> Result<Self, DriverError> {
        let mut pinned = Pinned { stream, memory: [std::ptr::null_mut(); 2], done: [std::ptr::null_mut(); 2] };
        for half in 0..2 {
            // SAFETY: a plain allocation that this value owns, written before it is read.
            pinned.memory[half] = unsafe { result::malloc_host(HALF, 0)? }.cast();
            // SAFETY: as many bytes were allocated.
            unsafe { std::ptr::write_bytes(pinned.memory[half], 0, HALF) };
            pinned.done[half] = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        }
        Ok(pinned)
    }
}

impl Bus for Pinned {
    type Fault = DriverError;

    fn memory(&mut self, half: usize, part: Range<usize>) -> &mut [u8] {
        assert!(part.end <= HALF);
        // SAFETY: as many bytes were allocated, and zeroed; the device's copies of this part
        // are waited for before it is asked for.
        unsafe { std::slice::from_raw_parts_mut(self.memory[half].add(part.start), part.len()) }
    }

    unsafe fn send(&mut self, half: usize, part: Range<usize>, to: u64) -> Result<(), DriverError> {
        let stream = self.stream.cu_stream();
        // SAFETY: the caller answers for `to`; the part is within the half.
        unsafe {
            let from = self.memory[half].add(part.start) as *const c_void;
            sys::cuMemcpyHtoDAsync_v2(to, from, part.len(), stream).result()?;
            result::event::record(self.done[half], stream)
        }
    }

    unsafe fn fetch(&mut self, half: usize, from: u64, len: usize) -> Result<(), DriverError> {
        let stream = self.stream.cu_stream();
        // SAFETY: the caller answers for `from`; the half is as long.
        unsafe {
            sys::cuMemcpyDtoHAsync_v2(self.memory[half].cast(), from, len, stream).result()?;
            result::event::record(self.done[half], stream)
        }
    }

    fn wait(&mut self, half: usize) -> Result<(), DriverError> {
        // SAFETY: the event is this value's.
        unsafe { result::event::synchronize(self.done[half]) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.stream.context().bind_to_thread().is_err() || self.stream.synchronize().is_err() {
            return;
        }
        for half in 0..2 {
            // SAFETY: made by `new`, and what used them is over. A failure leaks them: nothing to do about it.
            unsafe {
                if !self.memory[half].is_null() {
                    let _ = result::free_host(self.memory[half].cast());
                }
                if !self.done[half].is_null() {
                    let _ = result::event::destroy(self.done[half]);
                }
            }
        }
    }
}
