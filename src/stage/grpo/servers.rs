//! The policy at servers: its weights go there through a folder, its rollouts come back on a thread.
//!
//! One thread owns the servers and does what it is asked in order: take over the policy of a step,
//! then sample and judge a batch. So nothing can change the weights under a batch, and the trainer
//! may go on meanwhile: a batch asked ahead is of the weights that were written when it was asked.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::ask::{Asker, Came, Part, RolloutBatch};
use super::rollouts::{Coming, Rollouts, weights_of};
use super::sampler::Sent;
use crate::backend::Backend;
use crate::engine::vllm::{CancelToken, PolicyServers, PolicyWeights, Probe, VllmConfig};
use crate::engine::{Engine, EngineInfo, Generated};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::{Batch, Dtype, SharedModel, Tokenizer};
use crate::schema::Prompt;
use crate::stage::StageContext;
use crate::stage::layout::SENT;
use crate::stage::training::Policy;

/// `engine = { kind = "vllm", … }` of a grpo stage.
#[derive(Clone, Debug)]
pub struct ServersConfig {
    pub send: Sent,
    /// Greatest mean difference of a server's logprobs to the trainer's after a load, in nats a token.
    pub tolerance: f64,
    pub servers: VllmConfig,
}

impl ServersConfig {
    /// Above what bfloat16 against f32 makes, below what other weights do.
    pub const TOLERANCE: f64 = 0.1;
}

/// What the servers call the policy's adapter.
const ADAPTER: &str = "policy";
/// Beside the weights: how the policy reads that text, written last.
const PROBE: &str = "probe.json";
/// Tokens of the text that shows which policy a server has: enough for a mean, few enough to cost nothing.
const PROBE_TOKENS: usize = 128;

/// Servers that are up and have not been told a policy yet.
pub struct Servers<B: Backend> {
    servers: PolicyServers,
    sender: WeightSender<B>,
}

/// Writes the policy where the servers find it.
struct WeightSender<B: Backend> {
    model: SharedModel<B>,
    send: Sent,
    /// A folder for each step, since servers may still read the last one's.
    folder: PathBuf,
    probe: Vec<u32>,
    tolerance: f64,
}

/// The thread that owns the servers at work.
pub struct ServerThread<B: Backend> {
    sender: WeightSender<B>,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    cancel: CancelToken,
    /// The step whose weights were written last.
    written: Option<u64>,
}

/// A batch to sample, after taking over the policy if it has moved.
struct Job {
    step: u64,
    prompts: Vec<usize>,
    /// What of it is answered already.
    answered: Vec<Generated>,
    weights: Option<(PolicyWeights, Option<Probe>)>,
}

impl<B: Backend> Servers<B> {
    /// Connects, or starts a server with the policy as it is now.
    ///
    /// # Errors
    /// No server answers, one cannot be started, or the run is in an object store, from where servers
    /// cannot load.
    pub fn connect(
        config: &ServersConfig,
        cx: &StageContext<'_>,
        policy: &Policy<B>,
        prompts: &[Prompt],
    ) -> Result<Self> {
        let folder = cx.local_folder()?.join(SENT);
        remove(&folder)?;
        let sender = WeightSender {
            model: policy.model.clone(),
            send: config.send,
            probe: probe_tokens(&policy.tokenizer, prompts, sender_context(policy))?,
            folder,
            tolerance: config.tolerance,
        };
        if config.send == Sent::Lora && sender.rank().is_none() {
            return Err(Error::usage("`send = \"lora\"` sends adapters, and the policy trains all its weights")
                .in_field("engine.send")
                .hint("add `lora = { rank = 16, alpha = 32 }` to the stage, or leave `send` out"));
        }
        let mut servers = config.servers.clone();
        if servers.launch {
            sender.prepare_launch(&mut servers, cx, &policy.tokenizer)?;
        }
        let servers = PolicyServers::connect_until(servers, Arc::clone(&policy.tokenizer), cx.stop)?;
        servers.engine().take_news().iter().for_each(|line| cx.progress.say(line));
        Ok(Servers { servers, sender })
    }

