//! Shards that wait for answers: what is asked of each prompt, what has come, and when a shard is whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::adaptive::{Adaptive, Asked};
use super::{GenerateConfig, Outcome, StageContext, not_asked, tally};
use crate::engine::{EngineInfo, Generated, Request, Sampling};
use crate::error::{Error, Result};
use crate::schema::{Completion, DatasetKind, FinishReason};
use crate::seed::{content_id, sample_seed};
use crate::store::{Journal, ShardWriter, WriterOptions};

/// The shards that wait for answers.
pub(super) struct Open<'a> {
    pub cx: &'a StageContext<'a>,
    pub info: &'a EngineInfo,
    pub config: &'a GenerateConfig,
    pub adaptive: Option<&'a Adaptive>,
    pub journal: Journal,
    /// What an earlier run was answered.
    pub answered: &'a HashMap<String, Completion>,
    pub shards: BTreeMap<usize, OpenShard>,
    /// Further rounds of prompts whose earlier ones were not enough.
    pub more: VecDeque<Request>,
}

pub(super) struct OpenShard {
    /// (prompt's place in the shard) by prompt id.
    order: HashMap<Arc<str>, usize>,
    rows: Vec<(usize, Completion)>,
    /// By place, if sampling is adaptive.
    asked: Vec<Asked>,
    missing: usize,
    not_available: u64,
    pub outcome: Option<Outcome>,
}

