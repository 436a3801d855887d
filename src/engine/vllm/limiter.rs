//! Adaptive concurrency of one endpoint, so that nobody tunes a number.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain 1989), with slow
//! start, also back to half of where a storm of refusals began. Time runs in windows: as many
//! answers as the limit had requests, and a quarter second at least. The limit grows by one step a
//! window, however many rounds a fast server answers in it, so that what a step brought can be seen. Three things say that an endpoint has enough: it answers too
//! often 429, 503 or not in time; its own gauge `vllm:num_requests_waiting` grows; or, where
//! there is no gauge, more concurrency no longer brings more tokens a second (by Little's law
//! that is the same as latency growing with concurrency).
//!
//! The gauge is the better witness: a server that queues nothing has room in its batch, whatever
//! a busy machine makes of the rate meanwhile. And a server that queues loses nothing by too many
//! requests, so with a gauge the limit begins high instead of leaving a batch half empty for minutes.
//! One look at it proves little: where completions end together, what follows them waits for a step.
//! The queue may also be other clients'. Always backing off for them would leave us no share at all, so a
//! minimum is kept. A gauge that is stale, or that repeats itself while requests are answered (a cache stands
//! before it), is ignored.

use std::time::{Duration, Instant};

/// The limit on requests in flight at one endpoint.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: f64,
    max: f64,
    slow_start: bool,
    /// Neither growth nor a second decrease before this: one congestion is felt by many requests at once.
    settled_at: Instant,
    /// Where congestion was last met: up to half of it the limit doubles, beyond three quarters of it it
    /// grows ten times slower.
    ceiling: f64,
    /// The highest limit at which a window was answered.
    proven: f64,
    /// Whether a window was answered since: until then further congestion is of the same storm.
    calm: bool,
    /// Windows beyond three quarters of the ceiling without congestion.
    near: u32,
    window: Window,
    /// The window that later ones are compared to.
    base: Option<Measured>,
    /// Windows left before the limit may grow again after a plateau.
    hold: u32,
    /// The server's queue over its batch at the last looks, if it tells.
    queue: [f64; LOOKS],
    looks: usize,
    /// When the server last told its queue; what it told; and how often it told the same again, though
    /// requests were answered meanwhile.
    looked_at: Instant,
    told: Option<(u64, u64)>,
    same: u32,
    answered: bool,
    /// Requests that are kept there whatever it tells: one, or a share of the batch where others fill it.
    kept: f64,
}

/// Work done since `started`, when the limit was `limit`.
#[derive(Debug)]
struct Window {
    started: Instant,
    limit: f64,
    work: f64,
    answers: u32,
    /// Answers for which the limit has grown: each of as many as it had requests, once.
    credited: f64,
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
/// Windows to stay on a plateau before probing upwards again, and close to a ceiling before it is forgotten.
const HOLD: u32 = 8;
/// Without a look for so long there is no gauge.
const GAUGE_AGE: Duration = Duration::from_secs(10);
/// So many looks in a row that see the same queue, while requests are answered, see no queue.
const FROZEN: u32 = 10;
/// Shares of a batch, and requests, that are kept at a server whose queue is others'.
const KEPT: (f64, f64) = (0.5, START);
/// Growth of the limit over which throughput is compared: less would drown in noise.
const STRIDE: f64 = 0.2;
/// Share of a window's outcomes, and number, from which faults that may mean congestion do.
const DOUBTFUL: (f64, u32) = (0.15, 3);
/// Share of that growth that throughput must follow.
const WORTHWHILE: f64 = 0.25;

impl Window {
    fn new(started: Instant, limit: f64) -> Self {
        Window { started, limit, work: 0.0, answers: 0, credited: 0.0, doubts: 0 }
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
            proven: 0.0,
            calm: true,
            near: 0,
            window: Window::new(now, limit),
            base: None,
            hold: 0,
            queue: [0.0; LOOKS],
            looks: 0,
            looked_at: now,
            told: None,
            same: 0,
            answered: false,
            kept: 1.0,
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
        self.answered = true;
        if self.looks > 0 && now.saturating_duration_since(self.looked_at) > GAUGE_AGE {
            self.forget_gauge();
        }
        if saturated
            && self.hold == 0
            && now >= self.settled_at
            && self.window.credited < self.window.limit
            && (self.queued() <= QUEUED_ENOUGH || self.limit < self.kept)
        {
            self.window.credited += 1.0;
            let at = self.window.limit;
            let mut step = if self.slow_start || at < 0.5 * self.ceiling { 1.0 } else { (0.05 * at).max(1.0) / at };
            if at > 0.75 * self.ceiling {
                step *= 0.1;
            }
            self.limit = (self.limit + step).min(self.max);
        }
        let length = now.saturating_duration_since(self.window.started);
        if length >= latency.max(Duration::from_millis(250)) && f64::from(self.window.answers) >= self.window.limit {
            self.close_window(now, length);
        }
    }

