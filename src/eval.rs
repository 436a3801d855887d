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
pub use report::{Breakdown, Options, Summary, difficulty_band, summarise, summarise_by};
pub use vote::{Vote, majority};

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
    /// The prompt's, such as `math`: figures are broken down by it.
    pub domain: String,
    /// 0 to 1; `None` if unknown.
    pub difficulty: Option<f64>,
    /// One for each completion, undecided and truncated ones included.
    pub samples: Vec<SampleResult>,
}

impl PromptResult {
    /// (decided samples, correct samples).
    pub fn counts(&self) -> (u64, u64) {
        let decided = self.samples.iter().filter_map(|sample| sample.correct);
        decided.fold((0, 0), |(n, c), correct| (n + 1, c + u64::from(correct)))
    }
}
