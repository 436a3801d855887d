//! Completions from servers that speak the OpenAI API, at its best with vLLM.
//!
//! One [`VllmEngine`] keeps many endpoints busy and loses nothing: each sample
//! asked becomes one completion, answered or failed, whatever the servers do
//! meanwhile. It finds each server's concurrency by itself, retries what may go
//! better elsewhere, leaves out a server that refuses us (its key, its path), and stops
//! the run only for what no retry can mend: another model, no server left.
//!
//! Requests are pulled as there is room and completions handed over as they
//! arrive, on the caller's thread, so memory does not depend on the dataset.
//! The engine runs its own HTTP threads; it may be used from any thread.
//!
//! Invariants:
//! - A seed goes with its sample through every retry and to whatever server.
//! - A pause before a retry holds no place at a server.
//! - A completion cut at its token limit is an answer, never a fault.
//! - A row fails after a bounded number of tries, unless it is the servers that fail.
//! - The API key is in no message, log or row.

mod call;
mod config;
mod exporter;
mod fault;
mod identity;
mod job;
mod launch;
mod limiter;
mod policy;
mod pool;
mod probe;
mod refusals;
mod reply;
mod stats;
mod stream;
mod table;
mod tags;
mod transport;
mod watch;
mod weights;
mod wire;

#[cfg(test)]
#[path = "../../tests/support/openai_server.rs"]
mod openai_server;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

pub use config::{Api, Prices, Reasoning, ServerConfig, Template, TokenIds, VllmConfig, WrongSetting};
pub use fault::{Action, FaultKind};
pub use policy::{Loaded, PolicyRollout, PolicyServers, PolicyWeights, chat_encoder};
pub use probe::Probe;
pub use stats::{EndpointSnapshot, Snapshot};

use crate::engine::EngineInfo;
use crate::error::{Context, Error, Result};
use crate::schema::Message;
use config::seconds;
use identity::{Identity, ProbeError};
use launch::ManagedServer;
use pool::Pool;
use transport::{Endpoint, Secret};
use weights::Weights;

/// A prompt as `/v1/completions` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodedPrompt {
    /// Text, which the server tokenizes.
    Text(String),
    /// Tokens, which it takes as they are.
    TokenIds(Vec<u32>),
}

/// Turns messages into what the model reads: our chat template and tokenizer. An error fails the row.
pub type PromptEncoder = Arc<dyn Fn(&[Message]) -> Result<EncodedPrompt> + Send + Sync>;

