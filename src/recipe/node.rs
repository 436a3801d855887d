//! TOML values that remember where they were written.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Error;

/// A text that values come from: a file, or a `--set` argument.
#[derive(Debug)]
pub struct Source {
    /// Path of the file, or `--set key=value`.
    pub name: String,
    /// All of it: spans are byte ranges in it.
    pub text: Arc<str>,
    /// Whether it is a `--set` argument, where texts need no quotes.
    pub is_argument: bool,
}

/// The place of a value in its source.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The text it stands in.
    pub source: Arc<Source>,
    /// Byte range in [`Source::text`].
    pub span: Range<usize>,
}

impl Origin {
    /// Points an error at this place.
    pub fn locate(&self, error: Error) -> Error {
        error.in_file(&self.source.name).at_span(Arc::clone(&self.source.text), self.span.clone())
    }

    /// What is written there.
    pub fn written(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is written.
    pub value: Value,
    /// Where it is written, which may be an included file or a `--set`.
    pub origin: Origin,
}

/// What TOML can say; dates are kept as the text they were written as.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string, or a date as it was written.
    Text(String),
    /// Wide enough for seeds, which have 64 bits and no sign.
    Integer(i128),
    /// A number with a point or an exponent; may be infinite or NaN, as TOML's may.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// Items in the order of the text, of any kinds.
    Array(Vec<Node>),
    /// In the order of the text; keys are unique.
    Table(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub origin: Origin,
}

impl Node {
    /// Reads a whole TOML text.
    ///
    /// # Errors
    /// Syntax errors, with their place.
    pub fn parse(name: &str, text: &str) -> Result<Node, Error> {
        let source = Arc::new(Source { name: name.to_owned(), text: Arc::from(text), is_argument: false });
        let table = toml::de::DeTable::parse(text).map_err(|e| {
            let span = e.span().unwrap_or(0..0);
            Error::usage(e.message().to_owned()).in_file(name).at_span(Arc::clone(&source.text), span)
        })?;
        let span = table.span();
        Ok(Node { value: convert_table(table.into_inner(), &source), origin: Origin { source, span } })
    }

    /// Reads the right side of `--set key=value`: TOML if it parses as TOML, else plain text. White
    /// space around it is none of it.
    pub fn parse_value(argument: &str, value: &str) -> Node {
        let text = Arc::from(argument);
        let source = Arc::new(Source { name: format!("--set {argument}"), text, is_argument: true });
        let start = argument.len() - value.trim_start().len();
        let value = value.trim();
        let origin = Origin { source: Arc::clone(&source), span: start..start + value.len() };
        let parsed = toml::de::DeValue::parse(value).ok().map(|v| convert(v.into_inner(), &source));
        let mut node = Node { value: parsed.unwrap_or_else(|| Value::Text(value.to_owned())), origin: origin.clone() };
        node.set_origin(&origin);
        node
    }

    /// The value under a key of a table.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.table()?.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The value at a dotted path, or as far along it as there is one; a number is a place in an array.
    /// `None` if not even the first key is there.
    pub fn nearest(&self, path: &str) -> Option<&Node> {
        let mut found = None;
        let mut at = self;
        for part in path.split('.') {
            let next = match &at.value {
                Value::Array(items) => part.parse().ok().and_then(|i: usize| items.get(i)),
                _ => at.get(part),
            };
            let Some(next) = next else { break };
            (found, at) = (Some(next), next);
        }
        found
    }

    /// Takes the value under a key out of a table.
    pub fn remove(&mut self, name: &str) -> Option<Node> {
        let Value::Table(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|(key, _)| key.name == name)?;
        Some(entries.remove(index).1)
    }

    /// The entries, if this is a table.
    pub fn table(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            Value::Table(entries) => Some(entries),
            _ => None,
        }
    }

    /// A number or truth value as it is written: `1.10` is no `1.1` where it names a version.
    pub fn written(&self) -> Option<&str> {
        let is_plain = matches!(self.value, Value::Integer(_) | Value::Float(_) | Value::Boolean(_));
        is_plain.then(|| self.origin.written())
    }

