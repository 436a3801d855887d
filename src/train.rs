//! The trainer: SFT, GRPO and preference optimisation over plain data.
//!
//! Data in, updated weights and metrics out. `train` knows no HTTP and no Parquet:
//! the stages turn datasets into the plain structs here, and an engine or a file
//! into a source of scored groups.

pub mod advantage;
pub mod objective;
pub mod schedule;
