//! What can be seen of a training stage before it is finished: its metrics, its rollouts, its lines.

use super::{RL, RUN, folder_with};
use crate::support::{TINY_MODEL, column, digests, gristmill};

#[test]
fn an_unfinished_stage_shows_its_metrics_and_rollouts_and_is_no_dataset() {
    let folder = folder_with(&format!("{TINY_MODEL}{RL}"));
    let at = |path: &str| folder.path().join(path);
    let run = |more: &[&str]| gristmill(folder.path(), [&RUN[..], more].concat());
    run(&["--only", "base_text"]).succeeded();
    // A file in the model's place: the steps are done, and the stage fails before it is committed.
    std::fs::create_dir_all(at("out/4_rl")).unwrap();
    std::fs::write(at("out/4_rl/model"), "").unwrap();
    let failed = run(&[]);
    assert_eq!(failed.code, Some(1), "{}", failed.story());
    assert!(failed.stderr.contains("    step 1/6  loss "), "{}", failed.story());

    assert_eq!(column(&at("out/4_rl/metrics.parquet"), "loss").len(), 6);
    let shown = gristmill(folder.path(), ["inspect", "out/4_rl"]).succeeded();
    assert!(shown.stdout.contains("metrics.parquet") && shown.stdout.contains("reward_mean"), "{}", shown.stdout);
    let refused = gristmill(folder.path(), ["select", "--groups", "out/4_rl", "--output", "alone"]);
    assert!(refused.stderr.contains("the stage that trains a model here is not finished"), "{}", refused.story());
    let told = gristmill(folder.path(), ["report", "out"]).succeeded().stdout;
    let page = std::fs::read_to_string(at(told.trim())).unwrap();
    for part in ["not finished", "id=\"curves\"", "id=\"verdicts\"", "id=\"lengths\"", "id=\"groups\""] {
        assert!(page.contains(part), "{part} is missing");
    }
    assert!(!page.contains("id=\"notes\""), "all of it could be read");

    let plan = run(&["--dry-run"]).succeeded();
    assert_eq!(plan.state_of("rl"), "will continue: from the checkpoint of step 6");
    std::fs::remove_file(at("out/4_rl/model")).unwrap();
    run(&[]).succeeded();
    let whole = folder_with(&format!("{TINY_MODEL}{RL}"));
    gristmill(whole.path(), RUN).succeeded();
    let (mut made, mut expected) = (digests(&at("out")), digests(&whole.path().join("out")));
    made.retain(|file, _| file.starts_with("4_rl/"));
    expected.retain(|file, _| file.starts_with("4_rl/"));
    assert_eq!(made, expected);
}
