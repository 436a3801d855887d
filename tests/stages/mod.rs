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
    let asked = first("prompt_only", "1_prompts", &[]);
    assert_eq!((&asked["prompt"][0]["role"], asked["prompt"].as_array().unwrap().len()), (&"user".into(), 1));
    let read: Vec<&str> = asked.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(read, ["prompt", "gold", "verification", "domain", "language", "difficulty"]);
    assert!(asked["gold"].is_string() && asked["domain"] == "math" && asked["language"] == "en", "{asked:#}");
    // What tells data from the manifest beside it is the split in a file's name.
    for (format, expected) in [("messages", "train-00000-of-00001.jsonl"), ("preference", "train-00000-of-00001.jsonl")]
    {
        let made = files(&folder.path().join(format).join("1_export"));
        assert!(made.contains(&expected.to_owned()), "{format}: {made:?}");
    }
}

#[test]
fn groups_that_give_no_pair_are_counted_by_both_ways_to_pairs() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 30);
    // Of the first ten questions every completion is the same; of the next five there is one only.
    let text = std::fs::read_to_string(folder.path().join("completions.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (i, line) in lines.iter_mut().take(15).enumerate() {
        let same = line["completions"][0].clone();
        let n = if i < 10 { 4 } else { 1 };
        line["completions"] = vec![same; n].into();
        line["correct"] = vec![true; n].into();
        line["finish_reasons"] = vec!["stop"; n].into();
    }
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    std::fs::write(folder.path().join("completions.jsonl"), text.join("\n")).unwrap();
    let recipe = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let recipe = recipe[..recipe.find("[stages.select]").unwrap()].to_owned()
        + "[stages.pairs]\nkind = \"preferences\"\nprompts = \"prompts\"\ngroups = \"group\"\n\n\
           [stages.export]\ninput = \"group\"\nformat = \"preference\"\nprompts = \"prompts\"\n";
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    for stage in ["5_pairs", "6_export"] {
        let manifest = manifest(&folder.path().join("out").join(stage));
        let drops = serde_json::json!({ "no_scored_pair": 5, "rewards_do_not_differ": 10 });
        assert_eq!((&manifest["rows"], &manifest["drops"]), (&15.into(), &drops), "{stage}");
    }
}

#[test]
fn no_turn_of_a_conversation_is_lost_on_its_way_to_sharegpt() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 1);
    let question = "What is 2 + 3?";
    let turns = [
        ("system", "Be brief."),
        ("system", "Be kind."),
        ("user", "Hello!"),
        ("assistant", "Hello."),
        ("system", "The user is a child."),
        ("user", question),
    ];
    let turns: Vec<_> = turns.iter().map(|(role, text)| serde_json::json!({ "role": role, "content": text })).collect();
    let asked = serde_json::json!({ "messages": turns, "answer": "5" });
    std::fs::write(folder.path().join("questions.jsonl"), asked.to_string()).unwrap();
    let answered = serde_json::json!({ "question": question, "completions": ["#### 5"], "correct": [true], "finish_reasons": ["stop"] });
    std::fs::write(folder.path().join("completions.jsonl"), answered.to_string()).unwrap();
    let more = ["--set", "export.format=sharegpt", "--set", "generate.samples=1", "--set", "corpus.validation=0.0"];
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"].iter().chain(&more)).succeeded();
    let text = std::fs::read_to_string(folder.path().join("out/7_export/train-00000-of-00001.jsonl")).unwrap();
    let row: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(row["system"], "Be brief.\n\nBe kind.");
    let from: Vec<_> =
        row["conversations"].as_array().unwrap().iter().map(|turn| turn["from"].as_str().unwrap()).collect();
    assert_eq!(from, ["human", "gpt", "system", "human", "gpt"], "{row:#}");
}

