//! Answers of a server, read into completions, with every way they can be wrong.
//!
//! Only the needed keys are read. Servers differ: `reasoning` or
//! `reasoning_content`, token ids on the choice or nowhere, logprobs as two
//! shapes, `NaN` where JSON has none.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::config::{Reasoning, TokenIds, VllmConfig};
use super::fault::{Fault, FaultKind};
use super::wire::ApiPath;
use crate::schema::FinishReason;

/// One choice of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Completed {
    /// Which of the `n` samples asked.
    pub index: usize,
    pub text: String,
    pub token_ids: Option<Vec<u32>>,
    pub logprobs: Option<Vec<f32>>,
    pub finish_reason: FinishReason,
    pub stop_reason: Option<String>,
    pub tokens: Option<u32>,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reply {
    pub choices: Vec<Completed>,
    pub prompt_ids: Option<Vec<u32>>,
    pub prompt_tokens: Option<u32>,
    /// Of all choices together.
    pub completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct RawReply {
    choices: Vec<RawChoice>,
    usage: Option<Usage>,
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
pub(super) struct Usage {
    pub prompt_tokens: Option<u32>,
    pub completion_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct RawChoice {
    index: Option<usize>,
    text: Option<String>,
    message: Option<RawMessage>,
    finish_reason: Option<String>,
    stop_reason: Option<StopReason>,
    logprobs: Option<RawLogprobs>,
    token_ids: Option<Vec<u32>>,
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct RawMessage {
    content: Option<String>,
    reasoning: Option<String>,
    reasoning_content: Option<String>,
}

/// vLLM says the stop string, or the id of the stop token.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum StopReason {
    Text(String),
    Id(i64),
}

/// `token_logprobs` in completions, `content` in chat. Numbers stay raw: they may be null.
#[derive(Deserialize)]
pub(super) struct RawLogprobs {
    token_logprobs: Option<Vec<Option<f32>>>,
    content: Option<Vec<ContentLogprob>>,
}

#[derive(Deserialize)]
struct ContentLogprob {
    logprob: Option<f32>,
}

/// An error body: `{"error": {"message": …}}`, `{"message": …}` or `{"detail": …}`.
#[derive(Deserialize)]
struct RawError {
    error: Option<Value>,
    message: Option<String>,
    detail: Option<Value>,
}

/// Reads the answer to a request for `n` samples.
///
/// # Errors
/// The fault: malformed, more choices than asked, a missing part that was required, numbers that are none.
/// Fewer choices than asked is no error here; the caller asks again for the rest.
pub(super) fn parse(body: &[u8], path: ApiPath, n: usize, config: &VllmConfig) -> Result<Reply, Fault> {
    let raw: RawReply = from_json(body).map_err(|error| malformed(body, &error))?;
    if raw.choices.len() > n {
        return Err(wrong_count(raw.choices.len(), n));
    }
    let prompt_tokens = raw.usage.as_ref().and_then(|u| u.prompt_tokens);
    let completion_tokens = raw.usage.as_ref().and_then(|u| u.completion_tokens);
    let mut reply = Reply {
        choices: Vec::with_capacity(raw.choices.len()),
        prompt_ids: raw.prompt_token_ids,
        prompt_tokens,
        completion_tokens,
    };
    for (place, choice) in raw.choices.into_iter().enumerate() {
        let index = choice.index.unwrap_or(place);
        if index >= n || reply.choices.iter().any(|c| c.index == index) {
            return Err(Fault::new(FaultKind::WrongCount, format!("a choice has index {index}, {n} were asked")));
        }
        let text = match (path, choice.text, choice.message) {
            (ApiPath::Completions, Some(text), _) => text,
            (ApiPath::Chat, _, Some(message)) => {
                let reasoning = message.reasoning.or(message.reasoning_content);
                join_reasoning(reasoning, message.content, &config.reasoning)
            }
            _ => return Err(Fault::new(FaultKind::Malformed, "a choice without text")),
        };
        if reply.prompt_ids.is_none() {
            reply.prompt_ids = choice.prompt_token_ids;
        }
        let parts = Parts {
            text,
            token_ids: choice.token_ids,
            logprobs: choice.logprobs.and_then(RawLogprobs::into_numbers),
            finish_reason: choice.finish_reason,
            stop_reason: choice.stop_reason,
        };
        let tokens = if n == 1 { completion_tokens.and_then(|t| u32::try_from(t).ok()) } else { None };
        reply.choices.push(parts.check(index, tokens, config)?);
    }
    if reply.choices.is_empty() {
        return Err(wrong_count(0, n));
    }
    Ok(reply)
}

fn wrong_count(came: usize, asked: usize) -> Fault {
    Fault::new(FaultKind::WrongCount, format!("{came} choices came, {asked} were asked"))
}

/// One choice as the server sent it, whole or put together from a stream.
pub(super) struct Parts {
    pub text: String,
    pub token_ids: Option<Vec<u32>>,
    pub logprobs: Option<Vec<Option<f32>>>,
    pub finish_reason: Option<String>,
    pub stop_reason: Option<StopReason>,
}

impl Parts {
    /// Checks what came against what was asked.
    pub fn check(self, index: usize, tokens: Option<u32>, config: &VllmConfig) -> Result<Completed, Fault> {
        let said = self.finish_reason.unwrap_or_default();
        let finish_reason = FinishReason::from_server(&said).unwrap_or(FinishReason::Unknown);
        if finish_reason == FinishReason::Error {
            return Err(Fault::new(FaultKind::Aborted, format!("the server ended the completion: `{said}`")));
        }
        if config.token_ids == TokenIds::Require && self.token_ids.is_none() {
            return Err(Fault::new(FaultKind::MissingTokenIds, "token ids were asked and did not come"));
        }
        let logprobs = match self.logprobs {
            None if config.logprobs => {
                return Err(Fault::new(FaultKind::BadLogprobs, "logprobs were asked and did not come"));
            }
            Some(numbers) if config.logprobs => Some(finite(numbers)?),
            _ => None,
        };
        if let (Some(ids), Some(logprobs)) = (&self.token_ids, &logprobs)
            && ids.len() != logprobs.len()
        {
            return Err(Fault::new(
                FaultKind::MissingTokenIds,
                format!("{} token ids but {} logprobs", ids.len(), logprobs.len()),
            ));
        }
        let tokens = self.token_ids.as_ref().map(|ids| ids.len() as u32).or(tokens);
        let mut text = self.text;
        let opened = config.reasoning.opened_by_template.as_str();
        if !opened.is_empty() && !text.trim_start().starts_with(opened.trim()) {
            text.insert_str(0, opened);
        }
        Ok(Completed {
            index,
            text,
            token_ids: self.token_ids,
            logprobs,
            finish_reason,
            stop_reason: self.stop_reason.map(|reason| match reason {
                StopReason::Text(text) => text,
                StopReason::Id(id) => id.to_string(),
            }),
            tokens,
        })
    }
}

impl RawLogprobs {
    pub fn into_numbers(self) -> Option<Vec<Option<f32>>> {
        self.token_logprobs.or_else(|| self.content.map(|c| c.into_iter().map(|token| token.logprob).collect()))
    }
}

fn finite(numbers: Vec<Option<f32>>) -> Result<Vec<f32>, Fault> {
    let count = numbers.len();
    let good: Vec<f32> = numbers.into_iter().flatten().filter(|p| p.is_finite()).collect();
    if good.len() == count {
        return Ok(good);
    }
    Err(Fault::new(FaultKind::BadLogprobs, format!("{} of {count} logprobs are no finite number", count - good.len())))
}

/// Reasoning and answer as the model wrote them. Without content the closing tag was never written:
/// the completion ended inside its reasoning.
pub(super) fn join_reasoning(reasoning: Option<String>, content: Option<String>, tags: &Reasoning) -> String {
    match (reasoning, content) {
        (Some(reasoning), content) if !reasoning.is_empty() => {
            let mut text = reasoning;
            text.insert_str(0, &tags.open);
            if let Some(content) = content {
                text.push_str(&tags.close);
                text.push_str(&content);
            }
            text
        }
        (_, content) => content.unwrap_or_default(),
    }
}

/// Reads JSON as Python's writers have it, too: what is no number in it is null.
pub(super) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body)
        .or_else(|first| without_nan(body).and_then(|cleaned| serde_json::from_slice(&cleaned).ok()).ok_or(first))
}

/// Bare `NaN`, `Infinity` and `-Infinity`, as Python writes them, become null. `None` if there are none.
fn without_nan(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    let (mut in_string, mut changed, mut i) = (false, false, 0);
    while i < body.len() {
        let rest = &body[i..];
        if in_string {
            let step = if rest[0] == b'\\' { 2.min(rest.len()) } else { 1 };
            in_string = rest[0] != b'"';
            out.extend_from_slice(&rest[..step]);
            i += step;
        } else if let Some(word) = [&b"NaN"[..], b"-Infinity", b"Infinity"].into_iter().find(|w| rest.starts_with(w)) {
            out.extend_from_slice(b"null");
            changed = true;
            i += word.len();
        } else {
            in_string = rest[0] == b'"';
            out.push(rest[0]);
            i += 1;
        }
    }
    changed.then_some(out)
}

fn malformed(body: &[u8], error: &serde_json::Error) -> Fault {
    Fault::new(FaultKind::Malformed, format!("{error} in {} bytes: {}", body.len(), excerpt(body)))
}

/// What an error body says, for people; never longer than a few hundred characters.
pub(super) fn error_message(body: &[u8]) -> String {
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Object(mut object) => match object.remove("message") {
            Some(Value::String(text)) => text,
            _ => Value::Object(object).to_string(),
        },
        other => other.to_string(),
    };
    let found = serde_json::from_slice::<RawError>(body)
        .ok()
        .and_then(|raw| raw.error.map(text).or(raw.message).or_else(|| raw.detail.map(text)));
    match found {
        Some(message) => excerpt(message.as_bytes()),
        None => excerpt(body),
    }
}

