//! Machines whose GPU does not work, each in its own way: of the driver and the libraries there are stand-ins
//! (`stand_in`), some of which are missing, too old or at fault.
//! `device = "auto"` takes the CPU and says why in a line; `device = "cuda"` is an error with the same words, and so is
//! what `gristmill doctor` says of the device.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::compile::build_stand_in;
use crate::stand_in::{RECIPE, command, libraries};

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

    /// A folder with these of the stand-ins.
    fn folder(&self, name: &str, whole: &Path, files: &[&str]) -> PathBuf {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for file in files {
            std::os::unix::fs::symlink(whole.join(file), folder.join(file)).unwrap();
        }
        folder
    }

    fn run(&self, device: &str, libraries: &Path, vars: &[(&str, &str)]) -> Output {
        let out = tempfile::tempdir_in(self.dir.path()).unwrap();
        let mut command = self.command(libraries, vars);
        command.args(["run", "tiny.toml", "--set", &format!("device={device}"), "--out"]).arg(out.path().join("run"));
        command.output().unwrap()
    }

    /// What `gristmill doctor` says of the device.
    fn device(&self, libraries: &Path, vars: &[(&str, &str)]) -> String {
        let output = self.command(libraries, vars).arg("doctor").output().unwrap();
        let (said, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !error.contains("panicked"), "{said}{error}");
        let device = said.split("\ndevice     ").nth(1).unwrap_or_else(|| panic!("no device in {said}"));
        device.trim_end().to_owned()
    }

    fn command(&self, libraries: &Path, vars: &[(&str, &str)]) -> Command {
        let mut command = command(env!("CARGO_BIN_EXE_gristmill"), libraries);
        // No Python of an environment's, which may have NVIDIA's wheels; the stand-in of NVRTC needs a compiler.
        command.env("PATH", "/usr/bin:/bin").env("GRISTMILL_CACHE", self.dir.path().join("cache"));
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).envs(vars.iter().copied());
        command
    }
}

#[test]
fn auto_takes_the_cpu_and_says_why_in_a_line_and_cuda_is_an_error() {
    let Some(whole) = libraries() else { return };
    let machine = Machine::new();
    let none = machine.folder("none", whole, &[]);
    let alone = machine.folder("alone", whole, &["libcuda.so.1"]);
    let compiler = machine.folder("compiler", whole, &["libcuda.so.1", "libnvrtc.so.13"]);
    let lacking = machine.folder("lacking", whole, &["libnvrtc.so.13", "libcublasLt.so.13"]);
    build_stand_in("cuda.cpp", &lacking.join("libcuda.so.1"), Some("OLDER"));
    let cases: &[Case] = &[
        (&alone, &[("STANDIN_CUDA", "11080")], "it supports CUDA 11.8, the kernels need 12.0"),
        (&alone, &[], "NVRTC (libnvrtc.so.13 or .12) was not found"),
        (&alone, &[("STANDIN_MAJOR", "7")], "(Stand-in) has compute capability 7.0"),
        (&alone, &[("STANDIN_INIT", "999")], "the NVIDIA driver does not start"),
        (&compiler, &[], "cuBLASLt (libcublasLt.so.13 or .12) was not found"),
        (&compiler, &[("STANDIN_CUDA", "12040")], "NVRTC 13.0 needs a newer driver: this one supports CUDA 12.4"),
        (whole, &[("STANDIN_COMPILE", "1")], "does not compile for sm_90: "),
        (whole, &[("STANDIN_LOAD", "209")], "the NVIDIA driver does not accept the machine code of kernels/"),
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
        let device = machine.device(libraries, vars);
        assert!(device.starts_with("cpu: ") && device.contains(words), "{words}: {device}");
    }
    // No GPU is nothing to speak of.
    for (libraries, vars) in [(&none, &[][..]), (&alone, &[("STANDIN_INIT", "100")])] {
        let auto = machine.run("auto", libraries, vars);
        let said = String::from_utf8_lossy(&auto.stderr);
        assert!(auto.status.success() && !said.contains("takes the CPU"), "{said}");
        let said = machine.run("cuda", libraries, vars).stderr;
        let said = String::from_utf8_lossy(&said);
        let told = |said: &str| said.contains("no NVIDIA driver") || said.contains("the NVIDIA driver lists 0");
        assert!(told(&said), "{said}");
        let device = machine.device(libraries, vars);
        assert!(device.starts_with("cpu: ") && told(&device), "{device}");
    }
}
