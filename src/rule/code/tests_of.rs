//! The tests of a prompt, in the layouts of the field.

use serde_json::Value;

use super::Language;

/// What a program is tested with.
#[derive(Debug)]
pub(super) struct Suite {
    pub language: Option<Language>,
    /// Code before each assertion (imports).
    pub setup: String,
    pub tests: Tests,
}

#[derive(Debug, PartialEq)]
pub(super) enum Tests {
    /// (standard input, expected standard output).
    Streams(Vec<(String, String)>),
    /// Statements that must not raise.
    Asserts(Vec<String>),
}

/// One test, where a row of inputs and outputs has several.
enum Case {
    Stream(String, String),
    /// A function's name, a list of arguments and what it returns, both JSON.
    Call(String, String, String),
}

/// What a call's assertion is made of.
const CALLS: &str = include_str!("asserts/calls.py");

static NULL: Value = Value::Null;
/// What a call has for a name where it has none: it cannot be made.
static NAMELESS: Value = Value::Bool(false);

const UNPARSED: &str = "tests_unparsed";
const MISSING: &str = "tests_missing";

/// The tests of a verification, or of a gold answer that is a JSON object of them (verl's `ground_truth`).
pub(super) fn of(verification: Option<&str>, gold: Option<&str>, most: usize) -> Result<Suite, &'static str> {
    match (parse(verification, most), gold.filter(|gold| gold.trim_start().starts_with('{'))) {
        (Err(MISSING), Some(gold)) => parse(Some(gold), most),
        (suite, _) => suite,
    }
}

/// Reads a verification: own layout, APPS, TACO and verl `inputs`/`outputs`, open-r1 `test_cases`, MBPP `test_list`,
/// HumanEval `test`.
fn parse(verification: Option<&str>, most: usize) -> Result<Suite, &'static str> {
    let mut value = json(verification.ok_or(MISSING)?)?;
    if let Some(inner) = value.get("input_output") {
        value = unwrapped(inner)?;
    } else if let Some(Ok(inner @ Value::Object(_))) = value.get("ground_truth").map(unwrapped) {
        value = inner;
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
    let mut language = Language::from_word(text("language"));
    let mut setup =
        ["setup", "test_setup_code"].iter().map(|key| text(key)).collect::<Vec<_>>().join("\n").trim().to_owned();
    let tests = if let Some(cases) = cases(&value)? {
        let cases: Option<Vec<Case>> = cases.iter().take(most).map(|case| case_of(case[0], case[1], case[2])).collect();
        let tests = together(cases.ok_or(UNPARSED)?).ok_or(UNPARSED)?;
        if matches!(tests, Tests::Asserts(_)) {
            language.get_or_insert(Language::Python);
            setup = format!("{setup}\n{CALLS}");
        }
        tests
    } else if let Some((key, list)) =
        ["asserts", "test_list"].iter().find_map(|key| Some((*key, value.get(*key)?.as_array()?)))
    {
        if key == "test_list" {
            language.get_or_insert(Language::Python);
        }
        let asserts = list.iter().take(most).map(|test| test.as_str().map(str::to_owned));
        Tests::Asserts(asserts.collect::<Option<_>>().ok_or(UNPARSED)?)
    } else if !text("test").is_empty() {
        language.get_or_insert(Language::Python);
        let (test, entry) = (text("test"), text("entry_point"));
        if entry.is_empty() && test.contains("def check(") && test.matches("check(").count() < 2 {
            return Err(UNPARSED);
        }
        Tests::Asserts(vec![if entry.is_empty() { test.to_owned() } else { format!("{test}\ncheck({entry})") }])
    } else {
        return Err(MISSING);
    };
    let none = match &tests {
        Tests::Streams(streams) => streams.is_empty(),
        Tests::Asserts(asserts) => asserts.is_empty(),
    };
    if none { Err(MISSING) } else { Ok(Suite { language, setup, tests }) }
}

/// A value that may stand as text.
fn unwrapped(value: &Value) -> Result<Value, &'static str> {
    value.as_str().map_or_else(|| Ok(value.clone()), json)
}

fn json(text: &str) -> Result<Value, &'static str> {
    serde_json::from_str(text).map_err(|_| UNPARSED)
}

/// Of each test the function's name, if it is a call, the input and the output; `None` where there are no such lists.
fn cases(value: &Value) -> Result<Option<Vec<[&Value; 3]>>, &'static str> {
    let list = |key: &str| value.get(key).and_then(Value::as_array);
    fn name(value: &Value) -> Option<&Value> {
        value.get("fn_name").filter(|name| !name.is_null())
    }
    if let Some(tests) = list("tests").or_else(|| list("test_cases")) {
        let case = |test| {
            let own = |key: &str| Value::get(test, key).unwrap_or(&NULL);
            let name = name(test).or_else(|| name(value));
            let name = match own("type").as_str().unwrap_or("") {
                kind if kind.starts_with("stdin") => &NULL,
                "function_call" | "functional" => name.unwrap_or(&NAMELESS),
                _ => name.unwrap_or(&NULL),
            };
            [name, own("input"), own("output")]
        };
        return Ok(Some(tests.iter().map(case).collect()));
    }
    let (Some(inputs), Some(outputs)) = (list("inputs"), list("outputs")) else { return Ok(None) };
    if inputs.len() != outputs.len() {
        return Err(UNPARSED);
    }
    let name = name(value).unwrap_or(&NULL);
    Ok(Some(inputs.iter().zip(outputs).map(|(input, output)| [name, input, output]).collect()))
}

fn case_of(name: &Value, input: &Value, output: &Value) -> Option<Case> {
    let name = match name {
        Value::Null => return Some(Case::Stream(stream(input)?, stream(output)?)),
        Value::String(name) => name.rsplit('.').next().filter(|name| is_name(name))?,
        _ => return None,
    };
    let (arguments, wanted) = match input {
        Value::Array(_) => (input.clone(), output.clone()),
        // A line of JSON an argument, and the result as JSON.
        Value::String(lines) => {
            let arguments: Result<Vec<Value>, _> = lines.trim().lines().map(serde_json::from_str).collect();
            (Value::Array(arguments.ok()?), serde_json::from_str(output.as_str()?).ok()?)
        }
        _ => return None,
    };
    (exact(&arguments) && exact(&wanted))
        .then(|| Case::Call(name.to_owned(), arguments.to_string(), wanted.to_string()))
}

/// All streams, or all calls.
fn together(cases: Vec<Case>) -> Option<Tests> {
    let (mut streams, mut asserts) = (Vec::new(), Vec::new());
    for case in cases {
        match case {
            Case::Stream(input, output) => streams.push((input, output)),
            // A string of JSON is one of Python.
            Case::Call(name, arguments, wanted) => asserts.push(format!(
                "_check({}, {}, {})",
                Value::from(name),
                Value::from(arguments),
                Value::from(wanted)
            )),
        }
    }
    match (streams.is_empty(), asserts.is_empty()) {
        (_, true) => Some(Tests::Streams(streams)),
        (true, false) => Some(Tests::Asserts(asserts)),
        (false, false) => None,
    }
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
