//! Completions received token by token (server-sent events), put together into a whole answer.

use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;

use super::config::{VllmConfig, seconds};
use super::fault::{Fault, FaultKind};
use super::reply::{Parts, RawLogprobs, Reply, StopReason, Usage, error_message, from_json, join_reasoning};
use super::transport::{MAX_BODY, from_reqwest};
use super::wire::ApiPath;

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<EventChoice>,
    usage: Option<Usage>,
    prompt_token_ids: Option<Vec<u32>>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct EventChoice {
    #[serde(default)]
    index: usize,
    text: Option<String>,
    delta: Option<Delta>,
    finish_reason: Option<String>,
    stop_reason: Option<StopReason>,
    logprobs: Option<RawLogprobs>,
    token_ids: Option<Vec<u32>>,
    prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning: Option<String>,
    reasoning_content: Option<String>,
}

#[derive(Default)]
struct Choice {
    text: String,
    content: Option<String>,
    reasoning: Option<String>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Vec<Option<f32>>>,
    finish_reason: Option<String>,
    stop_reason: Option<StopReason>,
}

/// Reads a stream to its end.
///
/// # Errors
/// As a whole answer, and a timeout when the server falls silent for longer than one token may take
/// (the first event has the request's own deadline). A stream that ends before its choices do was cut.
/// Fewer choices than asked is no error here, as of a whole answer.
pub(super) async fn read(mut response: Response, path: ApiPath, n: usize, config: &VllmConfig) -> Result<Reply, Fault> {
    let mut answer = Answer::new(n, MAX_BODY);
    let mut silence = seconds(config.request_timeout_s);
    loop {
        let chunk = match tokio::time::timeout(silence, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|e| from_reqwest(&e))?,
            Err(_) => {
                let what = format!("no token for {:.1} s", silence.as_secs_f64());
                return Err(Fault::new(FaultKind::Timeout, what));
            }
        };
        let Some(chunk) = chunk else { break };
        answer.receive(&chunk)?;
        if answer.choices.iter().any(Option::is_some) {
            // A second at least: a paused or busy server is not a dead one.
            silence = seconds(config.token_timeout_s).max(Duration::from_secs(1));
        }
    }
    answer.finish(path, config)
}

struct Answer {
    /// The start of a line whose end has not come.
    cut: Vec<u8>,
    /// By index; nothing where no event was of that choice.
    choices: Vec<Option<Choice>>,
    usage: Option<Usage>,
    prompt_ids: Option<Vec<u32>>,
    done: bool,
    /// Most bytes held.
    most: usize,
}

impl Answer {
    fn new(n: usize, most: usize) -> Answer {
        let choices = std::iter::repeat_with(|| None).take(n).collect();
        Answer { cut: Vec::new(), choices, usage: None, prompt_ids: None, done: false, most }
    }

