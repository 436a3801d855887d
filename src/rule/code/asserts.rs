//! Assertions: statements that call the program's functions.
//!
//! They run where the program's code does not. A *judge* holds the tests and runs them in one sandbox; an
//! *agent* holds the program in another, and between them go calls and values. What the program can do is
//! answer: it sees neither the tests nor what they expect, it cannot end the judge or replace what an assertion
//! means, and what the judge reports goes where the program has no way to. An object of the program's own class
//! equals another such object if its class says so, and a plain value only if its content is that value.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::sandbox::{Ended, Job, Judged, Limits};
use super::suite::Suite;
use super::toolchain::{Language, Toolchain};
use super::{sandbox, write};
use crate::error::Result;

/// What came of a suite.
pub(super) enum Outcome {
    /// Of each test, in order, whether it passed, and the judged run.
    Run { passed: Vec<bool>, reason: &'static str, error: String, stderr: Vec<u8> },
    /// The tests themselves cannot be run.
    Faulty(String),
    /// They are in a language without a judge, or cannot be run apart from the program: why.
    Unsupported(String),
}

/// The sources of the judge and the agent, and the solution's suffix.
struct Side {
    wire: &'static [&'static str],
    judge: &'static [&'static str],
    agent: &'static str,
    suffix: &'static str,
}

const PYTHON: Side = Side {
    wire: &[include_str!("asserts/wire.py"), include_str!("asserts/remote.py")],
    judge: &[include_str!("asserts/guard.py"), include_str!("asserts/pytest.py"), include_str!("asserts/judge.py")],
    agent: include_str!("asserts/agent.py"),
    suffix: "py",
};

const JAVASCRIPT: Side = Side {
    wire: &[include_str!("asserts/wire.js")],
    judge: &[include_str!("asserts/guard.js"), include_str!("asserts/judge.js")],
    agent: include_str!("asserts/agent.js"),
    suffix: "js",
};

/// Moves the pipes away from the standard streams, which are the program's: it may print.
const APART: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#;

/// Runs every assertion of a suite against `code`.
///
/// # Errors
/// Files that cannot be written, a sandbox that does not start.
pub(super) fn run(
    suite: &Suite,
    asserts: &[String],
    code: &str,
    language: Language,
    toolchain: &Toolchain,
    limits: Limits,
) -> Result<Outcome> {
    let side = match language {
        Language::Python => PYTHON,
        Language::JavaScript => JAVASCRIPT,
        _ => return Ok(Outcome::Unsupported(format!("there is no judge for {language:?}"))),
    };
    let (program, judge) = (sandbox::folder()?, sandbox::folder()?);
    let main = language.file();
    write(program.path(), &format!("solution.{}", side.suffix), code)?;
    write(program.path(), main, &[&side.wire.join("\n"), side.agent].join("\n"))?;
    let tests: Vec<String> = asserts.iter().map(|test| format!("{}\n{test}", suite.setup)).collect();
    write(judge.path(), "tests.json", &Value::from(tests).to_string())?;
    write(judge.path(), main, &[side.wire, side.judge].concat().join("\n"))?;
    let mut command = toolchain.run.clone();
    if language == Language::JavaScript {
        command.splice(0..0, ["/bin/sh", "-c", APART].map(str::to_owned));
    }
    // What a program answers is the judge's memory too.
    let judging = Limits { wall: limits.wall + Duration::from_millis(500), ..limits };
    let folders = toolchain.run_folders();
    let judged = sandbox::run_judged(
        &job(&command, program.path(), folders, limits),
        &job(&toolchain.run, judge.path(), folders, judging),
    )?;
    outcome(&judged, asserts.len())
}

fn job<'a>(command: &'a [String], folder: &'a Path, toolchain: &'a [PathBuf], limits: Limits) -> Job<'a> {
    Job { command, folder, out: None, toolchain, stdin: b"", limits, own_user: false }
}

/// Reads the judge's report.
fn outcome(judged: &Judged, tests: usize) -> Result<Outcome> {
    let text = String::from_utf8_lossy(&judged.report);
    let (mut passed, mut first, mut gone, mut ready) = (vec![false; tests], None, false, false);
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        ready |= line.get("ready").is_some();
        if let Some(fault) = line.get("fault").and_then(Value::as_str) {
            return Ok(Outcome::Faulty(fault.to_owned()));
        }
        if let Some(why) = line.get("unsupported").and_then(Value::as_str) {
            return Ok(Outcome::Unsupported(why.to_owned()));
        }
        let index = line.get("test").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| passed.get_mut(index)) else { continue };
        *slot = line.get("passed") == Some(&Value::Bool(true));
        gone |= line.get("gone") == Some(&Value::Bool(true));
        if !*slot && first.is_none() {
            first = line.get("error").and_then(Value::as_str).map(str::to_owned);
        }
    }
    let limit = matches!(judged.ended, Some(Ended::WallLimit | Ended::MemoryLimit | Ended::OutputLimit));
    if !ready && !limit {
        return Err(crate::Error::new(format!(
            "the judge of a program does not start: {}",
            super::tail(&judged.report)
        )));
    }
    let reason = match judged.ended {
        Some(Ended::Exit(0)) if gone => "left_early",
        Some(ended) if gone || limit => super::reason_of(ended),
        _ => "assertion_failed",
    };
    Ok(Outcome::Run { passed, reason, error: first.unwrap_or_default(), stderr: judged.stderr.clone() })
}
