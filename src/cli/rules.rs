//! `gristmill rules`: for the authors of rule files.

mod audit;
mod diff;
mod reference;
mod test;
mod tree;
mod watch;

use std::io::Read;
use std::path::PathBuf;

use serde_json::json;

use crate::error::{Context, Error, Result};
use crate::rule::{Origin, RuleSet, Sample};
use crate::schema::FinishReason;

/// Write, test and probe rule files.
#[derive(clap::Args, Debug)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: RulesCommand,
}

#[derive(clap::Subcommand, Debug)]
pub enum RulesCommand {
    /// Load rule files and point at what is wrong with them
    Check(CheckArgs),
    /// Run the accept and reject examples of rule files
    Test(TestArgs),
    /// Judge one completion and show how each rule came to its verdict
    Try(TryArgs),
    /// The reference: kinds of rules with their parameters, facts and functions
    List(ListArgs),
    /// Which rows change their verdict from one rule file to another
    Diff(DiffArgs),
    /// Probe a rule file with known ways of earning reward without deserving it
    Audit(AuditArgs),
}

/// Arguments of `rules check`.
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    /// Rule files, or names of built-in ones; none checks all built-in ones
    #[arg(value_name = "RULES")]
    pub files: Vec<String>,
    /// Print the file with `extends` inlined
    #[arg(long)]
    pub resolved: bool,
    /// Check again whenever a file changes
    #[arg(long)]
    pub watch: bool,
}

/// Arguments of `rules test`.
#[derive(clap::Args, Debug)]
pub struct TestArgs {
    /// Rule files, or names of built-in ones; none tests all built-in ones
    #[arg(value_name = "RULES")]
    pub files: Vec<String>,
    /// Test again whenever a file changes
    #[arg(long)]
    pub watch: bool,
}

