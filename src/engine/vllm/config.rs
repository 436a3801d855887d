//! What a user writes about the servers: addresses, API, deadlines, prices.

mod check;
mod secrets;
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use check::WrongSetting;
pub(super) use check::parse_endpoint;
pub use server::ServerConfig;

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
    /// With no server up for this long, the run stops (what was done is kept). One that takes requests and never
    /// answers may just be slow: it is up until those in flight are past their deadlines, which come on top. With
    /// `stream` a deadline is a silence: `request_timeout_s` before the first token, `token_timeout_s` between two.
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

impl VllmConfig {
    /// What the servers call a key of requests; `None` where it is left out.
    pub(super) fn key<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        match self.omit.iter().any(|omitted| omitted == key) {
            true => None,
            false => Some(self.rename.get(key).map_or(key, String::as_str)),
        }
    }

    /// As a model is asked whose tokenizer we have: prompts go out as its tokens, or as text with `template = "plain"`.
    pub fn asking_in_tokens(self) -> Self {
        let template = if self.template == Template::Plain { Template::Plain } else { Template::Ours };
        VllmConfig { api: Api::Completions, template, ..self }
    }

    /// `rename` and `omit` where they are set, for what a model is known by.
    pub fn other_keys(&self) -> Option<Value> {
        let set = !self.rename.is_empty() || !self.omit.is_empty();
        set.then(|| serde_json::json!([self.rename, self.omit]))
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
