//! How a recipe names a column of somebody's file: a path into it, or a constant in its place.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A column path such as `reward_model.ground_truth` or `answers.0`, or a constant such as `= "math"`.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnRef {
    /// Names and list places, joined with dots.
    Path(String),
    /// The same value for every row. `= null` says that there is none.
    Literal(Value),
}

impl ColumnRef {
    /// Reads the notation of the recipe. After `=` stands JSON; what is no JSON is plain text.
    pub fn parse(text: &str) -> ColumnRef {
        match text.trim().strip_prefix('=') {
            Some(literal) => {
                let literal = literal.trim();
                ColumnRef::Literal(serde_json::from_str(literal).unwrap_or_else(|_| Value::String(literal.to_owned())))
            }
            None => ColumnRef::Path(text.trim().to_owned()),
        }
    }

    /// The value in this row; `None` where the column is absent or null.
    pub fn get<'a>(&'a self, row: &'a Map<String, Value>) -> Option<&'a Value> {
        self.find(row).filter(|value| !value.is_null())
    }

    /// The value in this row, null included; `None` where the column is absent.
    pub fn find<'a>(&'a self, row: &'a Map<String, Value>) -> Option<&'a Value> {
        match self {
            ColumnRef::Literal(value) => Some(value),
            ColumnRef::Path(path) => lookup(row, path),
        }
    }

    /// Whether the row has the column, be it null; a constant is in every row.
    pub fn is_in(&self, row: &Map<String, Value>) -> bool {
        match self {
            ColumnRef::Literal(_) => true,
            ColumnRef::Path(path) => lookup(row, path).is_some(),
        }
    }

    /// Parses JSON that stands as text on the way to the column: `verification_info.ground_truth` may lead into a
    /// column that holds `"{\"ground_truth\": …}"`.
    pub fn unpack(&self, row: &mut Map<String, Value>) {
        let ColumnRef::Path(path) = self else { return };
        if row.contains_key(path) {
            return;
        }
        let mut parts = path.split('.');
        let Some(mut value) = parts.next().and_then(|head| row.get_mut(head)) else { return };
        for part in parts {
            if let Value::String(text) = value
                && let Some(parsed) = json_text(text)
            {
                *value = parsed;
            }
            let inner = match value {
                Value::Object(object) => object.get_mut(part),
                Value::Array(list) => part.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
                _ => None,
            };
            let Some(inner) = inner else { return };
            value = inner;
        }
    }

    /// The column that is read as a whole; `None` for a constant, and for a part of a column: the rest of it is
    /// still to be kept.
    pub fn column(&self, row: &Map<String, Value>) -> Option<&str> {
        match self {
            ColumnRef::Path(path) if row.contains_key(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnRef::Path(path) => f.write_str(path),
            ColumnRef::Literal(value) => write!(f, "= {value}"),
        }
    }
}

impl Serialize for ColumnRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match ColumnRef::parse(&text) {
            ColumnRef::Path(path) if path.is_empty() => {
                Err(serde::de::Error::custom("a column name must not be empty; write a constant as `= \"value\"`"))
            }
            column => Ok(column),
        }
    }
}

/// The object or list that a text holds: JSON, or Python's spelling of it as many an exporter leaves it.
pub fn json_text(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str(text).ok().or_else(|| {
        // Where no quote is inside a string, the two differ in their quotes alone.
        let python = text.starts_with("{'") || text.starts_with("['");
        python.then(|| serde_json::from_str(&text.replace('\'', "\"")).ok()).flatten()
    })
}

/// A column whose name is the whole path wins over a nested one.
fn lookup<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = row.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let mut value = row.get(parts.next()?)?;
    for part in parts {
        value = match value {
            Value::Object(object) => object.get(part)?,
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_through_json_that_stands_as_text() {
        let row = |info: &str| {
            let mut row = Map::new();
            row.insert("info".to_owned(), info.into());
            row
        };
        let column = ColumnRef::parse("info.tests.0.want");
        for info in
            [r#"{"tests": [{"want": "3"}]}"#, r#"{"tests": "[{\"want\": \"3\"}]"}"#, "{'tests': [{'want': '3'}]}"]
        {
            let mut row = row(info);
            column.unpack(&mut row);
            assert_eq!(column.get(&row).and_then(Value::as_str), Some("3"), "{info}");
        }
        let mut text = row("{not json");
        column.unpack(&mut text);
        assert_eq!((column.is_in(&text), &text), (false, &row("{not json")));
    }

    #[test]
    fn a_column_reference_survives_serialisation() {
        for text in ["a.b", "= \"math\"", "= null", "= 3"] {
            let column = ColumnRef::parse(text);
            assert_eq!(ColumnRef::parse(&column.to_string()), column, "{text}");
        }
    }
}
