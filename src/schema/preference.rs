//! Preferences: two answers to one prompt, the better one first.

use super::Message;

/// One row of a preferences dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    pub prompt_id: String,
    /// The conversation both answers continue.
    pub messages: Vec<Message>,
    pub chosen: String,
    pub rejected: String,
    /// Rewards of the two; null where a person or a judge only ranked them.
    pub chosen_reward: Option<f64>,
    pub rejected_reward: Option<f64>,
    /// The group of the group-robust objective: a domain, a language, or the user's own.
    pub group: String,
    pub domain: String,
    pub language: String,
    pub source: String,
    /// Null for preferences that were imported.
    pub chosen_completion_id: Option<String>,
    pub rejected_completion_id: Option<String>,
    /// Who or what said which is better: a rules digest, a judge, a person.
    pub ranked_by: String,
}
