//! The tests of a prompt, in the layouts of the field.

use serde_json::Value;

use super::Language;

/// What a program is tested with.
pub(super) struct Suite {
    pub language: Option<Language>,
    /// Code before each assertion (imports).
    pub setup: String,
    pub tests: Tests,
}

pub(super) enum Tests {
    /// (standard input, expected standard output).
    Streams(Vec<(String, String)>),
    /// Statements that must not raise.
    Asserts(Vec<String>),
}

/// Reads a verification: own layout, TACO/APPS `inputs`/`outputs`, MBPP `test_list`, HumanEval `test`.
pub(super) fn parse(verification: Option<&str>, most: usize) -> Result<Suite, &'static str> {
    let value: Value = serde_json::from_str(verification.ok_or("tests_missing")?).map_err(|_| "tests_unparsed")?;
    let value = match value.get("input_output") {
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| "tests_unparsed")?,
        Some(inner) => inner.clone(),
        None => value,
    };
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    let language = Language::from_word(text("language"));
    let mut setup =
        ["setup", "test_setup_code"].iter().map(|key| text(key)).collect::<Vec<_>>().join("\n").trim().to_owned();
    let tests = if let Some(tests) = value.get("tests").and_then(Value::as_array) {
        let pairs = tests.iter().take(most).map(|test| Some((stream(test.get("input"))?, stream(test.get("output"))?)));
        Tests::Streams(pairs.collect::<Option<_>>().ok_or("tests_unparsed")?)
    } else if let (Some(inputs), Some(outputs)) =
        (value.get("inputs").and_then(Value::as_array), value.get("outputs").and_then(Value::as_array))
    {
        if inputs.len() != outputs.len() {
            return Err("tests_unparsed");
        }
        let pairs = inputs.iter().zip(outputs).take(most).map(|(i, o)| Some((stream(Some(i))?, stream(Some(o))?)));
        Tests::Streams(pairs.collect::<Option<_>>().ok_or("tests_unparsed")?)
    } else if let Some(list) = ["asserts", "test_list"].iter().find_map(|key| value.get(*key)).and_then(Value::as_array)
    {
        let asserts = list.iter().take(most).map(|test| test.as_str().map(str::to_owned));
        Tests::Asserts(asserts.collect::<Option<_>>().ok_or("tests_unparsed")?)
    } else if !text("test").is_empty() {
        setup = format!("{setup}\n{}", text("test"));
        let entry = text("entry_point");
        Tests::Asserts(vec![if entry.is_empty() { "pass".to_owned() } else { format!("check({entry})") }])
    } else {
        return Err("tests_missing");
    };
    let none = match &tests {
        Tests::Streams(streams) => streams.is_empty(),
        Tests::Asserts(asserts) => asserts.is_empty(),
    };
    if none { Err("tests_missing") } else { Ok(Suite { language, setup, tests }) }
}

/// A stream as text: a string, or the lines of a list.
fn stream(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => {
            let lines: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
            Some(lines?.join("\n"))
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
