//! Request bodies, written once for each prompt and completed for each sample.
//!
//! Everything but `n` and `seed` is the same for the samples of one prompt, so
//! the body is serialised up to there and shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::{Api, Template, TokenIds, VllmConfig};
use super::fault::{Fault, FaultKind};
use super::{EncodedPrompt, PromptEncoder};
use crate::engine::{Request, Sampling};
use crate::schema::{Message, Role};

/// What the samples of one prompt share.
pub(super) struct Group {
    pub prompt_id: Arc<str>,
    pub path: ApiPath,
    /// The body without its closing brace.
    head: Vec<u8>,
    /// The prompt's token ids, where we encoded it.
    pub prompt_ids: Option<Vec<u32>>,
    pub deadline: Duration,
    /// The endpoint that answered last for this prompt: its prefix cache is warm. `usize::MAX` for none.
    pub affinity: AtomicUsize,
    /// The endpoints that failed this prompt, a bit each for the first 64.
    failed: AtomicU64,
    /// The sampling part of the body, for continuations.
    sampling: Arc<SamplingHead>,
}

/// The two calls that complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiPath {
    Chat,
    Completions,
}

/// The keys of a body that depend on the sampling settings alone, serialised.
pub(super) struct SamplingHead {
    settings: Arc<Sampling>,
    keys: Map<String, Value>,
    /// What the servers call these two, if they take them.
    max_tokens: Option<String>,
    seed: Option<String>,
}

/// Writes bodies for one run.
pub(super) struct BodyWriter<'a> {
    config: &'a VllmConfig,
    model: &'a str,
    encoder: Option<&'a PromptEncoder>,
    /// Whether token ids are asked.
    token_ids: bool,
    last: Option<Arc<SamplingHead>>,
}

impl<'a> BodyWriter<'a> {
    /// `knows_token_ids` decides for `token_ids = "auto"`.
    pub fn new(
        config: &'a VllmConfig,
        model: &'a str,
        encoder: Option<&'a PromptEncoder>,
        knows_token_ids: bool,
    ) -> Self {
        let token_ids = match config.token_ids {
            TokenIds::Auto => knows_token_ids,
            TokenIds::Require => true,
            TokenIds::Off => false,
        };
        BodyWriter { config, model, encoder, token_ids, last: None }
    }

    /// The shared part of a request's bodies.
    ///
    /// # Errors
    /// A fault of the row: the encoder refused the messages, or there are none.
    pub fn group(&mut self, request: &Request) -> Result<Group, Fault> {
        let sampling = match &self.last {
            Some(head) if Arc::ptr_eq(&head.settings, &request.sampling) || head.settings == request.sampling => {
                head.clone()
            }
            _ => self.last.insert(Arc::new(self.sampling_head(&request.sampling))).clone(),
        };
        if request.messages.is_empty() {
            return Err(Fault::new(FaultKind::BadPrompt, "the prompt has no messages"));
        }
        let mut head = open_object(&sampling.keys);
        let mut prompt_ids = None;
        let path = match self.config.api {
            Api::Chat => {
                head.extend_from_slice(b",\"messages\":");
                write_json(&mut head, &*request.messages);
                // A last turn of the assistant's is one to continue.
                if request.messages.last().is_some_and(|m| m.role == Role::Assistant) {
                    head.extend_from_slice(b",\"add_generation_prompt\":false,\"continue_final_message\":true");
                }
                ApiPath::Chat
            }
            Api::Completions => {
                head.extend_from_slice(b",\"prompt\":");
                match self.encode(&request.messages)? {
                    EncodedPrompt::Text(text) => write_json(&mut head, &text),
                    EncodedPrompt::TokenIds(ids) => {
                        write_json(&mut head, &ids);
                        prompt_ids = Some(ids);
                    }
                }
                ApiPath::Completions
            }
        };
        Ok(Group {
            prompt_id: request.prompt_id.clone(),
            path,
            head,
            prompt_ids,
            deadline: self.config.deadline(request.sampling.max_tokens),
            affinity: AtomicUsize::new(usize::MAX),
            failed: AtomicU64::new(0),
            sampling,
        })
    }

    fn encode(&self, messages: &[Message]) -> Result<EncodedPrompt, Fault> {
        match (self.config.template, self.encoder) {
            (Template::Ours, Some(encoder)) => {
                encoder(messages).map_err(|e| Fault::new(FaultKind::BadPrompt, e.to_string()))
            }
            _ => Ok(EncodedPrompt::Text(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>().join("\n\n"))),
        }
    }

