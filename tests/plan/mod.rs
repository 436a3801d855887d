//! What runs and what does not: `--dry-run`, `--only`, `--from`, `--shard`, and changes by `--set`.

mod parts;

use std::path::Path;

use crate::support::{Finished, STAGES, digests, files, gristmill, manifest, write_recordings};

fn run(folder: &Path, out: &str, more: &[&str]) -> Finished {
    gristmill(folder, ["run", "recipe.toml", "--out", out].iter().chain(more))
}

fn recordings(questions: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_recordings(folder.path(), questions);
    folder
}

/// Names of the stages that were found cached.
fn cached(run: &Finished) -> Vec<&'static str> {
    let is_cached = |stage: &&str| run.state_of(stage).starts_with("cached");
    STAGES.iter().map(|(stage, _)| *stage).filter(is_cached).collect()
}

#[test]
fn a_dry_run_says_what_would_run_and_does_nothing() {
    let folder = recordings(50);
    let before = run(folder.path(), "out", &["--dry-run"]).succeeded();
    assert_eq!(before.state_of("prompts"), "will run: nothing is there yet");
    assert_eq!(before.state_of("export"), "will run: after its inputs");
    assert!(!folder.path().join("out").exists(), "{:?}", files(folder.path()));

    run(folder.path(), "out", &[]).succeeded();
    let made = digests(&folder.path().join("out"));
    let after = run(folder.path(), "out", &["--dry-run", "--set", "select.per_prompt=1"]).succeeded();
    assert_eq!(cached(&after), ["prompts", "generate", "verify", "group"]);
    assert_eq!(after.state_of("select"), "will run: its configuration, an input or a file has changed");
    assert_eq!(after.state_of("corpus"), "will run: after its inputs");
    let more = run(folder.path(), "out", &["--dry-run", "--set", "generate.samples=3"]).succeeded();
    assert!(more.stderr.contains("about 150 rows"), "50 prompts, 3 samples:\n{}", more.stderr);
    assert_eq!(digests(&folder.path().join("out")), made);
}

#[test]
fn an_override_runs_what_depends_on_it_and_nothing_else() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    let two = manifest(&folder.path().join("out/5_select"))["rows"].clone();
    let changed = run(folder.path(), "out", &["--set", "select.per_prompt=1"]).succeeded();
    assert_eq!(cached(&changed), ["prompts", "generate", "verify", "group"]);
    assert_eq!((two, &manifest(&folder.path().join("out/5_select"))["rows"]), (100.into(), &50.into()));
    // The corpus is the one that a run from the start would have made.
    run(folder.path(), "fresh", &["--set", "select.per_prompt=1"]).succeeded();
    assert_eq!(digests(&folder.path().join("out")), digests(&folder.path().join("fresh")));
    assert_eq!(cached(&run(folder.path(), "out", &["--set", "select.per_prompt=1"]).succeeded()).len(), STAGES.len());
}

#[test]
fn a_changed_rule_file_judges_again_and_does_not_ask_again() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    let rules = folder.path().join("rules.toml");
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, text.replace("reward = \"accuracy\"", "reward = \"2 * accuracy\"")).unwrap();
    let changed = run(folder.path(), "out", &[]).succeeded();
    assert_eq!(cached(&changed), ["prompts", "generate"]);
}

#[test]
fn only_one_stage_runs_where_one_is_asked_for() {
    let folder = recordings(50);
    run(folder.path(), "out", &["--only", "prompts"]).succeeded();
    let stages: Vec<_> = std::fs::read_dir(folder.path().join("out")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(stages.iter().filter(|entry| entry.path().is_dir()).count(), 1, "{stages:?}");
    let early = run(folder.path(), "out", &["--only", "group"]);
    assert_eq!(early.code, Some(1), "{}", early.story());
    assert!(early.stderr.contains("the input `completions` of `group`"), "{}", early.stderr);
    run(folder.path(), "out", &["--only", "generate"]).succeeded();
    assert!(folder.path().join("out/2_generate/_manifest.json").is_file());
}

#[test]
fn from_a_stage_on_everything_runs_again() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    let made = digests(&folder.path().join("out"));
    let again = run(folder.path(), "out", &["--from", "select"]).succeeded();
    assert_eq!(cached(&again), ["prompts", "generate", "verify", "group"]);
    assert_eq!(digests(&folder.path().join("out")), made);
}

