//! What is known of one endpoint: its limit, its circuit, why it refuses.

use std::time::Instant;

use super::super::fault::Fatal;
use super::super::limiter::Limiter;

pub(super) struct Slot {
    pub(super) limiter: Limiter,
    pub(super) in_flight: usize,
    /// Smoothed seconds to a whole answer; 0 until measured.
    pub(super) latency: f64,
    /// Share of the last fifty requests or so that were turned away.
    pub(super) refusing: f64,
    /// Faults in a row.
    pub(super) faults: u32,
    /// What the last fault said.
    pub(super) last_fault: Option<String>,
    pub(super) circuit: Circuit,
    /// How often the circuit opened since a request was last answered.
    pub(super) trips: u32,
    /// Why the endpoint serves none of our requests, if it said so.
    pub(super) refused: Option<Fatal>,
    /// How often it said so.
    pub(super) refusals: u32,
    /// A connection broke since the server was last asked what it serves.
    pub(super) suspect: bool,
    /// How often a connection broke in all.
    pub(super) breaks: u64,
    /// How often the server had to load the policy that it was thought to have.
    pub(super) losses: u64,
    /// How far the server was from the policy when it had loaded it, in nats a token; `None` if it has not, or was not asked.
    pub(super) gap: Option<f64>,
    /// The server asked to be left alone until then.
    pub(super) paused_until: Option<Instant>,
}

/// Whether requests go to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// None; it is probed.
    Open,
    /// One, whose outcome decides.
    Trial,
    /// As many as its limit says.
    Closed,
}

impl Slot {
    pub(super) fn is_up(&self) -> bool {
        self.circuit != Circuit::Open
    }

    pub(super) fn has_room(&self, now: Instant) -> bool {
        let room = match self.circuit {
            Circuit::Open => 0,
            Circuit::Trial => 1,
            Circuit::Closed => self.limiter.limit(),
        };
        self.in_flight < room && self.paused_until.is_none_or(|until| until <= now)
    }
}
