//! Who answers: the engine's table of a `generate` stage, what it reads, and how it opens.

use std::sync::Arc;

use serde::Deserialize;

use crate::backend::Opened;
use crate::device::Device;
use crate::engine::local::LocalEngine;
use crate::engine::replay::{Replay, ReplayConfig};
use crate::engine::vllm::{Template, VllmConfig};
use crate::engine::{Engine, Sampling};
use crate::error::{Error, Result};
use crate::model::Config;
use crate::model::memory::{Limits, Load};
use crate::prompts::files::expand;
use crate::recipe::{Base, Node, StageTable};
use crate::stage::local_engine::{Count, Gib, HOW_LOCAL, LocalTable};
use crate::stage::open_engine::OpenEngine;
use crate::stage::servers::{self, HOW_SERVED, ServedModel, WHERE_SERVED};
use crate::stage::{Fault, Input, Models, StageContext, chat_template, model_name};
use crate::store::{digest_files, local_file};

/// Who answers: `engine = { kind = "…", … }`.
#[derive(Clone, Debug)]
pub(super) enum EngineConfig {
    Replay(ReplayConfig),
    Local(LocalConfig),
    /// Servers; with a policy, servers of that model.
    Vllm {
        config: Box<VllmConfig>,
        policy: Option<String>,
    },
}

/// The embedded engine: a model in Hugging Face form, run in this process.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LocalConfig {
    /// A stage that trains one, or a folder with `config.json`, safetensors and `tokenizer.json`.
    model: String,
    /// A file of Jinja, or a built-in template's name, instead of the model's own chat template.
    chat_template: Option<String>,
    /// How much it takes on at once; see [`LocalTable`].
    batch: Option<Count>,
    cache_gib: Option<Gib>,
    prefill_tokens: Option<Count>,
}

impl LocalConfig {
    fn limits(&self) -> Limits {
        let LocalConfig { batch, cache_gib, prefill_tokens, .. } = *self;
        LocalTable { batch, cache_gib, prefill_tokens }.limits()
    }
}

const ENGINES: &str = "engines: local, replay, vllm";

/// What the embedded engine's model is called among the inputs.
const MODEL: &str = "engine.model";
/// What the model that servers are made to serve is called among the inputs.
const POLICY: &str = "engine.policy";
/// What the folder of `template = "ours"` is called among the inputs.
const TOKENIZER: &str = "engine.tokenizer";

impl EngineConfig {
    /// Reads the engine's table.
    ///
    /// # Errors
    /// No engine, an unknown one, an unknown key, with its place.
    pub fn read(table: &StageTable, engine: Option<Node>) -> Result<Self> {
        let Some(mut engine) = engine else {
            let error = Error::usage(format!("the stage `{}` has no engine", table.name));
            return Err(table.origin.locate(error).hint("add `engine = { kind = \"replay\", … }`"));
        };
        let Some(kind) = engine.remove("kind") else {
            return Err(engine.origin.locate(Error::usage("the engine has no `kind`")).hint(ENGINES));
        };
        Ok(match kind.text() {
            Some("replay") => EngineConfig::Replay(engine.read()?),
            Some("local") => EngineConfig::Local(engine.read()?),
            Some("vllm") => {
                let policy = engine.remove("policy").map(|policy| policy.read()).transpose()?;
                EngineConfig::Vllm { config: Box::new(engine.read()?), policy }
            }
            _ => return Err(kind.origin.locate(Error::usage("there is no such engine")).hint(ENGINES)),
        })
    }

    /// # Errors
    /// Settings that cannot be used, as far as that can be told before the stage runs.
    pub fn check(&self) -> Result<(), Fault> {
        let EngineConfig::Vllm { config, policy } = self else { return Ok(()) };
        servers::check(config, policy.is_some())
    }

    /// # Errors
    /// This process lacks the key of the servers.
    pub fn check_process(&self) -> Result<(), Fault> {
        let EngineConfig::Vllm { config, .. } = self else { return Ok(()) };
        servers::check_process(config)
    }

    /// The models it reads.
    pub fn inputs(&self) -> Option<Input> {
        match self {
            EngineConfig::Local(config) => Some(Input::model(MODEL, &config.model)),
            EngineConfig::Vllm { policy: Some(of), .. } => Some(Input::model(POLICY, of)),
            EngineConfig::Vllm { config, policy: None } => {
                config.tokenizer.as_ref().map(|of| Input::model(TOKENIZER, of))
            }
            EngineConfig::Replay(_) => None,
        }
    }

