//! The math rule on whole completions.
//!
//! `cargo bench --bench math_rule` runs criterion on completions written here and, where the
//! shared data is present, on real ones. With `GRISTMILL_PAIRS=FILE` (JSON lines of `completion`
//! and `gold`) it instead grades the file once warm and prints one JSON object: what
//! `benches/math_verify.py` calls to compare with its peer in one run.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, Throughput};
use gristmill::rule::math::{MathConfig, MathRule, equivalent};
use gristmill::rule::{Rule, Sample};
use gristmill::schema::{FinishReason, Outcome};
use serde_json::Value;

fn sample<'a>(completion: &'a str, gold: &'a str) -> Sample<'a> {
    Sample {
        prompt: "",
        completion,
        gold: Some(gold),
        verification: None,
        domain: "math",
        language: "en",
        difficulty: None,
        finish_reason: FinishReason::Stop,
        tokens: None,
        origin: Default::default(),
    }
}

fn shared(name: &str) -> Option<Vec<Value>> {
    let root = std::env::var("GRISTMILL_SHARED_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|_| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let text = std::fs::read_to_string(root.join(name)).ok()?;
    text.lines().map(|line| serde_json::from_str(line).ok()).collect()
}

/// Completions and golds of the MATH sample: eight of each of 100 problems.
fn math_sample() -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for row in shared("qwen_math_cot_100x8.jsonl")? {
        let gold = row["gt"].as_str()?.to_string();
        for completion in row["code"].as_array()? {
            pairs.push((completion.as_str()?.to_string(), gold.clone()));
        }
    }
    Some(pairs)
}

fn benches(criterion: &mut Criterion) {
    let rule = MathRule::default();
    let written = [
        ("integer in a box", r"6 \cdot 7 = 42, so the answer is \(\boxed{42}\).", "42"),
        ("announced integer", "She has 6 bags with 7 apples each.\n6 * 7 = 42\nA: 42", "42"),
        ("fraction", r"Hence $\boxed{\frac{3}{4}}$.", "0.75"),
        ("radical", r"Hence $\boxed{\frac{2}{\sqrt{2}}}$.", r"\sqrt{2}"),
        ("polynomial", r"\boxed{(x+1)(x-2)(x+3)}", "x^3+2x^2-5x-6"),
        ("trigonometric identity", r"\boxed{\cos^2 x - \sin^2 x}", r"\cos 2x"),
        ("union of intervals", r"\boxed{x < 2 \text{ or } x > 3}", r"(-\infty,2)\cup(3,\infty)"),
        ("matrix", r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"),
    ];
    let mut group = criterion.benchmark_group("check");
    for (name, completion, gold) in written {
        group.bench_function(name, |b| b.iter(|| rule.check(black_box(&sample(completion, gold)))));
    }
    group.finish();

    match math_sample() {
        Some(pairs) => {
            let mut group = criterion.benchmark_group("real");
            group.throughput(Throughput::Elements(pairs.len() as u64)).sample_size(20);
            group.bench_function("MATH sample, 800 completions", |b| {
                b.iter(|| pairs.iter().filter(|(c, g)| rule.check(&sample(c, g)).outcome == Outcome::Correct).count())
            });
            group.finish();
        }
        None => println!("shared data absent: the benchmark on real completions is skipped"),
    }

    let config = MathConfig::default();
    let mut group = criterion.benchmark_group("hostile");
    group.sample_size(10);
    for (name, text) in [
        ("tower", "10^{10^{10}}".to_string()),
        ("2,000 nested fractions", r"\frac{1}{1+".repeat(2000) + "1" + &"}".repeat(2000)),
        ("100 kB of braces", "{".repeat(100_000)),
        ("integer of 100,000 digits", "7".repeat(100_000)),
        ("factorial of 10^8", "(10^8)!+1".to_string()),
    ] {
        group.bench_function(name, |b| b.iter(|| equivalent(black_box(&text), "5", &config)));
    }
    group.finish();
}

/// Processor time of this thread in seconds: what other work on the machine takes does not count.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills; the clock is one of POSIX.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Processor seconds of one pass over the pairs, from passes over at least two seconds.
fn pass_seconds(pairs: &[(&str, &str)]) -> f64 {
    let rule = MathRule::default();
    let (start, mut passes) = (thread_seconds(), 0u32);
    while passes == 0 || thread_seconds() - start < 2.0 {
        for (completion, gold) in pairs {
            black_box(rule.check(&sample(completion, gold)));
        }
        passes += 1;
    }
    (thread_seconds() - start) / f64::from(passes)
}

/// Grades the pairs of a file, alone and on two threads at once, in processor time.
fn side_by_side(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(path)?;
    let rows: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let pairs: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["completion"].as_str().unwrap_or(""), row["gold"].as_str().unwrap_or(""))).collect();
    let rule = MathRule::default();
    let correct: Vec<bool> = pairs.iter().map(|(c, g)| rule.check(&sample(c, g)).outcome == Outcome::Correct).collect();
    let seconds = pass_seconds(&pairs);
    let of_two: f64 = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| pass_seconds(&pairs)));
        threads.into_iter().map(|thread| thread.join().unwrap_or(f64::NAN)).sum()
    });
    let mut each: Vec<f64> = pairs
        .iter()
        .map(|(completion, gold)| {
            let start = thread_seconds();
            black_box(rule.check(&sample(completion, gold)));
            thread_seconds() - start
        })
        .collect();
    each.sort_by(f64::total_cmp);
    let at = |share: f64| each.get((each.len() as f64 * share) as usize).copied().unwrap_or(0.0);
    let report = serde_json::json!({
        "rows": pairs.len(), "seconds": seconds, "per_second": pairs.len() as f64 / seconds,
        // Two threads that hinder each other in nothing do twice as much in the same time.
        "two_threads": 4.0 * seconds / of_two,
        "p50_us": at(0.5) * 1e6, "p999_us": at(0.999) * 1e6, "correct": correct,
    });
    println!("{report}");
    Ok(())
}

fn main() {
    if let Ok(path) = std::env::var("GRISTMILL_PAIRS") {
        if let Err(error) = side_by_side(&path) {
            eprintln!("{path}: {error}");
            std::process::exit(1);
        }
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
