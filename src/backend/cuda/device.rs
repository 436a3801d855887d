//! One GPU: its context, and its kernels loaded at first use.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, result, sys};
use cudarc::nvrtc::Ptx;

use super::compile::{Code, Compiler, cache_dir};
use crate::error::{Context, Error, Result};

/// Dynamic shared memory that a kernel gets without asking, in bytes.
const SHARED_UNASKED: u32 = 48 << 10;

/// Shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared: u32,
}

/// A GPU that the kernels run on.
pub struct Device {
    context: Arc<CudaContext>,
    compiler: Compiler,
    arch: i32,
    cache: PathBuf,
    modules: Mutex<HashMap<String, Arc<CudaModule>>>,
}

impl Device {
    /// Opens GPU `ordinal`.
    ///
    /// # Errors
    /// Where there is no driver, no such GPU, no NVRTC, or the GPU is older than Ampere (no bf16).
    pub fn open(ordinal: usize) -> Result<Self> {
        // SAFETY: tries to load a shared library by its well-known names. cudarc panics where it is missing, so this comes first.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::new("device = \"cuda\" was asked for, but this machine has no NVIDIA driver")
                .hint("`gristmill doctor` shows what was found; device = \"cpu\" works everywhere"));
        }
        let count = CudaContext::device_count().or_fail(|| "the NVIDIA driver does not start".to_owned())?;
        if ordinal >= count.max(0) as usize {
            return Err(Error::new(format!("there is no GPU {ordinal}: the NVIDIA driver lists {count}")));
        }
        let context = CudaContext::new(ordinal).or_fail(|| format!("GPU {ordinal} cannot be used"))?;
        let (major, minor) =
            context.compute_capability().or_fail(|| format!("GPU {ordinal} does not tell what it is"))?;
        if major < 8 {
            let name = context.name().unwrap_or_else(|_| "it".to_owned());
            return Err(Error::new(format!("GPU {ordinal} ({name}) has compute capability {major}.{minor}"))
                .hint("the kernels need 8.0 (Ampere) or later; device = \"cpu\" works everywhere"));
        }
        let compiler = Compiler::load()?;
        let arch = major * 10 + minor;
        Ok(Device { context, compiler, arch, cache: cache_dir(), modules: Mutex::default() })
    }

    /// The context that buffers of this GPU belong to.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// Compute capability, as `90`.
    pub fn arch(&self) -> i32 {
        self.arch
    }

    /// The compiler that its kernels come from.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// A kernel of an embedded file: compiled, or read from the cache, the first time its file is asked for.
    ///
    /// # Errors
    /// Where the file does not compile or load, or has no such kernel.
    pub fn function(&self, file: &str, kernel: &str) -> Result<CudaFunction> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(file) {
            Some(module) => module.clone(),
            None => {
                let module = self.load(file, self.compiler.cached(file, self.arch, &self.cache)?)?;
                modules.insert(file.to_owned(), module.clone());
                module
            }
        };
        module.load_function(kernel).or_fail(|| format!("kernels/{file} has no kernel {kernel}"))
    }

    /// Hands compiled code to the driver.
    ///
    /// # Errors
    /// Where the driver refuses it: PTX of a newer toolkit than it knows, code for another card.
    pub fn load(&self, file: &str, code: Code) -> Result<Arc<CudaModule>> {
        let what = if code.is_cubin { "machine code" } else { "PTX" };
        self.context.load_module(Ptx::from_binary(code.image)).map_err(|error| {
            Error::new(format!("the NVIDIA driver does not accept the {what} of kernels/{file}"))
                .caused_by(error)
                .hint("the driver may be older than NVRTC: `gristmill doctor` shows both versions")
        })
    }

    /// Issues a kernel on the default stream; `args[i]` points to argument i.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, and the buffers they name are as large as it takes
    /// for this grid and outlive the launch.
    ///
    /// # Errors
    /// Where the launch is refused: a bad shape, more shared memory than a block can have, an earlier failure.
    pub unsafe fn launch(&self, function: &CudaFunction, grid: Grid, args: &mut [*mut c_void]) -> Result<()> {
        let what = || format!("a kernel launch of {grid:?} was refused");
        self.context.bind_to_thread().or_fail(what)?;
        if grid.shared > SHARED_UNASKED {
            let key = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(key, grid.shared as i32).or_fail(what)?;
        }
        let [x, y, z] = grid.blocks;
        let stream = self.context.default_stream().cu_stream();
        // SAFETY: the caller answers for the arguments; function and stream are of this context.
        unsafe {
            result::launch_kernel(function.cu_function(), (x, y, z), (grid.threads, 1, 1), grid.shared, stream, args)
        }
        .or_fail(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_gpu_says_so_and_does_not_panic() {
        match Device::open(0) {
            Ok(device) => assert!(device.arch() >= 80),
            Err(error) => assert!(!error.message().is_empty()),
        }
        assert!(Device::open(10_000).is_err());
    }
}
