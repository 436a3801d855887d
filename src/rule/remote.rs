//! What rules that ask a server share: a client that tries again, the runtime its calls wait on, and a cache of what
//! was answered.

mod cache;
mod client;

pub(super) use cache::Cache;
pub(super) use client::{Client, Failure, Settings, runtime};

use super::Verdict;
use super::text::shorten;
use crate::schema::Score;

/// How a completion came to have no reward for want of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// This call failed, which may be the row's fault.
    Call,
    /// As did those before it.
    Down,
}

/// The score for want of which a completion has no reward, where no server answered, or none as it should: another run
/// may have it.
pub fn unreached(reward: Option<f64>, scores: &[Score]) -> Option<(Unreached, &Score)> {
    let how = |reason: &str| match reason {
        "judge_down" | "server_down" => Some(Unreached::Down),
        "judge_unavailable"
        | "judge_refused"
        | "server_unavailable"
        | "server_refused"
        | "server_wrong_count"
        | "server_reply_unread" => Some(Unreached::Call),
        _ => None,
    };
    scores.iter().find_map(|score| Some((how(&score.reason)?, score))).filter(|_| reward.is_none())
}

/// No verdict, with what went wrong as evidence.
pub(super) fn unanswered(reason: &'static str, error: &str) -> Verdict {
    Verdict::cannot_tell(reason).with("error", shorten(error, 300))
}
