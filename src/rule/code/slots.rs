//! How many may run at once.

use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// A number of places, of which each run takes one and waits where none is free.
pub(crate) struct Slots {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place, given back when dropped.
pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    pub fn new(places: usize) -> Self {
        Slots { free: Mutex::new(places.max(1)), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub fn take(&self) -> Slot<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Slot(self)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

/// The process's: one a core, whoever asks for it. Programs are given wall time, so more of them than cores would
/// make verdicts depend on the load.
pub(crate) fn of_process() -> &'static Slots {
    static SLOTS: OnceLock<Slots> = OnceLock::new();
    SLOTS.get_or_init(|| Slots::new(cores()))
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
