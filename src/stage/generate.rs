//! `generate`: an engine answers every prompt so many times.
//!
//! Shards are fixed before the first request: shard `k` holds all samples of a run of
//! prompts. Finished requests go to a journal as they arrive, so a kill costs only what was
//! in flight; a shard whose last sample has arrived is sorted and written.

mod answers;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};

use serde::Deserialize;

use self::answers::Answers;
use super::{Input, Materials, Outcome, Stage, StageContext, model_name};
use crate::engine::local::{LocalEngine, Options as LocalOptions};
use crate::engine::replay::{Replay, ReplayConfig};
use crate::engine::vllm::{VllmConfig, VllmEngine};
use crate::engine::{Engine, EngineInfo, Generated, Request, Sampling};
use crate::error::{Error, Result};
use crate::model::{Model, Tokenizer};
use crate::recipe::StageTable;
use crate::schema::{Completion, DatasetKind, FinishReason, Message, Prompt};
use crate::seed::{content_id, sample_seed};
use crate::store::{Journal, ShardWriter, WriterOptions};

/// The stage's table in a recipe, its engine apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateConfig {
    #[serde(default = "default_prompts")]
    prompts: String,
    /// Completions wanted of each prompt.
    #[serde(default = "one")]
    samples: u32,
    #[serde(default)]
    sampling: Sampling,
    /// A system turn put before conversations that have none.
    system: Option<String>,
}

fn default_prompts() -> String {
    "prompts".to_owned()
}
fn one() -> u32 {
    1
}

/// Who answers: `engine = { kind = "…", … }`.
#[derive(Clone, Debug)]
enum EngineConfig {
    Replay(ReplayConfig),
    Local(LocalConfig),
    Vllm(Box<VllmConfig>),
}

/// The embedded engine: a model in Hugging Face form, run in this process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalConfig {
    /// A stage that trains one, or a folder with `config.json`, safetensors and `tokenizer.json`.
    model: String,
}

const ENGINES: &str = "engines: local, replay, vllm";

/// The stage.
pub struct GenerateStage {
    config: GenerateConfig,
    engine: EngineConfig,
}

/// What the embedded engine's model is called among the inputs.
const MODEL: &str = "engine.model";

impl GenerateStage {
    /// Reads the stage's table.
    ///
    /// # Errors
    /// No engine, an unknown one, an unknown key, with its place.
    pub fn read(table: &StageTable) -> Result<Self> {
        let mut node = table.config.clone();
        let Some(mut engine) = node.remove("engine") else {
            let error = Error::usage(format!("the stage `{}` has no engine", table.name));
            return Err(table.origin.locate(error).hint("add `engine = { kind = \"replay\", … }`"));
        };
        let Some(kind) = engine.remove("kind") else {
            return Err(engine.origin.locate(Error::usage("the engine has no `kind`")).hint(ENGINES));
        };
        let engine = match kind.text() {
            Some("replay") => EngineConfig::Replay(engine.read()?),
            Some("local") => EngineConfig::Local(engine.read()?),
            Some("vllm") => EngineConfig::Vllm(Box::new(engine.read()?)),
            _ => return Err(kind.origin.locate(Error::usage("there is no such engine")).hint(ENGINES)),
        };
        let config: GenerateConfig = node.read()?;
        if config.samples == 0 {
            return Err(table.origin.locate(Error::usage("`samples` must be at least 1")));
        }
        Ok(GenerateStage { config, engine })
    }

    /// The files whose bytes decide what the engine answers.
    fn engine_files(&self, resolve: &dyn Fn(&str) -> String) -> Vec<String> {
        match &self.engine {
            EngineConfig::Replay(config) => config.files.iter().map(|file| resolve(file)).collect(),
            // The model is an input; a server's identifies itself when the stage runs.
            EngineConfig::Local(_) | EngineConfig::Vllm(_) => Vec::new(),
        }
    }

