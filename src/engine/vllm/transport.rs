//! One HTTP exchange with one endpoint: connection, deadline, status, body.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url};

use super::config::{VllmConfig, parse_endpoint, seconds};
use super::fault::{Fault, FaultKind};
use super::reply::error_message;
use super::wire::ApiPath;
use crate::error::{Error, Result};

/// One server: its addresses and its connections.
pub(super) struct Endpoint {
    /// As shown to people: the root without a trailing `/`.
    pub address: String,
    root: Url,
    chat: Url,
    completions: Url,
    client: Client,
    key: Option<Arc<Secret>>,
}

/// An API key. Never shown: its `Debug` is hidden and [`Secret::redact`] takes it out of what servers say.
pub(super) struct Secret {
    key: String,
    pub variable: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(${})", self.variable)
    }
}

impl Secret {
    /// The key in the variable that the configuration names.
    ///
    /// # Errors
    /// The variable is unset, empty, or holds what no header can carry.
    pub fn from_env(config: &VllmConfig) -> Result<Option<Arc<Secret>>> {
        let Some(variable) = &config.api_key_env else { return Ok(None) };
        let key = std::env::var(variable).unwrap_or_default().trim().to_owned();
        if key.is_empty() {
            return Err(Error::usage(format!("the API key is missing: ${variable} is not set"))
                .hint(format!("export {variable}=… before the run, or leave `api_key_env` out")));
        }
        Ok(Some(Arc::new(Secret { key, variable: variable.clone() })))
    }

    /// The key itself, for the environment of a server we start.
    pub fn expose(&self) -> &str {
        &self.key
    }

    fn redact(&self, text: String) -> String {
        redact(text, &self.key)
    }
}

/// A text without a secret that servers may repeat in it: as it is, as it stands in JSON or an address,
/// and what is left of it where the text was cut (`…`).
pub(super) fn redact(mut text: String, secret: &str) -> String {
    let json = serde_json::Value::from(secret).to_string();
    let address: String = reqwest::Url::parse_with_params("http://h", [("k", secret)])
        .ok()
        .and_then(|url| url.query().map(|query| query[2..].to_owned()))
        .unwrap_or_default();
    for form in [secret, &json[1..json.len() - 1], &address] {
        if !form.is_empty() && text.contains(form) {
            text = text.replace(form, "***");
        }
    }
    let Some(whole) = text.strip_suffix('…') else { return text };
    let lengths = secret.char_indices().map(|(at, c)| at + c.len_utf8()).rev();
    match lengths.into_iter().find(|&length| length >= 4.min(secret.len()) && whole.ends_with(&secret[..length])) {
        Some(length) => format!("{}***…", &whole[..whole.len() - length]),
        None => text,
    }
}

/// Longest answer that is read, in bytes.
pub(super) const MAX_BODY: usize = 512 << 20;

