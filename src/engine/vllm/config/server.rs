//! A server started as a child process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::secrets::hide_arguments;
use crate::error::names_a_secret;

/// A server started as a child process (`launch = true`).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The program; `serve MODEL --host 127.0.0.1 --port PORT` and `args` follow.
    pub command: String,
    /// Model name on a hub or path: what `vllm serve` loads.
    pub model: String,
    /// 0 takes a free port.
    pub port: u16,
    /// Further arguments, such as `["--max-model-len", "4096"]`.
    pub args: Vec<String>,
    /// Environment variables beside those of this process.
    pub env: BTreeMap<String, String>,
    /// Where the server's output goes; empty takes a file in the system's temporary folder.
    pub log: PathBuf,
    /// How long the server may take to load its model.
    pub ready_timeout_s: f64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            command: "vllm".into(),
            model: String::new(),
            port: 0,
            args: Vec::new(),
            env: BTreeMap::new(),
            log: PathBuf::new(),
            ready_timeout_s: 900.0,
        }
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("command", &self.command)
            .field("model", &self.model)
            .field("port", &self.port)
            .field("args", &hide_arguments(&self.args))
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl ServerConfig {
    /// Where its output goes if nobody says.
    pub fn default_log(&self) -> PathBuf {
        std::env::temp_dir().join(format!("gristmill-server-{}.log", std::process::id()))
    }

    /// What a server may repeat in its log and must not be shown: what its arguments and its environment
    /// hold under names of secrets.
    pub(in crate::engine::vllm) fn secrets(&self) -> Vec<String> {
        let arguments = self.args.iter().zip(hide_arguments(&self.args)).filter(|(plain, shown)| *plain != shown);
        let arguments = arguments.map(|(plain, _)| plain.split_once('=').map_or(plain.as_str(), |(_, value)| value));
        let env = self.env.iter().filter(|(name, _)| names_a_secret(name)).map(|(_, value)| value.as_str());
        arguments.chain(env).filter(|secret| !secret.is_empty()).map(str::to_owned).collect()
    }
}
