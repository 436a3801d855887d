//! The GPU's own driver code on machines without a GPU: NVIDIA's libraries are stand-ins that this host plays
//! (`kernels/shim/libraries`), found and loaded as the real ones are. What is tested elsewhere over the `Driver` trait goes
//! here through `Device`: contexts, streams, pinned memory, graphs, cuBLASLt, NVRTC and NCCL, each as cudarc calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use gristmill::backend::cuda::device::Device;
use gristmill::backend::cuda::driver::{Arg, Driver, Grid, Kind, Pointer};
use gristmill::backend::{Backend, Cuda};

use crate::compile::{build_stand_in, compiler};
use crate::shim::on_host;

/// The folder of the stand-ins, built once; `None`, said aloud, where they cannot be.
pub fn libraries() -> Option<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if !on_host() {
        return None;
    }
    if !cfg!(target_os = "linux") {
        println!("skipped: the stand-ins are for Linux");
        return None;
    }
    // Kept between runs, with the kernels that were compiled for them: by what all of it is made of.
    let build = || {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = target.join(format!("stand-in-{}", shim_digest()));
        if folder.is_dir() {
            return folder;
        }
        let new = tempfile::tempdir_in(target).unwrap();
        for (source, name) in [
            ("cuda.cpp", "libcuda.so.1"),
            ("nvrtc.cpp", "libnvrtc.so.13"),
            ("cublaslt.cpp", "libcublasLt.so.13"),
            ("nccl.cpp", "libnccl.so.2"),
        ] {
            build_stand_in(source, &new.path().join(name), None);
        }
        // Another process may have been first.
        let renamed = std::fs::rename(new.path(), &folder);
        assert!(renamed.is_ok() || folder.is_dir(), "{renamed:?}");
        folder
    };
    Some(BUILT.get_or_init(build))
}

/// Of every file of the shim, and the compiler's name.
fn shim_digest() -> String {
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let mut all = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/shim"));
    all.sort();
    let mut hash = blake3::Hasher::new();
    hash.update(compiler().unwrap_or_default().as_bytes());
    for path in all {
        hash.update(path.to_string_lossy().as_bytes()).update(&std::fs::read(path).unwrap());
    }
    hash.finalize().to_hex()[..16].to_owned()
}

/// A command that finds the stand-ins and no other library of NVIDIA's, with a cache of kernels of its own.
pub fn command(program: &str, libraries: &Path) -> Command {
    let mut command = Command::new(program);
    for name in ["PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command.env("LD_LIBRARY_PATH", libraries).env("GRISTMILL_CACHE", libraries.join("cache"));
    if let Some(compiler) = compiler() {
        command.env("STANDIN_CXX", compiler);
    }
    command
}

/// Tests of this executable in a process of their own, whose GPUs are stand-ins.
fn tests(libraries: &Path, filters: &[&str], vars: &[(&str, &str)]) -> Output {
    let exe = std::env::current_exe().unwrap();
    let mut command = command(exe.to_str().unwrap(), libraries);
    command.env("GRISTMILL_TEST_DEVICE", "cuda").args(["--test-threads", "1", "--include-ignored"]).args(filters);
    command.envs(vars.iter().copied()).output().unwrap()
}

#[track_caller]
fn pass(output: &Output, at_least: usize) {
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = said.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && passed.is_some_and(|passed| passed >= at_least), "{said}\n{error}");
}

/// Filters of the tests that the queue's first script runs on a card.
fn queued(part: &str) -> Vec<&'static str> {
    let script = include_str!("../../benches/gpu/op_parity.sh");
    let line = script.lines().find(|line| line.starts_with("tests ") && line.contains(part));
    let line = line.unwrap_or_else(|| panic!("op_parity.sh has no part {part}"));
    line.split_whitespace().filter(|word| word.ends_with("::")).collect()
}

#[test]
fn a_machine_with_the_stand_ins_has_a_gpu_by_gristmills_own_word() {
    let Some(libraries) = libraries() else { return };
    let output =
        command(env!("CARGO_BIN_EXE_gristmill"), libraries).arg("doctor").env("STANDIN_GPUS", "2").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "driver     CUDA 13.0",
        "gpu 1      Stand-in, compute 9.0, 4.0 GiB",
        "nvrtc      13.0",
        "cublasLt   found",
        "nccl       found",
        "device     cuda",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
}

