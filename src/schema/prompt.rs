//! Prompts: one question with its gold answer (or none), domain, language, source.

use std::borrow::Cow;

use super::row::dataset;
use crate::words::words;

words! {
    /// Who speaks in a [`Message`].
    pub enum Role {
        /// Instructions before the conversation.
        System = "system" | "developer",
        /// Whoever asks.
        User = "user",
        /// The model, or whoever wrote the reference.
        Assistant = "assistant",
        /// What a tool gave back.
        Tool = "tool",
    }
}

/// Where APIs and servers put an assistant's chain of thought beside its `content`: DeepSeek's API and earlier vLLM, later
/// vLLM and OpenRouter, Ollama. Our turns have one text.
pub const REASONING_FIELDS: &[&str] = &["reasoning_content", "reasoning", "thinking"];

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Decides how a chat template frames the turn.
    pub role: Role,
    /// Text alone; tool calls stand in it as JSON.
    pub content: String,
}

dataset! {
    Prompts;

    /// One row of a prompts dataset.
    pub struct Prompt {
        /// 32 hex digits: BLAKE3 over the messages, gold, verification and domain.
        pub prompt_id: String as unique,
        /// The conversation to answer, in order; the last turn is the user's.
        pub messages: Vec<Message>,
        /// The reference answer; null where no rule compares to one.
        pub gold: Option<String> as prose,
        /// A reference chain of thought or worked solution; null where there is none.
        pub solution: Option<String> as prose,
        /// What a rule needs beyond `gold`, as JSON (unit tests, constraints, choices); null for most.
        pub verification: Option<String> as prose,
        /// `math`, `code`, `stem`, `logic`, `general`, or the user's own word.
        pub domain: String,
        /// BCP 47 primary tag of the question's language, such as `en`, `fr`, `zh`; `und` if unknown.
        pub language: String,
        /// 0 (easiest) to 1: the generator's level, or 1 − measured pass rate; null if unknown.
        pub difficulty: Option<f64>,
        /// Name of the data source the row came from.
        pub source: String,
        /// SPDX licence id of the source, null if unknown.
        pub license: Option<String>,
        /// The source's remaining columns as one JSON object; null if there were none.
        pub extra: Option<String> as prose,
    }
}

impl Prompt {
    /// What a person asked: see [`question`].
    pub fn question(&self) -> &str {
        question(&self.messages)
    }

    /// The question without the words that an `ask` put around it; `None` where none did.
    pub fn bare_question(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Kept {
            bare_question: Option<String>,
        }
        // Most rows have none, and what else is kept may be long.
        let extra = self.extra.as_deref().filter(|extra| extra.contains(BARE_QUESTION))?;
        serde_json::from_str::<Kept>(extra).ok()?.bare_question
    }

    /// The conversation with [`Prompt::bare_question`] as its last user turn: what tells whether two prompts ask the same.
    pub fn bare_messages(&self) -> Cow<'_, [Message]> {
        match self.bare_question() {
            Some(question) => {
                let mut messages = self.messages.clone();
                set_question(&mut messages, question);
                Cow::Owned(messages)
            }
            None => Cow::Borrowed(&self.messages),
        }
    }
}

/// The key of [`Prompt::extra`] under which a question stands as it was before an `ask` put words around it.
pub const BARE_QUESTION: &str = "bare_question";

/// Puts a text in place of the last user turn's.
pub fn set_question(messages: &mut [Message], text: String) {
    if let Some(turn) = messages.iter_mut().rev().find(|m| m.role == Role::User) {
        turn.content = text;
    }
}

/// The text of the last user turn: what a person asked. Empty where there is none.
pub fn question(messages: &[Message]) -> &str {
    messages.iter().rev().find(|m| m.role == Role::User).map_or("", |m| m.content.as_str())
}
