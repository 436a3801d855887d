//! What can go wrong with a request, and what is done about it.

use std::time::Duration;

use crate::error::Error;
use crate::seed;
use crate::words::words;

words! {
    /// Everything a server or the way to it can do wrong, in the order of the metrics. Its word is a short, stable code:
    /// what metrics and row errors start with.
    #[derive(PartialOrd, Ord)]
    pub enum FaultKind {
        /// No connection: refused, no route, name not found.
        Unreachable = "unreachable",
        /// The connection was closed or reset before a whole answer.
        Reset = "reset",
        /// No answer within the deadline.
        Timeout = "timeout",
        /// 429.
        Throttled = "throttled",
        /// 503 or 529: starting up, shutting down, overloaded.
        Overloaded = "overloaded",
        /// Any other 5xx.
        ServerError = "server_error",
        /// The server ended the completion itself (`abort`).
        Aborted = "aborted",
        /// Not JSON, or not the JSON of a completion.
        Malformed = "malformed",
        /// Not as many choices as were asked.
        WrongCount = "wrong_count",
        /// Token ids were required and did not come, or do not match the logprobs.
        MissingTokenIds = "missing_token_ids",
        /// A logprob that is no finite number.
        BadLogprobs = "bad_logprobs",
        /// Certificate or handshake.
        Tls = "tls",
        /// 401 or 403.
        Unauthorized = "unauthorized",
        /// 404 that names the model.
        UnknownModel = "unknown_model",
        /// 3xx, 404 or 405 on the path itself.
        WrongAddress = "wrong_address",
        /// Prompt, or prompt and budget, over the model's context.
        ContextOverflow = "context_overflow",
        /// Any other 4xx.
        BadRequest = "bad_request",
        /// The prompt could not be encoded on our side.
        BadPrompt = "bad_prompt",
        /// The server was told to load a policy and answers as another.
        OtherPolicy = "other_policy",
    }
}

/// What a fault means for the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask again, an endpoint that has not failed this request first; `counted` says whether this uses up
    /// one of the request's tries.
    Retry {
        /// Whether a try of `max_attempts` is spent.
        counted: bool,
    },
    /// Ask nothing more of this endpoint, and go on with the others. With none left the run ends.
    LeaveEndpoint,
    /// This row failed; the error is its data.
    FailRow,
    /// Nothing that follows can go well.
    FailRun,
}

impl FaultKind {
    /// What the request does next. A request that never reached a server keeps its tries: a dead
    /// endpoint must not fail rows. One that may itself have broken the server does not. Nor does a server
    /// that has too much to do fail a row, unless it answers all others: see [`FaultKind::is_refusal`].
    pub fn action(self) -> Action {
        match self {
            FaultKind::Throttled | FaultKind::Overloaded | FaultKind::Unreachable | FaultKind::Tls => {
                Action::Retry { counted: false }
            }
            FaultKind::ServerError
            | FaultKind::Aborted
            | FaultKind::Reset
            | FaultKind::Timeout
            | FaultKind::Malformed
            | FaultKind::WrongCount
            | FaultKind::MissingTokenIds
            | FaultKind::BadLogprobs => Action::Retry { counted: true },
            FaultKind::Unauthorized | FaultKind::UnknownModel | FaultKind::WrongAddress => Action::LeaveEndpoint,
            FaultKind::OtherPolicy => Action::FailRun,
            FaultKind::ContextOverflow | FaultKind::BadRequest | FaultKind::BadPrompt => Action::FailRow,
        }
    }

    /// Whether it says something bad about the endpoint's health, for the circuit breaker.
    pub(super) fn blames_endpoint(self) -> bool {
        !matches!(
            self,
            FaultKind::Throttled | FaultKind::ContextOverflow | FaultKind::BadRequest | FaultKind::BadPrompt
        )
    }

    /// Whether the endpoint may have had more work than it could take. One alone says little: gateways turn
    /// single requests away for reasons of their own, with a `Retry-After` for that request.
    pub(super) fn is_congestion(self) -> bool {
        matches!(self, FaultKind::Throttled | FaultKind::Overloaded | FaultKind::Timeout)
    }

