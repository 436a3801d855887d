//! Which endpoint a request goes to, and when.
//!
//! Every endpoint has an adaptive limit and a circuit breaker. A request waits
//! in one queue for the first endpoint with room; among several it takes the
//! one with the least expected wait (in flight times measured latency), but
//! stays with the endpoint that holds its prompt's prefix cache while that
//! costs little. A pause before a retry holds no place anywhere.
//!
//! A circuit that opened closes in two steps: when a probe finds the endpoint
//! healthy it gets one request, and the others only once that was answered.
//! An endpoint that refuses whatever it is asked (its key, its model, its path)
//! is left alone while others serve.
//!
//! A server that holds a policy which it was told to load loses it when it is restarted. So there a single connection that
//! breaks opens the circuit, and what answers a request that was under way then waits until the server was asked for its policy.

mod permit;
mod slot;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::fault::Fatal;
use super::limiter::Limiter;
use super::stats::{Counters, EndpointSnapshot, by_kind};
use super::transport::Endpoint;
pub(super) use permit::Permit;
use slot::{Circuit, Slot};

/// The endpoints of an engine and the queue before them.
pub(super) struct Pool {
    pub endpoints: Vec<Endpoint>,
    pub counters: Vec<Counters>,
    state: Mutex<State>,
    /// Sum of the limits of endpoints that are up, for the look-ahead.
    room: AtomicUsize,
    /// Called with the index of an endpoint whose circuit opened.
    on_open: Mutex<Option<OnOpen>>,
    /// What people should hear of, and have not been told.
    news: Mutex<Vec<String>>,
}

type OnOpen = Box<dyn Fn(usize) + Send>;

struct State {
    slots: Vec<Slot>,
    waiters: VecDeque<Waiter>,
    last_answer: Instant,
    /// Since when no endpoint is up.
    dark_since: Option<Instant>,
    /// Whether servers hold weights that they were told to load, and not those that they were started with.
    policy: bool,
    fatal: Option<Fatal>,
}

struct Waiter {
    turn: oneshot::Sender<Permit>,
    affinity: usize,
    avoid: Vec<usize>,
}

/// Faults in a row that open an endpoint's circuit: few where no connection was made, more where the
/// server answered in some way, since an endpoint that breaks one exchange in ten is better than none.
const TRIP_UNREACHABLE: u32 = 5;
const TRIP: u32 = 12;
/// Weight of the last request in the share that an endpoint turns away.
const RECENT: f64 = 0.02;

impl Pool {
    /// All endpoints begin with their circuit open; [`Pool::close`] lets requests in.
    pub fn new(endpoints: Vec<Endpoint>, max_concurrency: u32) -> Arc<Self> {
        let now = Instant::now();
        let slots = endpoints.iter().map(|_| Slot {
            limiter: Limiter::new(max_concurrency, now),
            in_flight: 0,
            latency: 0.0,
            refusing: 0.0,
            faults: 0,
            last_fault: None,
            circuit: Circuit::Open,
            trips: 0,
            refused: None,
            refusals: 0,
            suspect: false,
            breaks: 0,
            losses: 0,
            gap: None,
            paused_until: None,
        });
        let state = State {
            slots: slots.collect(),
            waiters: VecDeque::new(),
            last_answer: now,
            dark_since: Some(now),
            policy: false,
            fatal: None,
        };
        let counters =
            endpoints.iter().map(|_| Counters { server_waiting: AtomicU64::new(u64::MAX), ..Counters::default() });
        Arc::new(Pool {
            counters: counters.collect(),
            endpoints,
            state: Mutex::new(state),
            room: AtomicUsize::new(0),
            on_open: Mutex::new(None),
            news: Mutex::default(),
        })
    }