#[test]
fn two_parts_make_what_one_machine_makes() {
    let folder = recordings(1000);
    run(folder.path(), "whole", &[]).succeeded();
    let mut ends = [None, None];
    // Each part goes as far as it can without the other: a stage further each time at least.
    for turn in 0..2 * STAGES.len() {
        let part = turn % 2;
        let run = run(folder.path(), "parts", &["--shard", &format!("{part}/2")]);
        // A part that waits for others has not failed.
        let run = run.succeeded();
        match run.stderr.contains("done in") {
            true => ends[part] = Some(turn),
            false => assert!(run.stderr.contains(&format!("part {part}/2 of the stage")), "{}", run.story()),
        }
        if ends.iter().all(Option::is_some) {
            break;
        }
    }
    assert!(ends.iter().all(Option::is_some), "the parts never meet: {ends:?}");
    assert_eq!(digests(&folder.path().join("parts")), digests(&folder.path().join("whole")));
}

#[test]
fn a_part_that_waits_says_for_what() {
    let folder = recordings(1000);
    run(folder.path(), "out", &["--only", "prompts"]).succeeded();
    let part = run(folder.path(), "out", &["--shard", "1/3", "--json"]).succeeded();
    let summary: serde_json::Value = serde_json::from_str(&part.stdout).unwrap();
    // 1,000 prompts of 4 samples make 8 shards, 3 of them this part's.
    let words = "part 1/3 of the stage `generate` is done; 5 of its 8 shards are other parts' and not there yet";
    assert_eq!(summary["waits_for"], words);
    assert_eq!(summary["stages"].as_array().unwrap().len(), 1, "{summary:#}");
    let whole = run(folder.path(), "out", &["--json"]).succeeded();
    assert!(serde_json::from_str::<serde_json::Value>(&whole.stdout).unwrap().get("waits_for").is_none());
}

#[test]
fn moved_files_are_the_same_files() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let text = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let mut moved = text.clone();
    for file in ["questions.jsonl", "completions.jsonl", "rules.toml"] {
        std::fs::rename(folder.path().join(file), folder.path().join("data").join(file)).unwrap();
        moved = moved.replace(&format!("\"{file}\""), &format!("\"data/{file}\""));
    }
    std::fs::write(folder.path().join("recipe.toml"), &moved).unwrap();
    assert_eq!(cached(&run(folder.path(), "out", &[]).succeeded()).len(), STAGES.len());
    // A source without a name is called after its file, so another name is another source.
    std::fs::rename(folder.path().join("data/questions.jsonl"), folder.path().join("data/asked.jsonl")).unwrap();
    std::fs::write(folder.path().join("recipe.toml"), moved.replace("questions", "asked")).unwrap();
    assert_eq!(cached(&run(folder.path(), "out", &[]).succeeded()), [""; 0]);
}

#[test]
fn a_stage_that_is_not_finished_is_no_input() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    std::fs::remove_file(folder.path().join("out/2_generate/_manifest.json")).unwrap();
    let early = run(folder.path(), "out", &["--only", "verify"]);
    assert_eq!(early.code, Some(1), "{}", early.story());
    assert!(early.stderr.contains("the stage `generate` is not finished"), "{}", early.stderr);
}

#[test]
fn threads_do_not_show_in_the_bytes() {
    let folder = recordings(1000);
    run(folder.path(), "one", &["--threads", "1"]).succeeded();
    run(folder.path(), "four", &["--threads", "4"]).succeeded();
    assert_eq!(digests(&folder.path().join("one")), digests(&folder.path().join("four")));
}