    fn close_window(&mut self, now: Instant, length: Duration) {
        self.calm = true;
        self.proven = self.proven.max(self.window.limit);
        self.near = if self.window.limit > 0.75 * self.ceiling { self.near + 1 } else { 0 };
        if self.near >= HOLD {
            // Whatever filled the server then has gone, or its ceiling was another's.
            self.ceiling = f64::INFINITY;
        }
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

    /// The endpoint has too much: halve, at most once for each round of answers.
    pub fn on_congestion(&mut self, now: Instant, latency: Duration) {
        let untried = std::mem::replace(&mut self.slow_start, false);
        if now >= self.settled_at {
            // A high start was a guess, and a gateway before the server knows better.
            let limit = if untried { self.limit.min(self.proven.max(2.0 * START)) } else { self.limit };
            // A storm says where it began what the server can take, and nothing on its way down.
            if self.calm || !self.ceiling.is_finite() {
                self.ceiling = limit;
            }
            self.calm = false;
            self.near = 0;
            self.limit = (limit * 0.5).max(1.0);
            self.settled_at = now + latency.clamp(Duration::from_millis(100), Duration::from_secs(30));
            self.base = None;
            self.window = Window { doubts: self.window.doubts, ..Window::new(now, self.limit) };
        }
    }

    /// A 429, a 503 or a timeout. Alone it says nothing of the endpoint's load; true if there are so many
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

    /// The server's own queue, of which `ours` requests at most are ours. A short queue keeps its batch
    /// full; a long one only adds latency.
    pub fn on_gauge(&mut self, now: Instant, waiting: u64, running: u64, ours: usize) {
        let moved = waiting == 0 || self.told != Some((waiting, running));
        self.same = if moved { 0 } else { self.same + u32::from(self.answered) };
        (self.told, self.answered) = (Some((waiting, running)), false);
        if self.same >= FROZEN {
            return self.forget_gauge();
        }
        self.looked_at = now;
        // The gauge and our own count are not of the same moment.
        let others = (waiting + running) as f64 > 1.25 * ours as f64 + 2.0;
        self.kept = if others { (KEPT.0 * running as f64).max(KEPT.1) } else { 1.0 };
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
            let less = (self.limit * 0.9).max(self.kept);
            if less < self.limit {
                self.limit = less;
                self.window = Window::new(now, less);
            }
        }
    }