#[test]
fn verl_gets_parquet_with_its_nesting_and_no_row_that_nothing_checks() {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"question": "What is 1 + 1?", "answer": "2"}"#,
        r#"{"question": "How are you today, my friend?"}"#,
        r#"{"question": "What is the product of 7 and 6?", "answer": "42"}"#,
        r#"{"question": "Write f, which doubles a number.", "verification": {"tests": ["assert f(1) == 2"]}, "domain": "code"}"#,
    ];
    std::fs::write(folder.path().join("q.jsonl"), lines.join("\n")).unwrap();
    let recipe = "[stages.prompts]\nsources = [{ path = \"q.jsonl\", domain = \"math\", name = \"mine\" }]\n\
        [stages.export]\ninput = \"prompts\"\nformat = \"verl\"\nsplit = \"test\"\n";
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let stage = folder.path().join("out/2_export");
    assert_eq!(manifest(&stage)["drops"], serde_json::json!({ "no_gold": 1 }));
    let file = std::fs::File::open(stage.join("test-00000-of-00001.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    let text = |array: &arrow::array::ArrayRef, row: usize| array.as_string::<i32>().value(row).to_owned();
    let field = |of: &str, name: &str| batch[of].as_struct().column_by_name(name).unwrap().clone();
    assert_eq!(batch.num_rows(), 3);
    let told = ["data_source", "ability"].map(|name| text(&batch[name], 1));
    assert_eq!(told, ["mine", "math"]);
    let reward = ["style", "ground_truth"].map(|name| text(&field("reward_model", name), 1));
    assert_eq!(reward, ["rule", "42"]);
    let turn = batch["prompt"].as_list::<i32>().value(1);
    let said = ["role", "content"].map(|name| text(turn.as_struct().column_by_name(name).unwrap(), 0));
    assert_eq!(said, ["user", "What is the product of 7 and 6?"]);
    // The index is the row's in the dataset.
    assert_eq!(field("extra_info", "index").as_primitive::<Int64Type>().values(), &[0, 2, 3]);
    // A program's tests are what there is to compare to.
    let tests = r#"{"tests":["assert f(1) == 2"]}"#;
    assert_eq!(text(&field("reward_model", "ground_truth"), 2), tests);
    assert_eq!(text(&field("extra_info", "verification"), 2), tests);
    assert_eq!(text(&field("extra_info", "split"), 0), "test");
    assert_eq!(field("extra_info", "prompt_id").null_count(), 0);
    assert_eq!(text(&field("extra_info", "domain"), 1), "math", "a reward function is given nothing of a row but this");
}

#[test]
fn imported_preference_sets_become_pairs_and_what_is_no_pair_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The two layouts of the field, and rows that are no pair.
    let rows = [
        r#"{"prompt": "Name a prime number, please.", "chosen": "Seven.", "rejected": "Eight."}"#,
        r#"{"prompt": "Name an even number, please.", "chosen": [{"role": "user", "content": "Name an even number, please."}, {"role": "assistant", "content": "Eight."}], "rejected": [{"role": "assistant", "content": "Seven."}], "preference": "helpful"}"#,
        r#"{"prompt": "Name a square number, please.", "chosen": "Nine.", "rejected": "Nine."}"#,
        r#"{"prompt": "Name a cube number, please.", "chosen": "Eight.", "rejected": [{"role": "user", "content": "Why?"}]}"#,
    ];
    std::fs::write(folder.join("pairs.jsonl"), rows.join("\n")).unwrap();
    let recipe = r#"
        name = "pairs"
        [stages.prompts]
        sources = [{ path = "pairs.jsonl", name = "mine", domain = "talk", language = "en" }]
        dedup = { near = false }
        [stages.pairs]
        kind = "preferences"
        prompts = "prompts"
        group_by = "kind"
        [stages.export]
        input = "pairs"
        format = "preference"
    "#;
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
    gristmill(folder, ["run", "recipe.toml", "--out", "out"]).succeeded();
    let manifest = manifest(&folder.join("out/2_pairs"));
    assert_eq!(manifest["drops"], serde_json::json!({"answers_do_not_differ": 1, "no_rejected_answer": 1}));
    assert_eq!(manifest["counts"], serde_json::json!({"group helpful": 1, "group talk": 1}));
    let exported: Vec<_> = files(&folder.join("out/3_export")).into_iter().filter(|f| f.ends_with(".jsonl")).collect();
    let text = std::fs::read_to_string(folder.join("out/3_export").join(&exported[0])).unwrap();
    let pairs: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let answers = |pair: &serde_json::Value| {
        let text = |of: &str| pair[of][0]["content"].as_str().unwrap().to_owned();
        (text("chosen"), text("rejected"))
    };
    let expected = [("Seven.".to_owned(), "Eight.".to_owned()), ("Eight.".to_owned(), "Seven.".to_owned())];
    assert_eq!(pairs.iter().map(answers).collect::<Vec<_>>(), expected);
}