    fn sampling_head(&self, sampling: &Arc<Sampling>) -> SamplingHead {
        let mut keys = Map::new();
        keys.insert("model".into(), self.model.into());
        let mut put = |key: &str, value: Value| {
            if let Some(name) = self.config.key(key) {
                keys.insert(name.to_owned(), value);
            }
        };
        put("max_tokens", sampling.max_tokens.into());
        put("temperature", short(sampling.temperature));
        put("top_p", short(sampling.top_p));
        // What is off is left out: servers of another make may not know these keys.
        if sampling.top_k > 0 {
            put("top_k", sampling.top_k.into());
        }
        if sampling.min_p > 0.0 {
            put("min_p", short(sampling.min_p));
        }
        if !sampling.stop.is_empty() {
            put("stop", json!(sampling.stop));
        }
        if !sampling.stop_token_ids.is_empty() {
            put("stop_token_ids", json!(sampling.stop_token_ids));
        }
        if self.token_ids {
            keys.insert("return_token_ids".into(), true.into());
        }
        match (self.config.logprobs, self.config.api) {
            (false, _) => {}
            // 0 alternatives: the sampled token's own is all that is asked.
            (true, Api::Completions) => drop(keys.insert("logprobs".into(), 0.into())),
            (true, Api::Chat) => drop(keys.insert("logprobs".into(), true.into())),
        }
        if self.config.stream {
            keys.insert("stream".into(), true.into());
            keys.insert("stream_options".into(), json!({"include_usage": true}));
        }
        for (key, value) in &self.config.extra_body {
            keys.insert(key.clone(), value.clone());
        }
        let name = |key| self.config.key(key).map(str::to_owned);
        SamplingHead { settings: sampling.clone(), keys, max_tokens: name("max_tokens"), seed: name("seed") }
    }
}

