//! One call of `generate`: its jobs, and the answers it still waits for.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::VllmEngine;
use super::config::seconds;
use super::fault::Fatal;
use super::job::{self, Job, Run};
use super::wire::BodyWriter;
use crate::engine::{Engine, EngineInfo, Generated, Request, SampleSeed};
use crate::error::{Context, Error, Result};

/// What a job sends to the thread that called `generate`.
enum Event {
    Done(Vec<Generated>),
    Fatal(Fatal),
}

/// Requests beyond the servers' room that are pulled ahead, so that a place never waits for a request.
const AHEAD: usize = 64;
/// How often at most the calling thread is woken. The requests pulled ahead last for longer than this.
const PACE: Duration = Duration::from_millis(1);
/// Requests in a pause that do not count against the look-ahead: a storm must not stop the others.
const MOST_PAUSING: usize = 4096;

impl Engine for VllmEngine {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    /// See [`Engine::generate`]. After [`CancelToken::cancel`] it delivers what is in flight, then
    /// returns an error of kind [`crate::error::ErrorKind::Interrupted`]; requests not yet sent are not delivered.
    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        let shared = &*self.shared;
        shared.runs.fetch_add(1, Relaxed);
        let _running = Running(&shared.runs);
        shared.pool.begin();
        let model = shared.model.read().unwrap_or_else(|e| e.into_inner()).clone();
        let known = shared.identity.lock().unwrap_or_else(|e| e.into_inner()).clone();
        let knows_token_ids = known.as_ref().is_some_and(|(_, identity)| identity.knows_token_ids());
        let close_tag = known.as_ref().and_then(|(_, identity)| identity.close_tag);
        let context = known.and_then(|(_, identity)| identity.max_model_len);
        let mut bodies = BodyWriter::new(&shared.config, &model, shared.encoder.as_ref(), knows_token_ids);
        let (sender, events) = mpsc::channel();
        let run = Arc::new(Run::new(model.clone(), close_tag, context));
        let mut call = Call { engine: self, run, tasks: JoinSet::new(), events: sender, outstanding: 0 };
        let mut exhausted = false;
        let (mut checked, mut woken) = (Instant::now(), Instant::now());
        loop {
            if self.cancel.is_cancelled() {
                return drain(call, &events, sink);
            }
            // A few at a time: completions that came meanwhile are not kept waiting by a slow source.
            for _ in 0..32 {
                if exhausted || !call.has_room() {
                    break;
                }
                let idle = call.outstanding == 0;
                let next = requests.next();
                if idle {
                    shared.pool.begin();
                }
                match next {
                    Some(request) => call.submit(request, &mut bodies).into_iter().try_for_each(&mut *sink)?,
                    None => exhausted = true,
                }
            }
            if exhausted && call.outstanding == 0 {
                return Ok(());
            }
            let may_pull = !exhausted && call.has_room();
            if !may_pull {
                match events.recv_timeout(Duration::from_millis(50)) {
                    Ok(event) => call.receive(event, sink)?,
                    Err(_) => {
                        call.reap()?;
                        self.check()?;
                    }
                }
            }
            if !may_pull && woken.elapsed() < PACE {
                // Answers come faster than a thread is woken cheaply: let some gather.
                std::thread::sleep(PACE);
            }
            woken = Instant::now();
            while let Ok(event) = events.try_recv() {
                call.receive(event, sink)?;
            }
            call.reap()?;
            if checked.elapsed() > Duration::from_millis(100) {
                self.check()?;
                checked = Instant::now();
            }
        }
    }
}

/// Counts a call of `generate` while it lives.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One call of `generate`: its tasks, and what it still waits for.
struct Call<'a> {
    engine: &'a VllmEngine,
    run: Arc<Run>,
    /// Dropped with the call, which ends its tasks.
    tasks: JoinSet<()>,
    events: mpsc::Sender<Event>,
    /// Jobs whose event has not come.
    outstanding: usize,
}

impl Call<'_> {
    /// Starts the jobs of one request. A prompt that cannot be encoded is failed at once.
    fn submit(&mut self, request: Request, bodies: &mut BodyWriter<'_>) -> Vec<Generated> {
        let group = match bodies.group(&request) {
            Ok(group) => Arc::new(group),
            Err(fault) => {
                let failed = &self.engine.shared.totals.failed_rows[fault.kind.index()];
                failed.fetch_add(request.samples.len() as u64, Relaxed);
                let row = |sample: &SampleSeed| job::failed_row(request.prompt_id.clone(), sample.index, &fault);
                return request.samples.iter().map(row).collect();
            }
        };
        for samples in request.samples.chunks(self.engine.shared.config.n_per_request as usize) {
            let job = Job::new(group.clone(), samples.to_vec());
            let (shared, run, events) = (self.engine.shared.clone(), self.run.clone(), self.events.clone());
            let work = async move {
                let event = match job::run(&shared, &run, job).await {
                    Ok(done) => Event::Done(done),
                    Err(fatal) => Event::Fatal(fatal),
                };
                // The receiver is gone only when the call has ended.
                let _ = events.send(event);
            };
            self.tasks.spawn_on(work, self.engine.runtime().handle());
            self.outstanding += 1;
        }
        Vec::new()
    }

    fn has_room(&self) -> bool {
        let shared = &self.engine.shared;
        let pausing = (shared.totals.pausing.load(Relaxed) as usize).min(MOST_PAUSING);
        self.outstanding < 2 * shared.pool.room() + AHEAD + pausing
    }

    fn receive(&mut self, event: Event, sink: &mut (dyn FnMut(Generated) -> Result<()> + Send)) -> Result<()> {
        self.outstanding -= 1;
        match event {
            Event::Done(rows) => rows.into_iter().try_for_each(sink),
            Event::Fatal(fatal) => Err(fatal.into()),
        }
    }

    /// Forgets finished tasks. One that panicked would leave its samples without an answer.
    fn reap(&mut self) -> Result<()> {
        while let Some(outcome) = self.tasks.try_join_next() {
            outcome.or_fail(|| "a request's task failed, which is a bug in gristmill".into())?;
        }
        Ok(())
    }
}

/// Waits for the exchanges under way and delivers them; what was never sent stays unasked.
fn drain(
    mut call: Call<'_>,
    events: &mpsc::Receiver<Event>,
    sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
) -> Result<()> {
    call.run.draining.store(true, SeqCst);
    let until = Instant::now() + seconds(call.engine.shared.config.drain_timeout_s);
    loop {
        let idle = call.run.in_flight.load(SeqCst) == 0;
        match events.recv_timeout(Duration::from_millis(if idle { 0 } else { 20 })) {
            Ok(event) => call.receive(event, sink)?,
            Err(_) if idle || Instant::now() >= until => break,
            Err(_) => {}
        }
    }
    Err(Error::interrupted())
}
