//! Models that were trained to their end: they are not lost to a change, and not used when they are damaged.

use super::{BASE, RL, RUN, folder_with};
use crate::support::{digests, gristmill, manifest};

const EVAL: &str = r#"
[stages.prompts]
procedural = [{ count = 12, mix = [{ name = "mini_mix" }], levels = [1] }]

[stages.eval]
models = ["base"]
rules = "r1_mini"
samples = 2
sampling = { max_tokens = 16 }
"#;

#[test]
fn a_finished_model_is_trained_anew_only_where_that_is_asked_for() {
    let folder = folder_with(BASE);
    let run = |more: &[&str]| gristmill(folder.path(), [&RUN[..], more].concat());
    run(&[]).succeeded();
    let out = folder.path().join("out");
    let made = digests(&out);

    let other = ["--set", "base.training.batch_size=4"];
    let plan = run(&[&other[..], &["--dry-run", "--json"]].concat());
    let state = "will not run: its finished model was trained with another `training.batch_size`";
    assert_eq!(plan.state_of("base"), state);
    let summary: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    assert!(summary["plan"].as_array().unwrap().iter().any(|stage| stage["state"] == state), "{summary:#}");
    let refused = run(&other);
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert_eq!((plan.code, plan.refusal()), (refused.code, refused.refusal()), "a dry run ends as the run would");
    for told in ["another `training.batch_size`", "would be trained anew", "`--out`", "`--from base`"] {
        assert!(refused.stderr.contains(told), "{told}: {}", refused.story());
    }

    // What its input is made of has changed: that is told before the input is made.
    let upstream = run(&["--set", "base_text.documents=65"]);
    assert_eq!(upstream.code, Some(1), "{}", upstream.story());
    assert!(upstream.stderr.contains("input `corpus`, which stage `base_text` will make anew"), "{}", upstream.story());
    assert_eq!(digests(&out), made, "nothing has run, and nothing is gone");

    // What only measures is no part of the weights.
    assert!(run(&["--set", "base.evaluate.every=8"]).succeeded().state_of("base").starts_with("cached"));

    run(&[&other[..], &["--from", "base"]].concat()).succeeded();
    let file = "2_base/model/model.safetensors";
    assert_ne!(digests(&out)[file], made[file], "trained anew, as asked for");
}

#[test]
fn more_steps_at_a_constant_rate_go_on_from_a_finished_model_to_the_bytes_of_a_longer_run() {
    let recipe = format!("{BASE}{RL}");
    let run = |folder: &tempfile::TempDir, steps: u64, more: &[&str]| {
        let steps = format!("rl.training.steps={steps}");
        gristmill(folder.path(), [&RUN[..], &["--set", &steps], more].concat())
    };
    let (folder, whole) = (folder_with(&recipe), folder_with(&recipe));
    run(&folder, 4, &[]).succeeded();
    let plan = run(&folder, 8, &["--dry-run"]).succeeded();
    assert_eq!(plan.state_of("rl"), "will go on: more than its 4 steps are asked for");
    let longer = run(&folder, 8, &[]).succeeded();
    assert!(!longer.stderr.contains("step 2/8") && longer.stderr.contains("step 5/8"), "{}", longer.story());
    run(&whole, 8, &[]).succeeded();
    let out = folder.path().join("out");
    assert_eq!(digests(&out), digests(&whole.path().join("out")));
    assert!(run(&folder, 8, &[]).succeeded().state_of("rl").starts_with("cached"));

    let fewer = run(&folder, 6, &[]);
    assert_eq!(fewer.code, Some(1), "{}", fewer.story());
    assert!(fewer.stderr.contains("another `training.steps`"), "{}", fewer.story());
    let falls = run(&folder, 10, &["--set", "rl.training.schedule.decay=cosine"]);
    assert_eq!(falls.code, Some(1), "{}", falls.story());
}

#[test]
fn a_run_whose_end_cut_a_rollout_batch_is_no_beginning_of_a_longer_one() {
    let folder = folder_with(&format!("{BASE}{RL}"));
    let run = |steps: &str| gristmill(folder.path(), [&RUN[..], &["--set", steps]].concat());
    run("rl.training.steps=3").succeeded();
    let refused = run("rl.training.steps=8");
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("another `training.steps`"), "{}", refused.story());
}

#[test]
fn a_damaged_model_is_found_and_not_measured() {
    let folder = folder_with(&format!("{BASE}{EVAL}"));
    let run = |more: &[&str]| gristmill(folder.path(), [&RUN[..], more].concat());
    let verify = || gristmill(folder.path(), ["inspect", "--verify", "out"]);
    run(&[]).succeeded();
    verify().succeeded();
    let stage = folder.path().join("out/2_base");
    let listed = manifest(&stage)["files"].to_string();
    assert!(listed.contains("model/model.safetensors") && listed.contains("metrics.parquet"), "{listed}");
    assert!(!listed.contains("times.parquet"), "what differs between equal runs is not vouched for: {listed}");

    let weights = stage.join("model/model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, flipped).unwrap();
    let said = verify();
    assert!(said.stdout.contains("2_base/model/model.safetensors has other bytes"), "{}", said.story());
    let refused = run(&["--from", "eval"]);
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(
        refused.stderr.contains("has other bytes") && refused.stderr.contains("`--from base`"),
        "{}",
        refused.story()
    );

    std::fs::remove_file(&weights).unwrap();
    for more in [&[][..], &["--from", "eval"], &["--only", "eval", "--set", "eval.ks=[2]"]] {
        let refused = run(more);
        assert_eq!(refused.code, Some(1), "{more:?}: {}", refused.story());
        assert!(refused.stderr.contains("is gone") && refused.stderr.contains("`--from base`"), "{}", refused.story());
    }
    let plan = run(&["--dry-run"]);
    assert!(plan.code == Some(1) && plan.state_of("base").starts_with("will not run: "), "{}", plan.story());

    // What an earlier version finished has no list, and is as good as it was.
    std::fs::write(&weights, whole).unwrap();
    run(&[]).succeeded();
    let mut old = manifest(&stage);
    for key in ["files", "made_of"] {
        assert!(old.as_object_mut().unwrap().remove(key).is_some(), "{key}");
    }
    std::fs::write(stage.join("_manifest.json"), old.to_string()).unwrap();
    assert!(run(&["--only", "base"]).succeeded().state_of("base").starts_with("cached"));
    let refused = run(&["--only", "base", "--set", "base.training.steps=9"]);
    assert!(refused.stderr.contains("another configuration, input or file"), "{}", refused.story());
}

#[test]
fn parts_of_a_run_measure_a_model_each() {
    let two =
        EVAL.replace("[\"base\"]", "[\"base\", { name = \"again\", model = \"base\", chat_template = \"plain\" }]");
    let folder = folder_with(&format!("{BASE}{two}"));
    let run = |out: &str, more: &[&str]| {
        gristmill(folder.path(), [&["run", "recipe.toml", "--out", out], more].concat()).succeeded()
    };
    run("whole", &[]);
    for stage in ["base_text", "base", "prompts"] {
        run("parts", &["--only", stage]);
    }
    let first = run("parts", &["--shard", "0/2"]);
    assert!(first.stderr.contains("part 0/2 of the stage `eval` is done; 1 of its 2 shards"), "{}", first.story());
    run("parts", &["--shard", "1/2"]);
    assert_eq!(digests(&folder.path().join("parts")), digests(&folder.path().join("whole")));
}
