//! The pipeline: which stages run, in which order, what is already there, and how a run is
//! picked up after a kill.
//!
//! A stage is *cached* when its folder holds a manifest with the fingerprint it would have
//! now: a BLAKE3 of its configuration, its inputs' manifests, the files it reads, the seed
//! and the schema version. Otherwise its folder's journal, if it carries that same
//! fingerprint, says which shards are there; everything else in the folder is cleared.

mod depends;
mod digests;
mod folder;
mod foresee;
mod inputs;
mod journals;
mod log;
mod memory;
mod models;
mod order;
mod plan;
mod preview;
mod run;
mod stage_folder;
mod state;
mod visits;

pub use plan::{Plan, Planned};
pub use preview::{Preview, StagePreview, preview};
pub use run::{Options, Reporter, RunSummary, StageSummary, run};
pub use stage_folder::find_model;
pub use state::State;
