//! One problem, before it becomes a prompt row.

use crate::words::words;

/// A question with its exact answer and, where there is a method, how to get there.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What a person asks, in the language asked for.
    pub question: String,
    /// The content without phrasing or language (`arithmetic:17 + 5 * 3`): what the split hashes.
    pub key: String,
    /// The reference answer for a rule; `None` where only constraints or preferences judge.
    pub gold: Option<String>,
    /// A worked solution, one step a line; its last line ends in the answer.
    pub chain: Option<String>,
    /// The final answer as text, a good reply by itself.
    pub answer: String,
    /// What a rule needs beyond the gold answer, as JSON.
    pub verification: Option<String>,
    /// 0 (the generator's first level) to 1 (its last).
    pub difficulty: f64,
    /// A worse reply than `answer`, and in what it is worse.
    pub rejected: Option<(PreferenceKind, String)>,
}

words! {
    /// What a preference pair teaches (the two reward models of R1's last stage).
    pub enum PreferenceKind {
        /// The chosen reply serves the user better.
        Helpful = "helpful",
        /// The chosen reply declines what would do harm.
        Harmless = "harmless",
    }
}

/// Two replies to one question, the better one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// In what the chosen reply is better.
    pub kind: PreferenceKind,
    /// The problem's answer.
    pub chosen: &'a str,
    /// The problem's worse reply.
    pub rejected: &'a str,
}

impl Problem {
    /// A problem with a gold answer, which is also the reply.
    pub(super) fn exact(key: String, question: String, gold: impl Into<String>) -> Problem {
        let gold = gold.into();
        Problem { gold: Some(gold.clone()), ..Problem::open(key, question, gold) }
    }

    /// A problem whose reply is judged by constraints or preference only.
    pub(super) fn open(key: String, question: String, answer: impl Into<String>) -> Problem {
        Problem {
            question,
            key,
            gold: None,
            chain: None,
            answer: answer.into(),
            verification: None,
            difficulty: 0.0,
            rejected: None,
        }
    }

    pub(super) fn with_chain(mut self, lines: Vec<String>) -> Problem {
        self.chain = Some(lines.join("\n"));
        self
    }

    pub(super) fn with_verification(mut self, value: &serde_json::Value) -> Problem {
        self.verification = Some(value.to_string());
        self
    }

    pub(super) fn worse(mut self, kind: PreferenceKind, rejected: impl Into<String>) -> Problem {
        self.rejected = Some((kind, rejected.into()));
        self
    }
}

/// The preference pair of a problem; `None` where there is no worse reply to show
/// (reasoning problems: rules judge those).
pub fn preference(problem: &Problem) -> Option<Pair<'_>> {
    let (kind, rejected) = problem.rejected.as_ref()?;
    Some(Pair { kind: *kind, chosen: &problem.answer, rejected })
}
