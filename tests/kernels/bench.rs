//! What `benches/gpu` measures, at sizes of a few tokens over a device that is the host, or on the GPU where one was asked
//! for: every part of it runs, and counts what it says. And the table that is made of the figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use gristmill::Result;
use gristmill::backend::Heads;
use gristmill::backend::cuda::driver::{Arg, Driver, Grid, Pointer};
use gristmill::backend::cuda::matmul::Product;
use serde_json::{Value, json};

use crate::benches::suite::shapes::{Decoding, Grpo};
use crate::benches::suite::{Card, Scale, Shape, WORKS, copy, run};
use crate::gpu;
use crate::host::Host;
use crate::shim::on_host;

fn shape() -> Shape {
    let heads = Heads { query: 2, kv: 1, dim: 64 };
    Shape { name: "tiny".to_owned(), hidden: 64, ff: 96, layers: 2, heads, vocab: 110 }
}

fn scale() -> Scale {
    Scale {
        runs: 2,
        run_seconds: 0.0,
        copied: 1 << 20,
        rotated: 1,
        context: 64,
        rows: 64,
        length: 32,
        steps: 1,
        scored: 32,
        tile: (10, 24),
        attended: 32,
        square: 16,
        prompts: (2, 20),
        decode: Decoding { sequences: 3, prompt: 5, tokens: 4 },
        grpo: Grpo { prompts: 2, group: 4, prompt: 5, tokens: 6, steps: 1 },
    }
}

/// The last figure of each name, and what each kernel was first launched with.
type Found = (BTreeMap<String, Value>, BTreeMap<&'static str, Vec<Pointer>>);

/// Runs works; `None`, said aloud, where there is neither a GPU nor a compiler.
fn found(works: &[&str]) -> Option<Found> {
    let driver: Option<Arc<dyn Driver>> = match gpu::device() {
        Some(device) => Some(device.clone()),
        None => on_host().then(|| Arc::new(Host::default()) as Arc<dyn Driver>),
    };
    driver.map(|driver| {
        let spy = Arc::new(Spy { driver, seen: Mutex::default() });
        let card = Card::new(spy.clone());
        let mut figures = BTreeMap::new();
        run(&card, works, &shape(), &scale(), &mut |figure| {
            let line: Value = serde_json::from_str(&figure.line()).unwrap();
            assert!(figure.seconds.iter().all(|s| *s > 0.0 && s.is_finite()), "{line}");
            let of = if figure.bench.starts_with("attention") { &figure.size[..] } else { "" };
            figures.insert(format!("{} {of}", figure.bench).trim().to_owned(), line);
        })
        .unwrap();
        let seen = std::mem::take(&mut *spy.seen.lock().unwrap());
        (figures, seen)
    })
}

/// Every kernel by itself.
fn kernels() -> Option<&'static Found> {
    static FOUND: OnceLock<Option<Found>> = OnceLock::new();
    FOUND.get_or_init(|| found(&["kernels"])).as_ref()
}

/// Passes everything on and remembers the pointers of each kernel's first launch.
struct Spy {
    driver: Arc<dyn Driver>,
    seen: Mutex<BTreeMap<&'static str, Vec<Pointer>>>,
}