#[test]
fn what_a_card_is_asked_first_is_answered() {
    let Some(libraries) = libraries() else { return };
    for (part, count) in [("opening the device", 6), ("products", 2)] {
        pass(&tests(libraries, &queued(part), &[]), count);
    }
    pass(&tests(libraries, &["recording::"], &[]), 6);
}

#[test]
fn several_gpus_exchange_by_nccl() {
    let Some(libraries) = libraries() else { return };
    pass(&tests(libraries, &queued("several GPUs"), &[("STANDIN_GPUS", "3")]), 4);
}

#[test]
fn the_rest_of_the_queues_first_script_passes() {
    if std::env::var_os("GRISTMILL_SLOW_TESTS").is_none_or(|value| value != "1") {
        println!("skipped: it takes minutes (GRISTMILL_SLOW_TESTS=1 runs it)");
        return;
    }
    let Some(libraries) = libraries() else { return };
    for (part, count) in [("\"kernels\"", 20), ("operations", 15), ("models", 10), ("the benches", 8)] {
        pass(&tests(libraries, &queued(part), &[]), count);
    }
}

#[test]
fn mistakes_that_a_driver_alone_would_see_are_seen() {
    let Some(libraries) = libraries() else { return };
    pass(&tests(libraries, &["stand_in::on_a_card"], &[]), 7);
    // Memory of a GPU is not the host's.
    let output = tests(libraries, &["stand_in::reads_what_is_not_the_hosts"], &[]);
    assert!(output.status.code().is_none(), "{output:?}");
}

#[test]
fn a_failure_lasts_and_says_what_it_was() {
    let Some(libraries) = libraries() else { return };
    for (fault, words) in
        [("publish:3:214", "uncorrectable ECC error"), ("publish:3:719", "unspecified launch failure")]
    {
        pass(
            &tests(libraries, &["stand_in::fails_for_good"], &[("STANDIN_FAULT", fault), ("STANDIN_WORDS", words)]),
            1,
        );
    }
}

/// A base model of a few hundred weights, reinforcement learning on it, and its evaluation.
pub const RECIPE: &str = r#"
name = "tiny"
device = "cuda"

[stages.text]
kind = "base_text"
documents = 24
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 8, layers = 1, heads = 2, context = 128 }
corpus = "text"
format = "text"
training = { epochs = 2, batch_size = 12 }
checkpoints = { every = 1, keep = 2 }

[stages.prompts]
procedural = [{ count = 6, mix = [{ name = "mini_mix", levels = [2] }] }]

[stages.zero]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "r1_mini_zero"
group_size = 4
sampling = { max_tokens = 10 }
training = { steps = 2, prompts_per_rollout = 2 }
checkpoints = { every = 1, keep = 2 }
"#;

/// A run of the recipe in a folder.
struct Run {
    dir: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::write(dir.path().join("tiny.toml"), RECIPE).unwrap();
        Run { dir }
    }

    fn go(&self, libraries: &Path, settings: &[&str], vars: &[(&str, &str)]) -> Output {
        let mut command = command(env!("CARGO_BIN_EXE_gristmill"), libraries);
        command.args(["run", "tiny.toml", "--out", "run"]).args(settings.iter().flat_map(|set| ["--set", set]));
        command.current_dir(self.dir.path()).envs(vars.iter().copied()).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, libraries: &Path, settings: &[&str], vars: &[(&str, &str)]) {
        let output = self.go(libraries, settings, vars);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The weights that a stage ended with.
    fn weights(&self, stage: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join("run").join(stage).join("model/model.safetensors")).unwrap()
    }
}

