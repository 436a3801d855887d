//! Every stage by its own subcommand, on files of another folder: the same rows as in a run.

use std::path::Path;

use crate::support::{digests, files, gristmill, manifest, write_recordings};

/// Digests of a folder's data: what a stage made, without the manifest, which names its inputs' digests.
fn data(folder: &Path) -> Vec<(String, String)> {
    let made: Vec<_> = digests(folder).into_iter().filter(|(file, _)| !file.contains("_manifest.json")).collect();
    assert!(!made.is_empty(), "{} is empty", folder.display());
    made
}

/// Runs one stage alone and compares what it makes with the folder of the same stage in the run.
#[track_caller]
fn same_as_in_the_run(folder: &Path, stage: &str, of_run: &str, args: &[&str]) {
    let output = format!("alone/{stage}");
    let all = [&[stage][..], args, &["--seed", "3", "--output", &output]].concat();
    gristmill(folder, all).succeeded();
    assert_eq!(
        data(&folder.join(&output).join(format!("1_{stage}"))),
        data(&folder.join("out").join(of_run)),
        "{stage}"
    );
}

#[test]
fn each_stage_alone_makes_what_it_makes_in_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_recordings(folder, 300);
    // Alone, a stage writes shards of the default size.
    gristmill(folder, ["run", "recipe.toml", "--out", "out", "--set", "shard_rows=16384"]).succeeded();
    // From here on only the files that were written matter, and they may lie anywhere.
    std::fs::rename(folder.join("out/1_prompts"), folder.join("p")).unwrap();
    std::fs::create_dir(folder.join("out/1_prompts")).unwrap();
    for file in files(&folder.join("p")) {
        std::fs::copy(folder.join("p").join(&file), folder.join("out/1_prompts").join(&file)).unwrap();
    }

    let sources =
        "sources=[{ path = \"questions.jsonl\", domain = \"math\", language = \"en\", license = \"CC0-1.0\" }]";
    same_as_in_the_run(folder, "prompts", "1_prompts", &["--set", sources]);
    let config = "prompts = \"p\"\nsamples = 4\n\n[engine]\nkind = \"replay\"\nfiles = [\"completions.jsonl\"]\ncompletions = [\"completions\"]\nlabels = [\"correct\"]\nfinish_reasons = [\"finish_reasons\"]\n";
    std::fs::write(folder.join("generate.toml"), config).unwrap();
    same_as_in_the_run(folder, "generate", "2_generate", &["--config", "generate.toml"]);
    let rules = ["--prompts", "p", "--input", "alone/generate/1_generate", "--rules", "rules.toml"];
    same_as_in_the_run(folder, "verify", "3_verify", &rules);
    let verdicts =
        ["--prompts", "p", "--completions", "alone/generate/1_generate", "--verdicts", "alone/verify/1_verify"];
    same_as_in_the_run(folder, "group", "4_group", &verdicts);
    let policy = ["--groups", "alone/group/1_group", "--set", "policy=shortest", "--set", "per_prompt=2"];
    same_as_in_the_run(folder, "select", "5_select", &policy);
    let tracks = "tracks=[{ name = \"reasoning\", groups = \"alone/select/1_select\", prompts = \"p\" }]";
    same_as_in_the_run(folder, "corpus", "6_corpus", &["--set", tracks, "--set", "validation=0.1"]);
    let export = ["--set", "input=alone/corpus/1_corpus", "--set", "format=messages"];
    same_as_in_the_run(folder, "export", "7_export", &export);
}

#[test]
fn a_stage_takes_files_without_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    for stage in ["1_prompts", "2_generate"] {
        let to = folder.path().join("copied").join(stage);
        std::fs::create_dir_all(&to).unwrap();
        for file in files(&folder.path().join("out").join(stage)).iter().filter(|file| file.ends_with(".parquet")) {
            std::fs::copy(folder.path().join("out").join(stage).join(file), to.join(file)).unwrap();
        }
    }
    let args = [
        "verify",
        "--prompts",
        "copied/1_prompts",
        "--input",
        "copied/2_generate",
        "--rules",
        "rules.toml",
        "--output",
        "v",
    ];
    gristmill(folder.path(), args).succeeded();
    assert_eq!(data(&folder.path().join("v/1_verify")), data(&folder.path().join("out/3_verify")));
}

