//! The JSON-schema rule: is the answer JSON of the form that was asked for?

use jsonschema::Validator;
use serde_json::Value;

mod meter;

use super::params::{ParamError, params};
use super::text::shorten;
use super::{Rule, Sample, Verdict, think};
use meter::Refusal;

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the answer is JSON that a schema accepts
# What
Reads the answer as JSON (whole, or its only fenced block) and validates it
against `schema`, or against `schema` in the prompt's verification JSON. With
`equals_gold` it must also equal gold, objects in any order. References stay inside
the schema: nothing is fetched. Work is counted before it is done; too much of it
is `too_much_work`, a schema that refers to itself without end `schema_invalid`.
# Why
Structured output and tool calls have a form that a machine can check fully.
# Example
    [rules.form]
    kind = "json_schema"
    schema = '{"type": "object", "required": ["name"]}'"#;

params! {
    /// Parameters of the JSON-schema rule.
    pub struct JsonSchemaConfig {
        /// The schema, as JSON text; without it, each prompt's verification must have one.
        schema: Option<String> = None,
        /// Accept JSON inside a single fenced block with text around it.
        allow_fence: bool = true,
        /// The JSON must also equal gold.
        equals_gold: bool = false,
    }
}

/// Longest answer that is parsed, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Longest verification that holds a schema, in bytes.
const MAX_SCHEMA: usize = 256 << 10;

/// See [`DOC`].
pub struct JsonSchemaRule {
    config: JsonSchemaConfig,
    validator: Option<(Value, Validator)>,
}

fn validator(schema: &Value) -> Result<Validator, String> {
    match meter::schema(schema) {
        Ok(()) => {}
        Err(Refusal::Schema(why)) => return Err(why),
        Err(Refusal::TooMuch) => return Err("it is too deep".into()),
    }
    // Linear-time patterns only: a schema comes with the data.
    jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(1 << 18))
        .build(schema)
        .map_err(|error| error.to_string())
}

impl JsonSchemaRule {
    /// # Errors
    /// A schema that is not JSON or not a schema.
    pub fn new(config: JsonSchemaConfig) -> Result<Self, ParamError> {
        let validator = match &config.schema {
            None => None,
            Some(text) => {
                let schema: Value = serde_json::from_str(text)
                    .map_err(|error| ParamError::new("schema", format!("the schema is not JSON: {error}")))?;
                let built = validator(&schema)
                    .map_err(|error| ParamError::new("schema", format!("this is not a JSON Schema: {error}")))?;
                Some((schema, built))
            }
        };
        Ok(JsonSchemaRule { config, validator })
    }

    fn judge(&self, schema: &Value, validator: &Validator, sample: &Sample<'_>) -> Verdict {
        let answer = think::split(sample.completion).answer;
        if answer.len() > MAX_BYTES {
            return Verdict::wrong("too_long");
        }
        let text = match fence(answer) {
            Some(inside) if self.config.allow_fence => inside,
            _ => answer,
        };
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return Verdict::wrong("not_json").with("error", error.to_string()),
        };
        match meter::document(schema, &value) {
            Ok(()) => {}
            Err(Refusal::TooMuch) => return Verdict::cannot_tell("too_much_work"),
            Err(Refusal::Schema(why)) => return Verdict::cannot_tell("schema_invalid").with("error", why),
        }
        if let Some(error) = validator.iter_errors(&value).next() {
            return Verdict::wrong("schema_violated")
                .with("error", shorten(&error.to_string(), 200))
                .with("at", error.instance_path().to_string());
        }
        if self.config.equals_gold {
            match sample.gold.map(serde_json::from_str::<Value>) {
                None => return Verdict::cannot_tell("gold_missing"),
                Some(Err(_)) => return Verdict::cannot_tell("gold_unparsed"),
                Some(Ok(gold)) if !same(&gold, &value) => return Verdict::wrong("not_equal"),
                Some(Ok(_)) => {}
            }
        }
        Verdict::correct("schema_kept")
    }
}

/// Equality of JSON: `4` and `4.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, a)| y.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// The inside of the only fenced block.
pub(crate) fn fence(text: &str) -> Option<&str> {
    let open = text.find("```")?;
    let body = &text[open + 3..];
    let body = &body[body.find('\n')? + 1..];
    let close = body.find("```")?;
    (!body[close + 3..].contains("```")).then_some(&body[..close])
}

