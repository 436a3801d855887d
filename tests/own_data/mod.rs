//! What users bring along themselves: rows that name no domain, rules that know nothing of a domain.

use crate::support::{column, gristmill, manifest};

/// A tiny model, and prompts out of the user's own rows.
const MODEL: &str = r#"name = "own"
seed = 4

[stages.base_text]
documents = 300
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }
corpus = "base_text"
format = "text"
training = { epochs = 1, batch_size = 32, optimizer = { kind = "muon" }, schedule = { learning_rate = 8e-3 } }

"#;

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

/// A folder with 20 questions that have gold answers and say nothing else.
fn folder_with(stages: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("recipe.toml"), format!("{MODEL}{stages}")).unwrap();
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
