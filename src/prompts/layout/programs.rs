//! Columns that hold the tests of a program, brought together into a verification.

use serde_json::{Map, Value};

use super::cells::{Cells, find, plain};
use crate::rule::{code, domain_of};

/// Columns of tests: CodeContests, open-r1/codeforces, LiveCodeBench, DeepCoder, APPS and TACO, AceCode, KodCode, MBPP.
const TESTS: &[&str] = &[
    "tests",
    "test_cases",
    "unit_tests",
    "public_tests",
    "private_tests",
    "public_test_cases",
    "private_test_cases",
    "official_tests",
    "generated_tests",
    "input_output",
    "test_list",
    "test",
];
/// What tests are judged with.
const BESIDE: &[&str] = &[
    "checker",
    "generated_checker",
    "time_limit",
    "memory_limit",
    "memory_limit_bytes",
    "input_mode",
    "input_file",
    "output_file",
    "interaction_format",
    "entry_point",
    "fn_name",
    "func_name",
    "test_setup_code",
    "test_imports",
];

/// The verification of a row with columns of tests; `None` where the code rule finds none in them.
pub(super) fn tests(cells: &mut Cells<'_>) -> Option<String> {
    let row = &cells.row.columns;
    find(row, TESTS)?;
    let mut found: Vec<(&str, &str, &Value)> = Vec::new();
    for name in TESTS.iter().chain(BESIDE) {
        found.extend(find(row, &[name]).map(|(column, value)| (*name, column, value)));
    }
    // Columns by these names hold many things; these are about the program.
    let calls = |value: &Value| ["func_name", "fn_name"].iter().any(|key| plain(value).contains(key));
    found.extend(
        find(row, &["metadata"]).filter(|(_, value)| calls(value)).map(|(name, value)| ("metadata", name, value)),
    );
    let runs = |value: &Value| value.as_str().is_some_and(code::is_language);
    found.extend(
        find(row, &["language"]).filter(|(_, value)| runs(value)).map(|(name, value)| ("language", name, value)),
    );
    let table: Map<String, Value> = found.iter().map(|(key, _, value)| ((*key).to_owned(), (*value).clone())).collect();
    let verification = Value::Object(table).to_string();
    if !is_tests(&verification) {
        return None;
    }
    cells.used.extend(found.into_iter().map(|(_, column, _)| column.to_owned()));
    Some(verification)
}

/// Whether JSON is what the code rule reads as tests.
pub(super) fn is_tests(json: &str) -> bool {
    domain_of(None, Some(json)) == "code"
}
