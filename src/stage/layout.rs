//! What a stage's folder holds, by name. Stages write it, and the pipeline keeps, clears or deletes it by the same names:
//! what lies in a folder under another name is lost to a run that goes on.

use super::Part;

/// The model that the stage trained.
pub(crate) const MODEL: &str = "model";
/// The adapter that was trained, as PEFT writes it; the model has it folded in.
pub(crate) const ADAPTER: &str = "adapter";
/// A training stage's checkpoints.
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// Groups that were sampled while the stage trained.
pub(crate) const ROLLOUTS: &str = "rollouts";
/// In a checkpoint, groups that are in no shard of [`ROLLOUTS`] yet. Files of rows are Parquet, and not called so: once the
/// stage has finished the rows are in its shards too, and whoever looks for `**/*.parquet` must not find them twice.
pub(crate) const PENDING: &str = "pending.rows";
/// Samples of an evaluation, a folder a model.
pub(crate) const SAMPLES: &str = "samples";
/// Weights for servers to load.
pub(crate) const SENT: &str = "policy";
/// Rows on their way into order.
pub(crate) const SPILL: &str = "_spill";
/// The journal of finished shards.
pub(crate) const JOURNAL: &str = "_journal";
/// Journals of finished requests: all whose name begins so.
pub(crate) const REQUESTS: &str = "_requests";

/// What a journal of a part of a run is called; a whole run's bears the name alone.
pub(crate) fn of_part(journal: &str, part: Option<Part>) -> String {
    part.map_or(journal.to_owned(), |part| format!("{journal}{}", part.suffix()))
}
