//! What the tables of training stages have in common.

use super::PolicyConfig;
use crate::error::Result;
use crate::recipe::StageTable;
use crate::rule::file::RuleSet;
use crate::stage::{Materials, StageContext, chat_template, file_name, rules_path};

/// Points what is wrong with a stage's `training` at that table.
pub(in crate::stage) fn in_training(table: &StageTable, checked: Result<()>) -> Result<()> {
    let origin = table.config.get("training").map_or(&table.origin, |node| &node.origin);
    checked.map_err(|e| origin.locate(e))
}

/// Keys of every training stage that decide nothing of what is computed: how memory is saved, when a checkpoint is
/// written, when too many bad gradients end the run, what is measured on the way, what is left beside the model. A stage that was killed goes on under
/// other ones, and one that is finished keeps what it measured.
///
/// `tokens_per_microbatch` decides the order in which gradients are added, so their last bits; somebody whose memory is
/// short has to be able to lower it without losing what was trained.
pub(in crate::stage) const TRAINING_KEYS: &[&str] = &[
    "checkpoints",
    "evaluate",
    "chat_template",
    "save_adapter",
    "init.tokenizer",
    "training.tokens_per_microbatch",
    "training.recompute",
    "training.optimizer.offload",
    "training.optimizer.max_bad_steps",
];

/// The seed of a training stage: the run's, unless the table has one of its own.
pub(in crate::stage) fn training_seed(own: u64, cx: &StageContext<'_>) -> u64 {
    if own == 0 { cx.seed } else { own }
}

/// What decides a training stage's result beside its inputs.
pub(in crate::stage) fn training_materials(
    cx: &Materials<'_>,
    policy: &PolicyConfig,
    evaluation_rules: Option<&str>,
) -> Result<Vec<(String, String)>> {
    let mut materials = Vec::new();
    for file in policy.tokenizer_files(cx.base) {
        let file = file.display().to_string();
        materials.push((format!("tokenizer/{}", file_name(&file)), (cx.digest_file)(&file)?));
    }
    if let Some(template) = &policy.chat_template {
        materials.push(chat_template::material(template, cx.base)?);
    }
    if let Some(rules) = evaluation_rules {
        // They decide nothing of what is trained; but a typo in them is to be told before anything runs.
        RuleSet::load(&rules_path(rules, cx.base)?)?;
    }
    Ok(materials)
}
