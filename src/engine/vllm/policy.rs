//! Servers that follow a policy in training: on-policy rollouts from vLLM.
//!
//! Each round the trainer saves the policy, [`PolicyServers::load`] makes every server load it, and
//! the rollouts that follow are of that policy and say so. Nothing is in flight while weights
//! change: loading takes the servers exclusively, and a server finishes what it has before it loads.
//!
//! Another engine's arithmetic is not the trainer's, so the sampler's logprobs differ from the
//! trainer's by rounding. They come back with the tokens: the trainer logs the gap and corrects the
//! importance ratio (`train::OldLogprobs::Recompute` with `train::objective::Correction`). vLLM
//! reports logprobs before temperature, top-p and top-k unless it runs with
//! `--logprobs-mode processed_logprobs`; so does the trainer.
//!
//! A gap far beyond rounding says that a server did not take the weights. vLLM 0.32 on the CPU keeps the
//! old head of tied embeddings, unless the checkpoint holds the head by its name
//! ([`crate::model::Model::save_untied`]). A [`Probe`] finds whatever else may stay behind.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::config::{TokenIds, VllmConfig};
use super::probe::Probe;
use super::{EncodedPrompt, PromptEncoder, VllmEngine};
use crate::engine::{Engine, EngineInfo, Generated, Request};
use crate::error::{Error, Result};
use crate::model::Tokenizer;

/// A policy's weights, under a path that the servers can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyWeights {
    /// A checkpoint folder in Hugging Face form. Servers need `VLLM_SERVER_DEV_MODE=1`.
    Checkpoint(PathBuf),
    /// A LoRA adapter. Servers need `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`.
    /// vLLM caches prefixes by name and path, so every step's adapter has a path of its own.
    Lora {
        /// What requests call it: the model's name in them.
        name: String,
        /// The folder of `adapter_model.safetensors`.
        path: PathBuf,
    },
}

/// The samples of one prompt, all of one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRollout {
    /// The prompt row's `prompt_id`.
    pub prompt_id: Arc<str>,
    /// Optimizer step of the policy that wrote the samples.
    pub policy_step: u64,
    /// The prompt as the policy read it, template included; empty if no sample was answered.
    pub prompt: Vec<u32>,
    /// In the order of their sample index; those that failed hold their error and nothing else.
    /// All others hold token ids and as many logprobs.
    pub samples: Vec<Generated>,
}

/// What a load took and showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loaded {
    /// Wall-clock time, requests in flight and the probe included.
    pub seconds: f64,
    /// Greatest mean difference of a server's logprobs of the probe to the policy's, in nats a token.
    pub gap: Option<f64>,
}

/// vLLM servers that serve one policy, step by step.
pub struct PolicyServers {
    engine: VllmEngine,
    /// The step that was last loaded.
    step: Option<u64>,
}

impl PolicyServers {
    /// Connects to the servers. Prompts go out as token ids of our template (or as plain text with
    /// `template = "plain"`); token ids and logprobs come back, whatever the configuration says.
    ///
    /// # Errors
    /// As [`VllmEngine::connect`].
    pub fn connect(config: VllmConfig, tokenizer: Arc<Tokenizer>) -> Result<Self> {
        PolicyServers::connect_until(config, tokenizer, &AtomicBool::new(false))
    }

    /// The same, given up once `stop` is set.
    ///
    /// # Errors
    /// As [`VllmEngine::connect_until`].
    pub fn connect_until(config: VllmConfig, tokenizer: Arc<Tokenizer>, stop: &AtomicBool) -> Result<Self> {
        let config = VllmConfig { token_ids: TokenIds::Require, logprobs: true, ..config.asking_in_tokens() };
        let engine = VllmEngine::connect_until(config, Some(chat_encoder(tokenizer)), stop)?;
        Ok(PolicyServers { engine, step: None })
    }

    /// Makes every server serve the policy of optimizer step `step`. A server that is down loads it
    /// before it is used again. With a probe, each server must then answer as the policy does.
    ///
    /// # Errors
    /// A server cannot load weights while it runs (the error names the two ways to start one that
    /// can), refuses these, answers as another policy, or none is up. The policy is unknown until a
    /// later load succeeds.
    pub fn load(&mut self, step: u64, weights: &PolicyWeights, probe: Option<Probe>) -> Result<Loaded> {
        self.step = None;
        let since = Instant::now();
        let gap = self.engine.load_policy(weights, probe)?;
        self.step = Some(step);
        Ok(Loaded { seconds: since.elapsed().as_secs_f64(), gap })
    }

    /// The step whose policy the servers have; `None` before the first [`PolicyServers::load`].
    pub fn policy_step(&self) -> Option<u64> {
        self.step
    }

    /// The engine, for its snapshot, metrics and cancel token.
    pub fn engine(&self) -> &VllmEngine {
        &self.engine
    }

    /// Samples the policy; the result is in the order of the requests, whose prompt ids must differ.
    ///
    /// # Errors
    /// A request is for another step than the one loaded, or the servers cannot go on. A sample that
    /// failed is in its rollout, with its error.
    pub fn rollout(&self, requests: Vec<Request>) -> Result<Vec<PolicyRollout>> {
        let mut rollouts: Vec<PolicyRollout> = Vec::with_capacity(requests.len());
        let mut places = HashMap::with_capacity(requests.len());
        for request in &requests {
            if places.insert(request.prompt_id.clone(), rollouts.len()).is_some() {
                return Err(Error::new(format!("a rollout asks the prompt {} twice", request.prompt_id)));
            }
            rollouts.push(PolicyRollout {
                prompt_id: request.prompt_id.clone(),
                policy_step: request.policy_step,
                prompt: Vec::new(),
                samples: Vec::with_capacity(request.samples.len()),
            });
        }
        self.generate(&mut requests.into_iter(), &mut |mut generated| {
            let rollout = &mut rollouts[places[&generated.prompt_id]];
            if let Some(prompt) = generated.prompt_token_ids.take() {
                rollout.prompt = prompt;
            }
            rollout.samples.push(generated);
            Ok(())
        })?;
        for rollout in &mut rollouts {
            rollout.samples.sort_by_key(|sample| sample.sample_index);
        }
        Ok(rollouts)
    }
}

