//! NVIDIA's libraries, wherever they were installed.
//!
//! The dynamic loader is asked for them by name (`libnvrtc.so`, then `.so.13`, `.so.12`), which finds what
//! the system knows of. Python's wheels and toolkits off the loader's path lie in folders that it does not know; but a
//! library that was loaded by its path is found by its name from then on. So where the loader finds nothing, these
//! folders are looked into.

use std::ffi::{CStr, CString, OsString, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// Major versions of CUDA whose libraries the backend can use, the newest first.
const MAJORS: &[i32] = &[13, 12];

/// One of NVIDIA's libraries.
pub struct Library {
    /// What people call it.
    name: &'static str,
    /// The part of the file's name between `lib` and `.so`.
    stem: &'static str,
    /// The numbers behind `.so.`, in the order in which they are to be tried.
    versions: &'static [i32],
    /// Whether these are CUDA's, of which a driver takes its own and earlier ones.
    by_driver: bool,
    /// Beginnings of names of files beside it that it loads by name later.
    companions: &'static [&'static str],
    /// What does not work without it.
    purpose: &'static str,
    /// The Python packages that have it, for drivers of CUDA 13 and of 12.
    packages: [&'static str; 2],
    /// Whether the loader finds it by the name that it is used by.
    present: unsafe fn() -> bool,
}

/// The run-time compiler.
pub const NVRTC: Library = Library {
    name: "NVRTC",
    stem: "nvrtc",
    versions: MAJORS,
    by_driver: true,
    companions: &["libnvrtc-builtins.so."],
    purpose: "the CUDA kernels cannot be compiled",
    packages: ["nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"],
    present: cudarc::nvrtc::sys::is_culib_present,
};

/// Matrix products.
pub const CUBLASLT: Library = Library {
    name: "cuBLASLt",
    stem: "cublasLt",
    versions: MAJORS,
    by_driver: true,
    companions: &[],
    purpose: "linear layers on the GPU need it",
    packages: ["nvidia-cublas", "nvidia-cublas-cu12"],
    present: cudarc::cublaslt::sys::is_culib_present,
};

/// Copies between GPUs.
pub const NCCL: Library = Library {
    name: "NCCL",
    stem: "nccl",
    versions: &[2],
    by_driver: false,
    companions: &[],
    purpose: "training on several GPUs needs it (device = \"cuda\" takes one)",
    packages: ["nvidia-nccl-cu13", "nvidia-nccl-cu12"],
    present: || !open(Path::new("libnccl.so.2")).is_null(),
};

/// A library that is loaded.
pub struct Loaded {
    handle: *mut c_void,
    name: &'static str,
}

impl Loaded {
    /// One of its functions.
    ///
    /// # Safety
    /// `F` is the function's type, an `extern "C"` function pointer.
    ///
    /// # Errors
    /// Where it has none of this name.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let found = symbol(self.handle, name);
        if found.is_null() {
            let name = name.to_string_lossy();
            return Err(Error::new(format!("{} has no function {name}", self.name)).hint("install a newer one"));
        }
        // SAFETY: a pointer of the size of `F`, which the caller says it is.
        Ok(unsafe { std::mem::transmute_copy(&found) })
    }
}

impl Library {
    /// Loads it, for the driver of this machine if there is one.
    ///
    /// # Errors
    /// Where it is nowhere, or only in versions that the driver is too old for.
    pub fn load(&self) -> Result<()> {
        self.load_from(&folders(|key| std::env::var_os(key)), super::requirements::driver_version().ok())
    }

    /// Loads it, to call its functions.
    ///
    /// # Errors
    /// As [`Library::load`].
    pub fn open(&self) -> Result<Loaded> {
        self.load()?;
        let names = self.versions.iter().map(|version| format!("lib{}.so.{version}", self.stem));
        let handle = names.map(|name| open(Path::new(&name))).find(|handle| !handle.is_null());
        let handle = handle.ok_or_else(|| Error::new(format!("{} does not load by its name", self.name)))?;
        Ok(Loaded { handle, name: self.name })
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The Python package that has it for this driver (its version as 12040).
    pub fn package(&self, driver: i32) -> &'static str {
        self.packages[usize::from(driver < 13_000)]
    }

    /// The file that the loader took for it, which has this function; `None` where it is not loaded by its name.
    pub fn file(&self, function: &CStr) -> Option<PathBuf> {
        // In the order in which whoever calls it asks the loader.
        let numbered = self.versions.iter().map(|version| format!("lib{}.so.{version}", self.stem));
        let names = std::iter::once(format!("lib{}.so", self.stem)).chain(numbered);
        let handle = names.map(|name| open(Path::new(&name))).find(|handle| !handle.is_null())?;
        file_of(symbol(handle, function))
    }

