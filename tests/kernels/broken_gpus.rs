//! Machines whose GPU does not work, each in its own way: the driver and the libraries are stand-ins that fail as theirs do.
//! `device = "auto"` takes the CPU and says why in a line; `device = "cuda"` is an error with the same words.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::shim::{build_library, on_host};

/// A driver with one Hopper GPU, as far as it goes before the first kernel is loaded, which it refuses.
const DRIVER: &str = r#"
#include <cstdlib>
#include <cstring>
static int number(const char* name, int otherwise) { const char* v = getenv(name); return v ? atoi(v) : otherwise; }
#define FN extern "C" int
FN cuDriverGetVersion(int* v) { *v = number("FAKE_VERSION", 13000); return 0; }
FN cuInit(unsigned) { return number("FAKE_INIT", 0); }
FN cuDeviceGetCount(int* n) { *n = 1; return 0; }
FN cuDeviceGet(int* d, int) { *d = 0; return 0; }
FN cuDeviceGetName(char* name, int, int) { strcpy(name, "Stand-in"); return 0; }
FN cuDeviceTotalMem_v2(size_t* n, int) { *n = (size_t)80 << 30; return 0; }
FN cuDevicePrimaryCtxRetain(void** c, int) { *c = (void*)1; return 0; }
FN cuDevicePrimaryCtxRelease_v2(int) { return 0; }
FN cuCtxGetCurrent(void** c) { *c = (void*)1; return 0; }
FN cuCtxSetCurrent(void*) { return 0; }
FN cuCtxSynchronize() { return 0; }
FN cuStreamSynchronize(void*) { return 0; }
FN cuStreamDestroy_v2(void*) { return 0; }
#ifndef OLDER
FN cuStreamCreate(void** s, unsigned) { *s = (void*)1; return 0; }
#endif
FN cuDeviceGetAttribute(int* x, int which, int) { *x = which == 75 ? number("FAKE_MAJOR", 9) : 0; return 0; }
FN cuModuleLoadData(void**, const void*) { return 209; }
FN cuGetErrorName(int, const char** s) { *s = "CUDA_ERROR"; return 0; }
FN cuGetErrorString(int code, const char** s) {
  *s = code == 209 ? "no kernel image is available for execution on the device" : "something else";
  return 0;
}
"#;

/// A compiler that makes code of nothing, or fails.
const NVRTC: &str = r#"
#include <cstdlib>
#include <cstring>
#define FN extern "C" int
static const char* log_of() { return getenv("FAKE_FAULT") ? "rope.cu(3): error: asm operand type\n1 error detected" : ""; }
FN nvrtcVersion(int* major, int* minor) { const char* v = getenv("FAKE_NVRTC"); *major = v ? atoi(v) : 13; *minor = 0; return 0; }
FN nvrtcGetNumSupportedArchs(int* n) { *n = 1; return 0; }
FN nvrtcGetSupportedArchs(int* a) { *a = 90; return 0; }
FN nvrtcCreateProgram(void** p, const char*, const char*, int, const char* const*, const char* const*) { *p = (void*)1; return 0; }
FN nvrtcDestroyProgram(void**) { return 0; }
FN nvrtcCompileProgram(void*, int, const char* const*) { return getenv("FAKE_FAULT") ? 6 : 0; }
FN nvrtcGetProgramLogSize(void*, size_t* n) { *n = strlen(log_of()) + 1; return 0; }
FN nvrtcGetProgramLog(void*, char* log) { strcpy(log, log_of()); return 0; }
FN nvrtcGetCUBINSize(void*, size_t* n) { *n = 8; return 0; }
FN nvrtcGetCUBIN(void*, char* code) { memset(code, 1, 8); return 0; }
"#;

/// A model of a few hundred weights, trained for a step or two.
const RECIPE: &str = r#"
name = "tiny"
device = "auto"

[stages.text]
kind = "base_text"
documents = 24
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 8, layers = 1, heads = 2, context = 128 }
corpus = "text"
format = "text"
training = { epochs = 1, batch_size = 12 }

