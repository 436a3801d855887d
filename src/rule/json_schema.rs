//! The JSON-schema rule: is the answer JSON of the form that was asked for?

use jsonschema::Validator;
use serde_json::Value;

use super::params::{ParamError, params};
use super::text::shorten;
use super::{Rule, Sample, Verdict, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the answer is JSON that a schema accepts
# What
Reads the answer as JSON (whole, or its only fenced block) and validates it
against `schema`, or against `schema` in the prompt's verification JSON. With
`equals_gold` it must also equal gold, objects in any order.
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

/// See [`DOC`].
pub struct JsonSchemaRule {
    config: JsonSchemaConfig,
    validator: Option<Validator>,
}

fn validator(schema: &Value) -> Result<Validator, String> {
    // Linear-time patterns only: a schema comes with the data.
    jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(1 << 20))
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
                Some(built)
            }
        };
        Ok(JsonSchemaRule { config, validator })
    }

    fn judge(&self, validator: &Validator, sample: &Sample<'_>) -> Verdict {
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
        if let Some(error) = validator.iter_errors(&value).next() {
            return Verdict::wrong("schema_violated")
                .with("error", shorten(&error.to_string(), 200))
                .with("at", error.instance_path().to_string());
        }
        if self.config.equals_gold {
            match sample.gold.map(serde_json::from_str::<Value>) {
                None => return Verdict::cannot_tell("gold_missing"),
                Some(Err(_)) => return Verdict::cannot_tell("gold_unparsed"),
                Some(Ok(gold)) if gold != value => return Verdict::wrong("not_equal"),
                Some(Ok(_)) => {}
            }
        }
        Verdict::correct("schema_kept")
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
        if let Some(validator) = &self.validator {
            return self.judge(validator, sample);
        }
        let parsed: Option<Value> = sample.verification.and_then(|text| serde_json::from_str(text).ok());
        let Some(schema) = parsed.as_ref().and_then(|v| v.get("schema").or_else(|| v.get("json_schema"))) else {
            return Verdict::cannot_tell("schema_missing");
        };
        match validator(schema) {
            Ok(validator) => self.judge(&validator, sample),
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
}
