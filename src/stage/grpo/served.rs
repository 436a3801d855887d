//! The policy at servers: its weights go there through a folder, its rollouts come back on a thread.
//!
//! One thread owns the servers and does what it is asked in order: take over the policy of a step,
//! then sample and judge a batch. So nothing can change the weights under a batch, and the trainer
//! may go on meanwhile: a batch asked ahead is of the weights that were written when it was asked.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::ask::{Asker, RolloutBatch};
use super::rollouts::Rollouts;
use super::sampler::Sent;
use crate::backend::Backend;
use crate::engine::vllm::{CancelToken, PolicyServers, PolicyWeights, Probe, VllmConfig};
use crate::engine::{Engine, EngineInfo};
use crate::error::{Context, Error, Result};
use crate::model::{Batch, Dtype, SharedModel, Tokenizer};
use crate::schema::Prompt;
use crate::stage::StageContext;
use crate::stage::layout::SENT;
use crate::stage::training::Policy;

/// `engine = { kind = "vllm", … }` of a grpo stage.
#[derive(Clone, Debug)]
pub struct ServedConfig {
    pub send: Sent,
    /// Greatest mean difference of a server's logprobs to the trainer's after a load, in nats a token.
    pub tolerance: f64,
    pub servers: VllmConfig,
}

impl ServedConfig {
    /// Above what bfloat16 against f32 makes, below what other weights do.
    pub const TOLERANCE: f64 = 0.1;
}

/// What the servers call the policy's adapter.
const ADAPTER: &str = "policy";
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

/// The servers at work.
pub struct Served<B: Backend> {
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
    weights: Option<(PolicyWeights, Option<Probe>)>,
}

impl<B: Backend> Servers<B> {
    /// Connects, or starts a server with the policy as it is now.
    ///
    /// # Errors
    /// No server answers, one cannot be started, or the run is in an object store, from where servers
    /// cannot load.
    pub fn connect(
        config: &ServedConfig,
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

    /// Gives the servers to their thread; what it samples comes to the log.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self, asker: &Arc<Asker>, log: &mut Rollouts) -> Result<Served<B>> {
        let (jobs, todo) = mpsc::channel();
        let (done, coming) = mpsc::channel();
        log.receive_from(coming);
        let (servers, asker) = (self.servers, Arc::clone(asker));
        let cancel = servers.engine().cancel_token();
        let thread = std::thread::Builder::new()
            .name("rollouts".to_owned())
            .spawn(move || work(servers, &asker, &todo, &done))
            .or_fail(|| "the thread that samples cannot start".into())?;
        Ok(Served { sender: self.sender, jobs: Some(jobs), thread: Some(thread), cancel, written: None })
    }
}

impl<B: Backend> Served<B> {
    /// Asks for a batch of the policy as it is now, after `step` optimizer steps.
    ///
    /// # Errors
    /// The weights cannot be written.
    pub fn ask(&mut self, step: u64, prompts: &[usize]) -> Result<()> {
        let weights = if self.written == Some(step) { None } else { Some(self.sender.write(step)?) };
        self.written = Some(step);
        let jobs = self.jobs.as_ref().expect("taken only by drop");
        let job = Job { step, prompts: prompts.to_vec(), weights };
        jobs.send(job).map_err(|_| Error::new("the thread that samples has ended"))
    }

    /// Sends nothing more; what is under way comes back as interrupted once the servers have answered it.
    pub fn stop(&self) {
        self.cancel.cancel();
    }
}

/// The thread's work, until nobody asks any more.
fn work(
    mut servers: PolicyServers,
    asker: &Asker,
    todo: &mpsc::Receiver<Job>,
    done: &mpsc::Sender<Result<RolloutBatch>>,
) {
    let cancel = servers.engine().cancel_token();
    let mut last: Option<PathBuf> = None;
    while let Ok(Job { step, prompts, weights }) = todo.recv() {
        if cancel.is_cancelled() {
            return;
        }
        let sample = || -> Result<RolloutBatch> {
            let mut reload_seconds = None;
            if let Some((weights, probe)) = weights {
                reload_seconds = Some(servers.load(step, &weights, probe)?.seconds);
                let (PolicyWeights::Checkpoint(folder) | PolicyWeights::Lora { path: folder, .. }) = weights;
                if let Some(old) = last.replace(folder) {
                    remove(&old)?;
                }
            }
            let batch = asker.ask(&servers, step, &prompts)?;
            Ok(RolloutBatch { reload_seconds, news: servers.engine().take_news(), ..batch })
        };
        if done.send(sample()).is_err() {
            return;
        }
    }
}

impl<B: Backend> Drop for Served<B> {
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

    /// Writes the policy of a step, and how it reads the probe.
    fn write(&self, step: u64) -> Result<(PolicyWeights, Option<Probe>)> {
        let folder = self.folder.join(format!("step-{step:06}"));
        let model = self.model.read();
        let weights = match self.send {
            Sent::Checkpoint => {
                model.save_untied(&folder, computed_in::<B>())?;
                PolicyWeights::Checkpoint(folder)
            }
            Sent::Lora => {
                model.save_adapters(&folder)?;
                PolicyWeights::Lora { name: ADAPTER.to_owned(), path: folder }
            }
        };
        if self.probe.len() < 2 || self.tolerance.is_infinite() {
            return Ok((weights, None));
        }
        let mut batch = Batch::new();
        batch.push(&self.probe, |_| true);
        let logprobs = model.forward(&mut model.workspace(), &batch)?.logprobs;
        Ok((weights, Some(Probe { tokens: self.probe.clone(), logprobs, tolerance: self.tolerance })))
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
        crate::stage::served::name_server_log(servers, cx);
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
