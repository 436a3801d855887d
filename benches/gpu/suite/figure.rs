//! What one measurement found, and how time is taken.

use std::time::Instant;

use gristmill::Result;
use gristmill::backend::{Backend, Cuda};
use serde_json::{Map, Value, json};

use super::Scale;

/// What an amount counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Those that must move: each input read once, each output written once.
    Bytes,
    /// Multiplications and additions.
    Flops,
    Tokens,
    Steps,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Flops => "flops",
            Unit::Tokens => "tokens",
            Unit::Steps => "steps",
        }
    }
}

/// An amount of work, and the seconds that it took in each run.
pub struct Figure {
    pub bench: String,
    /// Of the model or of what was worked on.
    pub size: String,
    pub unit: Unit,
    pub amount: f64,
    pub seconds: Vec<f64>,
    /// What else is to be known, by name.
    pub more: Map<String, Value>,
}

impl Figure {
    pub fn new(bench: impl Into<String>, size: impl Into<String>, unit: Unit, amount: f64, seconds: Vec<f64>) -> Self {
        Figure { bench: bench.into(), size: size.into(), unit, amount, seconds, more: Map::new() }
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// One line of JSON.
    pub fn line(&self) -> String {
        let mut line = json!({
            "bench": self.bench, "size": self.size, "by": "gristmill", "unit": self.unit.name(),
            "amount": self.amount, "seconds": self.seconds,
        });
        line.as_object_mut().expect("the literal is an object").extend(self.more.clone());
        line.to_string()
    }
}

/// Seconds of one call of `work`, in each run: it is warmed up, then issued as often as makes a run long enough, and
/// waited for at the end of each run.
pub fn time(gpu: &Cuda, scale: &Scale, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut run = |calls: usize| -> Result<f64> {
        gpu.finish()?;
        let start = Instant::now();
        for _ in 0..calls {
            work()?;
        }
        gpu.finish()?;
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    };
    // As it is, recorded, replayed.
    run(3)?;
    let calls = (scale.run_seconds / run(1)?.max(1e-6)).ceil().clamp(1.0, 10_000.0) as usize;
    (0..scale.runs).map(|_| run(calls)).collect()
}

/// Seconds of one operation in each run, taken in turn on every one of several sets of buffers: the first has left the
/// caches when it comes again. The turn is recorded and replayed, so that issuing it takes no time.
pub fn time_sets<S>(gpu: &Cuda, scale: &Scale, sets: &mut [S], mut work: impl FnMut(&mut S)) -> Result<Vec<f64>> {
    let mut recordings = <Cuda as Backend>::Recordings::default();
    let count = sets.len() as f64;
    let seconds = time(gpu, scale, || {
        gpu.replay(&mut recordings, 0, &mut || sets.iter_mut().for_each(&mut work));
        Ok(())
    })?;
    Ok(seconds.into_iter().map(|turn| turn / count).collect())
}