    /// From here on the rate says what more requests bring.
    fn forget_gauge(&mut self) {
        if self.looks > 0 {
            self.looks = 0;
            self.queue = [0.0; LOOKS];
            self.base = None;
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
            let mut looked = 0;
            for i in 1..=in_flight {
                let at = latency.mul_f64(i as f64 / in_flight as f64);
                limiter.on_answer(now + at, latency, 100, true);
                // Once a second.
                if gauge && at.as_secs() > looked {
                    looked = at.as_secs();
                    let running = (in_flight as f64).min(capacity);
                    limiter.on_gauge(now + at, (in_flight as f64 - running) as u64, running as u64, in_flight);
                }
            }
            now += latency;
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
        limiter.on_gauge(start, 0, 0, 0);
        assert_eq!(limiter.limit(), START_GAUGED as usize);
        // Latency grows from round to round, and nothing waits: the server would take more.
        let mut now = start;
        for round in 1..=10 {
            let (in_flight, latency) = (limiter.limit(), Duration::from_secs(round));
            for _ in 0..in_flight {
                limiter.on_answer(now + latency, latency, 100, true);
            }
            now += latency;
            limiter.on_gauge(now, 0, in_flight as u64, in_flight);
        }
        assert!(limiter.limit() > START_GAUGED as usize, "{}", limiter.limit());
        let mut busy = Limiter::new(4096, start);
        busy.on_gauge(start, 50, 100, 0);
        assert_eq!(busy.limit(), START as usize, "a server that others fill is no empty one");
        let mut wave = Limiter::new(4096, start);
        for look in 0..30 {
            wave.on_gauge(start, if look % 3 == 0 { 200 } else { 0 }, 200, 400);
        }
        assert!(wave.limit() >= START as usize, "what waits for one step only is no queue");
        for look in 0..5 {
            wave.on_gauge(start, 200 + look, 200, 400);
        }
        assert!(wave.limit() < START as usize, "what stays is one");
    }

    /// Answers whole rounds of a second each, with as many tokens a second as there are requests.
    fn rounds(limiter: &mut Limiter, now: &mut Instant, rounds: usize) {
        for _ in 0..rounds {
            let second = Duration::from_secs(1);
            for _ in 0..limiter.limit() {
                limiter.on_answer(*now + second, second, 100, true);
            }
            *now += second;
        }
    }

    #[test]
    fn after_a_storm_the_limit_soon_is_what_it_was() {
        let mut now = Instant::now();
        let mut limiter = Limiter::new(512, now);
        rounds(&mut limiter, &mut now, 8);
        assert_eq!(limiter.limit(), 512);
        // A minute in which everything is refused, as when a quota is used up.
        for _ in 0..60 {
            limiter.on_congestion(now, Duration::from_secs(1));
            now += Duration::from_secs(1);
        }
        assert_eq!(limiter.limit(), 1);
        rounds(&mut limiter, &mut now, 10);
        assert!(limiter.limit() >= 250, "{} after ten rounds", limiter.limit());
        rounds(&mut limiter, &mut now, 40);
        assert_eq!(limiter.limit(), 512, "a ceiling that nothing confirms is forgotten");
    }

    #[test]
    fn a_fast_server_grows_the_limit_by_a_step_a_window_and_not_by_one_a_round() {
        let start = Instant::now();
        let mut limiter = Limiter::new(4096, start);
        // Two hundred rounds of a millisecond within one window.
        for i in 0..200 * START as u64 {
            limiter.on_answer(
                start + Duration::from_micros(1000 * i / START as u64),
                Duration::from_millis(1),
                1,
                true,
            );
        }
        assert_eq!(limiter.limit(), 2 * START as usize);
    }

    #[test]
    fn a_server_that_others_fill_is_not_left_to_them() {
        let mut now = Instant::now();
        let mut limiter = Limiter::new(1024, now);
        for look in 0..600u64 {
            // A batch of 256 and a queue as long, both others' but for what is ours.
            limiter.on_gauge(now, 200 + look % 7, 256, limiter.limit());
            now += Duration::from_secs(1);
        }
        assert!(limiter.limit() >= START as usize, "{} are left", limiter.limit());
        // So is what was given up before: by a storm, say.
        limiter.on_congestion(now, Duration::from_secs(1));
        limiter.on_congestion(now + Duration::from_secs(2), Duration::from_secs(1));
        now += Duration::from_secs(4);
        for look in 0..200u64 {
            limiter.on_gauge(now, 200 + look % 7, 256, limiter.limit());
            rounds(&mut limiter, &mut now, 1);
        }
        assert!(limiter.limit() >= 100, "{} of a batch of 256", limiter.limit());
    }

    #[test]
    fn a_gauge_that_is_stale_or_frozen_is_none() {
        let start = Instant::now();
        let full = |limiter: &mut Limiter, now| {
            for look in 0..3 {
                limiter.on_gauge(now, 100 + look, 10, 100);
            }
        };
        let mut stale = Limiter::new(1024, start);
        full(&mut stale, start);
        let before = stale.limit();
        let mut now = start + Duration::from_secs(1);
        rounds(&mut stale, &mut now, 5);
        assert_eq!(stale.limit(), before, "a queue is believed");
        rounds(&mut stale, &mut now, 30);
        assert!(stale.limit() > before, "until nobody has looked at it for long");
        let mut frozen = Limiter::new(1024, start);
        let mut now = start;
        for _ in 0..60 {
            frozen.on_gauge(now, 100, 10, frozen.limit());
            rounds(&mut frozen, &mut now, 1);
        }
        assert!(frozen.limit() > START as usize, "{}", frozen.limit());
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
