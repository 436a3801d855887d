//! gristmill: DeepSeek-R1's recipe as one program.
//!
//! Rooms, from the ground up: [`error`], [`seed`], [`schema`] and `store` hold
//! what everything shares; `rule`, `engine`, `model`, `backend`, `train` and
//! `eval` do one thing each and know nothing of our datasets; `stage` joins them to
//! datasets, `pipeline` runs stages, `cli` prints. No room imports one above it.
//! ARCHITECTURE.md describes the house as built.

pub mod backend;
pub mod bytes;
pub mod cli;
pub mod device;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod eval;
pub mod inspect;
pub mod language;
pub mod model;
pub mod pipeline;
pub mod procedural;
pub mod prompts;
pub mod recipe;
pub mod report;
pub mod rule;
pub mod schema;
pub mod seed;
pub mod stage;
pub mod store;
pub mod train;
mod words;

pub use error::{Error, Result};
