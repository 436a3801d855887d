//! One request's way through faults: a place, an exchange, and what follows from its outcome.
//!
//! A completion that was cut and is to be continued takes the same way once more with each part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::Shared;
use super::fault::{Action, Fatal, Fault, FaultKind, backoff};
use super::identity::explain;
use super::refusals::Refusals;
use super::reply::{Completed, Reply, parse};
use super::stream;
use super::tags;
use super::wire::{ApiPath, Group};
use crate::engine::{Generated, SampleSeed};
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
    /// Tokens of a prompt and its completion together, where the servers told.
    pub context: Option<u64>,
    /// Rows the servers refused as bad requests, as long as nothing was answered.
    refused: AtomicU32,
    answered: AtomicU64,
}

impl Run {
    pub fn new(model: String, close_tag: Option<u32>, context: Option<u64>) -> Self {
        Run { model, close_tag, context, ..Run::default() }
    }
}

/// Rows refused one after the other, with none answered, that are no longer the rows' fault.
const ALL_REFUSED: u32 = 32;

/// Samples of one prompt that are asked together.
pub(super) struct Job {
    pub group: Arc<Group>,
    /// In the order of the choices asked.
    pub samples: Vec<SampleSeed>,
    /// What was written of the only sample, if it was cut and is to be continued.
    part: Option<Part>,
}

/// A completion that was cut, and how to go on with it.
struct Part {
    written: Reply,
    /// Which continuation is next, from 1.
    round: u32,
    body: Vec<u8>,
    deadline: Duration,
}

/// What has become of a request so far.
#[derive(Default)]
struct Course {
    tries: u32,
    pauses: u32,
    /// The endpoints that failed it, until all have.
    failed: Vec<usize>,
    refusals: Refusals,
}

impl Job {
    pub fn new(group: Arc<Group>, samples: Vec<SampleSeed>) -> Self {
        Job { group, samples, part: None }
    }

    /// The call to make, its body, how many choices it asks for, and how long it may take.
    fn ask(&self) -> (ApiPath, Vec<u8>, usize, Duration) {
        match &self.part {
            Some(part) => (ApiPath::Completions, part.body.clone(), 1, part.deadline),
            None => {
                let n = self.samples.len();
                (self.group.path, self.group.body(n, self.samples[0].seed), n, self.group.deadline)
            }
        }
    }
}

