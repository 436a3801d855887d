//! One test: what a program is given and is to print, what a function is called with, or an assertion.

use serde_json::{Map, Value};

use super::layouts::{Found, INPUTS, OUTPUTS};
use super::{NoTests, Tests, UNPARSED};

/// A test as a list has it.
pub(super) enum Case {
    /// A statement that must not raise.
    Assert(String),
    /// Given, expected, and what else the test says of itself.
    Pair { input: Value, output: Value, beside: Map<String, Value> },
}

/// What a call's assertion is made of.
const CALLS: &str = include_str!("../asserts/calls.py");

impl Case {
    /// `{input, output}` under any of their names, or an assertion (AceCode); `None` for anything else.
    pub fn read(test: Value) -> Option<Self> {
        match test {
            Value::String(text) if is_assertion(&text) => Some(Case::Assert(text)),
            Value::Object(mut beside) => {
                let mut side = |names: &[&str]| names.iter().find_map(|name| beside.remove(*name));
                let (input, output) = (side(&INPUTS), side(&OUTPUTS));
                if input.is_none() && output.is_none() {
                    return None;
                }
                Some(Case::Pair { input: input.unwrap_or_default(), output: output.unwrap_or_default(), beside })
            }
            _ => None,
        }
    }
}

/// Whether a text is one of tests, and not any text.
pub(super) fn is_assertion(text: &str) -> bool {
    text.lines().any(|line| line.trim_start().starts_with("assert"))
}

/// Whether a value looks like a test.
pub(super) fn is_test(value: &Value) -> bool {
    match value {
        Value::String(text) => is_assertion(text),
        Value::Object(test) => INPUTS.iter().any(|name| test.contains_key(*name)),
        _ => false,
    }
}

/// All streams, or all assertions, among which are calls.
pub(super) fn together(cases: impl Iterator<Item = Case>, row: &Map<String, Value>) -> Result<Found, NoTests> {
    let (mut streams, mut asserts, mut calls) = (Vec::new(), Vec::new(), false);
    for case in cases {
        match case {
            Case::Assert(text) => asserts.push(text),
            Case::Pair { input, output, beside } => match function(&beside, row) {
                Function::None => {
                    let absent_is_empty =
                        |value: &Value| if value.is_null() { Some(String::new()) } else { stream(value) };
                    // What a checker judges may have no reference.
                    let checked = matches!(super::checker(row), Ok(Some(_)));
                    let output = if checked { absent_is_empty(&output) } else { stream(&output) };
                    streams.push((stream(&input).ok_or(UNPARSED)?, output.ok_or(UNPARSED)?));
                }
                Function::Named(name) => {
                    asserts.push(call(&name, input, output).ok_or(UNPARSED)?);
                    calls = true;
                }
                Function::Unnamed => return Err(UNPARSED),
            },
        }
    }
    match (streams.is_empty(), asserts.is_empty()) {
        (_, true) => Ok(Found { tests: Tests::Streams(streams), setup: String::new(), python: false }),
        (true, false) => {
            let setup = if calls { CALLS.to_owned() } else { String::new() };
            Ok(Found { tests: Tests::Asserts(asserts), setup, python: true })
        }
        (false, false) => Err(UNPARSED),
    }
}

/// What a test calls.
enum Function {
    /// Nothing: it is about a program.
    None,
    Named(String),
    /// A function that nothing names.
    Unnamed,
}

/// APPS's `fn_name` and LiveCodeBench's `metadata.func_name`, of the test or of the row, unless the test is said to be of
/// streams.
fn function(beside: &Map<String, Value>, row: &Map<String, Value>) -> Function {
    let text = |key: &str| beside.get(key).and_then(Value::as_str).unwrap_or("");
    let kind = if text("type").is_empty() { text("testtype") } else { text("type") };
    if kind.starts_with("stdin") {
        return Function::None;
    }
    match name(beside).or_else(|| name(row)) {
        Some(Value::String(name)) => {
            let last = name.rsplit('.').next().unwrap_or("");
            if is_name(last) { Function::Named(last.to_owned()) } else { Function::Unnamed }
        }
        Some(_) => Function::Unnamed,
        None if matches!(kind, "function_call" | "functional") => Function::Unnamed,
        None => Function::None,
    }
}

fn name(table: &Map<String, Value>) -> Option<Value> {
    let own = |table: &Map<String, Value>| {
        ["fn_name", "func_name"].iter().find_map(|key| table.get(*key).filter(|name| !name.is_null()).cloned())
    };
    own(table).or_else(|| match table.get("metadata")? {
        Value::Object(metadata) => own(metadata),
        Value::String(text) => own(serde_json::from_str::<Value>(text).ok()?.as_object()?),
        _ => None,
    })
}

/// The assertion that a call of a function with a list of arguments gives what is wanted.
fn call(name: &str, input: Value, output: Value) -> Option<String> {
    let (arguments, wanted) = match input {
        Value::Array(_) => (input, output),
        // A line of JSON an argument, and the result as JSON.
        Value::String(lines) => {
            let arguments: Result<Vec<Value>, _> = lines.trim().lines().map(serde_json::from_str).collect();
            (Value::Array(arguments.ok()?), serde_json::from_str(output.as_str()?).ok()?)
        }
        _ => return None,
    };
    // A string of JSON is one of Python.
    (exact(&arguments) && exact(&wanted)).then(|| {
        let [name, arguments, wanted] = [Value::from(name), arguments.to_string().into(), wanted.to_string().into()];
        format!("_check({name}, {arguments}, {wanted})")
    })
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// Whether no integer of a value was too large to be read exactly.
fn exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => !number.is_f64() || number.as_f64().is_some_and(|number| number.abs() < 1e18),
        Value::Array(items) => items.iter().all(exact),
        Value::Object(items) => items.values().all(exact),
        _ => true,
    }
}

/// A stream as text: a string, or the lines of a list.
fn stream(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => {
            let lines: Option<Vec<&str>> = lines.iter().map(Value::as_str).collect();
            Some(lines?.join("\n"))
        }
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
