//! A prompt's id: a content hash, so that the same question is the same prompt in every run.

use crate::schema::{Message, Prompt};
use crate::seed::content_id;

/// The [`Prompt::prompt_id`] of this content: 32 hex digits.
///
/// Depends on the messages, gold, verification and domain, and on nothing
/// else: re-reading the same question from another file, or with another
/// source name, gives the same id. Null and empty text are kept apart.
pub fn prompt_id(messages: &[Message], gold: Option<&str>, verification: Option<&str>, domain: &str) -> String {
    let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * messages.len() + 5);
    for message in messages {
        parts.push(message.role.as_str().as_bytes());
        parts.push(message.content.as_bytes());
    }
    for optional in [gold, verification] {
        parts.push(if optional.is_some() { b"some" } else { b"null" });
        parts.push(optional.unwrap_or("").as_bytes());
    }
    parts.push(domain.as_bytes());
    content_id(parts)
}

/// Gives a prompt the id of its content.
pub fn mint(mut prompt: Prompt) -> Prompt {
    prompt.prompt_id =
        prompt_id(&prompt.messages, prompt.gold.as_deref(), prompt.verification.as_deref(), &prompt.domain);
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Role;

    fn user(content: &str) -> Vec<Message> {
        vec![Message { role: Role::User, content: content.to_owned() }]
    }

    /// Ids of datasets that are out in the world; none of them may ever change.
    #[test]
    fn the_bytes_of_an_id_are_what_they_always_were() {
        let turns: Vec<Message> =
            Role::ALL.into_iter().map(|role| Message { role, content: "1+1?".to_owned() }).collect();
        assert_eq!(prompt_id(&turns, Some("2"), None, "math"), "2690eefb0106c12e27b17b1c1c016646");
    }

    #[test]
    fn the_id_follows_content_and_tells_null_from_empty() {
        let base = prompt_id(&user("1+1?"), Some("2"), None, "math");
        assert_eq!(base, prompt_id(&user("1+1?"), Some("2"), None, "math"));
        assert_eq!(base.len(), 32);
        for other in [
            prompt_id(&user("1+1"), Some("2"), None, "math"),
            prompt_id(&user("1+1?"), None, None, "math"),
            prompt_id(&user("1+1?"), Some("2"), Some(""), "math"),
            prompt_id(&user("1+1?"), Some("2"), None, "logic"),
        ] {
            assert_ne!(base, other);
        }
        assert_ne!(prompt_id(&user("a"), Some(""), None, "math"), prompt_id(&user("a"), None, None, "math"));
    }
}
