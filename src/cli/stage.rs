//! `gristmill prompts`, `verify`, `grpo`, `eval` …: one stage alone.
//!
//! The arguments become a recipe of one stage, so a stage run alone and the same stage in a
//! recipe are the same code, with the same resume and the same manifest.

use std::path::Path;

use super::progress::Terminal;
use crate::error::Result;
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
    /// The prompts dataset (short for --set prompts=…)
    #[arg(long)]
    prompts: Option<String>,
    /// The completions dataset
    #[arg(long, visible_alias = "input")]
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
    let named = [
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
        _ => return Err(crate::Error::usage(format!("`gristmill {kind}` takes one `--model`"))),
    }
    overrides.extend(args.set.into_iter().map(|set| format!("stages.{kind}.{set}")));
    let (name, text, base) = match &args.config {
        Some(path) => {
            let text = crate::error::Context::or_fail(std::fs::read_to_string(path), || {
                "the stage's file cannot be read".to_owned()
            })
            .map_err(|e| e.in_file(path.display()))?;
            (path.display().to_string(), text, path.parent().unwrap_or(Path::new(".")).to_owned())
        }
        None => (format!("gristmill {kind}"), String::new(), Path::new(".").to_owned()),
    };
    let recipe = Recipe::of_stage(kind, &name, &text, &base, &overrides)?;
    let out = Location::parse(&args.output)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options { from: None, only: None, part: None, threads, dry_run: false };
    let stop = super::stop_on_signal()?;
    let summary = pipeline::run(&recipe, &out, &options, &Terminal::new(), stop)?;
    for stage in &summary.stages {
        println!("{}\t{}\t{} rows", stage.stage, stage.folder, stage.rows);
    }
    Ok(())
}
