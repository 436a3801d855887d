//! How much work a schema makes of a document, before it is done.
//!
//! A schema comes with the data and a document from a policy; together they can make a validator loop (`$ref` to
//! itself), take exponential time (two branches that both go on to the same recursive schema) or fetch from the
//! network. The meter walks the same pairs of subschema and value, each once, and adds up what a validator that
//! remembers nothing would do; so its own work is at most the number of pairs, and the sum is an upper bound.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Why a schema is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It never ends, or refers to what is not in it: a fault of the schema.
    Schema(String),
    /// More than [`BUDGET`] for this document.
    TooMuch,
}

/// Steps: a subschema applied to a value, an entry of a list compared, 64 characters against a small pattern.
const BUDGET: u64 = 4_000_000;
/// Most pairs walked.
const MAX_PAIRS: usize = 500_000;
/// Deepest chain of subschemas: validators recurse.
const MAX_DEPTH: usize = 400;
/// Most patterns of a schema; each is compiled to bounded size.
const MAX_PATTERNS: usize = 256;

/// Checks a schema by itself.
///
/// # Errors
/// References that loop, or to elsewhere; too many patterns.
pub(super) fn schema(schema: &Value) -> Result<(), Refusal> {
    let (mut open, mut patterns) = (vec![schema], 0);
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(map) => {
                patterns += usize::from(map.get("pattern").is_some_and(Value::is_string));
                patterns += map.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len);
                open.extend(map.values());
            }
            _ => {}
        }
    }
    if patterns > MAX_PATTERNS {
        return Err(Refusal::Schema(format!("{patterns} patterns; at most {MAX_PATTERNS} are taken")));
    }
    document(schema, &Value::Null)
}

/// Checks a schema with a document.
///
/// # Errors
/// As [`schema`], and too much work.
pub(super) fn document(schema: &Value, document: &Value) -> Result<(), Refusal> {
    let mut meter = Meter { root: schema, anchors: HashMap::new(), known: HashMap::new(), names: Vec::new(), depth: 0 };
    meter.find_anchors();
    meter.apply(schema, document).map(|_| ())
}

struct Meter<'s> {
    root: &'s Value,
    anchors: HashMap<&'s str, &'s Value>,
    /// By the places of subschema and value; `None` while it is being walked.
    known: HashMap<(*const Value, *const Value), Option<u64>>,
    /// Property names as values, kept so that their places stay theirs.
    #[expect(clippy::vec_box, reason = "a value in the vector itself would move when it grows")]
    names: Vec<Box<Value>>,
    depth: usize,
}