    fn open_engine(&self, cx: &StageContext<'_>) -> Result<Box<dyn Engine>> {
        let files = self.engine_files(&|path| cx.resolve(path));
        match &self.engine {
            EngineConfig::Replay(config) => {
                let mut hasher = blake3::Hasher::new();
                for file in &files {
                    hasher
                        .update_mmap_rayon(file)
                        .map_err(|e| Error::new("the recordings cannot be read").in_file(file).caused_by(e))?;
                }
                let digest = hasher.finalize().to_hex().to_string();
                let paths: Vec<_> = files.iter().map(Into::into).collect();
                Ok(Box::new(Replay::open(config, &paths, digest)?))
            }
            EngineConfig::Local(_) => {
                let folder = cx.input_folder(MODEL)?;
                let model = Arc::new(RwLock::new(Model::load(folder)?));
                let tokenizer = Arc::new(Tokenizer::load(folder)?);
                Ok(Box::new(LocalEngine::new(model, tokenizer, model_name(folder), LocalOptions::default())?))
            }
            EngineConfig::Vllm(config) => Ok(Box::new(VllmEngine::connect((**config).clone(), None)?)),
        }
    }

    /// A request for the samples of one prompt; `None` if the engine has none.
    fn request(&self, engine: &dyn Engine, prompt: &Prompt, seed: u64, sampling: &Arc<Sampling>) -> Option<Request> {
        let mut messages = prompt.messages.clone();
        if let Some(system) = &self.config.system
            && messages.first().is_none_or(|m| m.role != crate::schema::Role::System)
        {
            messages.insert(0, Message { role: crate::schema::Role::System, content: system.clone() });
        }
        let mut request = Request {
            prompt_id: prompt.prompt_id.as_str().into(),
            messages: messages.into(),
            samples: Vec::new(),
            sampling: Arc::clone(sampling),
            policy_step: 0,
        };
        let count = engine.available(&request).map_or(self.config.samples, |n| self.config.samples.min(n as u32));
        request.samples = (0..count).map(|i| (i, sample_seed(seed, &prompt.prompt_id, i, 0))).collect();
        (count > 0).then_some(request)
    }
}

impl Stage for GenerateStage {
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::new("prompts", &self.config.prompts, DatasetKind::Prompts)];
        if let EngineConfig::Local(config) = &self.engine {
            inputs.push(Input::model(MODEL, &config.model));
        }
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Completions)
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        self.engine_files(cx.resolve)
            .into_iter()
            // The file's name, not its folder: completions may be named after it.
            .map(|file| Ok((format!("engine/{}", super::file_name(&file)), (cx.digest_file)(&file)?)))
            .collect()
    }

    fn paths(&self) -> &'static [&'static str] {
        &["engine.files"]
    }

    fn expected_rows(&self, inputs: &[Option<u64>]) -> Option<u64> {
        inputs[0].map(|prompts| prompts * u64::from(self.config.samples))
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        let engine = self.open_engine(cx)?;
        let info = engine.info();
        let prompts = cx.input("prompts")?;
        // A shard holds about `shard_rows` completions and never splits a prompt's samples.
        let per_shard = (cx.shard_rows / self.config.samples as usize).max(1);
        let total = prompts.rows()?.div_ceil(per_shard as u64) as usize;
        cx.progress.start(prompts.rows()? * u64::from(self.config.samples), "completions");

        let head =
            serde_json::json!([info.model_digest, cx.seed, self.config.sampling, self.config.system]).to_string();
        let answers = Answers::open(cx, &head, &info.model_digest, per_shard)?;
        let is_open =
            |shard: usize| cx.is_mine(shard) && cx.finished(shard).is_none() && !answers.kept.contains_key(&shard);
        let journal = answers.journal;
        let state = Mutex::new(Open { cx, info: &info, config: &self.config, journal, shards: BTreeMap::new() });
        let mut failure = None;
        let sampling = Arc::new(self.config.sampling.clone());
        let mut rows = prompts.rows_of::<Prompt>();
        let mut not_available = vec![0u64; total];
        let mut shard = 0;
        let mut queue: std::collections::VecDeque<Request> = Default::default();
        let mut requests = std::iter::from_fn(|| {
            while queue.is_empty() && shard < total && failure.is_none() && cx.check_stop().is_ok() {
                let mut step = || -> Result<()> {
                    let mut wanted = Vec::new();
                    for prompt in rows.by_ref().take(per_shard) {
                        let prompt = prompt?;
                        match self.request(&*engine, &prompt, cx.seed, &sampling) {
                            Some(request) => wanted.push(request),
                            None => not_available[shard] += 1,
                        }
                    }
                    if is_open(shard) {
                        let mut state = state.lock().expect("no holder panics");
                        queue.extend(state.open_shard(shard, wanted, not_available[shard], &answers.answered)?);
                    }
                    Ok(())
                };
                if let Err(error) = step() {
                    failure = Some(error);
                }
                shard += 1;
            }
            queue.pop_front()
        });
        engine.generate(&mut requests, &mut |generated| state.lock().expect("no holder panics").take(generated))?;
        if let Some(error) = failure {
            return Err(error);
        }
        cx.check_stop()?;
        let made = state.into_inner().expect("no holder panicked");
        if let Some((shard, _)) = made.shards.iter().find(|(_, s)| s.outcome.is_none()) {
            return Err(Error::new(format!("the engine ended before shard {shard} was complete")));
        }
        let mut fresh: BTreeMap<usize, Outcome> = made
            .shards
            .into_iter()
            .filter_map(|(shard, state)| state.outcome.map(|outcome| (shard, outcome)))
            .collect();
        let mut sum = Outcome::default();
        for shard in 0..total {
            let done = fresh.remove(&shard).or_else(|| answers.kept.get(&shard).or(cx.finished(shard)).cloned());
            sum.absorb(done.ok_or_else(|| cx.waits_for_others(total))?);
        }
        sum.facts.insert("engine".to_owned(), info.engine.into());
        sum.facts.insert("model".to_owned(), info.model.clone().into());
        sum.facts.insert("model_digest".to_owned(), info.model_digest.clone().into());
        sum.facts.insert("deterministic".to_owned(), info.deterministic.into());
        Ok(sum)
    }
}

