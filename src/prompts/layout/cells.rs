//! A row's columns, found by name or by the recipe's mapping.

use serde_json::{Map, Value};

use crate::prompts::column_ref::ColumnRef;
use crate::prompts::read::Row;

/// A row's columns, and which of them were read.
pub(super) struct Cells<'a> {
    pub row: &'a Row,
    pub used: Vec<String>,
}

impl<'a> Cells<'a> {
    /// The first of these columns that is there and not null.
    pub fn named(&mut self, names: &[&str]) -> Option<(String, &'a Value)> {
        let (name, value) = find(&self.row.columns, names)?;
        self.used.push(name.to_owned());
        Some((name.to_owned(), value))
    }

    pub fn find(&mut self, names: &[&str]) -> Option<&'a Value> {
        self.named(names).map(|(_, value)| value)
    }

    pub fn mapped_named<'c>(&mut self, column: &'c Option<ColumnRef>) -> Option<(String, &'c Value)>
    where
        'a: 'c,
    {
        let column = column.as_ref()?;
        let value = column.get(&self.row.columns)?;
        self.used.extend(column.column(&self.row.columns).map(str::to_owned));
        Some((column.to_string(), value))
    }

    pub fn mapped<'c>(&mut self, column: &'c Option<ColumnRef>) -> Option<&'c Value>
    where
        'a: 'c,
    {
        self.mapped_named(column).map(|(_, value)| value)
    }

    /// The mapped column's text, else that of the first named column with some.
    pub fn text(&mut self, column: &Option<ColumnRef>, names: &[&str]) -> Option<String> {
        let value = if column.is_some() { self.mapped(column).cloned() } else { self.find(names).cloned() };
        value.map(|value| plain(&value).trim().to_owned()).filter(|text| !text.is_empty())
    }
}

/// Looks names up in order of preference, case aside; null counts as absent.
pub fn find<'a>(row: &'a Map<String, Value>, names: &[&str]) -> Option<(&'a str, &'a Value)> {
    names.iter().find_map(|name| {
        let found = row.get_key_value(*name).or_else(|| row.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)));
        found.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    })
}

pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Text, or a list of texts as OlympiadBench has its solutions.
pub(super) fn text_list(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join("\n\n"),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}