impl Engine for PolicyServers {
    fn info(&self) -> EngineInfo {
        self.engine.info()
    }

    /// See [`VllmEngine`]'s; requests must be for the step that is loaded.
    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        let mut stranger = None;
        let mut ours = std::iter::from_fn(|| {
            let request = requests.next()?;
            if Some(request.policy_step) == self.step {
                return Some(request);
            }
            stranger = Some(request.policy_step);
            None
        });
        self.engine.generate(&mut ours, sink)?;
        match (stranger, self.step) {
            (None, _) => Ok(()),
            (Some(asked), Some(loaded)) => Err(Error::new(format!(
                "a rollout of step {asked} was asked, the servers have the policy of step {loaded}"
            ))),
            (Some(asked), None) => {
                Err(Error::new(format!("a rollout of step {asked} was asked, no policy is loaded into the servers")))
            }
        }
    }
}

/// Messages to token ids by a model's own template and tokenizer: what `template = "ours"` sends.
pub fn chat_encoder(tokenizer: Arc<Tokenizer>) -> PromptEncoder {
    Arc::new(move |messages| tokenizer.encode_chat(messages).map(EncodedPrompt::TokenIds))
}

#[cfg(test)]
mod tests {
    use super::super::openai_server::{Behaviour, OpenAiServer};
    use super::*;
    use crate::engine::{SampleSeed, Sampling};
    use crate::schema::{Message, Role};

    fn tokenizer() -> Arc<Tokenizer> {
        let words = ["<unk>", "<end>", "one", "two"].map(String::from);
        let template = "{% for m in messages %}{{ m.content }} {% endfor %}";
        Arc::new(Tokenizer::words(&words, "<unk>", "<end>", template).unwrap())
    }

    fn requests(step: u64) -> Vec<Request> {
        let ask = |(id, text): (&str, &str)| Request {
            prompt_id: id.into(),
            messages: [Message { role: Role::User, content: text.into() }].into(),
            samples: (0..3).map(|k| SampleSeed { index: k, seed: 10 * step + u64::from(k) }).collect(),
            sampling: Arc::new(Sampling { temperature: 1.0, top_p: 1.0, max_tokens: 8, ..Sampling::default() }),
            policy_step: step,
        };
        [("p1", "one"), ("p2", "two one")].map(ask).into()
    }

    fn servers(server: &OpenAiServer) -> PolicyServers {
        let config = VllmConfig { endpoints: vec![server.url()], threads: 1, ..VllmConfig::default() };
        PolicyServers::connect(config, tokenizer()).unwrap()
    }

    #[test]
    fn rollouts_are_of_the_policy_that_was_loaded_and_say_so() {
        let server = OpenAiServer::start(Behaviour { dev_mode: true, ..Behaviour::default() });
        let mut servers = servers(&server);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        let error = servers.rollout(requests(0)).unwrap_err().to_string();
        assert!(error.contains("no policy is loaded"), "{error}");
        for step in [0, 4] {
            servers.load(step, &PolicyWeights::Checkpoint(dir.path().into()), None).unwrap();
            let rollouts = servers.rollout(requests(step)).unwrap();
            assert_eq!(rollouts.iter().map(|r| &*r.prompt_id).collect::<Vec<_>>(), ["p1", "p2"]);
            for rollout in &rollouts {
                assert_eq!((rollout.policy_step, rollout.samples.len()), (step, 3));
                assert!(!rollout.prompt.is_empty(), "the prompt's tokens come with it");
                for (k, sample) in rollout.samples.iter().enumerate() {
                    assert_eq!(sample.sample_index, k as u32);
                    let (ids, logprobs) = (sample.token_ids.as_ref().unwrap(), sample.logprobs.as_ref().unwrap());
                    assert_eq!(ids.len(), logprobs.len());
                }
            }
        }
        let error = servers.rollout(requests(5)).unwrap_err().to_string();
        assert!(error.contains("step 5") && error.contains("step 4"), "{error}");
    }

    #[test]
    fn a_load_waits_for_the_only_server_to_come_back() {
        let dev = || Behaviour { dev_mode: true, ..Behaviour::default() };
        let mut server = OpenAiServer::start(dev());
        let mut servers = servers(&server);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        let address = server.address;
        server.kill();
        let back = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(700));
            OpenAiServer::start_at(dev(), address)
        });
        servers.load(3, &PolicyWeights::Checkpoint(dir.path().into()), None).unwrap();
        let back = back.join().unwrap();
        assert!(back.seen.control.lock().unwrap().iter().any(|(path, _)| path == "/collective_rpc"));
        assert_eq!(servers.rollout(requests(3)).unwrap().len(), 2);
    }

    #[test]
    fn after_a_load_that_failed_no_policy_is_known() {
        let server = OpenAiServer::start(Behaviour::default());
        let mut servers = servers(&server);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
        let text = servers.load(1, &PolicyWeights::Checkpoint(dir.path().into()), None).unwrap_err().render(false);
        assert!(text.contains("VLLM_SERVER_DEV_MODE=1") && text.contains("--enable-lora"), "{text}");
        assert_eq!(servers.policy_step(), None);
    }
}
