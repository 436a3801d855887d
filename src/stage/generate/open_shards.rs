//! Shards that wait for answers: what is asked of each prompt, what has come, and when a shard is whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rayon::prelude::*;

use super::adaptive::{Adaptive, Asked};
use super::answers::Answers;
use super::failures::FIRST_FAILURE;
use super::requests::At;
use super::{StageContext, StageOutcome, not_asked, tally};
use crate::engine::{EngineInfo, Generated, Request, SampleSeed};
use crate::error::{Error, Result};
use crate::schema::{self, Completion, DatasetKind, FinishReason};
use crate::seed::sample_seed;
use crate::stage::fitting;
use crate::stage::judged::completion_id;
use crate::stage::record;
use crate::store::{ShardWriter, WriterOptions};

/// The shards that wait for answers.
pub(super) struct OpenShards<'a> {
    pub cx: &'a StageContext<'a>,
    pub info: &'a EngineInfo,
    pub adaptive: Option<&'a Adaptive>,
    /// What an earlier run was answered, and the journal for what comes.
    pub answers: Answers,
    /// The sampling settings as completions record them: JSON in the order of the fields.
    pub sampling: String,
    /// Whether completions are drawn with the seeds of their requests.
    pub draws: bool,
    pub shards: BTreeMap<usize, OpenShard>,
    /// Further rounds of prompts whose earlier ones were not enough.
    pub more: VecDeque<Request>,
}

pub(super) struct OpenShard {
    /// (prompt's place in the shard) by prompt id.
    order: HashMap<Arc<str>, usize>,
    rows: Vec<Answer>,
    /// By place, if sampling is adaptive.
    asked: Vec<Asked>,
    missing: usize,
    not_available: u64,
    pub outcome: Option<StageOutcome>,
}

/// A row of a shard, in the order that it is written in.
struct Answer {
    /// Its prompt's place in the shard, and its sample.
    at: (u32, u32),
    row: Row,
}

/// Texts may be long and shards have many: rows wait in the journal.
enum Row {
    Noted(At),
    /// Not noted, since the next run asks again. It has no text.
    Failed(Box<Completion>),
}

impl Answer {
    fn bytes(&self) -> usize {
        match &self.row {
            Row::Noted(place) => place.bytes(),
            Row::Failed(completion) => completion.error.as_ref().map_or(0, String::len),
        }
    }
}

/// Rows that are read, encoded and written at once: so many, or of so many bytes.
const PIECE_ROWS: usize = 1024;
const PIECE_BYTES: u64 = 8 << 20;