/// The shards that wait for answers.
struct Open<'a> {
    cx: &'a StageContext<'a>,
    info: &'a EngineInfo,
    config: &'a GenerateConfig,
    journal: Journal,
    shards: BTreeMap<usize, OpenShard>,
}

struct OpenShard {
    /// (prompt's place in the shard) by prompt id.
    order: HashMap<Arc<str>, usize>,
    rows: Vec<(usize, Completion)>,
    missing: usize,
    not_available: u64,
    outcome: Option<Outcome>,
}

impl Open<'_> {
    /// Registers a shard's requests, takes over what the journal has, and answers with what is left to ask.
    fn open_shard(
        &mut self,
        shard: usize,
        wanted: Vec<Request>,
        not_available: u64,
        answered: &HashMap<String, Completion>,
    ) -> Result<Vec<Request>> {
        let order = wanted.iter().enumerate().map(|(place, request)| (Arc::clone(&request.prompt_id), place)).collect();
        let mut open = OpenShard { order, rows: Vec::new(), missing: 0, not_available, outcome: None };
        let mut left = Vec::new();
        for (place, mut request) in wanted.into_iter().enumerate() {
            request.samples.retain(|&(sample, _)| {
                let id = completion_id(self.info, self.config, &request.prompt_id, sample);
                match answered.get(&id) {
                    Some(completion) => {
                        open.rows.push((place, completion.clone()));
                        self.cx.progress.advance(1);
                        false
                    }
                    None => true,
                }
            });
            open.missing += request.samples.len();
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

    /// Takes one answer.
    fn take(&mut self, generated: Generated) -> Result<()> {
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
        if open.missing == 0 { self.write(shard) } else { Ok(()) }
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

/// Counts one row.
fn tally(outcome: &mut Outcome, finish: &str, prompt_tokens: Option<u32>, completion_tokens: Option<u32>) {
    outcome.count(finish, 1);
    let failed = u64::from(finish == FinishReason::Error.as_str());
    let sums = [
        ("failed", failed),
        ("prompt_tokens", prompt_tokens.unwrap_or(0).into()),
        ("completion_tokens", completion_tokens.unwrap_or(0).into()),
    ];
    for (what, n) in sums.into_iter().filter(|(_, n)| *n > 0) {
        outcome.count(what, n);
    }
}

/// Counts the prompts that the engine has nothing for.
fn not_asked(outcome: &mut Outcome, prompts: u64) {
    if prompts > 0 {
        outcome.drops.insert("prompt_without_recording".to_owned(), prompts);
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
