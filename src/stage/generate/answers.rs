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

use super::replaced;
use super::requests::{At, Requests, is_of_others};
use crate::engine::EngineInfo;
use crate::error::{Error, Result};
use crate::schema::{BatchExt, Completion, DatasetKind, FinishReason};
use crate::stage::layout::REQUESTS;
use crate::stage::record::{self, FORMAT, key};
use crate::stage::{StageContext, StageOutcome};
use crate::store::{Dataset, Journal, MANIFEST_FILE, Manifest, Shard};

/// What need not be asked. Answers lie in journals; memory holds where.
pub struct Answers {
    /// Takes further answers.
    requests: Requests,
    /// Answers to requests of this machine's unfinished shards, by the completion's key.
    answered: HashMap<u128, At>,
    /// Shards of a finished run in which nothing is to be asked again.
    pub kept: BTreeMap<usize, StageOutcome>,
}

impl Answers {
    /// Begins the stage and opens the journals. `settings` names what else decides an answer beside the
    /// model: answers under others are not taken over. A shard holds the samples of `per_shard` prompts.
    /// A `served` model is known once its servers are asked; of any other a change is a change of the stage.
    /// Answers of a finished run that is replaced are kept if it says the same `asked_as`.
    ///
    /// # Errors
    /// What there is was answered by another served model: two in one dataset would pass for one, and
    /// nothing of it is touched. The disk or store refuses; a shard of a finished run cannot be read.
    pub fn open(
        cx: &StageContext<'_>,
        settings: &serde_json::Value,
        info: &EngineInfo,
        per_shard: usize,
        served: bool,
        asked_as: Option<&str>,
    ) -> Result<Answers> {
        if served {
            for entry in cx.folder.list()?.iter().filter(|entry| entry.name.starts_with(REQUESTS)) {
                let first = Journal::first(&cx.folder.join(&entry.name))?;
                let head =
                    first.and_then(|head| serde_json::from_slice::<(u32, String, serde_json::Value)>(&head).ok());
                // One without is of an older form, which is not read.
                head.map_or(Ok(()), |(_, digest, _)| same_model(cx, &digest, info))?;
            }
        }
        let head = serde_json::json!([FORMAT, info.model_digest, settings]).to_string();
        if let Some(asked_as) = asked_as {
            replaced::keep(cx, head.as_bytes(), info, asked_as, || waiting(cx, per_shard))?;
        }
        cx.begin()?;
        // Else a manifest is another part's, which found all shards there and committed them meanwhile.
        let manifest = if cx.retry { Manifest::load(cx.folder)? } else { None };
        if let Some(serde_json::Value::String(digest)) = manifest.as_ref().and_then(|m| m.facts.get("model_digest")) {
            same_model(cx, digest, info)?;
        }
        let mut wanted = Wanted { cx, head: head.as_bytes(), per_shard, is_ours: None, others: 0, prompts: None };
        let mut reading = None;
        let (mut requests, mut answered) = Requests::open(cx, head.as_bytes(), |journal, record| {
            if reading.replace(journal) != Some(journal) {
                wanted.is_ours = None;
            }
            wanted.key_of(record)
        })?;
        for entry in cx.folder.list()?.iter().filter(|entry| is_of_others(cx, &entry.name)) {
            wanted.is_ours = None;
            let other = cx.folder.join(&entry.name);
            let lost = Journal::replay(&other, |record| {
                // Other parts' answers become this one's, to be read again from its own journal.
                if let Some(key) = wanted.key_of(record)?
                    && !answered.contains_key(&key)
                {
                    answered.insert(key, requests.append(record)?);
                }
                Ok(())
            })?;
            lost.told(&other).iter().for_each(|line| cx.progress.say(line));
        }
        wanted.tell_forgotten();
        let mut answers = Answers { requests, answered, kept: BTreeMap::new() };
        if let Some(manifest) = manifest {
            answers.kept = reopen(cx, &manifest, &mut answers, &info.model_digest, per_shard)?;
        }
        answers.requests.sync()?;
        Ok(answers)
    }

    /// Notes an answer: from here on a kill does not cost it.
    pub fn note(&mut self, completion: Completion) -> Result<At> {
        self.requests.append(&record::write(completion))
    }

    /// Takes an earlier run's answer out, if there is one.
    pub fn recall(&mut self, completion_id: &str) -> Option<At> {
        // Nothing to look for in most runs.
        if self.answered.is_empty() { None } else { self.answered.remove(&key(completion_id)) }
    }

    /// An answer that was noted, or recalled.
    pub fn read(&self, at: At) -> Result<Completion> {
        record::read(&self.requests.read(at)?)
    }

    /// These answers are in a shard that is finished: they need not be kept.
    pub fn are_written(&mut self, cx: &StageContext<'_>, places: impl IntoIterator<Item = At>) -> Result<()> {
        self.requests.release(places, || cx.sync_journal())
    }
}

