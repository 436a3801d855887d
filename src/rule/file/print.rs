//! The resolved rule file: `extends` inlined, comments and layout gone. Its digest names the reward.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Raised when a rule's code changes what it decides, so that digests tell the versions apart.
const RULES_VERSION: u32 = 4;

pub(super) struct Parts<'a, 'b> {
    pub reward: Option<&'a str>,
    pub outcome: Option<&'a [String]>,
    pub clip: Option<(f64, f64)>,
    pub rewards: &'a BTreeMap<String, (String, Range<usize>)>,
    pub rules: &'a [(String, Range<usize>, DeTable<'b>)],
}

/// Canonical TOML: fixed order, sorted keys inside a rule, examples and [meta] left out.
pub(super) fn resolved(parts: &Parts<'_, '_>) -> String {
    let mut out = String::new();
    if let Some(reward) = parts.reward {
        out += &format!("reward = {}\n", string(reward));
    }
    if let Some(outcome) = parts.outcome {
        let names: Vec<String> = outcome.iter().map(|name| string(name)).collect();
        out += &format!("outcome = [{}]\n", names.join(", "));
    }
    if let Some((low, high)) = parts.clip {
        out += &format!("clip = [{low:?}, {high:?}]\n");
    }
    if !parts.rewards.is_empty() {
        out += "\n[rewards]\n";
        for (domain, (text, _)) in parts.rewards {
            out += &format!("{} = {}\n", string(domain), string(text));
        }
    }
    for (name, _, body) in parts.rules {
        out += &format!("\n[rules.{name}]\n");
        for (key, value) in body {
            out += &format!("{} = {}\n", key_text(key.get_ref()), text(value.get_ref()));
        }
    }
    out
}

/// BLAKE3 of the resolved text, as 64 hex digits.
pub(super) fn digest(resolved: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill 2026 rule file");
    hasher.update(&RULES_VERSION.to_le_bytes());
    hasher.update(resolved.as_bytes());
    hasher.finalize().to_hex().to_string()
}

fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn key_text(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { string(key) }
}

/// A value on one line; numbers in one spelling each.
fn text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => string(text),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| integer.to_string(), |value| value.to_string()),
        DeValue::Float(float) => {
            float.as_str().parse::<f64>().map_or_else(|_| float.to_string(), |value| format!("{value:?}"))
        }
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| text(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => {
            let items: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{} = {}", key_text(key.get_ref()), text(value.get_ref())))
                .collect();
            format!("{{ {} }}", items.join(", "))
        }
    }
}
