//! Kernels compiled by NVRTC at first use, and kept on disk.
//!
//! NVRTC is loaded at run time and needs no header of the toolkit. A card it knows
//! gets machine code (a newer toolkit's PTX would be rejected by an older driver);
//! a card newer than it gets PTX of the newest architecture it knows, which the
//! driver finishes. Files are named by a digest of everything they depend on, so
//! a cache is never stale and may be shared by versions.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::sys;

use super::kernels;
use crate::error::{Context, Error, Result};

/// What NVRTC made of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// A cubin, or PTX (which begins with its header comment and ends with a zero byte).
    pub image: Vec<u8>,
    /// Machine code for the card itself.
    pub is_cubin: bool,
    /// What the compiler said: registers, spills and shared memory of each kernel, when machine code was made.
    /// Empty when the code came from the cache.
    pub log: String,
}

/// NVRTC, once it is known to be there.
#[derive(Clone, Copy)]
pub struct Compiler {
    version: (i32, i32),
    /// The newest architecture it knows, as `80` or `90`.
    newest: i32,
    /// Whether a card's own architecture is among those it knows.
    known: fn(i32) -> bool,
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler").field("version", &self.version).field("newest", &self.newest).finish()
    }
}

/// Architectures that NVRTC compiles for, ascending.
fn supported() -> Vec<i32> {
    let mut count = 0;
    // SAFETY: the library is loaded (a Compiler exists or is being made); the pointer is valid for the call.
    if unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) } != sys::nvrtcResult::NVRTC_SUCCESS {
        return Vec::new();
    }
    let mut archs = vec![0; count.max(0) as usize];
    // SAFETY: `archs` has the room that the library asked for.
    match unsafe { sys::nvrtcGetSupportedArchs(archs.as_mut_ptr()) } {
        sys::nvrtcResult::NVRTC_SUCCESS => archs,
        _ => Vec::new(),
    }
}

impl Compiler {
    /// Loads NVRTC.
    ///
    /// # Errors
    /// Where the library is not found, or is too old to name the architectures it knows.
    pub fn load() -> Result<Self> {
        // SAFETY: loads a shared library by its well-known names; its initialisers are NVIDIA's.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::new("NVRTC (libnvrtc.so) was not found; the CUDA kernels cannot be compiled")
                .hint("install the CUDA 12 toolkit or the Python package nvidia-cuda-nvrtc-cu12, and put the folder of its libraries on LD_LIBRARY_PATH"));
        }
        let mut version = (0, 0);
        // SAFETY: the library is present; both pointers are valid for the call.
        check(unsafe { sys::nvrtcVersion(&mut version.0, &mut version.1) }, "asking NVRTC for its version")?;
        let archs = supported();
        let newest = archs.iter().copied().max().ok_or_else(|| {
            Error::new(format!("NVRTC {}.{} does not say which GPUs it knows", version.0, version.1))
                .hint("CUDA 12 or later is needed")
        })?;
        Ok(Compiler { version, newest, known: |arch| supported().contains(&arch) })
    }

    /// Major and minor version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The target that code for a card of this compute capability (as `90`) is compiled for.
    fn target(&self, arch: i32) -> (String, bool) {
        if (self.known)(arch) {
            (format!("sm_{arch}"), true)
        } else {
            (format!("compute_{}", self.newest.min(arch)), false)
        }
    }

    /// Compiles `text`, which may include the headers of [`kernels::HEADERS`].
    ///
    /// # Errors
    /// With the compiler's own log, where the source is wrong.
    pub fn compile(&self, file: &str, text: &str, arch: i32) -> Result<Code> {
        let (target, is_cubin) = self.target(arch);
        let program = Program::new(file, text)?;
        let mut options = vec![format!("--gpu-architecture={target}"), "--std=c++17".to_owned()];
        if is_cubin {
            options.push("--ptxas-options=-v".to_owned());
        }
        let options: Vec<CString> =
            options.into_iter().map(|o| CString::new(o).expect("options hold no zero byte")).collect();
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program is live, and `pointers` are as many strings as are announced.
        let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
        let log = program.log();
        if result != sys::nvrtcResult::NVRTC_SUCCESS {
            let said = log.lines().take(20).collect::<Vec<_>>().join("\n");
            return Err(Error::new(format!("kernels/{file} does not compile for {target}: {said}")));
        }
        Ok(Code { image: program.image(is_cubin)?, is_cubin, log })
    }

    /// The code of an embedded source, from the cache or freshly compiled and put there.
    ///
    /// # Errors
    /// Where there is no such source, it does not compile, or the cache cannot be written.
    pub fn cached(&self, file: &str, arch: i32, cache: &Path) -> Result<Code> {
        let text = kernels::source(file).ok_or_else(|| Error::new(format!("there is no kernels/{file}")))?;
        let (target, is_cubin) = self.target(arch);
        let path = cache.join(self.name(file, text, &target));
        if let Ok(image) = fs::read(&path)
            && !image.is_empty()
        {
            return Ok(Code { image, is_cubin, log: String::new() });
        }
        let code = self.compile(file, text, arch)?;
        write_whole(cache, &path, &code.image)?;
        Ok(code)
    }

    /// The file's name in the cache: a digest of sources, target and compiler.
    fn name(&self, file: &str, text: &str, target: &str) -> String {
        let mut hash = blake3::Hasher::new();
        let version = format!("{}.{}", self.version.0, self.version.1);
        let headers = kernels::HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
        for part in [file, text, target, &version].into_iter().chain(headers) {
            hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        let stem = file.trim_end_matches(".cu");
        format!("{stem}-{target}-{}.bin", &hash.finalize().to_hex()[..32])
    }
}

