//! The card as a backend, with its memory counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill::Result;
use gristmill::backend::Cuda;
use gristmill::backend::cuda::driver::{Arg, Driver, Grid};
use gristmill::backend::cuda::matmul::Product;

/// A backend over a driver whose allocations are counted.
pub struct Card {
    gpu: Cuda,
    meter: Arc<Meter>,
}

impl Card {
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        let meter = Arc::new(Meter { driver, memory: Mutex::default() });
        Card { gpu: Cuda::on(meter.clone()), meter }
    }

    /// The same device with a backend of its own, which has none of the memory that operations use within themselves.
    pub fn again(&self) -> Self {
        Card::new(self.meter.driver.clone())
    }

    pub fn gpu(&self) -> &Cuda {
        &self.gpu
    }

    /// For launches of single kernels.
    pub fn driver(&self) -> &dyn Driver {
        &*self.meter
    }

    /// Bytes that are allocated now.
    pub fn allocated(&self) -> u64 {
        self.meter.memory().now
    }

    /// The most bytes that were allocated at once since this was last asked.
    pub fn peak(&self) -> u64 {
        let memory = &mut *self.meter.memory();
        std::mem::replace(&mut memory.peak, memory.now)
    }

    /// Bytes of the device's memory that are in use, by whomever, as its driver tells.
    pub fn used(&self) -> Result<u64> {
        let (free, all) = self.gpu.memory()?;
        Ok((all - free) as u64)
    }
}

/// Counts what passes through to a driver.
struct Meter {
    driver: Arc<dyn Driver>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// Bytes by address.
    live: BTreeMap<u64, u64>,
    now: u64,
    peak: u64,
}

impl Meter {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Meter {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let address = self.driver.allocate(bytes)?;
        let memory = &mut *self.memory();
        memory.live.insert(address, bytes as u64);
        memory.now += bytes as u64;
        memory.peak = memory.peak.max(memory.now);
        Ok(address)
    }

    /// Not the device's memory.
    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        self.driver.allocate_host(bytes)
    }

    unsafe fn free(&self, address: u64) {
        let mut memory = self.memory();
        let bytes = memory.live.remove(&address).unwrap_or(0);
        memory.now -= bytes;
        drop(memory);
        // SAFETY: the caller's address.
        unsafe { self.driver.free(address) };
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller's range.
        unsafe { self.driver.write(to, bytes) }
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's range.
        unsafe { self.driver.read(from, bytes) }
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's range.
        unsafe { self.driver.zero(at, bytes) }
    }

    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        // SAFETY: the caller's arguments.
        unsafe { self.driver.launch(file, name, grid, args) }
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<bool> {
        // SAFETY: the caller's addresses.
        unsafe { self.driver.multiply(product, a, b, c) }
    }

    fn begin_recording(&self) -> Result<()> {
        self.driver.begin_recording()
    }

    fn end_recording(&self) -> Result<u64> {
        self.driver.end_recording()
    }

    unsafe fn replay(&self, recorded: u64) -> Result<()> {
        // SAFETY: the caller's recording.
        unsafe { self.driver.replay(recorded) }
    }

    fn forget(&self, recorded: u64) {
        self.driver.forget(recorded);
    }

    fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.driver.memory()
    }
}
