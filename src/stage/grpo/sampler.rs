//! Who samples for the trainer: this process, or vLLM servers that load each step's weights.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use crate::backend::Backend;
use crate::engine::local::{LocalEngine, Options};
use crate::engine::vllm::{PolicyServers, PolicyWeights, VllmConfig};
use crate::engine::{Engine, EngineInfo};
use crate::error::{Error, Result};
use crate::model::Dtype;
use crate::recipe::{Node, StageTable};
use crate::stage::StageContext;
use crate::stage::training::Policy;
use crate::train::SharedModel;

/// `engine = { kind = "…", … }` of a grpo stage.
#[derive(Clone, Debug)]
pub enum SamplerConfig {
    /// The trainer's own weights, in this process.
    Local,
    /// Servers that load whole checkpoints while they run (`VLLM_SERVER_DEV_MODE=1`), from the
    /// run's folder, which they must be able to read.
    Vllm(Box<VllmConfig>),
}

impl SamplerConfig {
    /// Reads the engine's table; without one, the policy samples itself.
    ///
    /// # Errors
    /// No kind or an unknown one, an unknown key, with its place.
    pub fn read(table: &StageTable, engine: Option<Node>) -> Result<Self> {
        const ENGINES: &str = "engines that follow a policy: local, vllm";
        let Some(mut engine) = engine else { return Ok(SamplerConfig::Local) };
        let Some(kind) = engine.remove("kind") else {
            return Err(table.origin.locate(Error::usage("the engine has no `kind`")).hint(ENGINES));
        };
        match kind.text() {
            Some("local") => Ok(SamplerConfig::Local),
            Some("vllm") => Ok(SamplerConfig::Vllm(Box::new(engine.read()?))),
            _ => Err(kind.origin.locate(Error::usage("no such engine follows a policy")).hint(ENGINES)),
        }
    }
}

/// The policy as a sampler, at whatever step it is.
pub enum Sampler<B: Backend> {
    Local(LocalEngine<B>),
    Served(Served<B>),
}

/// Servers, and the folder through which the policy reaches them.
pub struct Served<B: Backend> {
    servers: PolicyServers,
    model: SharedModel<B>,
    /// Holds the weights of the step that the servers have; a server that comes back reads them.
    folder: PathBuf,
}

impl<B: Backend> Sampler<B> {
    /// # Errors
    /// No server answers, or the run is in an object store, from where servers cannot load.
    pub fn open(config: &SamplerConfig, cx: &StageContext<'_>, policy: &Policy<B>) -> Result<Self> {
        let (model, tokenizer) = (Arc::clone(&policy.model), Arc::clone(&policy.tokenizer));
        match config {
            SamplerConfig::Local => {
                Ok(Sampler::Local(LocalEngine::new(model, tokenizer, cx.name, Options::default())?))
            }
            SamplerConfig::Vllm(config) => {
                let folder = cx.local_folder()?.join("policy");
                remove(&folder)?;
                let servers = PolicyServers::connect((**config).clone(), tokenizer)?;
                Ok(Sampler::Served(Served { servers, model, folder }))
            }
        }
    }

    /// The policy as it is now.
    pub fn info(&self, policy: &Policy<B>) -> EngineInfo {
        match self {
            Sampler::Local(engine) => engine.info(),
            Sampler::Served(served) => {
                let model = policy.model.read().unwrap_or_else(PoisonError::into_inner);
                EngineInfo { model_digest: model.digest(), ..served.servers.info() }
            }
        }
    }

    /// The engine that samples from the policy of this step.
    ///
    /// # Errors
    /// The weights cannot be written, or a server does not load them.
    pub fn at_step(&mut self, step: u64) -> Result<&dyn Engine> {
        match self {
            Sampler::Local(engine) => Ok(engine),
            Sampler::Served(served) => {
                if served.servers.policy_step() != Some(step) {
                    served.follow(step)?;
                }
                Ok(&served.servers)
            }
        }
    }
}

impl<B: Backend> Served<B> {
    /// A folder for each step, since servers may still read the last one's; that goes afterwards.
    fn follow(&mut self, step: u64) -> Result<()> {
        let last = self.servers.policy_step().map(|step| self.step_folder(step));
        let dir = self.step_folder(step);
        self.model.read().unwrap_or_else(PoisonError::into_inner).save(&dir, Dtype::F32)?;
        self.servers.load(step, &PolicyWeights::Checkpoint(dir))?;
        last.map_or(Ok(()), |dir| remove(&dir))
    }

    fn step_folder(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:06}"))
    }
}

impl<B: Backend> Drop for Served<B> {
    fn drop(&mut self) {
        // Weights left behind cost disk and nothing else: the next run removes them.
        let _ = remove(&self.folder);
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new("the policy's old weights cannot be removed").in_file(folder.display()).caused_by(e))
        }
        _ => Ok(()),
    }
}
