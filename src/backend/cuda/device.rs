//! One GPU: its context, one stream of work, and its kernels.

mod calls;

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, CudaFunction, CudaGraph, CudaModule, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::compile::{Cached, Code, Compiler, cache_dir};
use super::driver::{Driver, Grid};
use super::kernels;
use super::library::{CUBLASLT, NVRTC};
use super::matmul::Matmul;
use super::pinned::Pinned;
use super::requirements::{check_driver, check_library, driver_version, no_panic, suits};
use super::staging::Staging;
use crate::backend::notice;
use crate::error::{Context, Error, Result};

/// Dynamic shared memory that a kernel gets without asking, in bytes: of the 48 KiB, what its static memory leaves.
const SHARED_UNASKED: u32 = 40 << 10;

/// A GPU that the kernels run on.
pub struct Device {
    context: Arc<CudaContext>,
    /// Everything is issued here, in order. Not the default stream, which cannot be captured in a graph.
    stream: Arc<CudaStream>,
    compiler: Compiler,
    arch: i32,
    cache: PathBuf,
    modules: Mutex<HashMap<String, Arc<CudaModule>>>,
    functions: Mutex<HashMap<&'static str, Loaded>>,
    /// cuBLASLt and its workspace, made at the first product.
    matmul: Mutex<Option<(Matmul, u64)>>,
    /// Pinned memory of the host by address, with its length.
    pinned: Mutex<BTreeMap<u64, usize>>,
    graphs: Mutex<Graphs>,
    /// What copies between the host and the GPU pass through, made at the first.
    staging: Mutex<Option<Staging<Pinned>>>,
}

/// Recorded work by name.
#[derive(Default)]
struct Graphs {
    kept: HashMap<u64, CudaGraph>,
    made: u64,
}

// SAFETY: a graph may be used from any thread, one at a time; all of them are behind one lock.
unsafe impl Send for Graphs {}

/// Bytes from which on a copy from the GPU passes through pinned memory: it is waited for either way, and shorter ones
/// are as fast without. Copies to the GPU all do.
const STAGED: usize = 64 << 10;

/// A kernel, and the dynamic shared memory it may have.
struct Loaded {
    function: CudaFunction,
    shared: u32,
}

impl Device {
    /// How many GPUs the driver lists.
    ///
    /// # Errors
    /// Where there is no driver, or it is too old.
    pub fn count() -> Result<usize> {
        check_driver(driver_version()?)?;
        match CudaContext::device_count() {
            // Hidden by CUDA_VISIBLE_DEVICES, or taken out.
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
            Ok(count) => Ok(count.max(0) as usize),
            Err(error) => Err(Error::new("the NVIDIA driver does not start")
                .caused_by(error)
                .hint("`nvidia-smi` says more; after an update of the driver the machine may need a restart")),
        }
    }

    /// Opens GPU `ordinal` with every kernel compiled and loaded.
    ///
    /// # Errors
    /// Where there is no driver, no such GPU, no NVRTC or no cuBLASLt, the GPU is older than Ampere (no bf16), or a
    /// kernel does not compile or load.
    pub fn open(ordinal: usize) -> Result<Self> {
        let device = no_panic(&format!("GPU {ordinal} cannot be used"), || Device::bare(ordinal))?;
        device.prepare()?;
        Ok(device)
    }

    fn bare(ordinal: usize) -> Result<Self> {
        let count = Device::count()?;
        if ordinal >= count {
            return Err(Error::new(format!("there is no GPU {ordinal}: the NVIDIA driver lists {count}")));
        }
        let context = CudaContext::new(ordinal).or_fail(|| format!("GPU {ordinal} cannot be used"))?;
        let (major, minor) =
            context.compute_capability().or_fail(|| format!("GPU {ordinal} does not tell what it is"))?;
        let arch = major * 10 + minor;
        if !suits(arch) {
            let name = context.name().unwrap_or_else(|_| "it".to_owned());
            return Err(Error::new(format!("GPU {ordinal} ({name}) has compute capability {major}.{minor}"))
                .hint("the kernels need 8.0 (Ampere) or later; device = \"cpu\" works everywhere"));
        }
        let compiler = Compiler::load()?;
        let (driver, (nvrtc, minor)) = (driver_version()?, compiler.version());
        check_library(&NVRTC, nvrtc * 1000 + minor * 10, driver, NVRTC.file(c"nvrtcVersion"))?;
        CUBLASLT.load()?;
        // SAFETY: it is loaded, and asked for a number. 12.4.2 is 120402.
        let cublaslt = unsafe { cudarc::cublaslt::sys::cublasLtGetVersion() } as i32 / 10;
        check_library(&CUBLASLT, cublaslt, driver, CUBLASLT.file(c"cublasLtGetVersion"))?;
        // cudarc's tracking of buffers across streams is for its own slices; these buffers know one stream.
        let stream = context.new_stream().or_fail(|| format!("GPU {ordinal} cannot be used"))?;
        Ok(Device {
            context,
            stream,
            compiler,
            arch,
            cache: cache_dir(),
            modules: Mutex::default(),
            functions: Mutex::default(),
            matmul: Mutex::default(),
            pinned: Mutex::default(),
            graphs: Mutex::default(),
            staging: Mutex::default(),
        })
    }

    /// The context that buffers of this GPU belong to.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// The stream that everything is issued on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Compute capability, as `90`.
    pub fn arch(&self) -> i32 {
        self.arch
    }

