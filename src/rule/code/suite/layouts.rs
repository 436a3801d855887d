//! Where data sets keep their tests.

use serde_json::{Map, Value};

use super::cases::{self, Case};
use super::{MISSING, NoTests, Tests, UNPARSED, packed, unparsed, unsupported};

/// What is wrapped around a row of tests, the outermost first: SYNTHETIC, NeMo Gym, verl, APPS and TACO.
const WRAPPERS: [&str; 4] = ["verification_info", "verifier_metadata", "ground_truth", "input_output"];
/// Where lists of tests are: the first of these that has some.
const LISTS: [&[&str]; 4] = [
    &["tests"],
    &["test_cases"],
    &["unit_tests"],
    // CodeContests, LiveCodeBench and open-r1's Codeforces part what is one suite.
    &["public_tests", "private_tests", "public_test_cases", "private_test_cases", "official_tests", "generated_tests"],
];
/// Names of the two sides of a test.
pub(super) const INPUTS: [&str; 3] = ["input", "inputs", "stdin"];
pub(super) const OUTPUTS: [&str; 5] = ["output", "outputs", "expected_output", "expected", "stdout"];

/// Tests in the form they are run in.
pub(super) struct Found {
    pub tests: Tests,
    /// Code before each assertion.
    pub setup: String,
    /// Only Python has tests of this form.
    pub python: bool,
}

/// A verification as one table: a list is its tests, and what is wrapped lies over what is around it.
pub(super) fn row(value: Value) -> Result<Map<String, Value>, NoTests> {
    let mut row = match value {
        Value::Object(row) => row,
        // DeepCoder, rllm and AceCode have nothing around their tests.
        list @ Value::Array(_) => Map::from_iter([("tests".to_owned(), list)]),
        _ => return Err(MISSING),
    };
    for key in WRAPPERS {
        let Some(inner) = row.remove(key) else { continue };
        match (unwrapped(inner), key) {
            (Some(Value::Object(inner)), _) => row.extend(inner),
            // Such a gold answer may be anything.
            (Some(Value::Array(list)), "ground_truth") if list.iter().any(|test| !cases::is_test(test)) => {}
            (Some(list @ Value::Array(_)), _) => {
                row.insert("tests".to_owned(), list);
            }
            (Some(Value::Null), _) | (_, "ground_truth") => {}
            _ => return Err(UNPARSED),
        }
    }
    Ok(row)
}

/// A value that may stand as text; `None` for a text that is no JSON.
fn unwrapped(value: Value) -> Option<Value> {
    match value {
        Value::String(text) => serde_json::from_str(&text).ok(),
        value => Some(value),
    }
}

/// The tests of a row, at most so many.
pub(super) fn tests(row: &mut Map<String, Value>, most: usize) -> Result<Found, NoTests> {
    let setup = setup(row);
    let found = match cases_of(row)? {
        Some(cases) => {
            let mut found = cases::together(cases.into_iter().take(most), row)?;
            found.setup = format!("{setup}\n{}", found.setup).trim().to_owned();
            found
        }
        None => Found { setup, ..asserts(row, most)? },
    };
    let none = match &found.tests {
        Tests::Streams(streams) => streams.is_empty(),
        Tests::Asserts(asserts) => asserts.is_empty(),
    };
    if none { Err(MISSING) } else { Ok(found) }
}

