//! A policy at a temperature, on prompts of which one is too long for it, and what other stages make of its rollouts.

use gristmill::schema::GroupRow;
use gristmill::store::{Dataset, Location};

use super::{RUN, folder_with};
use crate::support::{TINY_MODEL, column, gristmill, manifest};

/// Reinforcement learning of a tiny model at a temperature, on prompts of which one is too long for it.
const COLD: &str = r#"[stages.prompts]
sources = [{ path = "questions.jsonl", domain = "math", language = "en", license = "CC0-1.0" }]

[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "r1_mini"
group_size = 4
sampling = { temperature = 0.7, max_tokens = 20 }
training = { steps = 8, prompts_per_rollout = 8, minibatches = 2, refill_rounds = 1, objective = { kl_coefficient = 0.01 }, reference_refresh = 2, schedule = { learning_rate = 1e-3, decay = "constant" } }
held_out = "prompts"
evaluate = { rules = "r1_mini", every = 4, sampling = { max_tokens = 20 } }

[stages.eval]
prompts = "prompts"
rules = "r1_mini"
samples = 2
models = ["rl"]
sampling = { max_tokens = 20 }

[stages.chosen]
kind = "preferences"
prompts = "prompts"
groups = "rl"
truncated = true
"#;

#[test]
fn a_prompt_that_is_too_long_costs_itself_alone_and_a_temperature_is_the_trainers_too() {
    let folder = folder_with(&format!("{TINY_MODEL}{COLD}"));
    let question = |i: u64| format!("what is ( {} + {} ) * 2 + 1 ?", i + 1, i);
    let long = "the cat sees the dog . ".repeat(20);
    let mut lines: Vec<String> = (0..20)
        .map(|i| serde_json::json!({ "question": question(i), "answer": (4 * i + 3).to_string() }).to_string())
        .collect();
    lines.insert(7, serde_json::json!({ "question": long, "answer": "7" }).to_string());
    std::fs::write(folder.path().join("questions.jsonl"), lines.join("\n")).unwrap();
    gristmill(folder.path(), RUN).succeeded();
    // A stage that samples is a dataset of its rollouts to others: each group is a pair, or has a reason not to be.
    let chosen = manifest(&folder.path().join("out/6_chosen"));
    let dropped: u64 = chosen["drops"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64).sum();
    let groups = column(&folder.path().join("out/4_rl/metrics.parquet"), "group_count");
    assert_eq!((chosen["rows"].as_u64().unwrap() + dropped) as f64, groups.iter().flatten().sum::<f64>(), "{chosen:#}");
    let rl = folder.path().join("out/4_rl");
    assert_eq!(manifest(&rl)["drops"], serde_json::json!({ "too_long": 1 }));
    let listed = std::fs::read_to_string(rl.join("_drops.jsonl")).unwrap();
    assert!(listed.lines().count() == 1 && listed.contains("leave no room in a context of 96"), "{listed}");
    // What a checkpoint keeps of the rollouts is in their shards too, and is not found with them.
    let checkpoint = rl.join("checkpoints/step-00000008");
    let kept: Vec<String> = std::fs::read_dir(&checkpoint)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(kept.iter().any(|name| name == "pending.rows"), "{kept:?}");
    assert!(!kept.iter().any(|name| name.ends_with(".parquet") || name.starts_with("part-")), "{kept:?}");
    let metrics = rl.join("metrics.parquet");
    let gaps: Vec<f64> = column(&metrics, "rollout_gap_max").into_iter().flatten().collect();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap == 0.0), "the sampler's logprobs are at 0.7: {gaps:?}");
    assert!(column(&metrics, "kl_reference").into_iter().flatten().any(|kl| kl > 0.0));
    assert!(column(&metrics, "evaluation").into_iter().flatten().count() >= 2);
    let rollouts = Dataset::open(&Location::parse(rl.join("rollouts").to_str().unwrap()).unwrap()).unwrap();
    for row in rollouts.rows_of::<GroupRow>() {
        let sampling: serde_json::Value = serde_json::from_str(&row.unwrap().sampling).unwrap();
        assert!((sampling["temperature"].as_f64().unwrap() - 0.7).abs() < 1e-6, "{sampling}");
        assert_eq!(sampling["top_p"], 1.0, "what is not written is the policy's own distribution");
    }
    // The stage's folder, by its path, is what its name is in a recipe.
    let alone = |stage: &str, args: &[&str]| {
        let output = format!("alone/{stage}");
        gristmill(folder.path(), [&[stage][..], args, &["--output", &output]].concat())
    };
    let every = ["-s", "outcome=any", "-s", "truncated=true", "-s", "per_prompt=1"];
    let select = |groups: &str| alone("select", &[&["--groups", groups][..], &every].concat()).succeeded();
    let selected = select("out/4_rl");
    assert!(selected.stderr.contains("`per_prompt` counts within each"), "{}", selected.story());
    assert!(select("out/4_rl/rollouts").state_of("select").starts_with("cached"), "it is the same dataset");
    let kept = manifest(&folder.path().join("alone/select/1_select"))["rows"].as_f64().unwrap();
    assert_eq!(kept, groups.iter().flatten().sum::<f64>(), "one of each group");
    let tuned = ["--corpus", "out/1_base_text", "-s", "format=text", "-s", "training.steps=1"];
    alone("sft", &[&tuned[..], &["--model", "out/2_base"]].concat()).succeeded();
    for (stage, args, told) in [
        (
            "select",
            &["--groups", "out/2_base"][..],
            "a stage `sft`, which holds no groups: it has metrics.parquet, model/",
        ),
        ("preferences", &["--prompts", "out/4_rl", "--groups", "out/4_rl"], "a stage `grpo`, which holds no prompts"),
        ("export", &["--input", "out/2_base", "-s", "format=messages"], "a stage `sft`, which holds no dataset"),
        (
            "sft",
            &["--corpus", "out/1_base_text", "--model", "out/1_base_text"],
            "holds no model: it has part-00000.parquet",
        ),
    ] {
        let refused = alone(stage, args);
        assert!(refused.code == Some(2) && refused.stderr.contains(told), "{told}: {}", refused.story());
    }
    let evals = folder.path().join("out/5_eval/evals.parquet");
    let (failed, undecided) = (column(&evals, "failed")[0].unwrap(), column(&evals, "undecided")[0].unwrap());
    assert!((failed - 1.0 / 21.0).abs() < 1e-9 && undecided < 0.05, "{failed} {undecided}");
}
