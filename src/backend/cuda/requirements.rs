//! What the CUDA backend needs of a machine's driver, GPU and compiler, and the words for what does not suffice.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Once;

use cudarc::driver::sys;

use super::library::Library;
use crate::error::{Context, Error, Result};

/// The oldest CUDA that a driver may support: graphs, lazy loading and the machine code that NVRTC 12 makes.
const OLDEST_DRIVER: i32 = 12_000;

/// The least compute capability, as `80`: bf16 and asynchronous copies (Ampere).
const OLDEST_GPU: i32 = 80;

/// `12.4` for 12040.
pub fn in_words(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Whether the kernels run on a GPU of this compute capability, as `90`.
pub fn suits(arch: i32) -> bool {
    arch >= OLDEST_GPU
}

/// Refuses a driver that would fail later, at a call it does not have.
///
/// # Errors
/// Older than [`OLDEST_DRIVER`].
pub fn check_driver(version: i32) -> Result<()> {
    match version >= OLDEST_DRIVER {
        true => Ok(()),
        false => Err(Error::new(format!(
            "the NVIDIA driver is too old: it supports CUDA {}, the kernels need {}",
            in_words(version),
            in_words(OLDEST_DRIVER)
        ))
        .hint("update the driver to 525 or later; device = \"cpu\" works everywhere")),
    }
}

/// Whether there is a driver of NVIDIA's on this machine.
pub fn has_driver() -> bool {
    // SAFETY: tries to load a shared library by its well-known names. cudarc panics where it is missing, so this comes first.
    unsafe { sys::is_culib_present() }
}

/// The newest CUDA version that the driver supports, as 12040.
///
/// # Errors
/// Where there is no driver.
pub fn driver_version() -> Result<i32> {
    if !has_driver() {
        return Err(Error::new("this machine has no NVIDIA driver")
            .hint("`gristmill doctor` shows what was found; device = \"cpu\" works everywhere"));
    }
    let mut version = 0;
    // SAFETY: the library is loaded and the pointer valid for the call, which works before anything is initialised.
    let told = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    told.or_fail(|| "the NVIDIA driver does not tell its version".to_owned())?;
    Ok(version)
}

/// Refuses a library of CUDA's (its version as 12040 too) that this driver (its version as 12040) is too old for: its code
/// would not load, or not run. `file` is where the loader found it, which is before any folder of wheels is looked into.
///
/// # Errors
/// The library is of a newer major version than the driver supports.
pub fn check_library(library: &Library, version: i32, driver: i32, file: Option<PathBuf>) -> Result<()> {
    if version / 1000 <= driver / 1000 {
        return Ok(());
    }
    let (name, version, supported) = (library.name(), in_words(version), in_words(driver));
    let message = format!("{name} {version} needs a newer driver: this one supports CUDA {supported}");
    let package = library.package(driver);
    let first = match file.as_deref().and_then(Path::parent) {
        Some(folder) => format!(
            "the loader finds it in {} before all others: take that folder off LD_LIBRARY_PATH and out of /etc/ld.so.conf.d, \
             and install the Python package {package}",
            folder.display()
        ),
        None => format!("install the Python package {package}"),
    };
    Err(Error::new(message).hint(format!("{first}; or update the driver")))
}

thread_local! {
    /// Whether what panics in this thread is caught and told as an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Where a library lacks a function that is called, cudarc panics: a driver or library older than it says.
///
/// # Errors
/// Those of `work`; what it panicked of, after `what`.
pub fn no_panic<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                before(panic);
            }
        }));
    });
    CAUGHT.set(true);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    CAUGHT.set(false);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let first = text.and_then(|text| text.lines().next()).unwrap_or("a library of NVIDIA's lacks a function");
        Err(Error::new(format!("{what}: {first}")).hint("update the driver; `gristmill doctor` shows what was found"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::library::NVRTC;

    #[test]
    fn a_driver_too_old_is_told_what_it_is_and_what_is_needed() {
        assert!(check_driver(12_000).is_ok() && check_driver(13_010).is_ok());
        let said = format!("{:?}", check_driver(11_080).unwrap_err());
        assert!(said.contains("supports CUDA 11.8, the kernels need 12.0") && said.contains("525"), "{said}");
    }

    #[test]
    fn an_nvrtc_newer_than_the_driver_is_refused_with_the_package_that_fits() {
        let check =
            |version, driver, file: Option<&str>| check_library(&NVRTC, version, driver, file.map(PathBuf::from));
        assert!(check(12_090, 12_040, None).is_ok() && check(12_090, 13_010, None).is_ok());
        let said = check(13_000, 12_040, None).unwrap_err().render(false);
        assert!(said.contains("NVRTC 13.0") && said.contains("CUDA 12.4") && said.contains("nvrtc-cu12"), "{said}");
        let said = check(13_000, 12_040, Some("/opt/new/libnvrtc.so.13")).unwrap_err().render(false);
        assert!(said.contains("/opt/new before") && said.contains("LD_LIBRARY_PATH"), "{said}");
    }
}
