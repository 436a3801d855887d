//! Every kind of stage, and what reads its table.

use super::{
    Stage, align, base_text, claims, corpus, eval, export, generate, group, grpo, preferences, prompts, select, sft,
    verify,
};
use crate::error::{Error, Result, nearest};
use crate::recipe::StageTable;

/// A stage's kind and what reads its table.
type Builder = (&'static str, &'static str, fn(&StageTable) -> Result<Box<dyn Stage>>);

/// Every kind of stage, in the order of the flow, with one line for people.
pub const KINDS: &[Builder] = &[
    ("prompts", "import, generate, deduplicate and decontaminate prompts", |t| {
        Ok(Box::new(prompts::PromptsConfig::read(t)?))
    }),
    ("generate", "sample completions from an engine", |t| Ok(Box::new(generate::GenerateStage::read(t)?))),
    ("verify", "judge completions by a rule file", |t| Ok(Box::new(t.config.read::<verify::VerifyConfig>()?))),
    ("group", "rewards and advantages by prompt", |t| Ok(Box::new(t.config.read::<group::GroupConfig>()?))),
    ("select", "rejection sampling: keep what is worth training on", |t| Ok(Box::new(select::SelectConfig::read(t)?))),
    ("corpus", "mix tracks to quotas into an SFT dataset with its card", |t| {
        Ok(Box::new(corpus::CorpusStage::read(t)?))
    }),
    ("base_text", "write the mixed text a mini base model is pretrained on", |t| {
        Ok(Box::new(base_text::BaseTextStage::read(t)?))
    }),
    ("preferences", "pairs of a better and a worse answer", |t| Ok(Box::new(preferences::PreferencesStage::read(t)?))),
    ("sft", "fine-tune a model on a corpus", |t| Ok(Box::new(sft::SftStage::read(t)?))),
    ("grpo", "reinforcement learning on rule rewards", |t| Ok(Box::new(grpo::GrpoStage::read(t)?))),
    ("align", "preference optimisation, plain or worst group first", |t| Ok(Box::new(align::AlignStage::read(t)?))),
    ("distill", "fine-tune a smaller model on a teacher's corpus", |t| Ok(Box::new(sft::SftStage::read(t)?))),
    ("eval", "pass@1, pass@k and majority vote of models on prompts", |t| Ok(Box::new(eval::EvalStage::read(t)?))),
    ("claims", "check what a run was meant to show", |t| Ok(Box::new(claims::ClaimsStage::read(t)?))),
    ("export", "write a dataset in the layout another tool reads", |t| {
        Ok(Box::new(t.config.read::<export::ExportConfig>()?))
    }),
];

/// Reads a stage's table by its kind.
///
/// # Errors
/// An unknown kind; an unknown key or a wrong type in the table, with its place.
pub fn build(table: &StageTable) -> Result<Box<dyn Stage>> {
    match KINDS.iter().find(|(kind, ..)| *kind == table.kind) {
        Some((_, _, read)) => read(table),
        None => {
            let names: Vec<&str> = KINDS.iter().map(|(kind, ..)| *kind).collect();
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
