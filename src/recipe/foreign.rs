//! Keys by the names that other trainers give them, TRL, verl and Hugging Face's `TrainingArguments`, and our own where
//! they are looked for a table too high.

/// What of ours a name means: dotted keys from a stage's table on, each with the stages that have it where not all do, and
/// words where no key says it, or one that counts something else.
type Meaning = &'static [(&'static str, &'static str)];

/// Names, and what they mean.
const FOREIGN: &[(&[&str], Meaning)] = &[
    (&["learning_rate", "lr"], &[("", "training.schedule.learning_rate")]),
    (
        &["lr_scheduler_type", "lr_scheduler", "lr_decay_style", "warmup_style", "decay"],
        &[("", "training.schedule.decay")],
    ),
    (&["min_lr_ratio", "min_lr_rate"], &[("", "training.schedule.final_fraction")]),
    (&["warmup_ratio", "lr_warmup_steps_ratio"], &[("", "training.schedule.warmup_ratio")]),
    (&["warmup_steps", "lr_warmup_steps", "num_warmup_steps"], &[("", "training.schedule.warmup_steps")]),
    (
        &["num_train_epochs", "num_epochs", "total_epochs"],
        &[
            ("sft, distill, align", "training.epochs"),
            (
                "grpo",
                "how often prompts are asked follows from `training.steps`: steps = epochs × prompts / prompts_per_rollout × \
                 minibatches; `training.epochs` is passes over each rollout batch, and multiplies them",
            ),
        ],
    ),
    (&["num_iterations", "ppo_epochs", "epochs"], &[("", "training.epochs")]),
    (&["max_steps", "steps"], &[("", "training.steps")]),
    (
        &["total_training_steps"],
        &[
            ("sft, distill, align", "training.steps"),
            ("grpo", "steps are the optimizer's here: `training.steps` = rollout batches × minibatches × epochs"),
        ],
    ),
    (
        &["train_batch_size", "global_batch_size", "batch_size"],
        &[("sft, distill, align", "training.batch_size"), ("grpo", "training.prompts_per_rollout")],
    ),
    (
        &["per_device_train_batch_size"],
        &[
            (
                "sft, distill, align",
                "a whole step's rows are told, on however many GPUs: `training.batch_size` = \
                 per_device_train_batch_size × gradient_accumulation_steps × GPUs",
            ),
            (
                "grpo",
                "a whole rollout batch is told, in prompts: `training.prompts_per_rollout` = per_device_train_batch_size × \
                 steps_per_generation × GPUs / num_generations",
            ),
        ],
    ),
    (
        &["generation_batch_size"],
        &[("grpo", "in prompts here: `training.prompts_per_rollout` = generation_batch_size / num_generations")],
    ),
    (
        &["steps_per_generation"],
        &[(
            "grpo",
            "a number of optimizer steps here: `training.minibatches` = steps_per_generation / gradient_accumulation_steps",
        )],
    ),
    (
        &["ppo_mini_batch_size", "mini_batch_size"],
        &[("grpo", "a number and not a size here: `training.minibatches` = prompts_per_rollout / ppo_mini_batch_size")],
    ),
    (
        &["gradient_accumulation_steps"],
        &[(
            "",
            "a step is always over its whole batch: `training.tokens_per_microbatch` says how much of it is in memory at once",
        )],
    ),
    (
        &["micro_batch_size", "micro_batch_size_per_gpu", "ppo_micro_batch_size_per_gpu"],
        &[("", "in tokens and not in rows here: `training.tokens_per_microbatch`")],
    ),
    (&["ppo_max_token_len_per_gpu", "tokens_per_microbatch"], &[("", "training.tokens_per_microbatch")]),
    (
        &["gradient_checkpointing", "enable_gradient_checkpointing", "activation_checkpointing"],
        &[("", "training.recompute")],
    ),
    (&["optim", "optimizer_type"], &[("", "training.optimizer.kind")]),
    (&["weight_decay"], &[("", "training.optimizer.weight_decay")]),
    (&["adam_beta1"], &[("", "training.optimizer.beta1")]),
    (&["adam_beta2"], &[("", "training.optimizer.beta2")]),
    (&["adam_epsilon"], &[("", "training.optimizer.eps")]),
    (&["max_grad_norm", "grad_clip", "clip_grad"], &[("", "training.optimizer.max_grad_norm")]),
    (&["beta"], &[("align", "training.objective.beta"), ("grpo", "training.objective.kl_coefficient")]),
    (&["kl_coef", "kl_loss_coef", "kl_coeff"], &[("", "training.objective.kl_coefficient")]),
    (&["kl_loss_type", "kl_penalty"], &[("", "training.objective.kl_estimator")]),
    (&["entropy_coeff", "entropy_coef"], &[("", "training.objective.entropy_coefficient")]),
    (&["loss_type"], &[("align", "training.objective.loss"), ("grpo", "training.objective.aggregation")]),
    (&["loss_agg_mode"], &[("", "training.objective.aggregation")]),
    (&["importance_sampling_level"], &[("", "training.objective.surrogate")]),
    (&["epsilon", "clip_ratio", "clip_ratio_low", "cliprange"], &[("", "training.objective.clip_low")]),
    (&["epsilon_high", "clip_ratio_high"], &[("", "training.objective.clip_high")]),
    (&["clip_ratio_c", "delta"], &[("", "training.objective.dual_clip")]),
    (
        &["vllm_importance_sampling_cap", "vllm_importance_sampling_correction"],
        &[("", "training.objective.correction")],
    ),
    (&["scale_rewards", "norm_adv_by_std_in_grpo", "adv_estimator"], &[("", "training.advantage")]),
    (&["mask_truncated_completions"], &[("", "training.mask_truncated")]),
    (&["filter_groups", "max_num_gen_batches"], &[("", "training.refill_rounds")]),
    (&["overlong_buffer", "overlong_buffer_cfg"], &[("", "training.overlong")]),
    (&["ref_model_sync_steps", "sync_ref_model"], &[("", "training.reference_refresh")]),
    (&["num_generations", "rollout_n", "n_samples_per_prompt"], &[("", "group_size")]),
    (&["num_return_sequences", "n_samples"], &[("", "samples")]),
    (
        &["max_completion_length", "max_response_length", "max_new_tokens", "response_length", "max_tokens"],
        &[("", "sampling.max_tokens")],
    ),
    (
        &["max_length", "max_seq_length", "model_max_length"],
        &[("sft, distill, align", "training.max_tokens"), ("grpo", CONTEXT)],
    ),
    (&["max_prompt_length"], &[("", CONTEXT)]),
    (&["temperature"], &[("", "sampling.temperature")]),
    (&["reward_funcs", "reward_function", "reward_fn"], &[("", "rules")]),
    (&["model_name_or_path"], &[("", "model")]),
    (&["ref_model", "ref_model_name_or_path"], &[("", "reference")]),
    (&["use_vllm", "vllm_mode"], &[("", "engine")]),
    (&["lora_r", "lora_rank"], &[("", "lora.rank")]),
    (&["lora_alpha"], &[("", "lora.alpha")]),
    (
        &["bf16", "fp16", "torch_dtype"],
        &[("", "weights are trained in float32; what `model/` is written as is `dtype`, beside `training`")],
    ),
    (&["save_steps", "save_freq"], &[("", "checkpoints.every")]),
    (&["save_total_limit", "max_ckpt_to_keep"], &[("", "checkpoints.keep")]),
    (&["eval_steps", "test_freq"], &[("", "evaluate.every")]),
    (&["eval_on_start", "val_before_train"], &[("", "evaluate.before")]),
];

