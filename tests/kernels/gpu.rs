//! The same launches on a real GPU: `GRISTMILL_TEST_DEVICE=cuda` sends every
//! launch of [`crate::shim::Device`] here, so each test becomes a parity test of
//! that kernel on the card. Twice each, whose bits must agree.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, OnceLock};

use cudarc::driver::CudaModule;
use gristmill::backend::cuda::device::Device;
use gristmill::backend::cuda::driver::{Driver, Grid};
use gristmill::backend::cuda::kernels;

use crate::shim::Act;

/// The GPU, where the tests were asked to run on one.
pub fn device() -> Option<&'static Arc<Device>> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    let asked = || std::env::var("GRISTMILL_TEST_DEVICE").is_ok_and(|device| device == "cuda");
    DEVICE.get_or_init(|| asked().then(|| Arc::new(Device::open(0).unwrap()))).as_ref()
}

/// Device memory, freed with its owner.
pub struct Memory<'a>(&'a Device, pub u64);

impl<'a> Memory<'a> {
    /// As many bytes as these, holding them.
    pub fn of(device: &'a Device, bytes: &[u8]) -> Self {
        let memory = Memory(device, device.allocate(bytes.len().max(1)).unwrap());
        // SAFETY: the allocation has as many bytes.
        unsafe { device.write(memory.1, bytes) }.unwrap();
        memory
    }

    /// What it holds now.
    pub fn read(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        // SAFETY: callers ask for what they allocated.
        unsafe { self.0.read(self.1, &mut bytes) }.unwrap();
        bytes
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated by `of` and freed only here.
        unsafe { self.0.free(self.1) };
    }
}

/// A file of kernels whose activations are f32, compiled once.
fn wide(device: &Device, file: &str) -> Result<Arc<CudaModule>, String> {
    static KEPT: Mutex<BTreeMap<String, Arc<CudaModule>>> = Mutex::new(BTreeMap::new());
    let mut kept = KEPT.lock().unwrap_or_else(|broken| broken.into_inner());
    if let Some(module) = kept.get(file) {
        return Ok(module.clone());
    }
    let text = format!("#define ACT_F32\n#line 1\n{}", kernels::source(file).unwrap());
    let code = device.compiler().compile(file, &text, device.arch()).map_err(|e| e.to_string())?;
    let module = device.load(file, code).map_err(|e| e.to_string())?;
    Ok(kept.entry(file.to_owned()).or_insert(module).clone())
}

/// Launches over copies of `buffers`, which take what the kernel wrote. `args` are eight bytes each;
/// those named in `pointers` (argument, buffer) become device addresses, `offset` into the buffer.
#[allow(clippy::too_many_arguments)]
pub fn launch(
    device: &Device,
    file: &str,
    act: Act,
    kernel: &str,
    grid: Grid,
    args: &mut [[u8; 8]],
    pointers: &[(usize, usize)],
    buffers: &mut [Vec<u8>],
    offset: usize,
) -> Result<(), String> {
    let function = match act {
        Act::Bf16 => device.function(file, kernel).map_err(|e| e.to_string())?,
        Act::F32 => {
            let module = wide(device, file)?;
            device.context().bind_to_thread().map_err(|e| e.to_string())?;
            module.load_function(kernel).map_err(|e| e.to_string())?
        }
    };
    device.allow_shared(&function, grid.shared).map_err(|e| e.to_string())?;
    let mut results: Vec<Vec<Vec<u8>>> = Vec::new();
    for _ in 0..2 {
        let memory: Vec<Memory> = buffers.iter().map(|bytes| Memory::of(device, bytes)).collect();
        for &(arg, buffer) in pointers {
            args[arg] = (memory[buffer].1 + offset as u64).to_ne_bytes();
        }
        let mut addresses: Vec<*mut c_void> = args.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
        // SAFETY: the test gives the kernel the arguments it declares; memory lives past the synchronisation.
        unsafe { device.launch_function(&function, grid, &mut addresses) }.map_err(|e| e.to_string())?;
        device.synchronize().map_err(|e| format!("{kernel}: {e}"))?;
        results.push(buffers.iter().zip(&memory).map(|(bytes, memory)| memory.read(bytes.len())).collect());
    }
    if results[0] != results[1] {
        return Err("two runs on the GPU differ".to_owned());
    }
    buffers.clone_from_slice(&results[0]);
    Ok(())
}