/// `$GRISTMILL_CACHE`, else the user's cache folder, else the temporary one.
pub fn cache_dir() -> PathBuf {
    let named = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    named("GRISTMILL_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|dir| dir.join("gristmill")))
        .or_else(|| named("HOME").map(|dir| dir.join(".cache/gristmill")))
        .unwrap_or_else(|| std::env::temp_dir().join("gristmill"))
        .join("kernels")
}

/// Under its name only once whole: two processes may compile the same kernel.
fn write_whole(dir: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("cannot keep compiled kernels in {}", dir.display());
    fs::create_dir_all(dir).or_fail(what)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).or_fail(what)?;
    std::io::Write::write_all(&mut file, bytes).or_fail(what)?;
    file.persist(path).or_fail(what)?;
    Ok(())
}

fn check(result: sys::nvrtcResult, doing: &str) -> Result<()> {
    match result {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(Error::new(format!("{doing}: {other:?}"))),
    }
}

/// A program of NVRTC's, destroyed with its owner.
struct Program(sys::nvrtcProgram);

impl Program {
    fn new(file: &str, text: &str) -> Result<Self> {
        let string = |s: &str| CString::new(s).or_fail(|| format!("kernels/{file} holds a zero byte"));
        let (name, source) = (string(file)?, string(text)?);
        let (mut names, mut texts) = (Vec::new(), Vec::new());
        for (name, text) in kernels::HEADERS {
            names.push(string(name)?);
            texts.push(string(text)?);
        }
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
        let (name_pointers, text_pointers) = (pointers(&names), pointers(&texts));
        let mut program = std::ptr::null_mut();
        // SAFETY: every string lives past the call, and the library copies them.
        let result = unsafe {
            sys::nvrtcCreateProgram(
                &mut program,
                source.as_ptr(),
                name.as_ptr(),
                names.len() as i32,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        };
        check(result, "giving a kernel to NVRTC")?;
        Ok(Program(program))
    }

    fn log(&self) -> String {
        let mut len = 0;
        // SAFETY: the program is live.
        if unsafe { sys::nvrtcGetProgramLogSize(self.0, &mut len) } != sys::nvrtcResult::NVRTC_SUCCESS || len == 0 {
            return String::new();
        }
        let mut log = vec![0u8; len];
        // SAFETY: `log` has the room that the library asked for.
        unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) };
        CStr::from_bytes_until_nul(&log).map(|s| s.to_string_lossy().trim().to_owned()).unwrap_or_default()
    }

    fn image(&self, is_cubin: bool) -> Result<Vec<u8>> {
        let mut len = 0;
        // SAFETY: the program is live and compiled; `len` is valid for the call.
        let sized = unsafe {
            match is_cubin {
                true => sys::nvrtcGetCUBINSize(self.0, &mut len),
                false => sys::nvrtcGetPTXSize(self.0, &mut len),
            }
        };
        check(sized, "asking NVRTC for the size of its code")?;
        let mut image = vec![0u8; len];
        // SAFETY: `image` has the room that the library asked for.
        let got = unsafe {
            match is_cubin {
                true => sys::nvrtcGetCUBIN(self.0, image.as_mut_ptr().cast()),
                false => sys::nvrtcGetPTX(self.0, image.as_mut_ptr().cast()),
            }
        };
        check(got, "asking NVRTC for its code")?;
        Ok(image)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is live and is not used again.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}