#[test]
fn bytes_are_those_of_what_a_kernel_is_handed() {
    let Some((figures, seen)) = kernels() else { return };
    let amount = |bench: &str| figures[bench]["amount"].as_f64().unwrap() as usize;
    // Memory that a kernel is handed, once for each pointer; of `twice` it is both read and written.
    let handed = |kernel: &str, twice: &[usize]| -> usize {
        let bytes = |(i, pointer): (usize, &Pointer)| pointer.bytes * if twice.contains(&i) { 2 } else { 1 };
        seen[kernel].iter().enumerate().map(bytes).sum()
    };
    for (bench, kernel, twice) in [
        ("rms_norm", "rms_norm", &[][..]),
        ("add_rms_norm", "add_rms_norm", &[]),
        ("swiglu", "swiglu", &[]),
        ("swiglu_backward", "swiglu_backward", &[]),
        ("cast", "publish", &[]),
        ("adamw", "adamw", &[0, 2, 3]),
        ("cross-entropy backward", "head_seed", &[]),
    ] {
        assert_eq!(amount(bench), handed(kernel, twice), "{bench}");
    }
    // Without what its two launches hand to each other; with dweight, which the second one adds to.
    let pointers = &seen["rms_norm_backward"];
    let partial = pointers.last().unwrap().bytes;
    assert_eq!(amount("rms_norm_backward"), handed("rms_norm_backward", &[4]) - partial + 2 * 4 * shape().hidden);
    // Values are not turned: a third of the row here, of heads 2 + 2 · 1.
    let (qkv, rest) = (seen["rope"][0].bytes, seen["rope"][1].bytes);
    assert_eq!(amount("rope"), 2 * qkv * 3 / 4 + rest + 4 * scale().length * 64);
    assert_eq!(amount("rope"), amount("rope_backward"));
    // Nobody needs the logits' state but the target's logit of it.
    let (rows, columns) = scale().tile;
    assert_eq!(amount("cross-entropy forward"), 4 * rows * columns + 24 * rows);
    // All 64 tokens are different ones of 110.
    assert_eq!(amount("embed"), 2 * 2 * 64 * 64 + 4 * 64);
    assert_eq!(amount("embed_backward"), (2 + 8) * 64 * 64 + 4 * 64);
}

#[test]
fn multiplications_are_counted_as_the_papers_do() {
    let Some((figures, _)) = kernels() else { return };
    let amount = |bench: &str| figures[bench]["amount"].as_f64().unwrap();
    // FlashAttention-2, section 4.1: 4 · T² · dim · heads, half of it if causal; two and a half times that backwards.
    let heads = "heads 12/2 of 128, 2 x 32 causal";
    let forward = 2.0 * 4.0 * 32.0 * 32.0 * 128.0 * 12.0 / 2.0;
    assert_eq!(amount(&format!("attention forward {heads}")), forward);
    assert_eq!(amount(&format!("attention backward {heads}")), 2.5 * forward);
    assert_eq!(amount("head forward"), 2.0 * 64.0 * 110.0 * 64.0);
    assert_eq!(amount("head backward"), 6.0 * 64.0 * 110.0 * 64.0);
    assert_eq!(amount("head backward of kept logits"), 4.0 * 64.0 * 110.0 * 64.0);
    assert_eq!(amount("product"), 2.0 * 16.0 * 16.0 * 16.0);
    // Three products of 2 flops for each weight of a layer's matrices and each token.
    let weights = 256 * 64 + 64 * 128 + 2 * 96 * 64 + 64 * 96;
    assert_eq!(amount("products of a step"), (3 * 2 * 2 * 64 * weights) as f64);
}

#[test]
fn models_train_score_decode_and_do_whole_steps() {
    let Some((figures, _)) = found(&WORKS.into_iter().filter(|work| *work != "kernels").collect::<Vec<_>>()) else {
        return;
    };
    assert_eq!(figures["train"]["amount"], json!(64.0));
    assert_eq!(figures["train"]["seconds"].as_array().unwrap().len(), 2);
    // Weights in bf16, norms and biases in f32, four times; and 6 to 9 tokens of three sequences, each of 2 · 2 · 64
    // values in bf16 in two layers.
    let matrices = 110 * 64 + 2 * (256 * 64 + 64 * 128 + 2 * 96 * 64 + 64 * 96);
    let vectors = 64 + 2 * (2 * 64 + 256);
    let cached = 3 * (6 + 7 + 8 + 9) * 2 * 2 * 64 * 2;
    assert_eq!(figures["decode"]["bytes"], json!(4 * (2 * matrices + 4 * vectors) + cached));
    assert_eq!(figures["decode"]["amount"], json!(12.0));
    assert_eq!(figures["prefill"]["amount"], json!(40.0));

    let taken = |bench: &str| figures[bench]["allocated_bytes"].as_u64().unwrap();
    let head = taken("scoring, head alone");
    assert!(head >= 4 * 64 * (3 + 110), "a tile of logits, and log-probability, entropy and lse of each row: {head}");
    assert!(taken("scoring") > 2 * 32 * 64 * 2, "a residual stream of each layer: {}", taken("scoring"));

    let step = &figures["grpo"];
    assert_eq!((step["completion_tokens"].as_f64(), &step["updated"]), (Some(6.0), &json!(true)), "{step}");
    assert!(figures.contains_key("grpo, first step"));
}