impl<'s> Meter<'s> {
    fn find_anchors(&mut self) {
        let mut open = vec![self.root];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(items) => open.extend(items),
                Value::Object(map) => {
                    for key in ["$anchor", "$dynamicAnchor"] {
                        if let Some(name) = map.get(key).and_then(Value::as_str) {
                            self.anchors.insert(name, value);
                        }
                    }
                    open.extend(map.values());
                }
                _ => {}
            }
        }
    }

    fn apply(&mut self, schema: &'s Value, value: &Value) -> Result<u64, Refusal> {
        let Value::Object(map) = schema else { return Ok(1) };
        let pair = (std::ptr::from_ref(schema), std::ptr::from_ref(value));
        match self.known.get(&pair) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Err(Refusal::Schema("a reference leads back to itself".into())),
            None => {}
        }
        if self.known.len() >= MAX_PAIRS || self.depth >= MAX_DEPTH {
            return Err(Refusal::TooMuch);
        }
        self.known.insert(pair, None);
        self.depth += 1;
        let mut cost = 1u64;
        for (key, part) in map {
            cost = cost.saturating_add(self.keyword(key, part, value)?);
        }
        // What has been evaluated is found by evaluating once more.
        if map.contains_key("unevaluatedProperties") || map.contains_key("unevaluatedItems") {
            cost = cost.saturating_mul(4);
        }
        self.depth -= 1;
        if cost > BUDGET {
            return Err(Refusal::TooMuch);
        }
        self.known.insert(pair, Some(cost));
        Ok(cost)
    }

    fn each<'v>(&mut self, schema: &'s Value, values: impl IntoIterator<Item = &'v Value>) -> Result<u64, Refusal> {
        values.into_iter().try_fold(0u64, |sum, value| Ok(sum.saturating_add(self.apply(schema, value)?)))
    }

    fn all(&mut self, schemas: impl IntoIterator<Item = &'s Value>, value: &Value) -> Result<u64, Refusal> {
        schemas.into_iter().try_fold(0u64, |sum, schema| Ok(sum.saturating_add(self.apply(schema, value)?)))
    }

    fn keyword(&mut self, key: &str, part: &'s Value, value: &Value) -> Result<u64, Refusal> {
        let nested = self.depth > 1;
        match (key, part, value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(to), _) => {
                let target = self.target(to)?;
                self.apply(target, value)
            }
            ("$id" | "id", Value::String(_), _) if nested => {
                Err(Refusal::Schema(format!("`{key}` below the root is not supported")))
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(parts), _) => self.all(parts, value),
            ("not" | "if" | "then" | "else", part, _) => self.apply(part, value),
            ("dependentSchemas" | "dependencies", Value::Object(parts), _) => self.all(parts.values(), value),
            ("properties", Value::Object(parts), Value::Object(map)) => {
                let mut cost = parts.len() as u64;
                for (name, part) in parts {
                    if let Some(value) = map.get(name) {
                        cost = cost.saturating_add(self.apply(part, value)?);
                    }
                }
                Ok(cost)
            }
            ("patternProperties", Value::Object(parts), Value::Object(map)) => {
                let mut cost = 0u64;
                for (pattern, part) in parts {
                    let matching = map.keys().map(|name| matching(pattern, name)).fold(0, u64::saturating_add);
                    cost = cost.saturating_add(matching).saturating_add(self.each(part, map.values())?);
                }
                Ok(cost)
            }
            ("additionalProperties" | "unevaluatedProperties", part, Value::Object(map)) => {
                self.each(part, map.values())
            }
            ("propertyNames", part, Value::Object(map)) => {
                // What a name costs depends on its length: the longest stands for all.
                let Some(longest) = map.keys().max_by_key(|name| name.len()) else { return Ok(1) };
                let name = Box::new(Value::String(longest.clone()));
                let cost = self.apply(part, &name)?;
                self.names.push(name);
                Ok(cost.saturating_mul(map.len() as u64))
            }
            ("items" | "prefixItems", Value::Array(parts), Value::Array(items)) => parts
                .iter()
                .zip(items)
                .try_fold(0u64, |sum, (part, item)| Ok(sum.saturating_add(self.apply(part, item)?))),
            ("items" | "additionalItems" | "unevaluatedItems" | "contains", part, Value::Array(items)) => {
                self.each(part, items)
            }
            ("pattern", Value::String(pattern), Value::String(text)) => Ok(matching(pattern, text)),
            ("enum" | "const", part, _) => Ok(size(part)),
            ("uniqueItems", Value::Bool(true), Value::Array(_)) => Ok(size(value).saturating_mul(2)),
            ("required" | "dependentRequired" | "dependencies", part, Value::Object(_)) => Ok(size(part)),
            _ => Ok(1),
        }
    }

    fn target(&self, to: &str) -> Result<&'s Value, Refusal> {
        let id = self.root.get("$id").or_else(|| self.root.get("id")).and_then(Value::as_str).unwrap_or("");
        let local = to.strip_prefix(id.trim_end_matches('#')).unwrap_or(to);
        let missing = || Refusal::Schema(format!("`{to}` is not in the schema; nothing is fetched"));
        let place = local.strip_prefix('#').or((local.is_empty()).then_some("")).ok_or_else(missing)?;
        if place.is_empty() {
            return Ok(self.root);
        }
        if place.starts_with('/') {
            return self.root.pointer(&unescaped(place)).ok_or_else(missing);
        }
        self.anchors.get(place).copied().ok_or_else(missing)
    }
}

/// A pointer in a fragment, without its percent signs.
fn unescaped(place: &str) -> String {
    let mut bytes = Vec::with_capacity(place.len());
    let mut rest = place.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Steps of a pattern on a text: linear in both, and counted repetitions are written out.
fn matching(pattern: &str, text: &str) -> u64 {
    let counts = pattern.split('{').skip(1).filter_map(|rest| {
        let body = rest.split('}').next()?;
        body.split(',').filter_map(|count| count.trim().parse::<u64>().ok()).max()
    });
    let weight = counts.fold(pattern.len() as u64 + 1, |weight, count| weight.saturating_mul(count.max(1)));
    1 + (text.len() as u64).saturating_mul(weight.min(1 << 16)) / 64
}

/// Values in a value.
fn size(value: &Value) -> u64 {
    let (mut open, mut count) = (vec![value], 0);
    while let Some(value) = open.pop() {
        count += 1;
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(map) => open.extend(map.values()),
            _ => {}
        }
    }
    count
}
