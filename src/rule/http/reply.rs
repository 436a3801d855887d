//! What a server answers, read without trust.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rule::text::shorten;

/// What was said of one row; kept in the cache as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Said {
    /// `None` where the server cannot tell.
    pub score: Option<f64>,
    /// `None` where it did not say.
    pub correct: Option<bool>,
    /// A gristmill's reason code.
    pub reason: Option<String>,
}

/// Why nothing was said of a row, for people: what came instead, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fault {
    pub reason: &'static str,
    pub error: String,
}

impl Fault {
    pub fn new(reason: &'static str, error: impl Into<String>) -> Self {
        Fault { reason, error: error.into() }
    }
}

#[derive(Deserialize)]
struct Reply {
    rewards: Vec<Value>,
    correct: Option<Vec<Value>>,
    results: Option<Vec<Value>>,
}

/// What a reply says of each of so many rows.
///
/// # Errors
/// The reply as a whole tells nothing of which row it means what.
pub(super) fn read(reply: &[u8], rows: usize) -> Result<Vec<Result<Said, Fault>>, Fault> {
    let reply: Reply = serde_json::from_slice(reply).map_err(|error| {
        let form = "{\"rewards\": […]} with a number or null for each row";
        let nan = if error.is_syntax() { "; NaN is no JSON, send null" } else { "" };
        Fault::new("server_reply_unread", format!("the reply is not {form}{nan}: {error}"))
    })?;
    let lists =
        [("rewards", Some(&reply.rewards)), ("correct", reply.correct.as_ref()), ("results", reply.results.as_ref())];
    for (name, list) in lists {
        if let Some(list) = list.filter(|list| list.len() != rows) {
            let error = format!("`{name}` has {} entries for {rows} rows: give one for each row, in order", list.len());
            return Err(Fault::new("server_wrong_count", error));
        }
    }
    let entry = |list: &Option<Vec<Value>>, i: usize| list.as_ref().map_or(Value::Null, |list| list[i].clone());
    let row = |(i, reward)| said(reward, &entry(&reply.correct, i), &entry(&reply.results, i));
    Ok(reply.rewards.iter().enumerate().map(row).collect())
}

fn said(reward: &Value, correct: &Value, result: &Value) -> Result<Said, Fault> {
    let odd = |what: &str, value: &Value, form: &str| {
        let value = shorten(&value.to_string(), 80);
        Err(Fault::new("server_not_a_number", format!("{what} of this row is {value}, and not {form}")))
    };
    let (score, mut decided) = match reward {
        Value::Null => (None, None),
        Value::Bool(yes) => (Some(f64::from(u8::from(*yes))), Some(*yes)),
        Value::Number(number) => (number.as_f64(), None),
        other => return odd("the reward", other, "a number, true, false or null"),
    };
    match correct {
        Value::Null => {}
        Value::Bool(yes) => decided = Some(*yes),
        other => return odd("`correct`", other, "true, false or null"),
    }
    let word = |key: &str| result.get(key).and_then(Value::as_str);
    match word("outcome") {
        Some("correct") => decided = Some(true),
        Some("wrong") => decided = Some(false),
        _ => {}
    }
    Ok(Said { score, correct: decided, reason: word("reason").map(|reason| shorten(reason, 200)) })
}