    /// Keys whose change is no reason to ask again.
    pub fn unfingerprinted_keys(&self) -> Vec<&'static str> {
        match self {
            EngineConfig::Replay(_) => vec!["engine.files"],
            EngineConfig::Local(_) => [&["engine.chat_template"], HOW_LOCAL].concat(),
            EngineConfig::Vllm { config, policy } => {
                // Where the recipe names the model, it may be served anywhere.
                let anywhere = policy.is_some() || !config.model.is_empty();
                [HOW_SERVED, if anywhere { &[WHERE_SERVED] } else { &[] }].concat()
            }
        }
    }

    /// What the stage holds where the model is in this process.
    ///
    /// # Errors
    /// Its configuration cannot be read, or it has no chat template.
    pub fn memory(&self, models: &Models<'_>) -> Result<Vec<(Config, Load)>> {
        let local = match self {
            EngineConfig::Local(local) => local,
            EngineConfig::Vllm { config, policy: Some(of) } if config.template != Template::Plain => {
                return models.check_chat_template(of).map(|()| Vec::new());
            }
            EngineConfig::Replay(_) | EngineConfig::Vllm { .. } => return Ok(Vec::new()),
        };
        let config = (models.config)(&local.model)?;
        if local.chat_template.is_none() {
            models.check_chat_template(&local.model)?;
        }
        let load = Load { decoding: Some(local.limits()), ..Load::default() };
        Ok(vec![(config, load)])
    }

    /// Whether the model is told by servers when the stage runs, and by nothing that the stage depends on.
    pub fn is_served(&self) -> bool {
        matches!(self, EngineConfig::Vllm { policy: None, .. })
    }

    /// What else decides an answer beside model and sampling, where there is a choice: what rows are to hold
    /// beside their text, and who makes tokens of the prompts. An answer that was kept under another choice
    /// is none.
    ///
    /// # Errors
    /// The tokenizer cannot be read.
    pub fn asks_for(&self, cx: &StageContext<'_>) -> Result<serde_json::Value> {
        let (config, policy) = match self {
            EngineConfig::Vllm { config, policy } => (config, policy),
            EngineConfig::Local(local) => {
                let template = local.chat_template.as_deref();
                let source = template.map(|template| chat_template::source(template, cx.base)).transpose()?;
                let source = source.map_or(serde_json::Value::Null, Into::into);
                // A GPU rounds differently than the CPU.
                return Ok(if cx.device == Device::Cpu { source } else { serde_json::json!([source, "gpu"]) });
            }
            EngineConfig::Replay(_) => return Ok(serde_json::Value::Null),
        };
        let ours = config.tokenizer.as_ref().filter(|_| policy.is_none());
        servers::rows_hold(config, ours.map(|_| cx.input_folder(TOKENIZER)).transpose()?)
    }

    /// The chat template that is to be used instead of the model's own.
    pub fn chat_template(&self) -> Option<&str> {
        match self {
            EngineConfig::Local(config) => config.chat_template.as_deref(),
            EngineConfig::Replay(_) | EngineConfig::Vllm { .. } => None,
        }
    }

    /// The files whose bytes decide what the engine answers; of URLs, copies.
    ///
    /// # Errors
    /// An object that cannot be fetched.
    pub fn files(&self, base: &Base) -> Result<Vec<String>> {
        match self {
            EngineConfig::Replay(config) => {
                let mut files = Vec::new();
                for file in &config.files {
                    for found in expand(file, base.folder(), &|| Ok(()))? {
                        files.push(local_file(&found.to_string())?);
                    }
                }
                Ok(files)
            }
            // The model is an input; a server's identifies itself when the stage runs.
            EngineConfig::Local(_) | EngineConfig::Vllm { .. } => Ok(Vec::new()),
        }
    }

    /// # Errors
    /// A recording or a model that cannot be read; no server, or one that cannot be used.
    pub fn open(&self, cx: &StageContext<'_>, sampling: &Sampling) -> Result<OpenEngine> {
        let files = self.files(cx.base)?;
        let engine: Box<dyn Engine> = match self {
            EngineConfig::Replay(config) => {
                let digest = digest_files("the recordings", &files)?;
                let paths: Vec<_> = files.iter().map(Into::into).collect();
                Box::new(Replay::open(config, &paths, digest, cx.run_folder.as_local())?)
            }
            EngineConfig::Local(config) => {
                let folder = cx.input_folder(MODEL)?;
                let template = config.chat_template.as_deref();
                let tokenizer = chat_template::tokenizer(folder, template, cx.base)?;
                tokenizer.check_chat_template()?;
                let (tokenizer, name, temperature) = (Arc::new(tokenizer), model_name(folder), sampling.temperature);
                let limits = config.limits();
                match cx.device.open()? {
                    Opened::Cpu(on) => Box::new(LocalEngine::load(on, folder, tokenizer, name, temperature, limits)?),
                    Opened::Cuda(on) => Box::new(LocalEngine::load(on, folder, tokenizer, name, temperature, limits)?),
                }
            }
            EngineConfig::Vllm { config, policy: Some(_) } => {
                return Ok(OpenEngine::Policy(Box::new(ServedModel::open(
                    config,
                    cx,
                    cx.input_folder(POLICY)?,
                    None,
                )?)));
            }
            EngineConfig::Vllm { config, policy: None } => {
                let tokenizer = config.tokenizer.as_ref().map(|_| cx.input_folder(TOKENIZER)).transpose()?;
                return Ok(OpenEngine::Servers(Box::new(servers::connect(config, cx, tokenizer)?)));
            }
        };
        Ok(OpenEngine::Local(engine))
    }
}
