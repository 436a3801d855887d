//! Adaptive concurrency of one endpoint, so that nobody tunes a number.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain 1989), with slow
//! start. Three things say that an endpoint has enough: it answers 429, or too
//! often 503 or not in time; its own gauge `vllm:num_requests_waiting` grows; or, where
//! there is no gauge, more concurrency no longer brings more tokens a second (by Little's law
//! that is the same as latency growing with concurrency).
//!
//! The gauge is the better witness: a server that queues nothing has room in its batch, whatever
//! a busy machine makes of the rate meanwhile. And a server that queues loses nothing by too many
//! requests, so with a gauge the limit begins high instead of leaving a batch half empty for minutes.
//! One look at it proves little: where completions end together, what follows them waits for a step.

use std::time::{Duration, Instant};

/// The limit on requests in flight at one endpoint.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: f64,
    max: f64,
    slow_start: bool,
    /// Neither growth nor a second decrease before this: one congestion is felt by many requests at once.
    settled_at: Instant,
    /// Where congestion was last met: beyond three quarters of it the limit grows ten times slower.
    ceiling: f64,
    window: Window,
    /// The window that later ones are compared to.
    base: Option<Measured>,
    /// Windows left before the limit may grow again after a plateau.
    hold: u32,
    /// The server's queue over its batch at the last looks, if it tells.
    queue: [f64; LOOKS],
    looks: usize,
}

/// Work done since `started`, when the limit was `limit`.
#[derive(Debug)]
struct Window {
    started: Instant,
    limit: f64,
    work: f64,
    answers: u32,
    /// Faults that may mean congestion, or may be of their own exchange alone.
    doubts: u32,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    limit: f64,
    rate: f64,
}

const START: f64 = 16.0;
/// Where the server tells its queue: as many as vLLM batches by default.
const START_GAUGED: f64 = 256.0;
/// Looks at the server's queue that must agree.
const LOOKS: usize = 3;
/// Queues, in batches: beyond the first the limit does not grow, beyond the second it shrinks.
const QUEUED_ENOUGH: f64 = 0.1;
const QUEUED_TOO_MUCH: f64 = 0.5;
/// Windows to stay on a plateau before probing upwards again.
const HOLD: u32 = 8;
/// Growth of the limit over which throughput is compared: less would drown in noise.
const STRIDE: f64 = 0.2;
/// Share of a window's outcomes, and number, from which faults that may mean congestion do.
const DOUBTFUL: (f64, u32) = (0.15, 3);
/// Share of that growth that throughput must follow.
const WORTHWHILE: f64 = 0.25;

impl Window {
    fn new(started: Instant, limit: f64) -> Self {
        Window { started, limit, work: 0.0, answers: 0, doubts: 0 }
    }
}

impl Limiter {
    pub fn new(max: u32, now: Instant) -> Self {
        let max = f64::from(max.max(1));
        let limit = START.min(max);
        Limiter {
            limit,
            max,
            slow_start: true,
            settled_at: now,
            ceiling: f64::INFINITY,
            window: Window::new(now, limit),
            base: None,
            hold: 0,
            queue: [0.0; LOOKS],
            looks: 0,
        }
    }

    /// Requests that may be in flight; at least 1.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// A request was answered. `saturated` says whether the limit was what held others back: a limit
    /// that is not reached is no evidence for a higher one.
    pub fn on_answer(&mut self, now: Instant, latency: Duration, tokens: u64, saturated: bool) {
        self.window.work += tokens as f64 + 1.0;
        self.window.answers += 1;
        if saturated && self.hold == 0 && now >= self.settled_at && self.queued() <= QUEUED_ENOUGH {
            let mut step = if self.slow_start { 1.0 } else { (0.05 * self.limit).max(1.0) / self.limit };
            if self.limit > 0.75 * self.ceiling {
                step *= 0.1;
            }
            self.limit = (self.limit + step).min(self.max);
        }
        let length = now.duration_since(self.window.started);
        if length >= latency.max(Duration::from_millis(250)) && f64::from(self.window.answers) >= self.window.limit {
            self.close_window(now, length);
        }
    }

