//! The journal of answers: what a model was asked, kept until it is judged.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::{EngineInfo, Generated};
use crate::error::Result;
use crate::schema::{FinishReason, GroupRow, Prompt};
use crate::stage::StageContext;
use crate::stage::judged::completion_id;
use crate::stage::layout::REQUESTS;
use crate::stage::record::{self, FORMAT, key};
use crate::store::{Journal, Place, SyncPolicy};

/// Answers of one model. They lie in the journal; memory holds where.
pub(super) struct Answers<'a> {
    journal: Journal,
    info: &'a EngineInfo,
    sampling: &'a str,
    places: HashMap<u128, Place>,
    /// Not noted, since the next run asks again. They have no text.
    failed: HashMap<u128, String>,
}

impl<'a> Answers<'a> {
    /// Opens the journal of what `asked` names: the model and how it is asked.
    ///
    /// # Errors
    /// Another process has it open; the disk or store refuses.
    pub fn open(cx: &StageContext<'_>, asked: &str, info: &'a EngineInfo, sampling: &'a str) -> Result<Self> {
        let at = cx.folder.join(&format!("{REQUESTS}-{}", &asked[..16]));
        let head = serde_json::json!([FORMAT, asked]).to_string();
        let (mut is_ours, mut places) = (None, HashMap::new());
        let mut journal = Journal::open(&at, SyncPolicy::default(), |place, record| {
            match is_ours {
                None => is_ours = Some(record == head.as_bytes()),
                Some(false) => {}
                Some(true) => places.extend(record::keys(record).map(|(_, completion)| (completion, place))),
            }
            Ok(())
        })?;
        journal.lost().told(&at).iter().for_each(|line| cx.progress.say(line));
        if is_ours == Some(false) {
            // Of another version of this program.
            journal.remove()?;
            journal = Journal::open(&at, SyncPolicy::default(), |_, _| Ok(()))?;
        }
        if is_ours != Some(true) {
            journal.append(head.as_bytes())?;
        }
        Ok(Answers { journal, info, sampling, places, failed: HashMap::new() })
    }

    /// Whether a sample was answered.
    pub fn has(&self, prompt: &Prompt, sample: u32) -> bool {
        self.places.contains_key(&key(&self.id(&prompt.prompt_id, sample)))
    }

    /// Requests that failed, if none was answered; with the first one's fault.
    pub fn none_but_failed(&self) -> Option<(usize, &str)> {
        if !self.places.is_empty() {
            return None;
        }
        self.failed.values().min().map(|first| (self.failed.len(), first.as_str()))
    }

    /// Bytes of the answers to a prompt.
    pub fn bytes(&self, prompt: &Prompt, samples: u32) -> usize {
        let places = (0..samples).filter_map(|sample| self.places.get(&key(&self.id(&prompt.prompt_id, sample))));
        places.map(Place::bytes).sum()
    }

    /// Notes an answer: from here on a kill does not cost it.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn take(&mut self, generated: Generated) -> Result<()> {
        let id = self.id(&generated.prompt_id, generated.sample_index);
        if let Some(error) = generated.error {
            self.failed.insert(key(&id), error);
            return Ok(());
        }
        // The journal's name and its ids say the rest.
        let record = record::write(record::completion(generated, id.clone(), 0));
        let place = self.journal.append(&record)?;
        self.places.insert(key(&id), place);
        Ok(())
    }

    /// Notes a sample that was judged and kept before, unless it failed.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn take_back(&mut self, row: GroupRow) -> Result<()> {
        let is_known = self.places.contains_key(&key(&self.id(&row.prompt_id, row.sample_index)));
        if is_known || row.finish_reason == FinishReason::Error {
            return Ok(());
        }
        self.take(Generated {
            prompt_id: row.prompt_id.into(),
            sample_index: row.sample_index,
            text: row.text,
            token_ids: row.token_ids,
            logprobs: row.logprobs,
            prompt_token_ids: row.prompt_token_ids,
            finish_reason: row.finish_reason,
            stop_reason: None,
            prompt_tokens: None,
            completion_tokens: row.completion_tokens,
            error: None,
            label: None,
        })
    }

    /// The answers to a prompt, in sample order, those that failed among them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn of(&self, prompt: &Prompt, samples: u32) -> Result<Vec<Generated>> {
        (0..samples).map(|sample| self.read(prompt, sample)).collect()
    }

    /// Makes sure that all of them outlive a power cut.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn sync(&mut self) -> Result<()> {
        self.journal.sync()
    }

    fn id(&self, prompt_id: &str, sample: u32) -> String {
        completion_id(&self.info.model_digest, self.sampling, prompt_id, sample, 0)
    }

    fn read(&self, prompt: &Prompt, sample: u32) -> Result<Generated> {
        let (key, prompt_id) = (key(&self.id(&prompt.prompt_id, sample)), Arc::from(prompt.prompt_id.as_str()));
        let Some(&place) = self.places.get(&key) else {
            let error = self.failed.get(&key).cloned().unwrap_or_else(|| "not asked".to_owned());
            return Ok(Generated::failed(prompt_id, sample, error));
        };
        record::read(&self.journal.read(place)?).map(record::generated)
    }
}
