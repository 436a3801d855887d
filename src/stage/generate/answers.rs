//! What is already answered: the journal of finished requests, and a finished run whose failed
//! rows are asked again.
//!
//! Such a retry replaces shards, so the old manifest, which names their digests, must not outlive
//! the first of them; and until the new manifest is written, something else has to vouch for what
//! the run already had. In this order:
//!
//! 1. Shards in which nothing failed are journaled as finished. The good rows of the others are
//!    written to the journal of requests, as if they had just been answered.
//! 2. Both journals are flushed to the disk.
//! 3. The old manifest is removed.
//!
//! Killed before 3, the run is complete as it was, and is retried from the start. Killed after,
//! it is a run like any other that was killed while it generated.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::Result;
use crate::schema::{BatchExt, Completion, DatasetKind, FinishReason};
use crate::stage::{Outcome, StageContext};
use crate::store::{Dataset, Journal, MANIFEST_FILE, Manifest, Shard, SyncPolicy};

/// Finished requests of shards that are not yet written.
const REQUESTS: &str = "_requests";

/// What need not be asked.
pub struct Answers {
    /// Takes further answers.
    pub journal: Journal,
    /// Answers to requests of this machine's unfinished shards, by completion id.
    pub answered: HashMap<String, Completion>,
    /// Shards of a finished run in which nothing is to be asked again.
    pub kept: BTreeMap<usize, Outcome>,
}

impl Answers {
    /// Opens the journal. `head` names model, seed and settings: answers under another head are
    /// not taken over. A shard holds the samples of `per_shard` prompts.
    ///
    /// # Errors
    /// The disk or store refuses; a shard of a finished run cannot be read.
    pub fn open(cx: &StageContext<'_>, head: &str, model_digest: &str, per_shard: usize) -> Result<Answers> {
        let own =
            cx.folder.join(&cx.part.map_or(REQUESTS.to_owned(), |(index, of)| format!("{REQUESTS}-{index}-of-{of}")));
        let mut is_other = false;
        let mut records = 0;
        Journal::replay(&own, |record| {
            is_other |= records == 0 && record != head.as_bytes();
            records += 1;
            Ok(())
        })?;
        if is_other {
            Journal::delete(&own)?;
        }
        let mut journal = Journal::open(&own, SyncPolicy::default(), |_| Ok(()))?;
        if is_other || records == 0 {
            journal.append(head.as_bytes())?;
        }
        let kept = match Manifest::load(cx.folder)? {
            Some(manifest) => reopen(cx, &manifest, &mut journal, model_digest, per_shard)?,
            None => BTreeMap::new(),
        };
        journal.sync()?;
        let answered = replay(cx, head, per_shard, &kept)?;
        Ok(Answers { journal, answered, kept })
    }
}

/// Makes a finished run an unfinished one that lacks its failed rows only; see the module's words.
fn reopen(
    cx: &StageContext<'_>,
    manifest: &Manifest,
    journal: &mut Journal,
    model_digest: &str,
    per_shard: usize,
) -> Result<BTreeMap<usize, Outcome>> {
    let prompts = cx.input("prompts")?.rows()?;
    let mut kept = BTreeMap::new();
    for (index, shard) in Dataset::open(cx.folder)?.shards().iter().enumerate() {
        let asked = (per_shard as u64).min(prompts.saturating_sub((index * per_shard) as u64));
        match whole(shard, model_digest, asked)? {
            Some(mut outcome) => {
                outcome.shards.push(manifest.shards[index].clone());
                cx.finish_shard(index, &outcome)?;
                kept.insert(index, outcome);
            }
            None => {
                for row in shard.rows_of::<Completion>()? {
                    let row = row?;
                    if row.finish_reason != FinishReason::Error && row.model_digest == model_digest {
                        journal.append(&serde_json::to_vec(&row).expect("a completion is plain data"))?;
                    }
                }
            }
        }
    }
    journal.sync()?;
    cx.sync_journal()?;
    cx.folder.join(MANIFEST_FILE).delete()?;
    Ok(kept)
}

/// What a shard came to when it was made, without its file; `None` if a row of it failed or is
/// another model's. `asked` prompts were its share.
fn whole(shard: &Shard, model_digest: &str, asked: u64) -> Result<Option<Outcome>> {
    let columns = ["prompt_id", "finish_reason", "prompt_tokens", "completion_tokens", "model_digest"];
    let mut outcome = Outcome::default();
    let (mut prompts, mut last) = (0, String::new());
    for batch in shard.batches(Some(DatasetKind::Completions), Some(&columns))? {
        use arrow::array::Array;
        let batch = batch?;
        let (ids, finishes, digests) =
            (batch.text("prompt_id")?, batch.text("finish_reason")?, batch.text("model_digest")?);
        let tokens =
            |name: &str, row: usize| batch.u32(name).map(|column| column.is_valid(row).then(|| column.value(row)));
        for row in 0..batch.num_rows() {
            if finishes.value(row) == FinishReason::Error.as_str() || digests.value(row) != model_digest {
                return Ok(None);
            }
            super::tally(
                &mut outcome,
                finishes.value(row),
                tokens("prompt_tokens", row)?,
                tokens("completion_tokens", row)?,
            );
            // The samples of a prompt are neighbours.
            if prompts == 0 || ids.value(row) != last {
                prompts += 1;
                ids.value(row).clone_into(&mut last);
            }
        }
    }
    super::not_asked(&mut outcome, asked.saturating_sub(prompts));
    Ok(Some(outcome))
}

/// The answers of every part's journal that this machine's unfinished shards wait for; others stay on the disk.
fn replay(
    cx: &StageContext<'_>,
    head: &str,
    per_shard: usize,
    kept: &BTreeMap<usize, Outcome>,
) -> Result<HashMap<String, Completion>> {
    let mut answered = HashMap::new();
    let journals = cx.folder.list()?;
    let mut wanted = None;
    for entry in journals.iter().filter(|entry| entry.name.starts_with(REQUESTS)) {
        let mut is_ours = None;
        Journal::replay(&cx.folder.join(&entry.name), |record| {
            match is_ours {
                None => is_ours = Some(record == head.as_bytes()),
                Some(false) => {}
                Some(true) => {
                    let wanted = match &mut wanted {
                        Some(wanted) => wanted,
                        None => wanted.insert(waiting(cx, per_shard, kept)?),
                    };
                    if let Ok(completion) = serde_json::from_slice::<Completion>(record)
                        && wanted.contains(&key(&completion.prompt_id))
                    {
                        answered.insert(completion.completion_id.clone(), completion);
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(answered)
}

/// The prompts of this machine's unfinished shards.
fn waiting(cx: &StageContext<'_>, per_shard: usize, kept: &BTreeMap<usize, Outcome>) -> Result<HashSet<u128>> {
    let mut prompts = HashSet::new();
    let mut row = 0;
    for batch in cx.input("prompts")?.batches(Some(DatasetKind::Prompts), Some(&["prompt_id"])) {
        for id in batch?.text("prompt_id")? {
            let shard = row / per_shard;
            if cx.is_mine(shard) && cx.finished(shard).is_none() && !kept.contains_key(&shard) {
                prompts.insert(key(id.unwrap_or_default()));
            }
            row += 1;
        }
    }
    Ok(prompts)
}

fn key(id: &str) -> u128 {
    u128::from_le_bytes(blake3::hash(id.as_bytes()).as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
}
