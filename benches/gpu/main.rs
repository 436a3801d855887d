//! The CUDA backend's speed on a card, for `benches/gpu/bench.sh`; without one, a line that says so and status 69.
//!
//! `cargo bench --bench gpu -- WORK [SIZE]`, on random weights of Qwen2.5's shape (0.5B, 1.5B, 3B). The works:
//!
//! - `kernels`   what the card copies a second, then every kernel and product of a training step by itself
//! - `train`     training steps: forward, backward, AdamW
//! - `scoring`   log-probabilities of 16,384 tokens, and the memory that takes
//! - `decode`    256 sequences at once, and the bytes that their steps must read
//! - `grpo`      whole steps of GRPO, rollouts included
//!
//! Several works are done one after the other. One JSON object a line, as soon as it is there: what was counted (`unit`,
//! `amount`) and the seconds of each run. `benches/gpu/results.py` makes the table of it.

mod suite;

use std::sync::Arc;

use gristmill::Result;
use gristmill::backend::cuda::device::Device;
use serde_json::json;
use suite::{Card, Scale, Shape};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_size = |arg: &&String| Shape::named(arg).is_ok();
    let size = args.iter().find(is_size).map_or("0.5B", String::as_str);
    let works: Vec<&str> = args.iter().filter(|arg| !is_size(arg)).map(String::as_str).collect();
    let works = if works.is_empty() { vec!["train"] } else { works };
    if let Err(error) = suite::check(&works) {
        fail(&error);
    }
    let device = match Device::open(0) {
        Ok(device) => Arc::new(device),
        Err(error) => {
            println!("not run: {}", error.with_cause());
            std::process::exit(NOT_RUN);
        }
    };
    if let Err(error) = bench(device, &works, size) {
        fail(&error);
    }
}

/// The status that the queue takes for "not run" (EX_UNAVAILABLE).
const NOT_RUN: i32 = 69;

fn fail(error: &gristmill::Error) -> ! {
    eprintln!("{}", error.render(false));
    std::process::exit(error.exit_code().into());
}

fn bench(device: Arc<Device>, works: &[&str], size: &str) -> Result<()> {
    let card = Card::new(device.clone());
    card.gpu().probe()?;
    let (_, memory) = card.gpu().memory()?;
    let name = device.context().name().unwrap_or_else(|_| "a GPU that does not tell its name".to_owned());
    println!("{}", json!({ "bench": "device", "name": name, "memory": memory, "arch": device.arch() }));
    let scale = Scale::full();
    let mut print = |figure: suite::Figure| println!("{}", figure.line());
    if works.contains(&"kernels") {
        print(suite::copy::bandwidth(&device, &scale)?);
    }
    suite::run(&card, works, &Shape::named(size)?, &scale, &mut print)
}
