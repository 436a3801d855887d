//! A sample as the row that is sent. `serve-rewards` reads it as the sample that it was.

use std::fmt::Write;

use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::rule::{Sample, think};

/// What every row has. Parts of the completion have names under which no reader takes them for gold.
pub(super) const COLUMNS: [&str; 13] = [
    "prompt_id",
    "prompt",
    "messages",
    "completion",
    "completion_reasoning",
    "completion_answer",
    "gold",
    "verification",
    "domain",
    "language",
    "difficulty",
    "finish_reason",
    "tokens",
];

/// The row as JSON text. Equal samples have equal rows: they are what a cache is asked by.
pub(super) fn text(sample: &Sample<'_>, columns: &[String]) -> String {
    let (origin, parts) = (sample.origin, think::split(sample.completion));
    let messages = (!origin.messages.is_empty()).then_some(origin.messages);
    let values = [
        json(&origin.prompt_id),
        json(&sample.prompt),
        json(&messages),
        json(&sample.completion),
        json(&parts.reasoning),
        json(&parts.answer),
        json(&sample.gold),
        sample.verification.map_or_else(|| "null".to_owned(), verification),
        json(&sample.domain),
        json(&sample.language),
        json(&sample.difficulty),
        json(&sample.finish_reason.as_str()),
        json(&sample.tokens),
    ];
    let mut out = String::with_capacity(values.iter().map(String::len).sum::<usize>() + 256);
    for (name, value) in COLUMNS.iter().zip(values) {
        let _ = write!(out, "{}\"{name}\":{value}", if out.is_empty() { '{' } else { ',' });
    }
    if !columns.is_empty() {
        let extra: Map<String, Value> =
            origin.extra.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        for name in columns {
            let _ = write!(out, ",{}:{}", json(name), extra.get(name).unwrap_or(&Value::Null));
        }
    }
    out.push('}');
    out
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// Objects and lists as they are written, so that a number in them stays the number it was.
fn verification(text: &str) -> String {
    let is_json = text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok();
    if is_json { text.to_owned() } else { json(text) }
}