#[test]
fn a_stage_run_again_alone_is_cached_until_its_input_changes() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    let args = ["prompts", "--set", "sources=[{ path = \"questions.jsonl\" }]", "--output", "p"];
    assert!(gristmill(folder.path(), args).succeeded().state_of("prompts").starts_with("will run"));
    assert!(gristmill(folder.path(), args).succeeded().state_of("prompts").starts_with("cached"));
    let more = std::fs::read_to_string(folder.path().join("questions.jsonl")).unwrap()
        + "{\"question\": \"How many days has a week?\", \"answer\": \"7\"}\n";
    std::fs::write(folder.path().join("questions.jsonl"), more).unwrap();
    assert!(gristmill(folder.path(), args).succeeded().state_of("prompts").starts_with("will run"));
    assert_eq!(manifest(&folder.path().join("p/1_prompts"))["rows"], 51);
}

#[test]
fn near_duplicates_stay_where_the_recipe_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let story = "Natalia sold clips to many of her friends in April and then she sold half as many clips in May so how many clips did she sell";
    let lines = [format!("{story} altogether"), format!("{story} in total"), format!("{story} altogether")];
    let lines = lines.map(|question| serde_json::json!({ "question": question, "answer": "72" }).to_string());
    std::fs::write(folder.path().join("questions.jsonl"), lines.join("\n")).unwrap();
    let run = |near: &str, output: &str| {
        let near = format!("dedup.near{near}");
        gristmill(
            folder.path(),
            ["prompts", "--set", "sources=[{ path = \"questions.jsonl\" }]", "--set", &near, "--output", output],
        )
    };
    let drops = |output: &str| manifest(&folder.path().join(output).join("1_prompts"))["drops"].clone();
    run("=true", "on").succeeded();
    assert_eq!(drops("on"), serde_json::json!({ "exact_duplicate": 1, "near_duplicate": 1 }));
    run("=false", "off").succeeded();
    assert_eq!(drops("off"), serde_json::json!({ "exact_duplicate": 1 }));
    let wrong = run(".band=3", "wrong");
    assert_eq!(wrong.code, Some(2), "{}", wrong.story());
    assert!(wrong.stderr.contains("unknown key `band`") && wrong.stderr.contains("`bands`"), "{}", wrong.stderr);
}

#[test]
fn every_export_format_is_what_its_reader_expects() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let first = |format: &str, input: &str, more: &[&str]| -> serde_json::Value {
        let (input, layout) = (format!("input=out/{input}"), format!("format={format}"));
        let base = ["export", "--set", &input, "--set", &layout, "--output", format];
        gristmill(folder.path(), base.iter().chain(more)).succeeded();
        let stage = folder.path().join(format).join("1_export");
        let file = files(&stage).into_iter().find(|file| file.ends_with(".jsonl")).unwrap();
        serde_json::from_str(std::fs::read_to_string(stage.join(file)).unwrap().lines().next().unwrap()).unwrap()
    };
    let messages = first("messages", "6_corpus", &[]);
    assert_eq!(
        (&messages["messages"][0]["role"], &messages["messages"][1]["role"]),
        (&"user".into(), &"assistant".into())
    );
    let pair = first("prompt_completion", "6_corpus", &[]);
    assert_eq!((&pair["prompt"][0]["role"], &pair["completion"][0]["role"]), (&"user".into(), &"assistant".into()));
    let turns = first("sharegpt", "6_corpus", &[]);
    assert_eq!(
        (&turns["conversations"][0]["from"], &turns["conversations"][1]["from"]),
        (&"human".into(), &"gpt".into())
    );
    let preference = first("preference", "4_group", &["--set", "prompts=out/1_prompts"]);
    let (chosen, rejected) = (&preference["chosen"][0]["content"], &preference["rejected"][0]["content"]);
    assert!(chosen.as_str().unwrap().contains("####") && chosen != rejected, "{preference:#}");
    let verl = first("verl", "1_prompts", &[]);
    assert_eq!((&verl["ability"], &verl["reward_model"]["style"]), (&"math".into(), &"rule".into()));
    assert!(verl["reward_model"]["ground_truth"].is_string(), "{verl:#}");
}