impl Endpoint {
    /// Prepares connections; makes none yet.
    ///
    /// # Errors
    /// The address, the CA file or the key cannot be used.
    pub fn new(address: &str, config: &VllmConfig, key: Option<Arc<Secret>>) -> Result<Self> {
        let root = parse_endpoint(address).map_err(|e| e.in_field("engine.endpoints"))?;
        let mut headers = HeaderMap::new();
        if let Some(secret) = &key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.key)).map_err(|_| {
                Error::usage(format!("${} holds characters that no header can carry", secret.variable))
                    .in_field("engine.api_key_env")
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = Client::builder()
            .default_headers(headers)
            .connect_timeout(seconds(config.connect_timeout_s))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_max_idle_per_host(usize::MAX)
            // uvicorn closes idle connections after 5 s: let go before it does.
            .pool_idle_timeout(Duration::from_secs(4));
        if root.scheme() == "http" {
            builder = builder.http1_only();
        }
        let host = root.host_str().unwrap_or_default();
        if matches!(host, "localhost" | "[::1]") || host.starts_with("127.") {
            builder = builder.no_proxy();
        }
        if let Some(file) = &config.ca_file {
            let fail = |what: &str| Error::new(format!("the CA file {what}")).in_file(file.display());
            let pem = std::fs::read(file).map_err(|e| fail("cannot be read").caused_by(e))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| fail("is not PEM").caused_by(e))?;
            if certificates.is_empty() {
                return Err(fail("holds no certificate"));
            }
            builder = certificates.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let client = builder.build().map_err(|e| Error::new("the HTTP client cannot start").caused_by(e))?;
        let endpoint = Endpoint {
            address: root.as_str().trim_end_matches('/').to_owned(),
            chat: join(&root, "v1/chat/completions"),
            completions: join(&root, "v1/completions"),
            root,
            client,
            key,
        };
        Ok(endpoint)
    }

    /// Sends a completion body and reads the whole answer before the deadline.
    pub async fn complete(&self, path: ApiPath, body: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, Fault> {
        let exchange = async { read(self.send(path, body).await?).await };
        self.within(deadline, exchange).await
    }

    /// Sends a completion body; the answer's body is still to be read.
    pub async fn send(&self, path: ApiPath, body: Vec<u8>) -> Result<Response, Fault> {
        let url = match path {
            ApiPath::Chat => &self.chat,
            ApiPath::Completions => &self.completions,
        };
        self.request(Method::POST, url.clone(), Some(body)).await
    }

    /// The variable that holds the key this endpoint is sent, if it is sent one.
    pub fn key_variable(&self) -> Option<&str> {
        self.key.as_ref().map(|secret| secret.variable.as_str())
    }

    /// GET of a path below the root.
    pub async fn get(&self, path: &str, deadline: Duration) -> Result<Vec<u8>, Fault> {
        let exchange = async { read(self.request(Method::GET, join(&self.root, path), None).await?).await };
        self.within(deadline, exchange).await
    }

    /// POST to a path below the root.
    pub async fn post(&self, path: &str, body: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, Fault> {
        let exchange = async { read(self.request(Method::POST, join(&self.root, path), Some(body)).await?).await };
        self.within(deadline, exchange).await
    }

    /// Ends an exchange that takes too long.
    pub async fn within<T>(
        &self,
        deadline: Duration,
        exchange: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result.map_err(|fault| self.redact(fault)),
            Err(_) => {
                Err(Fault::new(FaultKind::Timeout, format!("no whole answer within {:.1} s", deadline.as_secs_f64())))
            }
        }
    }

    /// A fault without the key, which servers may have repeated to us.
    pub fn redact(&self, fault: Fault) -> Fault {
        match &self.key {
            Some(secret) => Fault { message: secret.redact(fault.message), ..fault },
            None => fault,
        }
    }

    async fn request(&self, method: Method, url: Url, body: Option<Vec<u8>>) -> Result<Response, Fault> {
        let mut request = reqwest::Request::new(method, url);
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.into());
        }
        let response = self.client.execute(request).await.map_err(|e| from_reqwest(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(parse_retry_after);
        // What the body says helps people only; a connection that breaks here changes nothing.
        let body = read(response).await.unwrap_or_default();
        Err(self.redact(Fault { retry_after, ..from_status(status, &error_message(&body)) }))
    }
}

fn join(root: &Url, path: &str) -> Url {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = root.clone();
    url.set_path(&format!("{}/{path}", root.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

async fn read(mut response: Response) -> Result<Vec<u8>, Fault> {
    let length = response.content_length().unwrap_or(0).min(16 << 20);
    let mut body = Vec::with_capacity(length as usize);
    while let Some(chunk) = response.chunk().await.map_err(|e| from_reqwest(&e))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(Fault::new(FaultKind::Malformed, format!("an answer of more than {MAX_BODY} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What a status means. 400s are the request's fault, 401 to 404 the configuration's, the rest the server's.
fn from_status(status: StatusCode, message: &str) -> Fault {
    let lower = message.to_ascii_lowercase();
    let overflow =
        ["maximum context length", "context length", "max_model_len", "context size", "maximum model length"];
    let kind = match status.as_u16() {
        401 | 403 => FaultKind::Unauthorized,
        404 if lower.contains("model") => FaultKind::UnknownModel,
        404 | 405 | 300..=399 => FaultKind::WrongAddress,
        408 | 504 => FaultKind::Timeout,
        425 | 429 => FaultKind::Throttled,
        503 | 529 => FaultKind::Overloaded,
        400 | 413 | 422 | 500 if overflow.iter().any(|phrase| lower.contains(phrase)) => FaultKind::ContextOverflow,
        413 => FaultKind::ContextOverflow,
        400..=499 => FaultKind::BadRequest,
        500..=599 => FaultKind::ServerError,
        _ => FaultKind::Malformed,
    };
    Fault::new(kind, format!("HTTP {}: {message}", status.as_u16()))
}

/// A failed exchange without a status. The address is left out: rows keep this text.
pub(super) fn from_reqwest(error: &reqwest::Error) -> Fault {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    let text = causes.join(": ");
    let lower = text.to_ascii_lowercase();
    let tls = ["certificate", "handshake", "tls", "invalidcontenttype", "corrupt message"];
    let kind = if tls.iter().any(|word| lower.contains(word)) {
        FaultKind::Tls
    } else if error.is_connect() {
        FaultKind::Unreachable
    } else if error.is_timeout() {
        FaultKind::Timeout
    } else {
        FaultKind::Reset
    };
    // The innermost cause says the most; the layers above repeat each other.
    let message = causes.pop().unwrap_or_else(|| "the connection broke".into());
    Fault::new(kind, message)
}

/// Seconds, or an HTTP date.
fn parse_retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        return (seconds >= 0.0 && seconds.is_finite()).then(|| Duration::from_secs_f64(seconds.min(86_400.0)));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    let now = jiff::Timestamp::try_from(SystemTime::now()).ok()?;
    Some(Duration::from_secs(at.as_second().saturating_sub(now.as_second()).clamp(0, 86_400) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_retry_after("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        for wrong in ["-1", "soon", "NaN", ""] {
            assert_eq!(parse_retry_after(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn statuses_have_their_kinds() {
        let cases = [
            (400, "This model's maximum context length is 512 tokens.", FaultKind::ContextOverflow),
            (400, "unknown key", FaultKind::BadRequest),
            (401, "no", FaultKind::Unauthorized),
            (404, "The model `x` does not exist.", FaultKind::UnknownModel),
            (404, "Not Found", FaultKind::WrongAddress),
            (308, "", FaultKind::WrongAddress),
            (429, "", FaultKind::Throttled),
            (500, "EngineCore died", FaultKind::ServerError),
            (503, "loading", FaultKind::Overloaded),
        ];
        for (status, message, kind) in cases {
            assert_eq!(from_status(StatusCode::from_u16(status).unwrap(), message).kind, kind, "{status} {message}");
        }
    }

    #[test]
    fn a_path_below_a_prefix_keeps_it() {
        let root = parse_endpoint("https://h/gateway/v1").unwrap();
        assert_eq!(join(&root, "pause?mode=wait").as_str(), "https://h/gateway/pause?mode=wait");
    }

    #[test]
    fn a_key_is_never_shown() {
        let secret = Secret { key: "sk-123".into(), variable: "MY_KEY".into() };
        assert_eq!(secret.redact("bad key sk-123!".into()), "bad key ***!");
        assert_eq!(secret.redact("bad key sk-12…".into()), "bad key ***…", "cut in its middle");
        assert_eq!(secret.redact("bad key …".into()), "bad key …");
        let odd = Secret { key: "a\"b+c/d".into(), variable: "MY_KEY".into() };
        assert_eq!(odd.redact(r#"{"key": "a\"b+c/d"}, /?k=a%22b%2Bc%2Fd"#.into()), r#"{"key": "***"}, /?k=***"#);
        assert!(!format!("{secret:?}").contains("sk-123"));
    }
}
