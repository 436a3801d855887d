//! Kernels compiled by NVRTC at first use, and kept on disk.
//!
//! NVRTC is loaded at run time and needs no header of the toolkit. A card it knows
//! gets machine code (a newer toolkit's PTX would be rejected by an older driver);
//! a card newer than it gets PTX of the newest architecture it knows, which the
//! driver finishes. Files are named by a digest of everything they depend on, so
//! a cache is never stale and may be shared by versions; they begin with a digest of
//! what they hold, so a damaged one is compiled anew.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::sys;

use super::kernels;
use super::library::NVRTC;
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

/// Code of an embedded source, and how it was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// What [`Compiler::compile`] would give; from the cache its log is empty.
    pub code: Code,
    /// Compiled now, not read.
    pub fresh: bool,
    /// What is wrong with the cache, for people.
    pub warning: Option<String>,
}

/// NVRTC, once it is known to be there.
#[derive(Clone, Debug)]
pub struct Compiler {
    version: (i32, i32),
    /// The architectures it knows, as `80` or `90`.
    archs: Vec<i32>,
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
        NVRTC.load()?;
        let mut version = (0, 0);
        // SAFETY: the library is present; both pointers are valid for the call.
        check(unsafe { sys::nvrtcVersion(&mut version.0, &mut version.1) }, "asking NVRTC for its version")?;
        let archs = supported();
        if archs.is_empty() {
            return Err(Error::new(format!("NVRTC {}.{} does not say which GPUs it knows", version.0, version.1))
                .hint("CUDA 12 or later is needed"));
        }
        Ok(Compiler { version, archs })
    }

    /// Major and minor version.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The target that code for a card of this compute capability (as `90`) is compiled for, and whether it is the card's
    /// own. A card that NVRTC does not know runs PTX of the newest architecture before it.
    ///
    /// # Errors
    /// Where it knows none before the card's.
    fn target(&self, arch: i32) -> Result<(String, bool)> {
        match self.archs.iter().copied().filter(|known| *known <= arch).max() {
            Some(known) if known == arch => Ok((format!("sm_{arch}"), true)),
            Some(known) => Ok((format!("compute_{known}"), false)),
            None => Err(Error::new(format!(
                "NVRTC {}.{} does not compile for compute capability {}.{}",
                self.version.0,
                self.version.1,
                arch / 10,
                arch % 10
            ))
            .hint("install an NVRTC of the GPU's time; `gristmill doctor` shows which is in use")),
        }
    }

    /// Compiles `text`, which may include the headers of [`kernels::HEADERS`].
    ///
    /// # Errors
    /// With the compiler's own log, where the source is wrong.
    pub fn compile(&self, file: &str, text: &str, arch: i32) -> Result<Code> {
        let (target, is_cubin) = self.target(arch)?;
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
            return Err(Error::new(format!("kernels/{file} does not compile for {target}: {said}")).hint(format!(
                "NVRTC {}.{} is in use: another version may do; device = \"cpu\" works everywhere",
                self.version.0, self.version.1
            )));
        }
        Ok(Code { image: program.image(is_cubin)?, is_cubin, log })
    }

    /// The code of an embedded source, from the cache or freshly compiled and put there. A cache that cannot be read or
    /// written, or that holds something else than was put there, costs time and a warning.
    ///
    /// # Errors
    /// Where there is no such source, or it does not compile.
    pub fn cached(&self, file: &str, arch: i32, cache: &Path) -> Result<Cached> {
        let text = kernels::source(file).ok_or_else(|| Error::new(format!("there is no kernels/{file}")))?;
        let (target, is_cubin) = self.target(arch)?;
        let path = cache.join(self.name(file, text, &target));
        let damage = match fs::read(&path) {
            Ok(bytes) => match unsealed(bytes) {
                Some(image) => {
                    let code = Code { image, is_cubin, log: String::new() };
                    return Ok(Cached { code, fresh: false, warning: None });
                }
                None => Some(format!("{} is damaged: compiled anew", path.display())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => Some(format!("{} cannot be read ({error}): compiled anew", path.display())),
        };
        let fresh = self.renew(file, text, arch, &path)?;
        Ok(Cached { warning: fresh.warning.or(damage), ..fresh })
    }

    /// The code of an embedded source, compiled whatever the cache holds, and put there.
    ///
    /// # Errors
    /// As [`Compiler::cached`].
    pub fn recompiled(&self, file: &str, arch: i32, cache: &Path) -> Result<Cached> {
        let text = kernels::source(file).ok_or_else(|| Error::new(format!("there is no kernels/{file}")))?;
        let (target, _) = self.target(arch)?;
        self.renew(file, text, arch, &cache.join(self.name(file, text, &target)))
    }

    fn renew(&self, file: &str, text: &str, arch: i32, path: &Path) -> Result<Cached> {
        let code = self.compile(file, text, arch)?;
        let warning = write_whole(path, &code.image).err().map(|error| {
            let why = std::error::Error::source(&error).map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{error}{why}: they are compiled at every start")
        });
        Ok(Cached { code, fresh: true, warning })
    }

    /// The file's name in the cache: a digest of sources, target and compiler.
    fn name(&self, file: &str, text: &str, target: &str) -> String {
        let mut hash = blake3::Hasher::new();
        // What is in the file, in its last part: files without a seal have other names.
        let version = format!("{}.{} sealed", self.version.0, self.version.1);
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

/// Bytes of the digest that a file of the cache begins with.
const SEAL: usize = 32;

/// What a file of the cache holds, if it is what was put there.
fn unsealed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let whole = bytes.len() > SEAL && blake3::hash(&bytes[SEAL..]).as_bytes()[..] == bytes[..SEAL];
    whole.then(|| bytes.split_off(SEAL))
}

/// Under its name only once whole: two processes may compile the same kernel.
fn write_whole(path: &Path, image: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let what = || format!("compiled kernels cannot be kept in {}", dir.display());
    fs::create_dir_all(dir).or_fail(what)?;
    let mut file = tempfile::NamedTempFile::new_in(dir).or_fail(what)?;
    std::io::Write::write_all(&mut file, blake3::hash(image).as_bytes()).or_fail(what)?;
    std::io::Write::write_all(&mut file, image).or_fail(what)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_gets_its_own_code_or_that_of_the_newest_architecture_before_it() {
        // As NVRTC 12.8 knows them: 100 and 120, and nothing between.
        let compiler = Compiler { version: (12, 8), archs: vec![80, 86, 89, 90, 100, 101, 120] };
        for (arch, target, is_cubin) in [
            (80, "sm_80", true),
            (90, "sm_90", true),
            (88, "compute_86", false),
            (103, "compute_101", false),
            (121, "compute_120", false),
        ] {
            assert_eq!(compiler.target(arch).unwrap(), (target.to_owned(), is_cubin));
        }
        let said = compiler.target(75).unwrap_err().to_string();
        assert!(said.contains("NVRTC 12.8 does not compile for compute capability 7.5"), "{said}");
    }
}
