//! What is asked: prompts shard by shard, and further rounds of those that need more samples.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::GenerateConfig;
use super::adaptive::Asked;
use super::open_shards::OpenShards;
use crate::engine::{Engine, Request, SampleSeed, Sampling};
use crate::error::{Error, Result};
use crate::schema::{Message, Prompt, Role, set_question};
use crate::stage::{StageContext, StageOutcome};
use crate::store::Dataset;

/// In which order the prompts of a shard are asked. What is written does not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    /// Longest prompts first: their answers take longest, and the end of a batch waits for the slowest.
    Longest,
    /// Prompts that begin alike one after the other, so that a server's prefix cache still holds what
    /// they share (examples, a long document).
    Prefix,
    /// As in the dataset.
    Given,
}

impl Order {
    fn arrange(self, requests: &mut [Request]) {
        fn contents(request: &Request) -> impl Iterator<Item = &str> {
            request.messages.iter().map(|m| m.content.as_str())
        }
        match self {
            Order::Longest => requests.sort_by_key(|r| std::cmp::Reverse(contents(r).map(str::len).sum::<usize>())),
            Order::Prefix => requests.sort_by(|a, b| contents(a).cmp(contents(b))),
            Order::Given => {}
        }
    }
}

/// The requests of a run, in order; an engine pulls them as it has room.
pub(super) struct Feed<'a, 'o> {
    cx: &'a StageContext<'a>,
    config: &'a GenerateConfig,
    engine: &'a dyn Engine,
    order: Order,
    open: &'a Mutex<OpenShards<'o>>,
    /// Shards that an earlier run wrote.
    kept: &'a BTreeMap<usize, StageOutcome>,
    rows: Box<dyn Iterator<Item = Result<Prompt>> + Send + 'a>,
    sampling: Arc<Sampling>,
    /// Prompts of a shard.
    per_shard: usize,
    shards: usize,
    next: usize,
    queue: VecDeque<Request>,
    failure: Option<Error>,
}

impl<'a, 'o> Feed<'a, 'o> {
    /// The requests for `prompts`, `per_shard` of them a shard.
    ///
    /// # Errors
    /// The prompts cannot be counted.
    #[allow(clippy::too_many_arguments, reason = "each is another part of the stage's surroundings")]
    pub fn new(
        cx: &'a StageContext<'a>,
        config: &'a GenerateConfig,
        engine: &'a dyn Engine,
        order: Order,
        prompts: &'a Dataset,
        per_shard: usize,
        open: &'a Mutex<OpenShards<'o>>,
        kept: &'a BTreeMap<usize, StageOutcome>,
    ) -> Result<Self> {
        Ok(Feed {
            cx,
            config,
            engine,
            order,
            open,
            kept,
            rows: Box::new(prompts.rows_of::<Prompt>()),
            sampling: Arc::new(config.sampling.clone()),
            per_shard,
            shards: prompts.rows()?.div_ceil(per_shard as u64) as usize,
            next: 0,
            queue: VecDeque::new(),
            failure: None,
        })
    }

    /// Shards of the whole stage.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// # Errors
    /// What ended the requests before their time.
    pub fn check(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Opens the next shard and queues what is left to ask for it.
    fn open_next(&mut self) -> Result<()> {
        let shard = self.next;
        self.next += 1;
        let prompts = self.rows.by_ref().take(self.per_shard);
        let to_make = self.cx.is_mine(shard) && self.cx.finished(shard).is_none() && !self.kept.contains_key(&shard);
        if !to_make {
            return prompts.into_iter().try_for_each(|prompt| prompt.map(drop));
        }
        let (mut wanted, mut not_available) = (Vec::new(), 0);
        for prompt in prompts {
            let prompt = prompt?;
            match request(self.config, self.engine, &prompt, self.cx.seed, &self.sampling) {
                Some(request) => {
                    let until = self.config.until.as_ref();
                    let available = self.engine.available(&request);
                    let asked = until.map(|until| Asked::new(prompt, request.clone(), until, available));
                    wanted.push((request, asked));
                }
                None => not_available += 1,
            }
        }
        let mut left = self.open.lock().expect("no holder panics").open_shard(shard, wanted, not_available)?;
        self.order.arrange(&mut left);
        self.queue.extend(left);
        Ok(())
    }
}

impl Iterator for Feed<'_, '_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        if self.failure.is_some() || self.cx.check_stop().is_err() {
            return None;
        }
        // Further rounds first: their shards are open.
        let more = self.open.lock().expect("no holder panics").more.pop_front();
        if more.is_some() {
            return more;
        }
        while self.queue.is_empty() && self.next < self.shards {
            if let Err(error) = self.open_next() {
                self.failure = Some(error);
                return None;
            }
            self.cx.check_stop().ok()?;
        }
        self.queue.pop_front()
    }
}

/// A request for the samples of one prompt; `None` if the engine has none.
fn request(
    config: &GenerateConfig,
    engine: &dyn Engine,
    prompt: &Prompt,
    seed: u64,
    sampling: &Arc<Sampling>,
) -> Option<Request> {
    let mut messages = prompt.messages.clone();
    if let Some(system) = &config.system
        && messages.first().is_none_or(|m| m.role != Role::System)
    {
        messages.insert(0, Message { role: Role::System, content: system.clone() });
    }
    let mut request = Request {
        prompt_id: prompt.prompt_id.as_str().into(),
        messages: messages.into(),
        samples: Vec::new(),
        sampling: Arc::clone(sampling),
        policy_step: 0,
    };
    // Recordings may be of the question alone, without the words that an `ask` put around it.
    if engine.available(&request) == Some(0)
        && let Some(bare) = prompt.bare_question()
    {
        let mut messages = request.messages.to_vec();
        set_question(&mut messages, bare);
        request.messages = messages.into();
    }
    let count = engine.available(&request).map_or(config.samples, |n| config.samples.min(n as u32));
    request.samples = (0..count).map(|i| SampleSeed::new(seed, &prompt.prompt_id, i, 0)).collect();
    (count > 0).then_some(request)
}
