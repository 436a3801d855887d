//! What `generate` and `eval` ask of vLLM servers: settings, servers with a model of their own, and a model of this run
//! at servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::SENT;
use super::{Fault, StageContext, chat_template, model_files, model_name};
use crate::engine::vllm::{Template, VllmConfig, VllmEngine, WrongSetting, chat_encoder};
use crate::engine::{Engine, EngineInfo, Generated, Request};
use crate::error::{Context, Error, Result};
use crate::model::{Config, Dtype, Model, Tokenizer};
use crate::seed::content_id;
use crate::store::digest_files;

/// Keys of an engine's table that say how and not what servers are asked, dotted from the stage's table.
pub(super) const HOW_SERVED: &[&str] = &[
    "engine.api_key_env",
    "engine.ca_file",
    "engine.stream",
    "engine.request_timeout_s",
    "engine.token_timeout_s",
    "engine.connect_timeout_s",
    "engine.startup_timeout_s",
    "engine.give_up_after_s",
    "engine.drain_timeout_s",
    "engine.max_attempts",
    "engine.max_concurrency",
    "engine.threads",
    "engine.allow_different_roots",
    "engine.prices",
    "engine.metrics",
    "engine.server.command",
    "engine.server.port",
    "engine.server.log",
    "engine.server.ready_timeout_s",
];
/// The key of the servers' addresses: of no account where the model is known otherwise.
pub(super) const WHERE_SERVED: &str = "engine.endpoints";

/// Looks for settings of servers that cannot be used before any is asked. Of a model of the run (`policy`) the
/// prompts are encoded here, and the stage names the model that a server is started with.
///
/// # Errors
/// As [`VllmConfig::check`], with the key in the stage's table.
pub(super) fn check(config: &VllmConfig, policy: bool) -> Result<(), Fault> {
    let mut config = config.clone();
    if policy {
        config = config.asking_in_tokens();
        config.server.model = "policy".to_owned();
    } else if config.template == Template::Ours && config.tokenizer.is_none() {
        let error = Error::usage("`template = \"ours\"` needs the model's tokenizer on this machine");
        let hint = "name the folder with its tokenizer.json: `tokenizer = \"models/NAME\"`";
        return Err(Fault::new("engine.template", error.hint(hint)));
    }
    config.check().map_err(fault)
}

/// Looks for what servers need of this process's environment: the key.
///
/// # Errors
/// It is not there.
pub(super) fn check_process(config: &VllmConfig) -> Result<(), Fault> {
    config.check_api_key().map_err(fault)
}

fn fault(wrong: WrongSetting) -> Fault {
    Fault::new(format!("engine.{}", wrong.key), wrong.error)
}

/// Servers that are asked for the model that they have; `tokenizer` is the folder of `template = "ours"`.
///
/// # Errors
/// No tokenizer there; no server answers, or one cannot be started.
pub fn connect(config: &VllmConfig, cx: &StageContext<'_>, tokenizer: Option<&Path>) -> Result<VllmEngine> {
    let tokenizer = tokenizer.map(Tokenizer::load).transpose()?;
    let encoder = tokenizer.map(|tokenizer| chat_encoder(Arc::new(tokenizer)));
    let mut config = config.clone();
    name_server_log(&mut config, cx);
    VllmEngine::connect_until(config, encoder, cx.stop)
}

/// An engine that asks servers for the model in a folder.
///
/// Prompts go out as token ids of the model's own chat template (or as plain text with
/// `template = "plain"`), since a running server keeps the template of the model it was started with.
pub struct ServedModel {
    engine: VllmEngine,
    info: EngineInfo,
    /// A copy made for the servers.
    untied: Option<PathBuf>,
}

