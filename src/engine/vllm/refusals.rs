//! Requests that are turned away every time: is it the server, which has too much to do, or the request?
//!
//! A busy server turns away whatever comes (429, 503), and no row may fail of that: its requests wait
//! until the server has room. But a proxy that dislikes one prompt answers just so, and a request that
//! waits for it waits for ever. What tells the two apart is what becomes of others meanwhile. Where none
//! are left, at the end of a run, a trifle is asked in their place.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Shared;
use super::wire::Group;

/// How one request was turned away so far.
#[derive(Default)]
pub(super) struct Refusals {
    count: u32,
    /// Of those, how many while others were answered, weighed.
    against: u32,
    /// (endpoint, its answers when it last turned the request away).
    seen: Vec<(usize, u64)>,
}

/// What a refusal weighs while others are answered: in a crowd each may be turned away now and then.
const IN_A_CROWD: u32 = 1;
/// And when the server has nothing of ours but this request and a trifle, and answers the trifle.
const ALONE: u32 = 3;
/// So many times `max_attempts` must the refusals weigh before the row has failed.
const PATIENCE: u32 = 2;

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
        if answers > before {
            self.against += IN_A_CROWD;
        } else if self.count >= shared.config.max_attempts && answers_a_trifle(shared, group, at).await {
            self.against += ALONE;
        }
        self.against >= PATIENCE.saturating_mul(shared.config.max_attempts)
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
