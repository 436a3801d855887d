//! New weights for running servers: the policy moves, the servers follow.
//!
//! Two ways. With `VLLM_SERVER_DEV_MODE=1` a server reads a whole checkpoint in
//! place (pause, reload, forget cached prefixes, resume). With
//! `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True` it loads a LoRA adapter over the one
//! of the same name. Both open the server to anyone who can reach it, so both
//! belong on a private network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::VllmEngine;
use super::fault::{Fatal, Fault, FaultKind};
use super::transport::Endpoint;
use crate::error::{Error, Result};

/// What the servers were last told to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Weights {
    Checkpoint(PathBuf),
    Lora { name: String, path: PathBuf },
}

/// Loading may read many gigabytes, and a pause waits for long completions.
const LOAD_DEADLINE: Duration = Duration::from_secs(1800);
const SHORT: Duration = Duration::from_secs(60);

impl VllmEngine {
    /// Makes every server load the checkpoint in `dir` (HF safetensors, a path the servers can read).
    /// Requests in flight are finished with the old weights first; prefixes cached under them are forgotten.
    ///
    /// # Errors
    /// A server is not in development mode, refuses the checkpoint, or none is up. A server that is
    /// down is no error: it loads the checkpoint before it is used again.
    pub fn reload_weights(&self, dir: &Path) -> Result<()> {
        let dir = absolute(dir)?;
        let holds_weights = std::fs::read_dir(&dir).is_ok_and(|mut files| {
            files.any(|f| f.is_ok_and(|f| f.path().extension().is_some_and(|e| e == "safetensors")))
        });
        if !holds_weights {
            return Err(Error::new("the folder holds no safetensors").in_file(dir.display()));
        }
        self.install_everywhere(Weights::Checkpoint(dir))
    }

    /// Makes every server load the LoRA adapter in `dir` as `name`, over the one it has under that
    /// name, and sends the requests that follow to it.
    ///
    /// # Errors
    /// As [`VllmEngine::reload_weights`].
    pub fn load_lora(&self, name: &str, dir: &Path) -> Result<()> {
        self.install_everywhere(Weights::Lora { name: name.to_owned(), path: absolute(dir)? })?;
        *self.shared.model.write().unwrap_or_else(|e| e.into_inner()) = name.to_owned();
        Ok(())
    }

    fn install_everywhere(&self, weights: Weights) -> Result<()> {
        let shared = self.shared.clone();
        let outcomes = self.wait(async move {
            // An endpoint that comes back meanwhile waits, and then loads these.
            let _loading = shared.loading.lock().await;
            *shared.installed.lock().unwrap_or_else(|e| e.into_inner()) = Some(weights.clone());
            let pool = &shared.pool;
            let up = (0..pool.endpoints.len()).filter(|&at| pool.is_up(at));
            let loads = up.map(|at| {
                let weights = &weights;
                async move { (at, install(&pool.endpoints[at], weights).await) }
            });
            futures::future::join_all(loads).await
        })?;
        let mut loaded = 0;
        for (at, outcome) in outcomes {
            match outcome {
                Ok(()) => loaded += 1,
                // Gone since it was last used: it is probed, and loads the weights when it is back.
                Err(fault) if matches!(fault.kind, FaultKind::Unreachable | FaultKind::Reset) => {
                    self.shared.pool.open(at);
                }
                Err(fault) => return Err(explain(&self.shared.pool.endpoints[at], &fault).into()),
            }
        }
        if loaded == 0 {
            return Err(Error::new("no server is up to load the new weights"));
        }
        Ok(())
    }
}

fn absolute(dir: &Path) -> Result<PathBuf> {
    if !dir.is_dir() {
        return Err(Error::new("there is no such folder of weights").in_file(dir.display()));
    }
    std::path::absolute(dir)
        .map_err(|e| Error::new("the folder has no absolute path").in_file(dir.display()).caused_by(e))
}

/// Loads weights into one server and leaves it serving, also if loading failed.
pub(super) async fn install(endpoint: &Endpoint, weights: &Weights) -> Result<(), Fault> {
    let send = |path: &'static str, body: serde_json::Value, deadline| async move {
        endpoint.post(path, if body.is_null() { Vec::new() } else { body.to_string().into_bytes() }, deadline).await
    };
    match weights {
        Weights::Lora { name, path } => {
            let body = json!({"lora_name": name, "lora_path": path, "load_inplace": true});
            send("v1/load_lora_adapter", body, LOAD_DEADLINE).await.map(drop)
        }
        Weights::Checkpoint(dir) => {
            send("pause?mode=wait", serde_json::Value::Null, LOAD_DEADLINE).await?;
            let loading = async {
                let body = json!({"method": "reload_weights", "kwargs": {"weights_path": dir}});
                send("collective_rpc", body, LOAD_DEADLINE).await?;
                send("reset_prefix_cache", serde_json::Value::Null, SHORT).await
            };
            let loaded = loading.await;
            let resumed = send("resume", serde_json::Value::Null, SHORT).await;
            loaded.and(resumed).map(drop)
        }
    }
}

fn explain(endpoint: &Endpoint, fault: &Fault) -> Fatal {
    let at = &endpoint.address;
    match fault.kind {
        FaultKind::WrongAddress | FaultKind::UnknownModel | FaultKind::Unauthorized => {
            Fatal::new(format!("{at} cannot load new weights while it runs ({})", fault.message))
                .hint("whole checkpoints: start vLLM with VLLM_SERVER_DEV_MODE=1, on a private network only")
                .hint("LoRA adapters: start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True")
        }
        _ => Fatal::new(format!("{at} did not load the new weights: {}", fault.message))
            .hint("can the server read that path, and does the checkpoint fit the model it serves?"),
    }
}