#[test]
fn a_recipe_runs_on_the_gpu_with_the_same_bytes_again_and_whatever_happens_on_the_way() {
    let Some(libraries) = libraries() else { return };
    let whole = Run::new();
    whole.succeeds(libraries, &[], &[]);
    // An update of the first training stage, and a draw of the second; the run goes on from the last checkpoint.
    for (fault, words) in [("adamw:20:214", "uncorrectable ECC error"), ("sample:5:700", "illegal memory access")] {
        let broken = Run::new();
        let output = broken.go(libraries, &[], &[("STANDIN_FAULT", fault)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
        assert!(said.contains("the last checkpoint is whole") && !said.contains("panicked"), "{said}");
        broken.succeeds(libraries, &[], &[]);
        for stage in ["2_base", "4_zero"] {
            assert!(broken.weights(stage) == whole.weights(stage), "{fault}: {stage}");
        }
    }
    // A GPU without enough memory is an error before anything is trained.
    let small = Run::new();
    let output = small.go(libraries, &[], &[("STANDIN_MEMORY", "1000000")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("GiB") && said.contains("hint:"), "{said}");
}

#[test]
fn a_library_that_is_too_new_for_the_driver_is_told_with_its_folder() {
    let Some(libraries) = libraries() else { return };
    let old = ("STANDIN_CUDA", "12040");
    for (vars, name) in [(vec![old], "NVRTC"), (vec![old, ("STANDIN_NVRTC", "12")], "cuBLASLt")] {
        let output = Run::new().go(libraries, &[], &vars);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && said.contains(&format!("{name} 13.0 needs a newer driver")),
            "{said}"
        );
        let words = format!("finds it in {} before all others", libraries.display());
        assert!(said.contains(&words) && said.contains("LD_LIBRARY_PATH"), "{said}");
    }
}

#[test]
fn a_recipe_runs_on_several_gpus() {
    let Some(libraries) = libraries() else { return };
    let (two, again) = (Run::new(), Run::new());
    for run in [&two, &again] {
        run.succeeds(libraries, &["device=cuda:all"], &[("STANDIN_GPUS", "2")]);
    }
    for stage in ["2_base", "4_zero"] {
        assert!(two.weights(stage) == again.weights(stage), "{stage}");
    }
}

#[test]
fn a_gpu_that_fails_ends_what_the_others_wait_for() {
    let Some(libraries) = libraries() else { return };
    let run = Run::new();
    let vars = [("STANDIN_GPUS", "2"), ("STANDIN_FAULT", "adamw:20:700")];
    let output = run.go(libraries, &["device=cuda:all"], &vars);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("illegal memory access"), "{said}");
    run.succeeds(libraries, &["device=cuda:all"], &vars[..1]);
}

// What follows runs in processes of the tests above, on stand-ins.

/// The stand-in's GPU; `None`, said aloud, elsewhere.
fn stand_in() -> Option<&'static std::sync::Arc<Device>> {
    let device = crate::gpu::device().filter(|device| device.context().name().is_ok_and(|name| name == "Stand-in"));
    if device.is_none() {
        println!("skipped: the tests of `stand_in` run this in a process of its own");
    }
    device
}

/// Launches a kernel of few arguments: a weight rounded to bf16.
fn publish(device: &Device, from: u64, to: u64, grid: Grid) -> gristmill::Result<()> {
    let pointer = |kind, address, mutable| Arg::Pointer(Pointer { kind, address, bytes: 4, mutable });
    let args = [pointer(Kind::Act, to, true), pointer(Kind::F32, from, false), Arg::U64(1)];
    // SAFETY: the stand-in checks what a GPU would not.
    unsafe { device.launch("cast.cu", "publish", grid, &args) }
}

