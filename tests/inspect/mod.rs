//! `gristmill inspect`: a file, a stage, a run.

use std::process::Stdio;

use serde_json::Value;

use crate::support::{STAGES, command, gristmill, repository, write_recordings};

#[test]
fn a_parquet_file_shows_its_columns_and_rows() {
    let folder = repository("datasets/golden/v1");
    let said = gristmill(&folder, ["inspect", "prompts.parquet"]).succeeded().stdout;
    for part in ["prompts v1 prompts.parquet", "prompt_id", "gold", "language"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    let json: Value =
        serde_json::from_str(&gristmill(&folder, ["inspect", "--json", "prompts.parquet"]).succeeded().stdout).unwrap();
    assert_eq!((&json["what"], &json["kind"]), (&"dataset".into(), &"prompts".into()));
    assert!(json["rows"].as_u64().unwrap() > 0);
    assert_eq!(json["columns"].as_array().unwrap().len(), json["sample"][0].as_object().unwrap().len());
}

#[test]
fn a_stage_and_a_run_show_what_was_made_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();

    let stage = gristmill(folder.path(), ["inspect", "out/5_select"]).succeeded().stdout;
    assert!(stage.contains("stage select (select), fingerprint"), "{stage}");
    let json: Value =
        serde_json::from_str(&gristmill(folder.path(), ["inspect", "--json", "out/5_select"]).succeeded().stdout)
            .unwrap();
    assert_eq!((&json["rows"], &json["stage"]["drops"]["truncated"]), (&100.into(), &50.into()), "{}", json["stage"]);

    let run = gristmill(folder.path(), ["inspect", "out"]).succeeded().stdout;
    let lines: Vec<&str> = run.lines().filter(|line| line.contains(" rows ")).collect();
    assert_eq!(lines.len(), STAGES.len(), "{run}");
    for ((_, stage), line) in STAGES.iter().zip(&lines) {
        assert!(line.trim_start().starts_with(stage), "{run}");
    }
    let json: Value =
        serde_json::from_str(&gristmill(folder.path(), ["inspect", "--json", "out"]).succeeded().stdout).unwrap();
    assert_eq!((&json["what"], json["stages"].as_array().unwrap().len()), (&"run".into(), STAGES.len()));
}

#[test]
fn a_run_that_was_tampered_with_does_not_verify() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let verify = |of: &str| gristmill(folder.path(), ["inspect", "--verify", of]);
    let said = verify("out").succeeded().stdout;
    assert!(said.contains("all as they were written"), "{said}");
    let shard = folder.path().join("out/5_select/part-00000.parquet");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    for (of, file) in [("out", "5_select/part-00000.parquet"), ("out/5_select", "part-00000.parquet")] {
        let said = verify(of);
        assert_eq!(said.code, Some(1), "{}", said.story());
        assert!(said.stdout.starts_with(&format!("{file} has other bytes")), "{}", said.story());
        assert!(said.stderr.contains("--from STAGE"), "{}", said.story());
    }
    verify("out/4_group").succeeded();
    let none = verify("out/5_select/part-00000.parquet");
    assert!(none.code == Some(1) && none.stderr.contains("no manifest"), "{}", none.story());
}

#[test]
fn a_stage_that_was_not_finished_is_listed_as_such() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    std::fs::remove_file(folder.path().join("out/7_export/_manifest.json")).unwrap();
    let run = gristmill(folder.path(), ["inspect", "out"]).succeeded().stdout;
    assert!(run.lines().any(|line| line.contains("7_export") && line.contains("not finished")), "{run}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_in_peace() {
    let folder = repository("datasets/golden/v1");
    for arguments in
        [&["inspect", "prompts.parquet"][..], &["inspect", "--json", "prompts.parquet"], &["rules", "list"]]
    {
        let mut command = command(&folder);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_stage_without_parquet_shards_shows_what_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let said = gristmill(folder.path(), ["inspect", "out/7_export"]).succeeded().stdout;
    for part in ["export out/7_export", "stage export (export), fingerprint", "contents", ".jsonl"] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    let json: Value =
        serde_json::from_str(&gristmill(folder.path(), ["inspect", "--json", "out/7_export"]).succeeded().stdout)
            .unwrap();
    assert_eq!((&json["what"], &json["stage"]["kind"]), (&"stage".into(), &"export".into()));
}
