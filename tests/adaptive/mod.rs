//! Adaptive sampling: prompts are asked in rounds until enough is known of them.

use std::path::Path;
use std::time::Instant;

use crate::support::kills::Killer;
use crate::support::{RECIPE, digests, gristmill, leftovers, manifest, write_recordings};

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

/// The recordings have four completions of each question: right, right, wrong, cut.
fn write(folder: &Path, questions: usize, until: &str) {
    write_recordings(folder, questions);
    let recipe =
        RECIPE.replace("samples = 4\n", &format!("samples = 1\nuntil = {{ rules = \"rules.toml\", {until} }}\n"));
    assert_ne!(recipe, RECIPE);
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
}

/// Rows of `generate` for each question.
fn samples_each(folder: &Path, questions: u64) -> u64 {
    let rows = manifest(&folder.join("out/2_generate"))["rows"].as_u64().unwrap();
    assert_eq!(rows % questions, 0);
    rows / questions
}

#[test]
fn a_prompt_is_sampled_until_enough_is_known_of_it() {
    // One correct comes first, two after two rounds, three never; the rate of two in two is still wide.
    for (until, expected) in [
        ("samples = 4, correct = 1", 1),
        ("samples = 4, correct = 2", 2),
        ("samples = 4, correct = 3", 4),
        ("samples = 3, correct = 3", 3),
        ("samples = 4, correct = 2, round = 3", 4),
        ("samples = 4, width = 0.7", 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 20, until);
        gristmill(folder.path(), RUN).succeeded();
        assert_eq!(samples_each(folder.path(), 20), expected, "{until}");
    }
}

#[test]
fn a_killed_adaptive_run_ends_with_the_same_bytes() {
    const QUESTIONS: usize = 2000;
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), QUESTIONS, "samples = 4, correct = 2");
    let start = Instant::now();
    gristmill(whole.path(), RUN).succeeded();
    let mut killer = Killer::new(&RUN, start.elapsed(), 3);
    for _ in 0..2 {
        let folder = killer.begin(|| {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), QUESTIONS, "samples = 4, correct = 2");
            folder
        });
        gristmill(folder.path(), RUN).succeeded();
        let out = folder.path().join("out");
        assert_eq!(leftovers(&out), [""; 0]);
        assert_eq!(digests(&out), digests(&whole.path().join("out")));
    }
}

#[test]
fn a_policy_that_never_stops_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1, "samples = 4");
    let refusal = gristmill(folder.path(), RUN).refusal();
    assert!(refusal.contains("set `correct`, `width` or both"), "{refusal}");
    assert!(refusal.contains("recipe.toml:10:") && refusal.contains("| until ="), "{refusal}");
}