    fn close_window(&mut self, now: Instant, length: Duration) {
        let limit = 0.5 * (self.window.limit + self.limit);
        let measured = Measured { limit, rate: self.window.work / length.as_secs_f64() };
        self.compare(measured);
        self.window = Window::new(now, self.limit);
    }

    fn compare(&mut self, measured: Measured) {
        if self.looks > 0 {
            return;
        }
        if self.hold > 0 {
            self.hold -= 1;
            self.base = Some(measured);
            return;
        }
        let Some(base) = self.base else {
            self.base = Some(measured);
            return;
        };
        let grown = measured.limit / base.limit - 1.0;
        if grown < STRIDE {
            return;
        }
        if measured.rate / base.rate - 1.0 < WORTHWHILE * grown {
            self.limit = base.limit.max(1.0);
            self.slow_start = false;
            self.hold = HOLD;
        }
        self.base = Some(measured);
    }

    /// The endpoint had too much: halve, at most once for each round of answers.
    pub fn on_congestion(&mut self, now: Instant, latency: Duration) {
        let untried = std::mem::replace(&mut self.slow_start, false);
        if now >= self.settled_at {
            // A high start was a guess, and a gateway before the server knows better.
            let limit = if untried { self.limit.min(2.0 * START) } else { self.limit };
            self.ceiling = limit;
            self.limit = (limit * 0.5).max(1.0);
            self.settled_at = now + latency.clamp(Duration::from_millis(100), Duration::from_secs(30));
            self.base = None;
        }
    }

    /// A 503 or a timeout. Alone it says nothing of the endpoint's load; true if there are so many
    /// that it is taken for congestion.
    pub fn on_doubt(&mut self, now: Instant, latency: Duration) -> bool {
        self.window.doubts += 1;
        let (share, least) = DOUBTFUL;
        let outcomes = f64::from(self.window.answers + self.window.doubts);
        let congested = self.window.doubts >= least && f64::from(self.window.doubts) >= share * outcomes;
        if congested {
            self.on_congestion(now, latency);
        }
        congested
    }

    /// The server's own queue. A short queue keeps its batch full; a long one only adds latency.
    pub fn on_gauge(&mut self, waiting: u64, running: u64) {
        let queue = if waiting <= 2 { 0.0 } else { waiting as f64 / running.max(1) as f64 };
        if self.looks == 0 {
            self.hold = 0;
            if self.slow_start && queue <= QUEUED_ENOUGH {
                self.limit = self.limit.max(START_GAUGED).min(self.max);
            }
        }
        self.queue[self.looks % LOOKS] = queue;
        self.looks += 1;
        if self.queued() > QUEUED_TOO_MUCH {
            self.slow_start = false;
            self.limit = (self.limit * 0.9).max(1.0);
        }
    }

    /// The shortest queue of the last looks: what comes in waves is no queue.
    fn queued(&self) -> f64 {
        if self.looks < LOOKS { 0.0 } else { self.queue.into_iter().fold(f64::INFINITY, f64::min) }
    }

