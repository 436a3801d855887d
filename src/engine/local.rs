//! The engine that is a model in this process.
//!
//! Requests are answered with continuous batching: a sequence that ends gives its
//! slot to the next at once, the samples of one request share the computation of
//! their prompt, and every completion has its own counter-based random numbers.
//! The KV cache is paged: how many sequences run at once depends on their lengths, not on the longest there could be.
//! Rows keep their bits whatever else is in the batch, so a completion depends on
//! the weights, the prompt, the sampling and its seed, and on nothing else.
//!
//! The model sits behind a lock: the trainer updates it between rollouts, and both
//! use the same weights with no copy.

mod text;
mod worker;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use super::{Engine, EngineInfo, Generated, Request, SampleSeed, Sampling};
use crate::backend::{Backend, Cpu};
use crate::error::{Error, Result};
use crate::model::memory::{Decoding, Limits};
use crate::model::{Model, SharedModel, Tokenizer};
use crate::schema::Message;
use worker::Worker;

/// A model, its tokenizer, and the workers that decode.
pub struct LocalEngine<B: Backend = Cpu> {
    model: SharedModel<B>,
    tokenizer: Arc<Tokenizer>,
    name: String,
    limits: Limits,
    /// Ids that end a turn.
    ends: Vec<u32>,
    /// Workers at rest, with their caches, and the device of each.
    idle: Mutex<Vec<(usize, Worker<B>)>>,
}

impl<B: Backend> LocalEngine<B> {
    /// The model in a folder, to be asked at one temperature: it is π_T, so that the logprobs of what it writes are those
    /// of the policy that drew it ([`Model::set_temperature`]). Greedy, they are the model's own.
    ///
    /// # Errors
    /// A model that cannot be read, or to which the tokenizer does not belong.
    pub fn load(
        backend: B,
        folder: &Path,
        tokenizer: Arc<Tokenizer>,
        name: impl Into<String>,
        temperature: f32,
        limits: Limits,
    ) -> Result<Self> {
        let mut model = Model::load_on(backend, folder)?;
        if temperature > 0.0 {
            model.set_temperature(temperature)?;
        }
        LocalEngine::new(SharedModel::new(model), tokenizer, name, limits)
    }

    /// `name` is what completions call the model. Memory is taken when it is first asked: a trainer of the same model that
    /// is there by then has its own, and the cache gets what is left of the device's, where `limits` do not say how much.
    ///
    /// # Errors
    /// A tokenizer with tokens the model has no embedding for.
    pub fn new(
        model: SharedModel<B>,
        tokenizer: Arc<Tokenizer>,
        name: impl Into<String>,
        limits: Limits,
    ) -> Result<Self> {
        let ends = {
            let model = model.read();
            tokenizer.check(model.config().vocab_size)?;
            let mut ends = model.config().eos_token_ids.clone();
            ends.extend(tokenizer.end_of_text());
            ends
        };
        Ok(LocalEngine { model, tokenizer, name: name.into(), limits, ends, idle: Mutex::default() })
    }

    /// The model, for whoever trains it.
    pub fn model(&self) -> &SharedModel<B> {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Answers one conversation, handing text over as it comes; `on_text` returns
    /// false to stop early, as if a stop string had been met.
    ///
    /// # Errors
    /// A prompt that the template refuses or the context does not hold.
    pub fn chat(
        &self,
        messages: &[Message],
        sampling: &Sampling,
        seed: u64,
        on_text: &mut (dyn FnMut(&str) -> bool + Send),
    ) -> Result<Generated> {
        let request = Request {
            prompt_id: "chat".into(),
            messages: messages.into(),
            samples: vec![SampleSeed { index: 0, seed }],
            sampling: Arc::new(sampling.clone()),
            policy_step: 0,
        };
        let model = self.model.read();
        let limits = Limits { batch: Some(1), ..self.limits };
        let decoding = limits.within::<B>(model.config(), model.backend().free_bytes());
        let mut worker = Worker::new(model.backend().clone(), decoding);
        let mut answer = None;
        let mut next = Some(request);
        worker.run(
            &model,
            &self.tokenizer,
            &self.ends,
            &mut || next.take(),
            &mut |generated| {
                answer = Some(generated);
                true
            },
            Some(on_text),
        )?;
        let answer = answer.ok_or_else(|| Error::new("the model gave no answer"))?;
        match answer.error {
            Some(error) => Err(Error::new(error)),
            None => Ok(answer),
        }
    }

    /// What it takes on at once.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How often a sequence gave the pages of its cache up and was run through the model again: where that is often,
    /// more [`Limits::cache_bytes`] or a smaller [`Limits::batch`] is faster.
    pub fn displacements(&self) -> u64 {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().map(|(_, worker)| worker.displacements).sum()
    }

    fn workers(&self, model: &Model<B>) -> Vec<(usize, Worker<B>)> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.is_empty() {
            for device in 0..model.devices() {
                let backend = model.on(device).backend();
                let all = self.limits.within::<B>(model.config(), backend.free_bytes());
                let backends = backend.workers(model.size());
                let share = |total: usize| total.div_ceil(backends.len());
                let decoding = Decoding { batch: share(all.batch).max(1), cache_bytes: share(all.cache_bytes), ..all };
                idle.extend(backends.into_iter().map(|backend| (device, Worker::new(backend, decoding))));
            }
        }
        std::mem::take(&mut idle)
    }
}

impl<B: Backend> Engine for LocalEngine<B> {
    fn info(&self) -> EngineInfo {
        let model = self.model.read();
        EngineInfo { engine: "local", model: self.name.clone(), model_digest: model.digest(), deterministic: true }
    }

    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        let model = &*self.model.read();
        let mut workers = self.workers(model);
        let requests = &Mutex::new(requests);
        let stop = &AtomicBool::new(false);
        // Bounded: a slow sink slows the workers instead of filling the memory.
        let (sender, receiver) = mpsc::sync_channel::<Generated>(1024);
        let result = std::thread::scope(|scope| {
            let handles: Vec<_> = workers
                .iter_mut()
                .map(|(device, worker)| {
                    let (sender, model) = (sender.clone(), model.on(*device));
                    scope.spawn(move || {
                        let mut next = || match stop.load(Ordering::Relaxed) {
                            true => None,
                            false => requests.lock().unwrap_or_else(PoisonError::into_inner).next(),
                        };
                        let mut send = |generated| sender.send(generated).is_ok();
                        worker.run(model, &self.tokenizer, &self.ends, &mut next, &mut send, None)
                    })
                })
                .collect();
            drop(sender);
            let mut result = Ok(());
            for generated in receiver {
                result = sink(generated);
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                    break;
                }
            }
            for handle in handles {
                let joined = handle.join().unwrap_or_else(|_| Err(Error::new("a decoding worker panicked")));
                result = result.and(joined);
            }
            result
        });
        if result.is_ok() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = workers;
        }
        result
    }
}

#[cfg(test)]
mod tests;
