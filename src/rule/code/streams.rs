//! Programs that read and print: compiled once, run on the input of each test, and judged by what they printed.

use std::path::Path;
use std::time::Duration;

use super::checker::{Checker, Opinion};
use super::sandbox::{Ended, Job, Limits, Ran};
use super::suite::{Files, MOST_MIB, MOST_SECONDS, Suite};
use super::toolchain::Toolchain;
use super::{CodeRule, Compare, Failed, Language, reason_of, sandbox, tail, write};
use crate::error::{Context, Result};
use crate::rule::Verdict;

impl CodeRule {
    /// Whether the program in `code` prints what each test of the suite wants.
    pub(super) fn streams(
        &self,
        suite: &Suite,
        streams: &[(String, String)],
        code: &str,
        language: Language,
        toolchain: &Toolchain,
    ) -> Result<Verdict> {
        let checker = match &suite.checker {
            None => None,
            Some(source) => match self.toolchain(Language::Python) {
                Ok(python) => {
                    let limits = self.limits(python.address_space);
                    Some(Checker::new(source, python, self.config.checker_seconds, limits)?)
                }
                Err(why) => {
                    let verdict = Verdict::cannot_tell("toolchain_missing").with("language", "Python");
                    return Ok(verdict.with("error", format!("the checker needs Python: {why}")));
                }
            },
        };
        let folder = sandbox::folder()?;
        write(folder.path(), language.file(), code)?;
        if !toolchain.compile.is_empty()
            && let Some(verdict) = self.compile(toolchain, folder.path())?
        {
            return Ok(verdict);
        }
        let (command, limits) = (command(toolchain, &suite.files), self.limits_of(suite, language, toolchain));
        let (mut passed, mut score, mut first) = (0usize, 0.0, None);
        for (index, (input, expected)) in streams.iter().enumerate() {
            let job = Job {
                command: &command,
                folder: folder.path(),
                out: None,
                toolchain: toolchain.run_folders(),
                stdin: input.as_bytes(),
                // A right output may be longer than the rule allows others to be.
                limits: Limits { output: limits.output.max(2 * expected.len()), ..limits },
                own_user: false,
            };
            let ran = sandbox::run(&job)?;
            let (part, remark) = match self.opinion(&ran, input, expected, checker.as_ref())? {
                Opinion::Score(part, remark) => (part, remark),
                Opinion::Broken(why) => {
                    let verdict = Verdict::cannot_tell("checker_failed").with("test", index.to_string());
                    return Ok(verdict.with("checker", why));
                }
            };
            score += part;
            if part >= 1.0 {
                passed += 1;
                continue;
            }
            let reason = if ran.ended == Ended::Exit(0) { "wrong_output" } else { reason_of(ran.ended) };
            first.get_or_insert(Failed { index, reason, stdout: ran.stdout, stderr: ran.stderr, remark });
            if !self.config.partial {
                break;
            }
        }
        Ok(self.verdict(passed, score, streams.len(), first))
    }

    /// How good the output of a run is. What equals the reference needs no checker, which could hardly be stricter; but
    /// an empty reference may stand for none.
    fn opinion(&self, ran: &Ran, input: &str, expected: &str, checker: Option<&Checker<'_>>) -> Result<Opinion> {
        let same = ran.ended == Ended::Exit(0) && self.same(&ran.stdout, expected);
        match checker {
            Some(checker) if ran.ended == Ended::Exit(0) && (!same || expected.trim().is_empty()) => {
                checker.judge(input, expected, &ran.stdout)
            }
            _ => Ok(Opinion::Score(f64::from(u8::from(same)), String::new())),
        }
    }

    /// Compiles; a verdict means that it failed.
    fn compile(&self, toolchain: &Toolchain, folder: &Path) -> Result<Option<Verdict>> {
        let out = folder.join("out");
        std::fs::create_dir(&out).or_fail(|| "cannot make a folder for a program".into())?;
        let limits = Limits {
            wall: Duration::from_secs_f64(self.config.compile_seconds),
            memory: 2 << 30,
            processes: 128,
            address_space: false,
            ..self.limits(false)
        };
        let job = Job {
            command: &toolchain.compile,
            folder,
            out: Some(&out),
            toolchain: &toolchain.folders,
            stdin: b"",
            limits,
            own_user: true,
        };
        let ran = sandbox::run(&job)?;
        let made = out.join("main");
        if ran.ended == Ended::Exit(0) && made.is_file() {
            std::fs::rename(made, folder.join("main")).or_fail(|| "cannot move a program".into())?;
            return Ok(None);
        }
        let reason = if ran.ended == Ended::Exit(1) { "does_not_compile" } else { "compiler_stopped" };
        Ok(Some(Verdict::wrong(reason).with("ended", format!("{:?}", ran.ended)).with("stderr", tail(&ran.stderr))))
    }

    /// The problem's limits where it has its own, else the rule's.
    fn limits_of(&self, suite: &Suite, language: Language, toolchain: &Toolchain) -> Limits {
        let mut limits = self.limits(toolchain.address_space);
        if let Some(seconds) = suite.limits.seconds {
            let seconds = (seconds * self.config.time_factor).clamp(0.1, MOST_SECONDS);
            limits.wall = Duration::from_secs_f64(seconds);
        }
        if let Some(mebibytes) = suite.limits.mebibytes {
            limits.memory = ((mebibytes.clamp(16.0, MOST_MIB) as u64) << 20) + language.runtime_memory();
        }
        // Judges let compiled programs recurse deeply. Every thread is given as much, so it is not all there is.
        limits.stack = (!toolchain.compile.is_empty()).then_some(limits.memory / 4);
        limits
    }

    fn same(&self, printed: &[u8], expected: &str) -> bool {
        let Ok(printed) = std::str::from_utf8(printed) else { return false };
        match self.config.compare {
            Compare::Exact => printed == expected,
            Compare::Tokens => printed.split_whitespace().eq(expected.split_whitespace()),
            Compare::Lines => {
                let lines = |text: &'_ str| -> Vec<String> {
                    text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect()
                };
                lines(printed) == lines(expected)
            }
        }
    }
}

/// Runs a program; between files where the problem names them. These lie in the folder that programs start in, which is
/// the program's own, so that nothing in them is more than what it might have printed.
fn command(toolchain: &Toolchain, files: &Files) -> Vec<String> {
    let mut script = String::new();
    if files.input.is_some() {
        script += r#"cat >"$0" && exec </dev/null; "#;
    }
    script += match files.output {
        Some(_) => r#"out=$1; shift; "$@" >/dev/null; code=$?; test -f "$out" && cat "$out"; exit $code"#,
        None => r#"shift; exec "$@""#,
    };
    let mut command = toolchain.run.clone();
    if *files != Files::default() {
        let names = [&files.input, &files.output].map(|name| name.clone().unwrap_or_default());
        command.splice(0..0, ["/bin/sh".to_owned(), "-c".to_owned(), script].into_iter().chain(names));
    }
    command
}
