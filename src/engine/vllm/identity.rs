//! Which model a server serves, and whether it is the one that all the others serve.

use std::time::Duration;

use serde::Deserialize;

use super::config::{Reasoning, VllmConfig};
use super::fault::{Fatal, Fault, FaultKind};
use super::transport::Endpoint;
use crate::seed::content_id;

/// What tells one model from another without its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The name requests carry.
    pub model: String,
    /// Where the server loaded it from: vLLM's `root`. Other servers do not tell.
    pub root: Option<String>,
    pub max_model_len: Option<u64>,
    /// Digest of how a probe text becomes tokens; servers without `/tokenize` do not tell.
    pub tokenizer: Option<String>,
    /// The token that ends the reasoning, where the tag is one token. Follows from the tokenizer.
    pub close_tag: Option<u32>,
}

impl Identity {
    /// Whether the server is of a make that knows `return_token_ids`; others may refuse requests that ask.
    pub fn knows_token_ids(&self) -> bool {
        self.max_model_len.is_some()
    }

    /// A digest of all that is known.
    pub fn digest(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        content_id([self.model.as_bytes(), part(&self.root).as_bytes(), part(&self.tokenizer).as_bytes()])
    }

    /// The digest of the model as asked under a configuration: settings beside the sampling's that
    /// change what is answered count as another model. Where all are the defaults, [`Identity::digest`].
    pub fn digest_under(&self, config: &VllmConfig) -> String {
        let settings = |c: &VllmConfig| {
            let continued = (c.continue_rounds, if c.continue_rounds > 0 { c.continue_tokens } else { 0 });
            let settings =
                serde_json::json!([c.api, c.template, c.extra_body, c.n_per_request, c.reasoning, continued]);
            settings.to_string() + &c.other_keys().map_or(String::new(), |keys| keys.to_string())
        };
        let (ours, plain) = (settings(config), settings(&VllmConfig::default()));
        // Under any path the same model, says the user: then it may move between two runs as well.
        let digest = match config.allow_different_roots {
            true => Identity { root: None, ..self.clone() }.digest(),
            false => self.digest(),
        };
        if ours == plain { digest } else { content_id([digest.as_bytes(), ours.as_bytes()]) }
    }

    /// How another server's model differs, if it does. What one of them does not tell is not compared.
    pub fn difference(&self, other: &Identity, allow_different_roots: bool) -> Option<String> {
        let differ = |what: &str, a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) if a != b => Some(format!("{what} `{a}` and `{b}`")),
            _ => None,
        };
        if self.model != other.model {
            return Some(format!("models `{}` and `{}`", self.model, other.model));
        }
        let roots = differ("roots", &self.root, &other.root).filter(|_| !allow_different_roots);
        roots.or_else(|| differ("tokenizers with digests", &self.tokenizer, &other.tokenizer))
    }
}

/// Why an endpoint cannot be used.
pub(super) enum ProbeError {
    /// Not now: try again later.
    NotYet(Fault),
    /// It serves nothing of what we may ask, and others may go on without it.
    Refused(Fatal),
    /// No endpoint may be used: what this one serves does not fit the others.
    Never(Fatal),
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    root: Option<String>,
    /// The model that an adapter belongs to: servers list their adapters as models.
    parent: Option<String>,
    max_model_len: Option<u64>,
}

#[derive(Deserialize)]
struct Tokenized {
    tokens: Vec<u32>,
}

const PROBE_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Paused {
    is_paused: bool,
}

/// Whether the server was told to answer nothing for now: vLLM in development mode, while weights are
/// loaded. Servers that do not tell are not paused.
pub(super) async fn is_paused(endpoint: &Endpoint) -> bool {
    let answer = endpoint.get("is_paused", PROBE_DEADLINE).await;
    answer.is_ok_and(|body| serde_json::from_slice::<Paused>(&body).is_ok_and(|paused| paused.is_paused))
}

/// Letters, digits, spaces, scripts and tags that tokenizers treat differently.
const PROBE_TEXT: &str = "Gristmill 3.14159  <think>\n\tÉté 数学 {\"x\": [1, 22, 333]}</think> naïve—end";

