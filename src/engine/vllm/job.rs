//! One request's way through faults: a place, an exchange, and what follows from its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::Shared;
use super::fault::{Action, Fatal, Fault, FaultKind, backoff};
use super::identity::explain;
use super::reply::{Completed, Reply, parse};
use super::stream;
use super::tags;
use super::wire::{ApiPath, Group};
use crate::engine::Generated;
use crate::schema::FinishReason;

/// What one call of `generate` shares with its jobs.
#[derive(Default)]
pub(super) struct Run {
    /// Exchanges under way; a drain waits for them and for nothing else.
    pub in_flight: AtomicUsize,
    pub draining: AtomicBool,
    /// The model's name in requests.
    pub model: String,
    /// The token that ends the reasoning, where the servers told.
    pub close_tag: Option<u32>,
    /// Rows the servers refused as bad requests, as long as nothing was answered.
    refused: AtomicU32,
    answered: AtomicU64,
}

impl Run {
    pub fn new(model: String, close_tag: Option<u32>) -> Self {
        Run { model, close_tag, ..Run::default() }
    }
}

/// Rows refused one after the other, with none answered, that are no longer the rows' fault.
const ALL_REFUSED: u32 = 32;

/// Samples of one prompt that are asked together.
pub(super) struct Job {
    pub group: Arc<Group>,
    /// (sample index, seed), in the order of the choices asked.
    pub samples: Vec<(u32, u64)>,
}

