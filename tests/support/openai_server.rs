//! A small OpenAI-compatible server for tests, with faults by script.
//!
//! It answers as vLLM does (shapes, keys, error bodies) and its completions are
//! a function of prompt and seed, so a test can tell a right answer from a
//! lost, doubled or mixed-up one. [`expected`] is that function.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

/// What a completion request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A right answer.
    None,
    /// This status with an error body.
    Status(u16),
    /// 429 with `Retry-After` in seconds.
    RetryAfter(u64),
    /// No answer, ever.
    Hang,
    /// The connection ends before the answer.
    Reset,
    /// A head that promises more bytes than come.
    CutBody,
    /// Whole HTTP, half the JSON.
    TruncatedJson,
    NotJson,
    /// No JSON, and the key that was sent in it.
    Echo,
    /// One choice fewer (or none) than asked.
    TooFew,
    /// One choice more than asked.
    TooMany,
    NoTokenIds,
    NanLogprobs,
    /// vLLM's error for a prompt over the context.
    ContextOverflow,
    Abort,
}

/// One completion request as the script sees it.
pub struct Ask<'a> {
    /// 0 for the first request of this server, counted over completions only.
    pub number: u64,
    pub body: &'a Value,
}

type Script = dyn Fn(&Ask<'_>) -> Fault + Send + Sync;

/// A model behind the server: weights that are loaded while it runs, and what they say.
pub trait Weights: Send + Sync {
    /// Loads the checkpoint in a folder, as `reload_weights` does.
    fn load(&self, folder: &str) -> Result<(), String>;
    /// Text, token ids, their logprobs and the finish reason of a completion of token ids.
    fn complete(&self, body: &Value, seed: u64) -> (String, Vec<u32>, Vec<f32>, &'static str);
    /// The logprob of every token but the first.
    fn score(&self, tokens: &[u32]) -> Vec<f32>;
}

/// How the server behaves; change it before [`OpenAiServer::start`].
pub struct Behaviour {
    pub model: String,
    pub root: String,
    pub key: Option<String>,
    pub script: Box<Script>,
    /// Time one completion takes.
    pub latency: Duration,
    /// Tokens of one completion.
    pub tokens: usize,
    /// More in flight than this are answered 429.
    pub capacity: usize,
    /// So many requests to `/v1/models` and `/tokenize` each are answered 503 first.
    pub flaky_probes: u64,
    /// `VLLM_SERVER_DEV_MODE=1`.
    pub dev_mode: bool,
    /// What `/tokenize` adds to each id: another tokenizer.
    pub tokenizer_shift: u32,
    /// Reasoning apart from content, under this key, in chat answers.
    pub reasoning_key: Option<&'static str>,
    /// `</think>` is this one special token: it stands in the middle of every completion's ids, and
    /// not in its text.
    pub close_token: Option<u32>,
    /// A server of another make: no list of models, and keys it does not know are refused.
    pub foreign: bool,
    /// Status and text that `/v1/models` answers instead of a list.
    pub no_list: Option<(u16, &'static str)>,
    /// Answers every completion with these bytes at once, unread: for measuring clients.
    pub canned: Option<Bytes>,
    /// What canned answers meet instead, by the request's number.
    pub canned_script: fn(u64) -> Fault,
    /// Answers in place of [`expected`].
    pub weights: Option<Arc<dyn Weights>>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            model: "tiny".into(),
            root: "/models/tiny".into(),
            key: None,
            script: Box::new(|_| Fault::None),
            latency: Duration::ZERO,
            tokens: 8,
            capacity: usize::MAX,
            flaky_probes: 0,
            dev_mode: false,
            tokenizer_shift: 0,
            reasoning_key: None,
            close_token: None,
            foreign: false,
            no_list: None,
            canned: None,
            canned_script: |_| Fault::None,
            weights: None,
        }
    }
}

/// What the server saw.
#[derive(Default)]
pub struct Seen {
    pub completions: AtomicU64,
    pub in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    /// Paths of control calls with their bodies, in order.
    pub control: Mutex<Vec<(String, String)>>,
    /// Requests by seed.
    pub by_seed: Mutex<HashMap<u64, u32>>,
    pub dead: AtomicBool,
    /// Told to answer nothing for now.
    pub paused: AtomicBool,
    /// Requests to `/v1/models` and to `/tokenize`.
    pub probes: [AtomicU64; 2],
}

struct Inner {
    behaviour: Behaviour,
    seen: Arc<Seen>,
}

/// A running server; ends when dropped.
pub struct OpenAiServer {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl OpenAiServer {
    pub fn start(behaviour: Behaviour) -> Self {
        Self::start_at(behaviour, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts at a given address: a server that comes back.
    pub fn start_at(behaviour: Behaviour, address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket.listen(4096).unwrap()
        });
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let inner = Arc::new(Inner { behaviour, seen: seen.clone() });
        let app = Router::new()
            .route("/health", get(|| async { StatusCode::OK }))
            .route("/v1/models", get(models))
            .route("/metrics", get(metrics))
            .route("/is_paused", get(is_paused))
            .route("/tokenize", post(tokenize))
            .route("/detokenize", post(detokenize))
            .route("/v1/completions", post(completions))
            .route("/v1/chat/completions", post(chat))
            .fallback(control)
            .with_state(inner);
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        OpenAiServer { address, seen, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the server at once: connections in use are reset, new ones refused.
    pub fn kill(&mut self) {
        self.seen.dead.store(true, SeqCst);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for OpenAiServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The completion of a prompt (as JSON) under a seed.
pub fn expected(prompt: &Value, seed: u64, tokens: usize) -> (String, Vec<u32>, Vec<f32>) {
    let mut state = seed ^ 0x9e37_79b9;
    for byte in prompt.to_string().bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let ids: Vec<u32> = (0..tokens)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 48) as u32
        })
        .collect();
    let text = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let logprobs = ids.iter().map(|id| -(*id as f32) / 65536.0).collect();
    (text, ids, logprobs)
}

fn error(status: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let body = json!({"error": {"message": message, "type": "Error", "param": null, "code": status.as_u16()}});
    (status, axum::Json(body)).into_response()
}

fn authorised(inner: &Inner, headers: &HeaderMap) -> Result<(), Box<Response>> {
    let Some(key) = &inner.behaviour.key else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    if given == format!("Bearer {key}") {
        return Ok(());
    }
    // As some servers do: the wrong key is echoed.
    Err(Box::new(error(401, &format!("Incorrect API key provided: {}", given.trim_start_matches("Bearer ")))))
}

/// An answer whose connection breaks after these bytes.
fn broken(start: &'static [u8]) -> Response {
    let parts = [Ok(Bytes::from_static(start)), Err(std::io::Error::other("scripted"))];
    Body::from_stream(futures::stream::iter(parts)).into_response()
}

async fn models(State(inner): State<Arc<Inner>>, headers: HeaderMap) -> Response {
    if let Err(refused) = authorised(&inner, &headers) {
        return *refused;
    }
    let b = &inner.behaviour;
    if inner.seen.probes[0].fetch_add(1, SeqCst) < b.flaky_probes {
        return error(503, "scripted");
    }
    if let Some((status, text)) = b.no_list {
        return (StatusCode::from_u16(status).unwrap(), text).into_response();
    }
    if b.foreign {
        return axum::Json(json!({"object": "list", "data": []})).into_response();
    }
    let model = json!({"id": b.model, "object": "model", "root": b.root, "parent": null, "max_model_len": 512});
    axum::Json(json!({"object": "list", "data": [model]})).into_response()
}

async fn metrics(State(inner): State<Arc<Inner>>) -> String {
    let running = inner.seen.in_flight.load(SeqCst);
    format!("vllm:num_requests_running{{engine=\"0\"}} {running}.0\nvllm:num_requests_waiting{{engine=\"0\"}} 0.0\n")
}

async fn is_paused(State(inner): State<Arc<Inner>>) -> Response {
    if !inner.behaviour.dev_mode {
        return (StatusCode::NOT_FOUND, axum::Json(json!({"detail": "Not Found"}))).into_response();
    }
    axum::Json(json!({"is_paused": inner.seen.paused.load(SeqCst)})).into_response()
}

async fn tokenize(State(inner): State<Arc<Inner>>, body: Bytes) -> Response {
    if inner.seen.probes[1].fetch_add(1, SeqCst) < inner.behaviour.flaky_probes {
        return error(503, "scripted");
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let shift = inner.behaviour.tokenizer_shift;
    let tokens: Vec<u32> = match (body["prompt"].as_str().unwrap(), inner.behaviour.close_token) {
        ("</think>", Some(id)) => vec![id],
        (text, _) => text.bytes().map(|b| u32::from(b) + shift).collect(),
    };
    axum::Json(json!({"count": tokens.len(), "tokens": tokens, "max_model_len": 512})).into_response()
}

/// Tokens as text, each with a blank behind it: [`special`] completions are made so.
async fn detokenize(body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text: String = body["tokens"].as_array().unwrap().iter().map(|id| format!("{id} ")).collect();
    axum::Json(json!({"prompt": text})).into_response()
}

/// A completion whose middle token is special: its ids, and its text with `tag` for that token.
pub fn special(ids: &[u32], close: u32, tag: &str) -> (Vec<u32>, String) {
    let mut ids = ids.to_vec();
    let middle = ids.len() / 2;
    ids.insert(middle, close);
    let words = ids.iter().map(|&id| if id == close { tag.to_owned() } else { format!("{id} ") });
    let text = words.collect();
    (ids, text)
}

/// Everything else: the calls of development mode, or 404.
async fn control(State(inner): State<Arc<Inner>>, request: axum::extract::Request) -> Response {
    let path = request.uri().to_string();
    if !inner.behaviour.dev_mode {
        return (StatusCode::NOT_FOUND, axum::Json(json!({"detail": "Not Found"}))).into_response();
    }
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    if let (Some(weights), "/collective_rpc") = (&inner.behaviour.weights, path.as_str()) {
        let call: Value = serde_json::from_slice(&body).unwrap();
        if let Err(message) = weights.load(call["kwargs"]["weights_path"].as_str().unwrap()) {
            return error(500, &message);
        }
    }
    match path.split('?').next() {
        Some("/pause") => inner.seen.paused.store(true, SeqCst),
        Some("/resume") => inner.seen.paused.store(false, SeqCst),
        _ => {}
    }
    inner.seen.control.lock().unwrap().push((path, String::from_utf8_lossy(&body).into_owned()));
    axum::Json(json!({"results": [null]})).into_response()
}

async fn completions(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&inner, &headers, &body, false).await
}

async fn chat(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(&inner, &headers, &body, true).await
}

struct InFlight(Arc<Seen>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
    }
}

async fn answer(inner: &Inner, headers: &HeaderMap, body: &[u8], chat: bool) -> Response {
    let (seen, behaviour) = (&inner.seen, &inner.behaviour);
    let number = seen.completions.fetch_add(1, SeqCst);
    if let Some(canned) = &behaviour.canned {
        if !behaviour.latency.is_zero() {
            tokio::time::sleep(behaviour.latency).await;
        }
        return match (behaviour.canned_script)(number) {
            Fault::Status(status) => error(status, "scripted"),
            Fault::Hang => std::future::pending().await,
            Fault::TruncatedJson => canned.slice(..canned.len() / 2).into_response(),
            Fault::Reset => broken(b""),
            Fault::CutBody => broken(b"{\"choices\": [{\"te"),
            _ => ([(header::CONTENT_TYPE, "application/json")], canned.clone()).into_response(),
        };
    }
    let now = seen.in_flight.fetch_add(1, SeqCst) + 1;
    let _in_flight = InFlight(seen.clone());
    seen.most_in_flight.fetch_max(now, SeqCst);
    if let Err(refused) = authorised(inner, headers) {
        return *refused;
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return error(400, "body is not JSON") };
    if behaviour.foreign && !body["return_token_ids"].is_null() {
        return (StatusCode::UNPROCESSABLE_ENTITY, axum::Json(json!({"detail": "Unexpected fields"}))).into_response();
    }
    if body["model"] != behaviour.model.as_str() && !behaviour.dev_mode {
        return error(404, &format!("The model `{}` does not exist.", body["model"].as_str().unwrap_or("")));
    }
    while seen.paused.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seed = body["seed"].as_u64().unwrap_or(0);
    if now > behaviour.capacity {
        return error(429, "too many requests");
    }
    let fault = (behaviour.script)(&Ask { number, body: &body });
    match fault {
        Fault::Status(status) => return error(status, "scripted"),
        Fault::RetryAfter(seconds) => {
            let mut response = error(429, "scripted");
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            return response;
        }
        Fault::ContextOverflow => {
            return error(400, "This model's maximum context length is 512 tokens. However, you requested 4096 tokens");
        }
        Fault::Hang => std::future::pending().await,
        Fault::Reset => return broken(b""),
        Fault::CutBody => return broken(b"{\"choices\": [{\"te"),
        Fault::Echo => {
            let sent = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
            return format!("I do not understand {sent}").into_response();
        }
        Fault::NotJson => return "<html>502 Bad Gateway</html>".into_response(),
        _ => {}
    }
    if !behaviour.latency.is_zero() {
        tokio::time::sleep(behaviour.latency).await;
    }
    *seen.by_seed.lock().unwrap().entry(seed).or_default() += 1;
    let n = body["n"].as_u64().unwrap_or(1);
    let count = match fault {
        Fault::TooFew => n - 1,
        Fault::TooMany => n + 1,
        _ => n,
    };
    let prompt = if chat { &body["messages"] } else { &body["prompt"] };
    let limit = body["max_tokens"].as_u64().unwrap_or(16) as usize;
    let choices: Vec<Value> =
        (0..count).map(|i| choice(inner, &body, prompt, seed + i, i, limit, chat, fault)).collect();
    let tokens = behaviour.tokens.min(limit) as u64 * count;
    let usage = json!({"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": 4 + tokens});
    if body["stream"] == true {
        return stream(&choices, &usage, chat);
    }
    let mut text = json!({"id": "cmpl-1", "object": "text_completion", "choices": choices, "usage": usage}).to_string();
    if fault == Fault::NanLogprobs {
        text = text.replace("\"token_logprobs\":[", "\"token_logprobs\":[NaN,").replacen(
            "\"logprob\":-",
            "\"logprob\":NaN,\"x\":-",
            1,
        );
    }
    if fault == Fault::TruncatedJson {
        text.truncate(text.len() / 2);
    }
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[expect(clippy::too_many_arguments, reason = "one place that knows the shape of a choice")]
fn choice(
    inner: &Inner,
    body: &Value,
    prompt: &Value,
    seed: u64,
    index: u64,
    limit: usize,
    chat: bool,
    fault: Fault,
) -> Value {
    let behaviour = &inner.behaviour;
    let (mut text, mut ids, mut logprobs, reason) = match &behaviour.weights {
        Some(weights) => weights.complete(body, seed),
        None => {
            let (text, ids, logprobs) = expected(prompt, seed, behaviour.tokens.min(limit));
            (text, ids, logprobs, if behaviour.tokens > limit { "length" } else { "stop" })
        }
    };
    if let Some(close) = behaviour.close_token {
        (ids, text) = special(&ids, close, "");
        logprobs.push(-1.0);
    }
    let reason = if fault == Fault::Abort { "abort" } else { reason };
    let mut choice = json!({"index": index, "finish_reason": reason, "stop_reason": null});
    if let (Some(weights), false) = (&behaviour.weights, body["prompt_logprobs"].is_null()) {
        let tokens: Vec<u32> = prompt.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let scored = tokens.iter().skip(1).zip(weights.score(&tokens));
        let entries = scored.map(|(id, logprob)| json!({id.to_string(): {"logprob": logprob, "rank": 1}}));
        choice["prompt_logprobs"] = std::iter::once(Value::Null).chain(entries).collect();
    }
    if body["return_token_ids"] == true && fault != Fault::NoTokenIds {
        choice["token_ids"] = json!(ids);
        choice["prompt_token_ids"] = if prompt.is_array() && !chat { prompt.clone() } else { json!([1, 2, 3, 4]) };
    }
    let asked = !body["logprobs"].is_null() && body["logprobs"] != false;
    if chat {
        choice["message"] = match behaviour.reasoning_key {
            Some(key) => json!({"role": "assistant", key: "hm", "content": text}),
            None => json!({"role": "assistant", "content": text}),
        };
        if asked {
            let tokens: Vec<Value> = logprobs.iter().map(|p| json!({"token": "t", "logprob": p})).collect();
            choice["logprobs"] = json!({"content": tokens});
        }
    } else {
        choice["text"] = json!(text);
        if asked {
            choice["logprobs"] = json!({"token_logprobs": logprobs, "tokens": []});
        }
    }
    choice
}

/// The same choices as server-sent events: first all but the finish reason, then that.
fn stream(choices: &[Value], usage: &Value, chat: bool) -> Response {
    let mut events = Vec::new();
    for choice in choices {
        let mut first = choice.clone();
        let object = first.as_object_mut().unwrap();
        object["finish_reason"] = Value::Null;
        if chat && let Some(message) = object.remove("message") {
            object.insert("delta".into(), message);
        }
        events.push(json!({"choices": [first]}));
        let last = json!({"index": choice["index"], "finish_reason": choice["finish_reason"], "text": "", "delta": {}});
        events.push(json!({"choices": [last]}));
    }
    events.push(json!({"choices": [], "usage": usage}));
    let mut parts: Vec<Result<Bytes, Infallible>> =
        events.iter().map(|event| Ok(Bytes::from(format!("data: {event}\n\n")))).collect();
    parts.push(Ok(Bytes::from_static(b"data: [DONE]\n\n")));
    let body = Body::from_stream(futures::stream::iter(parts));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}