#[test]
fn the_card_copies() {
    let Some(device) = gpu::device() else { return println!("skipped without a GPU") };
    let figure = copy::bandwidth(device, &scale()).unwrap();
    assert_eq!((figure.amount, figure.seconds.len()), ((2 << 20) as f64, 2));
    assert!(figure.seconds.iter().all(|s| *s > 0.0));
}

#[test]
fn a_bench_that_is_none_is_refused_before_anything_runs() {
    let card = Card::new(Arc::new(Host::default()));
    let error = run(&card, &["train", "trian"], &shape(), &scale(), &mut |_| panic!("it ran")).unwrap_err();
    assert!(error.to_string().contains("trian") && error.exit_code() == 2, "{error}");
    assert!(Shape::named("7B").is_err() && Shape::named("1.5B").unwrap().config(64).is_ok());
}

/// The folder of the scripts; `None`, said aloud, where this executable was carried to a machine without the sources.
fn scripts() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gpu");
    match folder.is_dir() {
        true => Some(folder),
        false => {
            println!("skipped: the sources are not on this machine");
            None
        }
    }
}

/// What results.py makes of these lines; `None`, said aloud, without Python or the script.
fn rendered(lines: &str) -> Option<String> {
    let scripts = scripts()?;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bench.jsonl");
    std::fs::write(&file, lines).unwrap();
    match Command::new("python3").arg(scripts.join("results.py")).arg(file).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(_) => {
            println!("skipped: there is no python3");
            None
        }
    }
}

fn line(bench: &str, size: &str, unit: &str, amount: f64, seconds: &[f64], more: Value) -> String {
    let mut line = json!({ "bench": bench, "size": size, "by": "gristmill", "unit": unit, "amount": amount,
                           "seconds": seconds });
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    format!("{line}\n")
}

#[test]
fn a_table_without_figures_says_so() {
    let Some(text) = rendered("") else { return };
    let goals: Vec<&str> = text.split("### The goals").nth(1).unwrap().lines().skip(4).collect();
    assert_eq!(goals.len(), 19);
    for goal in goals {
        assert!(goal.contains("| not run yet |") && !goal.contains("met"), "{goal}");
    }
}