const ONE: Grid = Grid { blocks: [1, 1, 1], threads: 256, shared: 0 };

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_long_copies_pass_through_pinned_memory_whole() {
    let Some(device) = stand_in() else { return };
    for len in [1, 65_535, 65_536, (9 << 20) + 5] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let at = device.allocate(len + 1).unwrap();
        let mut found = vec![0; len];
        // SAFETY: as many were allocated.
        unsafe {
            device.write(at + 1, &bytes).unwrap();
            device.read(at + 1, &mut found).unwrap();
            device.free(at);
        }
        assert!(found == bytes, "{len}");
    }
}

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_a_buffer_is_its_owners_again_once_it_was_written() {
    let Some(device) = stand_in() else { return };
    // One buffer for all: a driver that reads it when the copy's turn comes would find the last bytes everywhere. More
    // than the pinned memory holds.
    const LEN: usize = 40_000;
    let at = device.allocate(256 * LEN).unwrap();
    let mut bytes = vec![0; LEN];
    for i in 0..256 {
        bytes.fill(i as u8);
        // SAFETY: as many were allocated.
        unsafe { device.write(at + (i * LEN) as u64, &bytes).unwrap() };
    }
    drop(bytes);
    let mut found = vec![0; 256 * LEN];
    // SAFETY: as above.
    unsafe {
        device.read(at, &mut found).unwrap();
        device.free(at);
    }
    assert!(found.chunks(LEN).enumerate().all(|(i, bytes)| bytes.iter().all(|byte| *byte == i as u8)));
}

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_kernels_reach_pinned_memory_of_the_host() {
    let Some(device) = stand_in() else { return };
    let (from, to) = (device.allocate_host(256).unwrap(), device.allocate(256).unwrap());
    let mut found = [0u8; 2];
    // SAFETY: both were allocated above.
    unsafe {
        device.write(from, &1.5f32.to_ne_bytes()).unwrap();
        publish(device, from, to, ONE).unwrap();
        device.read(to, &mut found).unwrap();
        device.free(from);
        device.free(to);
    }
    assert_eq!(half::bf16::from_ne_bytes(found).to_f32(), 1.5);
}

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_shapes_that_no_gpu_takes_are_refused_at_the_launch() {
    let Some(device) = stand_in() else { return };
    let at = device.allocate(256).unwrap();
    for grid in [
        Grid { blocks: [1, 65_536, 1], ..ONE },
        Grid { blocks: [0, 1, 1], ..ONE },
        Grid { threads: 2048, ..ONE },
        Grid { shared: 228 << 10, ..ONE },
    ] {
        let said = publish(device, at, at, grid).unwrap_err().to_string();
        assert!(said.contains("publish cannot be launched"), "{said}");
    }
    // None of it is lasting.
    device.synchronize().unwrap();
}

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_what_cannot_be_recorded_ends_the_recording_and_the_next_works() {
    let Some(device) = stand_in() else { return };
    let at = device.allocate(256).unwrap();
    device.begin_recording().unwrap();
    assert!(device.allocate(256).is_err());
    assert!(device.end_recording().is_err());
    device.begin_recording().unwrap();
    // SAFETY: allocated above.
    unsafe { device.zero(at, 256) }.unwrap();
    let recorded = device.end_recording().unwrap();
    let mut found = [1u8; 256];
    // SAFETY: as above.
    unsafe {
        device.write(at, &found).unwrap();
        device.replay(recorded).unwrap();
        device.read(at, &mut found).unwrap();
    }
    assert_eq!(found, [0; 256]);
    device.forget(recorded);
}

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_an_allocation_that_does_not_fit_says_what_is_free() {
    let Some(device) = stand_in() else { return };
    let said = device.allocate(5 << 30).unwrap_err().to_string();
    assert!(said.contains("no 5.00 GiB more") && said.contains("of 4.00 free"), "{said}");
    device.synchronize().unwrap();
}

#[test]
#[ignore = "run by the tests above"]
fn on_a_card_that_is_another_threads_everything_works() {
    let Some(device) = stand_in() else { return };
    // Of a thread that has called nothing before.
    std::thread::spawn(|| {
        let gpu = Cuda::on(device.clone());
        gpu.probe().unwrap();
        drop(gpu.f32(3));
        gpu.finish().unwrap();
    })
    .join()
    .unwrap();
}

#[test]
#[ignore = "run by the tests above"]
fn reads_what_is_not_the_hosts() {
    let Some(device) = stand_in() else { return };
    let at = device.allocate(256).unwrap();
    // SAFETY: it is not; the process must end here.
    println!("{}", unsafe { std::ptr::read_volatile(at as *const u8) });
}

#[test]
#[ignore = "run by the tests above"]
fn fails_for_good() {
    let (Some(device), Ok(words)) = (stand_in(), std::env::var("STANDIN_WORDS")) else { return };
    let (from, to) = (device.allocate(256).unwrap(), device.allocate(256).unwrap());
    (0..4).for_each(|_| publish(device, from, to, ONE).unwrap());
    let said = device.synchronize().unwrap_err();
    assert!(said.to_string().contains(&words), "{said:?}");
    assert!(format!("{said:?}").contains("the last checkpoint is whole"), "{said:?}");
    let said = device.allocate(256).unwrap_err().to_string();
    assert!(said.contains(&words), "{said}");
    // SAFETY: allocated above; what cannot be given back is left.
    unsafe { device.free(from) };
}