    /// Whether the server turned the request away unread, as one that has too much to do does. A request
    /// that is always turned away while others are answered is itself what is wrong.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self, FaultKind::Throttled | FaultKind::Overloaded)
    }

    /// Whether the way to the server broke, which no request can be blamed for.
    pub(super) fn is_of_the_way(self) -> bool {
        matches!(self, FaultKind::Unreachable | FaultKind::Tls)
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// One fault, with what the server said.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub kind: FaultKind,
    pub message: String,
    /// What the server asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Fault {
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Fault { kind, message: message.into(), retry_after: None }
    }

    /// The text a failed row keeps.
    pub fn row_error(&self) -> String {
        format!("{}: {}", self.kind.as_str(), self.message)
    }
}

/// Why a run cannot go on; [`Error`] cannot be cloned, and several tasks may meet the same cause.
#[derive(Clone, Debug)]
pub(super) struct Fatal {
    pub message: String,
    pub hints: Vec<String>,
}

impl Fatal {
    pub fn new(message: impl Into<String>) -> Self {
        Fatal { message: message.into(), hints: Vec::new() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl From<Fatal> for Error {
    fn from(fatal: Fatal) -> Error {
        fatal.hints.into_iter().fold(Error::new(fatal.message), Error::hint)
    }
}

/// The pause before try number `attempt` (from 1): exponential up to 30 s with full jitter in the
/// upper half, from a stream of its own so that it changes no other random number. It doubles from a
/// quarter second where the endpoint may be overloaded. Other faults are mostly of one exchange, and
/// the row's whole shard waits for it, at the end of a run with nothing else to do: their pauses begin at
/// a hundredth of a second and grow fast, so that some seconds have passed before the row is given up all
/// the same. A server's Retry-After, up to ten
/// minutes, is the least.
pub(super) fn backoff(row_seed: u64, attempt: u32, fault: &Fault) -> Duration {
    let (first, growth) = if fault.kind.is_congestion() { (0.25, 2.0) } else { (0.0125, 4.5) };
    let ceiling = (first * f64::powi(growth, attempt.saturating_sub(1).min(20) as i32)).min(30.0);
    let jitter = seed::stream(row_seed, "retry", u64::from(attempt)).uniform();
    let pause = Duration::from_secs_f64(ceiling * (0.5 + 0.5 * jitter));
    match fault.retry_after {
        // Jitter on top, or all that were sent away would come back together.
        Some(least) => least.min(Duration::from_secs(600)) + pause / 4,
        None => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_honour_retry_after() {
        let throttled = Fault::new(FaultKind::Throttled, "");
        let reset = Fault::new(FaultKind::Reset, "");
        let asked = Fault { retry_after: Some(Duration::from_secs(7)), ..throttled.clone() };
        for seed in 0..50 {
            let pauses: Vec<f64> = (1..12).map(|attempt| backoff(seed, attempt, &throttled).as_secs_f64()).collect();
            assert!(pauses.iter().all(|p| (0.125..=30.0).contains(p)), "{pauses:?}");
            assert!(pauses[10] >= 15.0 && pauses[0] <= 0.25, "{pauses:?}");
            assert!(backoff(seed, 1, &asked) >= Duration::from_secs(7));
            assert!(
                (6..=12).contains(&backoff(seed, 1, &reset).as_millis()),
                "one broken exchange is soon asked again"
            );
            assert!((28..=56).contains(&backoff(seed, 2, &reset).as_millis()), "a second one later");
            let all: f64 = (1..6).map(|attempt| backoff(seed, attempt, &reset).as_secs_f64()).sum();
            assert!(all > 3.0, "six tries last through a hiccup, not {all} s");
        }
        assert_eq!(backoff(3, 2, &reset), backoff(3, 2, &reset), "the same seed pauses alike");
        assert_ne!(backoff(3, 2, &reset), backoff(4, 2, &reset), "others spread out");
    }

    #[test]
    fn the_index_of_a_kind_is_its_place_in_the_list() {
        for (i, kind) in FaultKind::ALL.iter().enumerate() {
            assert_eq!(kind.index(), i);
        }
    }
}
