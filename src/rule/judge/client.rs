//! One call to an OpenAI-compatible chat endpoint, with retries.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::JudgeConfig;
use crate::rule::params::ParamError;

/// Largest reply that is read, in bytes.
const MAX_REPLY: usize = 4 << 20;
/// Failures in a row after which calls are no longer retried: the server is down, and every row would wait.
const DOWN: u32 = 8;

pub(super) enum Failure {
    /// The server understood and said no: the same call would fail again.
    Refused(String),
    /// No answer in time.
    Unavailable(String),
}

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
    body: Value,
    retries: usize,
    failures: AtomicU32,
}

/// The runtime of all judges. Its threads only wait.
pub(super) fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let build = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("judge")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    };
    RUNTIME.get_or_init(build).as_ref().map_err(Clone::clone)
}

impl Client {
    pub fn new(config: &JudgeConfig) -> Result<Self, ParamError> {
        let base = config.endpoint.trim_end_matches('/');
        let url = format!("{base}/chat/completions");
        let parsed = reqwest::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if parsed.is_none() {
            return Err(ParamError::new("endpoint", format!("`{}` is not an http URL", config.endpoint))
                .hint("endpoint = \"http://127.0.0.1:8000/v1\""));
        }
        let key = config.api_key_env.as_ref().and_then(|name| std::env::var(name).ok());
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs_f64(config.timeout_seconds))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| ParamError::new("endpoint", format!("no HTTP client: {error}")))?;
        let body = json!({
            "model": config.model,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "messages": [{"role": "user", "content": ""}],
        });
        Ok(Client { http, url, key, body, retries: config.retries, failures: AtomicU32::new(0) })
    }

    /// The text of the reply.
    pub async fn ask(&self, question: &str) -> Result<String, Failure> {
        let mut attempt = 0;
        loop {
            let failure = match self.once(question).await {
                Ok(reply) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(Failure::Refused(why)) => return Err(Failure::Refused(why)),
                Err(Failure::Unavailable(why)) => why,
            };
            let down = self.failures.fetch_add(1, Ordering::Relaxed) >= DOWN;
            if attempt >= self.retries || down {
                return Err(Failure::Unavailable(failure));
            }
            tokio::time::sleep(Duration::from_millis(250 << attempt.min(5))).await;
            attempt += 1;
        }
    }

    async fn once(&self, question: &str) -> Result<String, Failure> {
        let mut body = self.body.clone();
        body["messages"][0]["content"] = question.into();
        let mut request = self.http.post(&self.url).json(&body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let unavailable = |error: reqwest::Error| Failure::Unavailable(error.without_url().to_string());
        let mut response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_REPLY {
                return Err(Failure::Refused("the judge's reply is too large".into()));
            }
        }
        if !status.is_success() {
            let text = format!("{status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
            let again = status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429);
            return Err(if again { Failure::Unavailable(text) } else { Failure::Refused(text) });
        }
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| Failure::Unavailable(format!("not JSON: {error}")))?;
        let content = value.pointer("/choices/0/message/content").and_then(Value::as_str);
        content.map(str::to_owned).ok_or_else(|| Failure::Unavailable("a reply without content".into()))
    }
}
