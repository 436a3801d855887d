//! Where datasets live: Parquet shards, manifests, journals, on local disk and object stores.
//!
//! A stage's folder holds `part-00000.parquet …` and, written last, `_manifest.json`:
//! that write is the commit. Everything is written to a temporary name, flushed
//! to the disk and renamed, so a killed process leaves whole files or none.
//! The calls block; those that reach an object store run on a small runtime of
//! their own and may be made from any thread.

mod dataset;
mod faults;
mod journal;
mod location;
mod lookup;
mod manifest;
mod reader;
mod remote;
mod writer;

pub use dataset::{Dataset, Shard};
pub use journal::{Journal, SyncPolicy};
pub use location::{Entry, Location};
pub use lookup::Lookup;
pub use manifest::{MANIFEST_FILE, Manifest, SchemaName, TIMES_FILE, read_times, write_times};
pub use reader::{Batches, Rows};
pub use writer::{Naming, ShardInfo, ShardWriter, WriterOptions, sweep_unfinished};

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