    /// The endpoint comes back from the dead: begin low again.
    pub fn restart(&mut self, now: Instant) {
        *self = Limiter::new(self.max as u32, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers `capacity` requests at a time in one second each, queueing the rest.
    fn settle(limiter: &mut Limiter, capacity: f64, gauge: bool) -> f64 {
        let start = Instant::now();
        let mut now = start;
        let (mut sum, mut rounds) = (0.0, 0.0);
        for round in 0..400 {
            let in_flight = limiter.limit();
            let latency = Duration::from_secs_f64((in_flight as f64 / capacity).max(1.0));
            for i in 1..=in_flight {
                limiter.on_answer(now + latency.mul_f64(i as f64 / in_flight as f64), latency, 100, true);
            }
            now += latency;
            if gauge {
                let running = (in_flight as f64).min(capacity);
                limiter.on_gauge((in_flight as f64 - running) as u64, running as u64);
            }
            if round >= 200 {
                sum += in_flight as f64;
                rounds += 1.0;
            }
        }
        sum / rounds
    }

    #[test]
    fn it_finds_the_capacity_of_a_server_with_and_without_a_gauge() {
        for capacity in [4.0, 40.0, 300.0] {
            for gauge in [false, true] {
                let mut limiter = Limiter::new(4096, Instant::now());
                let mean = settle(&mut limiter, capacity, gauge);
                assert!(
                    (0.8 * capacity..4.0 * capacity + 16.0).contains(&mean),
                    "capacity {capacity}, gauge {gauge}: settled at {mean}"
                );
            }
        }
    }

    #[test]
    fn a_gauge_is_believed_over_a_rate_that_a_busy_machine_halves() {
        let start = Instant::now();
        let mut limiter = Limiter::new(4096, start);
        limiter.on_gauge(0, 0);
        assert_eq!(limiter.limit(), START_GAUGED as usize);
        // Latency grows from round to round, and nothing waits: the server would take more.
        let mut now = start;
        for round in 1..=10 {
            let (in_flight, latency) = (limiter.limit(), Duration::from_secs(round));
            for _ in 0..in_flight {
                limiter.on_answer(now + latency, latency, 100, true);
            }
            now += latency;
            limiter.on_gauge(0, in_flight as u64);
        }
        assert!(limiter.limit() > START_GAUGED as usize, "{}", limiter.limit());
        let mut busy = Limiter::new(4096, start);
        busy.on_gauge(50, 100);
        assert_eq!(busy.limit(), START as usize, "a server that others fill is no empty one");
        let mut wave = Limiter::new(4096, start);
        for look in 0..30 {
            wave.on_gauge(if look % 3 == 0 { 200 } else { 0 }, 200);
        }
        assert!(wave.limit() >= START as usize, "what waits for one step only is no queue");
        for _ in 0..5 {
            wave.on_gauge(200, 200);
        }
        assert!(wave.limit() < START as usize, "what stays is one");
    }

    #[test]
    fn one_storm_halves_once_and_the_limit_never_reaches_zero() {
        let now = Instant::now();
        let mut limiter = Limiter::new(64, now);
        for _ in 0..50 {
            limiter.on_congestion(now, Duration::from_secs(1));
        }
        assert_eq!(limiter.limit(), 8);
        for i in 1..50 {
            limiter.on_congestion(now + Duration::from_secs(i), Duration::from_secs(1));
        }
        assert_eq!(limiter.limit(), 1);
    }

    #[test]
    fn a_lone_timeout_is_no_congestion_and_a_storm_of_them_is() {
        let now = Instant::now();
        let mut limiter = Limiter::new(64, now);
        for i in 0..200u32 {
            limiter.on_answer(now, Duration::from_secs(1), 10, false);
            assert!(i % 20 != 7 || !limiter.on_doubt(now, Duration::from_secs(1)), "one in twenty");
        }
        assert_eq!(limiter.limit(), START as usize);
        let mut limiter = Limiter::new(64, now);
        let storm: Vec<bool> = (0..4).map(|_| limiter.on_doubt(now, Duration::from_secs(1))).collect();
        assert_eq!((storm, limiter.limit()), (vec![false, false, true, true], START as usize / 2));
    }

    #[test]
    fn an_idle_limit_does_not_grow() {
        let now = Instant::now();
        let mut limiter = Limiter::new(64, now);
        for i in 0..1000u64 {
            limiter.on_answer(now + Duration::from_millis(i), Duration::from_millis(1), 10, false);
        }
        assert!(limiter.limit() <= START as usize);
    }
}
