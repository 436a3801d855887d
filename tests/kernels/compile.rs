//! Kernels, and libraries that this host plays, compiled with the host's compiler.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use gristmill::backend::cuda::kernels;

use crate::shim::Act;

/// Runs a kernel by its name: grid, block, shared memory, arguments, order of the threads, room for a message.
pub type Entry = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    u32,
    *mut *mut c_void,
    u32,
    *mut c_char,
    usize,
) -> c_int;

/// A kernel source compiled for the host.
#[derive(Clone, Copy)]
pub struct Library(pub Entry);

fn include_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// A file of kernels, or another text in its place, compiled once.
pub fn library(source: &str, text: Option<&str>, act: Act) -> Library {
    static LIBRARIES: Mutex<Option<HashMap<(String, Act), Library>>> = Mutex::new(None);
    let mut libraries = LIBRARIES.lock().unwrap_or_else(|broken| broken.into_inner());
    let libraries = libraries.get_or_insert_default();
    *libraries.entry((text.unwrap_or(source).to_owned(), act)).or_insert_with(|| {
        let text = text.or_else(|| kernels::source(source)).unwrap_or_else(|| panic!("no kernels/{source}"));
        compile(source, text, act)
    })
}

/// Compiles `text`, which may include device.cuh, into a library with a table of its kernels.
pub fn compile(name: &str, text: &str, act: Act) -> Library {
    // The tensor-core passes exist for bf16 only.
    let tensor = |kernel: &&str| act == Act::F32 && (kernel.ends_with("_64") || kernel.ends_with("_128"));
    let table: String = kernels::entry_points(text)
        .filter(|kernel| !tensor(kernel))
        .map(|kernel| format!("  if (!strcmp(name, \"{kernel}\")) body = &shim::Call<&{kernel}>::run;\n"))
        .collect();
    let source = format!(
        "#include \"shim/shim.h\"\n#line 1 \"{name}\"\n{text}\n\
         extern \"C\" __attribute__((visibility(\"default\"))) int gm_launch(const char* name, const unsigned* grid, \
         const unsigned* block, unsigned shared, void** args, unsigned order, char* message, size_t len) {{\n  \
         void (*body)(void**) = nullptr;\n{table}  if (!body) {{\n    snprintf(message, len, \"no kernel %s\", name);\n    \
         return 1;\n  }}\n  return shim::launch(body, grid, block, shared, args, order, message, len);\n}}\n"
    );
    let dir = tempfile::Builder::new().prefix("kernel-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (cpp, so) = (dir.path().join("kernel.cpp"), dir.path().join("kernel.so"));
    std::fs::write(&cpp, source).unwrap();
    let mut command = Command::new(compiler().expect("callers ask for a compiler first"));
    command.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"]);
    command.args(Some(fma()).filter(|option| !option.is_empty()));
    if act == Act::F32 {
        command.arg("-DACT_F32");
    }
    let output = command.arg("-I").arg(include_dir()).arg("-o").arg(&so).arg(&cpp).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let path = CString::new(so.to_str().unwrap()).unwrap();
    // SAFETY: a library that this function has just built, whose initialisers do nothing; it stays loaded.
    let entry = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!library.is_null(), "{:?}", CStr::from_ptr(libc::dlerror()));
        let entry = libc::dlsym(library, c"gm_launch".as_ptr());
        assert!(!entry.is_null());
        std::mem::transmute::<*mut c_void, Entry>(entry)
    };
    Library(entry)
}

/// Builds a shared library of this C++ text, which is found by its file's name once it is loaded.
pub fn build_library(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let source = path.with_extension("cpp");
    std::fs::write(&source, text).unwrap();
    link(path, &source, &[]);
}

/// Builds a library of NVIDIA's that this host plays, of `kernels/shim/libraries`; `define` names a variant of it.
pub fn build_stand_in(source: &str, path: &Path, define: Option<&str>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let include = format!("-DSHIM_INCLUDE=\"{}\"", include_dir().display());
    let fma = format!("-DFMA=\"{} \"", fma());
    let define = format!("-D{}", define.unwrap_or("WHOLE"));
    let options = ["-std=c++17", "-O2", "-fvisibility=hidden", &include, &fma, &define];
    link(path, &include_dir().join("shim/libraries").join(source), &options);
}

fn link(path: &Path, source: &Path, options: &[&str]) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut command = Command::new(compiler().expect("callers ask for a compiler first"));
    command.args(["-shared", "-fPIC"]).arg(format!("-Wl,-soname,{name}")).args(options);
    let output = command.arg("-o").arg(path).arg(source).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The host compiler's option for fused multiply-add in one instruction, where this machine has it.
fn fma() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") {
        return "-mfma";
    }
    ""
}

/// The C++ compiler, if there is one.
pub fn compiler() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let find = || {
        let named = std::env::var("CXX").ok();
        let names = named.into_iter().chain(["g++", "clang++", "c++"].map(String::from));
        names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()))
    };
    FOUND.get_or_init(find).as_deref()
}