    /// Reads the lines that end in this part of the stream; what follows the last one waits for its end.
    fn receive(&mut self, mut chunk: &[u8]) -> Result<(), Fault> {
        while let Some(end) = chunk.iter().position(|&b| b == b'\n') {
            if self.cut.is_empty() {
                self.line(&chunk[..end])?;
            } else {
                self.cut.extend_from_slice(&chunk[..end]);
                let line = std::mem::take(&mut self.cut);
                self.line(&line)?;
            }
            chunk = &chunk[end + 1..];
        }
        self.cut.extend_from_slice(chunk);
        let held = self.cut.len() + self.choices.iter().flatten().map(Choice::bytes).sum::<usize>();
        if held > self.most {
            return Err(Fault::new(FaultKind::Malformed, format!("an answer of more than {} bytes", self.most)));
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        // Other lines are comments, keep-alives and event names.
        let Some(data) = line.strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let event: Event =
            from_json(data).map_err(|e| Fault::new(FaultKind::Malformed, format!("{e} in an event of the stream")))?;
        if event.error.is_some() {
            return Err(Fault::new(FaultKind::ServerError, error_message(data)));
        }
        self.usage = event.usage.or(self.usage.take());
        self.prompt_ids = self.prompt_ids.take().or(event.prompt_token_ids);
        for part in event.choices {
            let n = self.choices.len();
            let Some(choice) = self.choices.get_mut(part.index) else {
                let what = format!("a choice has index {}, {n} were asked", part.index);
                return Err(Fault::new(FaultKind::WrongCount, what));
            };
            let choice = choice.get_or_insert_default();
            self.prompt_ids = self.prompt_ids.take().or(part.prompt_token_ids);
            choice.add(part.text, part.delta, part.token_ids, part.logprobs);
            choice.finish_reason = part.finish_reason.or(choice.finish_reason.take());
            choice.stop_reason = part.stop_reason.or(choice.stop_reason.take());
        }
        Ok(())
    }

    fn finish(mut self, path: ApiPath, config: &VllmConfig) -> Result<Reply, Fault> {
        let last = std::mem::take(&mut self.cut);
        self.line(&last)?;
        let n = self.choices.len();
        // Some servers end without a [DONE]; the stream is whole once every choice has said why it ended.
        let whole = self.choices.iter().all(|c| c.as_ref().is_some_and(|c| c.finish_reason.is_some()));
        if !self.done && !whole {
            return Err(Fault::new(FaultKind::Reset, "the stream ended before its completion"));
        }
        let came = self.choices.into_iter().enumerate().filter_map(|(index, choice)| Some((index, choice?)));
        let came: Vec<(usize, Choice)> = came.filter(|(_, choice)| choice.came()).collect();
        if came.is_empty() {
            return Err(Fault::new(FaultKind::WrongCount, format!("0 choices came, {n} were asked")));
        }
        let completion_tokens = self.usage.as_ref().and_then(|u| u.completion_tokens);
        let single = if n == 1 { completion_tokens.and_then(|t| u32::try_from(t).ok()) } else { None };
        let mut choices = Vec::with_capacity(came.len());
        for (index, choice) in came {
            let text = match path {
                ApiPath::Completions => choice.text,
                ApiPath::Chat => join_reasoning(choice.reasoning, choice.content, &config.reasoning),
            };
            let parts = Parts {
                text,
                token_ids: choice.token_ids,
                logprobs: choice.logprobs,
                finish_reason: choice.finish_reason,
                stop_reason: choice.stop_reason,
            };
            choices.push(parts.check(index, single, config)?);
        }
        Ok(Reply {
            choices,
            prompt_ids: self.prompt_ids,
            prompt_tokens: self.usage.and_then(|u| u.prompt_tokens),
            completion_tokens,
        })
    }
}

impl Choice {
    /// Whether there is an answer: servers of chats open every choice before the first of them says anything.
    fn came(&self) -> bool {
        self.finish_reason.is_some() || self.bytes() > 0
    }

    fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.text.len()
            + text(&self.content)
            + text(&self.reasoning)
            + self.token_ids.as_ref().map_or(0, |ids| size_of_val(&ids[..]))
            + self.logprobs.as_ref().map_or(0, |numbers| size_of_val(&numbers[..]))
    }

