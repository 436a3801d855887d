//! One call to a server, with retries.

use std::error::Error as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use tokio::runtime::Runtime;

use crate::rule::params::ParamError;

/// Failures in a row after which calls are no longer retried: the server is down, and every row would wait.
const DOWN: u32 = 8;

/// Why there is no reply.
pub(in crate::rule) enum Failure {
    /// The server understood and said no: the same call would fail again.
    Refused(String),
    /// No answer in time.
    Unavailable(String),
    /// No answer to this call, nor to those before it, whoever made them.
    Down(String),
}

/// What a rule's parameters say of its server.
pub(in crate::rule) struct Settings<'a> {
    /// Where calls go.
    pub url: &'a str,
    /// What its parameter is to look like, for the error where it is no URL.
    pub example: &'static str,
    /// Name of the environment variable with the key; none is sent without it.
    pub api_key_env: Option<&'a str>,
    /// A call is given up after so long.
    pub timeout_seconds: f64,
    /// Calls after the first, for answers that do not come.
    pub retries: usize,
    /// Calls in flight at once, which whoever calls keeps to.
    pub parallel: usize,
    /// Longest reply that is read, in bytes.
    pub most_bytes: usize,
}

/// A server, as one rule asks it.
pub(in crate::rule) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
    retries: usize,
    most_bytes: usize,
    failures: AtomicU32,
}

/// The runtime of all rules that ask. Its threads only wait.
pub(in crate::rule) fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let build = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("rules")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())
    };
    RUNTIME.get_or_init(build).as_ref().map_err(Clone::clone)
}

impl Client {
    /// # Errors
    /// An endpoint that is no URL, limits out of range.
    pub fn new(settings: &Settings<'_>) -> Result<Self, ParamError> {
        let Settings { url, timeout_seconds, retries, parallel, most_bytes, .. } = *settings;
        if !(timeout_seconds > 0.0 && timeout_seconds <= 3600.0) {
            return Err(ParamError::new("timeout_seconds", "`timeout_seconds` must be above 0 and at most 3600"));
        }
        if retries > 20 || !(1..=1024).contains(&parallel) {
            return Err(ParamError::new("parallel", "`parallel` must be between 1 and 1024, `retries` at most 20"));
        }
        let parsed = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        if parsed.is_none() {
            return Err(ParamError::new("endpoint", format!("`{url}` is not an http URL"))
                .hint(format!("endpoint = \"{}\"", settings.example)));
        }
        let key = settings.api_key_env.and_then(|name| std::env::var(name).ok());
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs_f64(timeout_seconds))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| ParamError::new("endpoint", format!("no HTTP client: {error}")))?;
        Ok(Client { http, url: url.to_owned(), key, retries, most_bytes, failures: AtomicU32::new(0) })
    }

    /// Posts JSON, and what `read` makes of the reply; where it makes nothing of it, the call is tried again.
    pub async fn post<T>(&self, body: &str, read: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, Failure> {
        let mut attempt = 0;
        loop {
            let reply = self.once(body).await;
            let failure = match reply.and_then(|bytes| read(&bytes).map_err(Failure::Unavailable)) {
                Ok(reply) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(Failure::Unavailable(why)) => why,
                Err(other) => return Err(other),
            };
            if self.failures.fetch_add(1, Ordering::Relaxed) >= DOWN {
                return Err(Failure::Down(failure));
            }
            if attempt >= self.retries {
                return Err(Failure::Unavailable(failure));
            }
            tokio::time::sleep(Duration::from_millis(250 << attempt.min(5))).await;
            attempt += 1;
        }
    }

    async fn once(&self, body: &str) -> Result<Vec<u8>, Failure> {
        let mut request = self.http.post(&self.url).header(CONTENT_TYPE, "application/json").body(body.to_owned());
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let unavailable = |error: reqwest::Error| Failure::Unavailable(in_full(&error.without_url()));
        let mut response = request.send().await.map_err(unavailable)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > self.most_bytes {
                return Err(Failure::Refused(format!("the reply is longer than {} bytes", self.most_bytes)));
            }
        }
        if !status.is_success() {
            let text = format!("{status}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)]));
            let again = status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429);
            return Err(if again { Failure::Unavailable(text) } else { Failure::Refused(text) });
        }
        Ok(bytes)
    }
}

/// The error with what caused it: "error sending request" alone helps nobody.
fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