    /// Who answers.
    pub fn info(&self) -> EngineInfo {
        self.servers.info()
    }

    /// Gives the servers to their thread; what it samples comes to the log. Once `cx` says to stop, whoever waits for
    /// the log has no more requests sent, and those in flight are answered.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start<'a>(
        self,
        cx: &StageContext<'a>,
        asker: &Arc<Asker>,
        log: &mut Rollouts<'a>,
    ) -> Result<ServerThread<B>> {
        let (jobs, todo) = mpsc::channel();
        let (done, batches) = mpsc::channel();
        let (servers, asker) = (self.servers, Arc::clone(asker));
        let cancel = servers.engine().cancel_token();
        let (stop, progress, stopping) = (cx.stop, cx.progress, cancel.clone());
        let tick = move || {
            if stop.load(Relaxed) && !stopping.is_cancelled() {
                progress.say("stopping once the requests in flight are answered");
                stopping.cancel();
            }
        };
        log.receive_from(Coming { batches, policy: self.sender.folder.clone(), tick: Box::new(tick) });
        let thread = std::thread::Builder::new()
            .name("rollouts".to_owned())
            .spawn(move || work(servers, &asker, &todo, &done))
            .or_fail(|| "the thread that samples cannot start".into())?;
        Ok(ServerThread { sender: self.sender, jobs: Some(jobs), thread: Some(thread), cancel, written: None })
    }
}

impl<B: Backend> ServerThread<B> {
    /// Asks for a batch of the policy as it is now, after `step` optimizer steps; or as it was then, where a checkpoint
    /// kept that. Of the batch this is `answered` already.
    ///
    /// # Errors
    /// The weights cannot be written.
    pub fn ask(&mut self, step: u64, prompts: &[usize], answered: Vec<Generated>) -> Result<()> {
        let weights = if self.written == Some(step) { None } else { Some(self.sender.weights(step)?) };
        self.written = Some(step);
        let jobs = self.jobs.as_ref().expect("taken only by drop");
        let job = Job { step, prompts: prompts.to_vec(), answered, weights };
        jobs.send(job).map_err(|_| Error::new("the thread that samples has ended"))
    }
}

/// The thread's work, until nobody asks any more. Once cancelled it gives back what it has of each batch.
fn work(mut servers: PolicyServers, asker: &Asker, todo: &mpsc::Receiver<Job>, done: &mpsc::Sender<Result<Came>>) {
    let cancel = servers.engine().cancel_token();
    let mut last: Option<PathBuf> = None;
    while let Ok(Job { step, prompts, answered, weights }) = todo.recv() {
        let load = |servers: &mut PolicyServers| -> Result<Option<f64>> {
            let Some((weights, probe)) = weights else { return Ok(None) };
            let seconds = servers.load(step, &weights, probe)?.seconds;
            let (PolicyWeights::Checkpoint(folder) | PolicyWeights::Lora { path: folder, .. }) = weights;
            if let Some(old) = last.replace(folder) {
                remove(&old)?;
            }
            Ok(Some(seconds))
        };
        let loaded = if cancel.is_cancelled() { Err(Error::interrupted()) } else { load(&mut servers) };
        let came = match loaded {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                Ok(Came::Part(Part { key: asker.key(step, &prompts), answered }))
            }
            Err(error) => Err(error),
            Ok(reload_seconds) => asker.ask(&servers, step, &prompts, answered).map(|came| match came {
                Came::Whole(batch) => {
                    Came::Whole(RolloutBatch { reload_seconds, news: servers.engine().take_news(), ..batch })
                }
                part => part,
            }),
        };
        if done.send(came).is_err() {
            return;
        }
    }
}

impl<B: Backend> Drop for ServerThread<B> {
    fn drop(&mut self) {
        // What is under way when a run ends early is not waited for longer than the servers need.
        self.cancel.cancel();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
        // Weights left behind cost disk and nothing else: the next run removes them.
        let _ = remove(&self.sender.folder);
    }
}

impl<B: Backend> WeightSender<B> {
    fn rank(&self) -> Option<usize> {
        self.model.read().rank()
    }

