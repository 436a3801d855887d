//! The CUDA backend with no GPU: its driver is the host, its kernels are their own sources run by the shim.
//!
//! So every operation's launches (which kernel, over which grid, with which arguments, on buffers of which
//! size) are the ones that a GPU gets. Pointers must lie within live allocations, and nothing may be written
//! outside of them. Threads run in another order at every launch, so a race changes bits between two runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gristmill::backend::Cuda;
use gristmill::backend::cuda::driver::{Arg, Driver, Grid, Pointer};
use gristmill::backend::cuda::matmul::{Out, Product};
use gristmill::{Error, Result};
use half::bf16;

use crate::gpu;
use crate::shim::{on_host, run_on_host};

/// Bytes of 0xff on each side of an allocation: NaN to whoever reads them.
const GUARD: usize = 256;

/// The backend to test: on the GPU where one was asked for, else on the host; `None`, said aloud, without a compiler.
pub fn cuda() -> Option<Cuda> {
    match gpu::device() {
        Some(device) => Some(Cuda::on(device.clone())),
        None => on_host().then(|| Cuda::on(Arc::new(Host::default()))),
    }
}

/// Memory and work of a GPU that is not there.
#[derive(Default)]
pub struct Host {
    /// By address: the bytes with their guards, and how many are between them.
    memory: Mutex<BTreeMap<u64, (Vec<u128>, usize)>>,
    launches: AtomicUsize,
}

impl Host {
    /// Bytes of live allocations.
    pub fn allocated(&self) -> u64 {
        self.memory.lock().unwrap().values().map(|(_, len)| *len as u64).sum()
    }

    /// The allocation that holds this range.
    fn holding(&self, at: u64, bytes: usize) -> Result<u64> {
        let memory = self.memory.lock().unwrap();
        let found =
            memory.range(..=at).next_back().filter(|&(start, (_, len))| at + bytes as u64 <= start + *len as u64);
        found
            .map(|(start, _)| *start)
            .ok_or_else(|| Error::new(format!("{bytes} bytes at {at:#x} are in no allocation")))
    }

    fn guarded(&self, start: u64) -> Result<()> {
        let memory = self.memory.lock().unwrap();
        let (words, len) = &memory[&start];
        let (bytes, before) = (bytemuck::cast_slice::<u128, u8>(words), (start as usize) - words.as_ptr() as usize);
        match bytes[..before].iter().chain(&bytes[before + len..]).all(|&b| b == 0xff) {
            true => Ok(()),
            false => Err(Error::new(format!("an allocation was written outside its {len} bytes"))),
        }
    }

    /// # Safety
    /// The range is of a live allocation.
    unsafe fn slice<'a, T: bytemuck::Pod>(&self, at: u64, count: usize) -> &'a mut [T] {
        self.holding(at, count * size_of::<T>()).unwrap();
        // SAFETY: within an allocation, aligned to 256 bytes or a multiple of the element from there.
        unsafe { std::slice::from_raw_parts_mut(at as *mut T, count) }
    }
}

impl Driver for Host {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut words = vec![u128::MAX; (bytes + 3 * GUARD).div_ceil(16)];
        let start = (words.as_ptr() as usize + GUARD).next_multiple_of(GUARD);
        let before = start - words.as_ptr() as usize;
        bytemuck::cast_slice_mut::<u128, u8>(&mut words)[before..before + bytes].fill(0);
        self.memory.lock().unwrap().insert(start as u64, (words, bytes));
        Ok(start as u64)
    }

    unsafe fn free(&self, address: u64) {
        self.guarded(address).unwrap();
        self.memory.lock().unwrap().remove(&address).expect("freed once");
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.holding(to, bytes.len())?;
        // SAFETY: the range is of a live allocation.
        unsafe { self.slice::<u8>(to, bytes.len()) }.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.holding(from, bytes.len())?;
        // SAFETY: the range is of a live allocation.
        bytes.copy_from_slice(unsafe { self.slice::<u8>(from, bytes.len()) });
        Ok(())
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        self.holding(at, bytes)?;
        // SAFETY: the range is of a live allocation.
        unsafe { self.slice::<u8>(at, bytes) }.fill(0);
        Ok(())
    }

    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let mut touched = Vec::new();
        for arg in args {
            if let Arg::Pointer(Pointer { address, bytes, .. }) = *arg
                && address != 0
            {
                touched.push(self.holding(address, bytes)?);
            }
        }
        let mut values: Vec<[u8; 8]> = args.iter().map(|arg| arg.bytes()).collect();
        let order = self.launches.fetch_add(1, Ordering::Relaxed);
        run_on_host(file, name, grid, &mut values, order).map_err(|said| Error::new(format!("{name}: {said}")))?;
        touched.into_iter().try_for_each(|start| self.guarded(start))
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<()> {
        let Product { m, n, k, a_transposed, b_transposed, out, accumulate } = *product;
        // SAFETY: the ranges are of live allocations; c is not a or b.
        let (a, b) = unsafe { (self.slice::<bf16>(a, m * k), self.slice::<bf16>(b, k * n)) };
        let floats = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        // As rows of a and columns of b, so that the inner loop runs along both.
        let flip = |x: &[f32], rows: usize, cols: usize| {
            (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect::<Vec<f32>>()
        };
        let (mut a, mut b) = (floats(a), floats(b));
        if a_transposed {
            a = flip(&a, k, m);
        }
        if !b_transposed {
            b = flip(&b, k, n);
        }
        let sum = |at: usize| -> f32 {
            let (row, column) = (&a[at / n * k..][..k], &b[at % n * k..][..k]);
            row.iter().zip(column).map(|(x, y)| x * y).sum()
        };
        match out {
            Out::F32 => {
                // SAFETY: as above.
                let c = unsafe { self.slice::<f32>(c, m * n) };
                c.iter_mut().enumerate().for_each(|(i, c)| *c = sum(i) + if accumulate { *c } else { 0.0 });
            }
            Out::Bf16 => {
                // SAFETY: as above.
                let c = unsafe { self.slice::<bf16>(c, m * n) };
                let before = |c: bf16| if accumulate { c.to_f32() } else { 0.0 };
                c.iter_mut().enumerate().for_each(|(i, c)| *c = bf16::from_f32(sum(i) + before(*c)));
            }
        }
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Result<(usize, usize)> {
        Ok((usize::MAX, usize::MAX))
    }
}

#[test]
fn the_backend_launches_every_kernel_there_is() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/cuda");
    let files = dir.read_dir().unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let text: String = files.map(|text| text.split("#[cfg(test)]").next().unwrap().to_owned()).collect();
    for name in gristmill::backend::cuda::signature::all().keys() {
        assert!(text.contains(&format!("\"{name}\"")), "nothing launches {name}");
    }
}

#[test]
fn an_allocation_too_small_for_its_launch_is_seen() {
    let host = Host::default();
    let at = host.allocate(64).unwrap();
    assert!(host.holding(at, 64).is_ok() && host.holding(at + 60, 4).is_ok());
    assert!(host.holding(at + 60, 8).is_err() && host.holding(at - 4, 4).is_err());
    // SAFETY: a live allocation; the guard behind it is part of the same vector.
    unsafe { *((at + 64) as *mut u8) = 1 };
    assert!(host.guarded(at).is_err());
    // SAFETY: as above.
    unsafe { *((at + 64) as *mut u8) = 0xff };
    // SAFETY: allocated above.
    unsafe { host.free(at) };
    assert!(host.holding(at, 1).is_err());
}
