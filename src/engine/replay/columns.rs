//! What a row of a recording says: its question, and completions with their labels and finish reasons.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{ColumnName, ReplayConfig};
use crate::error::{Error, Result};
use crate::prompts::column_ref::ColumnRef;
use crate::prompts::messages;
use crate::schema::{FinishReason, Role, question};

/// The columns that the recipe names.
pub(super) struct Columns {
    question: ColumnRef,
    recorded: Vec<RecordedColumns>,
}

/// A column of completions and those beside it.
struct RecordedColumns {
    texts: ColumnRef,
    label: Option<ColumnRef>,
    finish: Option<ColumnRef>,
}

/// A completion as a row of the recordings has it.
pub(super) struct Recorded<'a> {
    /// None of a sample that was not recorded.
    pub text: Option<Cow<'a, str>>,
    pub finish: FinishReason,
    pub label: Option<bool>,
}

impl Columns {
    pub fn of(config: &ReplayConfig) -> Result<Columns> {
        for (name, list) in [("labels", &config.labels), ("finish_reasons", &config.finish_reasons)] {
            if !list.is_empty() && list.len() != config.completions.len() {
                let (these, those) = (list.len(), config.completions.len());
                return Err(Error::usage(format!("`{name}` names {these} columns, `completions` {those}"))
                    .hint(format!("`{name}` has one column beside each of `completions`")));
            }
        }
        let beside = |list: &[ColumnName], i: usize| list.get(i).map(|name| ColumnRef::parse(name));
        let recorded = config.completions.iter().enumerate().map(|(i, texts)| RecordedColumns {
            texts: ColumnRef::parse(texts),
            label: beside(&config.labels, i),
            finish: beside(&config.finish_reasons, i),
        });
        Ok(Columns { question: ColumnRef::parse(&config.question), recorded: recorded.collect() })
    }

    /// The question of a row and what is recorded as its answers.
    pub fn read<'a>(&'a self, row: &'a Map<String, Value>) -> Result<(Cow<'a, str>, Vec<Recorded<'a>>)> {
        let question = text_or(find(&self.question, row)?, asked).ok_or_else(|| unusable(&self.question, row))?;
        let mut all = Vec::new();
        for columns in &self.recorded {
            let texts = items(find(&columns.texts, row)?);
            let labels = beside(columns.label.as_ref(), row, texts.len())?;
            let finishes = beside(columns.finish.as_ref(), row, texts.len())?;
            for (i, text) in texts.into_iter().enumerate() {
                if text.is_null() {
                    all.push(Recorded { text: None, finish: FinishReason::Unknown, label: None });
                    continue;
                }
                all.push(Recorded {
                    text: Some(text_or(text, answered).ok_or_else(|| unusable(&columns.texts, row))?),
                    finish: finishes.get(i).map_or(Ok(FinishReason::Unknown), |value| finish_reason(value))?,
                    label: labels.get(i).map_or(Ok(None), |value| label(value))?,
                });
            }
        }
        Ok((question, all))
    }
}

/// A column's value, null included: a name that is in no row is a slip, a null is data.
fn find<'a>(column: &'a ColumnRef, row: &'a Map<String, Value>) -> Result<&'a Value> {
    column.find(row).ok_or_else(|| unusable(column, row))
}

fn unusable(column: &ColumnRef, row: &Map<String, Value>) -> Error {
    let known: Vec<&str> = row.keys().map(String::as_str).collect();
    Error::new(format!("a recording has no usable `{column}`"))
        .hint("name the columns in the engine's `question`, `completions`, `labels` and `finish_reasons`")
        .hint(format!("the row has {}", known.join(", ")))
}

/// The values beside `texts` completions: one for each, or none where the column is null.
fn beside<'a>(column: Option<&'a ColumnRef>, row: &'a Map<String, Value>, texts: usize) -> Result<Vec<&'a Value>> {
    let Some(column) = column else { return Ok(Vec::new()) };
    let values = items(find(column, row)?);
    match values.len() {
        0 => Ok(values),
        n if n == texts => Ok(values),
        n => Err(Error::new(format!("`{column}` has {n} values beside {texts} completions"))
            .hint("it has one for each completion, or is null")),
    }
}

/// A cell's text, or what its turns say.
fn text_or(value: &Value, said: impl FnOnce(&Value) -> Option<String>) -> Option<Cow<'_, str>> {
    value.as_str().map(Cow::Borrowed).or_else(|| said(value).map(Cow::Owned))
}

/// What the last user of a conversation asks, as prompts that are imported have it.
fn asked(turns: &Value) -> Option<String> {
    let (prompt, _) = messages::split(messages::parse(turns).ok()?).ok()?;
    Some(question(&prompt).to_owned())
}

/// What is answered to that; of turns without a user, as in TRL's `completion`, the last answer.
fn answered(turns: &Value) -> Option<String> {
    let mut turns = messages::parse(turns).ok()?;
    if turns.iter().any(|turn| turn.role == Role::User) {
        return messages::split(turns).ok()?.1;
    }
    let last = turns.iter().rposition(|turn| turn.role == Role::Assistant)?;
    Some(turns.swap_remove(last).content)
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        // A conversation is one completion.
        Value::Array(turns) if turns.first().is_some_and(Value::is_object) => vec![value],
        Value::Array(items) => items.iter().collect(),
        value => vec![value],
    }
}

/// What a recording says of itself; null says nothing.
fn label(value: &Value) -> Result<Option<bool>> {
    let word = match value {
        Value::Null => return Ok(None),
        Value::Bool(good) => return Ok(Some(*good)),
        Value::String(word) => word.trim().to_lowercase(),
        other => other.to_string(),
    };
    match word.as_str() {
        "correct" | "right" | "true" | "yes" | "1" | "1.0" => Ok(Some(true)),
        "wrong" | "incorrect" | "false" | "no" | "0" | "0.0" => Ok(Some(false)),
        "" => Ok(None),
        _ => {
            Err(Error::new(format!("`{word}` is no label")).hint("a label is true or false, 1 or 0, correct or wrong"))
        }
    }
}

/// Why a completion ended, in our word or in a server's.
fn finish_reason(value: &Value) -> Result<FinishReason> {
    let word = match value {
        Value::Null => return Ok(FinishReason::Unknown),
        Value::String(word) => word.clone(),
        other => other.to_string(),
    };
    match FinishReason::from_server(&word) {
        Some(FinishReason::Error) => {
            Err(Error::new("a request that failed is no recording").hint("leave such rows out of the file"))
        }
        Some(reason) => Ok(reason),
        None => Err(Error::new(format!("`{word}` is no finish reason")).hint("one of stop, length, unknown; or null")),
    }
}
