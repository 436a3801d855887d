//! Preferences: two answers to one prompt, the better one first.

use super::row::dataset;
use super::{FinishReason, Message};

dataset! {
    Preferences;

    /// One row of a preferences dataset.
    pub struct Preference {
        /// The prompt both answer.
        pub prompt_id: String,
        /// The conversation both answers continue.
        pub messages: Vec<Message>,
        /// The better answer.
        pub chosen: String as prose,
        /// The worse answer.
        pub rejected: String as prose,
        /// Reward of the chosen answer; null where a person or a judge only ranked the two.
        pub chosen_reward: Option<f64>,
        /// Reward of the rejected answer; null where a person or a judge only ranked the two.
        pub rejected_reward: Option<f64>,
        /// The group of the group-robust objective: a domain, a language, or the user's own.
        pub group: String,
        /// The prompt's domain.
        pub domain: String,
        /// The prompt's language, BCP 47 primary tag; `und` if unknown.
        pub language: String,
        /// Name of the data source the prompt came from.
        pub source: String,
        /// The completion that was chosen; null for preferences that were imported.
        pub chosen_completion_id: Option<String>,
        /// The completion that was rejected; null for preferences that were imported.
        pub rejected_completion_id: Option<String>,
        /// Why the chosen answer ended, as in the completions dataset; null where that is not known. One that was cut
        /// (`length`) is trained on without an end of turn.
        pub chosen_finish_reason: Option<FinishReason> as since(2),
        /// Why the rejected answer ended, as in the completions dataset; null where that is not known. One that was cut
        /// (`length`) is trained on without an end of turn.
        pub rejected_finish_reason: Option<FinishReason> as since(2),
        /// Who or what said which is better: a rules digest, a judge, a person.
        pub ranked_by: String,
    }
}
