//! How rules declare their parameters: one macro gives the struct, its strict
//! TOML form, and the reference that `rules list` and the JSON Schema print.

use serde_json::{Value, json};

/// One parameter of a rule kind, as `rules list` shows it.
#[derive(Clone, Debug)]
pub struct Field {
    /// The key in a rule file.
    pub name: &'static str,
    /// The words of its doc comment, trimmed.
    pub doc: &'static str,
    /// JSON Schema of the value.
    pub schema: Value,
    /// As JSON; null where leaving the key out has a meaning of its own.
    pub default: Value,
}

/// A comment of several lines in one.
pub fn in_a_line(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

impl Field {
    /// What may be written there, in words.
    pub fn form(&self) -> String {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        if let Some(choices) = self.schema.get("oneOf").and_then(Value::as_array) {
            let word =
                |choice: &Value| text(choice, "const").map(|word| format!("\"{word}\"")).or(text(choice, "title"));
            return format!("one of {}", choices.iter().filter_map(word).collect::<Vec<_>>().join(", "));
        }
        match text(&self.schema, "type").as_deref() {
            Some("string") => "a string, in quotes".to_owned(),
            Some("boolean") => "true or false".to_owned(),
            Some("number") => "a number".to_owned(),
            Some("integer") => "a whole number of at least 0".to_owned(),
            Some("array") => "a list".to_owned(),
            Some("object") => "a table".to_owned(),
            _ => "another value".to_owned(),
        }
    }
}

/// A parameter that parses but makes no sense: which one, why, and what to write instead.
#[derive(Clone, Debug)]
pub struct ParamError {
    /// The key at fault.
    pub field: &'static str,
    /// Why it makes no sense, for people.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl ParamError {
    /// A fault of the parameter `field`, without a hint.
    pub fn new(field: &'static str, message: impl Into<String>) -> Self {
        ParamError { field, message: message.into(), hint: None }
    }

    /// Adds what to write instead, in place of an earlier hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A rule's parameters. Implemented by `params!`; [`Params::fields`] is the reference.
pub trait Params: serde::de::DeserializeOwned + Default {
    /// The parameters, in the order of the struct.
    fn fields() -> Vec<Field>;
}

/// A type that may stand in a rule file.
pub trait ParamType {
    /// JSON Schema of the values it may have.
    fn schema() -> Value;
}

impl ParamType for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}
impl ParamType for f64 {
    fn schema() -> Value {
        json!({"type": "number"})
    }
}
impl ParamType for usize {
    fn schema() -> Value {
        json!({"type": "integer", "minimum": 0})
    }
}
impl ParamType for u64 {
    fn schema() -> Value {
        json!({"type": "integer", "minimum": 0})
    }
}
impl ParamType for String {
    fn schema() -> Value {
        json!({"type": "string"})
    }
}
impl ParamType for Value {
    fn schema() -> Value {
        json!({})
    }
}
impl<T: ParamType> ParamType for Vec<T> {
    fn schema() -> Value {
        json!({"type": "array", "items": T::schema()})
    }
}
impl<T: ParamType> ParamType for Option<T> {
    fn schema() -> Value {
        T::schema()
    }
}
impl<T: ParamType> ParamType for std::collections::BTreeMap<String, T> {
    fn schema() -> Value {
        json!({"type": "object", "additionalProperties": T::schema()})
    }
}

/// Declares a rule's parameters: `/// doc` then `name: Type = default`.
macro_rules! params {
    ($(#[doc = $doc:literal])* $vis:vis struct $name:ident {
        $( $(#[doc = $fdoc:literal])* $field:ident : $ty:ty = $default:expr ),* $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        $vis struct $name { $( $(#[doc = $fdoc])* pub $field: $ty ),* }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default ),* }
            }
        }

        impl $crate::rule::params::Params for $name {
            fn fields() -> Vec<$crate::rule::params::Field> {
                let default = serde_json::to_value(Self::default()).unwrap_or_default();
                vec![ $( $crate::rule::params::Field {
                    name: stringify!($field),
                    doc: concat!($($fdoc, "\n"),*).trim(),
                    schema: <$ty as $crate::rule::params::ParamType>::schema(),
                    default: default.get(stringify!($field)).cloned().unwrap_or_default(),
                } ),* ]
            }
        }
    };
}

/// Declares a choice between words: `/// doc` then `Variant = "word"`.
macro_rules! choices {
    ($(#[doc = $doc:literal])* $vis:vis enum $name:ident {
        $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal ),* $(,)?
    }) => {
        $crate::words::words! {
            $(#[doc = $doc])*
            $vis enum $name { $( $(#[doc = $vdoc])* $variant = $word ),* }
        }

        impl $crate::rule::params::ParamType for $name {
            fn schema() -> serde_json::Value {
                serde_json::json!({"oneOf": [
                    $( {"const": $word, "description": concat!($($vdoc, "\n"),*).trim()} ),*
                ]})
            }
        }
    };
}

pub(crate) use {choices, params};