/// Asks a server whether it is healthy and what it serves. `wanted` is the model's name; empty takes
/// the only one served.
pub(super) async fn probe(endpoint: &Endpoint, wanted: &str, tags: &Reasoning) -> Result<Identity, ProbeError> {
    let at = &endpoint.address;
    match endpoint.get("health", PROBE_DEADLINE).await {
        // Servers of another make have no /health; /v1/models decides then.
        Ok(_) => {}
        Err(fault) if fault.kind == FaultKind::WrongAddress => {}
        Err(fault) => return Err(classify(fault, endpoint)),
    }
    let mut models: Models = match endpoint.get("v1/models", PROBE_DEADLINE).await {
        Ok(body) => serde_json::from_slice(&body).map_err(|e| {
            let what = format!("/v1/models is not a list of models: {e}");
            // A page for people is nothing that a server answers while it starts.
            let kind =
                if body.trim_ascii_start().starts_with(b"<") { FaultKind::WrongAddress } else { FaultKind::Malformed };
            classify(endpoint.redact(Fault::new(kind, what)), endpoint)
        })?,
        // Whoever names the model need not be told what there is.
        Err(fault) if fault.kind == FaultKind::WrongAddress && !wanted.is_empty() => Models { data: Vec::new() },
        Err(fault) => return Err(classify(fault, endpoint)),
    };
    if wanted.is_empty() {
        models.data.retain(|model| model.parent.is_none());
    }
    let names = || models.data.iter().map(|m| format!("`{}`", m.id)).collect::<Vec<_>>().join(", ");
    // Servers of another make list what lies in a cache, or nothing: they do not tell what they serve.
    let tells = models.data.iter().any(|m| m.root.is_some() || m.max_model_len.is_some());
    let model = match &models.data[..] {
        [only] if wanted.is_empty() => only,
        list if wanted.is_empty() => {
            let what = if list.is_empty() { "does not tell its model".into() } else { format!("serves {}", names()) };
            return Err(ProbeError::Never(
                Fatal::new(format!("{at} {what}")).hint("name the one to use: `model = \"…\"`"),
            ));
        }
        list => match list.iter().find(|m| m.id == wanted) {
            Some(model) => model,
            None if !tells => &Model { id: wanted.to_owned(), root: None, parent: None, max_model_len: None },
            None => {
                return Err(ProbeError::Never(
                    Fatal::new(format!("{at} does not serve the model `{wanted}`"))
                        .hint(format!("it serves {}", names())),
                ));
            }
        },
    };
    let tokenizer = tokenize(endpoint, &model.id, PROBE_TEXT).await?.map(|ids| {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        content_id([&bytes[..]])
    });
    let mut close_tag = None;
    if tokenizer.is_some() && !tags.close.is_empty() {
        close_tag = match tokenize(endpoint, &model.id, &tags.close).await?.as_deref() {
            Some([id]) => Some(*id),
            _ => None,
        };
    }
    let (model, root, max_model_len) = (model.id.clone(), model.root.clone(), model.max_model_len);
    Ok(Identity { model, root, max_model_len, tokenizer, close_tag })
}

/// How often `/tokenize` is asked that fails in a way that may pass.
const TRIES: u32 = 3;

/// A text's tokens by the server's own tokenizer; `None` where it has no `/tokenize`.
///
/// The tokenizer is part of what the model is known by, so an answer that did not come must not look like a
/// server that has none to give: the same model would pass for another one in the next run.
async fn tokenize(endpoint: &Endpoint, model: &str, text: &str) -> Result<Option<Vec<u32>>, ProbeError> {
    let body = serde_json::json!({"model": model, "prompt": text, "add_special_tokens": false}).to_string();
    let mut tried = 0;
    loop {
        tried += 1;
        let fault = match endpoint.post("tokenize", body.clone().into_bytes(), PROBE_DEADLINE).await {
            Ok(body) => return Ok(serde_json::from_slice::<Tokenized>(&body).ok().map(|t| t.tokens)),
            Err(fault) => fault,
        };
        match fault.kind {
            FaultKind::WrongAddress | FaultKind::UnknownModel | FaultKind::BadRequest => return Ok(None),
            _ if tried < TRIES => tokio::time::sleep(Duration::from_millis(100 << tried)).await,
            // Some makes answer so for good.
            FaultKind::ServerError => return Ok(None),
            _ => return Err(classify(fault, endpoint)),
        }
    }
}

