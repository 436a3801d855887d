//! What a user writes about the servers: addresses, API, deadlines, prices.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::transport::Secret;
use crate::error::{Error, Result, names_a_secret, nearest};

/// How to reach and use OpenAI-compatible servers. Written as TOML; unknown keys are refused.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VllmConfig {
    /// Base addresses such as `http://gpu1:8000`, with or without `/v1`. All must serve the same model.
    pub endpoints: Vec<String>,
    /// The model's name as the servers call it; empty takes the only one served.
    pub model: String,
    /// Which of the two OpenAI interfaces is asked.
    pub api: Api,
    /// Who applies the chat template.
    pub template: Template,
    /// Folder with the model's `tokenizer.json` and chat template, for `template = "ours"`.
    pub tokenizer: Option<String>,
    /// Environment variable that holds the API key. The key itself is never written or printed.
    pub api_key_env: Option<String>,
    /// PEM file with the certificate authority of the servers, for private TLS.
    pub ca_file: Option<PathBuf>,
    /// Keys added to every request body (`guided_json`, `chat_template_kwargs` …); they win over the
    /// sampling settings. The keys the engine itself writes are refused.
    pub extra_body: Map<String, Value>,
    /// Keys that a server knows by another name: `{ max_tokens = "max_completion_tokens" }`.
    pub rename: BTreeMap<String, String>,
    /// Keys that a server refuses and that are left out: `["seed", "top_p"]`.
    pub omit: Vec<String>,
    /// Samples asked in one request. 1 sends each sample with its own seed, so that seeds reproduce;
    /// more sends the first sample's seed with `n` and lets the server derive the others.
    pub n_per_request: u32,
    /// Ask for the log-probability of each sampled token. vLLM reports them before temperature
    /// unless it runs with `--logprobs-mode processed_logprobs`.
    pub logprobs: bool,
    /// Whether completions are asked for as tokens too.
    pub token_ids: TokenIds,
    /// Receive tokens as they are made. Costs client time; finds a hung server within `token_timeout_s`.
    pub stream: bool,
    /// How reasoning that comes apart from the answer is put before it.
    pub reasoning: Reasoning,
    /// How often a completion cut by `max_tokens` is continued from where it stopped; 0 never.
    /// Needs token ids from the server. Without it a cut completion stays `length` and is never retried.
    pub continue_rounds: u32,
    /// Token budget of each continuation.
    pub continue_tokens: u32,
    /// Seconds for queueing and the first token. A request's deadline is
    /// `request_timeout_s + token_timeout_s × max_tokens`.
    pub request_timeout_s: f64,
    /// Seconds allowed for each token; with `stream`, the longest silence.
    pub token_timeout_s: f64,
    /// Seconds for a connection to be made.
    pub connect_timeout_s: f64,
    /// How long to wait at the start for a first server to answer.
    pub startup_timeout_s: f64,
    /// With no server available for this long, the run stops (what was done is kept).
    pub give_up_after_s: f64,
    /// How long Ctrl-C waits for requests in flight.
    pub drain_timeout_s: f64,
    /// Tries of one request, faults of the network's making not counted.
    pub max_attempts: u32,
    /// Upper bound of the adaptive concurrency of each endpoint.
    pub max_concurrency: u32,
    /// Threads that talk HTTP; 0 takes up to four of the machine's.
    pub threads: usize,
    /// Accept endpoints whose `/v1/models` roots differ, such as the same weights under two paths.
    pub allow_different_roots: bool,
    /// What tokens cost, for the estimate; nothing is estimated without.
    pub prices: Option<Prices>,
    /// Address such as `127.0.0.1:9464` at which the engine's numbers are served as Prometheus text
    /// (`/metrics`) while it lives; port 0 takes a free one.
    pub metrics: Option<std::net::SocketAddr>,
    /// Start a server on this machine with the settings of `server`, and stop it at the end.
    pub launch: bool,
    /// The server that `launch` starts.
    pub server: ServerConfig,
}

