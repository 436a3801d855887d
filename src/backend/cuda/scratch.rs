//! Device memory that operations use within themselves.
//!
//! One block of memory, as large as the largest operation so far has asked for. An operation holds the
//! lock on it for all of its launches; the stream keeps what the next one writes behind them.

use std::sync::Arc;

use super::buffer::{Buffer, Span};
use super::driver::{Driver, Element};
use crate::error::Result;

/// Places begin at multiples of this many bytes.
const ALIGNMENT: usize = 256;

/// Numbers of the host that the device has a copy of.
pub(super) struct Kept {
    host: Vec<u32>,
    device: Buffer<u32>,
}

impl Kept {
    pub fn new(driver: &Arc<dyn Driver>) -> Self {
        Kept { host: Vec::new(), device: Buffer::absent(driver.clone(), 0) }
    }

    /// The values on the device; copied there only if they are not those of the last time: layers share their
    /// sequences.
    pub fn load(&mut self, driver: &Arc<dyn Driver>, values: &[u32]) -> Result<Span<u32>> {
        if self.host != values {
            if self.device.len() < values.len() {
                self.device = Buffer::new(driver.clone(), values.len().next_power_of_two())?;
            }
            // Forgotten first: a copy that fails leaves nothing believed to be there.
            self.host.clear();
            // SAFETY: the buffer was made long enough above.
            unsafe { driver.write(self.device.part(0).address(), bytemuck::cast_slice(values))? };
            self.host.extend_from_slice(values);
        }
        Ok(self.device.part(0))
    }
}

/// What the operations of one backend share.
pub(super) struct Scratch {
    memory: Buffer<u32>,
    taken: usize,
    /// Tiles of attention.
    pub tiles: Kept,
    /// Rows gathered and scattered.
    pub index: Kept,
    /// Tokens whose logprob is asked for.
    pub targets: Kept,
    /// Where the sums of each buffer begin.
    pub starts: Kept,
}

impl Scratch {
    pub fn new(driver: &Arc<dyn Driver>) -> Self {
        let kept = || Kept::new(driver);
        let memory = Buffer::absent(driver.clone(), 0);
        Scratch { memory, taken: 0, tiles: kept(), index: kept(), targets: kept(), starts: kept() }
    }

    /// Begins an operation that takes places of these many bytes in all: what earlier ones took is free again.
    pub fn begin(&mut self, driver: &Arc<dyn Driver>, places: &[usize]) -> Result<()> {
        let bytes: usize = places.iter().map(|bytes| bytes.next_multiple_of(ALIGNMENT)).sum();
        if self.memory.len() * 4 < bytes {
            // The old one goes first: the two need not fit together.
            self.memory = Buffer::absent(driver.clone(), 0);
            self.memory = Buffer::new(driver.clone(), bytes / 4)?;
        }
        self.taken = 0;
        Ok(())
    }

    /// The next place, with room for `len` elements; what is in it is undefined.
    pub fn take<T: Element>(&mut self, len: usize) -> Span<T> {
        let at = self.taken;
        self.taken += (len * size_of::<T>()).next_multiple_of(ALIGNMENT);
        assert!(self.taken <= self.memory.len() * 4, "an operation takes what it began with");
        Span::new(self.memory.part(0).address() + at as u64, len)
    }
}
