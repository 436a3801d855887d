//! Sharing work out, and scratch memory that is allocated once a thread.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::{Cpu, Pool};

/// Elementary steps below which waking another thread costs more than it saves.
const WORTH_SHARING: usize = 1 << 15;

impl Cpu {
    /// Runs `task(0..count)`, in parallel where `work` elementary steps are worth it.
    pub(super) fn tasks(&self, count: usize, work: usize, task: impl Fn(usize) + Send + Sync) {
        if count <= 1 || work < WORTH_SHARING || self.threads() == 1 {
            (0..count).for_each(task);
            return;
        }
        let all = || (0..count).into_par_iter().with_max_len(1).for_each(&task);
        match &self.pool {
            Pool::Serial => unreachable!("one thread"),
            Pool::Global => all(),
            Pool::Own(pool) => pool.install(all),
        }
    }

    /// Runs `task` on ranges that cover `0..rows`, a few for each thread.
    pub(super) fn rows(&self, rows: usize, work: usize, task: impl Fn(Range<usize>) + Send + Sync) {
        let threads = if work < WORTH_SHARING { 1 } else { self.threads() };
        let each = if threads == 1 { rows } else { rows.div_ceil(threads * 4) }.max(1);
        self.tasks(rows.div_ceil(each), work, |i| task(i * each..rows.min((i + 1) * each)));
    }

    /// Runs `task(i, chunk)` on chunks of `size` elements.
    pub(super) fn chunks_mut(
        &self,
        data: &mut [f32],
        size: usize,
        work: usize,
        task: impl Fn(usize, &mut [f32]) + Send + Sync,
    ) {
        let len = data.len();
        let shared = Shared::new(data);
        self.tasks(len.div_ceil(size), work, |i| {
            // SAFETY: chunk i belongs to task i alone.
            task(i, unsafe { shared.range(i * size..len.min((i + 1) * size)) });
        });
    }
}

/// A slice that tasks write disjoint parts of.
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: whoever takes a range promises that no other task has it.
unsafe impl Sync for Shared<'_> {}
// SAFETY: as above.
unsafe impl Send for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(data: &'a mut [f32]) -> Self {
        Shared { start: data.as_mut_ptr(), len: data.len(), borrow: PhantomData }
    }

    /// # Safety
    /// No two live ranges overlap.
    #[allow(clippy::mut_from_ref)]
    #[inline]
    pub unsafe fn range(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: inside the slice, and the caller promises that it is not shared.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// A pointer that tasks write disjoint parts through.
#[derive(Clone, Copy)]
pub(super) struct SendPtr(pub *mut f32);

impl SendPtr {
    pub fn get(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: whoever writes through it promises that no other task writes there.
unsafe impl Sync for SendPtr {}
// SAFETY: as above.
unsafe impl Send for SendPtr {}

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of unspecified content; the memory stays with the thread.
pub(super) fn scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.with_borrow_mut(|stack| stack.pop()).unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    let result = work(&mut buffer[..len]);
    SCRATCH.with_borrow_mut(|stack| stack.push(buffer));
    result
}