    /// The text, if this is a string.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Lays `over` on top: tables merge key by key, anything else is replaced.
    pub fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Table(entries), Value::Table(more)) => {
                for (key, node) in more {
                    match entries.iter_mut().find(|(k, _)| k.name == key.name) {
                        Some((_, old)) => old.merge(node),
                        None => entries.push((key, node)),
                    }
                }
            }
            (old, new) => {
                *old = new;
                self.origin = over.origin;
            }
        }
    }

    /// Sets the value at a dotted path, making the tables on the way. A number as a
    /// path part indexes an array.
    ///
    /// # Errors
    /// The path leads through a value that is no table, or to an item that an array does not have.
    pub fn set(&mut self, path: &[&str], over: Node) -> Result<(), Error> {
        let Some((first, rest)) = path.split_first() else {
            *self = over;
            return Ok(());
        };
        let origin = over.origin.clone();
        match &mut self.value {
            Value::Array(items) => {
                let count = items.len();
                let item = first.parse().ok().and_then(|i: usize| items.get_mut(i)).ok_or_else(|| {
                    origin.locate(Error::usage(format!("`{first}` is not an index of an array of {count}")))
                })?;
                item.set(rest, over)
            }
            Value::Table(entries) => match entries.iter_mut().find(|(k, _)| k.name == *first) {
                Some((_, node)) => node.set(rest, over),
                None => {
                    let mut node = Node { value: Value::Table(Vec::new()), origin: origin.clone() };
                    node.set(rest, over)?;
                    entries.push((Key { name: (*first).to_owned(), origin }, node));
                    Ok(())
                }
            },
            _ => Err(origin.locate(Error::usage(format!("`{first}` is set below a value that is not a table")))),
        }
    }

    /// Calls `change` on every string of the tree.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn texts_mut(
        &mut self,
        change: &mut dyn FnMut(&mut String, &Origin) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &mut self.value {
            Value::Text(text) => change(text, &self.origin),
            Value::Array(items) => items.iter_mut().try_for_each(|item| item.texts_mut(change)),
            Value::Table(entries) => entries.iter_mut().try_for_each(|(_, node)| node.texts_mut(change)),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(()),
        }
    }

    /// Reads the tree into a type; an unknown key or a wrong type points at its place.
    ///
    /// # Errors
    /// An unknown or missing key, or a value of the wrong type.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        super::de::read(self)
    }

    /// Canonical JSON (keys sorted): what fingerprints hash.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) => text.as_str().into(),
            Value::Integer(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => n.into(),
                (_, Ok(n)) => n.into(),
                _ => n.to_string().into(),
            },
            // JSON has no NaN or infinity; their names keep fingerprints apart.
            Value::Float(x) => serde_json::Number::from_f64(*x).map_or_else(|| x.to_string().into(), Into::into),
            Value::Boolean(b) => (*b).into(),
            Value::Array(items) => items.iter().map(Node::to_json).collect(),
            Value::Table(entries) => {
                let mut sorted: Vec<_> = entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect();
                sorted.sort_by(|a, b| a.0.cmp(&b.0));
                serde_json::Value::Object(sorted.into_iter().collect())
            }
        }
    }

    fn set_origin(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::Array(items) => items.iter_mut().for_each(|item| item.set_origin(origin)),
            Value::Table(entries) => {
                for (key, node) in entries {
                    key.origin = origin.clone();
                    node.set_origin(origin);
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        })
    }
}

fn convert_table(table: toml::de::DeTable<'_>, source: &Arc<Source>) -> Value {
    let mut entries: Vec<(Key, Node)> = table
        .into_iter()
        .map(|(key, value)| {
            let key_origin = Origin { source: Arc::clone(source), span: key.span() };
            let origin = Origin { source: Arc::clone(source), span: value.span() };
            let node = Node { value: convert(value.into_inner(), source), origin };
            (Key { name: key.into_inner().into_owned(), origin: key_origin }, node)
        })
        .collect();
    // The parser's map is sorted by name; people wrote an order, and stages are numbered by it.
    entries.sort_by_key(|(key, _)| key.origin.span.start);
    Value::Table(entries)
}

fn convert(value: toml::de::DeValue<'_>, source: &Arc<Source>) -> Value {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(n) => i128::from_str_radix(n.as_str(), n.radix())
            .map_or_else(|_| Value::Text(n.as_str().to_owned()), Value::Integer),
        DeValue::Float(x) => x.as_str().parse().map_or_else(|_| Value::Text(x.as_str().to_owned()), Value::Float),
        DeValue::Boolean(b) => Value::Boolean(b),
        DeValue::Datetime(date) => Value::Text(date.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .into_iter()
                .map(|item| {
                    let origin = Origin { source: Arc::clone(source), span: item.span() };
                    Node { value: convert(item.into_inner(), source), origin }
                })
                .collect(),
        ),
        DeValue::Table(table) => convert_table(table, source),
    }
}