fn classify(fault: Fault, endpoint: &Endpoint) -> ProbeError {
    match fault.kind {
        FaultKind::Unauthorized | FaultKind::UnknownModel | FaultKind::WrongAddress | FaultKind::Tls => {
            ProbeError::Refused(explain(&fault, endpoint))
        }
        _ => ProbeError::NotYet(fault),
    }
}

/// A fault that ends the run, said for people.
pub(super) fn explain(fault: &Fault, endpoint: &Endpoint) -> Fatal {
    let at = &endpoint.address;
    let fatal = Fatal::new(format!("{at}: {}", fault.message));
    match fault.kind {
        FaultKind::Unauthorized => match endpoint.key_variable() {
            Some(variable) => Fatal::new(format!("{at} refused the API key of ${variable} ({})", fault.message))
                .hint(format!("check the value of ${variable}")),
            None => Fatal::new(format!("{at} wants an API key ({})", fault.message))
                .hint("export the key and name its variable: `api_key_env = \"VLLM_API_KEY\"`"),
        },
        FaultKind::Tls => Fatal::new(format!("no secure connection to {at}: {}", fault.message))
            .hint("for a private certificate authority set `ca_file`; for a server without TLS write http://"),
        FaultKind::UnknownModel => fatal.hint("the server no longer serves this model: was it restarted with another?"),
        FaultKind::WrongAddress => {
            fatal.hint("is this the root of an OpenAI-compatible server? `/v1/…` is added to it")
        }
        FaultKind::MissingTokenIds => {
            fatal.hint("this server returns no token ids: set `token_ids = \"auto\"` to do without")
        }
        FaultKind::BadLogprobs => fatal.hint("this server returns no usable logprobs: set `logprobs = false`"),
        _ => fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_change_the_answers_count_as_another_model() {
        let model = Identity { model: "m".into(), root: None, max_model_len: None, tokenizer: None, close_tag: None };
        let plain = VllmConfig::default();
        assert_eq!(model.digest_under(&plain), model.digest());
        assert_eq!(model.digest_under(&VllmConfig { threads: 3, continue_tokens: 9, ..plain.clone() }), model.digest());
        let longer = VllmConfig { continue_rounds: 1, ..plain.clone() };
        let guided = VllmConfig {
            extra_body: serde_json::Map::from_iter([("guided_regex".into(), "a+".into())]),
            ..plain.clone()
        };
        assert_ne!(model.digest_under(&longer), model.digest());
        let uncut = VllmConfig { omit: vec!["top_p".into()], ..plain };
        assert_ne!(model.digest_under(&uncut), model.digest());
        assert_ne!(model.digest_under(&longer), model.digest_under(&guided));
    }

    #[test]
    fn models_differ_by_name_root_or_tokenizer_where_both_tell() {
        let one = Identity {
            model: "m".into(),
            root: Some("/a".into()),
            max_model_len: Some(512),
            tokenizer: Some("t".into()),
            close_tag: None,
        };
        assert_eq!(one.difference(&Identity { root: None, tokenizer: None, ..one.clone() }, false), None);
        let moved = Identity { root: Some("/b".into()), ..one.clone() };
        assert!(one.difference(&moved, false).unwrap().contains("roots `/a` and `/b`"));
        assert_eq!(one.difference(&moved, true), None);
        assert!(one.difference(&Identity { tokenizer: Some("u".into()), ..one.clone() }, true).is_some());
        assert!(one.difference(&Identity { model: "n".into(), ..one.clone() }, true).is_some());
        assert_ne!(one.digest(), moved.digest());
    }
}
