//! New weights for running servers: the policy moves, the servers follow.
//!
//! Two ways. With `VLLM_SERVER_DEV_MODE=1` a server reads a whole checkpoint in
//! place (pause, reload, forget cached prefixes, resume). With
//! `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True` it loads a LoRA adapter over the one
//! of the same name. Both open the server to anyone who can reach it, so both
//! belong on a private network.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::VllmEngine;
use super::config::seconds;
use super::fault::{Fatal, Fault, FaultKind};
use super::policy::PolicyWeights;
use super::probe::{Probe, verify};
use super::transport::Endpoint;
use crate::error::{Error, Result};

/// What the servers were last told to load, and how it must then answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Weights {
    pub source: PolicyWeights,
    pub probe: Option<Arc<Probe>>,
}

/// Loading may read many gigabytes, and a pause waits for long completions.
const LOAD_DEADLINE: Duration = Duration::from_secs(1800);
const SHORT: Duration = Duration::from_secs(60);

impl VllmEngine {
    /// Makes every server load the checkpoint in `dir` (HF safetensors, a path the servers can read).
    /// Requests in flight are finished with the old weights first; prefixes cached under them are forgotten.
    ///
    /// # Errors
    /// A server is not in development mode or refuses the checkpoint; none was up for `give_up_after_s`.
    /// A server that is down is no error: it loads the checkpoint before it is used again.
    pub fn reload_weights(&self, dir: &Path) -> Result<()> {
        self.load_policy(&PolicyWeights::Checkpoint(dir.to_owned()), None).map(drop)
    }

    /// Makes every server load these weights; with a probe, each must then read its text as it says.
    /// Answers with the greatest mean difference among the servers, in nats a token.
    ///
    /// # Errors
    /// As [`VllmEngine::reload_weights`]; a server that answers as another policy.
    pub fn load_policy(&self, weights: &PolicyWeights, probe: Option<Probe>) -> Result<Option<f64>> {
        let source = match weights {
            PolicyWeights::Checkpoint(dir) => PolicyWeights::Checkpoint(folder_of_weights(dir)?),
            PolicyWeights::Lora { name, path } => {
                PolicyWeights::Lora { name: name.clone(), path: folder_of_weights(path)? }
            }
        };
        // Requests name the adapter from now on; until it is loaded there are none.
        if let PolicyWeights::Lora { name, .. } = &source {
            self.shared.model.write().unwrap_or_else(|e| e.into_inner()).clone_from(name);
        }
        self.install_everywhere(Weights { source, probe: probe.map(Arc::new) })
    }

    fn install_everywhere(&self, weights: Weights) -> Result<Option<f64>> {
        let shared = self.shared.clone();
        let outcomes = self.wait(async move {
            // An endpoint that comes back meanwhile waits, and then loads these.
            let _loading = shared.loading.lock().await;
            *shared.installed.lock().unwrap_or_else(|e| e.into_inner()) = Some(weights.clone());
            let served = shared.model.read().unwrap_or_else(|e| e.into_inner()).clone();
            let pool = &shared.pool;
            pool.begin_policy();
            let up = (0..pool.endpoints.len()).filter(|&at| pool.is_up(at));
            let loads = up.map(|at| {
                let (weights, served) = (&weights, &served);
                async move { (at, install(&pool.endpoints[at], weights, served).await) }
            });
            futures::future::join_all(loads).await
        })?;
        let mut loaded = Vec::new();
        for (at, outcome) in outcomes {
            match outcome {
                Ok(gap) => {
                    self.shared.pool.note_policy(at, gap);
                    loaded.push(gap);
                }
                // Gone since it was last used: it is probed, and loads the weights when it is back.
                Err(fault) if matches!(fault.kind, FaultKind::Unreachable | FaultKind::Reset) => {
                    self.shared.pool.open(at);
                }
                Err(fault) => return Err(explain(&self.shared.pool.endpoints[at], &fault).into()),
            }
        }
        if loaded.is_empty() {
            self.wait_for_one()?;
        }
        Ok(loaded.into_iter().flatten().reduce(f64::max))
    }