    /// Loads it from one of these folders, unless the loader finds it by itself; `driver` is the newest CUDA that the
    /// driver supports, as 12040.
    ///
    /// # Errors
    /// As [`Library::load`].
    pub fn load_from(&self, folders: &[PathBuf], driver: Option<i32>) -> Result<()> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: tries to load a shared library by its well-known names; its initialisers are NVIDIA's.
        let is_present = || unsafe { (self.present)() };
        if is_present() {
            return Ok(());
        }
        let Found { usable, too_new } = self.look(folders, driver);
        if usable.iter().any(|path| self.load_file(path) && is_present()) {
            return Ok(());
        }
        let Library { name, stem, purpose, packages: [newer, older], .. } = self;
        let message = match (usable.first(), too_new.first(), driver) {
            (Some(path), ..) => format!("{name} does not load from {}; {purpose}", path.display()),
            (None, Some(path), Some(driver)) => format!(
                "{name} was found in {} only, which needs a newer driver than this one (CUDA {}.{}); {purpose}",
                path.display(),
                driver / 1000,
                driver % 1000 / 10
            ),
            _ => {
                let versions: Vec<String> = self.versions.iter().map(|version| format!(".{version}")).collect();
                format!("{name} (lib{stem}.so{}) was not found; {purpose}", versions.join(" or "))
            }
        };
        let package = match driver {
            Some(driver) if driver < 13_000 => (*older).to_owned(),
            _ => format!("{newer} (or {older})"),
        };
        Err(Error::new(message).hint(format!(
            "install the CUDA toolkit or the Python package {package}; a folder of your own goes on LD_LIBRARY_PATH"
        )))
    }

    /// Files of it in these folders, in the order in which they are to be tried.
    fn look(&self, folders: &[PathBuf], driver: Option<i32>) -> Found {
        let mut found = Found::default();
        for version in self.versions {
            let file = format!("lib{}.so.{version}", self.stem);
            let here = folders.iter().map(|folder| folder.join(&file)).filter(|path| path.is_file());
            match self.by_driver && driver.is_some_and(|driver| driver / 1000 < *version) {
                true => found.too_new.extend(here),
                false => found.usable.extend(here),
            }
        }
        found
    }

    /// Loads a file for good, with what lies beside it; whether that worked.
    fn load_file(&self, path: &Path) -> bool {
        let beside = path.parent().map(names).unwrap_or_default();
        let is_companion = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.companions.iter().any(|start| name.starts_with(start))
        };
        // One that does not load is missed later, by its own name.
        beside.iter().filter(is_companion).for_each(|path| {
            open(path);
        });
        !open(path).is_null()
    }
}

#[derive(Default)]
struct Found {
    usable: Vec<PathBuf>,
    /// Of a newer CUDA than the driver supports.
    too_new: Vec<PathBuf>,
}

/// Loads a library by its path or name, for good; null where that does not work.
#[cfg(unix)]
fn open(path: &Path) -> *mut c_void {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return std::ptr::null_mut() };
    // SAFETY: NVIDIA's library, by its own name, where it is installed; its initialisers set up itself. It is never closed.
    unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) }
}

#[cfg(unix)]
fn symbol(handle: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: the handle is `open`'s and was never closed.
    unsafe { libc::dlsym(handle, name.as_ptr()) }
}

/// The file that code or data was loaded from.
#[cfg(unix)]
fn file_of(address: *mut c_void) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: plain data that is valid as zeros; the call fills it in.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for.
    let is_known = unsafe { libc::dladdr(address, &mut found) } != 0 && !found.dli_fname.is_null();
    // SAFETY: the loader's own text, which lives as long as the library, and that is never closed.
    is_known.then(|| PathBuf::from(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(found.dli_fname) }.to_bytes())))
}

#[cfg(not(unix))]
fn file_of(_: *mut c_void) -> Option<PathBuf> {
    None
}

#[cfg(not(unix))]
fn open(_: &Path) -> *mut c_void {
    std::ptr::null_mut()
}

#[cfg(not(unix))]
fn symbol(_: *mut c_void, _: &CStr) -> *mut c_void {
    std::ptr::null_mut()
}