impl Group {
    /// The whole body for `n` samples from this seed.
    pub fn body(&self, n: usize, seed: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.head.len() + 48);
        body.extend_from_slice(&self.head);
        self.sampling.close_object(&mut body, n, seed);
        body
    }

    /// Whether the endpoint had failed this prompt before; from now on it has.
    pub fn failed_before(&self, endpoint: usize) -> bool {
        let bit = 1u64.checked_shl(endpoint as u32).unwrap_or(0);
        self.failed.fetch_or(bit, Relaxed) & bit != 0
    }

    /// A body that asks for one token of a prompt that nobody can dislike.
    pub fn trifle(&self) -> Vec<u8> {
        let mut keys = self.sampling.keys_for(1);
        // The answer is not read, only whether there is one.
        keys.remove("stream");
        keys.remove("stream_options");
        let mut body = open_object(&keys);
        match (self.path, &self.prompt_ids) {
            (ApiPath::Chat, _) => body.extend_from_slice(br#","messages":[{"role":"user","content":"1"}]"#),
            (ApiPath::Completions, Some(ids)) => {
                body.extend_from_slice(b",\"prompt\":");
                write_json(&mut body, &ids[..ids.len().min(1)]);
            }
            (ApiPath::Completions, None) => body.extend_from_slice(br#","prompt":"1""#),
        }
        self.sampling.close_object(&mut body, 1, 0);
        body
    }

    /// The body that continues one sample: prompt and completion so far as token ids.
    pub fn continuation(&self, tokens: &[u32], max_tokens: u32, logprobs: bool, seed: u64) -> Vec<u8> {
        let mut keys = self.sampling.keys_for(max_tokens);
        if logprobs {
            keys.insert("logprobs".into(), 0.into());
        }
        let mut body = open_object(&keys);
        body.extend_from_slice(b",\"prompt\":");
        write_json(&mut body, tokens);
        self.sampling.close_object(&mut body, 1, seed);
        body
    }
}

fn open_object(keys: &Map<String, Value>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    write_json(&mut bytes, keys);
    bytes.pop();
    bytes
}

impl SamplingHead {
    /// The keys, with another budget of tokens.
    fn keys_for(&self, max_tokens: u32) -> Map<String, Value> {
        let mut keys = self.keys.clone();
        if let Some(name) = &self.max_tokens {
            keys.insert(name.clone(), max_tokens.into());
        }
        keys
    }

    fn close_object(&self, body: &mut Vec<u8>, n: usize, seed: u64) {
        use std::io::Write;
        if n > 1 {
            write!(body, ",\"n\":{n}").expect("writing to memory does not fail");
        }
        if let Some(name) = &self.seed {
            body.push(b',');
            write_json(body, name);
            write!(body, ":{seed}").expect("writing to memory does not fail");
        }
        body.push(b'}');
    }
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("strings, numbers and maps with string keys always serialise");
}

/// 0.6 rather than 0.6000000238418579.
fn short(value: f32) -> Value {
    value.to_string().parse::<f64>().ok().and_then(serde_json::Number::from_f64).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SampleSeed;

    fn request(messages: &[(Role, &str)]) -> Request {
        Request {
            prompt_id: "p".into(),
            messages: messages.iter().map(|(role, text)| Message { role: *role, content: (*text).into() }).collect(),
            samples: vec![SampleSeed { index: 0, seed: 7 }],
            sampling: Arc::new(Sampling { stop: vec!["\n\"".into()], ..Sampling::default() }),
            policy_step: 0,
        }
    }

    fn body(config: &VllmConfig, encoder: Option<&PromptEncoder>, request: &Request) -> Value {
        let group = BodyWriter::new(config, "m", encoder, true).group(request).unwrap();
        serde_json::from_slice(&group.body(request.samples.len(), 7)).unwrap()
    }

    #[test]
    fn a_chat_body_carries_messages_seed_and_extra_keys() {
        let config = VllmConfig {
            extra_body: Map::from_iter([("temperature".into(), json!(1.0)), ("guided_regex".into(), json!("a+"))]),
            logprobs: true,
            ..VllmConfig::default()
        };
        let body = body(&config, None, &request(&[(Role::System, "s"), (Role::User, "é\"")]));
        assert_eq!(body["messages"], json!([{"role": "system", "content": "s"}, {"role": "user", "content": "é\""}]));
        assert_eq!(body["temperature"], json!(1.0), "extra_body wins over the sampling settings");
        assert_eq!(body["guided_regex"], "a+");
        assert_eq!((&body["top_p"], &body["seed"]), (&json!(0.95), &json!(7)));
        assert_eq!((&body["logprobs"], &body["return_token_ids"]), (&json!(true), &json!(true)));
        for absent in ["top_k", "min_p", "n", "stop_token_ids", "stream"] {
            assert!(body.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn keys_go_by_the_names_that_servers_know_or_not_at_all() {
        let config: VllmConfig =
            toml::from_str("rename = { max_tokens = \"max_completion_tokens\" }\nomit = [\"seed\", \"top_p\"]")
                .unwrap();
        let group = BodyWriter::new(&config, "m", None, true).group(&request(&[(Role::User, "q")])).unwrap();
        for (bytes, tokens) in
            [(group.body(1, 7), 4096), (group.trifle(), 1), (group.continuation(&[1], 9, false, 7), 9)]
        {
            let body: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(body["max_completion_tokens"], tokens, "{body}");
            for absent in ["max_tokens", "seed", "top_p"] {
                assert!(body.get(absent).is_none(), "{absent}: {body}");
            }
        }
    }

    #[test]
    fn a_last_assistant_turn_is_continued() {
        let body =
            body(&VllmConfig::default(), None, &request(&[(Role::User, "q"), (Role::Assistant, "<think>\nWell")]));
        assert_eq!((&body["continue_final_message"], &body["add_generation_prompt"]), (&json!(true), &json!(false)));
    }

    #[test]
    fn our_encoder_sends_token_ids_and_its_refusal_is_the_rows() {
        let config = VllmConfig { api: Api::Completions, template: Template::Ours, ..VllmConfig::default() };
        let encoder: PromptEncoder = Arc::new(|messages: &[Message]| match messages[0].content.as_str() {
            "bad" => Err(crate::Error::new("no template for this role")),
            _ => Ok(EncodedPrompt::TokenIds(vec![1, 2, 3])),
        });
        let good = body(&config, Some(&encoder), &request(&[(Role::User, "q")]));
        assert_eq!(good["prompt"], json!([1, 2, 3]));
        let fault =
            BodyWriter::new(&config, "m", Some(&encoder), true).group(&request(&[(Role::User, "bad")])).err().unwrap();
        assert_eq!(fault.row_error(), "bad_prompt: no template for this role");
    }
}
