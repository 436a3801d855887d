//! The samples of one model, in `samples/MODEL/`: what an evaluation costs.
//!
//! Answers go to a journal as they come, so a kill costs those in flight. Once all are there they are judged and
//! written as shards of a groups dataset, which a `_journal` in its folder vouches for until its manifest does.
//! The journals and the manifest name what they are of, and so outlive changes that do not touch them: samples that
//! are whole are measured again; of others, what the same model was asked in the same way is judged again, and only
//! what is missing is sampled.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::EvalTable;
use super::answers::Answers;
use super::figures::{Brief, Judged};
use crate::engine::{EngineInfo, Generated, Request, SampleSeed, Sampling};
use crate::error::{Context, Error, Result};
use crate::rule::file::RuleSet;
use crate::schema::{DatasetKind, GroupRow, Prompt};
use crate::seed::content_id;
use crate::stage::attend::attend;
use crate::stage::judged::{ensure_judged, group_rows, judge, none_answered};
use crate::stage::layout::JOURNAL;
use crate::stage::open_engine::OpenEngine;
use crate::stage::{FAILED, StageContext, fitting};
use crate::store::{
    Dataset, Journal, Location, Manifest, ShardInfo, ShardWriter, SyncPolicy, WriterOptions, sweep_unfinished,
};

/// Raised when the same model would be sampled otherwise: earlier samples are then none.
const SAMPLING: u32 = 1;
/// The fact that names the model and how it was asked.
const ASKED: &str = "asked";
/// So many requests that fail before one is answered end an evaluation.
const HOPELESS: usize = 512;
/// Bytes of answers that are judged at once.
const PIECE_BYTES: u64 = 64 << 20;

/// What models are measured on.
pub(super) struct Benchmark<'a> {
    pub rules: &'a RuleSet,
    pub prompts: &'a [Prompt],
    /// Names both.
    digest: String,
}

impl<'a> Benchmark<'a> {
    /// These prompts, judged by these rules.
    pub fn new(rules: &'a RuleSet, prompts: &'a [Prompt]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for prompt in prompts {
            hasher.update(&serde_json::to_vec(prompt).expect("a prompt is plain data"));
        }
        let digest = content_id([rules.digest().as_bytes(), hasher.finalize().as_bytes()]);
        Benchmark { rules, prompts, digest }
    }
}

/// The samples of one model.
pub(super) struct Samples<'a> {
    cx: &'a StageContext<'a>,
    benchmark: &'a Benchmark<'a>,
    folder: Location,
    /// Samples of each prompt.
    each: u32,
    sampling: Arc<Sampling>,
    sampling_json: String,
    /// Names the model and how it is asked: the same answers for the same prompts.
    asked: String,
    /// Names the samples: beside that, what is asked and how it is judged.
    fingerprint: String,
    per_shard: usize,
}

impl<'a> Samples<'a> {
    /// The samples of the model that `identity` names, with how it is asked beside `sampling`, in `folder`.
    pub fn of(
        cx: &'a StageContext<'a>,
        benchmark: &'a Benchmark<'a>,
        folder: &Location,
        identity: &str,
        table: &EvalTable,
    ) -> Self {
        let sampling_json = serde_json::to_string(&table.sampling).expect("settings are plain data");
        let parts = (SAMPLING, cx.seed, identity, &sampling_json);
        let asked = content_id([serde_json::to_vec(&parts).expect("plain data").as_slice()]);
        // A shard never splits a prompt's samples.
        let per_shard = (cx.shard_rows / table.samples() as usize).max(1);
        let judged = format!("{} {} {per_shard}", benchmark.digest, table.samples());
        Samples {
            cx,
            benchmark,
            folder: folder.clone(),
            each: table.samples(),
            sampling: Arc::new(table.sampling.clone()),
            sampling_json,
            fingerprint: content_id([asked.as_bytes(), judged.as_bytes()]),
            asked,
            per_shard,
        }
    }

