//! What users bring along themselves: rows that name no domain, rules that know nothing of one, models without a chat
//! template.

use crate::support::{TINY_MODEL, column, digests, gristmill, manifest};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

/// A folder with 20 questions that have gold answers and say nothing else.
fn folder_with(stages: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("recipe.toml"), format!("{TINY_MODEL}{stages}")).unwrap();
    let row = |i: u64| {
        serde_json::json!({ "question": format!("what is ( {} + {} ) * 2 + 1 ?", i + 1, i), "answer": (4 * i + 3).to_string() })
            .to_string()
    };
    let rows: Vec<String> = (0..20).map(row).collect();
    std::fs::write(folder.path().join("questions.jsonl"), rows.join("\n")).unwrap();
    folder
}

#[test]
fn rows_with_gold_answers_that_name_no_domain_are_judged() {
    let folder = folder_with(
        r#"[stages.prompts]
sources = [{ path = "questions.jsonl" }]

[stages.eval]
models = ["base"]
samples = 2
sampling = { max_tokens = 20 }
"#,
    );
    let run = gristmill(folder.path(), RUN).succeeded();
    assert!(run.stderr.contains("base: pass@1 0.") && !run.stderr.contains("warning"), "{}", run.story());
    assert_eq!(column(&folder.path().join("out/4_eval/evals.parquet"), "undecided")[0], Some(0.0));
}