    /// Waits for a server to come back: it has the weights then.
    fn wait_for_one(&self) -> Result<()> {
        let pool = &self.shared.pool;
        let (since, patience) = (Instant::now(), seconds(self.shared.config.give_up_after_s));
        while !(0..pool.endpoints.len()).any(|at| pool.is_up(at)) {
            if let Some(fatal) = pool.fatal() {
                return Err(fatal.into());
            }
            if self.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            if since.elapsed() > patience {
                let waited = since.elapsed().as_secs_f64();
                return Err(Error::new(format!("no server is up to load the new weights, for {waited:.0} s"))
                    .hint("what was done is kept up to the last checkpoint; run again when a server is up"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// The absolute path of a folder with safetensors.
fn folder_of_weights(dir: &Path) -> Result<PathBuf> {
    if !dir.is_dir() {
        return Err(Error::new("there is no such folder of weights").in_file(dir.display()));
    }
    let holds_weights = std::fs::read_dir(dir).is_ok_and(|mut files| {
        files.any(|f| f.is_ok_and(|f| f.path().extension().is_some_and(|e| e == "safetensors")))
    });
    if !holds_weights {
        return Err(Error::new("the folder holds no safetensors").in_file(dir.display()));
    }
    std::path::absolute(dir)
        .map_err(|e| Error::new("the folder has no absolute path").in_file(dir.display()).caused_by(e))
}

/// Loads weights into one server and leaves it serving, also if loading failed. With a probe, the
/// server must then answer as those weights do; `served` is the model's name in requests.
pub(super) async fn install(endpoint: &Endpoint, weights: &Weights, served: &str) -> Result<Option<f64>, Fault> {
    let send = |path: &'static str, body: serde_json::Value, deadline| async move {
        endpoint.post(path, if body.is_null() { Vec::new() } else { body.to_string().into_bytes() }, deadline).await
    };
    match &weights.source {
        PolicyWeights::Lora { name, path } => {
            let body = json!({"lora_name": name, "lora_path": path, "load_inplace": true});
            send("v1/load_lora_adapter", body, LOAD_DEADLINE).await?;
        }
        PolicyWeights::Checkpoint(dir) => {
            let loading = async {
                send("pause?mode=wait", serde_json::Value::Null, LOAD_DEADLINE).await?;
                let body = json!({"method": "reload_weights", "kwargs": {"weights_path": dir}});
                send("collective_rpc", body, LOAD_DEADLINE).await?;
                send("reset_prefix_cache", serde_json::Value::Null, SHORT).await
            };
            let loaded = loading.await;
            // Whatever failed: a pause whose answer did not come may have begun all the same.
            let resumed = send("resume", serde_json::Value::Null, SHORT).await;
            loaded.and(resumed)?;
        }
    }
    match &weights.probe {
        Some(probe) => verify(endpoint, served, probe).await.map(Some),
        None => Ok(None),
    }
}

/// How much further from the policy than right after it had loaded it a server may be that still has it: the same text is
/// rounded otherwise in another company. What other weights add within that is less than the rounding itself.
const STILL: (f64, f64) = (1.5, 1e-6);

/// Whether a server that was `gap` from these weights when it had loaded them has them still. Without a probe that was
/// answered then nothing tells, and it counts as one that has not.
///
/// # Errors
/// The server cannot be asked now.
pub(super) async fn still_has(
    endpoint: &Endpoint,
    weights: &Weights,
    served: &str,
    gap: Option<f64>,
) -> Result<bool, Fault> {
    let (Some(probe), Some(gap)) = (&weights.probe, gap) else { return Ok(false) };
    let (times, plus) = STILL;
    let probe = Probe { tolerance: (times * gap + plus).min(probe.tolerance), ..Probe::clone(probe) };
    match verify(endpoint, served, &probe).await {
        Ok(_) => Ok(true),
        // An adapter is gone by name.
        Err(fault) if matches!(fault.kind, FaultKind::OtherPolicy | FaultKind::UnknownModel) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Why a server will never load these weights as it runs, if it will not.
pub(super) fn refusal(endpoint: &Endpoint, fault: &Fault) -> Option<Fatal> {
    let at = &endpoint.address;
    match fault.kind {
        FaultKind::WrongAddress | FaultKind::UnknownModel | FaultKind::Unauthorized => Some(
            Fatal::new(format!("{at} cannot load new weights while it runs ({})", fault.message))
                .hint("whole checkpoints: start vLLM with VLLM_SERVER_DEV_MODE=1, on a private network only")
                .hint("LoRA adapters: start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ),
        FaultKind::OtherPolicy => Some(
            Fatal::new(format!("{at}: {}", fault.message))
                .hint("does the server serve the model that training began with, whole and not quantised?")
                .hint("a server that keeps some old weights when it reloads (tied embeddings, packed copies) must be newer")
                .hint("if its arithmetic is only coarser than the trainer's, raise `engine.tolerance`"),
        ),
        _ => None,
    }
}

fn explain(endpoint: &Endpoint, fault: &Fault) -> Fatal {
    refusal(endpoint, fault).unwrap_or_else(|| {
        Fatal::new(format!("{} did not load the new weights: {}", endpoint.address, fault.message))
            .hint("can the server read that path, and does the checkpoint fit the model it serves?")
    })
}
