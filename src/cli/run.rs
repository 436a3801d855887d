//! `gristmill run`.

use std::path::{Path, PathBuf};

use super::progress::Terminal;
use crate::error::{Context, Error, Result};
use crate::pipeline::{self, Options};
use crate::recipe::Recipe;
use crate::report;
use crate::stage::Part;
use crate::store::Location;

/// Recipes that the command brings along; the first runs when none is given.
const EMBEDDED: &[(&str, &str)] = &[
    ("r1_mini", include_str!("../../datasets/r1_mini.toml")),
    ("quickstart", include_str!("../../datasets/quickstart.toml")),
];
/// The files they read, beside them.
const SAMPLE: &[(&str, &str)] = &[
    ("questions.jsonl", include_str!("../../datasets/sample/questions.jsonl")),
    ("completions.jsonl", include_str!("../../datasets/sample/completions.jsonl")),
    ("evaluation.jsonl", include_str!("../../datasets/sample/evaluation.jsonl")),
];

/// A recipe by its path, or an embedded one by its name. The folder holds an embedded recipe's
/// files; they are gone when it is dropped.
fn load(recipe: Option<&Path>, overrides: &[String]) -> Result<(Recipe, Option<tempfile::TempDir>)> {
    let embedded = match recipe {
        None => EMBEDDED.first(),
        Some(path) if path.exists() => None,
        Some(path) => EMBEDDED.iter().find(|(name, _)| path.as_os_str() == *name),
    };
    let Some((name, text)) = embedded else {
        let path = recipe.expect("without a recipe the first embedded one is taken");
        return Recipe::load(path, overrides).map(|recipe| (recipe, None)).map_err(|e| match path.exists() {
            true => e,
            false => {
                let names: Vec<&str> = EMBEDDED.iter().map(|(name, _)| *name).collect();
                e.hint(format!("give a recipe's path, or an embedded one's name: {}", names.join(", ")))
            }
        });
    };
    let folder = unpack_sample()?;
    let recipe = Recipe::parse(&format!("{name}.toml"), text, folder.path(), overrides)?;
    Ok((recipe, Some(folder)))
}

/// Unpacks the embedded recipes' files.
fn unpack_sample() -> Result<tempfile::TempDir> {
    let failed = || "the embedded sample cannot be unpacked".to_owned();
    let dir = tempfile::tempdir().or_fail(failed)?;
    let folder = dir.path().join("sample");
    std::fs::create_dir(&folder).or_fail(failed)?;
    for (name, text) in SAMPLE {
        std::fs::write(folder.join(name), text).or_fail(failed)?;
    }
    Ok(dir)
}

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// The recipe's path, or an embedded one's name [default: r1_mini]
    recipe: Option<PathBuf>,
    /// Folder (or s3://, gs://, az:// URL) of the run [default: runs/NAME]
    #[arg(long)]
    out: Option<String>,
    /// Override a value of the recipe, such as generate.samples=8 or vars.data=DIR
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run this stage and those after it even if nothing changed
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
    /// Run this stage alone; its inputs must be there
    #[arg(long, value_name = "STAGE", conflicts_with = "from")]
    only: Option<String>,
    /// Print what would run, what is cached and why, and the rows expected
    #[arg(long)]
    dry_run: bool,
    /// Make this machine's part of the shards: I/N with I from 0
    #[arg(long, value_name = "I/N", conflicts_with = "from")]
    shard: Option<Part>,
    /// Threads for independent shards [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print the summary as JSON on stdout
    #[arg(long)]
    json: bool,
}

/// Writes the run's report where something changed. A report that cannot be written costs no run:
/// it can be made again from what the run left.
fn write_report(out: &Location, summary: &pipeline::RunSummary) {
    let Some(folder) = out.as_local() else { return };
    if summary.stages.iter().all(|stage| stage.cached) && folder.join(report::REPORT_FILE).exists() {
        return;
    }
    match report::write(folder, &report::Options::default()) {
        Ok(path) => errln!("report: {}", path.display()),
        Err(error) => errln!("no report: {error}\n  hint: `gristmill report {}` makes it again", folder.display()),
    }
}

/// Threads for shards and for what runs within one; all cores unless told otherwise.
pub(super) fn threads(wanted: Option<usize>) -> Result<usize> {
    let threads = wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    if threads == 0 {
        return Err(Error::usage("`--threads` must be at least 1"));
    }
    // The pool may already be there when the library is embedded elsewhere; then its size stands.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    Ok(threads)
}

pub fn run(args: Args) -> Result<()> {
    let (recipe, sample) = load(args.recipe.as_deref(), &args.set)?;
    let out = Location::parse(&args.out.unwrap_or_else(|| format!("runs/{}", recipe.name)))?;
    let threads = threads(args.threads)?;
    let options = Options { from: args.from, only: args.only, part: args.shard, threads };
    if args.dry_run {
        let preview = pipeline::preview(&recipe, &out, &options, &Terminal::new())?;
        if args.json {
            outln!("{}", serde_json::to_string_pretty(&preview).expect("a preview is plain data"));
        }
        return preview.refusal.map_or(Ok(()), Err);
    }
    let stop = super::stop_on_signal()?;
    let summary = pipeline::run(&recipe, &out, &options, &Terminal::new(), stop)?;
    drop(sample);
    if options.part.is_none() {
        write_report(&out, &summary);
    }
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&summary).expect("a summary is plain data"));
    } else {
        match &summary.waits_for {
            None => errln!("done in {:.1} s: {}", summary.seconds, summary.out),
            Some(others) => errln!(
                "waiting after {:.1} s: {others}\n    when the other parts have run, the same command goes on (one without `--shard` ends the run alone)",
                summary.seconds
            ),
        }
        for stage in &summary.stages {
            outln!("{}\t{}\t{}", stage.stage, stage.folder, stage.made());
        }
    }
    Ok(())
}
