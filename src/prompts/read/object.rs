//! The text of one row as a JSON object.

use serde_json::{Map, Value};

use super::row::{Fault, Place};

/// Parses one JSON object, or says what is wrong with it.
pub(super) fn parse_object(bytes: &[u8], place: Place) -> std::result::Result<Map<String, Value>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let mut fault =
            Fault::new(place, "invalid_utf8", format!("invalid UTF-8 (byte {} of the row)", error.valid_up_to() + 1))
                .hint("convert the file to UTF-8, for example with iconv");
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        fault.column = (!valid.contains('\n')).then(|| valid.chars().count() + 1);
        fault
    })?;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(other) => {
            Err(Fault::new(place, "not_an_object", format!("a row must be a JSON object, this is {}", kind(&other))))
        }
        Err(error) => {
            // serde_json counts from the row's own first line.
            let place = Place { line: place.line.map(|line| line + error.line().saturating_sub(1)), ..place };
            let mut message = error.to_string();
            if let Some(cut) = message.rfind(" at line ") {
                message.truncate(cut);
            }
            let mut fault = Fault::new(place, "bad_json", format!("bad JSON: {message}"));
            fault.column = (error.column() > 0).then_some(error.column());
            if text.contains("NaN") || text.contains("Infinity") {
                fault = fault.hint("JSON has no NaN or Infinity; write null");
            }
            Err(fault)
        }
    }
}

/// What a JSON value is, in words.
pub(in crate::prompts) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
