//! What runs and what does not: `--dry-run`, `--only`, `--from`, `--shard`, and changes by `--set`.

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
    assert!(after.stderr.contains("about 200 rows"), "50 prompts, 4 samples:\n{}", after.stderr);
    assert_eq!(after.state_of("select"), "will run: its configuration, an input or a file has changed");
    assert_eq!(after.state_of("corpus"), "will run: after its inputs");
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
        match run.code {
            Some(0) => ends[part] = Some(turn),
            _ => assert!(run.stderr.contains("is done for part"), "{}", run.story()),
        }
        if ends.iter().all(Option::is_some) {
            break;
        }
    }
    assert!(ends.iter().all(Option::is_some), "the parts never meet: {ends:?}");
    assert_eq!(digests(&folder.path().join("parts")), digests(&folder.path().join("whole")));
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
