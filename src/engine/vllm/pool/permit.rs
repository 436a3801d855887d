//! A place at an endpoint, and what its request tells of the endpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::super::fault::{Fault, FaultKind};
use super::slot::Circuit;
use super::{Pool, RECENT, TRIP, TRIP_UNREACHABLE};

/// How often an answer that waits for its endpoint looks whether that is up again.
const TICK: Duration = Duration::from_millis(10);

/// A place at an endpoint; given back when dropped.
pub struct Permit {
    pub(super) pool: Arc<Pool>,
    pub endpoint: usize,
    /// Of the endpoint, when the place was given.
    pub(super) breaks: u64,
    pub(super) losses: u64,
    pub(super) held: bool,
}

impl Permit {
    /// Whether what was answered is of the weights that were asked. Where a connection broke meanwhile, another server may stand
    /// behind the address: then it waits until the endpoint was asked for its policy.
    pub async fn is_of_the_policy(&self) -> bool {
        loop {
            {
                let state = self.pool.lock();
                let slot = &state.slots[self.endpoint];
                if slot.losses != self.losses {
                    return false;
                }
                if !state.policy || slot.breaks == self.breaks || slot.is_up() {
                    return true;
                }
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// The endpoint answered.
    pub fn succeed(mut self, latency: Duration, tokens: u64) {
        self.held = false;
        let pool = self.pool.clone();
        let now = Instant::now();
        let mut state = pool.lock();
        let crowded = !state.waiters.is_empty();
        let slot = &mut state.slots[self.endpoint];
        let saturated = crowded || slot.in_flight >= slot.limiter.limit();
        slot.in_flight -= 1;
        slot.faults = 0;
        slot.refusing *= 1.0 - RECENT;
        slot.trips = 0;
        if slot.circuit == Circuit::Trial {
            slot.circuit = Circuit::Closed;
        }
        let seconds = latency.as_secs_f64().max(1e-6);
        slot.latency = if slot.latency > 0.0 { 0.9 * slot.latency + 0.1 * seconds } else { seconds };
        slot.limiter.on_answer(now, latency, tokens, saturated);
        state.last_answer = now;
        pool.serve(&mut state);
    }

    /// The request met a fault, which may open the endpoint's circuit. `again` says that the same prompt
    /// failed here before: that is no news of the endpoint, since it may be the prompt's doing.
    pub fn fail(mut self, fault: &Fault, again: bool) {
        self.held = false;
        let pool = self.pool.clone();
        pool.counters[self.endpoint].faults[fault.kind.index()].fetch_add(1, Relaxed);
        let now = Instant::now();
        let mut state = pool.lock();
        let slot = &mut state.slots[self.endpoint];
        slot.in_flight -= 1;
        slot.refusing = (1.0 - RECENT) * slot.refusing + if fault.kind.is_refusal() { RECENT } else { 0.0 };
        slot.last_fault = Some(fault.message.clone());
        // A connection that broke may mean that another server stands behind the address now.
        let broke = matches!(fault.kind, FaultKind::Reset | FaultKind::Unreachable);
        slot.suspect |= broke;
        slot.breaks += u64::from(broke);
        if fault.kind == FaultKind::Unreachable {
            // Nobody listened: whoever does so next has started since.
            slot.gap = None;
        }
        let latency = Duration::from_secs_f64(slot.latency);
        // One request that was turned away waits by itself, as long as it was told to; the others go on.
        if fault.kind.is_congestion() && slot.limiter.on_doubt(now, latency) {
            // Without a pause every refusal would free a place and so send the next request to be refused.
            let short = latency.clamp(Duration::from_millis(10), Duration::from_secs(1));
            let until = now + fault.retry_after.unwrap_or(short).min(Duration::from_secs(600));
            if slot.paused_until.is_none_or(|other| other < until) {
                slot.paused_until = Some(until);
                let woken = pool.clone();
                tokio::spawn(async move {
                    tokio::time::sleep_until(until.into()).await;
                    woken.serve(&mut woken.lock());
                });
            }
        }
        let mut opened = false;
        let trial = slot.circuit == Circuit::Trial;
        if !fault.kind.blames_endpoint() {
            slot.faults = 0;
            if trial {
                slot.circuit = Circuit::Closed;
            }
        } else if !again || fault.kind.is_of_the_way() {
            slot.faults += 1;
            let most = if fault.kind == FaultKind::Unreachable { TRIP_UNREACHABLE } else { TRIP };
            if trial || slot.faults >= most {
                opened = state.trip(self.endpoint);
            }
        }
        // The server that stands behind the address now need not have the policy.
        if broke && state.policy {
            opened |= state.trip(self.endpoint);
        }
        pool.serve(&mut state);
        drop(state);
        if opened {
            pool.report_open(self.endpoint);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.held {
            let mut state = self.pool.lock();
            state.slots[self.endpoint].in_flight -= 1;
            self.pool.serve(&mut state);
        }
    }
}