    /// The policy of a step, and how it reads the probe: as it is now, unless it was written before.
    fn weights(&self, step: u64) -> Result<(PolicyWeights, Option<Probe>)> {
        let folder = weights_of(&self.folder, step);
        let read = folder.join(PROBE);
        let logprobs = match std::fs::read(&read) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                Error::new("how the policy reads the probe is malformed").in_file(read.display()).caused_by(e)
            })?,
            Err(_) => {
                let logprobs = self.write(&folder)?;
                let text = serde_json::to_vec(&logprobs).or_fail(|| "cannot encode logprobs".into())?;
                std::fs::write(&read, text).or_fail(|| format!("cannot write {}", read.display()))?;
                logprobs
            }
        };
        let weights = match self.send {
            Sent::Checkpoint => PolicyWeights::Checkpoint(folder),
            Sent::Lora => PolicyWeights::Lora { name: ADAPTER.to_owned(), path: folder },
        };
        // Without any the check is off.
        let probe = (!logprobs.is_empty() && self.tolerance.is_finite()).then(|| Probe {
            tokens: self.probe.clone(),
            logprobs,
            tolerance: self.tolerance,
        });
        Ok((weights, probe))
    }

    /// Writes the policy as it is now; its logprobs of the probe.
    fn write(&self, folder: &Path) -> Result<Vec<f32>> {
        let model = self.model.read();
        match self.send {
            Sent::Checkpoint => model.save_untied(folder, computed_in::<B>())?,
            Sent::Lora => model.save_adapters(folder, None)?,
        }
        if self.probe.len() < 2 || self.tolerance.is_infinite() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::new();
        batch.push(&self.probe, |_| true);
        Ok(model.forward(&mut model.workspace(), &batch)?.logprobs)
    }

    /// What a server of our own is started with, where the recipe does not say it.
    fn prepare_launch(&self, servers: &mut VllmConfig, cx: &StageContext<'_>, tokenizer: &Tokenizer) -> Result<()> {
        let server = &mut servers.server;
        if server.model.is_empty() {
            let folder = self.folder.join("start");
            let model = self.model.read();
            model.save_untied(&folder, computed_in::<B>())?;
            tokenizer.save(&folder)?;
            server.model = folder.display().to_string();
        }
        let mut add = |flag: &str, value: Option<String>| {
            if !server.args.iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}="))) {
                server.args.push(flag.to_owned());
                server.args.extend(value);
            }
        };
        add("--served-model-name", Some(cx.name.to_owned()));
        let variable = match self.send {
            Sent::Checkpoint => ("VLLM_SERVER_DEV_MODE", "1"),
            Sent::Lora => {
                add("--enable-lora", None);
                // vLLM takes a few sizes only, the powers of two among them.
                let rank = self.rank().unwrap_or(8).next_power_of_two().max(8);
                add("--max-lora-rank", Some(rank.to_string()));
                ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True")
            }
        };
        server.env.entry(variable.0.to_owned()).or_insert_with(|| variable.1.to_owned());
        crate::stage::servers::name_server_log(servers, cx);
        Ok(())
    }
}

/// The type the trainer computes in: servers get the weights that it uses, not more digits.
fn computed_in<B: Backend>() -> Dtype {
    if B::ACT_BYTES == 2 { Dtype::Bf16 } else { Dtype::F32 }
}

fn sender_context<B: Backend>(policy: &Policy<B>) -> usize {
    policy.model.read().config().context
}

/// The first prompts' tokens. A server needs room for one more.
fn probe_tokens(tokenizer: &Tokenizer, prompts: &[Prompt], context: usize) -> Result<Vec<u32>> {
    let most = PROBE_TOKENS.min(context.saturating_sub(1));
    let mut tokens = Vec::new();
    for prompt in prompts {
        if tokens.len() >= most {
            break;
        }
        tokens.extend(tokenizer.encode(prompt.question())?);
    }
    tokens.truncate(most);
    Ok(tokens)
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new("the policy's old weights cannot be removed").in_file(folder.display()).caused_by(e))
        }
        _ => Ok(()),
    }
}