/// What a folder holds, by name; nothing if it is not there.
fn names(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// Folders where the libraries of Python's wheels and of toolkits lie: those of the environment in use first.
fn folders(var: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let paths = |key: &str| var(key).map(|list| std::env::split_paths(&list).collect::<Vec<_>>()).unwrap_or_default();
    let named = |keys: &[&str]| keys.iter().filter_map(|key| var(key)).map(PathBuf::from).collect::<Vec<_>>();
    let prefixes = named(&["VIRTUAL_ENV", "CONDA_PREFIX"]);
    let pythons = paths("PATH").into_iter().map(|bin| bin.join("python3")).filter(|python| python.exists());
    let pythons = pythons.flat_map(links).filter_map(|python| Some(python.parent()?.parent()?.to_owned()));
    let home = named(&["HOME"]).into_iter().map(|home| home.join(".local"));
    let all = prefixes.iter().cloned().chain(pythons).chain(home).chain(["/usr/local", "/usr"].map(PathBuf::from));
    let mut found = Vec::new();
    for packages in paths("PYTHONPATH").into_iter().chain(all.flat_map(|prefix| packages(&prefix))) {
        found.extend(names(&packages.join("nvidia")).into_iter().map(|package| package.join("lib")));
    }
    let mut toolkits = named(&["CUDA_HOME", "CUDA_PATH"]);
    toolkits.push("/usr/local/cuda".into());
    toolkits.extend(
        names(Path::new("/usr/local"))
            .into_iter()
            .rev()
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cuda-"))),
    );
    toolkits.push("/opt/cuda".into());
    toolkits.extend(prefixes);
    found.extend(toolkits.iter().flat_map(|kit| ["lib64", "targets/x86_64-linux/lib", "lib"].map(|lib| kit.join(lib))));
    found.retain(|folder| folder.is_dir());
    let mut seen = std::collections::HashSet::new();
    found.retain(|folder| seen.insert(folder.clone()));
    found
}

/// A path, and what it links to, one link after the other: an environment's Python is a link to another's, and may be
/// linked to itself.
fn links(path: PathBuf) -> Vec<PathBuf> {
    let mut all = vec![path];
    while let Some(target) = all.last().and_then(|path| path.read_link().ok())
        && all.len() < 8
    {
        let beside = all.last().and_then(|path| path.parent()).unwrap_or(Path::new("/"));
        all.push(beside.join(target));
    }
    all
}

/// Folders of Python packages under a prefix, the newest Python's first.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let pythons = names(&prefix.join("lib")).into_iter().rev();
    let is_python = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
    pythons
        .filter(is_python)
        .flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) -> PathBuf {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "no library").unwrap();
        path.to_owned()
    }

    #[test]
    fn wheels_of_either_major_are_found_in_the_environment_in_use_and_on_pythons_path() {
        let dir = tempfile::tempdir().unwrap();
        let site = |env: &str| dir.path().join(env).join("lib/python3.12/site-packages/nvidia");
        let new = touch(&site("new").join("cu13/lib/libnvrtc.so.13"));
        let old = touch(&site("old").join("cuda_nvrtc/lib/libnvrtc.so.12"));
        let products = touch(&site("old").join("cublas/lib/libcublasLt.so.12"));
        touch(&dir.path().join("old/bin/python3"));
        let kit = touch(&dir.path().join("kit/lib64/libnvrtc.so.12"));
        let carried = touch(&dir.path().join("carried/nvidia/cu13/lib/libcublasLt.so.13"));
        let var = |key: &str| {
            let value = match key {
                "VIRTUAL_ENV" => dir.path().join("new").into_os_string(),
                "PATH" => std::env::join_paths([dir.path().join("none"), dir.path().join("old/bin")]).unwrap(),
                "CUDA_HOME" => dir.path().join("kit").into_os_string(),
                "PYTHONPATH" => dir.path().join("carried").into_os_string(),
                _ => return None,
            };
            Some(value)
        };
        let folders = folders(var);
        let ours =
            |found: Vec<PathBuf>| found.into_iter().filter(|path| path.starts_with(dir.path())).collect::<Vec<_>>();
        let found = NVRTC.look(&folders, Some(13_000));
        assert_eq!((ours(found.usable), found.too_new.len()), (vec![new.clone(), old.clone(), kit.clone()], 0));
        let found = NVRTC.look(&folders, Some(12_080));
        assert_eq!((ours(found.usable), ours(found.too_new)), (vec![old.clone(), kit.clone()], vec![new.clone()]));
        assert_eq!(ours(NVRTC.look(&folders, None).usable), [new, old, kit]);
        assert_eq!(ours(CUBLASLT.look(&folders, None).usable), [carried, products]);
    }

    /// A library that nothing has.
    fn absent() -> Library {
        Library { name: "Absent", stem: "gristmill-absent", present: || false, ..NVRTC }
    }

    #[test]
    fn a_library_that_is_missing_broken_or_too_new_is_said_in_a_line_with_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let said = |folders: &[PathBuf], driver| {
            let error = absent().load_from(folders, driver).unwrap_err();
            assert_eq!(error.message().lines().count(), 1);
            format!("{error:?}")
        };
        let folders = [dir.path().to_owned()];
        let missing = said(&folders, None);
        assert!(missing.contains("libgristmill-absent.so.13 or .12) was not found"), "{missing}");
        assert!(missing.contains("nvidia-cuda-nvrtc (or nvidia-cuda-nvrtc-cu12)"), "{missing}");
        touch(&dir.path().join("libgristmill-absent.so.13"));
        let too_new = said(&folders, Some(12_040));
        assert!(too_new.contains("newer driver than this one (CUDA 12.4)"), "{too_new}");
        assert!(too_new.contains("nvidia-cuda-nvrtc-cu12"), "{too_new}");
        let broken = said(&folders, Some(13_000));
        assert!(broken.contains("does not load from") && broken.contains("absent.so.13"), "{broken}");
    }
}
