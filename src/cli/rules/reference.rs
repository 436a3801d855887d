//! `rules list`: the reference and the JSON Schema, generated from the rules themselves.

use serde_json::{Map, Value, json};

use super::ListArgs;
use crate::error::{Error, Result, nearest};
use crate::rule::params::in_a_line;
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
            return Err(match nearest(name, names()) {
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
    for (name, meaning) in file::facts() {
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
        let (default, below) = match &field.default {
            Value::Null => ("not set".to_owned(), None),
            Value::String(text) if text.contains('\n') => ("below".to_owned(), Some(text)),
            value => (in_toml(value), None),
        };
        out += &format!("- `{}` (default {default}): {}\n", field.name, in_a_line(field.doc));
        let values = field.schema.get("oneOf").or_else(|| field.schema.pointer("/items/oneOf"));
        for value in values.and_then(Value::as_array).into_iter().flatten() {
            let text = |key: &str| value.get(key).and_then(Value::as_str);
            let name = text("const").or(text("title")).unwrap_or_default();
            out += &format!("    - `{name}`: {}\n", in_a_line(text("description").unwrap_or_default()));
        }
        if let Some(text) = below {
            out += &format!("\n{}\n", indented(text));
        }
    }
    out
}

/// A default as a rule file would say it.
fn in_toml(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

/// A text of several lines as a block of a list's item.
fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("        {line}\n") }).collect()
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
            for field in (kind.fields)() {
                let mut schema = field.schema;
                if let Some(object) = schema.as_object_mut() {
                    object.insert("description".into(), in_a_line(field.doc).into());
                    if !field.default.is_null() {
                        object.insert("default".into(), field.default);
                    }
                }
                properties.insert(field.name.into(), schema);
            }
            json!({"type": "object", "title": kind.name, "properties": properties, "required": ["kind"], "additionalProperties": false})
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
            assert!(validator.is_valid(&value), "{name}: {:?}", validator.iter_errors(&value).next());
        }
        for settings in [
            json!({"tolerance": "exact", "extract": ["boxed", "hash"]}),
            json!({"tolerance": {"relative": 0.01}, "think_tags": [{"open": "<r>", "close": "</r>"}]}),
        ] {
            let mut rule = settings.clone();
            rule["kind"] = "math".into();
            assert!(validator.is_valid(&json!({"rules": {"m": rule}})), "{settings}");
        }
        for settings in [json!({"tolerence": "exact"}), json!({"tolerance": {"relativ": 1}}), json!({"think": "never"})]
        {
            let mut rule = settings.clone();
            rule["kind"] = "math".into();
            assert!(!validator.is_valid(&json!({"rules": {"m": rule}})), "{settings}");
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
            let (fields, printed) = ((kind.fields)(), kind_in_full(kind));
            assert!(!fields.is_empty(), "{} has no reference of its parameters", kind.name);
            for field in fields {
                assert!(field.doc.len() > 10, "{}.{}", kind.name, field.name);
                assert!(printed.contains(&format!("\n- `{}` (default ", field.name)), "{printed}");
            }
            assert!(!printed.contains("``"), "a value without a name: {printed}");
        }
    }

    #[test]
    fn the_reference_of_a_kind_tells_every_value_and_default() {
        let math = kind_in_full(registry::kind("math").unwrap());
        for line in [
            "- `extract` (default [\"boxed\", \"hash\", \"final_answer\", \"last_math\", \"last_line\"]): Places ",
            "    - `last_number`: The last number anywhere.",
            "- `tolerance` (default \"gold_precision\"): Which ",
            "    - `{ relative = limit }`: |answer - gold| <= limit * |gold|.",
            "    - `required`: The closing tag must be there.",
            "- `think_tags` (default [{ close = \"</think>\", open = \"<think>\" }]): ",
        ] {
            assert!(math.lines().any(|found| found.starts_with(line)), "{line}: {math}");
        }
        let judge = kind_in_full(registry::kind("judge").unwrap());
        assert!(judge.contains("- `template` (default below): "), "{judge}");
        assert!(judge.contains("\n        VERDICT: incorrect\n"), "{judge}");
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