    fn add(
        &mut self,
        text: Option<String>,
        delta: Option<Delta>,
        token_ids: Option<Vec<u32>>,
        logprobs: Option<RawLogprobs>,
    ) {
        self.text += text.as_deref().unwrap_or_default();
        if let Some(delta) = delta {
            // Empty deltas open and close streams; they are no sign that an answer began.
            if let Some(more) = delta.content.filter(|t| !t.is_empty()) {
                self.content.get_or_insert_default().push_str(&more);
            }
            if let Some(more) = delta.reasoning.or(delta.reasoning_content).filter(|t| !t.is_empty()) {
                self.reasoning.get_or_insert_default().push_str(&more);
            }
        }
        if let Some(ids) = token_ids {
            self.token_ids.get_or_insert_default().extend(ids);
        }
        if let Some(numbers) = logprobs.and_then(RawLogprobs::into_numbers) {
            self.logprobs.get_or_insert_default().extend(numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::FinishReason;

    fn answer(n: usize, lines: &[&str], path: ApiPath) -> Result<Reply, Fault> {
        answer_as(&VllmConfig::default(), n, lines, path)
    }

    fn answer_as(config: &VllmConfig, n: usize, lines: &[&str], path: ApiPath) -> Result<Reply, Fault> {
        let mut answer = Answer::new(n, 1 << 20);
        answer.receive(lines.join("\n").as_bytes())?;
        answer.finish(path, config)
    }

    #[test]
    fn deltas_of_two_choices_are_put_together() {
        let lines = [
            r#"data: {"choices":[{"index":1,"delta":{"role":"assistant","content":""}}],"prompt_token_ids":[9]}"#,
            "",
            ": keep-alive\r",
            r#"data: {"choices":[{"index":0,"delta":{"reasoning":"h"},"token_ids":[1]}]}"#,
            r#"data: {"choices":[{"index":1,"delta":{"content":"b"},"token_ids":[3]}]}"#,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"m\"},\"token_ids\":[2]}]}\r",
            r#"data: {"choices":[{"index":0,"delta":{"content":"4"},"finish_reason":"stop","token_ids":[5]}]}"#,
            r#"data: {"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}"#,
            r#"data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":4}}"#,
            "data: [DONE]",
        ];
        let reply = answer(2, &lines, ApiPath::Chat).unwrap();
        assert_eq!(reply.choices[0].text, "<think>hm</think>4");
        assert_eq!(reply.choices[0].token_ids.as_deref(), Some(&[1, 2, 5][..]));
        assert_eq!((reply.choices[1].text.as_str(), reply.choices[1].finish_reason), ("b", FinishReason::Length));
        assert_eq!((reply.completion_tokens, reply.prompt_ids), (Some(4), Some(vec![9])));
    }

    #[test]
    fn a_cut_or_broken_stream_is_a_fault() {
        let open = r#"data: {"choices":[{"index":0,"text":"a"}]}"#;
        let kind = |lines: &[&str]| answer(1, lines, ApiPath::Completions).unwrap_err().kind;
        assert_eq!(kind(&[open]), FaultKind::Reset);
        assert_eq!(kind(&[open, "data: {\"cho"]), FaultKind::Malformed);
        assert_eq!(kind(&[r#"data: {"error":{"message":"died"}}"#]), FaultKind::ServerError);
        assert_eq!(kind(&["data: [DONE]"]), FaultKind::WrongCount);
        let nan =
            r#"data: {"choices":[{"index":0,"text":"a","finish_reason":"stop","logprobs":{"token_logprobs":[NaN]}}]}"#;
        let asked = VllmConfig { logprobs: true, ..VllmConfig::default() };
        let fault = answer_as(&asked, 1, &[nan], ApiPath::Completions).unwrap_err();
        assert_eq!(fault.kind, FaultKind::BadLogprobs, "as of a whole answer");
        let whole = r#"data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}"#;
        assert_eq!(answer(1, &[whole], ApiPath::Completions).unwrap().choices[0].text, "a");
    }

    #[test]
    fn choices_that_did_not_come_are_no_empty_answers() {
        let last = r#"data: {"choices":[{"index":3,"text":"d","finish_reason":"stop"}]}"#;
        let reply = answer(4, &[last, "data: [DONE]"], ApiPath::Completions).unwrap();
        let came: Vec<_> = reply.choices.iter().map(|choice| (choice.index, choice.text.as_str())).collect();
        assert_eq!(came, [(3, "d")], "the job asks for the rest");
        let opened = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}},{"index":1,"delta":{"role":"assistant","content":""}}]}"#;
        let ended = r#"data: {"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#;
        let reply = answer(2, &[opened, ended, "data: [DONE]"], ApiPath::Chat).unwrap();
        let came: Vec<_> = reply.choices.iter().map(|choice| (choice.index, choice.text.as_str())).collect();
        assert_eq!(came, [(1, "")], "one that ended at once is an answer, one that was opened is none");
        let kind = |lines: &[&str]| answer(2, lines, ApiPath::Chat).unwrap_err().kind;
        assert_eq!(kind(&[opened, "data: [DONE]"]), FaultKind::WrongCount);
        assert_eq!(kind(&[opened, ended]), FaultKind::Reset);
    }

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let lines = [
            r#"data: {"choices":[{"index":0,"text":"a\n","token_ids":[1]}]}"#,
            "",
            "data: {\"choices\":[{\"index\":0,\"text\":\"é\",\"finish_reason\":\"stop\",\"token_ids\":[2]}]}\r",
        ];
        let whole = answer(1, &lines, ApiPath::Completions).unwrap();
        assert_eq!(whole.choices[0].text, "a\né");
        let text = lines.join("\n");
        for size in 1..text.len() {
            let mut answer = Answer::new(1, 1 << 20);
            text.as_bytes().chunks(size).try_for_each(|chunk| answer.receive(chunk)).unwrap();
            assert_eq!(answer.finish(ApiPath::Completions, &VllmConfig::default()).unwrap(), whole, "{size}");
        }
    }

    #[test]
    fn a_stream_that_never_ends_is_refused_at_a_bound() {
        for part in ["x".repeat(100), format!("data: {}\n", r#"{"choices":[{"index":0,"text":"aaaaaaaaaa"}]}"#)] {
            let mut answer = Answer::new(1, 1000);
            let fault = (0..1000).find_map(|_| answer.receive(part.as_bytes()).err()).expect("a bound");
            assert_eq!(
                (fault.kind, fault.message.as_str()),
                (FaultKind::Malformed, "an answer of more than 1000 bytes")
            );
        }
    }
}
