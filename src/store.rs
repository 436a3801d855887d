//! Where datasets live: Parquet shards, manifests, journals, on local disk and object stores.
//!
//! A stage's folder holds `part-00000.parquet …` and, written last, `_manifest.json`:
//! that write is the commit. Everything is written to a temporary name, flushed
//! to the disk and renamed, so a killed process leaves whole files or none.
//! The calls block; those that reach an object store run on a small runtime of
//! their own and may be made from any thread.

#[cfg(test)]
mod broken_copies;
mod cell_json;
mod cells;
mod dataset;
mod faults;
mod fetch;
mod guard;
mod hash;
mod hub;
mod journal;
mod location;
mod lock;
mod lookup;
mod manifest;
mod pending;
mod reader;
mod remote;
mod row_writer;
mod run_folder;
mod sink;
mod spool;
mod together;
mod unique;
mod writer;

/// Object stores know no locks, so nothing keeps two runs apart that write into one folder.
const ANOTHER_RUN: &str = "is another run at work in this folder? In an object store nothing holds it off: give each run a \
                           folder of its own, or let one end before the next";

#[cfg(test)]
pub(crate) use broken_copies::broken_copies;
pub(crate) use cell_json::cell_json;
pub(crate) use cells::cell_text;
pub use dataset::{Dataset, METRICS, Shard, metrics_so_far};
pub(crate) use faults::io_error;
pub(crate) use fetch::local_file;
pub(crate) use guard::guarded;
pub(crate) use hash::{digest_files, hash_file};
pub use hub::hub_hint;
pub use journal::{Journal, Lost, Place, SyncPolicy};
pub use location::{Entry, Location};
pub(crate) use lock::lock_soon;
pub use lookup::Lookup;
pub(crate) use lookup::hash_id;
pub use manifest::{Altered, FileInfo, MANIFEST_FILE, Manifest, SchemaName, Unit, damaged};
pub use pending::sweep_unfinished;
pub(crate) use pending::{PendingFile, sync_files};
pub use reader::{Batches, Rows};
pub use row_writer::RowWriter;
pub use run_folder::{MARKER, RunFolder};
pub(crate) use sink::Sink;
pub use spool::FileWriter;
pub(crate) use writer::row_bytes;
pub use writer::{Naming, ShardInfo, ShardWriter, WriterOptions};

#[cfg(test)]
#[path = "store/tests.rs"]
mod tests;
