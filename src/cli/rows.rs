//! Rows that others wrote, as samples for the rules: JSONL with the field's usual column names.

use std::io::{BufRead, BufReader, Read};

use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};
use crate::rule::Sample;
use crate::schema::FinishReason;

/// One row as it was read: columns in their order.
pub type Row = Map<String, Value>;

/// Longest line in bytes.
const MAX_LINE: usize = 64 << 20;

const COMPLETION: &[&str] = &["completion", "response", "output", "generation", "solution_str", "text"];
const GOLD: &[&str] = &["gold", "answer", "ground_truth", "gold_answer", "final_answer", "reference", "target"];
const PROMPT: &[&str] = &["prompt", "question", "problem", "instruction", "messages", "query"];
const VERIFICATION: &[&str] = &["verification", "verification_info"];
const DOMAIN: &[&str] = &["domain", "ability"];

/// What the rules read of a row, owned.
#[derive(Clone, Debug)]
pub struct Fields {
    pub prompt: String,
    pub completion: String,
    pub gold: Option<String>,
    pub verification: Option<String>,
    pub domain: String,
    pub language: String,
    pub difficulty: Option<f64>,
    pub finish_reason: FinishReason,
    pub tokens: Option<u32>,
}

impl Fields {
    /// Reads a row; `None` without a completion. Without a domain the row is `math`, without a
    /// language `und`.
    pub fn of(row: &Row) -> Option<Self> {
        let find = |names: &[&str]| names.iter().find_map(|name| row.get(*name).filter(|value| !value.is_null()));
        let completion = last_text(find(COMPLETION)?, "assistant")?;
        let gold =
            find(GOLD).or_else(|| row.get("reward_model").and_then(|model| model.get("ground_truth"))).and_then(plain);
        let word = |names: &[&str]| find(names).and_then(Value::as_str).map(str::to_owned);
        let finish_reason = match word(&["finish_reason"]).as_deref() {
            Some("stop") => FinishReason::Stop,
            Some("length") => FinishReason::Length,
            Some("error") => FinishReason::Error,
            _ => FinishReason::Unknown,
        };
        Some(Fields {
            prompt: find(PROMPT).and_then(|value| last_text(value, "user")).unwrap_or_default(),
            completion,
            gold,
            verification: find(VERIFICATION).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
            domain: word(DOMAIN).unwrap_or_else(|| "math".into()),
            language: word(&["language", "lang"]).unwrap_or_else(|| "und".into()),
            difficulty: find(&["difficulty"]).and_then(Value::as_f64).filter(|value| value.is_finite()),
            finish_reason,
            tokens: find(&["tokens", "completion_tokens"]).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()),
        })
    }

    /// The sample the rules see.
    pub fn sample(&self) -> Sample<'_> {
        Sample {
            prompt: &self.prompt,
            completion: &self.completion,
            gold: self.gold.as_deref(),
            verification: self.verification.as_deref(),
            domain: &self.domain,
            language: &self.language,
            difficulty: self.difficulty,
            finish_reason: self.finish_reason,
            tokens: self.tokens,
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Array(items) if items.len() == 1 => plain(&items[0]),
        _ => None,
    }
}

/// A text, or the last turn of that role in a conversation.
fn last_text(value: &Value, role: &str) -> Option<String> {
    match value {
        Value::Array(turns) => {
            let last = turns.iter().rev().find(|turn| turn.get("role").and_then(Value::as_str) == Some(role));
            last.or(turns.last())?.get("content")?.as_str().map(str::to_owned)
        }
        other => plain(other),
    }
}

/// Opens a file, or standard input for `-`.
pub fn open(path: &str) -> Result<Box<dyn Read + Send>> {
    if path == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    Ok(Box::new(std::fs::File::open(path).or_fail(|| format!("cannot read {path}"))?))
}

/// Hands JSONL rows on in chunks of at most `size`, in order.
///
/// # Errors
/// A line that is no JSON object (with its number), a read error, or what `each` fails with.
pub fn read_jsonl(
    source: impl Read,
    name: &str,
    size: usize,
    mut each: impl FnMut(Vec<Row>) -> Result<()>,
) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, source);
    let (mut chunk, mut line, mut number, mut rows) = (Vec::with_capacity(size), Vec::new(), 0usize, 0u64);
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
        number += 1;
        if read.or_fail(|| format!("cannot read {name}"))? == 0 {
            break;
        }
        if line.len() > MAX_LINE {
            return Err(Error::new(format!("a line is longer than {MAX_LINE} bytes"))
                .in_file(name)
                .at_line(number, None));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row: Row = serde_json::from_slice(&line).map_err(|error| {
            Error::new(format!("this line is not a JSON object: {error}"))
                .in_file(name)
                .at_line(number, Some(error.column()))
        })?;
        chunk.push(row);
        rows += 1;
        if chunk.len() == size {
            each(std::mem::replace(&mut chunk, Vec::with_capacity(size)))?;
        }
    }
    if !chunk.is_empty() {
        each(chunk)?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value) -> Fields {
        Fields::of(value.as_object().unwrap()).unwrap()
    }

    #[test]
    fn usual_layouts_are_understood() {
        let plain = fields(json!({"question": "2+2?", "answer": 4, "response": "4", "lang": "fr"}));
        assert_eq!((plain.prompt.as_str(), plain.gold.as_deref(), plain.completion.as_str()), ("2+2?", Some("4"), "4"));
        let verl = fields(
            json!({"prompt": [{"role": "user", "content": "q"}], "ability": "code", "reward_model": {"ground_truth": "g"},
            "completion": [{"role": "assistant", "content": "a"}]}),
        );
        assert_eq!(
            (verl.prompt.as_str(), verl.gold.as_deref(), verl.completion.as_str(), verl.domain.as_str()),
            ("q", Some("g"), "a", "code")
        );
        assert!(Fields::of(json!({"gold": "1"}).as_object().unwrap()).is_none());
    }

    #[test]
    fn chunks_keep_order_and_faults_name_their_line() {
        let mut sizes = Vec::new();
        let rows = read_jsonl("{\"a\":1}\n\n{\"a\":2}\n{\"a\":3}".as_bytes(), "x", 2, |chunk| {
            sizes.push(chunk.len());
            Ok(())
        });
        assert_eq!((rows.unwrap(), sizes), (3, vec![2, 1]));
        let error = read_jsonl("{}\n[1]\n".as_bytes(), "x.jsonl", 2, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("x.jsonl:2"), "{error}");
    }
}
