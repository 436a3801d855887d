//! Evaluation as pure functions: from graded samples to numbers with their uncertainty.
//!
//! A [`PromptResult`] holds the k samples of one prompt, already judged by the
//! rules. Nothing here knows Parquet, rules or models; the vote's notion of equal
//! answers is the caller's.
//!
//! **Truncated samples** (cut at the token limit) count as what the rules decided of
//! them, as in verdicts, groups and rewards. Their share is reported apart, so that a
//! low score can be told from a limit set too low. **Undecided samples** (the rules cannot tell) are left out of the
//! counts and reported apart; a prompt with no decided sample is left out whole.

mod bootstrap;
mod estimators;
mod interval;
mod report;
mod vote;

pub use bootstrap::{Interval, bootstrap_mean};
pub use estimators::{pass_at_k, pass_rate};
pub use interval::wilson;
pub use report::{Options, Summary, difficulty_band, summarise};
pub use vote::majority;

/// One judged sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleResult {
    /// The extracted final answer; `None` if there is none. Only votes use it.
    pub answer: Option<String>,
    /// What the rules decided; `None` where they cannot tell.
    pub correct: Option<bool>,
    /// Cut at the token limit: counted apart, and as what `correct` says.
    pub truncated: bool,
}

/// The samples of one prompt, in sample order.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptResult {
    /// The prompt's, such as `math`: rules that name no answers do so for a whole domain.
    pub domain: String,
    /// One for each completion, undecided and truncated ones included.
    pub samples: Vec<SampleResult>,
}

/// (decided samples, correct samples).
pub fn counts<'a>(samples: impl IntoIterator<Item = &'a SampleResult>) -> (u64, u64) {
    let decided = samples.into_iter().filter_map(|sample| sample.correct);
    decided.fold((0, 0), |(n, c), correct| (n + 1, c + u64::from(correct)))
}
