//! Requests that are turned away every time: is it the server, which has too much to do, or the request?
//!
//! A busy server turns away whatever comes (429, 503), and no row may fail of that: its requests wait
//! until the server has room. But a proxy that dislikes one prompt answers just so, and a request that
//! waits for it waits for ever. What tells the two apart is what becomes of others meanwhile: the row has
//! failed once a request like any other would hardly have been turned away so often. At a server that turns
//! half of them away that takes long, at one that takes all others as many tries as any fault.
//! Where no others are left, at the end of a run, a trifle is asked in their place.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Shared;
use super::wire::Group;

/// How one request was turned away so far.
#[derive(Default)]
pub(super) struct Refusals {
    count: u32,
    /// How unlikely they are for a request like any other: the negative logarithm of their probability.
    doubt: f64,
    /// (endpoint, its answers when it last turned the request away).
    seen: Vec<(usize, u64)>,
}

/// The least share of requests that any server is held to turn away: a few recent ones tell no less.
const LEAST_SHARE: f64 = 0.03;

const TRIFLE_DEADLINE: Duration = Duration::from_secs(30);

impl Refusals {
    /// Notes that the endpoint turned a request of this group away. True once there is no doubt any more
    /// that the request is what is wrong.
    pub async fn are_the_rows(&mut self, shared: &Shared, group: &Group, at: usize) -> bool {
        let answers = shared.pool.counters[at].answers.load(Relaxed);
        let place = self.seen.iter().position(|(endpoint, _)| *endpoint == at);
        let before = match place {
            Some(place) => std::mem::replace(&mut self.seen[place].1, answers),
            None => {
                self.seen.push((at, answers));
                answers
            }
        };
        self.count += 1;
        let most = -LEAST_SHARE.ln();
        if answers > before {
            self.doubt += -shared.pool.refusing(at).clamp(LEAST_SHARE, 1.0).ln();
        } else if self.count >= shared.config.max_attempts && answers_a_trifle(shared, group, at).await {
            self.doubt += most;
        }
        // Rounded sums must not cost a try.
        self.doubt >= most * f64::from(shared.config.max_attempts) - 1e-6
    }
}

/// Whether the endpoint answers a request for one token of nothing in particular. One is asked at a time: a
/// server that really has too much to do is not to get twice as much.
async fn answers_a_trifle(shared: &Shared, group: &Group, at: usize) -> bool {
    let Ok(_only) = shared.trifle.try_lock() else { return false };
    let endpoint = &shared.pool.endpoints[at];
    let answered = endpoint.complete(group.path, group.trifle(), TRIFLE_DEADLINE).await.is_ok();
    if answered {
        shared.pool.note_answer();
    }
    answered
}
