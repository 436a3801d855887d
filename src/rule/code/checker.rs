//! Checkers: programs that judge what another program printed, where more than one output is right.
//!
//! A checker is the source of a Python program, run as `checker INPUT CORRECT_OUTPUT SOLUTION_OUTPUT`, paths of files.
//! It says how good the output is by printing a number from 0 (rejected) to 1 (accepted) and nothing else, or, as
//! testlib's do, by nothing but its exit code: 0 accepted, 1 or 2 not.
//!
//! It runs in a sandbox of its own, after the program has ended: of the program it sees the bytes that it printed, and
//! the program saw neither the checker nor the correct output. Those bytes may be made to break a checker. So one that
//! fails on them is run again on the correct output in their place: if it works there, the output was at fault. So is
//! one that a checker which prints numbers elsewhere has said nothing about.

use std::path::PathBuf;
use std::time::Duration;

use super::sandbox::{Ended, Job, Limits, Ran};
use super::toolchain::Toolchain;
use super::{Language, sandbox, tail, write};
use crate::error::{Context, Result};

/// Bytes that a checker may use: it holds both outputs as Python's objects.
const MEMORY: u64 = 1 << 30;
/// Bytes that a checker may print: a number, and to standard error what it thinks.
const OUTPUT: usize = 64 << 10;

/// A checker in its folder, ready to be run.
pub(super) struct Checker<'a> {
    folder: tempfile::TempDir,
    command: Vec<String>,
    toolchain: &'a Toolchain,
    limits: Limits,
    /// Whether its source can leave with an exit code: one that never does and prints nothing has said nothing.
    exits: bool,
}

/// What a checker says of an output.
pub(super) enum Opinion {
    /// 0 to 1, and what it wrote beside.
    Score(f64, String),
    /// It cannot be used on this test: how it failed.
    Broken(String),
}

/// What one run of a checker came to.
enum Said {
    Number(f64),
    /// By its exit code alone, whether the output is accepted.
    Code(bool),
    /// Nothing that is a score: how it failed.
    Failed(String),
}

const FILES: [&str; 3] = ["input.txt", "correct_output.txt", "solution_output.txt"];

impl<'a> Checker<'a> {
    /// Puts a checker into a folder of its own.
    ///
    /// # Errors
    /// A folder that cannot be made or written.
    pub fn new(source: &str, python: &'a Toolchain, seconds: f64, limits: Limits) -> Result<Self> {
        let folder = sandbox::folder()?;
        write(folder.path(), Language::Python.file(), source)?;
        let mut command = python.run.clone();
        command.extend(FILES.map(|file| format!("/box/{file}")));
        let limits = Limits { wall: Duration::from_secs_f64(seconds), memory: MEMORY, output: OUTPUT, ..limits };
        let exits = source.contains("exit") || source.contains("SystemExit");
        Ok(Checker { folder, command, toolchain: python, limits, exits })
    }

    /// Judges what was printed on a test's input; `correct` is its reference output, empty if it has none.
    ///
    /// # Errors
    /// Files that cannot be written, a sandbox that does not start.
    pub fn judge(&self, input: &str, correct: &str, printed: &[u8]) -> Result<Opinion> {
        let (said, remark) = self.run(input, correct, printed)?;
        let why = match &said {
            Said::Number(score) => return Ok(Opinion::Score(*score, remark)),
            Said::Code(false) => return Ok(Opinion::Score(0.0, remark)),
            Said::Code(true) => "it says nothing",
            Said::Failed(why) => why,
        };
        // Without a reference the empty output stands in its place, and all that is asked is whether the checker runs.
        let none = correct.trim().is_empty();
        let of_this_output = || Opinion::Score(0.0, format!("of this output and not of the correct one: {why}"));
        Ok(match (&said, self.run(input, correct, correct.as_bytes())?.0) {
            (Said::Code(true), Said::Code(accepted)) if accepted != none => Opinion::Score(1.0, remark),
            (_, Said::Number(score)) if score > 0.0 || none => of_this_output(),
            (_, Said::Code(accepted)) if accepted || none => of_this_output(),
            (_, Said::Number(_) | Said::Code(_)) => Opinion::Broken("it rejects the correct output".to_owned()),
            (_, Said::Failed(why)) => Opinion::Broken(why),
        })
    }

    fn run(&self, input: &str, correct: &str, printed: &[u8]) -> Result<(Said, String)> {
        for (file, bytes) in FILES.iter().zip([input.as_bytes(), correct.as_bytes(), printed]) {
            let path: PathBuf = self.folder.path().join(file);
            std::fs::write(path, bytes).or_fail(|| format!("cannot write {file} for a checker"))?;
        }
        let ran = sandbox::run(&Job {
            command: &self.command,
            folder: self.folder.path(),
            out: None,
            toolchain: self.toolchain.run_folders(),
            stdin: b"",
            limits: self.limits,
            own_user: false,
        })?;
        Ok(said(&ran, self.exits))
    }
}

/// What a checker's run says, and what it wrote beside.
fn said(ran: &Ran, exits: bool) -> (Said, String) {
    let (printed, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let number = printed.trim().parse().ok().filter(|score: &f64| (0.0..=1.0).contains(score));
    let silent = printed.trim().is_empty() && exits;
    // Python leaves with 1 after what was never caught, and says where.
    let raised = errors.contains("Traceback (most recent call last)") || errors.contains("SyntaxError");
    let remark = tail(&ran.stderr);
    let said = match (ran.ended, number) {
        (Ended::Exit(0), Some(score)) => Said::Number(score),
        (Ended::Exit(1 | 2), Some(0.0)) => Said::Number(0.0),
        (Ended::Exit(code @ 0..=2), None) if silent && !raised => Said::Code(code == 0),
        (Ended::Exit(0), None) => Said::Failed(format!("it printed no number from 0 to 1: {}", tail(&ran.stdout))),
        (ended, _) => Said::Failed(format!("it ended with {ended:?}: {remark}")),
    };
    (said, remark)
}