#[test]
fn renamed_stages_are_other_folders_but_the_same_rows() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    let text = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let renamed = text.replace("[stages.group]\n", "[stages.score]\nkind = \"group\"\n");
    let renamed = renamed.replace("[stages.select]\n", "[stages.select]\ngroups = \"score\"\n");
    std::fs::write(folder.path().join("recipe.toml"), renamed).unwrap();
    run(folder.path(), "renamed", &[]).succeeded();
    let (a, b) = (digests(&folder.path().join("out")), digests(&folder.path().join("renamed")));
    assert_eq!(a["4_group/part-00000.parquet"], b["4_score/part-00000.parquet"]);
    assert_eq!(a["6_corpus/data/train-00000-of-00001.parquet"], b["6_corpus/data/train-00000-of-00001.parquet"]);
}

/// Puts a stage before `generate`, so that everything after it gets another number.
fn put_in_a_stage(folder: &Path) {
    let file = folder.join("recipe.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let extra =
        "[stages.extra]\nkind = \"prompts\"\nprocedural = [{ count = 12, mix = [{ name = \"arithmetic\" }] }]\n";
    std::fs::write(&file, text.replace("[stages.generate]", &format!("{extra}\n[stages.generate]"))).unwrap();
}

fn stage_folders(out: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> =
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_stage_put_in_before_others_costs_them_nothing() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    let out = folder.path().join("out");
    let before = stage_folders(&out);
    put_in_a_stage(folder.path());
    let planned = run(folder.path(), "out", &["--dry-run"]).succeeded();
    assert_eq!(cached(&planned).len(), STAGES.len(), "{}", planned.story());
    assert_eq!(planned.state_of("extra"), "will run: nothing is there yet");
    assert_eq!(stage_folders(&out), before, "a dry run renames nothing");

    let again = run(folder.path(), "out", &[]).succeeded();
    assert_eq!(cached(&again).len(), STAGES.len(), "{}", again.story());
    let folders = ["1_prompts", "2_extra", "3_generate", "4_verify", "5_group", "6_select", "7_corpus", "8_export"];
    assert_eq!(stage_folders(&out), folders);
    run(folder.path(), "fresh", &[]).succeeded();
    assert_eq!(digests(&out), digests(&folder.path().join("fresh")));
}

#[test]
fn a_dry_run_comes_to_the_stages_that_the_run_then_comes_to() {
    let folder = recordings(50);
    run(folder.path(), "out", &[]).succeeded();
    let json = |options: &[&str]| -> serde_json::Value {
        let ended = run(folder.path(), "out", &[options, &["--json"]].concat()).succeeded();
        serde_json::from_str(&ended.stdout).unwrap()
    };
    for options in
        [&["--from", "select"][..], &["--only", "verify"], &["--only", "group", "--set", "select.per_prompt=1"]]
    {
        let preview = json(&[options, &["--dry-run"]].concat());
        let keys: Vec<&String> = preview.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "out", "stages", "plan", "seconds"]);
        assert_eq!(preview["stages"], serde_json::json!([]), "nothing ran");
        let foreseen = preview["plan"].as_array().unwrap().iter();
        let foreseen = foreseen.map(|stage| (&stage["stage"], stage["state"].as_str().unwrap().starts_with("cached")));
        let done = json(options);
        let done = done["stages"].as_array().unwrap().iter();
        let done = done.map(|stage| (&stage["stage"], stage["cached"].as_bool().unwrap()));
        assert!(
            foreseen.clone().eq(done.clone()),
            "{options:?}: {:?}, {:?}",
            foreseen.collect::<Vec<_>>(),
            done.collect::<Vec<_>>()
        );
    }
}

