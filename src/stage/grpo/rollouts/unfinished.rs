//! Batches that were under way when the user stopped, in a checkpoint.
//!
//! ```text
//! CHECKPOINT/unfinished.json   which batches, in the order they were asked
//!     answered.rows            what was answered of them
//!     policy/step-000007/      the weights they are of, where those are not the checkpoint's
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use super::{Key, Part, read_rows, weights_of, write_rows};
use crate::error::{Context, Error, Result};
use crate::schema::Completion;
use crate::stage::record;

const LIST: &str = "unfinished.json";
const ANSWERED: &str = "answered.rows";
const POLICY: &str = "policy";

/// Puts them into the checkpoint of `step`, with the weights in `policy` that servers need to go on.
pub(super) fn store(checkpoint: &Path, step: u64, parts: &[Part], policy: Option<&Path>) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let keys: Vec<&Key> = parts.iter().map(|part| &part.key).collect();
    let list = serde_json::to_vec(&keys).or_fail(|| "cannot encode what is unfinished".into())?;
    std::fs::write(checkpoint.join(LIST), list).or_fail(|| format!("cannot write {LIST}"))?;
    let rows = |part: &Part| -> Vec<Completion> {
        let answered = part.answered.iter().cloned();
        // Batch, prompt and sample say which completion it is.
        answered.map(|answer| record::completion(answer, String::new(), part.key.0)).collect()
    };
    let rows: Vec<Completion> = parts.iter().flat_map(rows).collect();
    if !rows.is_empty() {
        write_rows(checkpoint, ANSWERED, &rows)?;
    }
    let Some(policy) = policy else { return Ok(()) };
    let older: BTreeSet<u64> = keys.iter().map(|key| key.0).filter(|&of| of != step).collect();
    older.into_iter().try_for_each(|of| link(&weights_of(policy, of), &weights_of(&checkpoint.join(POLICY), of)))
}

/// Takes them out again; their weights go into `policy`, from where servers load them.
pub(super) fn resume(checkpoint: &Path, policy: Option<&Path>) -> Result<Vec<Part>> {
    let list = checkpoint.join(LIST);
    if !list.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(&list).or_fail(|| format!("cannot read {}", list.display()))?;
    let keys: Vec<Key> = serde_json::from_slice(&text)
        .map_err(|e| Error::new("the list of unfinished batches is malformed").in_file(list.display()).caused_by(e))?;
    let mut parts: Vec<Part> = keys.into_iter().map(|key| Part { key, answered: Vec::new() }).collect();
    for row in read_rows::<Completion>(checkpoint, ANSWERED)?.unwrap_or_default() {
        // A prompt is asked once of a policy.
        let of = |part: &&mut Part| part.key.0 == row.policy_step && part.key.1.contains(&row.prompt_id);
        if let Some(part) = parts.iter_mut().find(of) {
            part.answered.push(record::generated(row));
        }
    }
    let Some(policy) = policy else { return Ok(parts) };
    for step in parts.iter().map(|part| part.key.0).collect::<BTreeSet<_>>() {
        let kept = weights_of(&checkpoint.join(POLICY), step);
        if kept.is_dir() {
            link(&kept, &weights_of(policy, step))?;
        }
    }
    Ok(parts)
}

/// The files of a folder under another name too. They are never written again, so links will do.
fn link(from: &Path, to: &Path) -> Result<()> {
    let linked = || -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if std::fs::hard_link(entry.path(), &target).is_err() {
                // Not every file system has links.
                std::fs::copy(entry.path(), &target)?;
            }
        }
        Ok(())
    };
    linked()
        .or_fail(|| "the weights of rollouts under way cannot be kept".into())
        .map_err(|e| e.in_file(from.display()))
}
