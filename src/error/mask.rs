//! Secrets in what is shown of a user's files: values of keys that name one, passwords and queries in addresses.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

static PATTERNS: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    [
        // A key that names a secret, and its text.
        r#"(?i)(?<key>[\w.-]*(?:api[_-]?key|secret|password|authorization|access[_-]?key|hf[_-]token|auth[_-]?token)[\w-]*)["']?\s*[=:]\s*(?<hide>"[^"\n]*"|'[^'\n]*')"#,
        // What stands before the host of an address.
        r#"://(?<hide>[^/\s"']+)@"#,
        // What stands behind it in a query.
        r#"https?://[^\s"'?]*\?(?<hide>[^\s"']+)"#,
    ]
    .map(|pattern| Regex::new(pattern).expect("the patterns are valid"))
});

/// Whether a setting of this name is likely to hold what nobody should read. A name that ends in `_env` is
/// that of a variable's name.
pub fn names_a_secret(name: &str) -> bool {
    let text = format!("{name} = \"\"");
    !name.to_ascii_lowercase().ends_with("_env") && PATTERNS[0].is_match(&text)
}

/// The text with every secret in it as asterisks: as many bytes, so that places in it stay what they are.
pub fn masked(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for pattern in &*PATTERNS {
        let hide = |found: &Captures<'_>| {
            let (all, hidden) = (&found[0], &found["hide"]);
            let is_name = found.name("key").is_some_and(|key| key.as_str().to_ascii_lowercase().ends_with("_env"));
            match all.rfind(hidden).filter(|_| !is_name && !hidden.is_empty()) {
                Some(at) => {
                    let stars = |c: char| if c == '"' || c == '\'' { c.to_string() } else { "*".repeat(c.len_utf8()) };
                    let shown: String = hidden.chars().map(stars).collect();
                    format!("{}{shown}{}", &all[..at], &all[at + hidden.len()..])
                }
                None => all.to_owned(),
            }
        };
        if pattern.is_match(&text) {
            text = Cow::Owned(pattern.replace_all(&text, hide).into_owned());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_places_stay() {
        for (text, shown) in [
            (r#"engine = { api_key = "sk-1é", model = "m" }"#, r#"engine = { api_key = "******", model = "m" }"#),
            ("env = { OPENAI_API_KEY = 'sk' }", "env = { OPENAI_API_KEY = '**' }"),
            (r#"endpoints = ["http://me:pw@h/v1"]"#, r#"endpoints = ["http://*****@h/v1"]"#),
            (r#"endpoints = ["http://h/v1?key=sk"]"#, r#"endpoints = ["http://h/v1?******"]"#),
        ] {
            assert_eq!(masked(text), shown);
            assert_eq!(text.len(), shown.len());
        }
        for text in
            [r#"api_key_env = "VLLM_API_KEY""#, "max_tokens = 16, stop_token_ids = [5]", "path = \"s3://bucket/a\""]
        {
            assert_eq!(masked(text), text);
        }
        assert!(names_a_secret("--api-key") && names_a_secret("HF_TOKEN") && !names_a_secret("max_tokens"));
    }
}
