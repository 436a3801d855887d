//! The same launches on a real GPU: `GRISTMILL_TEST_DEVICE=cuda` sends every
//! launch of [`crate::shim::Device`] here, so each test becomes a parity test of
//! that kernel on the card. Twice each, whose bits must agree.

use std::ffi::c_void;
use std::sync::OnceLock;

use cudarc::driver::result;
use gristmill::backend::cuda::device::{Device, Grid};
use gristmill::backend::cuda::kernels;

use crate::shim::Act;

/// The GPU, where the tests were asked to run on one.
pub fn device() -> Option<&'static Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let asked = || std::env::var("GRISTMILL_TEST_DEVICE").is_ok_and(|device| device == "cuda");
    DEVICE.get_or_init(|| asked().then(|| Device::open(0).unwrap())).as_ref()
}

/// Device memory, freed with its owner.
struct Memory(u64);

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated by `launch` below and freed only here.
        unsafe { result::free_sync(self.0) }.unwrap();
    }
}

/// Launches over copies of `buffers`, which take what the kernel wrote. `args` are eight bytes each;
/// those named in `pointers` (argument, buffer, offset in it) become device addresses.
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
            let text = format!("#define ACT_F32\n#line 1\n{}", kernels::source(file).unwrap());
            let code = device.compiler().compile(file, &text, device.arch()).map_err(|e| e.to_string())?;
            let module = device.load(file, code).map_err(|e| e.to_string())?;
            module.load_function(kernel).map_err(|e| e.to_string())?
        }
    };
    device.context().bind_to_thread().unwrap();
    let mut results: Vec<Vec<Vec<u8>>> = Vec::new();
    for _ in 0..2 {
        // SAFETY: plain allocations and copies of as many bytes as the buffers have.
        let memory: Vec<Memory> = buffers
            .iter()
            .map(|bytes| unsafe {
                let at = result::malloc_sync(bytes.len()).unwrap();
                result::memcpy_htod_sync(at, bytes).unwrap();
                Memory(at)
            })
            .collect();
        for &(arg, buffer) in pointers {
            args[arg] = (memory[buffer].0 + offset as u64).to_ne_bytes();
        }
        let mut addresses: Vec<*mut c_void> = args.iter_mut().map(|a| a.as_mut_ptr().cast()).collect();
        // SAFETY: the test gives the kernel the arguments it declares; memory lives past the synchronisation.
        unsafe { device.launch(&function, grid, &mut addresses) }.map_err(|e| e.to_string())?;
        device.context().synchronize().map_err(|e| format!("{kernel}: {e}"))?;
        let read = buffers.iter().zip(&memory).map(|(bytes, memory)| {
            let mut bytes = vec![0u8; bytes.len()];
            // SAFETY: reads back what was allocated for these bytes.
            unsafe { result::memcpy_dtoh_sync(&mut bytes, memory.0) }.unwrap();
            bytes
        });
        results.push(read.collect());
    }
    if results[0] != results[1] {
        return Err("two runs on the GPU differ".to_owned());
    }
    buffers.clone_from_slice(&results[0]);
    Ok(())
}