    /// The compiler that its kernels come from.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Compiles and loads every file of kernels, several at a time: what is wrong with one is known before any work.
    fn prepare(&self) -> Result<()> {
        let compile =
            |&(file, _): &(&'static str, &str)| Ok((file, self.compiler.cached(file, self.arch, &self.cache)?));
        let all: Vec<Result<(&str, Cached)>> = kernels::SOURCES.par_iter().map(compile).collect();
        // In the files' order, so that of several faults the same is told at every try.
        all.into_iter().try_for_each(|compiled| {
            let (file, cached) = compiled?;
            self.keep_module(file, cached).map(drop)
        })
    }

    /// A kernel of an embedded file: compiled, or read from the cache, the first time its file is asked for.
    ///
    /// # Errors
    /// Where the file does not compile or load, or has no such kernel.
    pub fn function(&self, file: &str, kernel: &str) -> Result<CudaFunction> {
        let kept = self.modules.lock().unwrap_or_else(PoisonError::into_inner).get(file).cloned();
        let module = match kept {
            Some(module) => module,
            None => self.keep_module(file, self.compiler.cached(file, self.arch, &self.cache)?)?,
        };
        // cudarc leaves this to the caller, and the driver may load a kernel only now.
        self.context.bind_to_thread().or_fail(|| "the GPU cannot be used".to_owned())?;
        module.load_function(kernel).or_fail(|| format!("kernels/{file} has no kernel {kernel}"))
    }

    /// Loads a file's code and keeps it. What the driver refuses of the cache is compiled anew.
    fn keep_module(&self, file: &str, cached: Cached) -> Result<Arc<CudaModule>> {
        let say = |warning: Option<String>| warning.iter().for_each(|text| notice::once(text));
        say(cached.warning);
        let module = match self.load(file, cached.code) {
            Err(_) if !cached.fresh => {
                let again = self.compiler.recompiled(file, self.arch, &self.cache)?;
                say(again.warning);
                self.load(file, again.code)
            }
            loaded => loaded,
        }?;
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(modules.entry(file.to_owned()).or_insert(module).clone())
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

    /// Issues a kernel; `args[i]` points to argument i.
    ///
    /// # Safety
    /// The arguments are those that the kernel declares, and the buffers they name are as large as it takes
    /// for this grid and outlive the launch.
    ///
    /// # Errors
    /// Where the launch is refused: a bad shape, more shared memory than a block can have, an earlier failure.
    pub unsafe fn launch_function(
        &self,
        function: &CudaFunction,
        grid: Grid,
        args: &mut [*mut c_void],
    ) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        let [x, y, z] = grid.blocks;
        let stream = self.stream.cu_stream();
        // SAFETY: the caller answers for the arguments; function and stream are of this context.
        unsafe {
            result::launch_kernel(function.cu_function(), (x, y, z), (grid.threads, 1, 1), grid.shared, stream, args)
        }
    }

    /// Lets a kernel have `bytes` of dynamic shared memory.
    ///
    /// # Errors
    /// Where a block of this GPU cannot have as much.
    pub fn allow_shared(&self, function: &CudaFunction, bytes: u32) -> Result<(), DriverError> {
        if bytes <= SHARED_UNASKED {
            return Ok(());
        }
        self.context.bind_to_thread()?;
        let key = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(key, bytes as i32)
    }

    /// What copies pass through; `None` where the host has no pinned memory to give.
    fn staging(&self) -> MutexGuard<'_, Option<Staging<Pinned>>> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Pinned::new(self.stream.clone()).ok().map(Staging::new);
        }
        staging
    }

    /// Ends a recording that is still open: cudarc's `end_capture` first returns an error that an earlier drop left, and
    /// does not come to the stream.
    fn leave_capture(&self) {
        let open = |status| status != sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
        if self.stream.capture_status().is_ok_and(open) {
            let mut graph = std::ptr::null_mut();
            // SAFETY: the stream is live; a graph that comes of it is nobody else's.
            unsafe {
                let ended = sys::cuStreamEndCapture(self.stream.cu_stream(), &mut graph).result();
                if ended.is_ok() && !graph.is_null() {
                    let _ = result::graph::destroy(graph);
                }
            }
        }
    }

    fn is_pinned(&self, address: u64) -> bool {
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.range(..=address).next_back().is_some_and(|(first, bytes)| address < first + *bytes as u64)
    }

    /// The driver's word on a failure, in ours.
    fn failed(&self, doing: impl FnOnce() -> String, error: DriverError) -> Error {
        use sys::CUresult::{
            CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_FAILED,
            CUDA_ERROR_OUT_OF_MEMORY,
        };
        let hint = match error.0 {
            CUDA_ERROR_OUT_OF_MEMORY => {
                "lower the tokens of a micro-batch or the engine's KV cache, or recompute activations; `nvidia-smi` shows who else uses the GPU"
            }
            CUDA_ERROR_ECC_UNCORRECTABLE => {
                "the GPU's memory is damaged: reset or replace it; the last checkpoint is whole"
            }
            CUDA_ERROR_ILLEGAL_ADDRESS | CUDA_ERROR_LAUNCH_FAILED => {
                "a kernel has a fault: `benches/gpu/sanitize.sh` finds where; the last checkpoint is whole"
            }
            _ => "the last checkpoint is whole",
        };
        Error::new(format!("{}: {error}", doing())).hint(hint)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // cuBLASLt waits for the device that is current, whichever thread drops this.
        let _ = self.context.bind_to_thread();
        let matmul = self.matmul.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((matmul, workspace)) = matmul {
            drop(matmul);
            // SAFETY: allocated by `multiply`, which cannot run any more.
            unsafe { self.free(workspace) };
        }
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
