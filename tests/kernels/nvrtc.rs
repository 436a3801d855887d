//! Every kernel compiles to machine code for Ampere and Hopper, and the hot ones keep their registers.
//!
//! The compiler comes from PyPI (`nvrtc.sh`); where it cannot be installed, the
//! tests say so and stop. It is used through the crate's own `compile` module,
//! so what is tested is what a GPU machine runs.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gristmill::backend::cuda::compile::Compiler;
use gristmill::backend::cuda::kernels;
use gristmill::backend::cuda::library::NVRTC;

/// Ampere (A100) and Hopper (H100).
const ARCHS: [i32; 2] = [80, 90];

/// Names the CUDA version (12 or 13) whose compiler this process loads: a process has one.
const VERSION: &str = "GRISTMILL_TEST_NVRTC";

/// The compiler, installed if need be; `None`, said aloud, where that is not possible.
fn compiler() -> Option<Compiler> {
    static FOUND: OnceLock<Option<Compiler>> = OnceLock::new();
    let find = || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/nvrtc.sh");
        let version = std::env::var(VERSION).unwrap_or("12".into());
        let output = match Command::new("bash").arg(script).arg(version).output() {
            Ok(output) if output.status.success() => output,
            Ok(output) => {
                println!("skipped: no NVRTC: {}", String::from_utf8_lossy(&output.stderr).trim());
                return None;
            }
            Err(error) => {
                println!("skipped: no NVRTC: {error}");
                return None;
            }
        };
        let dir = String::from_utf8(output.stdout).unwrap();
        // Where the loader has another, that one compiles; the snapshot is this one's.
        NVRTC.load_from(&[PathBuf::from(dir.trim())], None).unwrap();
        Some(Compiler::load().unwrap())
    };
    FOUND.get_or_init(find).clone()
}

/// What ptxas says of one kernel.
#[derive(Debug, Default, PartialEq)]
struct Usage {
    kernel: String,
    registers: u32,
    spills: u32,
    stack: u32,
}

/// The number before `unit` in a line of the report.
fn number(line: &str, unit: &str) -> u32 {
    let before = line.split_once(unit).unwrap_or_else(|| panic!("no {unit:?} in {line:?}")).0;
    before.rsplit(|c: char| !c.is_ascii_digit()).find(|s| !s.is_empty()).unwrap().parse().unwrap()
}

fn usages(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            found.push(Usage { kernel: rest.split('\'').next().unwrap().to_owned(), ..Usage::default() });
        } else if let Some(usage) = found.last_mut() {
            if line.contains("bytes stack frame") {
                usage.stack = number(line, " bytes stack frame");
                usage.spills = number(line, " bytes spill stores") + number(line, " bytes spill loads");
            } else if line.contains("Used ") {
                usage.registers = number(line, " registers");
            }
        }
    }
    found.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    found
}

#[test]
fn every_kernel_compiles_and_none_spills() {
    let Some(compiler) = compiler() else { return };
    let mut report = String::new();
    for (file, text) in kernels::SOURCES {
        for arch in ARCHS {
            let code = compiler.compile(file, text, arch).unwrap();
            assert!(code.is_cubin && code.image.starts_with(b"\x7fELF"), "{file}: machine code for sm_{arch}");
            let usages = usages(&code.log);
            let mut names: Vec<&str> = kernels::entry_points(text).collect();
            names.sort_unstable();
            assert_eq!(usages.iter().map(|u| &u.kernel[..]).collect::<Vec<_>>(), names, "{file}");
            for Usage { kernel, registers, spills, stack } in usages {
                assert_eq!(spills, 0, "{kernel} spills on sm_{arch}");
                writeln!(report, "sm_{arch} {kernel:24} {registers:3} registers {stack:3} bytes of stack").unwrap();
            }
        }
    }
    insta::assert_snapshot!("ptxas", report);
}

/// What cards of today have beside PyTorch. Its registers may differ from the snapshot's.
#[test]
fn the_compiler_of_cuda_13_spills_nothing_either() {
    if std::env::var_os(VERSION).is_none() {
        let this = ["--exact", "nvrtc::the_compiler_of_cuda_13_spills_nothing_either", "--nocapture"];
        let output = Command::new(std::env::current_exe().unwrap()).args(this).env(VERSION, "13").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return said.lines().filter(|line| line.contains("skipped")).for_each(|line| println!("{line}"));
    }
    let Some(compiler) = compiler() else { return };
    for (file, text) in kernels::SOURCES {
        let code = compiler.compile(file, text, 90).unwrap();
        let usages = usages(&code.log);
        assert_eq!(usages.len(), kernels::entry_points(text).count(), "{file}");
        for Usage { kernel, spills, .. } in usages {
            assert_eq!(spills, 0, "{kernel} spills on sm_90 by NVRTC 13");
        }
    }
}

