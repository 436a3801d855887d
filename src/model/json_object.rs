//! JSON objects of a model's files, and keys of theirs that are each to have one type.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};

/// The JSON object in a file.
pub(super) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).or_fail(|| "cannot be read".into()).map_err(|e| {
        e.in_file(path.display()).hint("a model is a folder with config.json, weights and tokenizer.json")
    })?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::new("not a JSON object").in_file(path.display())),
        Err(e) => Err(Error::new(format!("not JSON: {e}")).in_file(path.display()).at_line(e.line(), Some(e.column()))),
    }
}

/// A JSON object's keys, each of the type that it is to have.
pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// A size of 1 or more.
    ///
    /// # Errors
    /// It is missing, 0 or no size.
    pub fn size(&self, key: &str) -> Result<usize> {
        match self.size_or(key, 0)? {
            0 => Err(Error::new(format!("`{key}` is missing or 0")).in_field(key)),
            size => Ok(size),
        }
    }

    /// A size; the default where it is absent or null.
    ///
    /// # Errors
    /// It is no size.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_u64() {
                Some(size) if size <= 1 << 32 => Ok(size as usize),
                _ => Err(Error::new(format!("`{key}` must be a size, not {value}")).in_field(key)),
            },
        }
    }

    /// What a key holds; `None` where it is absent or null, which means the default.
    ///
    /// # Errors
    /// Something else than `what`.
    pub fn read<T>(&self, key: &str, what: &str, read: fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(Error::new(format!("`{key}` must be {what}, not {value}")).in_field(key)),
            },
        }
    }

    /// An id, a list of ids, or null.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        fn id(value: &Value) -> Option<u32> {
            value.as_u64().and_then(|id| u32::try_from(id).ok())
        }
        let ids = self.read(key, "a token's id, or a list of such", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            value => id(value).map(|id| vec![id]),
        });
        ids.map(Option::unwrap_or_default)
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", Value::as_f64)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a string", Value::as_str)
    }

    pub fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.read(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }
}