#[test]
fn recordings_that_nobody_asks_for_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    let set = ["--set", "generate.samples=3", "--set", "prompts.sources.0.limit=40", "--only"];
    for stage in ["prompts", "generate"] {
        gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"].iter().chain(&set).chain(&[stage])).succeeded();
    }
    let drops = &manifest(&folder.path().join("out/2_generate"))["drops"];
    assert_eq!(drops, &serde_json::json!({ "recording_unused": 200 - 3 * 40 }));
}

#[test]
fn recordings_claim_no_sampling_that_nobody_knows() {
    use gristmill::schema::Completion;
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    let rows = |out: &str, set: &[&str]| {
        gristmill(folder.path(), [&["run", "recipe.toml", "--out", out], set].concat()).succeeded();
        let generate =
            gristmill::store::Dataset::open(&folder.path().join(out).join("2_generate").as_path().into()).unwrap();
        let rows: Vec<Completion> = generate.rows_of().map(Result::unwrap).collect();
        assert!(!rows.is_empty() && rows.iter().all(|row| row.seed.is_none()), "{:?}", rows[0].seed);
        rows[0].sampling.clone()
    };
    assert_eq!(rows("out", &[]), "{}");
    let card = std::fs::read_to_string(folder.path().join("out/6_corpus/README.md")).unwrap();
    assert!(card.contains("- sampling not recorded\n") && !card.contains("temperature"), "{card}");
    // What is known of them is said, and nothing beside it.
    let known = ["--set", "generate.sampling.temperature=0.7", "--set", "generate.sampling.top_k=20"];
    assert_eq!(rows("told", &known), r#"{"temperature":0.7,"top_k":20}"#);
}

#[test]
fn other_recordings_after_a_kill_are_another_stage_and_no_other_model() {
    use gristmill::store::{Journal, SyncPolicy};
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 50);
    let run = || gristmill(folder.path(), ["run", "recipe.toml", "--out", "out", "--only", "generate"]);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out", "--only", "prompts"]).succeeded();
    // What a kill leaves: answers of another file of recordings.
    let stage = folder.path().join("out/2_generate");
    let head = serde_json::json!([3, "another file's digest", [3, {}, null]]).to_string();
    let mut journal =
        Journal::open(&stage.join("_requests").as_path().into(), SyncPolicy::default(), |_, _| Ok(())).unwrap();
    journal.append(head.as_bytes()).unwrap();
    drop(journal);
    run().succeeded();
    assert_eq!(manifest(&stage)["rows"], 200);
}

#[test]
fn a_disagreement_shows_what_the_deciding_rule_saw() {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), 10);
    let rules = "reward = \"accuracy\"\noutcome = \"accuracy\"\n\n[rules.length]\nkind = \"length\"\nunit = \"chars\"\nmax = 5\n\n[rules.accuracy]\nkind = \"exact\"\n";
    std::fs::write(folder.path().join("rules.toml"), rules).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let lines = std::fs::read_to_string(folder.path().join("out/3_verify/_disagreements-00000.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(line["label"], "correct", "{line:#}");
    assert!(line["evidence"].get("extracted").is_some(), "that is the length rule's: {line:#}");
}