/// Own `setup`, MBPP's `test_setup_code`, MBPP+'s `test_imports`.
fn setup(row: &Map<String, Value>) -> String {
    let lines = ["setup", "test_setup_code", "test_imports"].iter().flat_map(|key| match row.get(*key) {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Every test that a row lists; `None` if it has no list of them.
fn cases_of(row: &mut Map<String, Value>) -> Result<Option<Vec<Case>>, NoTests> {
    for keys in LISTS {
        let mut all = None;
        for key in keys {
            if let Some(cases) = row.remove(*key).map(cases_in).transpose()?.flatten() {
                all.get_or_insert_with(Vec::new).extend(cases);
            }
        }
        if all.is_some() {
            return Ok(all);
        }
    }
    let Some((inputs, outputs)) = sides(row) else { return Ok(None) };
    Ok(Some(zipped(inputs, outputs, &Map::new())?))
}

/// The tests in one value; `None` in null, and in a number, which counts what is elsewhere (open-r1).
fn cases_in(value: Value) -> Result<Option<Vec<Case>>, NoTests> {
    match value {
        Value::Null | Value::Number(_) => Ok(None),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::String(_)) => Err(UNPARSED),
            Ok(value) => cases_in(value),
            Err(_) if cases::is_assertion(&text) => Ok(Some(vec![Case::Assert(text)])),
            Err(_) => {
                let text = packed::text(&text).ok_or(unparsed("tests that stand as text are no JSON"))?;
                cases_in(serde_json::from_str(&text).map_err(|_| unparsed("the packed tests are no JSON"))?)
            }
        },
        Value::Array(list) => list.into_iter().map(Case::read).collect::<Option<_>>().ok_or(UNPARSED).map(Some),
        Value::Object(mut table) => match sides(&mut table) {
            Some((inputs, outputs)) => zipped(inputs, outputs, &table).map(Some),
            None => Err(UNPARSED),
        },
        Value::Bool(_) => Err(UNPARSED),
    }
}

/// A list of inputs and one of outputs, taken out.
fn sides(table: &mut Map<String, Value>) -> Option<(Vec<Value>, Vec<Value>)> {
    let [inputs, outputs] = [&INPUTS[..], &OUTPUTS[..]]
        .map(|names| names.iter().copied().find(|name| table.get(*name).is_some_and(Value::is_array)));
    match (table.remove(inputs?), table.remove(outputs?)) {
        (Some(Value::Array(inputs)), Some(Value::Array(outputs))) => Some((inputs, outputs)),
        _ => None,
    }
}

fn zipped(inputs: Vec<Value>, outputs: Vec<Value>, beside: &Map<String, Value>) -> Result<Vec<Case>, NoTests> {
    if inputs.len() != outputs.len() {
        return Err(unparsed("there are not as many inputs as outputs"));
    }
    let pairs = inputs.into_iter().zip(outputs);
    Ok(pairs.map(|(input, output)| Case::Pair { input, output, beside: beside.clone() }).collect())
}

/// Own `asserts`, MBPP's `test_list`, and one text of tests: HumanEval's with `entry_point`, KodCode's for pytest.
fn asserts(row: &Map<String, Value>, most: usize) -> Result<Found, NoTests> {
    let list = ["asserts", "test_list"].iter().find_map(|key| Some((*key, row.get(*key)?.as_array()?)));
    if let Some((key, list)) = list {
        let asserts = list.iter().take(most).map(|test| test.as_str().map(str::to_owned));
        let tests = Tests::Asserts(asserts.collect::<Option<_>>().ok_or(UNPARSED)?);
        return Ok(Found { tests, setup: String::new(), python: key == "test_list" });
    }
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or("");
    let (test, entry) = (text("test"), text("entry_point"));
    let checks = test.contains("def check(");
    if test.is_empty() {
        return Err(MISSING);
    }
    if test.contains("unittest.TestCase") || test.contains("(TestCase)") {
        return Err(unsupported("classes of unittest are not run; write functions `def test_…(): assert …`"));
    }
    if checks && entry.is_empty() && test.matches("check(").count() < 2 {
        return Err(unparsed("`test` defines `check`, and no `entry_point` says what it is called with"));
    }
    let calls = checks && !entry.is_empty();
    let test = if calls { format!("{test}\ncheck({entry})") } else { test.to_owned() };
    Ok(Found { tests: Tests::Asserts(vec![test]), setup: String::new(), python: true })
}
