//! The code rule: does the program pass its tests?

mod asserts;
mod checker;
mod fences;
mod sandbox;
mod slots;
mod streams;
mod suite;
mod toolchain;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rayon::prelude::*;

use super::params::{ParamError, choices, params};
use super::text::shorten;
use super::{Rule, Sample, Verdict};
use sandbox::{Ended, Limits};
use slots::Slots;
use suite::{MOST_MIB, MOST_SECONDS, Suite, Tests};
use toolchain::{Language, Toolchain};

pub use sandbox::ready;

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether a program passes its unit tests, run in a sandbox
# What
Takes the last fenced block in the tests' language, else the last whose word is
missing or names one (never `text`, `output`, …), and runs it against the tests of
the prompt's verification JSON: `{"language": "python", "tests": [{"input": "…",
"output": "…"}]}` for programs, or `{"asserts": ["assert f(2) == 4"], "setup": "…"}`
for functions. Read as well: the columns of APPS, TACO, CodeContests, LiveCodeBench,
DeepCoder, open-r1, SYNTHETIC (`fn_name` and `func_name` are calls), AceCode, MBPP,
HumanEval, and KodCode's functions for pytest. Without a verification, a gold answer
that is such JSON is read (verl's `ground_truth`). Python, C++, Rust and JavaScript,
where the toolchain is present; asserts for Python and JavaScript, calls for Python.
Where several outputs are right, `"checker"` (open-r1's `generated_checker`) is the
source of a Python program that judges what is not equal to the expected output. It
is called with the paths of input, correct output and solution's output, in a sandbox
of its own, and prints a number from 0 to 1, where 1 passes the test, or, printing
nothing, calls `exit` with 0 or 1. Fails it on an output and works on the correct one
in its place, the output is wrong; else the verdict is `checker_failed`, nobody's
fault. `time_limit` (seconds), `memory_limit` (MB) and `input_mode` (`"file"` for
`input.txt` and `output.txt`) of a problem count for programs; Python and JavaScript
get what their runtimes take on top of its memory. Assertions run in a process
that the program never enters: values are compared there, and an object of the
program's own class equals a plain value only if its content does. What a test asks
that cannot be asked across (a class derived from the program's, fixtures, classes of
unittest, JavaScript that waits) is `asserts_not_supported`, told from the test alone.
Tests are in the language that they say, else in `language`: an answer in another, or
in one that is not run here, is wrong. Every run has fresh namespaces (bubblewrap): no
network, a read-only system, limits on memory, CPU, processes, files and output, and a
wall clock. At most one program a core runs at once in the whole process, whoever asks;
still, wrong by time out depends on the machine: leave room in `seconds` and
`time_factor`.
# Why
The only reward for code that is worth having. A machine that cannot contain
code refuses to run it: verdicts are `sandbox_missing`, never a bare run.
# Example
    [rules.tests]
    kind = "code"
    domains = ["code"]
    seconds = 5.0"#;

choices! {
    /// How printed output is compared.
    pub enum Compare {
        /// Lines, white space at their ends and empty lines at the end apart.
        Lines = "lines",
        /// Words, whatever stands between them.
        Tokens = "tokens",
        /// Every byte.
        Exact = "exact",
    }
}

params! {
    /// Parameters of the code rule.
    pub struct CodeConfig {
        /// Language of the code where neither the prompt nor the fence says.
        language: String = "python".into(),
        /// Wall seconds for each test (asserts share one run), where the problem of a program has no `time_limit`.
        seconds: f64 = 6.0,
        /// What `time_limit` is multiplied by, for a machine that is slower than the judge's, or answers in Python.
        time_factor: f64 = 1.0,
        /// Wall seconds for compiling.
        compile_seconds: f64 = 30.0,
        /// Wall seconds for a run of a checker.
        checker_seconds: f64 = 10.0,
        /// Memory of the whole process tree, MiB, where the problem of a program has no `memory_limit`.
        memory_mib: u64 = 512,
        /// Most processes and threads at once.
        processes: u64 = 32,
        /// Most bytes of output of one run, KiB; twice the expected output's where that is more.
        output_kib: usize = 1024,
        /// How printed output is compared.
        compare: Compare = Compare::Lines,
        /// Score the share of tests passed instead of all or nothing.
        partial: bool = false,
        /// Most tests that are run; the first ones.
        max_tests: usize = 100,
        /// Programs of this rule run at once; 0 is one a core, which is the most for all rules together.
        parallel: usize = 0,
        /// Path of the interpreter of Python programs, such as that of a virtual environment with numpy; by default
        /// the system's. Every user must be able to read its folder.
        python: Option<String> = None,
        /// Path of the interpreter of JavaScript programs.
        node: Option<String> = None,
    }
}

/// Whether a verification, or a gold answer in its place, holds tests of a program.
pub(super) fn has_tests(gold: Option<&str>, verification: Option<&str>) -> bool {
    suite::of(verification, gold, 1).is_ok()
}

/// Whether a word names a programming language that programs may be in (`cpp`, `Python 3`), and no language of people.
pub fn is_language(word: &str) -> bool {
    Language::from_word(word).is_some()
}

/// See [`DOC`].
pub struct CodeRule {
    config: CodeConfig,
    default: Language,
    /// What `parallel` allows.
    slots: Option<Slots>,
    /// Interpreters that were chosen, tried once; or why they do not run.
    python: OnceLock<Result<Toolchain, String>>,
    node: OnceLock<Result<Toolchain, String>>,
}

impl CodeRule {
    /// # Errors
    /// A language that is not known; limits that are not positive or too large.
    pub fn new(config: CodeConfig) -> Result<Self, ParamError> {
        let Some(default) = Language::from_word(&config.language) else {
            return Err(ParamError::new("language", format!("`{}` is not a language this rule runs", config.language))
                .hint("python, cpp, rust or javascript"));
        };
        for (field, value, most) in [
            ("seconds", config.seconds, MOST_SECONDS),
            ("compile_seconds", config.compile_seconds, MOST_SECONDS),
            ("checker_seconds", config.checker_seconds, MOST_SECONDS),
            ("time_factor", config.time_factor, 100.0),
        ] {
            if !(value > 0.0 && value <= most) {
                return Err(ParamError::new(field, format!("`{field}` must be above 0 and at most {most}")));
            }
        }
        let bounds = [
            ("memory_mib", config.memory_mib, 16, MOST_MIB as u64),
            ("processes", config.processes, 1, 4096),
            ("output_kib", config.output_kib as u64, 1, 65536),
            ("max_tests", config.max_tests as u64, 1, 10_000),
        ];
        for (field, value, low, high) in bounds {
            if !(low..=high).contains(&value) {
                return Err(ParamError::new(field, format!("`{field}` must be between {low} and {high}")));
            }
        }
        for (field, path) in [("python", &config.python), ("node", &config.node)] {
            if path.as_ref().is_some_and(|path| !Path::new(path).is_file()) {
                let path = path.as_deref().unwrap_or_default();
                return Err(ParamError::new(field, format!("`{path}` is no file"))
                    .hint("give the path of an interpreter, as `which` prints it"));
            }
        }
        let slots = (config.parallel > 0).then(|| Slots::new(config.parallel));
        Ok(CodeRule { config, default, slots, python: OnceLock::new(), node: OnceLock::new() })
    }

    /// What runs a language: what was chosen, else the machine's; or why there is nothing.
    fn toolchain(&self, language: Language) -> Result<&Toolchain, &str> {
        let chosen = match language {
            Language::Python => self.config.python.as_ref().zip(Some(&self.python)),
            Language::JavaScript => self.config.node.as_ref().zip(Some(&self.node)),
            _ => None,
        };
        match chosen {
            Some((path, found)) => {
                let tried = || Toolchain::tried(language, path, self.limits(language.has_address_space()));
                found.get_or_init(tried).as_ref().map_err(String::as_str)
            }
            None => language.toolchain().ok_or("it is not installed"),
        }
    }

    fn limits(&self, address_space: bool) -> Limits {
        Limits {
            wall: Duration::from_secs_f64(self.config.seconds),
            memory: self.config.memory_mib << 20,
            processes: self.config.processes,
            file: 64 << 20,
            output: self.config.output_kib << 10,
            stack: None,
            address_space,
        }
    }

    /// What assertions are written in, and what programs of streams must be in: never the answer's to choose.
    fn wanted(&self, suite: &Suite) -> Option<Language> {
        match suite.tests {
            Tests::Asserts(_) => Some(suite.language.unwrap_or(self.default)),
            Tests::Streams(_) => suite.language,
        }
    }

    fn judge(&self, sample: &Sample<'_>) -> crate::error::Result<Verdict> {
        let suite = match suite::of(sample.verification, sample.gold, self.config.max_tests) {
            Ok(suite) => suite,
            Err(no) if no.why.is_empty() => return Ok(Verdict::cannot_tell(no.reason)),
            Err(no) => return Ok(Verdict::cannot_tell(no.reason).with("error", no.why)),
        };
        let wanted = self.wanted(&suite);
        let Some(fences::Block { code, language: said }) = fences::program(fences::answer(sample.completion), wanted)
        else {
            return Ok(Verdict::wrong("no_code"));
        };
        let language = wanted.or(said).unwrap_or(self.default);
        if let Some(said) = said.filter(|said| *said != language) {
            return Ok(Verdict::wrong("wrong_language").with("language", format!("{said:?}")));
        }
        if sandbox::ready().is_err() {
            return Ok(Verdict::cannot_tell("sandbox_missing"));
        }
        let toolchain = match self.toolchain(language) {
            Ok(toolchain) => toolchain,
            Err(why) => {
                // Where the answer chose it, what is not here must not be a way to no reward.
                let verdict = match wanted.is_none() && language != self.default {
                    true => Verdict::wrong("language_not_run"),
                    false => Verdict::cannot_tell("toolchain_missing"),
                };
                return Ok(verdict.with("language", format!("{language:?}")).with("error", why));
            }
        };
        let _slot = self.slots.as_ref().map(Slots::take);
        match &suite.tests {
            Tests::Streams(streams) => self.streams(&suite, streams, &code, language, toolchain),
            Tests::Asserts(asserts) => {
                let limits = self.limits(toolchain.address_space);
                Ok(self.asserted(asserts::run(&suite, asserts, &code, language, toolchain, limits)?))
            }
        }
    }

    fn asserted(&self, outcome: asserts::Outcome) -> Verdict {
        match outcome {
            asserts::Outcome::Unsupported(why) => {
                Verdict::cannot_tell("asserts_not_supported").with("error", shorten(&why, 300))
            }
            asserts::Outcome::Faulty(fault) => Verdict::cannot_tell("tests_faulty").with("error", shorten(&fault, 300)),
            asserts::Outcome::Run { passed, reason, error, stderr } => {
                let count = passed.iter().filter(|passed| **passed).count();
                let first = passed.iter().position(|passed| !passed);
                let failed = |index| Failed { index, reason, stdout: Vec::new(), stderr, remark: String::new() };
                let verdict = self.verdict(count, count as f64, passed.len(), first.map(failed));
                if error.is_empty() { verdict } else { verdict.with("error", shorten(&error, 300)) }
            }
        }
    }

    /// `score` is the sum over all tests, of which `passed` have 1.
    fn verdict(&self, passed: usize, score: f64, all: usize, first: Option<Failed>) -> Verdict {
        let Some(Failed { index, reason, stdout, stderr, remark }) = first else {
            return Verdict::correct("tests_passed").with("tests", all.to_string());
        };
        let mut verdict = Verdict::wrong(reason).with("failed_test", index.to_string());
        if self.config.partial {
            verdict.score = Some(score / all as f64);
            verdict = verdict.with("passed", format!("{passed} of {all}"));
        }
        if !stdout.is_empty() && reason == "wrong_output" {
            verdict = verdict.with("stdout", tail(&stdout));
        }
        if !remark.is_empty() {
            verdict = verdict.with("checker", remark);
        }
        if stderr.is_empty() { verdict } else { verdict.with("stderr", tail(&stderr)) }
    }
}

/// The first test that a program did not pass.
struct Failed {
    index: usize,
    reason: &'static str,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The checker's.
    remark: String,
}

fn reason_of(ended: Ended) -> &'static str {
    match ended {
        Ended::WallLimit => "timeout",
        Ended::MemoryLimit => "memory_limit",
        Ended::OutputLimit => "output_limit",
        Ended::Signal(libc::SIGXCPU) => "timeout",
        Ended::Signal(libc::SIGXFSZ) => "file_limit",
        Ended::Signal(_) => "crashed",
        Ended::Exit(_) => "runtime_error",
    }
}

fn write(folder: &Path, name: &str, text: &str) -> crate::error::Result<()> {
    std::fs::write(folder.join(name), text).map_err(|e| crate::Error::new("cannot write a program").caused_by(e))
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    let start = text.char_indices().rev().nth(300).map_or(0, |(at, _)| at);
    shorten(&text[start..], 400)
}

/// The threads that wait for programs in batches.
fn waiting() -> Option<&'static rayon::ThreadPool> {
    static THREADS: OnceLock<Option<rayon::ThreadPool>> = OnceLock::new();
    let build = || {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(slots::cores());
        threads.thread_name(|index| format!("programs-{index}")).build().ok()
    };
    THREADS.get_or_init(build).as_ref()
}

impl Rule for CodeRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        self.judge(sample)
            .unwrap_or_else(|error| Verdict::cannot_tell("sandbox_failed").with("error", error.to_string()))
    }

    fn check_batch(&self, samples: &[Sample<'_>]) -> Vec<Verdict> {
        let threads = if samples.len() > 1 { waiting() } else { None };
        match threads {
            Some(threads) => threads.install(|| samples.par_iter().map(|sample| self.check(sample)).collect()),
            None => samples.iter().map(|sample| self.check(sample)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
