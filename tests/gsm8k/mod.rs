//! Real problems and real completions: GSM8K's test set and the completions OpenAI published with it.

use std::path::PathBuf;

use crate::support::{files, gristmill, manifest, repository};

/// The folder with the recorded data, if this machine has it.
fn shared_data() -> Option<PathBuf> {
    let folder = std::env::var_os("GRISTMILL_SHARED_DATA").map_or_else(|| repository("../shared/data"), PathBuf::from);
    folder.join("gsm8k_example_model_solutions.jsonl").is_file().then_some(folder)
}

#[test]
fn the_math_rule_agrees_with_the_recorded_labels_and_every_disagreement_is_listed() {
    let Some(data) = shared_data() else {
        eprintln!("skipped: no recorded GSM8K completions here (GRISTMILL_SHARED_DATA names their folder)");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let recipe = repository("datasets/gsm8k_replay.toml");
    let data = format!("vars.data={}", data.canonicalize().unwrap().display());
    let run = gristmill(folder.path(), ["run", recipe.to_str().unwrap(), "--out", "out", "--set", &data]).succeeded();
    let out = folder.path().join("out");

    let line =
        run.stderr.lines().find(|line| line.contains("recorded labels")).unwrap_or_else(|| panic!("{}", run.story()));
    eprintln!("{}", line.trim());
    let verified = manifest(&out.join("3_verify"));
    let count = |what: &str| verified["counts"][what].as_u64().unwrap_or(0);
    let (labelled, agreeing) = (count("labelled"), count("label_agrees"));
    // 1,319 questions, four completions each.
    assert_eq!((verified["rows"].as_u64(), labelled), (Some(5276), 5276), "{:#}", verified["counts"]);
    assert!(line.contains(&format!("agrees with {agreeing} of {labelled}")), "{line}");

    let mut listed = 0;
    for file in files(&out.join("3_verify")).iter().filter(|file| file.starts_with("_disagreements-")) {
        let text = std::fs::read_to_string(out.join("3_verify").join(file)).unwrap();
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_ne!(row["label"], row["outcome"], "{row:#}");
            for key in ["completion_id", "reason", "gold", "question", "completion_end"] {
                assert!(row[key].as_str().is_some_and(|text| !text.is_empty()), "no `{key}` in {row:#}");
            }
            eprintln!("label {}, rule {}: {}; gold {}", row["label"], row["outcome"], row["reason"], row["gold"]);
            listed += 1;
        }
    }
    assert_eq!(listed, labelled - agreeing, "every disagreement is listed, and nothing else");
    assert!(agreeing as f64 >= 0.99 * labelled as f64, "{agreeing} of {labelled}");
}
