//! `generate`: an engine answers every prompt so many times.
//!
//! Shards are fixed before the first request: shard `k` holds all samples of a run of
//! prompts. Finished requests go to a journal as they arrive, so a kill costs only what was
//! in flight; a shard whose last sample has arrived is sorted and written.

mod adaptive;
mod answers;
mod open;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use serde::Deserialize;

use self::adaptive::{Adaptive, Asked, Until};
use self::answers::Answers;
use self::open::Open;
use super::{Input, Materials, Outcome, Stage, StageContext, model_name, rules_path};
use crate::backend::{Backend, Opened};
use crate::engine::local::{LocalEngine, Options as LocalOptions};
use crate::engine::replay::{Replay, ReplayConfig};
use crate::engine::vllm::{VllmConfig, VllmEngine, chat_encoder};
use crate::engine::{Engine, Request, Sampling};
use crate::error::{Error, Result};
use crate::model::{Model, Tokenizer};
use crate::recipe::StageTable;
use crate::rule::file::RuleSet;
use crate::schema::{DatasetKind, FinishReason, Message, Prompt};
use crate::seed::sample_seed;

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
    /// Sample more of each prompt, in rounds, until enough is known of it.
    until: Option<Until>,
}

impl GenerateConfig {
    /// Most completions of a prompt.
    fn most_samples(&self) -> u32 {
        self.until.as_ref().map_or(self.samples, |until| until.samples)
    }
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
/// What the folder of `template = "ours"` is called among the inputs.
const TOKENIZER: &str = "engine.tokenizer";

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
        if let Some(until) = &config.until {
            until.validate(config.samples).map_err(|error| table.origin.locate(error))?;
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
                match cx.device.open()? {
                    Opened::Cpu(backend) => local(backend, folder),
                    Opened::Cuda(backend) => local(backend, folder),
                }
            }
            EngineConfig::Vllm(config) => {
                let tokenizer = config.tokenizer.as_ref().map(|_| Tokenizer::load(cx.input_folder(TOKENIZER)?));
                let encoder = tokenizer.transpose()?.map(|tokenizer| chat_encoder(Arc::new(tokenizer)));
                Ok(Box::new(VllmEngine::connect((**config).clone(), encoder)?))
            }
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
        if let EngineConfig::Vllm(config) = &self.engine {
            inputs.extend(config.tokenizer.iter().map(|of| Input::model(TOKENIZER, of)));
        }
        inputs
    }

    fn output(&self) -> Option<DatasetKind> {
        Some(DatasetKind::Completions)
    }

    fn materials(&self, cx: &Materials<'_>) -> Result<Vec<(String, String)>> {
        let files = self.engine_files(cx.resolve).into_iter();
        let mut materials: Vec<(String, String)> = files
            // The file's name, not its folder: completions may be named after it.
            .map(|file| Ok((format!("engine/{}", super::file_name(&file)), (cx.digest_file)(&file)?)))
            .collect::<Result<_>>()?;
        if let Some(until) = &self.config.until {
            let rules = RuleSet::load(&rules_path(&until.rules, cx.resolve))?;
            materials.push(("rules".to_owned(), rules.digest().to_owned()));
        }
        Ok(materials)
    }

    fn paths(&self) -> &'static [&'static str] {
        &["engine.files"]
    }

    fn expected_rows(&self, inputs: &[Option<u64>]) -> Option<u64> {
        if self.config.until.is_some() {
            return None;
        }
        inputs[0].map(|prompts| prompts * u64::from(self.config.samples))
    }

    fn run(&self, cx: &StageContext<'_>) -> Result<Outcome> {
        let engine = self.open_engine(cx)?;
        let info = engine.info();
        let prompts = cx.input("prompts")?;
        // A shard holds about `shard_rows` completions and never splits a prompt's samples.
        let per_shard = (cx.shard_rows / self.config.most_samples() as usize).max(1);
        let total = prompts.rows()?.div_ceil(per_shard as u64) as usize;
        let expected = if self.config.until.is_some() { 0 } else { prompts.rows()? * u64::from(self.config.samples) };
        cx.progress.start(expected, "completions");
        let until = self.config.until.as_ref();
        let rules = |until: &Until| rules_path(&until.rules, &|path| cx.resolve(path));
        let adaptive = until.map(|until| Adaptive::new(until, self.config.samples, &rules(until))).transpose()?;

        let head =
            serde_json::json!([info.model_digest, cx.seed, self.config.sampling, self.config.system]).to_string();
        let answers = Answers::open(cx, &head, &info.model_digest, per_shard)?;
        let is_open =
            |shard: usize| cx.is_mine(shard) && cx.finished(shard).is_none() && !answers.kept.contains_key(&shard);
        let state = Mutex::new(Open {
            cx,
            info: &info,
            config: &self.config,
            adaptive: adaptive.as_ref(),
            journal: answers.journal,
            answered: &answers.answered,
            shards: BTreeMap::new(),
            more: VecDeque::new(),
        });
        let failure = Mutex::new(None);
        let sampling = Arc::new(self.config.sampling.clone());
        let mut rows = prompts.rows_of::<Prompt>();
        let mut not_available = vec![0u64; total];
        let mut shard = 0;
        let mut queue: VecDeque<Request> = VecDeque::new();
        let mut requests = std::iter::from_fn(|| {
            let going = || failure.lock().expect("no holder panics").is_none() && cx.check_stop().is_ok();
            // Further rounds first: their shards are open.
            if going()
                && let Some(request) = state.lock().expect("no holder panics").more.pop_front()
            {
                return Some(request);
            }
            while queue.is_empty() && shard < total && going() {
                let mut step = || -> Result<()> {
                    let mut wanted = Vec::new();
                    for prompt in rows.by_ref().take(per_shard) {
                        let prompt = prompt?;
                        match self.request(&*engine, &prompt, cx.seed, &sampling) {
                            Some(request) => {
                                let asked = until.map(|until| {
                                    Asked::new(prompt, request.clone(), until, engine.available(&request))
                                });
                                wanted.push((request, asked));
                            }
                            None => not_available[shard] += 1,
                        }
                    }
                    if is_open(shard) {
                        let mut state = state.lock().expect("no holder panics");
                        queue.extend(state.open_shard(shard, wanted, not_available[shard])?);
                    }
                    Ok(())
                };
                if let Err(error) = step() {
                    *failure.lock().expect("no holder panics") = Some(error);
                }
                shard += 1;
            }
            queue.pop_front()
        });
        // Once more for rounds that were decided on after the engine had seen the last request.
        loop {
            engine.generate(&mut requests, &mut |generated| state.lock().expect("no holder panics").take(generated))?;
            if let Some(error) = failure.lock().expect("no holder panics").take() {
                return Err(error);
            }
            cx.check_stop()?;
            if state.lock().expect("no holder panics").more.is_empty() {
                break;
            }
        }
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

/// The model in a folder as an engine.
fn local<B: Backend>(backend: B, folder: &Path) -> Result<Box<dyn Engine>> {
    let model = Arc::new(RwLock::new(Model::load_on(backend, folder)?));
    let tokenizer = Arc::new(Tokenizer::load(folder)?);
    Ok(Box::new(LocalEngine::new(model, tokenizer, model_name(folder), LocalOptions::default())?))
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