/// Without what may be secret: passwords and queries in addresses, keys in what servers are sent or started with.
impl std::fmt::Debug for VllmConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.clone();
        shown.endpoints.iter_mut().for_each(|address| *address = without_secrets(address));
        let secret = shown.extra_body.iter_mut().filter(|(key, value)| value.is_string() && names_a_secret(key));
        secret.for_each(|(_, value)| *value = HIDDEN.into());
        shown.server.env.values_mut().for_each(|value| *value = HIDDEN.into());
        shown.server.args = hide_arguments(&shown.server.args);
        write!(f, "VllmConfig {}", serde_json::to_value(shown).map_err(|_| std::fmt::Error)?)
    }
}

impl Default for VllmConfig {
    fn default() -> Self {
        VllmConfig {
            endpoints: Vec::new(),
            model: String::new(),
            api: Api::Chat,
            template: Template::Server,
            tokenizer: None,
            api_key_env: None,
            ca_file: None,
            extra_body: Map::new(),
            rename: BTreeMap::new(),
            omit: Vec::new(),
            n_per_request: 1,
            logprobs: false,
            token_ids: TokenIds::Auto,
            stream: false,
            reasoning: Reasoning::default(),
            continue_rounds: 0,
            continue_tokens: 4096,
            request_timeout_s: 120.0,
            token_timeout_s: 0.5,
            connect_timeout_s: 10.0,
            startup_timeout_s: 60.0,
            give_up_after_s: 300.0,
            drain_timeout_s: 300.0,
            max_attempts: 6,
            max_concurrency: 1024,
            threads: 0,
            allow_different_roots: false,
            prices: None,
            metrics: None,
            launch: false,
            server: ServerConfig::default(),
        }
    }
}

/// Which of the two OpenAI calls is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `/v1/chat/completions` with the messages.
    Chat,
    /// `/v1/completions` with token ids or text.
    Completions,
}

/// Who turns messages into the text the model reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// The server's chat template (`api = "chat"`).
    Server,
    /// Ours, with the tokenizer that `tokenizer` names (`api = "completions"`).
    Ours,
    /// None: message contents joined by blank lines, for base models (`api = "completions"`).
    Plain,
}

/// Whether the servers are asked for token ids (vLLM's `return_token_ids`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenIds {
    /// Ask servers that know the key (vLLM, SGLang), and do without where none come.
    Auto,
    /// Ask, and stop the run if a server has none.
    Require,
    /// Do not ask.
    Off,
}

/// How a server's split of reasoning and answer is joined again, so that the stored text is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reasoning {
    /// Written before the reasoning.
    pub open: String,
    /// Written behind it.
    pub close: String,
    /// What the chat template already wrote of the answer, such as `<think>\n`: put before texts
    /// that do not start with it (vLLM#13125). Empty for none.
    pub opened_by_template: String,
}

impl Default for Reasoning {
    fn default() -> Self {
        Reasoning { open: "<think>".into(), close: "</think>".into(), opened_by_template: String::new() }
    }
}

/// Prices per million tokens, for the cost estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// A million prompt tokens.
    pub prompt: f64,
    /// A million completion tokens.
    pub completion: f64,
    /// What the two are in; shown as it is.
    #[serde(default = "dollars")]
    pub currency: String,
}

fn dollars() -> String {
    "USD".into()
}

/// A server started as a child process (`launch = true`).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The program; `serve MODEL --host 127.0.0.1 --port PORT` and `args` follow.
    pub command: String,
    /// Model name on a hub or path: what `vllm serve` loads.
    pub model: String,
    /// 0 takes a free port.
    pub port: u16,
    /// Further arguments, such as `["--max-model-len", "4096"]`.
    pub args: Vec<String>,
    /// Environment variables beside those of this process.
    pub env: BTreeMap<String, String>,
    /// Where the server's output goes; empty takes a file in the system's temporary folder.
    pub log: PathBuf,
    /// How long the server may take to load its model.
    pub ready_timeout_s: f64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            command: "vllm".into(),
            model: String::new(),
            port: 0,
            args: Vec::new(),
            env: BTreeMap::new(),
            log: PathBuf::new(),
            ready_timeout_s: 900.0,
        }
    }
}

/// Keys of a request body that the engine writes itself.
const RESERVED: [&str; 8] = ["model", "prompt", "messages", "n", "seed", "stream", "logprobs", "return_token_ids"];