const CONTEXT: &str =
    "the model's own context is the limit: what is longer is left out, counted as `too_long` and listed";

/// Keys that tell whose table one is at, or its `training`.
const OF_STAGE: &[(&str, &str)] = &[
    ("group_size", "grpo"),
    ("prompts_per_rollout", "grpo"),
    ("preferences", "align"),
    ("corpus", "sft, distill"),
    ("batch_size", "sft, distill, align"),
];

/// What `name`, which is no key where those of `known` are, is here, as a hint. `None` where it means nothing to us, or
/// something that is not within reach from here.
pub fn meaning(name: &str, known: &[&str]) -> Option<String> {
    let (_, meanings) = FOREIGN.iter().find(|(names, _)| names.contains(&name))?;
    let stage = OF_STAGE.iter().find(|(key, _)| known.contains(key)).map(|(_, stage)| *stage);
    let is_of = |stages: &str| {
        let has = |stage: &str| stage.split(", ").any(|one| stages.split(", ").any(|of| of == one));
        stages.is_empty() || stage.is_none_or(has)
    };
    let meanings = meanings.iter().filter(|(stages, _)| is_of(stages));
    let here = meanings.filter_map(|(stages, path)| Some((*stages, within(path, known)?)));
    let here: Vec<(&str, String)> = here.collect();
    let said = match here.as_slice() {
        [] => return None,
        [(_, one)] => one.clone(),
        several => several.iter().map(|(of, path)| format!("{path} ({of})")).collect::<Vec<_>>().join(" or "),
    };
    Some(if said.starts_with('`') { format!("here it is {said}") } else { said })
}

