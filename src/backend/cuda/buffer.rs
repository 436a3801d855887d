//! Device memory with an owner and an element type.

use std::marker::PhantomData;
use std::sync::Arc;

use super::driver::{Arg, Driver, Element, Pointer};
use crate::error::Result;

/// Elements on the device, freed with their owner.
pub struct Buffer<T> {
    driver: Arc<dyn Driver>,
    span: Span<T>,
}

/// A range of device memory. Whoever makes one answers for its life.
pub(super) struct Span<T> {
    address: u64,
    len: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Span<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Span<T> {}

impl<T: Element> Span<T> {
    pub fn new(address: u64, len: usize) -> Self {
        Span { address, len, kind: PhantomData }
    }

    pub fn address(self) -> u64 {
        self.address
    }

    /// The elements from `at` on.
    pub fn from(self, at: usize) -> Self {
        assert!(at <= self.len, "element {at} of a buffer of {}", self.len);
        Span::new(self.address + (at * size_of::<T>()) as u64, self.len - at)
    }

    fn arg(self, count: usize, mutable: bool) -> Arg {
        assert!(count <= self.len, "{count} elements of a buffer of {}", self.len);
        Arg::Pointer(Pointer { kind: T::KIND, address: self.address, bytes: count * size_of::<T>(), mutable })
    }

    /// The first `count` elements, to be read.
    pub fn read(self, count: usize) -> Arg {
        self.arg(count, false)
    }

    /// The first `count` elements, to be written.
    pub fn write(self, count: usize) -> Arg {
        self.arg(count, true)
    }
}

impl<T: Element> Buffer<T> {
    /// Zeroed elements.
    ///
    /// # Errors
    /// Where there is not enough memory.
    pub(super) fn new(driver: Arc<dyn Driver>, len: usize) -> Result<Self> {
        let address = if len == 0 { 0 } else { driver.allocate(len * size_of::<T>())? };
        Ok(Buffer { driver, span: Span::new(address, len) })
    }

    /// Zeroed elements in the host's memory, which kernels reach over the bus.
    ///
    /// # Errors
    /// Where there is not enough memory.
    pub(super) fn on_host(driver: Arc<dyn Driver>, len: usize) -> Result<Self> {
        let address = if len == 0 { 0 } else { driver.allocate_host(len * size_of::<T>())? };
        Ok(Buffer { driver, span: Span::new(address, len) })
    }

    /// Stands where an allocation failed; the backend that made it issues nothing any more.
    pub(super) fn absent(driver: Arc<dyn Driver>, len: usize) -> Self {
        Buffer { driver, span: Span::new(0, len) }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.span.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.span.len == 0
    }

    /// The elements from `at` on, to be read.
    pub(super) fn part(&self, at: usize) -> Span<T> {
        self.span.from(at)
    }

    /// The elements from `at` on, to be read and written.
    pub(super) fn part_mut(&mut self, at: usize) -> Span<T> {
        self.span.from(at)
    }

    /// The first `count` elements, to be read.
    pub(super) fn read(&self, count: usize) -> Arg {
        self.span.read(count)
    }

    /// The first `count` elements, to be written.
    pub(super) fn write(&mut self, count: usize) -> Arg {
        self.span.write(count)
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.span.address != 0 {
            // SAFETY: allocated by `new`; nothing can name it once its owner is gone.
            unsafe { self.driver.free(self.span.address) };
        }
    }
}
