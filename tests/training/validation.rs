//! The loss on rows that nothing is learned from: measured where the corpus has some, and no part of what is trained.

use crate::support::{column, files, gristmill, manifest};

const RECIPE: &str = r#"name = "validated"

[stages.chats]
kind = "prompts"
sources = [{ path = "chats.jsonl", layout = "chat" }]
dedup = { near = false }

[stages.corpus]
validation = 0.25
tracks = [{ name = "c", prompts = "chats" }]

[stages.student]
kind = "distill"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, context = 64 }
corpus = "corpus"
evaluate = { every = 2 }
training = { steps = 5, batch_size = 4 }
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let line = |i: usize| {
        serde_json::json!({ "messages": [
            { "role": "user", "content": format!("what is {i} + {} ?", i + 1) },
            { "role": "assistant", "content": format!("it is {} .", 2 * i + 1) },
        ] })
    };
    let lines: String = (0..40).map(|i| format!("{}\n", line(i))).collect();
    std::fs::write(folder.path().join("chats.jsonl"), lines).unwrap();
    std::fs::write(folder.path().join("recipe.toml"), RECIPE).unwrap();
    folder
}

#[test]
fn the_loss_on_the_validation_split_is_measured_on_the_way_and_at_the_end() {
    let folder = folder();
    let run = |more: &[&str]| gristmill(folder.path(), [&["run", "recipe.toml", "--out", "out"][..], more].concat());
    let log = run(&[]).succeeded();
    assert!(log.stderr.contains("validation loss "), "{}", log.stderr);
    let student = folder.path().join("out/3_student");
    let losses = column(&student.join("metrics.parquet"), "validation_loss");
    let measured: Vec<bool> = losses.iter().map(Option::is_some).collect();
    assert_eq!(measured, [false, true, false, true, true]);
    assert!(losses[4] < losses[1], "{losses:?}");
    let before = column(&student.join("metrics.parquet"), "validation_loss_before");
    assert!(before[0] > losses[1] && before[1..] == [None; 4], "{before:?}");
    let first = manifest(&student);
    assert_eq!(first["facts"]["figures"]["validation_loss"].as_f64(), losses[4], "{first:#}");
    assert_eq!(first["facts"]["figures"]["validation_loss_before"].as_f64(), before[0], "{first:#}");
    // Only what is measured differs, so what is trained stays.
    let again = run(&["--set", "student.validation={ rows = 3 }", "--dry-run"]).succeeded();
    assert!(again.state_of("student").starts_with("cached"), "{}", again.stderr);
    let other = run(&["--set", "student.evaluate.before=false", "--from", "student"]).succeeded();
    assert!(other.stderr.contains("validation loss ") && !other.stderr.contains("validation loss before"));
    assert_eq!(manifest(&student)["facts"]["model_digest"], first["facts"]["model_digest"]);
    let other = run(&["--set", "student.validation={ rows = 0 }", "--from", "student"]).succeeded();
    assert!(!other.stderr.contains("validation loss"), "{}", other.stderr);
    assert_eq!(manifest(&student)["facts"]["model_digest"], first["facts"]["model_digest"]);
    let refused = run(&["--set", "student.validation={ split = \"dev\" }", "--from", "student"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("the corpus has no split `dev`"), "{}", refused.stderr);
}

#[test]
fn how_much_an_evaluation_takes_on_is_said_in_its_table_and_changes_nothing_else() {
    let folder = folder();
    let held_out = RECIPE.replace(
        "evaluate = { every = 2 }",
        "held_out = \"chats\"\nevaluate = { every = 2, prompts = 6, sampling = { max_tokens = 8 } }",
    );
    std::fs::write(folder.path().join("recipe.toml"), held_out).unwrap();
    let run =
        |out: &str, more: &[&str]| gristmill(folder.path(), [&["run", "recipe.toml", "--out", out], more].concat());
    let cache = |more: &[&str]| -> String {
        let plan = run("out", &[&["--dry-run"], more].concat()).succeeded();
        let line = plan.stderr.lines().find(|line| line.contains("KV cache")).expect("it is evaluated").to_owned();
        line.split(", ").find(|part| part.contains("KV cache")).unwrap().to_owned()
    };
    let small = ["--set", "student.evaluate.cache_gib=0.001", "--set", "student.evaluate.batch=1"];
    assert_ne!(cache(&[]), cache(&small));
    run("out", &[]).succeeded();
    run("small", &small).succeeded();
    let made = |out: &str| manifest(&folder.path().join(out).join("3_student"));
    assert_eq!(made("out"), made("small"));
    assert!(run("out", &small).succeeded().state_of("student").starts_with("cached"));
}

/// A corpus of conversations, and one whose replies no context of the test holds.
const TWO: &str = r#"name = "two"

[stages.short]
kind = "prompts"
sources = [{ path = "chats.jsonl", layout = "chat" }]
dedup = { near = false }

[stages.short_corpus]
kind = "corpus"
tracks = [{ name = "c", prompts = "short" }]

[stages.long]
kind = "prompts"
sources = [{ path = "long.jsonl", layout = "chat" }]
dedup = { near = false }

[stages.long_corpus]
kind = "corpus"
tracks = [{ name = "c", prompts = "long" }]
"#;

#[test]
fn a_split_that_nobody_named_and_that_fits_no_context_ends_no_training() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let long = std::fs::read_to_string(at("chats.jsonl")).unwrap().replace(" .\"", &format!("{}\"", " yes".repeat(80)));
    std::fs::write(at("long.jsonl"), long).unwrap();
    std::fs::write(at("two.toml"), TWO).unwrap();
    gristmill(folder.path(), ["run", "two.toml", "--out", "out"]).succeeded();
    std::fs::create_dir(at("mixed")).unwrap();
    for (stage, split) in [("out/2_short_corpus", "train"), ("out/4_long_corpus", "validation")] {
        let shard = files(&at(stage)).into_iter().find(|file| file.ends_with(".parquet")).unwrap();
        std::fs::copy(at(stage).join(shard), at("mixed").join(format!("{split}-00000-of-00001.parquet"))).unwrap();
    }
    let train = |output: &str, more: &[&str]| {
        let init =
            r#"init={ tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, context = 64 }"#;
        let args = ["sft", "--corpus", "mixed", "--output", output, "--set", init, "--set", "training.steps=2"];
        gristmill(folder.path(), [&args[..], more].concat())
    };
    let run = train("plain", &[]).succeeded();
    let told =
        "no validation loss is measured: none of the 40 validation rows can be trained on (40 validation_too_long)";
    assert!(run.stderr.contains(told), "{}", run.stderr);
    assert_eq!(manifest(&at("plain/1_sft"))["counts"]["steps"], 2);
    let refused = train("named", &["--set", "validation={ rows = 40 }"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("none of the 40 validation rows"), "{}", refused.stderr);
}