/// Arguments of `rules try`.
#[derive(clap::Args, Debug)]
pub struct TryArgs {
    /// Rule file, or the name of a built-in one
    #[arg(value_name = "RULES")]
    pub rules: String,
    /// File with the completion; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-", conflicts_with = "completion")]
    pub file: String,
    /// The completion itself
    #[arg(long, value_name = "TEXT")]
    pub completion: Option<String>,
    /// The question
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub prompt: String,
    /// The reference answer
    #[arg(long, value_name = "TEXT")]
    pub gold: Option<String>,
    /// The prompt's verification JSON
    #[arg(long, value_name = "JSON")]
    pub verification: Option<String>,
    #[arg(long, default_value = "math")]
    pub domain: String,
    /// BCP 47 tag; `und` tells it from the question
    #[arg(long, default_value = "und")]
    pub language: String,
    /// Tokens of the completion
    #[arg(long)]
    pub tokens: Option<u32>,
    #[arg(long)]
    pub difficulty: Option<f64>,
    /// The completion was cut at the token limit
    #[arg(long)]
    pub truncated: bool,
    /// Judge again whenever the rule file or the completion's file changes
    #[arg(long)]
    pub watch: bool,
    /// Print JSON instead of a tree
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rules list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Show one kind in full
    #[arg(value_name = "KIND")]
    pub kind: Option<String>,
    /// Print the JSON Schema of rule files, for editors
    #[arg(long)]
    pub schema: bool,
    /// Show every kind in full, as Markdown
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `rules diff`.
#[derive(clap::Args, Debug)]
pub struct DiffArgs {
    #[arg(value_name = "A")]
    pub before: String,
    #[arg(value_name = "B")]
    pub after: String,
    /// Rows as for `gristmill score`: JSONL, a .parquet file or a folder of such files; `-` is standard input
    #[arg(long, value_name = "ROWS")]
    pub on: String,
    /// Most rows shown
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
    /// Print each changed row as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rules audit`.
#[derive(clap::Args, Debug)]
pub struct AuditArgs {
    /// Rule file, or the name of a built-in one
    #[arg(value_name = "RULES")]
    pub rules: String,
    /// Prompts with `prompt` and `gold` to probe with, instead of the built-in ones: JSONL, a .parquet file or a folder of such files
    #[arg(long, value_name = "ROWS")]
    pub on: Option<String>,
    /// A probe whose reward is meant; may be given several times
    #[arg(long, value_name = "PROBE")]
    pub allow: Vec<String>,
    /// Most prompts taken from the file
    #[arg(long, default_value_t = 200)]
    pub limit: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// Faulty rule files and inputs; for `test` and `audit` also what they find.
pub fn run(args: RulesArgs) -> Result<()> {
    match args.command {
        RulesCommand::Check(args) if args.watch => watch::watch(&files_or_builtin(&args.files), || check(&args)),
        RulesCommand::Check(args) => check(&args),
        RulesCommand::Test(args) if args.watch => {
            watch::watch(&files_or_builtin(&args.files), || test::run(&files_or_builtin(&args.files)))
        }
        RulesCommand::Test(args) => test::run(&files_or_builtin(&args.files)),
        RulesCommand::Try(args) if args.watch => {
            if args.completion.is_none() && args.file == "-" {
                return Err(Error::usage("`--watch` cannot read the completion from standard input twice")
                    .hint("give it as a file or with `--completion`"));
            }
            watch::watch(&[args.rules.clone(), args.file.clone()], || try_one(&args))
        }
        RulesCommand::Try(args) => try_one(&args),
        RulesCommand::List(args) => reference::run(&args),
        RulesCommand::Diff(args) => diff::run(&args),
        RulesCommand::Audit(args) => audit::run(&args),
    }
}

fn files_or_builtin(files: &[String]) -> Vec<String> {
    if !files.is_empty() {
        return files.to_vec();
    }
    crate::rule::file::BUILTIN.iter().map(|(name, _)| (*name).to_owned()).collect()
}

fn check(args: &CheckArgs) -> Result<()> {
    let files = files_or_builtin(&args.files);
    let mut faults = Vec::new();
    for file in &files {
        match RuleSet::load(file) {
            Ok(rules) if args.resolved => outln!("# {file}\n{}", rules.resolved()),
            Ok(rules) => {
                outln!("{file}: ok, {} rules, digest {}", rules.rules().count(), &rules.digest()[..16]);
                for warning in rules.warnings() {
                    errln!("{file}: warning: {warning}");
                }
            }
            Err(error) => faults.push(error),
        }
    }
    finish(faults, files.len(), "does not load")
}

/// The first fault as it is; several with all printed first.
fn finish(mut faults: Vec<Error>, files: usize, what: &str) -> Result<()> {
    match faults.len() {
        0 => Ok(()),
        1 => Err(faults.remove(0)),
        count => {
            for fault in &faults {
                errln!("{}", fault.render(true));
            }
            Err(Error::usage(format!("{count} of {files} rule files: {what}")))
        }
    }
}

/// Longest completion in bytes, as long as a line that `score` reads.
const MAX_COMPLETION: usize = 64 << 20;

fn try_one(args: &TryArgs) -> Result<()> {
    let rules = RuleSet::load(&args.rules)?;
    rules.ensure_ready()?;
    let completion = match &args.completion {
        Some(text) => text.clone(),
        None => {
            let mut bytes = Vec::new();
            let source = super::rows::open(&args.file)?;
            let most = MAX_COMPLETION as u64;
            source.take(most + 1).read_to_end(&mut bytes).or_fail(|| format!("cannot read {}", args.file))?;
            if bytes.len() > MAX_COMPLETION {
                return Err(Error::new(format!("the completion is longer than {} MiB", MAX_COMPLETION >> 20))
                    .in_file(&args.file)
                    .hint("give a file of one completion; `gristmill score` judges many"));
            }
            String::from_utf8(bytes).map_err(|_| Error::new("the completion is not UTF-8").in_file(&args.file))?
        }
    };
    let sample = Sample {
        prompt: &args.prompt,
        completion: &completion,
        gold: args.gold.as_deref(),
        verification: args.verification.as_deref(),
        domain: &args.domain,
        language: &args.language,
        difficulty: args.difficulty,
        finish_reason: if args.truncated { FinishReason::Length } else { FinishReason::Stop },
        tokens: args.tokens,
        origin: Origin::default(),
    };
    let judgement = rules.judge(&sample);
    if args.json {
        let mut row = super::rows::Row::new();
        row.insert("outcome".into(), json!(judgement.outcome));
        row.insert("reason".into(), json!(judgement.reason));
        super::score::add(&mut row, judgement);
        outln!("{}", serde_json::Value::Object(row));
    } else {
        outln!("{}", tree::render(&rules, &sample, &judgement));
    }
    Ok(())
}

/// The path of a rule file that `--watch` can look at; built-in ones do not change.
fn watched(file: &str) -> Option<PathBuf> {
    Some(PathBuf::from(file)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_parse_and_run() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            rules: RulesArgs,
        }
        let run_line = |line: &[&str]| {
            let cli = <Cli as clap::Parser>::try_parse_from(std::iter::once("x").chain(line.iter().copied())).unwrap();
            run(cli.rules)
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        let good = "reward = \"a\"\n[rules.a]\nkind = \"exact\"\n[[examples]]\ngold = \"4\"\ncompletion = \"4\"\nexpect = \"accept\"\n";
        std::fs::write(&path, good).unwrap();
        let file = path.to_str().unwrap();
        run_line(&["check", file]).unwrap();
        run_line(&["check", "--resolved", file]).unwrap();
        run_line(&["test", file]).unwrap();
        run_line(&["try", file, "--completion", "4", "--gold", "5"]).unwrap();
        assert_eq!(run_line(&["try", file, "--watch"]).unwrap_err().exit_code(), 2);
        let long = folder.path().join("long.txt");
        std::fs::File::create(&long).unwrap().set_len(MAX_COMPLETION as u64 + 1).unwrap();
        let error = run_line(&["try", file, long.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("longer than 64 MiB"), "cut off and judged all the same: {error}");
        run_line(&["list"]).unwrap();
        run_line(&["list", "format"]).unwrap();
        run_line(&["list", "--schema"]).unwrap();
        assert!(run_line(&["list", "formt"]).unwrap_err().render(false).contains("`format`"));
        std::fs::write(&path, good.replace("\"4\"\ncompletion", "\"5\"\ncompletion")).unwrap();
        assert!(run_line(&["test", file]).unwrap_err().to_string().contains("1 of 1"));
        std::fs::write(&path, "reward = \"b\"\n[rules.a]\nkind = \"exact\"\n").unwrap();
        assert_eq!(run_line(&["check", file]).unwrap_err().exit_code(), 2);
    }
}