/// The rest of a path from the first of its keys that is known here. Words are for where a model is trained.
fn within(path: &str, known: &[&str]) -> Option<String> {
    if path.contains(' ') {
        return ["training", "tokens_per_microbatch"].iter().any(|key| known.contains(key)).then(|| path.to_owned());
    }
    let keys: Vec<&str> = path.split('.').collect();
    let from = keys.iter().position(|key| known.contains(key))?;
    Some(format!("`{}`", keys[from..].join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_what_can_be_reached_from_where_it_stands() {
        let meant = |name, known: &[&str]| {
            let said = meaning(name, known).unwrap_or_default();
            said.strip_prefix("here it is ").map_or(said.clone(), str::to_owned)
        };
        assert_eq!(meant("lr", &["model", "training"]), "`training.schedule.learning_rate`");
        assert_eq!(meant("lr", &["epochs", "schedule"]), "`schedule.learning_rate`");
        assert_eq!(meant("lr", &["decay", "learning_rate"]), "`learning_rate`");
        assert_eq!(meant("lr", &["documents", "text"]), "");
        assert_eq!(meant("train_batch_size", &["minibatches", "prompts_per_rollout"]), "`prompts_per_rollout`");
        let either = "`objective.beta` (align) or `objective.kl_coefficient` (grpo)";
        assert_eq!(meant("beta", &["objective", "steps"]), either);
        assert_eq!(meant("beta", &["clip_low", "kl_coefficient"]), "`kl_coefficient`");
        assert_eq!(
            meant("max_length", &["max_tokens", "tokens_per_microbatch"]),
            format!("`max_tokens` (sft, distill, align) or {CONTEXT} (grpo)")
        );
        assert_eq!(meant("max_length", &["batch_size", "max_tokens", "tokens_per_microbatch"]), "`max_tokens`");
        assert_eq!(meant("max_length", &["corpus", "training"]), "`training.max_tokens`");
        assert_eq!(meant("max_length", &["group_size", "training"]), CONTEXT);
        assert_eq!(meant("learning", &["schedule"]), "");
    }

    #[test]
    fn a_name_that_counts_something_else_is_told_with_how_it_is_counted_here() {
        let grpo = &["epochs", "minibatches", "prompts_per_rollout", "steps", "tokens_per_microbatch"][..];
        let sft = &["batch_size", "epochs", "steps", "tokens_per_microbatch"][..];
        let meant = |name: &str, known: &[&str]| meaning(name, known).unwrap_or_default();
        let steps = "steps = epochs × prompts / prompts_per_rollout × minibatches";
        for (name, said) in [
            ("num_train_epochs", steps),
            ("total_epochs", steps),
            ("ppo_mini_batch_size", "`training.minibatches` = prompts_per_rollout / ppo_mini_batch_size"),
            ("steps_per_generation", "`training.minibatches` = steps_per_generation / gradient_accumulation_steps"),
            ("total_training_steps", "rollout batches × minibatches × epochs"),
            ("per_device_train_batch_size", "GPUs / num_generations"),
            ("gradient_accumulation_steps", "always over its whole batch"),
            ("bf16", "trained in float32"),
        ] {
            let told = meant(name, grpo);
            assert!(told.contains(said) && !told.starts_with("here it is"), "{name}: {told}");
        }
        assert_eq!(meant("num_train_epochs", sft), "here it is `epochs`");
        assert_eq!(meant("num_iterations", grpo), "here it is `epochs`");
        assert!(meant("per_device_train_batch_size", sft).contains("× gradient_accumulation_steps × GPUs"));
        assert_eq!(meant("ppo_mini_batch_size", sft), "", "it has none");
        assert_eq!(meant("val_before_train", &["group_size", "evaluate"]), "here it is `evaluate.before`");
    }

    #[test]
    fn no_name_means_two_things() {
        let mut names: Vec<&str> = FOREIGN.iter().flat_map(|(names, _)| *names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
