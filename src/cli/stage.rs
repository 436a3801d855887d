//! `gristmill prompts`, `verify`, `grpo`, `eval` …: one stage alone.
//!
//! The arguments become a recipe of one stage, so a stage run alone and the same stage in a
//! recipe are the same code, with the same resume and the same manifest.

mod manual;

use super::progress::Terminal;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{self, Options};
use crate::recipe::Recipe;
use crate::store::Location;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Import, generate, deduplicate and decontaminate prompts
    Prompts(Args),
    /// Sample completions from an engine
    Generate(Args),
    /// Judge completions by a rule file
    Verify(Args),
    /// Rewards and advantages by prompt
    Group(Args),
    /// Rejection sampling: keep what is worth training on
    Select(Args),
    /// Mix tracks to quotas into an SFT dataset with its card
    Corpus(Args),
    /// Write a dataset in the layout another tool reads
    Export(Args),
    /// Make pairs of a better and a worse answer
    Preferences(Args),
    /// Fine-tune a model on a corpus
    Sft(Args),
    /// Reinforcement learning on rule rewards, on policy or on stored groups
    Grpo(Args),
    /// Preference optimisation, plain or worst group first
    Align(Args),
    /// Fine-tune a smaller model on a teacher's corpus
    Distill(Args),
    /// Measure pass@1, pass@k and majority vote of models on prompts
    Eval(Args),
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

/// What a stage takes: its kind, the options that name datasets, models and rules, and the key that
/// `--input` stands for.
type Takes = (&'static str, &'static [&'static str], Option<&'static str>);

const TAKES: &[Takes] = &[
    ("prompts", &[], None),
    ("generate", &["prompts"], Some("prompts")),
    ("verify", &["prompts", "completions", "rules"], Some("completions")),
    ("group", &["prompts", "completions", "verdicts"], Some("completions")),
    ("select", &["groups"], Some("groups")),
    ("corpus", &[], None),
    ("export", &["prompts"], Some("input")),
    ("preferences", &["prompts", "groups"], Some("groups")),
    ("sft", &["corpus", "model"], Some("corpus")),
    ("grpo", &["prompts", "groups", "model", "rules"], None),
    ("align", &["preferences", "model"], Some("preferences")),
    ("distill", &["corpus", "model"], Some("corpus")),
    ("eval", &["prompts", "model", "rules"], Some("prompts")),
];

/// Shows each stage the options that it takes, and at the end of `--help` the keys of its table.
pub fn described(command: clap::Command) -> clap::Command {
    const INPUTS: &[&str] =
        &["prompts", "completions", "verdicts", "groups", "corpus", "preferences", "model", "rules"];
    TAKES.iter().fold(command, |command, (kind, options, input)| {
        command.mut_subcommand(kind, |stage| {
            let hidden = INPUTS.iter().filter(|input| !options.contains(input));
            let stage = hidden.fold(stage, |stage, input| stage.mut_arg(input, |option| option.hide(true)));
            let stage = stage.mut_arg("input", |option| match input {
                Some(key) => option.help(format!("The dataset that the stage works on (short for --set {key}=…)")),
                None => option.hide(true),
            });
            stage.after_help("`--help` lists the keys.").after_long_help(manual::section(kind).unwrap_or_default())
        })
    })
}

pub fn run(command: Command) -> Result<()> {
    let (kind, args) = match command {
        Command::Prompts(args) => ("prompts", args),
        Command::Generate(args) => ("generate", args),
        Command::Verify(args) => ("verify", args),
        Command::Group(args) => ("group", args),
        Command::Select(args) => ("select", args),
        Command::Corpus(args) => ("corpus", args),
        Command::Export(args) => ("export", args),
        Command::Preferences(args) => ("preferences", args),
        Command::Sft(args) => ("sft", args),
        Command::Grpo(args) => ("grpo", args),
        Command::Align(args) => ("align", args),
        Command::Distill(args) => ("distill", args),
        Command::Eval(args) => ("eval", args),
    };
    let mut overrides = vec![format!("seed={}", args.seed)];
    let input_key = TAKES.iter().find(|(of, ..)| *of == kind).and_then(|(.., input)| *input);
    let input = match (input_key, args.input) {
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
    match (kind, models.as_slice()) {
        (_, []) => {}
        ("eval", _) => overrides.push(format!("stages.eval.models={}", toml::Value::Array(models))),
        (_, [one]) => overrides.push(format!("stages.{kind}.model={one}")),
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