#[test]
fn prompts_that_no_rule_decides_on_are_told_before_they_are_asked() {
    let folder = folder_with(
        r#"[stages.prompts]
sources = [{ path = "questions.jsonl", domain = "history" }]

[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "r1_mini"
group_size = 2
sampling = { max_tokens = 20 }
training = { steps = 2, prompts_per_rollout = 4, minibatches = 1 }
held_out = "prompts"
evaluate = { every = 1, prompts = 4, sampling = { max_tokens = 20 } }

[stages.generate]
engine = { kind = "local", model = "base" }
sampling = { max_tokens = 20 }

[stages.verify]
rules = "r1"

[stages.eval]
models = ["base"]
samples = 2
sampling = { max_tokens = 20 }
"#,
    );
    let run = gristmill(folder.path(), RUN).succeeded();
    let told = "the rules `r1` decide nothing on 20 of 20 prompts (by domain: history 20)";
    assert_eq!(run.stderr.matches(told).count(), 2, "verify and eval: {}", run.story());
    assert!(run.stderr.contains("they decide on math, stem, logic, code"), "{}", run.story());
    // The rules of the stage judge the held-out prompts too, and take any domain.
    let rl = folder.path().join("out/4_rl");
    assert_eq!(column(&rl.join("metrics.parquet"), "evaluation").into_iter().flatten().count(), 2);
    assert!(manifest(&rl)["facts"]["figures"]["held_out"].is_number(), "{}", manifest(&rl));
}

#[test]
fn verdicts_that_are_missing_are_told_with_their_reasons() {
    let folder = folder_with(
        r#"[stages.prompts]
sources = [{ path = "questions.jsonl", domain = "math" }]

[stages.generate]
engine = { kind = "replay", files = ["questions.jsonl"], completions = ["answer"] }

[stages.verify]
rules = "instruction_following"

[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "instruction_following"
group_size = 2
sampling = { max_tokens = 20 }
training = { steps = 9, prompts_per_rollout = 10, minibatches = 1 }
"#,
    );
    let run = gristmill(folder.path(), RUN);
    let said = run.story();
    assert!(said.contains("verify: 0 correct, 0 wrong, 20 cannot tell (constraints_missing 20)"), "{said}");
    assert!(said.contains("decided nothing on 20 of 20 completions (constraints_missing 20)"), "{said}");
    assert!(said.contains("nothing to learn from in 20 groups") && said.contains("constraints_missing 40"), "{said}");
    let counts = &manifest(&folder.path().join("out/5_verify"))["counts"];
    assert_eq!(counts["cannot_tell:constraints_missing"], 20, "{counts}");
}

#[test]
fn a_finished_model_and_evaluation_outlive_what_cannot_replace_them() {
    let folder = folder_with(
        r#"[stages.prompts]
sources = [{ path = "questions.jsonl" }]

[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "r1_mini"
group_size = 2
sampling = { max_tokens = 20 }
training = { steps = 2, prompts_per_rollout = 4, minibatches = 1 }

[stages.eval]
models = ["rl"]
samples = 2
sampling = { max_tokens = 20 }
"#,
    );
    gristmill(folder.path(), RUN).succeeded();
    let made = digests(&folder.path().join("out/4_rl"));
    let wants = ["--from", "rl", "--set", "rl.training.prompts_per_rollout=500"];
    let refused = gristmill(folder.path(), [&RUN[..], &wants].concat());
    assert!(refused.stderr.contains("a rollout wants 500 prompts, and there are 20"), "{}", refused.story());
    assert_eq!(refused.code, Some(1));
    // The corpus is read before the model it would replace goes.
    let base = digests(&folder.path().join("out/2_base"));
    let refused =
        gristmill(folder.path(), [&RUN[..], &["--from", "base", "--set", "base.corpus=questions.jsonl"]].concat());
    assert_ne!(refused.code, Some(0), "{}", refused.story());
    assert_eq!(digests(&folder.path().join("out/2_base")), base, "{}", refused.story());
    assert_eq!(digests(&folder.path().join("out/4_rl")), made);
    let again = gristmill(folder.path(), RUN).succeeded();
    assert_eq!(again.stderr.matches("cached: nothing it depends on has changed").count(), 5, "{}", again.stderr);

    let alone = |prompts: &str| {
        let given = ["eval", "--prompts", prompts, "--model", "out/4_rl/model", "--output", "alone"];
        let settings = ["--set", "samples=2", "--set", "sampling.max_tokens=20"];
        gristmill(folder.path(), [&given[..], &settings].concat())
    };
    alone("out/3_prompts").succeeded();
    let measured = digests(&folder.path().join("alone"));
    let refused = alone("questions.jsonl");
    assert_ne!(refused.code, Some(0), "{}", refused.story());
    assert_eq!(digests(&folder.path().join("alone")), measured, "{}", refused.story());
}

/// The trained model in the run's folder `out`, without its chat template, as `bare`.
fn strip_template(folder: &std::path::Path) {
    let (from, to) = (folder.join("out/2_base/model"), folder.join("bare"));
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let config = to.join("tokenizer_config.json");
    let mut keys: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    assert!(keys.remove("chat_template").is_some());
    std::fs::write(config, serde_json::to_vec(&keys).unwrap()).unwrap();
}

#[test]
fn a_model_without_a_chat_template_is_told_so_and_may_be_given_one() {
    let folder = folder_with("[stages.prompts]\nsources = [{ path = \"questions.jsonl\" }]\n");
    gristmill(folder.path(), RUN).succeeded();
    strip_template(folder.path());
    let run = |recipe: &str| {
        std::fs::write(folder.path().join("bare.toml"), recipe).unwrap();
        gristmill(folder.path(), ["run", "bare.toml", "--out", "of_bare"])
    };
    let rl = r#"
[stages.rl]
kind = "grpo"
model = "bare"
prompts = "out/3_prompts"
group_size = 2
sampling = { max_tokens = 8 }
training = { steps = 2, prompts_per_rollout = 4, minibatches = 1 }
"#;
    let generate = r#"
[stages.generate]
prompts = "out/3_prompts"
sampling = { max_tokens = 8 }
engine = { kind = "local", model = "bare" }
"#;
    let eval = r#"
[stages.eval]
prompts = "out/3_prompts"
models = [{ name = "base", model = "bare" }]
samples = 1
sampling = { max_tokens = 8 }
"#;
    // Through a stage that needs none itself, and before it has run.
    let later = r#"
[stages.text]
kind = "sft"
model = "bare"
corpus = "out/1_base_text"
format = "text"
training = { steps = 1 }

[stages.generate]
prompts = "out/3_prompts"
engine = { kind = "local", model = "text" }
"#;
    let told = |of: &str| format!("the model `{of}`: the model has no chat template");
    for (stage, told) in [(rl, told("bare")), (generate, told("bare")), (eval, told("bare")), (later, told("text"))] {
        let refused = run(stage);
        assert_eq!(refused.code, Some(1), "{}", refused.story());
        assert!(refused.stderr.contains(&told), "{}", refused.story());
        assert!(!folder.path().join("of_bare/1_text").exists(), "nothing has started");
        let planned = gristmill(folder.path(), ["run", "bare.toml", "--out", "of_bare", "--dry-run"]);
        assert!(planned.code == Some(1) && planned.stderr.contains(&told), "{}", planned.story());
        assert!(
            refused.stderr.contains("`chat_template = \"FILE\"` of Jinja, or one of \"plain\", \"r1_zero\""),
            "{}",
            refused.story()
        );
    }

    std::fs::write(folder.path().join("turns.jinja"), "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let given = [
        rl.replace("model = \"bare\"", "model = \"bare\"\nchat_template = \"plain\""),
        generate.replace("model = \"bare\"", "model = \"bare\", chat_template = \"plain\""),
        eval.replace("model = \"bare\"", "model = \"bare\", chat_template = \"turns.jinja\"")
            .replace("samples = 1", "samples = 1\nrules = \"r1_mini\""),
    ]
    .concat();
    let trained = run(&given).succeeded();
    let template = std::fs::read_to_string(folder.path().join("of_bare/1_rl/model/chat_template.jinja")).unwrap();
    assert!(template.contains("message.content"), "{template}");
    // An untrained model is never right, and says so: stdout tells what was made.
    let idle = "warning: 2 of 2 optimizer steps were skipped and changed nothing: 2 had no completion with an \
                advantage: in 100% of the groups";
    assert!(trained.stderr.contains(idle), "{}", trained.story());
    assert!(trained.stderr.contains("groups of one reward 1.000"), "{}", trained.story());
    assert!(trained.stdout.contains("\t2 optimizer steps\n"), "{}", trained.stdout);
    assert!(trained.stdout.contains("\t20 samples judged\n"), "{}", trained.stdout);

    // What a template says decides, not where it lies.
    std::fs::rename(folder.path().join("turns.jinja"), folder.path().join("moved.jinja")).unwrap();
    let moved = given.replace("turns.jinja", "moved.jinja");
    assert!(run(&moved).succeeded().state_of("eval").starts_with("cached"));
    std::fs::write(folder.path().join("moved.jinja"), "{% for m in messages %}{{ m.content }} {% endfor %}").unwrap();
    assert!(!run(&moved).succeeded().state_of("eval").starts_with("cached"));
    let missing = run(&moved.replace("moved.jinja", "turns.jinja")).refusal();
    assert!(missing.contains("there is no chat template") && missing.contains("plain, r1_zero"), "{missing}");
}
