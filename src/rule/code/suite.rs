//! The tests of a prompt: what a program is tested with, and within which limits, read out of its verification.
//!
//! Data sets differ in where tests stand ([`layouts`]) and agree in what they are ([`cases`]): programs are run on
//! their input, functions are called, or assertions are made about them.

use serde_json::{Map, Value};

use super::Language;

mod cases;
mod layouts;
mod limits;
mod packed;

pub(super) use limits::{MOST_MIB, MOST_SECONDS, OfProblem};

/// What a program is tested with.
#[derive(Debug)]
pub(super) struct Suite {
    pub language: Option<Language>,
    /// Code before each assertion (imports).
    pub setup: String,
    pub tests: Tests,
    /// The source of a Python program that judges what was printed; without one it is compared.
    pub checker: Option<String>,
    /// What stands for the standard streams.
    pub files: Files,
    pub limits: OfProblem,
}

#[derive(Debug, PartialEq)]
pub(super) enum Tests {
    /// (standard input, expected standard output).
    Streams(Vec<(String, String)>),
    /// Statements that must not raise.
    Asserts(Vec<String>),
}

/// Names of the files that a program reads and writes, where these are not the standard streams.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Files {
    pub input: Option<String>,
    pub output: Option<String>,
}

/// Why there are no tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoTests {
    /// The verdict's.
    pub reason: &'static str,
    /// What more there is to say of it; empty if nothing.
    pub why: &'static str,
}

/// Nothing that looks like tests.
const MISSING: NoTests = NoTests { reason: "tests_missing", why: "" };
/// Tests, but not in a form that is known.
const UNPARSED: NoTests = NoTests { reason: "tests_unparsed", why: "" };

fn unparsed(why: &'static str) -> NoTests {
    NoTests { why, ..UNPARSED }
}

/// Tests that are understood, and cannot be run here.
fn unsupported(why: &'static str) -> NoTests {
    NoTests { reason: "tests_not_supported", why }
}

/// The tests of a verification, or of a gold answer that holds them as JSON (verl's `ground_truth`).
pub(super) fn of(verification: Option<&str>, gold: Option<&str>, most: usize) -> Result<Suite, NoTests> {
    let found = verification.map_or(Err(MISSING), |text| parse(text, most));
    match (found, gold.filter(|gold| gold.trim_start().starts_with(['{', '[']))) {
        (Err(MISSING), Some(gold)) => parse(gold, most).map_err(|no| match gold.trim_start().starts_with('[') {
            // A list may be any answer.
            true => MISSING,
            false => no,
        }),
        (suite, _) => suite,
    }
}

fn parse(text: &str, most: usize) -> Result<Suite, NoTests> {
    let mut row = layouts::row(serde_json::from_str(text).map_err(|_| UNPARSED)?)?;
    if row.get("interaction_format").and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty()) {
        return Err(unsupported("the problem is interactive, and nothing here answers its program"));
    }
    let found = layouts::tests(&mut row, most)?;
    let (checker, files) = (checker(&row)?, files(&row)?);
    if matches!(found.tests, Tests::Asserts(_)) && (checker.is_some() || files != Files::default()) {
        return Err(unsupported("checkers and files are for programs that print, and these tests call functions"));
    }
    let language = row.get("language").and_then(Value::as_str).and_then(Language::from_word);
    let python = found.python.then_some(Language::Python);
    Ok(Suite {
        language: language.or(python),
        setup: found.setup,
        tests: found.tests,
        checker,
        files,
        limits: OfProblem::of(&row),
    })
}

/// Own `checker`, open-r1's `generated_checker`.
fn checker(row: &Map<String, Value>) -> Result<Option<String>, NoTests> {
    let found = ["checker", "generated_checker"].iter().find_map(|key| row.get(*key).filter(|value| !value.is_null()));
    match found {
        None => Ok(None),
        Some(Value::String(source)) if source.trim().is_empty() => Ok(None),
        Some(Value::String(source)) if source.contains("#include") => {
            Err(unsupported("the checker is written in C++; a checker is the source of a Python program"))
        }
        Some(Value::String(source)) => Ok(Some(source.clone())),
        Some(_) => Err(unparsed("`checker` is not a text; it is the source of a Python program")),
    }
}

/// open-r1's `input_mode`, CodeContests' `input_file` and `output_file`.
fn files(row: &Map<String, Value>) -> Result<Files, NoTests> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).map(str::trim).unwrap_or("");
    let named = |key: &str, otherwise: &str| match text(key) {
        "" if text("input_mode") == "file" => Ok(Some(otherwise.to_owned())),
        "" | "stdin" | "stdout" => Ok(None),
        name if name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'))
            && !name.starts_with('.')
            && name.len() <= 64 =>
        {
            Ok(Some(name.to_owned()))
        }
        _ => Err(unsupported("the name of the input or output file is not letters, digits, dots and `_`")),
    };
    Ok(Files { input: named("input_file", "input.txt")?, output: named("output_file", "output.txt")? })
}
