//! `impl Driver for Device`: memory, copies, launches, products and graphs by the driver.

use std::ffi::c_void;
use std::sync::PoisonError;

use cudarc::driver::{result, sys};

use super::{Device, Loaded, SHARED_UNASKED, STAGED};
use crate::backend::cuda::driver::{Arg, Driver, Grid};
use crate::backend::cuda::matmul::{Matmul, Product, WORKSPACE};
use crate::error::{Context, Error, Result};

impl Driver for Device {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let what = || {
            let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
            let free = self.memory().map_or_else(
                |_| String::new(),
                |(free, all)| format!(" ({:.2} GiB of {:.2} free)", gib(free), gib(all)),
            );
            format!("the GPU has no {:.2} GiB more{free}", gib(bytes))
        };
        let attempt = || {
            self.context.bind_to_thread()?;
            // SAFETY: a plain allocation, zeroed before anyone sees its address.
            unsafe {
                let address = result::malloc_sync(bytes)?;
                result::memset_d8_async(address, 0, bytes, self.stream.cu_stream())?;
                Ok(address)
            }
        };
        attempt().map_err(|error| self.failed(what, error))
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        let attempt = || {
            self.context.bind_to_thread()?;
            // SAFETY: a plain allocation, zeroed before anyone sees its address.
            unsafe {
                let host = result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_DEVICEMAP)?;
                std::ptr::write_bytes(host.cast::<u8>(), 0, bytes);
                let mut address = 0;
                sys::cuMemHostGetDevicePointer_v2(&mut address, host, 0).result()?;
                Ok((host as u64, address))
            }
        };
        let what = || format!("the host has no {:.2} GiB of pinned memory more", bytes as f64 / (1u64 << 30) as f64);
        let (host, address) = attempt().map_err(|error| self.failed(what, error))?;
        // One address space (Linux, 64 bits): what the host calls it, the GPU does too.
        if host != address {
            // SAFETY: allocated above and named by nothing.
            let _ = unsafe { result::free_host(host as *mut c_void) };
            return Err(Error::new("the GPU sees the host's memory at other addresses").hint("leave `offload` out"));
        }
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).insert(address, bytes);
        Ok(address)
    }

    unsafe fn free(&self, address: u64) {
        if self.pinned.lock().unwrap_or_else(PoisonError::into_inner).remove(&address).is_some() {
            if self.context.bind_to_thread().is_ok() {
                // SAFETY: the caller's address, not used again; what still reads it is waited for.
                let _ = unsafe {
                    result::stream::synchronize(self.stream.cu_stream())
                        .and_then(|()| result::free_host(address as *mut c_void))
                };
            }
            return;
        }
        // A failure here is an earlier one that `finish` reports; there is nothing more to do about it.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the caller's address, not used again. The stream is non-blocking, so it is waited for.
            let _ = unsafe { result::stream::synchronize(self.stream.cu_stream()).and(result::free_sync(address)) };
        }
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        if self.is_pinned(to) {
            self.synchronize()?;
            // SAFETY: the caller answers for the range, which is the host's own and which nothing uses meanwhile.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
            return Ok(());
        }
        let attempt = || {
            self.context.bind_to_thread()?;
            if let Some(staging) = &mut *self.staging() {
                // SAFETY: the caller answers for the range.
                return unsafe { staging.write(to, bytes) };
            }
            // SAFETY: the caller answers for the range; when the bytes are read nobody says, so the copy is waited for.
            unsafe {
                result::memcpy_htod_async(to, bytes, self.stream.cu_stream())?;
                result::stream::synchronize(self.stream.cu_stream())
            }
        };
        attempt().map_err(|error| self.failed(|| format!("{} bytes cannot be copied to the GPU", bytes.len()), error))
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        let len = bytes.len();
        if self.is_pinned(from) {
            self.synchronize()?;
            // SAFETY: as in `write`.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), len) };
            return Ok(());
        }
        let mut attempt = || {
            self.context.bind_to_thread()?;
            if len >= STAGED
                && let Some(staging) = &mut *self.staging()
            {
                // SAFETY: the caller answers for the range.
                return unsafe { staging.read(from, bytes) };
            }
            // SAFETY: the caller answers for the range; the copy is waited for.
            unsafe {
                result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream())?;
                result::stream::synchronize(self.stream.cu_stream())
            }
        };
        attempt().map_err(|error| self.failed(|| format!("{len} bytes cannot be copied from the GPU"), error))
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        if self.is_pinned(at) {
            self.synchronize()?;
            // SAFETY: as in `write`.
            unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
            return Ok(());
        }
        let attempt = || {
            self.context.bind_to_thread()?;
            // SAFETY: the caller answers for the range.
            unsafe { result::memset_d8_async(at, 0, bytes, self.stream.cu_stream()) }
        };
        attempt().map_err(|error| self.failed(|| "the GPU's memory cannot be cleared".to_owned(), error))
    }

    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let what = || format!("{name} cannot be launched over {grid:?}");
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match functions.entry(name) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let function = self.function(file, name)?;
                entry.insert(Loaded { function, shared: SHARED_UNASKED })
            }
        };
        if grid.shared > loaded.shared {
            self.allow_shared(&loaded.function, grid.shared).map_err(|error| self.failed(what, error))?;
            loaded.shared = grid.shared;
        }
        let mut values = [[0u8; 8]; 16];
        let mut pointers = [std::ptr::null_mut::<c_void>(); 16];
        assert!(args.len() <= values.len(), "{name} takes {} arguments", args.len());
        for ((value, pointer), arg) in values.iter_mut().zip(&mut pointers).zip(args) {
            *value = arg.bytes();
            *pointer = value.as_mut_ptr().cast();
        }
        // SAFETY: the caller answers for the arguments.
        unsafe { self.launch_function(&loaded.function, grid, &mut pointers[..args.len()]) }
            .map_err(|error| self.failed(what, error))
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<bool> {
        let mut matmul = self.matmul.lock().unwrap_or_else(PoisonError::into_inner);
        if matmul.is_none() {
            *matmul = Some((Matmul::new(self.stream.clone())?, self.allocate(WORKSPACE)?));
        }
        let (matmul, workspace) = matmul.as_ref().expect("made above");
        // SAFETY: the caller answers for a, b and c; the workspace is this device's and the stream keeps its users apart.
        unsafe { matmul.issue(product, a, b, c, *workspace) }
    }

    fn begin_recording(&self) -> Result<()> {
        // What other threads do with the driver does not end the recording.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(|error| self.failed(|| "the GPU cannot record".to_owned(), error))
    }

    fn end_recording(&self) -> Result<u64> {
        let what = || "the GPU cannot record this".to_owned();
        let ended = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        if ended.is_err() {
            self.leave_capture();
        }
        let graph = ended.map_err(|error| self.failed(what, error))?;
        let graph = graph.ok_or_else(|| Error::new("the GPU recorded nothing"))?;
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        graphs.made += 1;
        let id = graphs.made;
        graphs.kept.insert(id, graph);
        Ok(id)
    }

    unsafe fn replay(&self, recorded: u64) -> Result<()> {
        let graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = graphs.kept.get(&recorded).ok_or_else(|| Error::new("there is no such recording"))?;
        graph.launch().map_err(|error| self.failed(|| "recorded work cannot be issued".to_owned(), error))
    }

    fn forget(&self, recorded: u64) {
        // What still runs of it is waited for: destroying a graph does not.
        if self.stream.synchronize().is_ok() {
            self.graphs.lock().unwrap_or_else(PoisonError::into_inner).kept.remove(&recorded);
        }
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(|error| self.failed(|| "the GPU failed".to_owned(), error))
    }

    fn memory(&self) -> Result<(usize, usize)> {
        let attempt = || {
            self.context.bind_to_thread()?;
            result::mem_get_info()
        };
        attempt().or_fail(|| "the GPU does not tell how much memory it has".to_owned())
    }
}
