//! Stored groups as training data: what recordings bring, and how many groups a batch wants.

use crate::support::{TINY_MODEL, column, gristmill, manifest};

/// Recorded answers, which bring no tokens, judged, grouped and trained on.
const RECIPE: &str = r#"[stages.prompts]
sources = [{ path = "questions.jsonl", domain = "math", language = "en" }]
dedup = { near = false }

[stages.generate]
samples = 2
engine = { kind = "replay", files = ["answers.jsonl"], completions = ["answers"] }

[stages.verify]
rules = "r1_mini"

[stages.group]

[stages.rl]
kind = "grpo"
model = "base"
groups = "group"
prompts = "prompts"
training = { steps = 3, prompts_per_rollout = 12, minibatches = 1, schedule = { learning_rate = 1e-3 } }
"#;

#[test]
fn recorded_answers_are_trained_on_as_the_policy_would_have_been_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut questions, mut answers) = (String::new(), String::new());
    for i in 1..13 {
        let question = format!("what is {i} + {i} ?");
        let answer = |n: i32| format!("<think> {i} + {i} = {n} </think> <answer> {n} </answer>");
        questions += &format!("{}\n", serde_json::json!({ "question": question, "answer": (2 * i).to_string() }));
        let both = [answer(2 * i), answer(2 * i + 1)];
        answers += &format!("{}\n", serde_json::json!({ "question": question, "answers": both }));
    }
    std::fs::write(folder.path().join("questions.jsonl"), questions).unwrap();
    std::fs::write(folder.path().join("answers.jsonl"), answers).unwrap();
    let run = |recipe: &str| {
        std::fs::write(folder.path().join("recipe.toml"), format!("{TINY_MODEL}{recipe}")).unwrap();
        gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"])
    };
    let bare = run(&RECIPE.replace("prompts = \"prompts\"\n", ""));
    assert_eq!(bare.code, Some(1), "{}", bare.story());
    assert!(bare.stderr.contains("does not carry its prompt's tokens"), "{}", bare.story());
    assert!(bare.stderr.contains("beside `groups`, and they are tokenised"), "{}", bare.story());
    let many = run(&RECIPE.replace("prompts_per_rollout = 12", "prompts_per_rollout = 13"));
    assert_eq!(many.code, Some(1), "{}", many.story());
    assert!(many.stderr.contains("a batch wants 13 groups, and there are 12 to train on"), "{}", many.story());

    let done = run(RECIPE).succeeded();
    assert!(
        done.stderr.contains("24 completions have no token ids and are tokenised by the policy's"),
        "{}",
        done.story()
    );
    let rl = folder.path().join("out/7_rl");
    assert!(!rl.join("rollouts").exists(), "nothing was asked");
    assert_eq!(manifest(&rl)["counts"]["sequences"], 3 * 24);
    let metrics = rl.join("metrics.parquet");
    assert_eq!(column(&metrics, "group_count"), [Some(12.0); 3]);
    assert!(column(&metrics, "skipped").iter().all(|skipped| *skipped == Some(0.0)));
}
