//! Reads a [`Node`] into a type with serde, and points every error at its place.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::foreign;
use super::node::{Key, Node, Origin, Value};
use crate::error::{Error, nearest};

/// Reads the tree; see [`Node::read`].
pub fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Error> {
    T::deserialize(Reader(node)).map_err(|fault| {
        let origin = fault.origin.as_ref().unwrap_or(&node.origin);
        let error = origin.locate(Error::usage(fault.message));
        fault.hint.into_iter().fold(error, Error::hint)
    })
}

/// An error on its way up: the innermost place wins.
#[derive(Debug)]
struct Fault {
    message: String,
    hint: Option<String>,
    origin: Option<Origin>,
}

impl Fault {
    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Fault { message: message.to_string(), hint: None, origin: None }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault { message: format!("unknown key `{field}`"), hint: Some(suggest_key(field, expected)), origin: None }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Fault { message: format!("unknown value `{variant}`"), hint: Some(suggest(variant, expected)), origin: None }
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        de::Error::custom(format!("this is {}; expected {}", in_words(&found), wanted(expected)))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        de::Error::custom(format!("{} does not fit; expected {}", in_words(&found), wanted(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Fault { message: format!("the key `{field}` is missing"), hint: None, origin: None }
    }
}

/// What was found, in the words of TOML.
fn in_words(found: &de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Str(text) => format!("the text \"{text}\""),
        de::Unexpected::Signed(n) => format!("the number {n}"),
        de::Unexpected::Unsigned(n) => format!("the number {n}"),
        de::Unexpected::Float(x) => format!("the number {x}"),
        de::Unexpected::Bool(b) => format!("`{b}`"),
        de::Unexpected::Seq => "an array".to_owned(),
        de::Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// What Rust's types are called outside Rust.
fn wanted(expected: &dyn de::Expected) -> String {
    match expected.to_string().as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a string" => "a text in quotes".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "an array".to_owned(),
        other => other.strip_prefix("struct ").map_or(other.to_owned(), |_| "a table".to_owned()),
    }
}

/// What an unknown key is here by the name another trainer has for it, else as [`suggest`].
fn suggest_key(name: &str, known: &[&str]) -> String {
    foreign::meaning(name, known).unwrap_or_else(|| suggest(name, known))
}

/// "did you mean …?" for a near miss, else the list of what is known.
pub(crate) fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "no key is known here".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The serde side of a [`Node`], kept private with its error.
struct Reader<'a>(&'a Node);

impl<'de> de::Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(n) => match (i64::try_from(*n), u64::try_from(*n)) {
                (Ok(n), _) => visitor.visit_i64(n),
                (_, Ok(n)) => visitor.visit_u64(n),
                _ => Err(de::Error::custom(format!("{n} is too large for a whole number of 64 bits"))),
            },
            Value::Float(x) => visitor.visit_f64(*x),
            Value::Boolean(b) => visitor.visit_bool(*b),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        }
        .map_err(|fault: Fault| fault.at(&self.0.origin))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    /// `1` where a float is wanted is a float.
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.value {
            Value::Integer(n) => visitor.visit_f64(n as f64).map_err(|fault: Fault| fault.at(&self.0.origin)),
            _ => self.deserialize_any(visitor),
        }
    }

    /// In `--set name=2024` the text 2024 needs no quotes.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.written() {
            Some(text) if self.0.origin.source.is_argument => {
                visitor.visit_borrowed_str(text).map_err(|fault: Fault| fault.at(&self.0.origin))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let access = match &self.0.value {
            Value::Text(text) => {
                return visitor.visit_enum(text.as_str().into_deserializer()).map_err(|f: Fault| f.at(&self.0.origin));
            }
            Value::Table(entries) if entries.len() == 1 => Entries { rest: entries.iter(), value: None },
            other => {
                let message = format!("expected a name or a table with one key, found {other}");
                return Err(Fault { message, hint: None, origin: Some(self.0.origin.clone()) });
            }
        };
        visitor.visit_enum(de::value::MapAccessDeserializer::new(access)).map_err(|f: Fault| f.at(&self.0.origin))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.0.next().map(|node| seed.deserialize(Reader(node)).map_err(|fault| fault.at(&node.origin))).transpose()
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, node)) = self.rest.next() else { return Ok(None) };
        self.value = Some(node);
        let name: de::value::BorrowedStrDeserializer<'_, Fault> = de::value::BorrowedStrDeserializer::new(&key.name);
        seed.deserialize(name).map(Some).map_err(|fault| fault.at(&key.origin))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node = self.value.take().expect("serde asks for a key before its value");
        seed.deserialize(Reader(node)).map_err(|fault| fault.at(&node.origin))
    }
}