    /// What to do when a circuit opens: start probing the endpoint.
    pub fn when_opened(&self, call: impl Fn(usize) + Send + 'static) {
        *self.on_open.lock().unwrap_or_else(|e| e.into_inner()) = Some(Box::new(call));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state stays consistent even if a holder panicked: every change is a few plain assignments.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for a place. `affinity` is the endpoint that last answered for this prompt, `avoid` those that
    /// failed it: better than none, since they may be the only ones that are up.
    pub async fn acquire(self: &Arc<Self>, affinity: usize, avoid: &[usize], first: bool) -> Permit {
        let waiting = {
            let mut state = self.lock();
            let pick =
                if state.waiters.is_empty() || first { state.pick(affinity, avoid, Instant::now()) } else { None };
            match pick {
                Some(endpoint) => return self.grant(&mut state, endpoint),
                None => {
                    let (turn, waiting) = oneshot::channel();
                    let waiter = Waiter { turn, affinity, avoid: avoid.to_vec() };
                    // Retries go before requests that were never tried: their prompt is the oldest.
                    if first {
                        state.waiters.push_front(waiter)
                    } else {
                        state.waiters.push_back(waiter)
                    }
                    waiting
                }
            }
        };
        waiting.await.expect("the queue lives in the pool, which this task holds, and drops no waiter")
    }

    fn grant(self: &Arc<Self>, state: &mut State, endpoint: usize) -> Permit {
        let slot = &mut state.slots[endpoint];
        slot.in_flight += 1;
        Permit { pool: self.clone(), endpoint, breaks: slot.breaks, losses: slot.losses, held: true }
    }

    /// Gives free places to those who wait.
    fn serve(self: &Arc<Self>, state: &mut State) {
        let now = Instant::now();
        // A retry that avoids an endpoint must not keep others from it: look a little past the front.
        let next = |state: &State| {
            let waiters = state.waiters.iter().take(64).enumerate();
            waiters.filter_map(|(i, w)| Some((i, state.pick(w.affinity, &w.avoid, now)?))).next()
        };
        // Mostly one place is free and goes to the first: the others need not be asked in vain.
        while state.slots.iter().any(|slot| slot.has_room(now))
            && let Some((place, endpoint)) = next(state)
        {
            let waiter = state.waiters.remove(place).expect("the place was found in the queue");
            let permit = self.grant(state, endpoint);
            if let Err(mut unused) = waiter.turn.send(permit) {
                // Nobody waits any more. Undone here, since dropping it would lock the state again.
                unused.held = false;
                state.slots[endpoint].in_flight -= 1;
            }
        }
        let room = state.slots.iter().filter(|s| s.is_up()).map(|s| s.limiter.limit()).sum();
        self.room.store(room, Relaxed);
    }

    /// Requests that all endpoints together may have in flight now.
    pub fn room(&self) -> usize {
        self.room.load(Relaxed)
    }

    /// Lets requests to an endpoint that was found healthy: one at first, if it was found so before and
    /// failed all the same.
    pub fn close(self: &Arc<Self>, endpoint: usize) {
        let mut state = self.lock();
        let slot = &mut state.slots[endpoint];
        if !slot.is_up() {
            slot.circuit = if slot.trips > 0 { Circuit::Trial } else { Circuit::Closed };
            slot.faults = 0;
            slot.refused = None;
            slot.paused_until = None;
            slot.limiter.restart(Instant::now());
        }
        state.dark_since = None;
        self.serve(&mut state);
    }

    /// Stops sending to an endpoint until [`Pool::close`]. True if it was in use.
    pub fn open(&self, endpoint: usize) -> bool {
        let opened = self.lock().trip(endpoint);
        if opened {
            self.report_open(endpoint);
        }
        opened
    }

    fn report_open(&self, endpoint: usize) {
        if let Some(call) = &*self.on_open.lock().unwrap_or_else(|e| e.into_inner()) {
            call(endpoint);
        }
    }

    /// Leaves an endpoint alone that refuses whatever it is asked, and says so. If all do, the run ends.
    pub fn refuse(&self, endpoint: usize, cause: Fatal) {
        let mut state = self.lock();
        let opened = state.trip(endpoint);
        let slot = &mut state.slots[endpoint];
        if slot.refused.is_none() {
            slot.refusals += 1;
            let (left, all) = (state.slots.iter().filter(|s| s.is_up()).count(), state.slots.len());
            if all > 1 && state.slots[endpoint].refusals == 1 {
                self.say(format!("{}: this server is left out, {left} of {all} are in use", cause.message));
            }
            state.slots[endpoint].refused = Some(cause);
        }
        let causes: Option<Vec<&Fatal>> = state.slots.iter().map(|s| s.refused.as_ref()).collect();
        let fatal = match causes.as_deref() {
            None | Some([]) => None,
            Some([only]) => Some((*only).clone()),
            Some([first, ..]) => {
                let each: Vec<&str> = causes.iter().flatten().map(|cause| cause.message.as_str()).collect();
                let all = Fatal::new(format!("every server refuses its requests:\n{}", each.join("\n")));
                Some(first.hints.iter().fold(all, |all, hint| all.hint(hint.clone())))
            }
        };
        if let Some(fatal) = fatal {
            state.fatal.get_or_insert(fatal);
        }
        drop(state);
        if opened {
            self.report_open(endpoint);
        }
    }

    /// Tells people something, when they are next told how it goes.
    pub fn say(&self, line: String) {
        self.news.lock().unwrap_or_else(|e| e.into_inner()).push(line);
    }

    /// What was to be told since this was last asked.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Seconds before an endpoint that is down is probed first: the longer, the more often it failed again
    /// after a probe that found it healthy.
    pub fn first_pause(&self, endpoint: usize) -> f64 {
        let state = self.lock();
        let slot = &state.slots[endpoint];
        match slot.refused {
            Some(_) => f64::min(15.0 * f64::powi(2.0, slot.refusals.saturating_sub(1).min(8) as i32), 300.0),
            None => f64::min(0.5 * f64::powi(1.5, slot.trips.saturating_sub(1).min(12) as i32), 15.0),
        }
    }

    /// Share of the latest requests that the endpoint turned away.
    pub fn refusing(&self, endpoint: usize) -> f64 {
        self.lock().slots[endpoint].refusing
    }

    /// A server answered what was no request of the run's.
    pub fn note_answer(&self) {
        self.lock().last_answer = Instant::now();
    }

    pub fn is_up(&self, endpoint: usize) -> bool {
        self.lock().slots[endpoint].is_up()
    }

    /// Whether a connection to the endpoint, which is up, broke since this was last asked.
    pub fn take_suspicion(&self, endpoint: usize) -> bool {
        let slot = &mut self.lock().slots[endpoint];
        slot.is_up() && std::mem::take(&mut slot.suspect)
    }

    /// Servers are told to load a policy: none has it yet.
    pub fn begin_policy(&self) {
        let mut state = self.lock();
        state.policy = true;
        state.slots.iter_mut().for_each(|slot| slot.gap = None);
    }

    /// An endpoint has loaded the policy, and is so far from it, if it was asked; or, without a figure, need not have it any more.
    pub fn note_policy(&self, endpoint: usize, gap: Option<f64>) {
        self.lock().slots[endpoint].gap = gap;
    }

    /// An endpoint did not have the policy any more, and has loaded it again.
    pub fn note_loss(&self, endpoint: usize, gap: Option<f64>) {
        let slot = &mut self.lock().slots[endpoint];
        slot.losses += 1;
        slot.gap = gap;
    }

    /// How far from the policy the endpoint was when it had loaded it.
    pub fn policy_gap(&self, endpoint: usize) -> Option<f64> {
        self.lock().slots[endpoint].gap
    }

    /// Whether a request that failed at these endpoints can be asked at another one.
    pub fn has_other(&self, failed: &[usize]) -> bool {
        self.lock().has_other(failed)
    }

    /// The server's own queue, from its metrics.
    pub fn on_gauge(self: &Arc<Self>, endpoint: usize, waiting: u64, running: u64) {
        self.counters[endpoint].server_waiting.store(waiting, Relaxed);
        let mut state = self.lock();
        let slot = &mut state.slots[endpoint];
        slot.limiter.on_gauge(Instant::now(), waiting, running, slot.in_flight);
        self.serve(&mut state);
    }

    /// How long no endpoint has been up, and how long none has answered.
    pub fn silence(&self) -> (Duration, Duration) {
        let state = self.lock();
        (state.dark_since.map_or(Duration::ZERO, |since| since.elapsed()), state.last_answer.elapsed())
    }

    /// Starts the clock of [`Pool::silence`] anew: idle time between two runs is no silence.
    pub fn begin(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        state.last_answer = now;
        if state.dark_since.is_some() {
            state.dark_since = Some(now);
        }
    }

    /// Ends every run of the engine with this cause; the first one stays.
    pub fn fail(&self, fatal: Fatal) {
        self.lock().fatal.get_or_insert(fatal);
    }

    pub fn fatal(&self) -> Option<Fatal> {
        self.lock().fatal.clone()
    }

    /// (in flight, queued) now.
    pub fn load(&self) -> (usize, usize) {
        let state = self.lock();
        (state.slots.iter().map(|s| s.in_flight).sum(), state.waiters.len())
    }

    pub fn snapshot(&self) -> Vec<EndpointSnapshot> {
        let state = self.lock();
        let now = Instant::now();
        let lines = self.endpoints.iter().zip(&self.counters).zip(&state.slots);
        lines
            .map(|((endpoint, counters), slot)| EndpointSnapshot {
                address: endpoint.address.clone(),
                state: match slot {
                    Slot { refused: Some(_), .. } => "left out",
                    Slot { circuit: Circuit::Open, .. } => "down",
                    Slot { paused_until: Some(until), .. } if *until > now => "pausing",
                    _ => "up",
                },
                in_flight: slot.in_flight,
                limit: slot.limiter.limit(),
                requests: counters.requests.load(Relaxed),
                completions: counters.completions.load(Relaxed),
                prompt_tokens: counters.prompt_tokens.load(Relaxed),
                completion_tokens: counters.completion_tokens.load(Relaxed),
                latency: slot.latency,
                server_waiting: Some(counters.server_waiting.load(Relaxed)).filter(|&n| n != u64::MAX),
                faults: by_kind(&counters.faults),
                last_fault: slot.last_fault.clone(),
            })
            .collect()
    }
}

impl State {
    /// The endpoint to ask next, or none with room.
    fn pick(&self, affinity: usize, avoid: &[usize], now: Instant) -> Option<usize> {
        let known = self.slots.iter().filter(|s| s.is_up() && s.latency > 0.0).map(|s| s.latency);
        let fastest = known.fold(f64::INFINITY, f64::min);
        let wait = |slot: &Slot| {
            let latency = if slot.latency > 0.0 { slot.latency } else { fastest.min(1e9) };
            (slot.in_flight + 1) as f64 * latency
        };
        let others_up = avoid.is_empty() || self.has_other(avoid);
        let usable = |i: usize, slot: &Slot| slot.has_room(now) && (!others_up || !avoid.contains(&i));
        let mut best: Option<(usize, f64)> = None;
        for (i, slot) in self.slots.iter().enumerate().filter(|(i, slot)| usable(*i, slot)) {
            let wait = wait(slot);
            if best.is_none_or(|(_, least)| wait < least) {
                best = Some((i, wait));
            }
        }
        let (endpoint, least) = best?;
        match self.slots.get(affinity) {
            Some(warm) if usable(affinity, warm) && wait(warm) <= 2.0 * least => Some(affinity),
            _ => Some(endpoint),
        }
    }

    fn has_other(&self, failed: &[usize]) -> bool {
        self.slots.iter().enumerate().any(|(i, slot)| slot.is_up() && !failed.contains(&i))
    }

    fn trip(&mut self, endpoint: usize) -> bool {
        let slot = &mut self.slots[endpoint];
        let opened = slot.is_up();
        slot.circuit = Circuit::Open;
        slot.trips += u32::from(opened);
        if !self.slots.iter().any(Slot::is_up) {
            self.dark_since.get_or_insert_with(Instant::now);
        }
        opened
    }
}