/// Keys that may have another name or be left out.
const SAMPLING: [&str; 8] = ["max_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "stop_token_ids", "seed"];

/// A setting that cannot be used.
#[derive(Debug)]
pub struct WrongSetting {
    /// Its key, dotted from the engine's table; a number is an item of a list.
    pub key: String,
    /// What is wrong with it, without the key's place.
    pub error: Error,
}

fn wrong(key: impl Into<String>, error: Error) -> Result<(), WrongSetting> {
    Err(WrongSetting { key: key.into(), error })
}

impl VllmConfig {
    /// What the servers call a key of requests; `None` where it is left out.
    pub(super) fn key<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        match self.omit.iter().any(|omitted| omitted == key) {
            true => None,
            false => Some(self.rename.get(key).map_or(key, String::as_str)),
        }
    }

    /// `rename` and `omit` where they are set, for what a model is known by.
    pub fn other_keys(&self) -> Option<Value> {
        let set = !self.rename.is_empty() || !self.omit.is_empty();
        set.then(|| serde_json::json!([self.rename, self.omit]))
    }

    /// Checks what can be checked without a server; the error names the key.
    ///
    /// # Errors
    /// As [`VllmConfig::check`].
    pub fn validate(&self) -> Result<()> {
        self.check().map_err(|wrong| wrong.error.in_field(format!("engine.{}", wrong.key)))
    }

    /// Checks what can be checked without a server.
    ///
    /// # Errors
    /// No endpoint, an address that is no URL, a template the API cannot use, a reserved key in `extra_body`, a
    /// key that cannot be renamed or left out, a time that is no positive number.
    pub fn check(&self) -> Result<(), WrongSetting> {
        self.check_endpoints()?;
        match (self.api, self.template) {
            (Api::Chat, Template::Server) | (Api::Completions, Template::Ours | Template::Plain) => {}
            (Api::Chat, _) => {
                return wrong(
                    "template",
                    Error::usage("`api = \"chat\"` always uses the server's template")
                        .hint("`api = \"completions\"` takes prompts that are encoded here"),
                );
            }
            (Api::Completions, Template::Server) => {
                return wrong(
                    "template",
                    Error::usage("`api = \"completions\"` needs `template = \"ours\"` or `\"plain\"`")
                        .hint("`api = \"chat\"` lets the server apply its own template"),
                );
            }
        }
        self.check_keys()?;
        for (key, seconds) in [
            ("request_timeout_s", self.request_timeout_s),
            ("connect_timeout_s", self.connect_timeout_s),
            ("startup_timeout_s", self.startup_timeout_s),
            ("give_up_after_s", self.give_up_after_s),
            ("drain_timeout_s", self.drain_timeout_s),
            ("server.ready_timeout_s", self.server.ready_timeout_s),
            ("token_timeout_s", self.token_timeout_s),
        ] {
            if !(seconds > 0.0 && seconds <= 1e9) {
                return wrong(key, Error::usage(format!("`{key}` is {seconds}, no positive number of seconds")));
            }
        }
        for (key, count) in [
            ("n_per_request", self.n_per_request),
            ("max_attempts", self.max_attempts),
            ("max_concurrency", self.max_concurrency),
            ("continue_tokens", self.continue_tokens),
        ] {
            if count == 0 {
                return wrong(key, Error::usage(format!("`{key}` must be at least 1")));
            }
        }
        if self.continue_rounds > 0 && self.token_ids == TokenIds::Off {
            let what = "`continue_rounds` needs token ids: set `token_ids = \"require\"`";
            return wrong("continue_rounds", Error::usage(what));
        }
        if let Some(prices) = &self.prices
            && !(prices.prompt >= 0.0
                && prices.completion >= 0.0
                && prices.prompt.is_finite()
                && prices.completion.is_finite())
        {
            return wrong("prices", Error::usage("`prices` are finite and not negative"));
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Result<(), WrongSetting> {
        if self.launch {
            if self.server.model.is_empty() {
                let what = "`launch = true` needs the model that the server shall load";
                return wrong("server.model", Error::usage(what).hint("name it: `server = { model = \"…\" }`"));
            }
            if !self.endpoints.is_empty() {
                let what = "`launch = true` starts its own server: leave `endpoints` out";
                return wrong("endpoints", Error::usage(what));
            }
        } else if self.endpoints.is_empty() {
            return wrong(
                "endpoints",
                Error::usage("no server to ask")
                    .hint("write `endpoints = [\"http://127.0.0.1:8000\"]`, or `launch = true` to start one"),
            );
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let key = format!("endpoints.{i}");
            if let Err(error) = parse_endpoint(endpoint) {
                return wrong(key, error);
            }
            if self.endpoints[..i].contains(endpoint) {
                return wrong(key, Error::usage(format!("`{}` is listed twice", without_secrets(endpoint))));
            }
        }
        Ok(())
    }

    /// The keys of requests that are added, renamed or left out.
    fn check_keys(&self) -> Result<(), WrongSetting> {
        if let Some(key) = RESERVED.iter().find(|key| self.extra_body.contains_key(**key)) {
            let what = format!("`{key}` is written by the engine itself, and not by `extra_body`");
            return wrong(format!("extra_body.{key}"), Error::usage(what));
        }
        let renamed = self.rename.keys().map(|key| (format!("rename.{key}"), "rename", key));
        let omitted = self.omit.iter().enumerate().map(|(i, key)| (format!("omit.{i}"), "omit", key));
        for (place, list, key) in renamed.chain(omitted) {
            if !SAMPLING.contains(&key.as_str()) {
                let error = Error::usage(format!("`{key}` is none of the keys that `{list}` is for"));
                let near = nearest(key, SAMPLING.iter().copied());
                let hint = near.map_or_else(|| SAMPLING.join(", "), |near| format!("did you mean `{near}`?"));
                return wrong(place, error.hint(hint));
            }
        }
        for (key, name) in &self.rename {
            if name.is_empty() || RESERVED.contains(&name.as_str()) {
                let error = Error::usage(format!("`{name}` is no name for another key"));
                return wrong(format!("rename.{key}"), error);
            }
        }
        Ok(())
    }

    /// Looks for the API key in this process's environment.
    ///
    /// # Errors
    /// The variable that `api_key_env` names is unset or empty.
    pub fn check_api_key(&self) -> Result<(), WrongSetting> {
        Secret::from_env(self).map(drop).or_else(|error| wrong("api_key_env", error))
    }

    /// Longest time one request may take, `max_tokens` included.
    pub(super) fn deadline(&self, max_tokens: u32) -> Duration {
        seconds(self.request_timeout_s + self.token_timeout_s * f64::from(max_tokens))
    }
}

/// A duration of seconds that [`VllmConfig::validate`] has seen, bounded so that adding it to a clock is safe.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.clamp(0.0, 1e9))
}

/// The server's root: scheme, host, port and path without a trailing `/` or `/v1`.
pub(super) fn parse_endpoint(text: &str) -> Result<reqwest::Url> {
    let fail = |what: &str| {
        Error::usage(format!("`{}` {what}", without_secrets(text))).hint("write an address such as `http://gpu1:8000`")
    };
    let mut url = reqwest::Url::parse(text.trim()).map_err(|e| fail("is no address of a server").caused_by(e))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(fail("does not start with http:// or https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fail("carries a user or password").hint("put the key in a variable and name it in `api_key_env`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        // Left out silently, a key in it would be missed only when the server refuses.
        return Err(fail("ends in a query or a fragment, which requests do not carry")
            .hint("put the key in a variable and name it in `api_key_env`; write the address up to the `?`"));
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/v1").unwrap_or(path).trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

const HIDDEN: &str = "***";

/// The address with anything between `//` and `@`, and behind `?` or `#`, hidden.
fn without_secrets(text: &str) -> String {
    let (text, query) = match text.find(['?', '#']) {
        // A password may hold these characters: then what is before the `@` is hidden with them.
        Some(at) if !text[at..].contains('@') => (&text[..at], &text[at..=at]),
        _ => (text, ""),
    };
    let shown = match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(end)) if start + 2 < end => format!("{}{HIDDEN}{}", &text[..start + 2], &text[end..]),
        (None, Some(end)) => format!("{HIDDEN}{}", &text[end..]),
        _ => text.to_owned(),
    };
    if query.is_empty() { shown } else { format!("{shown}{query}{HIDDEN}") }
}

/// Arguments of a program with the values of those hidden that name a secret.
fn hide_arguments(arguments: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(arguments.len());
    let mut hide = false;
    for argument in arguments {
        let flag = argument.split_once('=').filter(|(flag, _)| names_a_secret(flag));
        shown.push(match flag {
            Some((flag, _)) => format!("{flag}={HIDDEN}"),
            None if hide && !argument.starts_with("--") => HIDDEN.to_owned(),
            None => argument.clone(),
        });
        // A flag may take several keys.
        hide = if argument.starts_with('-') { flag.is_none() && names_a_secret(argument) } else { hide };
    }
    shown
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("command", &self.command)
            .field("model", &self.model)
            .field("port", &self.port)
            .field("args", &hide_arguments(&self.args))
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl ServerConfig {
    /// Where its output goes if nobody says.
    pub fn default_log(&self) -> PathBuf {
        std::env::temp_dir().join(format!("gristmill-server-{}.log", std::process::id()))
    }

    /// What a server may repeat in its log and must not be shown: what its arguments and its environment
    /// hold under names of secrets.
    pub(super) fn secrets(&self) -> Vec<String> {
        let arguments = self.args.iter().zip(hide_arguments(&self.args)).filter(|(plain, shown)| *plain != shown);
        let arguments = arguments.map(|(plain, _)| plain.split_once('=').map_or(plain.as_str(), |(_, value)| value));
        let env = self.env.iter().filter(|(name, _)| names_a_secret(name)).map(|(_, value)| value.as_str());
        arguments.chain(env).filter(|secret| !secret.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> VllmConfig {
        VllmConfig { endpoints: vec!["http://localhost:8000".into()], ..VllmConfig::default() }
    }

    #[test]
    fn an_address_is_the_same_with_and_without_v1() {
        for text in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            assert_eq!(parse_endpoint(text).unwrap().as_str(), "http://h:1/", "{text}");
        }
        assert_eq!(parse_endpoint("https://h/api/v1").unwrap().as_str(), "https://h/api");
    }

    #[test]
    fn wrong_settings_name_their_key_and_never_show_a_password() {
        let cases: Vec<(&str, VllmConfig)> = vec![
            ("engine.endpoints", VllmConfig::default()),
            ("engine.endpoints", VllmConfig { endpoints: vec!["http://me:hunter2@h".into()], ..valid() }),
            ("engine.endpoints", VllmConfig { endpoints: vec!["gpu1:8000".into()], ..valid() }),
            ("engine.endpoints", VllmConfig { endpoints: vec!["http://h/v1?key=hunter2".into()], ..valid() }),
            ("engine.endpoints", VllmConfig { endpoints: vec!["https://me:hun?ter2@h/".into()], ..valid() }),
            ("engine.endpoints", VllmConfig { endpoints: vec!["me:hunter2@h".into()], ..valid() }),
            ("engine.endpoints", VllmConfig { endpoints: vec!["http://h#hunter2".into()], ..valid() }),
            ("engine.template", VllmConfig { api: Api::Completions, ..valid() }),
            ("engine.token_timeout_s", VllmConfig { token_timeout_s: f64::NAN, ..valid() }),
            ("engine.n_per_request", VllmConfig { n_per_request: 0, ..valid() }),
            (
                "engine.extra_body",
                VllmConfig { extra_body: Map::from_iter([("seed".into(), Value::from(1))]), ..valid() },
            ),
        ];
        for (field, config) in cases {
            let text = config.validate().unwrap_err().to_string();
            assert!(text.contains(field), "{text}");
            assert!(!text.contains("ter2"), "{text}");
        }
        valid().validate().unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(toml::from_str::<VllmConfig>("endpoint = \"http://h\"").is_err());
        let config: VllmConfig = toml::from_str("endpoints = [\"http://h\"]\nextra_body.top_k = 5").unwrap();
        assert_eq!(config.extra_body["top_k"], 5);
    }
}