impl Open<'_> {
    /// Registers a shard's requests, takes over what the journal has, and answers with what is left to ask.
    pub fn open_shard(
        &mut self,
        shard: usize,
        wanted: Vec<(Request, Option<Asked>)>,
        not_available: u64,
    ) -> Result<Vec<Request>> {
        let order = wanted.iter().enumerate().map(|(place, (request, _))| (Arc::clone(&request.prompt_id), place));
        let mut open = OpenShard {
            order: order.collect(),
            rows: Vec::new(),
            asked: Vec::new(),
            missing: 0,
            not_available,
            outcome: None,
        };
        let mut left = Vec::new();
        for (place, (mut request, mut asked)) in wanted.into_iter().enumerate() {
            self.recall(&mut open, place, &mut request, asked.as_mut());
            while let (true, Some(prompt), Some(adaptive)) = (request.samples.is_empty(), &mut asked, self.adaptive) {
                request.samples = self.seeded(&request.prompt_id, prompt.next_round(adaptive));
                if request.samples.is_empty() {
                    break;
                }
                self.recall(&mut open, place, &mut request, Some(prompt));
            }
            open.asked.extend(asked);
            if !request.samples.is_empty() {
                left.push(request);
            }
        }
        let complete = open.missing == 0;
        self.shards.insert(shard, open);
        if complete {
            self.write(shard)?;
        }
        Ok(left)
    }

    /// Takes a request's samples over from what was answered before; those left are waited for.
    fn recall(&self, open: &mut OpenShard, place: usize, request: &mut Request, mut asked: Option<&mut Asked>) {
        request.samples.retain(|&(sample, _)| {
            let id = completion_id(self.info, self.config, &request.prompt_id, sample);
            let Some(completion) = self.answered.get(&id) else { return true };
            if let Some(asked) = &mut asked {
                asked.arrived(completion);
            }
            open.rows.push((place, completion.clone()));
            self.cx.progress.advance(1);
            false
        });
        open.missing += request.samples.len();
        if let Some(asked) = asked {
            asked.waiting = request.samples.len();
        }
    }

    fn seeded(&self, prompt_id: &str, samples: std::ops::Range<u32>) -> Vec<(u32, u64)> {
        samples.map(|i| (i, sample_seed(self.cx.seed, prompt_id, i, 0))).collect()
    }

    /// Notes an answer to a prompt that is sampled adaptively; asks for its next round once this one is whole.
    fn go_on(&mut self, shard: usize, place: usize) {
        let Some(adaptive) = self.adaptive else { return };
        let mut open = self.shards.remove(&shard).expect("open while it is answered");
        let mut prompts = std::mem::take(&mut open.asked);
        let asked = &mut prompts[place];
        asked.arrived(&open.rows.last().expect("just pushed").1);
        asked.waiting -= 1;
        while asked.waiting == 0 {
            let round = asked.next_round(adaptive);
            let samples = self.seeded(&asked.request.prompt_id, round);
            if samples.is_empty() {
                break;
            }
            let mut request = Request { samples, ..asked.request.clone() };
            self.recall(&mut open, place, &mut request, Some(asked));
            if !request.samples.is_empty() {
                self.more.push_back(request);
            }
        }
        open.asked = prompts;
        self.shards.insert(shard, open);
    }

    /// Takes one answer.
    pub fn take(&mut self, generated: Generated) -> Result<()> {
        let found = self
            .shards
            .iter()
            .find(|(_, open)| open.outcome.is_none() && open.order.contains_key(&generated.prompt_id));
        let Some(shard) = found.map(|(&shard, _)| shard) else {
            return Err(Error::new(format!(
                "the engine answered a prompt that was not asked: {}",
                generated.prompt_id
            )));
        };
        let completion = self.complete(generated);
        if completion.finish_reason != FinishReason::Error {
            self.journal.append(&serde_json::to_vec(&completion).expect("a completion is plain data"))?;
        }
        let open = self.shards.get_mut(&shard).expect("just found");
        let place = open.order[completion.prompt_id.as_str()];
        open.rows.push((place, completion));
        open.missing -= 1;
        self.cx.progress.advance(1);
        self.go_on(shard, place);
        if self.shards[&shard].missing == 0 { self.write(shard) } else { Ok(()) }
    }

    fn complete(&self, generated: Generated) -> Completion {
        Completion {
            completion_id: completion_id(self.info, self.config, &generated.prompt_id, generated.sample_index),
            seed: Some(sample_seed(self.cx.seed, &generated.prompt_id, generated.sample_index, 0)),
            prompt_id: generated.prompt_id.to_string(),
            sample_index: generated.sample_index,
            text: generated.text,
            token_ids: generated.token_ids,
            logprobs: generated.logprobs,
            prompt_token_ids: generated.prompt_token_ids,
            finish_reason: generated.finish_reason,
            stop_reason: generated.stop_reason,
            prompt_tokens: generated.prompt_tokens,
            completion_tokens: generated.completion_tokens,
            engine: self.info.engine.to_owned(),
            model: self.info.model.clone(),
            model_digest: self.info.model_digest.clone(),
            policy_step: 0,
            sampling: sampling_json(&self.config.sampling),
            label: generated.label.map(|good| if good { "correct" } else { "wrong" }.to_owned()),
            error: generated.error,
        }
    }

    /// Sorts and writes a shard whose last sample has arrived.
    fn write(&mut self, shard: usize) -> Result<()> {
        let open = self.shards.get_mut(&shard).expect("written once, while open");
        let mut rows = std::mem::take(&mut open.rows);
        open.order = HashMap::new();
        open.asked = Vec::new();
        rows.sort_by_key(|(place, completion)| (*place, completion.sample_index));
        let mut outcome = Outcome::default();
        for (_, row) in &rows {
            tally(&mut outcome, row.finish_reason.as_str(), row.prompt_tokens, row.completion_tokens);
        }
        not_asked(&mut outcome, open.not_available);
        let rows: Vec<Completion> = rows.into_iter().map(|(_, row)| row).collect();
        let mut writer =
            ShardWriter::create(self.cx.folder, shard, DatasetKind::Completions, WriterOptions::default())?;
        for piece in rows.chunks(1024) {
            writer.push_rows(piece)?;
        }
        outcome.shards.push(writer.finish()?);
        self.cx.finish_shard(shard, &outcome)?;
        open.outcome = Some(outcome);
        Ok(())
    }
}

/// Sampling settings as the completions record them: JSON in the order of the fields.
fn sampling_json(sampling: &Sampling) -> String {
    serde_json::to_string(sampling).expect("settings are plain data")
}

fn completion_id(info: &EngineInfo, config: &GenerateConfig, prompt_id: &str, sample: u32) -> String {
    let sampling = sampling_json(&config.sampling);
    let parts = [
        prompt_id.as_bytes(),
        &sample.to_le_bytes(),
        &0u64.to_le_bytes(),
        info.model_digest.as_bytes(),
        sampling.as_bytes(),
    ];
    content_id(parts)
}
