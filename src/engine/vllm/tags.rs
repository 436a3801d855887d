//! A closing tag that the server left out of its text, put back where its token stands.
//!
//! Where `</think>` is a special token, servers skip it in the text they return, and their reasoning
//! parsers may not split there either: reasoning and answer run into each other. The token ids still
//! tell where the one ends, and the server's own tokenizer how much text that is.

use std::time::Duration;

use serde::Deserialize;

use super::config::Reasoning;
use super::fault::{Fault, FaultKind};
use super::reply::Completed;
use super::transport::Endpoint;

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Detokenized {
    prompt: String,
}

/// Puts the closing tag, which is the token `close`, back into a text that lacks it. A text that has
/// the tag, or a completion without the token, stays as it is; so does one whose split cannot be found.
///
/// # Errors
/// The server could not be asked: the exchange is as good as failed, since the next one may be whole.
pub(super) async fn restore(
    endpoint: &Endpoint,
    model: &str,
    close: u32,
    tags: &Reasoning,
    choice: &mut Completed,
) -> Result<(), Fault> {
    let Some(reasoning) = lost(choice, close, tags) else { return Ok(()) };
    let body = serde_json::json!({"model": model, "tokens": reasoning}).to_string();
    let answer = match endpoint.post("detokenize", body.into_bytes(), DEADLINE).await {
        Ok(answer) => answer,
        Err(fault) if matches!(fault.kind, FaultKind::WrongAddress | FaultKind::BadRequest) => return Ok(()),
        Err(fault) => return Err(fault),
    };
    if let Ok(Detokenized { prompt }) = serde_json::from_slice(&answer)
        && let Some(text) = with_tag(&choice.text, &prompt, tags)
    {
        choice.text = text;
    }
    Ok(())
}

/// The tokens before the closing one, if the text lacks its tag.
fn lost<'a>(choice: &'a Completed, close: u32, tags: &Reasoning) -> Option<&'a [u32]> {
    let ids = choice.token_ids.as_deref()?;
    let end = ids.iter().position(|&id| id == close)?;
    (!choice.text.contains(&tags.close)).then_some(&ids[..end])
}

/// The text with the tag behind its reasoning. `reasoning` is decoded with its special tokens, so it
/// may begin with an opening tag that the text lacks as well.
fn with_tag(text: &str, reasoning: &str, tags: &Reasoning) -> Option<String> {
    let (opened, text) = match text.strip_prefix(&tags.opened_by_template) {
        Some(rest) => (tags.opened_by_template.as_str(), rest),
        None => ("", text),
    };
    let shown = if text.starts_with(reasoning) { reasoning } else { reasoning.strip_prefix(&tags.open)? };
    let answer = text.strip_prefix(shown)?;
    Some([opened, reasoning, &tags.close, answer].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::FinishReason;

    #[test]
    fn the_tag_goes_where_the_reasoning_ends() {
        let tags = Reasoning::default();
        let opened = Reasoning { opened_by_template: "<think>\n".into(), ..Reasoning::default() };
        for (text, reasoning, tags, expected) in [
            ("hm, 4", "hm, ", &tags, Some("hm, </think>4")),
            ("hm4", "<think>hm", &tags, Some("<think>hm</think>4")),
            ("<think>hm4", "<think>hm", &tags, Some("<think>hm</think>4")),
            ("<think>\nhm4", "hm", &opened, Some("<think>\nhm</think>4")),
            ("4", "", &tags, Some("</think>4")),
            ("something else", "hm", &tags, None),
        ] {
            assert_eq!(with_tag(text, reasoning, tags).as_deref(), expected, "{text:?} after {reasoning:?}");
        }
    }

    #[test]
    fn only_a_token_without_its_text_is_a_loss() {
        let choice = |text: &str, ids: Option<Vec<u32>>| Completed {
            index: 0,
            text: text.into(),
            token_ids: ids,
            logprobs: None,
            finish_reason: FinishReason::Stop,
            stop_reason: None,
            tokens: None,
        };
        let tags = Reasoning::default();
        assert_eq!(lost(&choice("hm4", Some(vec![5, 9, 6])), 9, &tags), Some(&[5][..]));
        assert_eq!(lost(&choice("hm</think>4", Some(vec![5, 9, 6])), 9, &tags), None);
        assert_eq!(lost(&choice("hm4", Some(vec![5, 6])), 9, &tags), None);
        assert_eq!(lost(&choice("hm4", None), 9, &tags), None);
    }
}