[stages.more]
kind = "sft"
model = "base"
corpus = "text"
format = "text"
training = { epochs = 1, batch_size = 24 }
"#;

/// The folder of the libraries, variables that make them fail, and what is said.
type Case<'a> = (&'a Path, &'a [(&'a str, &'a str)], &'a str);

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(dir.path().join("tiny.toml"), RECIPE).unwrap();
        Machine { dir }
    }

    /// A folder with these libraries.
    fn folder(&self, name: &str, libraries: &[(&str, &str)]) -> PathBuf {
        let folder = self.dir.path().join(name);
        libraries.iter().for_each(|(file, text)| build_library(&folder.join(file), text));
        folder
    }

    fn run(&self, device: &str, libraries: &Path, vars: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
        for name in ["PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "PATH", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        let out = tempfile::tempdir_in(self.dir.path()).unwrap();
        command.args(["run", "tiny.toml", "--set", &format!("device={device}"), "--out"]).arg(out.path().join("run"));
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env("LD_LIBRARY_PATH", libraries);
        command.envs(vars.iter().copied()).output().unwrap()
    }
}

#[test]
fn auto_takes_the_cpu_and_says_why_in_a_line_and_cuda_is_an_error() {
    if !on_host() {
        return;
    }
    let machine = Machine::new();
    let (driver, nvrtc, products) =
        (("libcuda.so.1", DRIVER), ("libnvrtc.so.13", NVRTC), ("libcublasLt.so.13", "int nothing;"));
    let older = format!("#define OLDER\n{DRIVER}");
    let none = machine.folder("none", &[]);
    let alone = machine.folder("alone", &[driver]);
    let compiler = machine.folder("compiler", &[driver, nvrtc]);
    let whole = machine.folder("whole", &[driver, nvrtc, products]);
    let lacking = machine.folder("lacking", &[("libcuda.so.1", &older), nvrtc, products]);
    let cases: &[Case] = &[
        (&alone, &[("FAKE_VERSION", "11080")], "it supports CUDA 11.8, the kernels need 12.0"),
        (&alone, &[], "NVRTC (libnvrtc.so.13 or .12) was not found"),
        (&alone, &[("FAKE_MAJOR", "7")], "(Stand-in) has compute capability 7.0"),
        (&alone, &[("FAKE_INIT", "999")], "the NVIDIA driver does not start"),
        (&compiler, &[], "cuBLASLt (libcublasLt.so.13 or .12) was not found"),
        (&compiler, &[("FAKE_VERSION", "12040")], "NVRTC 13.0 needs a newer driver: this one supports CUDA 12.4"),
        (&whole, &[("FAKE_FAULT", "1")], "does not compile for sm_90: rope.cu(3): error: asm operand type"),
        (&whole, &[], "the NVIDIA driver does not accept the machine code of kernels/"),
        (&lacking, &[], "cuStreamCreate"),
    ];
    for (libraries, vars, words) in cases {
        let auto = machine.run("auto", libraries, vars);
        let said = String::from_utf8_lossy(&auto.stderr);
        assert!(auto.status.success(), "{words}: {said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("takes the CPU")).collect();
        assert!(lines.len() == 1 && lines[0].contains(words), "{words}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let cuda = machine.run("cuda", libraries, vars);
        let said = String::from_utf8_lossy(&cuda.stderr);
        assert!(cuda.status.code() == Some(1) && said.contains(words) && said.contains("hint:"), "{words}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    // No GPU is nothing to speak of.
    for (libraries, vars) in [(&none, &[][..]), (&alone, &[("FAKE_INIT", "100")])] {
        let auto = machine.run("auto", libraries, vars);
        let said = String::from_utf8_lossy(&auto.stderr);
        assert!(auto.status.success() && !said.contains("takes the CPU"), "{said}");
        let said = machine.run("cuda", libraries, vars).stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("no NVIDIA driver") || said.contains("the NVIDIA driver lists 0"), "{said}");
    }
}