impl ServedModel {
    /// Starts a server with the model (`launch = true`), or makes the servers that run load it.
    ///
    /// # Errors
    /// The folder holds no model, or one without a chat template where none is given, no server answers, or one cannot load weights while it runs; the
    /// error names the ways to start one that can.
    pub fn open(
        config: &VllmConfig,
        cx: &StageContext<'_>,
        folder: &Path,
        chat_template: Option<&str>,
    ) -> Result<Self> {
        let model_digest = ServedModel::identity(config, cx, folder, chat_template)?;
        let tokenizer = chat_template::tokenizer(folder, chat_template, cx.base)?;
        if config.template != Template::Plain {
            tokenizer.check_chat_template()?;
        }
        let tokenizer = Arc::new(tokenizer);
        let mut config = config.clone().asking_in_tokens();
        if config.launch {
            let folder = std::path::absolute(folder).or_fail(|| "the model's folder has no path".into())?;
            config.server.model = folder.display().to_string();
        }
        name_server_log(&mut config, cx);
        let launched = config.launch;
        let engine = VllmEngine::connect_until(config, Some(chat_encoder(tokenizer)), cx.stop)?;
        let info = EngineInfo { model: model_name(folder), model_digest, ..engine.info() };
        let mut served = ServedModel { engine, info, untied: None };
        if !launched {
            served.load(cx, folder)?;
        }
        served.engine.take_news().iter().for_each(|line| cx.progress.say(line));
        Ok(served)
    }

    /// What its completions say of the model, `model_digest`: its files and how servers are asked for it. What a server
    /// says of itself is the model it was started with.
    ///
    /// # Errors
    /// A file of the model or the chat template cannot be read.
    pub fn identity(
        config: &VllmConfig,
        cx: &StageContext<'_>,
        folder: &Path,
        chat_template: Option<&str>,
    ) -> Result<String> {
        let template = config.clone().asking_in_tokens().template;
        let mut settings = serde_json::json!([template, config.extra_body, config.n_per_request]).to_string();
        let plain = VllmConfig::default();
        if config.reasoning != plain.reasoning || config.continue_rounds > 0 {
            let continued = (config.continue_rounds > 0).then_some((config.continue_rounds, config.continue_tokens));
            settings += &serde_json::json!([config.reasoning, continued]).to_string();
        }
        settings.extend(config.other_keys().map(|keys| keys.to_string()));
        if let Some(template) = chat_template {
            settings += &chat_template::source(template, cx.base)?;
        }
        Ok(content_id([digest(folder)?.as_bytes(), settings.as_bytes()]))
    }

    /// The servers behind it.
    pub fn servers(&self) -> &VllmEngine {
        &self.engine
    }

    /// Running servers may keep the head of the model before, where the checkpoint has none of its own.
    fn load(&mut self, cx: &StageContext<'_>, folder: &Path) -> Result<()> {
        if !Config::load(folder)?.tied {
            return self.engine.reload_weights(folder);
        }
        let copy = cx.local_folder()?.join(SENT);
        self.untied = Some(copy.clone());
        Model::load(folder)?.save_untied(&copy, Dtype::F32)?;
        self.engine.reload_weights(&copy)
    }
}

impl Drop for ServedModel {
    fn drop(&mut self) {
        // Weights left behind cost disk and nothing else.
        let _ = self.untied.as_ref().map(std::fs::remove_dir_all);
    }
}

impl Engine for ServedModel {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        self.engine.generate(requests, sink)
    }
}

/// What rows are to hold beside their text, and who makes tokens of the prompts: `tokenizer` is the folder of
/// `template = "ours"`, of whose files a BLAKE3 tells.
///
/// # Errors
/// The tokenizer cannot be read.
pub fn rows_hold(config: &VllmConfig, tokenizer: Option<&Path>) -> Result<serde_json::Value> {
    let digest = |folder: &Path| {
        let files = Tokenizer::FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.exists());
        digest_files("the tokenizer", files)
    };
    Ok(serde_json::json!([config.logprobs, config.token_ids, tokenizer.map(digest).transpose()?]))
}

/// BLAKE3 of the files that decide what a model answers.
pub fn digest(folder: &Path) -> Result<String> {
    digest_files("the model", model_files(folder))
}

/// Where a server's log goes that is started for a stage: into the run's folder, under the stage's
/// name, unless the recipe says where. The user is told.
pub(super) fn name_server_log(config: &mut VllmConfig, cx: &StageContext<'_>) {
    if !config.launch {
        return;
    }
    let server = &mut config.server;
    if server.log.as_os_str().is_empty() {
        server.log = match cx.run_folder.as_local() {
            Some(folder) => folder.join(format!("{}.server.log", cx.name)),
            None => server.default_log(),
        };
    }
    cx.progress.say(&format!(
        "starting `{} serve {}`; its log: {}",
        server.command,
        server.model,
        server.log.display()
    ));
}
