//! Prompt preparation: deduplication and decontamination.
//!
//! `cargo bench --bench prompts` prints one run at full size (1M prompts, 10k
//! evaluation questions), then lets criterion sample smaller ones.

#[path = "prompts/full.rs"]
mod full;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use gristmill::prompts::normal::Normal;
use gristmill::prompts::{DedupConfig, Deduplicator};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // `cargo test --benches` passes --test: the full size is for `cargo bench` alone.
    if std::env::args().any(|argument| argument == "--bench") {
        full::report(1_000_000, 10_000);
    }
    sampled(&mut criterion);
    criterion.final_summary();
}

fn sampled(criterion: &mut Criterion) {
    let questions = full::questions(20_000, 1);
    let evals = full::evaluation(1_000, &questions);
    let mut group = criterion.benchmark_group("prompts");
    group.sample_size(10);
    group.throughput(Throughput::Elements(questions.len() as u64));
    group.bench_function("dedup 20k", |b| b.iter(|| full::dedup(black_box(&questions))));
    group.bench_function("decontaminate 20k x 1k", |b| b.iter(|| full::decontaminate(black_box(&questions), &evals)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("normal form", |b| b.iter(|| Normal::of(black_box(&questions[0]))));
    let dedup = Deduplicator::new(DedupConfig::default()).expect("the defaults are in range");
    group.bench_function("fingerprint", |b| {
        let text = &questions[0];
        b.iter_batched(|| Normal::of(text), |normal| dedup.fingerprint(text, &normal, None), BatchSize::SmallInput);
    });
    group.finish();
}