#[test]
fn figures_become_rows_with_what_they_are_measured_against() {
    let none = json!({});
    let lines = [
        "== speed, 0.5B (at most 90 s)\n".to_owned(),
        "{\"bench\": \"device\", \"name\": \"NVIDIA H200\", \"memory\": 150000000000, \"arch\": 90}\n".to_owned(),
        line("copy", "1 GiB to 1 GiB", "bytes", 4e9, &[0.001, 0.0011], none.clone()),
        // A first run alone, then all of them: the last line counts.
        line("train", "0.5B", "tokens", 160_000.0, &[2.0], none.clone()),
        line("train", "0.5B", "tokens", 160_000.0, &[2.0, 0.8, 1.0], json!({ "memory_used": 1u64 << 30 })),
        line("train", "0.5B", "tokens", 80_000.0, &[1.0], json!({ "by": "torch", "version": "2.11" })),
        line("rms_norm", "16384 x 896", "bytes", 3.4e9, &[0.001], none.clone()),
        line("adamw", "8716288 weights", "bytes", 2e9, &[0.001], none.clone()),
        line("product", "8192 cubed", "flops", 8e14, &[1.0], none.clone()),
        line("attention forward", "heads 14/2 of 64, 4 x 4096 causal", "flops", 9e14, &[1.0], none.clone()),
        line("attention forward", "heads 12/2 of 128, 4 x 4096 causal", "flops", 3.3e14, &[1.0], none),
        line("decode", "0.5B", "tokens", 100_000.0, &[1.0], json!({ "bytes": 1e12 })),
        line("scoring", "0.5B", "tokens", 1e5, &[1.0], json!({ "allocated_bytes": 5e8, "device_bytes": 5.6e8 })),
        line("grpo", "0.5B", "steps", 1.0, &[10.0], json!({ "completion_tokens": 512.0 })),
        "{\"bench\": \"grpo\", \"size\": \"0.5B\", \"by\": \"trl\", \"not_run\": \"trl is not installed\"}\n"
            .to_owned(),
        line("grpo", "0.5B", "steps", 1.0, &[35.0], json!({ "by": "transformers generate", "version": "5.0" })),
        "{\"bench\": \"cut of".to_owned(),
    ]
    .concat();
    let Some(text) = rendered(&lines) else { return };
    insta::assert_snapshot!(text);
}

#[test]
fn scripts_in_python_say_that_they_cannot_run() {
    let Some(scripts) = scripts() else { return };
    for (script, size) in [("bench_torch.py", "1.5B"), ("bench_trl.py", "0.5B")] {
        // Without the packages that are installed here, whatever they are.
        let Ok(output) = Command::new("python3").args(["-S", "-E"]).arg(scripts.join(script)).arg(size).output() else {
            return println!("skipped: there is no python3");
        };
        assert_eq!(output.status.code(), Some(69), "the queue tells a bench that did not run from one that did");
        let said = String::from_utf8(output.stdout).unwrap();
        let line: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!((&line["size"], &line["not_run"]), (&json!(size), &json!("torch is not installed")));
    }
}

impl Driver for Spy {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.driver.allocate(bytes)
    }

    fn allocate_host(&self, bytes: usize) -> Result<u64> {
        self.driver.allocate_host(bytes)
    }

    unsafe fn free(&self, address: u64) {
        // SAFETY: the caller's address.
        unsafe { self.driver.free(address) };
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller's range.
        unsafe { self.driver.write(to, bytes) }
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: the caller's range.
        unsafe { self.driver.read(from, bytes) }
    }

    unsafe fn zero(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: the caller's range.
        unsafe { self.driver.zero(at, bytes) }
    }

    unsafe fn launch(&self, file: &str, name: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let pointers = args.iter().filter_map(|arg| match arg {
            Arg::Pointer(pointer) if pointer.address != 0 => Some(*pointer),
            _ => None,
        });
        self.seen.lock().unwrap().entry(name).or_insert_with(|| pointers.collect());
        // SAFETY: the caller's arguments.
        unsafe { self.driver.launch(file, name, grid, args) }
    }

    unsafe fn multiply(&self, product: &Product, a: u64, b: u64, c: u64) -> Result<bool> {
        // SAFETY: the caller's addresses.
        unsafe { self.driver.multiply(product, a, b, c) }
    }

    fn begin_recording(&self) -> Result<()> {
        self.driver.begin_recording()
    }

    fn end_recording(&self) -> Result<u64> {
        self.driver.end_recording()
    }

    unsafe fn replay(&self, recorded: u64) -> Result<()> {
        // SAFETY: the caller's recording.
        unsafe { self.driver.replay(recorded) }
    }

    fn forget(&self, recorded: u64) {
        self.driver.forget(recorded);
    }

    fn synchronize(&self) -> Result<()> {
        self.driver.synchronize()
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.driver.memory()
    }
}