/// Runs a job to its end. Every sample is in the result, answered or failed, unless the run drains:
/// then those not under way are left out.
pub(super) async fn run(shared: &Shared, run: &Run, mut job: Job) -> Result<Vec<Generated>, Fatal> {
    let mut done = Vec::with_capacity(job.samples.len());
    let mut course = Course::default();
    let mut flight = None;
    loop {
        let affinity = job.group.affinity.load(Relaxed);
        let first = course.pauses > 0 || job.part.is_some();
        let permit = shared.pool.acquire(affinity, &course.failed, first).await;
        flight.get_or_insert_with(|| Flight::new(run));
        if run.draining.load(SeqCst) && job.part.is_none() {
            return Ok(done);
        }
        let at = permit.endpoint;
        let endpoint = &shared.pool.endpoints[at];
        let counters = &shared.pool.counters[at];
        counters.requests.fetch_add(1, Relaxed);
        let started = Instant::now();
        let (path, body, n, deadline) = job.ask();
        let answer = exchange(shared, run, at, path, body, n, deadline).await;
        let took = started.elapsed();
        if answer.is_ok() && !permit.is_of_the_policy().await {
            // Asked again of a server that has the policy; it was no try of this request's.
            continue;
        }
        let fault = match answer {
            Ok(reply) => {
                let tokens = count(&reply);
                permit.succeed(took, tokens);
                run.answered.fetch_add(1, Relaxed);
                counters.answers.fetch_add(1, Relaxed);
                counters.prompt_tokens.fetch_add(u64::from(reply.prompt_tokens.unwrap_or(0)), Relaxed);
                counters.completion_tokens.fetch_add(tokens, Relaxed);
                job.group.affinity.store(at, Relaxed);
                let Some(reply) = go_on(shared, run, &mut job, reply) else {
                    // The next part is a request of its own, which this one's faults say nothing of.
                    course = Course::default();
                    continue;
                };
                finish(shared, at, &mut job, reply, &mut done);
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
                permit.fail(&fault, job.group.failed_before(at));
                fault
            }
        };
        if let Some(part) = job.part.take_if(|_| cannot_be_continued(&fault)) {
            finish(shared, at, &mut job, part.written, &mut done);
            return Ok(done);
        }
        let most = shared.config.max_attempts;
        let refused = fault.kind.is_refusal() && course.refusals.are_the_rows(shared, &job.group, at).await;
        if job.part.is_none() {
            flight = None;
        }
        let unable = matches!(fault.kind, FaultKind::MissingTokenIds | FaultKind::BadLogprobs)
            && counters.answers.load(Relaxed) == 0
            && course.tries + 1 >= most;
        let action = match fault.kind.action() {
            _ if unable => Action::LeaveEndpoint,
            _ if refused => Action::FailRow,
            Action::Retry { counted: true } if course.tries + 1 >= most => Action::FailRow,
            action => action,
        };
        match action {
            Action::FailRun => return Err(explain(&fault, endpoint)),
            Action::LeaveEndpoint => {
                shared.pool.refuse(at, explain(&fault, endpoint));
                if let Some(fatal) = shared.pool.fatal() {
                    return Err(fatal);
                }
                shared.totals.retries[fault.kind.index()].fetch_add(1, Relaxed);
                // It was no try of this request's: nothing of it was read.
                course = Course { failed: vec![at], ..Course::default() };
            }
            Action::FailRow => {
                if fault.kind == FaultKind::BadRequest && run.answered.load(Relaxed) == 0 {
                    let refused = run.refused.fetch_add(1, Relaxed) + 1;
                    if refused >= ALL_REFUSED {
                        return Err(Fatal::new(format!(
                            "{} refused the first {refused} requests: {}",
                            endpoint.address, fault.message
                        ))
                        .hint("check the sampling settings and `extra_body` against what the server supports; `omit` and `rename` leave keys out or give them other names"));
                    }
                }
                shared.totals.failed_rows[fault.kind.index()].fetch_add(job.samples.len() as u64, Relaxed);
                done.extend(job.samples.iter().map(|sample| failed(&job.group, sample.index, &fault)));
                return Ok(done);
            }
            Action::Retry { counted } => {
                shared.totals.retries[fault.kind.index()].fetch_add(1, Relaxed);
                course.tries += u32::from(counted);
                course.pauses += 1;
                if !course.failed.contains(&at) {
                    course.failed.push(at);
                }
                let elsewhere = shared.pool.has_other(&course.failed);
                if !elsewhere {
                    // All have failed it: any may be asked again, this one last.
                    course.failed = vec![at];
                }
                // Another server can be asked at once, the first time; later ones get a pause.
                if course.pauses > 1 || !elsewhere {
                    let pause = backoff(job.samples[0].seed, course.pauses, &fault);
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
        let answer = endpoint.complete(path, body, deadline).await?;
        parse(&answer, path, n, &shared.config).map_err(|fault| endpoint.redact(fault))?
    };
    if let Some(close) = run.close_tag {
        for choice in &mut reply.choices {
            tags::restore(endpoint, &run.model, close, &shared.config.reasoning, choice).await?;
        }
    }
    Ok(reply)
}

/// Adds an answer to what was written before. `None` if the completion was cut again and is continued: the
/// job then asks for the next part.
fn go_on(shared: &Shared, run: &Run, job: &mut Job, reply: Reply) -> Option<Reply> {
    let (reply, round) = match job.part.take() {
        None => (reply, 1),
        Some(part) => {
            shared.totals.continuations.fetch_add(1, Relaxed);
            (joined(part.written, reply, &shared.config.reasoning.opened_by_template), part.round + 1)
        }
    };
    let config = &shared.config;
    if job.samples.len() > 1 || round > config.continue_rounds {
        return Some(reply);
    }
    let prompt = reply.prompt_ids.as_ref().or(job.group.prompt_ids.as_ref());
    let choice = &reply.choices[0];
    let (Some(prompt), FinishReason::Length, Some(written)) = (prompt, choice.finish_reason, &choice.token_ids) else {
        return Some(reply);
    };
    let tokens: Vec<u32> = prompt.iter().chain(written).copied().collect();
    // A server refuses what could end beyond its context.
    let room = run.context.map_or(u64::MAX, |context| context.saturating_sub(tokens.len() as u64));
    let budget = room.min(config.continue_tokens.into()) as u32;
    if budget == 0 {
        return Some(reply);
    }
    let seed = crate::seed::stream(job.samples[0].seed, "continuation", u64::from(round)).next_u64() >> 1;
    let body = job.group.continuation(&tokens, budget, config.logprobs, seed);
    job.part = Some(Part { written: reply, round, body, deadline: config.deadline(budget) });
    None
}

/// A completion and what continues it.
fn joined(mut reply: Reply, mut more: Reply, opened: &str) -> Reply {
    let more = more.choices.swap_remove(0);
    let choice = &mut reply.choices[0];
    choice.text += more.text.strip_prefix(opened).unwrap_or(&more.text);
    if let (Some(all), Some(ids)) = (choice.token_ids.as_mut(), more.token_ids) {
        all.extend(ids);
    }
    if let (Some(all), Some(logprobs)) = (choice.logprobs.as_mut(), more.logprobs) {
        all.extend(logprobs);
    }
    choice.finish_reason = more.finish_reason;
    choice.stop_reason = more.stop_reason;
    choice.tokens = choice.token_ids.as_ref().map(|ids| ids.len() as u32);
    reply.completion_tokens = choice.tokens.map(u64::from);
    reply
}

/// Whether a server will never take a continuation: no room is left in its context, or it takes no token
/// ids. The completion then stays as it was cut.
fn cannot_be_continued(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::ContextOverflow | FaultKind::BadRequest | FaultKind::WrongAddress)
}

/// Counts a whole answer and moves it to the results.
fn finish(shared: &Shared, at: usize, job: &mut Job, reply: Reply, done: &mut Vec<Generated>) {
    let counters = &shared.pool.counters[at];
    counters.completions.fetch_add(reply.choices.len() as u64, Relaxed);
    let truncated = reply.choices.iter().filter(|c| c.finish_reason == FinishReason::Length).count();
    counters.truncated.fetch_add(truncated as u64, Relaxed);
    deliver(job, reply, done);
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
            sample_index: job.samples[index].index,
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
    Generated::failed(prompt_id, sample_index, fault.row_error())
}

/// Counts an exchange as under way while it lives.
struct Flight<'a>(&'a Run);

impl<'a> Flight<'a> {
    fn new(run: &'a Run) -> Self {
        run.in_flight.fetch_add(1, SeqCst);
        Flight(run)
    }
}

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