fn excerpt(bytes: &[u8]) -> String {
    const LONGEST: usize = 400;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * LONGEST)]);
    let mut short: String = text.trim().chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if bytes.len() > short.len() + 2 && text.chars().count() > LONGEST {
        short.push('…');
    }
    if short.is_empty() { "an empty answer".into() } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VllmConfig {
        VllmConfig { logprobs: true, ..VllmConfig::default() }
    }

    #[test]
    fn a_completion_of_vllm_is_read_whole() {
        let body = br#"{"id":"x","choices":[{"index":0,"text":"a\n","token_ids":[5,6],"prompt_token_ids":[1],
            "logprobs":{"text_offset":[0,1],"token_logprobs":[-0.5,-1.25],"tokens":["a","\n"]},
            "finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let reply = parse(body, ApiPath::Completions, 1, &config()).unwrap();
        let choice = &reply.choices[0];
        assert_eq!(choice.text, "a\n");
        assert_eq!(choice.token_ids.as_deref(), Some(&[5, 6][..]));
        assert_eq!(choice.logprobs.as_deref(), Some(&[-0.5, -1.25][..]));
        assert_eq!((choice.finish_reason, choice.tokens), (FinishReason::Length, Some(2)));
        assert_eq!((reply.prompt_ids, reply.prompt_tokens), (Some(vec![1]), Some(1)));
    }

    #[test]
    fn reasoning_of_either_name_is_joined_with_its_tags() {
        for key in ["reasoning", "reasoning_content"] {
            let body = format!(
                r#"{{"choices":[{{"message":{{"role":"assistant","{key}":"\nhm\n","content":"\n\n4"}},"stop_reason":151645,"finish_reason":"stop"}}]}}"#
            );
            let reply = parse(body.as_bytes(), ApiPath::Chat, 1, &VllmConfig::default()).unwrap();
            assert_eq!(reply.choices[0].text, "<think>\nhm\n</think>\n\n4");
            assert_eq!(reply.choices[0].stop_reason.as_deref(), Some("151645"));
        }
        let tags = Reasoning::default();
        assert_eq!(join_reasoning(Some("cut".into()), None, &tags), "<think>cut");
        assert_eq!(join_reasoning(None, Some("plain".into()), &tags), "plain");
    }

    #[test]
    fn a_think_tag_that_the_template_opened_is_put_back_once() {
        let mut config = VllmConfig::default();
        config.reasoning.opened_by_template = "<think>\n".into();
        for text in ["hm</think>4", "<think>\\nhm</think>4"] {
            let body = format!(r#"{{"choices":[{{"text":"{text}","finish_reason":"stop"}}]}}"#);
            let reply = parse(body.as_bytes(), ApiPath::Completions, 1, &config).unwrap();
            assert_eq!(reply.choices[0].text, "<think>\nhm</think>4");
        }
    }

    #[test]
    fn every_broken_answer_has_its_kind() {
        let cases: &[(FaultKind, &str)] = &[
            (FaultKind::Malformed, ""),
            (FaultKind::Malformed, "<html>bad gateway</html>"),
            (FaultKind::Malformed, r#"{"choices":[{"text":"a"#),
            (FaultKind::Malformed, r#"{"object":"completion"}"#),
            (FaultKind::Malformed, r#"{"choices":[{"index":0}]}"#),
            (FaultKind::WrongCount, r#"{"choices":[]}"#),
            (FaultKind::WrongCount, r#"{"choices":[{"index":1,"text":"a"}]}"#),
            (FaultKind::WrongCount, r#"{"choices":[{"text":"a"},{"text":"b"}]}"#),
            (FaultKind::BadLogprobs, r#"{"choices":[{"text":"NaN","logprobs":{"token_logprobs":[NaN]}}]}"#),
            (FaultKind::BadLogprobs, r#"{"choices":[{"text":"a","logprobs":{"token_logprobs":[-Infinity]}}]}"#),
            (FaultKind::BadLogprobs, r#"{"choices":[{"text":"a","logprobs":{"token_logprobs":[null]}}]}"#),
            (FaultKind::BadLogprobs, r#"{"choices":[{"text":"a"}]}"#),
            (
                FaultKind::MissingTokenIds,
                r#"{"choices":[{"text":"a","token_ids":[1,2],"logprobs":{"token_logprobs":[-1.0]}}]}"#,
            ),
            (FaultKind::Aborted, r#"{"choices":[{"text":"a","finish_reason":"abort"}]}"#),
        ];
        for (kind, body) in cases {
            let fault = parse(body.as_bytes(), ApiPath::Completions, 1, &config()).unwrap_err();
            assert_eq!(fault.kind, *kind, "{body}: {}", fault.message);
        }
        let required = VllmConfig { token_ids: TokenIds::Require, ..VllmConfig::default() };
        let fault = parse(br#"{"choices":[{"text":"a"}]}"#, ApiPath::Completions, 1, &required).unwrap_err();
        assert_eq!(fault.kind, FaultKind::MissingTokenIds);
    }

    #[test]
    fn error_bodies_of_all_makes_give_their_message() {
        for body in [
            r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#,
            r#"{"error":"too long"}"#,
            r#"{"message":"too long"}"#,
            r#"{"detail":"too long"}"#,
            "too long",
        ] {
            assert_eq!(error_message(body.as_bytes()), "too long", "{body}");
        }
        assert!(error_message(&[b'x'; 100_000]).chars().count() <= 401);
        assert_eq!(error_message(b""), "an empty answer");
    }
}
