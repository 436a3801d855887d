//! Every kind of stage: its name, what reads its table, and what it takes where it runs alone.

use super::{
    Stage, align, base_text, claims, corpus, eval, export, generate, group, grpo, preferences, prompts, select, sft,
    verify,
};
use crate::error::{Error, Result, nearest};
use crate::recipe::StageTable;

/// A kind of stage.
#[derive(Debug)]
pub struct StageKind {
    /// The word in recipes.
    pub name: &'static str,
    /// What it does, on one line.
    pub about: &'static str,
    /// What it takes where it runs alone, as a subcommand; `None` if it runs in recipes only.
    pub alone: Option<Alone>,
    read: fn(&StageTable) -> Result<Box<dyn Stage>>,
}

/// The keys of a stage's table that say what it works on.
#[derive(Debug)]
pub struct Alone {
    /// Those that name datasets, models or rules.
    pub keys: &'static [&'static str],
    /// The dataset that it works on, where there is one such.
    pub input: Option<&'static str>,
}

/// Every kind of stage, in the order of the flow.
pub const KINDS: &[StageKind] = &[
    StageKind {
        name: "prompts",
        about: "Import, generate, deduplicate and decontaminate prompts",
        alone: Some(Alone { keys: &[], input: None }),
        read: |t| Ok(Box::new(prompts::PromptsConfig::read(t)?)),
    },
    StageKind {
        name: "generate",
        about: "Sample completions from an engine",
        alone: Some(Alone { keys: &["prompts"], input: Some("prompts") }),
        read: |t| Ok(Box::new(generate::GenerateStage::read(t)?)),
    },
    StageKind {
        name: "verify",
        about: "Judge completions by a rule file",
        alone: Some(Alone { keys: &["prompts", "completions", "rules"], input: Some("completions") }),
        read: |t| Ok(Box::new(t.config.read::<verify::VerifyConfig>()?)),
    },
    StageKind {
        name: "group",
        about: "Rewards and advantages by prompt",
        alone: Some(Alone { keys: &["prompts", "completions", "verdicts"], input: Some("completions") }),
        read: |t| Ok(Box::new(t.config.read::<group::GroupConfig>()?)),
    },
    StageKind {
        name: "select",
        about: "Rejection sampling: keep what is worth training on",
        alone: Some(Alone { keys: &["groups"], input: Some("groups") }),
        read: |t| Ok(Box::new(select::SelectConfig::read(t)?)),
    },
    StageKind {
        name: "corpus",
        about: "Mix tracks to quotas into an SFT dataset with its card",
        alone: Some(Alone { keys: &[], input: None }),
        read: |t| Ok(Box::new(corpus::CorpusStage::read(t)?)),
    },
    StageKind {
        name: "export",
        about: "Write a dataset in the layout another tool reads",
        alone: Some(Alone { keys: &["prompts"], input: Some("input") }),
        read: |t| Ok(Box::new(t.config.read::<export::ExportConfig>()?)),
    },
    StageKind {
        name: "base_text",
        about: "Write the mixed text a mini base model is pretrained on",
        alone: None,
        read: |t| Ok(Box::new(base_text::BaseTextStage::read(t)?)),
    },
    StageKind {
        name: "preferences",
        about: "Make pairs of a better and a worse answer",
        alone: Some(Alone { keys: &["prompts", "groups"], input: Some("groups") }),
        read: |t| Ok(Box::new(preferences::PreferencesStage::read(t)?)),
    },
    StageKind {
        name: "sft",
        about: "Fine-tune a model on a corpus",
        alone: Some(Alone { keys: &["corpus", "model"], input: Some("corpus") }),
        read: |t| Ok(Box::new(sft::SftStage::read(t)?)),
    },
    StageKind {
        name: "grpo",
        about: "Reinforcement learning on rule rewards, on policy or on stored groups",
        alone: Some(Alone { keys: &["prompts", "groups", "model", "rules"], input: None }),
        read: |t| Ok(Box::new(grpo::GrpoStage::read(t)?)),
    },
    StageKind {
        name: "align",
        about: "Preference optimisation, plain or worst group first",
        alone: Some(Alone { keys: &["preferences", "model"], input: Some("preferences") }),
        read: |t| Ok(Box::new(align::AlignStage::read(t)?)),
    },
    StageKind {
        name: "distill",
        about: "Fine-tune a smaller model on a teacher's corpus",
        alone: Some(Alone { keys: &["corpus", "model"], input: Some("corpus") }),
        read: |t| Ok(Box::new(sft::SftStage::read(t)?)),
    },
    StageKind {
        name: "eval",
        about: "Measure pass@1, pass@k and majority vote of models on prompts",
        alone: Some(Alone { keys: &["prompts", "models", "rules"], input: Some("prompts") }),
        read: |t| Ok(Box::new(eval::EvalStage::read(t)?)),
    },
    StageKind {
        name: "claims",
        about: "Check what a run was meant to show",
        alone: None,
        read: |t| Ok(Box::new(claims::ClaimsStage::read(t)?)),
    },
];

/// Reads a stage's table by its kind.
///
/// # Errors
/// An unknown kind; an unknown key or a wrong type in the table, with its place.
pub fn build(table: &StageTable) -> Result<Box<dyn Stage>> {
    match KINDS.iter().find(|kind| kind.name == table.kind) {
        Some(kind) => (kind.read)(table),
        None => {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            let origin = table.config.get("kind").map_or(&table.origin, |node| &node.origin);
            let error = Error::usage(format!("there is no stage of the kind `{}`", table.kind));
            let hint = match nearest(&table.kind, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("a stage's kind is its name, or `kind = …`; kinds: {}", names.join(", ")),
            };
            Err(origin.locate(error).hint(hint))
        }
    }
}