/// Which records of a journal answer what is still to be asked.
struct Wanted<'a> {
    cx: &'a StageContext<'a>,
    head: &'a [u8],
    per_shard: usize,
    /// Whether the journal being read is of this model and these settings; `None` before its first record.
    is_ours: Option<bool>,
    /// Answers in it that are not.
    others: u64,
    /// The prompts of this machine's unfinished shards, once they are needed.
    prompts: Option<HashSet<u128>>,
}

impl Wanted<'_> {
    /// Says how many answers are of no use under the settings as they are now.
    fn tell_forgotten(&mut self) {
        match std::mem::take(&mut self.others) {
            0 => {}
            others => self.cx.progress.say(&format!(
                "{others} answers of an unfinished run are forgotten: they were asked with other settings (seed, \
                 sampling, system turn, tokenizer, logprobs or token ids)"
            )),
        }
    }

    /// The completion's key of a record that is wanted.
    fn key_of(&mut self, record: &[u8]) -> Result<Option<u128>> {
        match self.is_ours {
            None => {
                self.is_ours = Some(record == self.head);
                Ok(None)
            }
            Some(false) => {
                self.others += 1;
                Ok(None)
            }
            Some(true) => {
                let prompts = match &self.prompts {
                    Some(prompts) => prompts,
                    None => self.prompts.insert(waiting(self.cx, self.per_shard)?),
                };
                Ok(record::keys(record).filter(|(prompt, _)| prompts.contains(prompt)).map(|(_, key)| key))
            }
        }
    }
}

/// # Errors
/// The digest is another model's than the engine's.
fn same_model(cx: &StageContext<'_>, digest: &str, info: &EngineInfo) -> Result<()> {
    if digest == info.model_digest {
        return Ok(());
    }
    Err(Error::new(format!("the stage `{}` was begun with another model than `{}` is now", cx.name, info.model))
        .in_file(cx.folder)
        .hint("a model is its name, where its server loaded it from, and its tokenizer: serve the first one again to go on")
        .hint("so are settings that change what it answers: `api`, `template`, `extra_body`, `rename`, `omit`, `n_per_request`, `reasoning`, `continue_rounds`")
        .hint(format!("or begin anew with this one: `--from {}`", cx.name)))
}

/// Makes a finished run an unfinished one that lacks its failed rows only; see the module's words.
fn reopen(
    cx: &StageContext<'_>,
    manifest: &Manifest,
    answers: &mut Answers,
    model_digest: &str,
    per_shard: usize,
) -> Result<BTreeMap<usize, StageOutcome>> {
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
                        let key = key(&row.completion_id);
                        let place = answers.note(row)?;
                        answers.answered.insert(key, place);
                    }
                }
            }
        }
    }
    answers.requests.sync()?;
    cx.sync_journal()?;
    cx.folder.join(MANIFEST_FILE).delete()?;
    Ok(kept)
}

/// What a shard came to when it was made, without its file; `None` if a row of it failed or is
/// another model's. `asked` prompts were its share.
fn whole(shard: &Shard, model_digest: &str, asked: u64) -> Result<Option<StageOutcome>> {
    let columns = ["prompt_id", "finish_reason", "prompt_tokens", "completion_tokens", "model_digest"];
    let mut outcome = StageOutcome::default();
    let (mut prompts, mut last) = (0, String::new());
    for batch in shard.batches(Some(DatasetKind::Completions), Some(&columns))? {
        use arrow::array::Array;
        let batch = batch?;
        let (ids, digests) = (batch.text("prompt_id")?, batch.text("model_digest")?);
        let finishes = batch.cells::<FinishReason>("finish_reason")?;
        let tokens =
            |name: &str, row: usize| batch.u32(name).map(|column| column.is_valid(row).then(|| column.value(row)));
        for (row, &finish) in finishes.iter().enumerate() {
            if finish == FinishReason::Error || digests.value(row) != model_digest {
                return Ok(None);
            }
            super::tally(&mut outcome, finish, tokens("prompt_tokens", row)?, tokens("completion_tokens", row)?);
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

/// The prompts of this machine's unfinished shards.
fn waiting(cx: &StageContext<'_>, per_shard: usize) -> Result<HashSet<u128>> {
    let mut prompts = HashSet::new();
    let mut row = 0;
    for batch in cx.input("prompts")?.batches(Some(DatasetKind::Prompts), Some(&["prompt_id"])) {
        for id in batch?.text("prompt_id")? {
            let shard = row / per_shard;
            if cx.is_mine(shard) && cx.finished(shard).is_none() {
                prompts.insert(key(id.unwrap_or_default()));
            }
            row += 1;
        }
    }
    Ok(prompts)
}