#[test]
fn a_kernel_that_is_not_cuda_is_refused_with_its_line() {
    let Some(compiler) = compiler() else { return };
    let error = compiler.compile("wrong.cu", "#include \"device.cuh\"\nint f() { return nothing; }\n", 90).unwrap_err();
    assert!(error.message().contains("wrong.cu(2)"), "{error}");
    assert!(error.message().contains("nothing"), "{error}");
}

#[test]
fn a_kernel_that_spills_is_seen() {
    let Some(compiler) = compiler() else { return };
    let text = "extern \"C\" __global__ void __launch_bounds__(1024) wrong(float* x) { float v[96];\n\
                #pragma unroll\nfor (int i = 0; i < 96; i++) v[i] = x[i * 1024 + threadIdx.x];\n__syncthreads();\n\
                #pragma unroll\nfor (int i = 0; i < 96; i++) x[(95 - i) * 1024 + threadIdx.x] = v[i] * v[(i * 7 + 1) % 96]; }";
    let code = compiler.compile("wrong.cu", text, 80).unwrap();
    assert!(usages(&code.log)[0].spills > 0, "{}", code.log);
}

#[test]
fn a_card_newer_than_the_compiler_gets_ptx() {
    let Some(compiler) = compiler() else { return };
    let code = compiler.compile("cast.cu", kernels::source("cast.cu").unwrap(), 999).unwrap();
    let text = String::from_utf8_lossy(&code.image);
    assert!(!code.is_cubin && text.contains(".visible .entry publish"), "{}", &text[..200]);
}

#[test]
fn compiled_kernels_are_kept_and_read_back() {
    let Some(compiler) = compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    let fresh = compiler.cached("cast.cu", 90, dir.path()).unwrap();
    assert!(fresh.fresh && !fresh.code.log.is_empty() && fresh.warning.is_none());
    let again = compiler.cached("cast.cu", 90, dir.path()).unwrap();
    assert!(!again.fresh && again.code.log.is_empty() && again.warning.is_none());
    assert_eq!((fresh.code.image, fresh.code.is_cubin), (again.code.image, again.code.is_cubin));
    compiler.cached("cast.cu", 80, dir.path()).unwrap();
    let names = names(dir.path());
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("cast-sm_80-") && names[1].starts_with("cast-sm_90-"), "{names:?}");
    assert!(compiler.cached("absent.cu", 90, dir.path()).is_err());
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_cache_is_compiled_anew_with_a_warning() {
    let Some(compiler) = compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    let whole = compiler.cached("cast.cu", 90, dir.path()).unwrap().code.image;
    let path = dir.path().join(&names(dir.path())[0]);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [&b""[..], b"short", &good[..good.len() / 2], &flipped, &whole] {
        std::fs::write(&path, bad).unwrap();
        let found = compiler.cached("cast.cu", 90, dir.path()).unwrap();
        assert!(found.fresh && found.code.image == whole);
        assert!(found.warning.is_some_and(|warning| warning.contains("is damaged: compiled anew")));
        assert!(std::fs::read(&path).unwrap() == good, "and mended");
    }
    // Something that is no file, in the file's place.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let found = compiler.cached("cast.cu", 90, dir.path()).unwrap();
    assert!(found.code.image == whole && found.warning.is_some());
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let Some(compiler) = compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "in the way").unwrap();
    let found = compiler.cached("cast.cu", 90, &dir.path().join("file/kernels")).unwrap();
    let warning = found.warning.unwrap();
    assert!(found.fresh && warning.contains("cannot be kept in") && warning.lines().count() == 1, "{warning}");
}

#[test]
fn processes_that_compile_at_once_never_read_half_a_file() {
    let Some(compiler) = compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    let want = compiler.compile("cast.cu", kernels::source("cast.cu").unwrap(), 90).unwrap().image;
    std::thread::scope(|scope| {
        for writes in [true, true, false, false] {
            let (dir, want, compiler) = (dir.path(), &want, &compiler);
            scope.spawn(move || {
                for _ in 0..6 {
                    let found = match writes {
                        true => compiler.recompiled("cast.cu", 90, dir),
                        false => compiler.cached("cast.cu", 90, dir),
                    };
                    let found = found.unwrap();
                    assert!(found.code.image == *want && found.warning.is_none(), "{:?}", found.warning);
                }
            });
        }
    });
    assert_eq!(names(dir.path()).len(), 1, "nothing else is left");
}
