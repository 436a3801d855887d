//! The answers of a finished run that another configuration replaces.
//!
//! One prompt more, or one sample more of each, makes other shards of nearly the same answers. Those that are still
//! asked for go to the journal of requests before the stage is cleared: from there on they are like those of a run that
//! was killed while it generated. Killed before, the finished run is still there, and this is done again.

use std::collections::HashSet;

use serde_json::Value;

use super::requests::Requests;
use crate::engine::EngineInfo;
use crate::error::Result;
use crate::schema::{Completion, FinishReason};
use crate::stage::StageContext;
use crate::stage::record::{self, key};
use crate::store::{Dataset, Manifest};

/// The manifest's fact that tells what decides an answer beside model and prompt.
pub(super) const ASKED_AS: &str = "asked_as";

/// Keeps the answers of a finished run that is to be replaced, if they were asked as they would be now (`asked_as`)
/// of the same model. `prompts` tells those that are asked; `head` goes before the answers.
///
/// # Errors
/// The disk or store refuses.
pub(super) fn keep(
    cx: &StageContext<'_>,
    head: &[u8],
    info: &EngineInfo,
    asked_as: &str,
    prompts: impl FnOnce() -> Result<HashSet<u128>>,
) -> Result<()> {
    // A part of a run has cleared the stage by now, and a retry keeps what it has by itself.
    if cx.has_begun() || cx.retry {
        return Ok(());
    }
    let Some(manifest) = Manifest::load(cx.folder)? else { return Ok(()) };
    let says = |fact: &str, value: &str| manifest.facts.get(fact).and_then(Value::as_str) == Some(value);
    // Ids of stage `prompts` are of the prompts' content. What others call by one name may have changed.
    let ids_tell = cx.input("prompts")?.manifest().is_some_and(|made| made.kind == "prompts");
    if !says("model_digest", &info.model_digest) || !says(ASKED_AS, asked_as) || !ids_tell {
        return Ok(());
    }
    if !manifest.altered(cx.folder)?.is_empty() {
        return Ok(());
    }
    let prompts = prompts()?;
    let mut journal = None;
    let mut kept = 0;
    for row in Dataset::open(cx.folder)?.rows_of::<Completion>() {
        let row = row?;
        let is_answer = row.finish_reason != FinishReason::Error && row.model_digest == info.model_digest;
        if !is_answer || !prompts.contains(&key(&row.prompt_id)) {
            continue;
        }
        if journal.is_none() {
            journal = Some(Requests::fresh(cx, head)?);
        }
        if let Some(journal) = &mut journal {
            journal.append(&record::write(row))?;
            kept += 1;
        }
    }
    if let Some(mut journal) = journal {
        journal.sync()?;
        cx.progress.say(&format!("{kept} answers of the finished stage are kept where they are still asked for"));
    }
    Ok(())
}