#[test]
fn a_dry_run_knows_the_rows_of_stages_that_wait_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let model = "engine = { kind = \"local\", model = \"made\" }\nsampling = { max_tokens = 100 }";
    let made = "init = { tokenizer = \"mini\", hidden = 32, layers = 1, heads = 2, kv_heads = 1, intermediate = 64, context = 128 }";
    let recipe = format!(
        "[stages.prompts]\nprocedural = [{{ count = 30, mix = [{{ name = \"mini_mix\" }}] }}]\n\
         [stages.text]\nkind = \"base_text\"\ndocuments = 10\n\
         [stages.made]\nkind = \"sft\"\ncorpus = \"text\"\nformat = \"text\"\n{made}\n\
         [stages.generate]\nsamples = 4\n{model}\n[stages.verify]\nrules = \"r1\"\n"
    );
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    let planned = run(folder.path(), "out", &["--dry-run", "--json"]).succeeded();
    let summary: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
    let stage = |name: &str| {
        let plan = summary["plan"].as_array().unwrap();
        plan.iter().find(|stage| stage["stage"] == name).unwrap_or_else(|| panic!("{summary:#}")).clone()
    };
    assert_eq!(stage("generate")["state"], "will run: after its inputs");
    assert_eq!((&stage("generate")["rows"], &stage("generate")["tokens"]), (&120.into(), &12_000.into()));
    assert_eq!(stage("verify")["rows"], 120);
    assert!(planned.stderr.contains("about 120 rows, at most 12000 tokens"), "{}", planned.stderr);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_dry_run_asks_whose_folder_it_is() {
    let folder = recordings(20);
    run(folder.path(), "out", &["--only", "prompts"]).succeeded();
    let other = run(folder.path(), "out", &["--dry-run", "--set", "name=other"]);
    assert_eq!(other.code, Some(1), "{}", other.story());
    assert!(other.stderr.contains("belongs to the run `story`, not to `other`"), "{}", other.story());
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/thesis.tex"), "years of work").unwrap();
    let said = run(folder.path(), "mine", &["--dry-run"]);
    assert!(said.stderr.contains("is not a run of gristmill"), "{}", said.story());
    run(folder.path(), "nothing", &["--dry-run"]).succeeded();
    assert!(!folder.path().join("nothing").exists());
}

#[test]
fn stages_that_the_recipe_no_longer_has_are_named_and_not_shown() {
    let folder = recordings(20);
    run(folder.path(), "out", &[]).succeeded();
    let text = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let end = text.find("[stages.corpus]").unwrap();
    std::fs::write(folder.path().join("recipe.toml"), &text[..end]).unwrap();
    run(folder.path(), "out", &["--from", "select"]).succeeded();
    let shown = gristmill(folder.path(), ["inspect", "out"]).succeeded().stdout;
    assert!(
        shown.contains("6_corpus             left over") && shown.contains("7_export             left over"),
        "{shown}"
    );
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(page.contains("stages that are no longer in the recipe: 6_corpus, 7_export"), "{page}");
    assert!(!page.contains("corpus rows"), "the funnel goes on to a stage that is no more");
}

#[test]
fn a_part_that_would_clear_another_parts_work_is_refused() {
    use gristmill::store::{Journal, SyncPolicy};
    let folder = recordings(1000);
    run(folder.path(), "out", &["--only", "prompts"]).succeeded();
    run(folder.path(), "out", &["--shard", "0/2", "--only", "generate"]).succeeded();
    let stage = folder.path().join("out/2_generate");
    let before = files(&stage);
    // Part 0 is at work: its journal is open.
    let journal = stage.join("_journal-0-of-2").as_path().into();
    let at_work = Journal::open(&journal, SyncPolicy::default(), |_, _| Ok(())).unwrap();
    let other = ["--shard", "1/2", "--only", "generate", "--set", "generate.samples=3"];
    let said = run(folder.path(), "out", &other);
    assert_eq!(said.code, Some(1), "{}", said.story());
    assert!(said.stderr.contains("another part of the run is at work on this stage"), "{}", said.story());
    assert_eq!(files(&stage), before);
    // With the same configuration it joins in.
    run(folder.path(), "out", &other[..4]).succeeded();
    drop(at_work);
    run(folder.path(), "out", &["--shard", "0/2", "--only", "generate"]).succeeded();
    assert_eq!(manifest(&stage)["rows"], 4000);
}

#[test]
fn the_same_command_right_after_a_kill_waits_for_the_lock() {
    let folder = recordings(20);
    run(folder.path(), "out", &["--only", "prompts"]).succeeded();
    let lock = std::fs::File::create(folder.path().join("out/_lock")).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run(folder.path(), "out", &["--only", "prompts"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!waiting.is_finished(), "it ran in a folder that another process holds");
        drop(lock);
        waiting.join().unwrap().succeeded();
    });
}