/// Runs a job to its end. Every sample is in the result, answered or failed, unless the run drains:
/// then those not under way are left out.
pub(super) async fn run(shared: &Shared, run: &Run, mut job: Job) -> Result<Vec<Generated>, Fatal> {
    let mut done = Vec::with_capacity(job.samples.len());
    let (mut tries, mut pauses, mut avoid) = (0, 0, None);
    loop {
        let affinity = job.group.affinity.load(Relaxed);
        let permit = shared.pool.acquire(affinity, avoid, tries + pauses > 0).await;
        run.in_flight.fetch_add(1, SeqCst);
        let flight = Flight(run);
        if run.draining.load(SeqCst) {
            return Ok(done);
        }
        let at = permit.endpoint;
        let endpoint = &shared.pool.endpoints[at];
        let counters = &shared.pool.counters[at];
        counters.requests.fetch_add(1, Relaxed);
        let started = Instant::now();
        let (n, seed) = (job.samples.len(), job.samples[0].1);
        let answer = exchange(shared, run, at, job.group.path, job.group.body(n, seed), n, job.group.deadline).await;
        let fault = match answer {
            Ok(mut reply) => {
                if job.samples.len() == 1 && shared.config.continue_rounds > 0 {
                    reply = continue_truncated(shared, run, at, &job, reply).await;
                }
                let tokens = count(&reply);
                permit.succeed(started.elapsed(), tokens);
                run.answered.fetch_add(1, Relaxed);
                counters.answers.fetch_add(1, Relaxed);
                counters.completions.fetch_add(reply.choices.len() as u64, Relaxed);
                counters.prompt_tokens.fetch_add(u64::from(reply.prompt_tokens.unwrap_or(0)), Relaxed);
                counters.completion_tokens.fetch_add(tokens, Relaxed);
                let truncated = reply.choices.iter().filter(|c| c.finish_reason == FinishReason::Length).count();
                counters.truncated.fetch_add(truncated as u64, Relaxed);
                job.group.affinity.store(at, Relaxed);
                deliver(&mut job, reply, &mut done);
                if job.samples.is_empty() {
                    return Ok(done);
                }
                // Fewer choices than asked: keep those, ask again for the rest.
                let fault =
                    Fault::new(FaultKind::WrongCount, format!("{} of {n} choices did not come", job.samples.len()));
                counters.faults[fault.kind.index()].fetch_add(1, Relaxed);
                fault
            }
            Err(fault) => {
                permit.fail(&fault);
                fault
            }
        };
        drop(flight);

        let unable = matches!(fault.kind, FaultKind::MissingTokenIds | FaultKind::BadLogprobs)
            && counters.answers.load(Relaxed) == 0
            && tries + 1 >= shared.config.max_attempts;
        let action = match fault.kind.action() {
            _ if unable => Action::FailRun,
            Action::Retry { counted: true } | Action::Elsewhere { counted: true }
                if tries + 1 >= shared.config.max_attempts =>
            {
                Action::FailRow
            }
            action => action,
        };
        match action {
            Action::FailRun => return Err(explain(&fault, endpoint)),
            Action::FailRow => {
                if fault.kind == FaultKind::BadRequest && run.answered.load(Relaxed) == 0 {
                    let refused = run.refused.fetch_add(1, Relaxed) + 1;
                    if refused >= ALL_REFUSED {
                        return Err(Fatal::new(format!(
                            "{} refused the first {refused} requests: {}",
                            endpoint.address, fault.message
                        ))
                        .hint("check the sampling settings and `extra_body` against what the server supports"));
                    }
                }
                shared.totals.failed_rows[fault.kind.index()].fetch_add(job.samples.len() as u64, Relaxed);
                done.extend(job.samples.iter().map(|(index, _)| failed(&job.group, *index, &fault)));
                return Ok(done);
            }
            Action::Retry { counted } | Action::Elsewhere { counted } => {
                shared.totals.retries[fault.kind.index()].fetch_add(1, Relaxed);
                tries += u32::from(counted);
                pauses += 1;
                avoid = matches!(action, Action::Elsewhere { .. }).then_some(at);
                // Another server can be asked at once; the same one gets a pause.
                if pauses > 1 || avoid.is_none() || !shared.pool.has_other(at) {
                    let pause = backoff(seed, pauses, &fault);
                    let _pausing = Pausing::new(&shared.totals.pausing);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

async fn exchange(
    shared: &Shared,
    run: &Run,
    at: usize,
    path: ApiPath,
    body: Vec<u8>,
    n: usize,
    deadline: Duration,
) -> Result<Reply, Fault> {
    let endpoint = &shared.pool.endpoints[at];
    let mut reply = if shared.config.stream {
        let reading = async { stream::read(endpoint.send(path, body).await?, path, n, &shared.config).await };
        endpoint.within(deadline, reading).await?
    } else {
        parse(&endpoint.complete(path, body, deadline).await?, path, n, &shared.config)?
    };
    if let Some(close) = run.close_tag {
        for choice in &mut reply.choices {
            tags::restore(endpoint, &run.model, close, &shared.config.reasoning, choice).await?;
        }
    }
    Ok(reply)
}

/// Asks on from where a completion was cut, as long as rounds are left. A fault on the way leaves the
/// completion as it was: cut, and counted so.
async fn continue_truncated(shared: &Shared, run: &Run, at: usize, job: &Job, mut reply: Reply) -> Reply {
    let config = &shared.config;
    for round in 1..=config.continue_rounds {
        let Some(prompt) = reply.prompt_ids.as_ref().or(job.group.prompt_ids.as_ref()) else { break };
        let choice = &reply.choices[0];
        let (FinishReason::Length, Some(written)) = (choice.finish_reason, &choice.token_ids) else { break };
        let tokens: Vec<u32> = prompt.iter().chain(written).copied().collect();
        let seed = crate::seed::stream(job.samples[0].1, "continuation", u64::from(round)).next_u64() >> 1;
        let body = job.group.continuation(&tokens, config.continue_tokens, config.logprobs, seed);
        let deadline = config.deadline(config.continue_tokens);
        let Ok(mut more) = exchange(shared, run, at, ApiPath::Completions, body, 1, deadline).await else { break };
        let more = more.choices.swap_remove(0);
        let (Some(ids), Some(all)) = (more.token_ids, reply.choices[0].token_ids.as_mut()) else { break };
        all.extend(ids);
        let choice = &mut reply.choices[0];
        let opened = config.reasoning.opened_by_template.as_str();
        choice.text += more.text.strip_prefix(opened).unwrap_or(&more.text);
        if let (Some(all), Some(logprobs)) = (choice.logprobs.as_mut(), more.logprobs) {
            all.extend(logprobs);
        }
        choice.finish_reason = more.finish_reason;
        choice.stop_reason = more.stop_reason;
        choice.tokens = choice.token_ids.as_ref().map(|ids| ids.len() as u32);
        reply.completion_tokens = choice.tokens.map(u64::from);
        shared.totals.continuations.fetch_add(1, Relaxed);
    }
    reply
}

fn count(reply: &Reply) -> u64 {
    let each = || reply.choices.iter().map(|c| u64::from(c.tokens.unwrap_or(0))).sum();
    reply.completion_tokens.unwrap_or_else(each)
}

/// Moves the answered samples from the job to the results.
fn deliver(job: &mut Job, reply: Reply, done: &mut Vec<Generated>) {
    let prompt_ids = reply.prompt_ids.or_else(|| job.group.prompt_ids.clone());
    let prompt_tokens = reply.prompt_tokens.or_else(|| prompt_ids.as_ref().map(|ids| ids.len() as u32));
    let mut choices = reply.choices;
    choices.sort_by_key(|c| c.index);
    let mut answered = vec![false; job.samples.len()];
    for choice in choices {
        let Completed { index, text, token_ids, logprobs, finish_reason, stop_reason, tokens } = choice;
        answered[index] = true;
        done.push(Generated {
            label: None,
            prompt_id: job.group.prompt_id.clone(),
            sample_index: job.samples[index].0,
            text: Some(text),
            token_ids,
            logprobs,
            prompt_token_ids: prompt_ids.clone(),
            finish_reason,
            stop_reason,
            prompt_tokens,
            completion_tokens: tokens,
            error: None,
        });
    }
    let mut place = 0;
    job.samples.retain(|_| {
        place += 1;
        !answered[place - 1]
    });
}

/// The row of a sample that failed.
pub(super) fn failed(group: &Group, sample_index: u32, fault: &Fault) -> Generated {
    failed_row(group.prompt_id.clone(), sample_index, fault)
}

pub(super) fn failed_row(prompt_id: Arc<str>, sample_index: u32, fault: &Fault) -> Generated {
    Generated {
        label: None,
        prompt_id,
        sample_index,
        text: None,
        token_ids: None,
        logprobs: None,
        prompt_token_ids: None,
        finish_reason: FinishReason::Error,
        stop_reason: None,
        prompt_tokens: None,
        completion_tokens: None,
        error: Some(fault.row_error()),
    }
}

/// Counts an exchange as under way while it lives.
struct Flight<'a>(&'a Run);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

/// Counts a pause while it lives, cancelled or not.
struct Pausing<'a>(&'a AtomicU64);

impl<'a> Pausing<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Pausing(count)
    }
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