impl OpenShards<'_> {
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
            self.recall(&mut open, place, &mut request, asked.as_mut())?;
            while let (true, Some(prompt), Some(adaptive)) = (request.samples.is_empty(), &mut asked, self.adaptive) {
                request.samples = self.seeded(&request.prompt_id, prompt.next_round(adaptive)?);
                if request.samples.is_empty() {
                    break;
                }
                self.recall(&mut open, place, &mut request, Some(prompt))?;
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
    fn recall(
        &mut self,
        open: &mut OpenShard,
        place: usize,
        request: &mut Request,
        mut asked: Option<&mut Asked>,
    ) -> Result<()> {
        let mut left = Vec::new();
        for &sample in &request.samples {
            let id = completion_id(&self.info.model_digest, &self.sampling, &request.prompt_id, sample.index, 0);
            let Some(noted) = self.answers.recall(&id) else {
                left.push(sample);
                continue;
            };
            if let Some(asked) = &mut asked {
                asked.arrived(&self.answers.read(noted)?);
            }
            open.rows.push(Answer { at: (place as u32, sample.index), row: Row::Noted(noted) });
            self.cx.progress.advance(1);
        }
        request.samples = left;
        open.missing += request.samples.len();
        if let Some(asked) = asked {
            asked.waiting = request.samples.len();
        }
        Ok(())
    }

    fn seeded(&self, prompt_id: &str, samples: std::ops::Range<u32>) -> Vec<SampleSeed> {
        samples.map(|i| SampleSeed::new(self.cx.seed, prompt_id, i, 0)).collect()
    }

    /// An answer to a prompt that is sampled adaptively has arrived: asks for its next round once this one
    /// is whole.
    fn go_on(&mut self, shard: usize, place: usize) -> Result<()> {
        let Some(adaptive) = self.adaptive else { return Ok(()) };
        let mut open = self.shards.remove(&shard).expect("open while it is answered");
        let mut prompts = std::mem::take(&mut open.asked);
        let asked = &mut prompts[place];
        asked.waiting -= 1;
        while asked.waiting == 0 {
            let round = asked.next_round(adaptive)?;
            let samples = self.seeded(&asked.request.prompt_id, round);
            if samples.is_empty() {
                break;
            }
            let mut request = Request { samples, ..asked.request.clone() };
            self.recall(&mut open, place, &mut request, Some(asked))?;
            if !request.samples.is_empty() {
                self.more.push_back(request);
            }
        }
        open.asked = prompts;
        self.shards.insert(shard, open);
        Ok(())
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
        let open = self.shards.get_mut(&shard).expect("just found");
        let place = open.order[completion.prompt_id.as_str()];
        if let Some(asked) = open.asked.get_mut(place) {
            asked.arrived(&completion);
        }
        let at = (place as u32, completion.sample_index);
        let row = match completion.finish_reason {
            FinishReason::Error => Row::Failed(Box::new(completion)),
            _ => Row::Noted(self.answers.note(completion)?),
        };
        open.rows.push(Answer { at, row });
        open.missing -= 1;
        self.cx.progress.advance(1);
        self.go_on(shard, place)?;
        if self.shards[&shard].missing == 0 { self.write(shard) } else { Ok(()) }
    }

    fn complete(&self, generated: Generated) -> Completion {
        let (prompt_id, sample) = (&generated.prompt_id, generated.sample_index);
        let id = completion_id(&self.info.model_digest, &self.sampling, prompt_id, sample, 0);
        Completion {
            seed: self.draws.then(|| sample_seed(self.cx.seed, prompt_id, sample, 0)),
            engine: self.info.engine.to_owned(),
            model: self.info.model.clone(),
            model_digest: self.info.model_digest.clone(),
            sampling: self.sampling.clone(),
            label: generated.label.map(|good| if good { schema::Outcome::Correct } else { schema::Outcome::Wrong }),
            ..record::completion(generated, id, 0)
        }
    }

    /// Sorts and writes a shard whose last sample has arrived.
    fn write(&mut self, shard: usize) -> Result<()> {
        let open = self.shards.get_mut(&shard).expect("written once, while open");
        let mut rows = std::mem::take(&mut open.rows);
        open.order = HashMap::new();
        open.asked = Vec::new();
        rows.sort_unstable_by_key(|answer| answer.at);
        let mut outcome = StageOutcome::default();
        not_asked(&mut outcome, open.not_available);
        let mut writer =
            ShardWriter::create(self.cx.folder, shard, DatasetKind::Completions, WriterOptions::default())?;
        let mut failed = None;
        let mut rest = &rows[..];
        while !rest.is_empty() {
            let sizes = rest.iter().take(PIECE_ROWS).map(|answer| answer.bytes() as u64);
            let (piece, behind) = rest.split_at(fitting(sizes, PIECE_BYTES));
            rest = behind;
            let read = |answer: &Answer| match &answer.row {
                Row::Noted(noted) => self.answers.read(*noted),
                Row::Failed(completion) => Ok((**completion).clone()),
            };
            let piece: Vec<Completion> = piece.par_iter().map(read).collect::<Result<_>>()?;
            for row in &piece {
                tally(&mut outcome, row.finish_reason, row.prompt_tokens, row.completion_tokens);
                failed = failed.or_else(|| row.error.clone());
            }
            writer.push_rows(&piece)?;
        }
        outcome.shards.push(writer.finish()?);
        outcome.facts.extend(failed.map(|error| (FIRST_FAILURE.to_owned(), error.into())));
        self.cx.finish_shard(shard, &outcome)?;
        self.shards.get_mut(&shard).expect("still there").outcome = Some(outcome);
        let noted = rows.iter().filter_map(|answer| match answer.row {
            Row::Noted(at) => Some(at),
            Row::Failed(_) => None,
        });
        self.answers.are_written(self.cx, noted)
    }
}
