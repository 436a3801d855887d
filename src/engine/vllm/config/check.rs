//! Which settings cannot be used, told before any server is asked.

use super::secrets::without_secrets;
use super::{Api, Template, TokenIds, VllmConfig};
use crate::engine::vllm::transport::Secret;
use crate::error::{Error, Result, nearest};

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
}

/// The server's root: scheme, host, port and path without a trailing `/` or `/v1`.
pub(in crate::engine::vllm) fn parse_endpoint(text: &str) -> Result<reqwest::Url> {
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

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

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
