//! What a machine has for the CUDA backend: the body of `gristmill doctor`.
//!
//! Nothing here fails: what is missing is a line that says so and what to do.

use std::fmt;
use std::path::PathBuf;

use cudarc::driver::{result, sys};

use crate::backend::cuda::compile::{Compiler, cache_dir};
use crate::backend::cuda::kernels;
use crate::backend::cuda::library::CUBLASLT;
use crate::backend::cuda::nccl;

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub name: String,
    /// Compute capability, as `90` for 9.0.
    pub arch: i32,
    /// Bytes.
    pub memory: u64,
}

impl Gpu {
    /// Whether the kernels run on it: they need bf16 and asynchronous copies (Ampere).
    pub fn suits(&self) -> bool {
        self.arch >= 80
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The newest CUDA version that the driver supports, as `12080`; why there is none.
    pub driver: Result<i32, String>,
    pub gpus: Vec<Gpu>,
    /// NVRTC's version; why there is none.
    pub nvrtc: Result<(i32, i32), String>,
    pub cublaslt: bool,
    /// Only needed for several GPUs.
    pub nccl: bool,
    pub cache: PathBuf,
    /// Kernel files whose code for the first GPU is in the cache, of how many.
    pub compiled: (usize, usize),
}

impl Report {
    /// Whether `device = "cuda"` can work here.
    pub fn cuda_works(&self) -> bool {
        self.driver.is_ok() && self.nvrtc.is_ok() && self.cublaslt && self.gpus.iter().any(Gpu::suits)
    }
}

/// Looks at this machine.
pub fn examine() -> Report {
    let (driver, gpus) = match driver() {
        Ok((version, gpus)) => (Ok(version), gpus),
        Err(why) => (Err(why), Vec::new()),
    };
    let compiler = Compiler::load();
    let cache = cache_dir();
    let target = gpus.first().map(|gpu| format!("-sm_{}-", gpu.arch));
    let compiled = kernels::SOURCES.iter().filter(|(file, _)| {
        let stem = file.trim_end_matches(".cu");
        let prefix = target.as_ref().map(|target| format!("{stem}{target}"));
        let entries = std::fs::read_dir(&cache).into_iter().flatten().flatten();
        prefix.is_some_and(|prefix| {
            entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        })
    });
    let compiled = (compiled.count(), kernels::SOURCES.len());
    let cublaslt = CUBLASLT.load().is_ok();
    let nccl = nccl::version().is_ok();
    let nvrtc = compiler.map(|c| c.version()).map_err(|e| e.message().to_owned());
    Report { driver, gpus, nvrtc, cublaslt, nccl, cache, compiled }
}

/// The driver's CUDA version and its GPUs.
fn driver() -> Result<(i32, Vec<Gpu>), String> {
    // SAFETY: tries to load a shared library by its well-known names. cudarc panics where it is missing, so this comes first.
    if !unsafe { sys::is_culib_present() } {
        return Err("no NVIDIA driver (libcuda.so) on this machine".to_owned());
    }
    result::init().map_err(|e| format!("the NVIDIA driver does not start: {e}"))?;
    let mut version = 0;
    // SAFETY: the driver is initialised and the pointer valid for the call.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|e| format!("the NVIDIA driver does not tell its version: {e}"))?;
    let count = result::device::get_count().map_err(|e| format!("the NVIDIA driver lists no GPUs: {e}"))?;
    let gpus = (0..count).map(gpu).collect::<Result<_, _>>().map_err(|e| format!("a GPU does not answer: {e}"))?;
    Ok((version, gpus))
}

fn gpu(ordinal: i32) -> Result<Gpu, result::DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` is one that the driver has just named.
    let (major, minor, memory) = unsafe {
        (
            result::device::get_attribute(device, MAJOR)?,
            result::device::get_attribute(device, MINOR)?,
            result::device::total_mem(device)?,
        )
    };
    Ok(Gpu { name: result::device::get_name(device)?, arch: major * 10 + minor, memory: memory as u64 })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Ok(version) => writeln!(f, "driver     CUDA {}.{}", version / 1000, version % 1000 / 10)?,
            Err(why) => writeln!(f, "driver     missing: {why}")?,
        }
        for (i, gpu) in self.gpus.iter().enumerate() {
            let memory = gpu.memory as f64 / (1u64 << 30) as f64;
            let note = if gpu.suits() { "" } else { "; too old: the kernels need 8.0" };
            let Gpu { name, arch, .. } = gpu;
            writeln!(f, "gpu {i}      {name}, compute {}.{}, {memory:.1} GiB{note}", arch / 10, arch % 10)?;
        }
        match &self.nvrtc {
            Ok((major, minor)) => writeln!(f, "nvrtc      {major}.{minor}")?,
            Err(why) => writeln!(f, "nvrtc      missing: {why}")?,
        }
        writeln!(f, "cublasLt   {}", if self.cublaslt { "found" } else { "missing: linear layers need it" })?;
        writeln!(f, "nccl       {}", if self.nccl { "found" } else { "missing: needed for several GPUs only" })?;
        let (done, all) = self.compiled;
        writeln!(f, "kernels    {done} of {all} files compiled for this GPU, kept in {}", self.cache.display())?;
        write!(f, "device     {}", if self.cuda_works() { "cuda" } else { "cpu: see what is missing above" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_at_any_machine_says_something_and_does_not_fail() {
        let report = examine();
        assert_eq!(report.cuda_works(), report.to_string().ends_with("device     cuda"));
        assert_eq!(report.compiled.1, kernels::SOURCES.len());
    }

    #[test]
    fn a_card_without_bf16_is_told_so() {
        let old = Gpu { name: "Tesla T4".into(), arch: 75, memory: 16 << 30 };
        let report = Report {
            driver: Ok(12080),
            gpus: vec![old],
            nvrtc: Ok((12, 8)),
            cublaslt: true,
            nccl: false,
            cache: "cache".into(),
            compiled: (0, 14),
        };
        assert!(!report.cuda_works());
        assert!(report.to_string().contains("Tesla T4, compute 7.5, 16.0 GiB; too old: the kernels need 8.0"));
    }
}