    /// The samples, if all are there, as they were written, and none failed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn whole(&self) -> Result<Option<Judged>> {
        let Some(manifest) = Manifest::load(&self.folder)? else { return Ok(None) };
        let failed = manifest.counts.contains_key(FAILED);
        if manifest.fingerprint != self.fingerprint || failed || !manifest.altered(&self.folder)?.is_empty() {
            return Ok(None);
        }
        // A kill may have come between the two.
        Journal::delete(&self.folder.join(JOURNAL))?;
        self.cx.progress.advance(manifest.rows);
        self.read(&manifest.shards).map(Some)
    }

    /// Makes what is missing of them: samples, judges, writes.
    ///
    /// # Errors
    /// The engine cannot go on, or answers nothing; [`Error::interrupted`] after Ctrl-C; the disk refuses.
    pub fn make(&self, engine: &OpenEngine, name: &str) -> Result<Judged> {
        let info = engine.engine().info();
        let mut answers = Answers::open(self.cx, &self.asked, &info, &self.sampling_json)?;
        self.take_back(&mut answers)?;
        sweep_unfinished(&self.folder)?;
        let (mut journal, mut done) = self.open_journal()?;
        self.sample(engine, &mut answers, &done)?;
        for (shard, prompts) in self.benchmark.prompts.chunks(self.per_shard).enumerate() {
            if let Entry::Vacant(missing) = done.entry(shard) {
                let info = self.write(shard, prompts, &answers, &info)?;
                journal.append(&serde_json::to_vec(&(shard, &info)).expect("plain data"))?;
                missing.insert(info);
            }
        }
        let shards: Vec<ShardInfo> = done.into_values().collect();
        let judged = self.read(&shards)?;
        let mut manifest = Manifest::new(name, "samples", Some(DatasetKind::Groups), self.fingerprint.clone(), shards);
        let failed = judged.failed();
        manifest.counts.extend((failed > 0).then(|| (FAILED.to_owned(), failed)));
        manifest.facts.insert(ASKED.to_owned(), self.asked.clone().into());
        manifest.commit(&self.folder)?;
        journal.remove()?;
        Ok(judged)
    }

    /// Makes answers again of finished samples that are judged otherwise now, are of other prompts, lost a shard, or
    /// have some that failed.
    fn take_back(&self, answers: &mut Answers<'_>) -> Result<()> {
        let Some(manifest) = Manifest::load(&self.folder)? else { return Ok(()) };
        if manifest.facts.get(ASKED).and_then(|asked| asked.as_str()) == Some(&self.asked) {
            let altered = manifest.altered(&self.folder)?;
            for shard in manifest.shards.iter().filter(|shard| altered.iter().all(|other| other.file != shard.file)) {
                let rows = Dataset::open(&self.folder.join(&shard.file))?;
                for row in rows.rows_of::<GroupRow>() {
                    answers.take_back(row?)?;
                }
            }
            answers.sync()?;
        }
        remove(&self.folder)
    }

    /// The journal of finished shards, and those that are there as it says.
    fn open_journal(&self) -> Result<(Journal, BTreeMap<usize, ShardInfo>)> {
        let at = self.folder.join(JOURNAL);
        if Journal::first(&at)?.is_none_or(|first| first != self.fingerprint.as_bytes()) {
            remove(&self.folder)?;
        }
        let (mut is_new, mut done) = (true, BTreeMap::new());
        let mut journal = Journal::open(&at, SyncPolicy::default(), |_, record| {
            is_new = false;
            done.extend(serde_json::from_slice::<(usize, ShardInfo)>(record));
            Ok(())
        })?;
        if is_new {
            journal.append(self.fingerprint.as_bytes())?;
        }
        let cut = crate::store::damaged(&self.folder, done.values())?;
        let cut: HashSet<String> = cut.into_iter().map(|(shard, _)| shard.file.clone()).collect();
        done.retain(|_, shard| !cut.contains(&shard.file));
        Ok((journal, done))
    }

    /// Asks what is not answered yet of shards that are not done.
    fn sample(&self, engine: &OpenEngine, answers: &mut Answers<'_>, done: &BTreeMap<usize, ShardInfo>) -> Result<()> {
        let (cx, prompts) = (self.cx, self.benchmark.prompts);
        let (mut left, mut waiting) = (Vec::new(), HashMap::<&str, HashSet<u32>>::new());
        for (index, prompt) in prompts.iter().enumerate() {
            let is_done = done.contains_key(&(index / self.per_shard));
            let samples: Vec<u32> = (0..self.each).filter(|&i| !is_done && !answers.has(prompt, i)).collect();
            cx.progress.advance(u64::from(self.each) - samples.len() as u64);
            if !samples.is_empty() {
                waiting.insert(&prompt.prompt_id, samples.iter().copied().collect());
                left.push((prompt, samples));
            }
        }
        let mut requests = left.into_iter().take_while(|_| cx.check_stop().is_ok()).map(|(prompt, samples)| Request {
            prompt_id: prompt.prompt_id.as_str().into(),
            messages: prompt.messages.clone().into(),
            samples: samples.into_iter().map(|i| SampleSeed::new(cx.seed, &prompt.prompt_id, i, 0)).collect(),
            sampling: Arc::clone(&self.sampling),
            policy_step: 0,
        });
        let mut take = |generated: Generated| {
            let asked = waiting.get_mut(&*generated.prompt_id);
            if !asked.is_some_and(|asked| asked.remove(&generated.sample_index)) {
                return Err(Error::new(format!("the engine answered what was not asked: {}", generated.prompt_id)));
            }
            answers.take(generated)?;
            cx.progress.advance(1);
            match answers.none_but_failed() {
                Some((failed, first)) if failed >= HOPELESS => return Err(none_answered(failed, first)),
                _ => {}
            }
            // What servers have under way was paid for; this process stops at once, with what it has answered.
            if engine.servers().is_none() { cx.check_stop() } else { Ok(()) }
        };
        attend(engine.servers(), cx, || engine.engine().generate(&mut requests, &mut take))?;
        cx.check_stop()?;
        if let Some((prompt, _)) = waiting.into_iter().find(|(_, left)| !left.is_empty()) {
            return Err(Error::new(format!("the engine left a sample of prompt {prompt} out")));
        }
        match answers.none_but_failed() {
            Some((failed, first)) if done.is_empty() => Err(none_answered(failed, first)),
            _ => Ok(()),
        }
    }

    /// Judges and writes a shard.
    fn write(&self, shard: usize, prompts: &[Prompt], answers: &Answers<'_>, info: &EngineInfo) -> Result<ShardInfo> {
        let rules = self.benchmark.rules;
        let mut writer = ShardWriter::create(&self.folder, shard, DatasetKind::Groups, WriterOptions::default())?;
        let mut rest = prompts;
        while !rest.is_empty() {
            self.cx.check_stop()?;
            let sizes = rest.iter().map(|prompt| answers.bytes(prompt, self.each) as u64);
            let (piece, behind) = rest.split_at(fitting(sizes, PIECE_BYTES));
            rest = behind;
            let read = piece.iter().map(|prompt| answers.of(prompt, self.each)).collect::<Result<_>>()?;
            let judged = judge(rules, piece, read);
            ensure_judged(judged.iter().flatten())?;
            for (prompt, judged) in piece.iter().zip(judged) {
                writer.push_rows(&group_rows(prompt, judged, info, rules.digest(), &self.sampling_json, 0))?;
            }
        }
        writer.finish()
    }

    /// What figures need of shards, a list for each prompt.
    fn read(&self, shards: &[ShardInfo]) -> Result<Judged> {
        let mut briefs: Vec<Vec<Brief>> = Vec::with_capacity(self.benchmark.prompts.len());
        for shard in shards {
            for row in Dataset::open(&self.folder.join(&shard.file))?.rows_of::<GroupRow>() {
                let row = row?;
                if row.sample_index == 0 {
                    briefs.push(Vec::with_capacity(self.each as usize));
                }
                if let Some(last) = briefs.last_mut() {
                    last.push(Brief::of(row.outcome, &row.scores, row.finish_reason, row.completion_tokens));
                }
            }
        }
        let rules = self.benchmark.rules.rules().map(|(rule, _)| rule.to_owned()).collect();
        Ok(Judged { samples: briefs, each: u64::from(self.each), rules })
    }
}

/// Removes the samples of models that are measured no more, or all.
///
/// # Errors
/// The disk refuses.
pub(super) fn prune(samples: &Location, stays: impl Fn(&str) -> bool) -> Result<()> {
    let folders: Vec<_> = samples.list()?.into_iter().filter(|entry| entry.is_folder).collect();
    let (kept, gone): (Vec<_>, Vec<_>) = folders.into_iter().partition(|entry| stays(&entry.name));
    gone.iter().try_for_each(|entry| remove(&samples.join(&entry.name)))?;
    if kept.is_empty() { remove(samples) } else { Ok(()) }
}

/// Removes a folder of samples, what vouches for them first.
fn remove(folder: &Location) -> Result<()> {
    let Some(path) = folder.as_local().filter(|path| path.exists()) else { return Ok(()) };
    folder.join(crate::store::MANIFEST_FILE).delete()?;
    std::fs::remove_dir_all(path).or_fail(|| "samples cannot be removed".to_owned()).map_err(|e| e.in_file(folder))
}
