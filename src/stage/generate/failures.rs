//! Why requests failed: said in a line where some did, and instead of a dataset without completions where all did.

use std::collections::BTreeMap;

use arrow::array::Array;

use crate::error::{Error, Result};
use crate::schema::{BatchExt, DatasetKind};
use crate::stage::StageOutcome;
use crate::store::{Dataset, Location};

/// The fact of a shard that says why the first of its requests failed that did.
pub(super) const FIRST_FAILURE: &str = "first_failure";

/// A line for people if some of the stage's requests failed; where all did, [`every_row`] says so.
pub(super) fn some_rows(made: &StageOutcome, first: Option<&serde_json::Value>) -> Option<String> {
    let rows: u64 = made.shards.iter().map(|shard| shard.rows).sum();
    let failed = made.counts.get("failed").copied().filter(|&failed| failed < rows)?;
    let first = first.and_then(|first| first.as_str()).map(|first| format!("; first: {first}")).unwrap_or_default();
    Some(format!("{failed} of {rows} requests failed{first}. Their rows keep the errors; the next run asks them again"))
}

/// The error of a committed stage of which every row failed.
///
/// # Errors
/// The rows cannot be read.
pub(super) fn every_row(folder: &Location) -> Result<Error> {
    // By code, which is what errors of rows begin with: (how many, the first of them).
    let mut causes: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut rows = 0;
    for shard in Dataset::open(folder)?.shards() {
        for batch in shard.batches(Some(DatasetKind::Completions), Some(&["error"]))? {
            let batch = batch?;
            let errors = batch.text("error")?;
            rows += errors.len();
            for error in errors.iter().flatten() {
                let code = error.split(':').next().unwrap_or_default();
                causes.entry(code.to_owned()).or_insert_with(|| (0, error.to_owned())).0 += 1;
            }
        }
    }
    let mut causes: Vec<(String, (u64, String))> = causes.into_iter().collect();
    causes.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let Some((code, (count, first))) = causes.first() else {
        return Ok(Error::new(format!("all {rows} requests failed")).in_file(folder));
    };
    let these = if *count == rows as u64 { String::new() } else { format!("; {count} of them") };
    let mut error = Error::new(format!("all {rows} requests failed{these}: {first}")).in_file(folder);
    if code == "context_overflow" {
        error = error.hint(
            "a prompt and `sampling.max_tokens` together must fit the model's context: lower `max_tokens`, or serve \
             the model with a longer one (`--max-model-len`)",
        );
    }
    for (_, (count, first)) in &causes[1..] {
        error = error.hint(format!("{count} others: {first}"));
    }
    Ok(error.hint("the rows keep their errors; the next run asks them again"))
}
