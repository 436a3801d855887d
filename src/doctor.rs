//! What a machine has for the CUDA backend, and whether it works: the body of `gristmill doctor`.
//!
//! Nothing here fails: what is missing is a line that says so and what to do. Whether the GPU can be used is not
//! worked out from what was found: it is opened as a run opens it.

use std::fmt;
use std::path::PathBuf;

use cudarc::driver::{result, sys};

use crate::backend::Cuda;
use crate::backend::cuda::compile::{Compiler, cache_dir};
use crate::backend::cuda::kernels;
use crate::backend::cuda::library::CUBLASLT;
use crate::backend::cuda::nccl;
use crate::backend::cuda::requirements::{driver_version, has_driver, in_words, no_panic, suits};
use crate::error::{Context, Error, Result};

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The driver's name for it, such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability, as `90` for 9.0.
    pub arch: i32,
    /// Bytes.
    pub memory: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The newest CUDA version that the driver supports, as `12080`; why there is none.
    pub driver: Result<i32, String>,
    /// In the driver's order; empty where there is no driver, or it does not list them.
    pub gpus: Vec<Gpu>,
    /// NVRTC's version; why there is none.
    pub nvrtc: Result<(i32, i32), String>,
    /// Whether the library of matrix products was found and loads.
    pub cublaslt: bool,
    /// Only needed for several GPUs.
    pub nccl: bool,
    /// Folder of the compiled kernels, whether it is there or not.
    pub cache: PathBuf,
    /// Kernel files whose code for the first GPU is in the cache, of how many.
    pub compiled: (usize, usize),
    /// Why `device = "cuda"`, the first GPU, cannot be used; `None` where it was opened and computes.
    pub refused: Option<Error>,
}

/// Looks at this machine. The first GPU is opened, so kernels that are not in the cache are compiled.
pub fn examine() -> Report {
    let refused = Cuda::open(0).err();
    let driver = match has_driver() {
        true => driver_version().map_err(|e| e.with_cause()),
        false => Err("no NVIDIA driver (libcuda.so) on this machine".to_owned()),
    };
    // Where they cannot be listed the GPU cannot be opened either, and that says why.
    let gpus =
        if driver.is_ok() { no_panic("the GPUs cannot be listed", gpus).unwrap_or_default() } else { Vec::new() };
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
    Report { driver, gpus, nvrtc, cublaslt, nccl, cache, compiled, refused }
}

/// The GPUs that the driver lists.
fn gpus() -> Result<Vec<Gpu>> {
    result::init().or_fail(|| "the NVIDIA driver does not start".to_owned())?;
    let count = result::device::get_count().or_fail(|| "the NVIDIA driver lists no GPUs".to_owned())?;
    (0..count).map(|ordinal| gpu(ordinal).or_fail(|| format!("GPU {ordinal} does not answer"))).collect()
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
            Ok(version) => writeln!(f, "driver     CUDA {}", in_words(*version))?,
            Err(why) => writeln!(f, "driver     missing: {why}")?,
        }
        for (i, gpu) in self.gpus.iter().enumerate() {
            let memory = gpu.memory as f64 / (1u64 << 30) as f64;
            let note = if suits(gpu.arch) { "" } else { "; too old: the kernels need 8.0" };
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
        match &self.refused {
            None => write!(f, "device     cuda"),
            Some(error) => write!(f, "device     cpu: {}", error.with_cause()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            refused: Some(Error::new("GPU 0 (Tesla T4) has compute capability 7.5")),
        };
        let said = report.to_string();
        assert!(said.contains("Tesla T4, compute 7.5, 16.0 GiB; too old: the kernels need 8.0"), "{said}");
        assert!(said.ends_with("device     cpu: GPU 0 (Tesla T4) has compute capability 7.5"), "{said}");
    }
}