/// Stops a run from another thread, such as a Ctrl-C handler.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// From now on no request is sent; those in flight are still delivered.
    pub fn cancel(&self) {
        self.0.store(true, SeqCst);
    }

    /// Whether anybody has called [`CancelToken::cancel`].
    pub fn is_cancelled(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// An [`Engine`] over OpenAI-compatible servers.
pub struct VllmEngine {
    shared: Arc<Shared>,
    info: EngineInfo,
    cancel: CancelToken,
    metrics: Option<SocketAddr>,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
    /// Ends after the runtime: fields drop in order.
    server: Option<Mutex<ManagedServer>>,
}

/// What tasks share with the engine.
struct Shared {
    config: VllmConfig,
    encoder: Option<PromptEncoder>,
    pool: Arc<Pool>,
    totals: stats::Totals,
    rates: Mutex<watch::Rates>,
    /// Index of the endpoint that told first, and what it serves.
    identity: Mutex<Option<(usize, Identity)>>,
    /// What the servers were last told to load.
    installed: Mutex<Option<Weights>>,
    /// Held while weights are loaded and a server is let in: none may come in with old ones.
    loading: tokio::sync::Mutex<()>,
    /// Held while a server is asked a trifle in place of a request that it turns away.
    trifle: tokio::sync::Mutex<()>,
    /// The model's name in requests.
    model: RwLock<String>,
    /// Calls of `generate` under way.
    runs: AtomicUsize,
    since: Instant,
}

impl VllmEngine {
    /// Connects to the servers (or starts one) and makes sure that they serve one and the same model.
    ///
    /// Servers that are not up yet are no error as long as one is; they join when they are.
    /// `encoder` is needed for `template = "ours"` and unused otherwise.
    ///
    /// # Errors
    /// The configuration is wrong, no server answers within `startup_timeout_s`, a server refuses the
    /// key, does not know the model, or serves another one.
    pub fn connect(config: VllmConfig, encoder: Option<PromptEncoder>) -> Result<Self> {
        VllmEngine::connect_until(config, encoder, &AtomicBool::new(false))
    }

    /// The same, given up once `stop` is set: a server may take minutes to load its model.
    ///
    /// # Errors
    /// As [`VllmEngine::connect`]; [`Error::interrupted`] once stopped. A server that was started is down by then.
    pub fn connect_until(config: VllmConfig, encoder: Option<PromptEncoder>, stop: &AtomicBool) -> Result<Self> {
        config.validate()?;
        if config.template == Template::Ours && encoder.is_none() {
            return Err(Error::usage("`template = \"ours\"` needs the model's tokenizer on this machine")
                .in_field("engine.tokenizer")
                .hint("name the folder with its tokenizer.json: `tokenizer = \"models/NAME\"`"));
        }
        let key = Secret::from_env(&config).map_err(|e| e.in_field("engine.api_key_env"))?;
        let server = match config.launch {
            true => Some(ManagedServer::start(&config.server, key.as_ref().map(|k| k.expose()))?),
            false => None,
        };
        let launched = server.as_ref().map(|s| s.address.clone());
        let addresses = launched.iter().chain(&config.endpoints);
        let endpoints = addresses.map(|a| Endpoint::new(a, &config, key.clone())).collect::<Result<Vec<_>>>()?;
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
            threads => threads,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("gristmill-http")
            .enable_all()
            .build()
            .or_fail(|| "the HTTP threads cannot start".into())?;
        let pool = Pool::new(endpoints, config.max_concurrency);
        let shared = Arc::new(Shared {
            model: RwLock::new(config.model.clone()),
            encoder,
            pool,
            totals: stats::Totals::default(),
            rates: Mutex::default(),
            identity: Mutex::default(),
            installed: Mutex::default(),
            loading: tokio::sync::Mutex::default(),
            trifle: tokio::sync::Mutex::default(),
            runs: AtomicUsize::new(0),
            since: Instant::now(),
            config,
        });
        let info =
            EngineInfo { engine: "vllm", model: String::new(), model_digest: String::new(), deterministic: false };
        // Served from the start: a monitor sees the wait for a server, too.
        let metrics = shared.config.metrics.map(|at| exporter::serve(&shared, at, runtime.handle())).transpose()?;
        let cancel = CancelToken::default();
        let server = server.map(Mutex::new);
        let mut engine = VllmEngine { shared, info, cancel, metrics, runtime: Some(runtime), server };
        let first = engine.wait_for_servers(stop)?;
        *engine.shared.model.write().unwrap_or_else(|e| e.into_inner()) = first.model.clone();
        engine.info.model_digest = first.digest_under(&engine.shared.config);
        engine.info.model = first.model;
        // Seeds reproduce token ids whatever the concurrency, as long as each sample carries its own.
        engine.info.deterministic = engine.shared.config.n_per_request == 1;
        let (handle, weak) = (engine.runtime().handle().clone(), Arc::downgrade(&engine.shared));
        engine.shared.pool.when_opened({
            let (handle, weak) = (handle.clone(), weak.clone());
            move |at| drop(handle.spawn(watch::revive(weak.clone(), at)))
        });
        for at in (0..engine.shared.pool.endpoints.len()).filter(|&at| !engine.shared.pool.is_up(at)) {
            handle.spawn(watch::revive(weak.clone(), at));
        }
        handle.spawn(watch::observe(weak));
        Ok(engine)
    }

    /// Probes all endpoints until one is up and the others have been asked once.
    fn wait_for_servers(&self, stop: &AtomicBool) -> Result<Identity> {
        let config = &self.shared.config;
        let launched = self.server.is_some();
        let patience = seconds(if launched { config.server.ready_timeout_s } else { config.startup_timeout_s });
        let since = Instant::now();
        loop {
            let shared = self.shared.clone();
            let outcomes = self.wait(async move {
                let all = (0..shared.pool.endpoints.len()).map(|at| watch::admit(&shared, at));
                futures::future::join_all(all).await
            })?;
            // Whoever answers at our server's address while it has ended is somebody else.
            self.check_server()?;
            let mut last_fault = None;
            let mut refusals = Vec::new();
            for (at, outcome) in outcomes.into_iter().enumerate() {
                match outcome {
                    Ok(()) => {}
                    Err(ProbeError::Never(fatal)) => return Err(fatal.into()),
                    Err(ProbeError::NotYet(fault)) => last_fault = Some((at, fault)),
                    Err(ProbeError::Refused(cause)) => {
                        refusals.push(cause.message.clone());
                        self.shared.pool.refuse(at, cause);
                    }
                }
            }
            if let Some(fatal) = self.shared.pool.fatal() {
                return Err(fatal.into());
            }
            let known = self.shared.identity.lock().unwrap_or_else(|e| e.into_inner()).clone();
            if let Some((_, identity)) = known {
                return Ok(identity);
            }
            if stop.load(Relaxed) {
                return Err(Error::interrupted());
            }
            if since.elapsed() >= patience {
                let (at, fault) = last_fault.expect("an endpoint is up, has a fault, or all refuse");
                let address = &self.shared.pool.endpoints[at].address;
                let error = Error::unavailable(format!(
                    "no server answered within {:.0} s; {address}: {}",
                    patience.as_secs_f64(),
                    fault.row_error()
                ));
                let error = refusals.into_iter().fold(error, Error::hint);
                return Err(match &self.server {
                    Some(server) => {
                        let server = server.lock().unwrap_or_else(|e| e.into_inner());
                        error.in_file(server.log.display()).hint("see the server's log")
                    }
                    None => error.hint("is the server running, and is its address reachable from here?"),
                });
            }
            std::thread::sleep(Duration::from_millis(250).min(patience));
        }
    }

    /// # Errors
    /// The server that we started has ended.
    fn check_server(&self) -> Result<()> {
        self.server.as_ref().map_or(Ok(()), |server| server.lock().unwrap_or_else(|e| e.into_inner()).check())
    }

    /// What people should hear of since this was last asked, a line each: servers that are left out, or
    /// that were found paused.
    pub fn take_news(&self) -> Vec<String> {
        self.shared.pool.take_news()
    }

    /// A token that stops runs of this engine; see [`CancelToken::cancel`].
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// What was done up to now. Cheap; for progress displays.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// The snapshot in Prometheus' text format.
    pub fn metrics_text(&self) -> String {
        self.snapshot().metrics_text()
    }

    /// Where `metrics` of the configuration is served, if it is.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime is taken only by drop")
    }

    /// Runs a future on the HTTP threads and waits for it. Works on any thread, inside another runtime too.
    fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let (done, waiting) = mpsc::sync_channel(1);
        self.runtime().spawn(async move {
            let _ = done.send(future.await);
        });
        waiting.recv().or_fail(|| "an HTTP thread ended before its work".into())
    }

    /// Ends the run if no retry can help: a fatal cause, or no server for too long.
    fn check(&self) -> Result<()> {
        let pool = &self.shared.pool;
        if let Some(fatal) = pool.fatal() {
            return Err(fatal.into());
        }
        let patience = seconds(self.shared.config.give_up_after_s);
        let (dark, silent) = pool.silence();
        // Our own will not come back; and whoever answers in its place is somebody else.
        self.check_server()?;
        let (in_flight, queued) = pool.load();
        // Silence is the servers' only while requests wait for them: a slow source or sink is no fault.
        let waiting = in_flight == 0 && (queued > 0 || self.shared.totals.pausing.load(Relaxed) > 0);
        if dark > patience || (silent > patience && waiting) {
            let down: Vec<String> = pool
                .snapshot()
                .iter()
                .map(|e| {
                    let faults: Vec<String> = e.faults.iter().map(|(cause, n)| format!("{n} × {cause}")).collect();
                    let last = e.last_fault.as_ref().map_or(String::new(), |fault| format!("; the last: {fault}"));
                    let faults = if faults.is_empty() { "down".into() } else { faults.join(", ") };
                    format!("{}: {faults}{last}", e.address)
                })
                .collect();
            return Err(Error::new(format!("no server has answered for {:.0} s", patience.as_secs_f64()))
                .hint(down.join("\n"))
                .hint("what was done is kept; run again when a server is up"));
        }
        Ok(())
    }
}

impl Drop for VllmEngine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Does not wait, so that an engine may be dropped inside another runtime.
            runtime.shutdown_background();
        }
    }
}
