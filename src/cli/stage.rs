//! `gristmill prompts`, `verify`, `grpo`, `eval` …: one stage alone.
//!
//! The arguments become a recipe of one stage, so a stage run alone and the same stage in a
//! recipe are the same code, with the same resume and the same manifest.

mod manual;

use clap::{ArgMatches, Args as _, FromArgMatches, Subcommand};

use super::progress::Terminal;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{self, Options};
use crate::recipe::Recipe;
use crate::stage::{Alone, KINDS, StageKind};
use crate::store::Location;

/// The options that name what a stage works on; each stage shows those that it takes.
const WORKS_ON: &[&str] = &["prompts", "completions", "verdicts", "groups", "corpus", "preferences", "model", "rules"];

/// One of [`KINDS`] that runs alone, and what it was given.
#[derive(Debug)]
pub struct Command {
    kind: &'static StageKind,
    alone: &'static Alone,
    args: Args,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// TOML file with the stage's keys, as they stand in a recipe's table
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// A key of the stage, such as completions=DIR or rules=r1; dotted for tables
    #[arg(long = "set", short = 's', value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The dataset that the stage works on
    #[arg(long, value_name = "DATASET")]
    input: Option<String>,
    /// The prompts dataset (short for --set prompts=…)
    #[arg(long)]
    prompts: Option<String>,
    /// The completions dataset
    #[arg(long)]
    completions: Option<String>,
    /// The verdicts dataset
    #[arg(long)]
    verdicts: Option<String>,
    /// The groups dataset
    #[arg(long)]
    groups: Option<String>,
    /// The corpus
    #[arg(long)]
    corpus: Option<String>,
    /// The preferences dataset
    #[arg(long)]
    preferences: Option<String>,
    /// A model's folder; several for eval
    #[arg(long, value_name = "DIR")]
    model: Vec<String>,
    /// The rule file, or the name of a built-in one
    #[arg(long)]
    rules: Option<String>,
    /// Folder of the result
    #[arg(long, value_name = "DIR")]
    output: String,
    /// Every random choice derives from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print what would run, what is cached and why, and the rows expected
    #[arg(long)]
    dry_run: bool,
    /// Threads for independent shards [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Subcommand for Command {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command.subcommands(all_alone().map(|(kind, alone)| subcommand(kind, alone)))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        alone(name).is_some()
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = matches.subcommand().and_then(|(name, matches)| Some((alone(name)?, matches)));
        let ((kind, alone), matches) =
            given.ok_or_else(|| clap::Error::new(clap::error::ErrorKind::MissingSubcommand))?;
        Ok(Command { kind, alone, args: Args::from_arg_matches(matches)? })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The kinds of stages that run alone.
fn all_alone() -> impl Iterator<Item = (&'static StageKind, &'static Alone)> {
    KINDS.iter().filter_map(|kind| Some((kind, kind.alone.as_ref()?)))
}

fn alone(name: &str) -> Option<(&'static StageKind, &'static Alone)> {
    all_alone().find(|(kind, _)| kind.name == name)
}

/// A stage's subcommand: it shows the options that the stage takes, and at the end of `--help` the keys of its table.
fn subcommand(kind: &StageKind, alone: &Alone) -> clap::Command {
    let takes = |option: &str| alone.keys.iter().any(|key| *key == option || (*key == "models" && option == "model"));
    let hidden = WORKS_ON.iter().filter(|option| !takes(option));
    let command = Args::augment_args(clap::Command::new(kind.name)).about(kind.about);
    let command = hidden.fold(command, |command, option| command.mut_arg(option, |option| option.hide(true)));
    let command = command.mut_arg("input", |option| match alone.input {
        Some(key) => option.help(format!("The dataset that the stage works on (short for --set {key}=…)")),
        None => option.hide(true),
    });
    command.after_help("`--help` lists the keys.").after_long_help(manual::section(kind.name).unwrap_or_default())
}

pub fn run(command: Command) -> Result<()> {
    let Command { kind: StageKind { name: kind, .. }, alone, args } = command;
    let mut overrides = vec![format!("seed={}", args.seed)];
    let input = match (alone.input, args.input) {
        (None, Some(_)) => {
            return Err(Error::usage(format!("`gristmill {kind}` has no single input"))
                .hint(format!("`gristmill {kind} --help` lists what it takes")));
        }
        (key, input) => (key.unwrap_or_default(), input),
    };
    let named = [
        input,
        ("prompts", args.prompts),
        ("completions", args.completions),
        ("verdicts", args.verdicts),
        ("groups", args.groups),
        ("corpus", args.corpus),
        ("preferences", args.preferences),
        ("rules", args.rules),
    ];
    for (key, value) in named {
        overrides.extend(value.map(|value| format!("stages.{kind}.{key}={}", toml::Value::String(value))));
    }
    let models: Vec<toml::Value> = args.model.into_iter().map(toml::Value::String).collect();
    match models.as_slice() {
        [] => {}
        _ if alone.keys.contains(&"models") => {
            overrides.push(format!("stages.{kind}.models={}", toml::Value::Array(models)));
        }
        [one] => overrides.push(format!("stages.{kind}.model={one}")),
        _ => return Err(Error::usage(format!("`gristmill {kind}` takes one `--model`"))),
    }
    overrides.extend(args.set.into_iter().map(|set| format!("stages.{kind}.{set}")));
    // Without a file, what is missing has no place of its own.
    let explained = |e: Error| match e.kind() {
        ErrorKind::Usage if args.config.is_none() => {
            e.hint(format!("`gristmill {kind} --help` lists options and keys"))
        }
        _ => e,
    };
    let recipe = Recipe::of_stage(kind, args.config.as_deref(), &overrides).map_err(explained)?;
    let out = Location::parse(&args.output)?;
    let threads = super::run::threads(args.threads)?;
    let options = Options { from: None, only: None, part: None, threads };
    if args.dry_run {
        let preview = pipeline::preview(&recipe, &out, &options, &Terminal::new()).map_err(explained)?;
        return preview.refusal.map_or(Ok(()), Err);
    }
    let stop = super::stop_on_signal()?;
    let summary = pipeline::run(&recipe, &out, &options, &Terminal::new(), stop).map_err(explained)?;
    for stage in &summary.stages {
        outln!("{}\t{}\t{}", stage.stage, stage.folder, stage.made());
    }
    Ok(())
}
