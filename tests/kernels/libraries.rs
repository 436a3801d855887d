//! NVIDIA's libraries where pip puts them: `gristmill doctor` in environments that have them, and in one that does not.

use std::path::Path;
use std::process::Command;

use crate::compile::build_library;
use crate::shim::on_host;

/// What `gristmill doctor` says with these variables and no others that name folders of libraries.
fn doctor(home: &Path, vars: &[(&str, &Path)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    for name in ["LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        command.env_remove(name);
    }
    let output = command.arg("doctor").env("HOME", home).envs(vars.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn line<'a>(said: &'a str, start: &str) -> &'a str {
    said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start} in {said}"))
}

/// A library that says it is NVRTC of this version.
fn nvrtc(path: &Path, major: i32) {
    let text = format!(
        "extern \"C\" int nvrtcVersion(int* major, int* minor) {{ *major = {major}; *minor = 5; return 0; }}\n\
         extern \"C\" int nvrtcGetNumSupportedArchs(int* count) {{ *count = 1; return 0; }}\n\
         extern \"C\" int nvrtcGetSupportedArchs(int* archs) {{ archs[0] = 90; return 0; }}\n"
    );
    build_library(path, &text);
}

#[test]
fn libraries_of_both_majors_are_found_where_pip_puts_them() {
    if !on_host() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let without = doctor(dir.path(), &[]);
    if !line(&without, "nvrtc").contains("missing") {
        println!("skipped: the system has NVRTC on its loader's path");
        return;
    }
    assert!(line(&without, "nvrtc").contains("libnvrtc.so.13 or .12) was not found"), "{without}");
    let site = |env: &str| dir.path().join(env).join("lib/python3.12/site-packages/nvidia");
    // CUDA 13's wheels share a folder, CUDA 12's have one each.
    nvrtc(&site("new").join("cu13/lib/libnvrtc.so.13"), 13);
    build_library(&site("new").join("cu13/lib/libcublasLt.so.13"), "int nothing;");
    nvrtc(&site("old").join("cuda_nvrtc/lib/libnvrtc.so.12"), 12);
    build_library(&site("old").join("cublas/lib/libcublasLt.so.12"), "int nothing;");
    let version = "extern \"C\" int ncclGetVersion(int* version) { *version = 22809; return 0; }\n";
    let others = [
        "ncclGetErrorString",
        "ncclCommInitAll",
        "ncclCommDestroy",
        "ncclCommAbort",
        "ncclGroupStart",
        "ncclGroupEnd",
        "ncclSend",
        "ncclRecv",
    ];
    let others: String = others.map(|name| format!("extern \"C\" int {name}() {{ return 0; }}\n")).concat();
    build_library(&site("old").join("nccl/lib/libnccl.so.2"), &format!("{version}{others}"));
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    for (vars, nvrtc, nccl) in [
        (vec![("VIRTUAL_ENV", new.as_path())], "nvrtc      13.5", "missing"),
        (vec![("CONDA_PREFIX", old.as_path())], "nvrtc      12.5", "found"),
        (vec![("PYTHONPATH", &old.join("lib/python3.12/site-packages"))], "nvrtc      12.5", "found"),
    ] {
        let said = doctor(dir.path(), &vars);
        assert_eq!(line(&said, "nvrtc"), nvrtc, "{vars:?}");
        assert_eq!(line(&said, "cublasLt"), "cublasLt   found", "{vars:?}");
        assert!(line(&said, "nccl").contains(nccl), "{vars:?}: {said}");
    }
}
