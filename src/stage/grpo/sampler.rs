//! Who samples for the trainer: this process, or vLLM servers that load each step's weights.

use std::sync::Arc;

use serde::Deserialize;

use super::ask::Asker;
use super::rollouts::Rollouts;
use super::servers::{ServerThread, Servers, ServersConfig};
use crate::backend::Backend;
use crate::engine::local::LocalEngine;
use crate::engine::vllm::VllmConfig;
use crate::engine::{Engine, EngineInfo};
use crate::error::{Error, Result};
use crate::model::memory::Limits;
use crate::recipe::{Node, StageTable};
use crate::schema::Prompt;
use crate::stage::StageContext;
use crate::stage::local_engine::LocalTable;
use crate::stage::training::Policy;

/// `engine = { kind = "…", … }` of a grpo stage.
#[derive(Clone, Debug)]
pub enum SamplerConfig {
    /// The trainer's own weights, in this process; how much is taken on at once.
    Local(Limits),
    /// Servers that take over the policy while they run, from the run's folder, which they must be
    /// able to read.
    Vllm(Box<ServersConfig>),
}

/// What the servers take over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sent {
    /// Whole checkpoints (`VLLM_SERVER_DEV_MODE=1`).
    #[default]
    Checkpoint,
    /// The adapters of a policy that trains such (`--enable-lora`,
    /// `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`); the servers have the model that training began with.
    Lora,
}

impl SamplerConfig {
    /// Reads the engine's table; without one, the policy samples itself.
    ///
    /// # Errors
    /// No kind or an unknown one, an unknown key, with its place.
    pub fn read(table: &StageTable, engine: Option<Node>) -> Result<Self> {
        const ENGINES: &str = "engines that follow a policy: local, vllm";
        let Some(mut engine) = engine else { return Ok(SamplerConfig::Local(Limits::default())) };
        let Some(kind) = engine.remove("kind") else {
            return Err(table.origin.locate(Error::usage("the engine has no `kind`")).hint(ENGINES));
        };
        match kind.text() {
            Some("local") => Ok(SamplerConfig::Local(engine.read::<LocalTable>()?.limits())),
            Some("vllm") => {
                let send = engine.remove("send").map(|node| node.read()).transpose()?.unwrap_or_default();
                let tolerance = engine.remove("tolerance");
                let mut config = ServersConfig { send, tolerance: ServersConfig::TOLERANCE, servers: engine.read()? };
                if let Some(node) = tolerance {
                    config.tolerance = node.read()?;
                    if config.tolerance.is_nan() || config.tolerance <= 0.0 {
                        let error = Error::usage(format!("a tolerance of {} nats a token", config.tolerance));
                        return Err(node.origin.locate(error).hint("it is above 0; `inf` turns the check off"));
                    }
                }
                Ok(SamplerConfig::Vllm(Box::new(config)))
            }
            _ => Err(kind.origin.locate(Error::usage("no such engine follows a policy")).hint(ENGINES)),
        }
    }

    /// The servers' settings, if it is servers.
    pub fn servers(&self) -> Option<&VllmConfig> {
        match self {
            SamplerConfig::Local(_) => None,
            SamplerConfig::Vllm(config) => Some(&config.servers),
        }
    }

    /// Whether the policy samples itself.
    pub fn is_local(&self) -> bool {
        matches!(self, SamplerConfig::Local(_))
    }

    /// Whether it is servers that get this.
    pub fn sends(&self, what: Sent) -> bool {
        matches!(self, SamplerConfig::Vllm(config) if config.send == what)
    }

    /// Connects.
    ///
    /// # Errors
    /// No server answers, or the run is in an object store, from where servers cannot load.
    pub fn open<B: Backend>(
        &self,
        cx: &StageContext<'_>,
        policy: &Policy<B>,
        prompts: &[Prompt],
    ) -> Result<Connected<B>> {
        match self {
            SamplerConfig::Local(_) => Ok(Connected::Local(Arc::clone(&policy.engine))),
            SamplerConfig::Vllm(config) => {
                Ok(Connected::Servers(Box::new(Servers::connect(config, cx, policy, prompts)?)))
            }
        }
    }
}

/// A sampler that is connected and not at work yet.
pub enum Connected<B: Backend> {
    Local(Arc<LocalEngine<B>>),
    Servers(Box<Servers<B>>),
}

/// The policy as a sampler, at whatever step it is.
pub enum Sampler<B: Backend> {
    Local(Arc<LocalEngine<B>>),
    Servers(ServerThread<B>),
}

impl<B: Backend> Connected<B> {
    /// The policy as it is now.
    pub fn info(&self, policy: &Policy<B>) -> EngineInfo {
        match self {
            Connected::Local(engine) => engine.info(),
            Connected::Servers(servers) => {
                let model = policy.model.read();
                EngineInfo { model_digest: model.digest(), ..servers.info() }
            }
        }
    }

    /// Ready to be asked; what servers sample comes to the log.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start<'a>(self, cx: &StageContext<'a>, asker: &Arc<Asker>, log: &mut Rollouts<'a>) -> Result<Sampler<B>> {
        Ok(match self {
            Connected::Local(engine) => Sampler::Local(engine),
            Connected::Servers(servers) => Sampler::Servers(servers.start(cx, asker, log)?),
        })
    }
}
