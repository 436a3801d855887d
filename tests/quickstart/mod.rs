//! The README's first command, on a bare machine: no recipe, no files, no network.

use std::time::Instant;

use crate::support::{digests, files, gristmill, leftovers, manifest};

#[test]
fn the_first_command_leaves_a_corpus_with_its_card() {
    let folder = tempfile::tempdir().unwrap();
    let run = gristmill(folder.path(), ["run", "quickstart", "--out", "out"]).succeeded();
    let out = folder.path().join("out");
    for file in ["7_corpus/README.md", "7_corpus/data/train-00000-of-00001.parquet", "run.json", "run.jsonl"] {
        assert!(out.join(file).is_file(), "{file} is missing from {:#?}", files(&out));
    }
    assert_eq!(leftovers(&out), [""; 0]);
    assert_eq!(run.stdout.lines().count(), 8, "a line for each stage: {}", run.stdout);

    // The sample holds one duplicate question, and one of the evaluation set.
    let prompts = manifest(&out.join("1_prompts"));
    assert_eq!(prompts["drops"]["exact_duplicate"], 1);
    assert!(prompts["drops"]["contaminated"].as_u64() >= Some(1), "{prompts:#}");
    let corpus = manifest(&out.join("7_corpus"));
    let rows = corpus["rows"].as_u64().unwrap();
    assert!(rows > 40, "{corpus:#}");
    let exported = std::fs::read_to_string(out.join("8_export/train-00000-of-00001.jsonl")).unwrap();
    let validation = std::fs::read_to_string(out.join("8_export/validation-00000-of-00001.jsonl")).unwrap();
    assert_eq!((exported.lines().count() + validation.lines().count()) as u64, rows);

    let card = std::fs::read_to_string(out.join("7_corpus/README.md")).unwrap();
    for part in ["# gristmill quickstart", "configs:", "path: data/train-*", "## Quotas", "## Sources", "CC0-1.0"] {
        assert!(card.contains(part), "the card has no `{part}`:\n{card}");
    }
}

#[test]
fn a_line_of_the_log_says_when_each_stage_began_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "out"]).succeeded();
    let log = std::fs::read_to_string(folder.path().join("out/run.jsonl")).unwrap();
    let events: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |what: &str| -> Vec<String> {
        let wanted = events.iter().filter(|event| event["event"] == what);
        wanted.map(|event| event["stage"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of("start"), ["prompts", "generate", "verify", "group", "select", "other", "corpus", "export"]);
    assert_eq!(of("done"), of("start"));
}

#[test]
fn the_second_time_nothing_runs() {
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "out"]).succeeded();
    let before = digests(&folder.path().join("out"));
    let start = Instant::now();
    let again = gristmill(folder.path(), ["run", "quickstart", "--out", "out"]).succeeded();
    eprintln!("a finished run is found finished in {:.3} s", start.elapsed().as_secs_f64());
    assert_eq!(again.stderr.matches("cached: nothing it depends on has changed").count(), 8, "{}", again.stderr);
    assert_eq!(digests(&folder.path().join("out")), before);
}

#[test]
fn the_bytes_depend_neither_on_threads_nor_on_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "one", "--threads", "1"]).succeeded();
    gristmill(folder.path(), ["run", "quickstart", "--out", "deep/two", "--threads", "2"]).succeeded();
    assert_eq!(digests(&folder.path().join("one")), digests(&folder.path().join("deep/two")));
}

#[test]
fn another_seed_is_another_corpus() {
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "a"]).succeeded();
    gristmill(folder.path(), ["run", "quickstart", "--out", "b", "--set", "seed=8"]).succeeded();
    let digest = |run: &str| digests(&folder.path().join(run))["7_corpus/data/train-00000-of-00001.parquet"].clone();
    assert_ne!(digest("a"), digest("b"));
}

#[test]
fn the_summary_is_json_where_json_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let run = gristmill(folder.path(), ["run", "quickstart", "--out", "out", "--json"]).succeeded();
    let summary: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(summary["name"], "quickstart");
    assert_eq!(summary["stages"].as_array().unwrap().len(), 8);
    assert_eq!(summary["stages"][0]["cached"], false);
}
