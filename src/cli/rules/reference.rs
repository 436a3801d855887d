//! `rules list`: the reference and the JSON Schema, generated from the rules themselves.

use serde_json::{Map, Value, json};

use super::ListArgs;
use crate::error::{Error, Result};
use crate::rule::registry::{self, Kind};
use crate::rule::{expression, file};

pub(super) fn run(args: &ListArgs) -> Result<()> {
    if args.schema {
        outln!("{:#}", schema());
        return Ok(());
    }
    if let Some(name) = &args.kind {
        let Some(kind) = registry::kind(name) else {
            let names = || registry::kinds().iter().map(|kind| kind.name);
            let error = Error::usage(format!("there is no kind of rule `{name}`"));
            return Err(match expression::nearest(name, names()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("kinds: {}", names().collect::<Vec<_>>().join(", "))),
            });
        };
        outln!("{}", kind_in_full(kind));
        return Ok(());
    }
    if args.all {
        for kind in registry::kinds() {
            outln!("{}", kind_in_full(kind));
        }
    } else {
        outln!("Kinds of rules (`gristmill rules list KIND` for the parameters):\n");
        for kind in registry::kinds() {
            outln!("  {:<12} {}", kind.name, kind.summary);
        }
    }
    outln!("\nFacts a reward may use beside the rules' scores:\n");
    for (name, meaning) in file::FACTS {
        outln!("  {name:<16} {meaning}");
    }
    outln!("\nFunctions, beside + - * / % ^ and the constants pi and e:\n");
    for (name, meaning) in expression::functions() {
        outln!("  {name:<16} {meaning}");
    }
    outln!("\nBuilt-in rule files: {}", file::BUILTIN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "));
    Ok(())
}

/// One kind as Markdown: what, why, example, parameters.
fn kind_in_full(kind: &Kind) -> String {
    let (summary, rest) = kind.doc.split_once('\n').unwrap_or((kind.doc, ""));
    let mut out = format!(
        "# {}\n\n{summary}.\n\n{}\n",
        kind.name,
        rest.replace("\n# ", "\n\n## ").replacen("# ", "## ", usize::from(rest.starts_with("# ")))
    );
    let fields = (kind.fields)();
    if !fields.is_empty() {
        out += "\n## Parameters\n\n";
    }
    for field in fields {
        let default = match &field.default {
            Value::Null => "not set".to_owned(),
            Value::String(text) if text.contains('\n') || text.len() > 60 => "see the source".to_owned(),
            value => format!("{value}"),
        };
        out += &format!("- `{}` (default {default}): {}\n", field.name, field.doc);
        for variant in field.schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| variant.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            out += &format!("    - `{}`: {}\n", text("const"), text("description"));
        }
    }
    out
}

/// The JSON Schema of a rule file.
pub(super) fn schema() -> Value {
    let strings = json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]});
    let rules: Vec<Value> = registry::kinds()
        .iter()
        .map(|kind| {
            let mut properties = Map::new();
            properties.insert("kind".into(), json!({"const": kind.name, "description": kind.summary}));
            properties.insert("name".into(), json!({"type": "string"}));
            properties.insert("domains".into(), strings.clone());
            properties.insert("languages".into(), strings.clone());
            properties.insert("fallback_for".into(), strings.clone());
            let fields = (kind.fields)();
            let closed = !fields.is_empty();
            for field in fields {
                let mut schema = field.schema;
                if let Some(object) = schema.as_object_mut() {
                    object.insert("description".into(), field.doc.into());
                    if !field.default.is_null() {
                        object.insert("default".into(), field.default);
                    }
                }
                properties.insert(field.name.into(), schema);
            }
            json!({"type": "object", "title": kind.name, "properties": properties, "required": ["kind"], "additionalProperties": !closed})
        })
        .collect();
    // A rule that changes one of the extended file needs no kind.
    let rule = json!({"anyOf": [{"oneOf": rules}, {"type": "object", "not": {"required": ["kind"]}}]});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gristmill rule file",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "extends": {"type": "string", "description": "a rule file's path or a built-in name"},
            "without": strings,
            "reward": {"type": "string", "description": "expression over rule scores and facts"},
            "outcome": strings,
            "clip": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
            "meta": {"type": "object", "properties": {"name": {"type": "string"}, "description": {"type": "string"}, "version": {}, "authors": {}, "url": {}}, "additionalProperties": false},
            "rewards": {"type": "object", "additionalProperties": {"type": "string"}},
            "rule": {"type": "array", "items": rule},
            "rules": {"type": "object", "additionalProperties": rule},
            "examples": {"type": "array", "items": {"type": "object", "required": ["completion"]}}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_accepts_the_built_in_files_and_rejects_misspelt_ones() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        for (name, text) in file::BUILTIN {
            let value: toml::Value = toml::from_str(text).unwrap();
            let value = serde_json::to_value(value).unwrap();
            // Kinds that this build does not have cannot be in its schema.
            let known = |rule: &Value| {
                rule.get("kind").and_then(Value::as_str).is_none_or(|kind| registry::kind(kind).is_some())
            };
            if value["rules"].as_object().is_some_and(|rules| rules.values().all(known)) {
                assert!(validator.is_valid(&value), "{name}: {:?}", validator.iter_errors(&value).next());
            }
        }
        assert!(!validator.is_valid(&json!({"rules": {"f": {"kind": "format", "stile": "think"}}})));
        assert!(!validator.is_valid(&json!({"rewrd": "f"})));
    }

    #[test]
    fn every_parameter_and_kind_is_documented() {
        for kind in registry::kinds() {
            assert!(
                kind.doc.contains("# What") && kind.doc.contains("# Why") && kind.doc.contains("# Example"),
                "{}",
                kind.name
            );
            for field in (kind.fields)() {
                assert!(field.doc.len() > 10, "{}.{}", kind.name, field.name);
            }
        }
    }

    #[test]
    fn every_example_in_the_reference_loads() {
        for kind in registry::kinds() {
            let example = kind.doc.split("# Example\n").nth(1).unwrap();
            let name = example.split("[rules.").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
            let base = "[rules.accuracy]\nkind = \"exact\"\n";
            let base = if name == "accuracy" { "" } else { base };
            let text = format!("reward = \"{name}\"\n{base}{example}");
            if let Err(error) = crate::rule::RuleSet::parse(&text, kind.name) {
                panic!("{}", error.render(false));
            }
        }
    }
}
