//! The trainer: SFT, GRPO and preference optimisation over plain data.
//!
//! Data in, updated weights and metrics out. `train` knows no HTTP and no Parquet:
//! the stages turn datasets into the plain structs here, and an engine or a file
//! into a [`Rollout`].
//!
//! ```text
//! let data: Vec<Sequence> = …;                                        // or any Source<Sequence>
//! let model = SharedModel::new(Model::load(dir)?);                    // an engine may share it
//! let mut trainer = SftTrainer::new(model.clone(), data, SftConfig::default())?;
//! let checkpoints = Checkpoints::open(dir, 2)?;
//! resume(&mut trainer, &checkpoints)?;
//! run(&mut trainer, Some(&checkpoints), Cadence::default(), &mut observer)?;
//! ```
//!
//! From the ground up: [`objective`] holds pure functions from logprobs to a loss and
//! one gradient scalar a token; `batch` packs sequences; `learner` joins a model with
//! its optimizer; `sft`, `grpo` and `preference` are the trainers; `trainer` runs any
//! of them with evaluation, checkpoints and exact resume.
//!
//! A run's bits are a function of its config, data and seed. Every random stream
//! derives from the seed and a step or epoch number, so there is no generator state
//! to store, and micro-batches are packed by their lengths alone.

pub mod advantage;
mod batch;
mod checkpoint;
mod grpo;
mod learner;
mod metrics;
pub mod objective;
mod optimizer;
mod order;
mod preference;
mod schedule;
mod sft;
mod trainer;

pub use batch::{MicroBatch, Packed, Sequence, Source, pack};
pub use checkpoint::{Checkpoint, Checkpoints};
pub use grpo::{GrpoTrainer, GrpoTrainerConfig, Offline, OldLogprobs, Rollout, ScoredCompletion, ScoredGroup};
pub use learner::{Applied, Learner, LearnerState};
pub use metrics::{GroupMetrics, RuleMetrics, StepMetrics};
pub use optimizer::{OptimizerConfig, OptimizerKind};
pub use order::{Order, Position};
pub use preference::{Group, Pair, PreferenceTrainer, PreferenceTrainerConfig};
pub use schedule::{Decay, Schedule};
pub use sft::{SftConfig, SftTrainer};
pub use trainer::{Cadence, Observer, Trainer, resume, run};

#[cfg(test)]
mod guide;

use crate::error::{Error, Result};

/// Refuses counts of 0, by name.
fn at_least_one(settings: &[(&str, u64)]) -> Result<()> {
    match settings.iter().find(|(_, value)| *value == 0) {
        Some((field, _)) => Err(Error::usage(format!("`{field}` is 0")).in_field(*field).hint("it must be at least 1")),
        None => Ok(()),
    }
}

/// Refuses a run of no steps, where `steps` counts for nothing if it is 0.
fn some_steps(epochs: u64, steps: u64) -> Result<()> {
    match (epochs, steps) {
        (0, 0) => Err(Error::usage("`epochs` and `steps` are both 0: nothing would be trained")
            .in_field("epochs")
            .hint("set one of them")),
        _ => Ok(()),
    }
}