impl Rule for JsonSchemaRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        if let Some((schema, validator)) = &self.validator {
            return self.judge(schema, validator, sample);
        }
        if sample.verification.is_some_and(|text| text.len() > MAX_SCHEMA) {
            return Verdict::cannot_tell("schema_too_long");
        }
        let parsed: Option<Value> = sample.verification.and_then(|text| serde_json::from_str(text).ok());
        let Some(schema) = parsed.as_ref().and_then(|v| v.get("schema").or_else(|| v.get("json_schema"))) else {
            return Verdict::cannot_tell("schema_missing");
        };
        match validator(schema) {
            Ok(validator) => self.judge(schema, &validator, sample),
            Err(error) => Verdict::cannot_tell("schema_invalid").with("error", shorten(&error, 200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{sample, with_gold};

    const SCHEMA: &str = r#"{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}"#;

    #[test]
    fn form_is_checked_in_full() {
        let rule = JsonSchemaRule::new(JsonSchemaConfig { schema: Some(SCHEMA.into()), ..Default::default() }).unwrap();
        let reason = |text: &str| rule.check(&sample(text)).reason;
        assert_eq!(reason("<think>x</think>{\"n\": 4}"), "schema_kept");
        assert_eq!(reason("Here:\n```json\n{\"n\": 4}\n```"), "schema_kept");
        assert_eq!(reason("{\"n\": \"4\"}"), "schema_violated");
        assert_eq!(reason("{\"n\": 4"), "not_json");
        assert_eq!(reason(&"[".repeat(100_000)), "not_json");
    }

    #[test]
    fn schemas_come_with_the_prompt_too() {
        let rule = JsonSchemaRule::new(JsonSchemaConfig { equals_gold: true, ..Default::default() }).unwrap();
        let verification = format!("{{\"schema\": {SCHEMA}}}");
        let mut s = with_gold("{\"n\": 4, \"m\": 1}", "{\"m\": 1, \"n\": 4}");
        assert_eq!(rule.check(&s).reason, "schema_missing");
        s.verification = Some(&verification);
        assert_eq!(rule.check(&s).reason, "schema_kept");
        s.gold = Some("{\"n\": 5}");
        assert_eq!(rule.check(&s).reason, "not_equal");
        s.verification = Some(r#"{"schema": {"type": 7}}"#);
        assert_eq!(rule.check(&s).reason, "schema_invalid");
    }

    /// Each would loop, take exponential time or fetch; each with a document that makes it.
    #[test]
    fn work_is_bounded_and_nothing_is_fetched() {
        let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100), close.repeat(100));
        let ladder: String = (0..60)
            .map(|i| {
                format!(r##""s{i}": {{"allOf": [{{"$ref": "#/$defs/s{0}"}}, {{"$ref": "#/$defs/s{0}"}}]}}, "##, i + 1)
            })
            .collect();
        let cases = [
            (r##"{"$ref": "#"}"##.to_owned(), "1".to_owned(), "schema_invalid"),
            (r##"{"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}}"##.into(), "1".into(), "schema_invalid"),
            (r#"{"$ref": "http://127.0.0.1:9/x.json"}"#.into(), "1".into(), "schema_invalid"),
            (r#"{"$ref": "file:///etc/passwd"}"#.into(), "1".into(), "schema_invalid"),
            (r##"{"properties": {"a": {"$id": "http://x/", "$ref": "y"}}}"##.into(), "{\"a\":1}".into(), "schema_invalid"),
            (r##"{"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["b"]}, {"properties": {"a": {"$ref": "#"}}, "required": ["c"]}]}"##.into(), deep("{\"a\":", "}"), "too_much_work"),
            (format!(r##"{{"$ref": "#/$defs/s0", "$defs": {{{ladder}"s60": true}}}}"##), "1".into(), "schema_invalid"),
            (r#"{"pattern": "(a{200}b?){200}"}"#.into(), format!("\"{}\"", "a".repeat(100_000)), "schema_invalid"),
            (r#"{"pattern": "^(a|aa)+$"}"#.into(), format!("\"{}b\"", "a".repeat(100_000)), "schema_violated"),
            (r##"{"type": ["array", "integer"], "items": {"$ref": "#"}}"##.into(), deep("[", "]"), "schema_kept"),
            (r#"{"uniqueItems": true}"#.into(), format!("[{}]", (0..100_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",")), "schema_kept"),
            (r##"{"properties": {"a b": {"$ref": "#/$defs/a%20b"}, "c": {"$ref": "#d"}}, "$defs": {"a b": {"type": "integer"}, "d": {"$anchor": "d", "type": "integer"}}}"##.into(), "{\"a b\": 1, \"c\": 2}".into(), "schema_kept"),
        ];
        let rule = JsonSchemaRule::new(JsonSchemaConfig::default()).unwrap();
        for (schema, document, reason) in cases {
            let verification = format!("{{\"schema\": {schema}}}");
            let mut s = sample(&document);
            s.verification = Some(&verification);
            let start = std::time::Instant::now();
            let verdict = rule.check(&s);
            assert_eq!(verdict.reason, reason, "{schema} {verdict:?}");
            assert!(start.elapsed() < std::time::Duration::from_secs(5), "{schema}: {:?}", start.elapsed());
        }
        let endless = JsonSchemaConfig { schema: Some(r##"{"$ref": "#"}"##.into()), ..Default::default() };
        assert!(JsonSchemaRule::new(endless).is_err());
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let rule = JsonSchemaRule::new(JsonSchemaConfig {
            schema: Some("{}".into()),
            equals_gold: true,
            ..Default::default()
        })
        .unwrap();
        assert_eq!(rule.check(&with_gold("{\"n\": [4.0]}", "{\"n\": [4]}")).reason, "schema_kept");
        assert_eq!(rule.check(&with_gold("{\"n\": [4.5]}", "{\"n\": [4]}")).reason, "not_equal");
        assert_eq!(rule.check(&with_gold("9007199254740993", "9007199254740992")).reason, "not_equal");
    }
}
