//! The trainer as a pipeline: stages that train, measure and check, killed and resumed.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gristmill::seed::Rng;

use crate::support::{command, digests, gristmill, leftovers, manifest, slow_tests};

/// R1's stages in a few seconds: too short to learn, long enough to go wrong.
const RECIPE: &str = r#"name = "tiny_r1"
seed = 1
shard_rows = 64

[stages.base_text]
documents = 600
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }
corpus = "base_text"
format = "text"
training = { epochs = 1, batch_size = 32, optimizer = { kind = "muon" }, schedule = { learning_rate = 8e-3 } }
checkpoints = { every = 5, keep = 1 }

[stages.prompts]
procedural = [{ count = 64, mix = [{ name = "mini_mix" }], levels = [1], part = "train" }]

[stages.test]
kind = "prompts"
procedural = [{ count = 16, mix = [{ name = "mini_mix" }], levels = [1], part = "eval" }]

[stages.cold_corpus]
kind = "corpus"
tracks = [{ name = "reasoning", prompts = "prompts", template = "think_answer" }]

[stages.cold_start]
kind = "sft"
model = "base"
corpus = "cold_corpus"
held_out = "test"
evaluate = { rules = "r1_mini", every = 2, prompts = 8, sampling = { max_tokens = 40 } }
training = { epochs = 2, batch_size = 16, schedule = { learning_rate = 1e-3 } }

[stages.rl]
kind = "grpo"
model = "cold_start"
prompts = "prompts"
rules = "r1_mini"
group_size = 4
sampling = { temperature = 1.0, top_p = 1.0, max_tokens = 40 }
training = { steps = 12, prompts_per_rollout = 8, minibatches = 2, objective = { kl_coefficient = 0.001 }, reference_refresh = 4, schedule = { learning_rate = 3e-4, decay = "constant" } }
checkpoints = { every = 4, keep = 1 }

[stages.general]
kind = "prompts"
procedural = [{ count = 60, mix = [{ name = "mini_general" }], when_exhausted = "redistribute" }]

[stages.pairs]
kind = "preferences"
prompts = "general"
group_by = "language"

[stages.robust]
kind = "align"
model = "rl"
preferences = "pairs"
held_out = "pairs"
training = { batch_size = 16, schedule = { learning_rate = 1e-3 }, groups = { reweighting = "robust" } }

[stages.generate]
prompts = "prompts"
samples = 2
engine = { kind = "local", model = "robust" }
sampling = { max_tokens = 40 }

[stages.verify]
rules = "r1_mini"

[stages.group]

[stages.stored]
kind = "grpo"
model = "robust"
groups = "group"
training = { steps = 4, prompts_per_rollout = 8, minibatches = 1, old_logprobs = "rollout", schedule = { learning_rate = 1e-4 } }

[stages.eval]
prompts = "test"
rules = "r1_mini"
samples = 4
ks = [2]
models = ["base", "cold_start", { name = "on_stored_groups", model = "stored" }]
sampling = { max_tokens = 40 }

[stages.claims]
of = ["eval", "robust"]
claims = [
    { text = "a share is at most 1", left = 1, right = "eval.base.pass_at_1" },
    { text = "a share is above 1", left = "robust.worst_group_accuracy", right = 1, at_least = 0.5 },
]
"#;

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];

fn folder_with(recipe: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    folder
}

#[test]
fn a_recipe_trains_measures_and_says_which_claims_hold() {
    let folder = folder_with(RECIPE);
    let run = gristmill(folder.path(), RUN).succeeded();
    assert!(run.stderr.contains("holds: a share is at most 1"), "{}", run.story());
    assert!(run.stderr.contains("does NOT hold: a share is above 1"), "{}", run.story());
    let out = folder.path().join("out");
    let stage = |name: &str| {
        let found = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().path());
        let mut found =
            found.filter(|p| p.file_name().unwrap().to_str().unwrap().split_once('_').is_some_and(|(_, n)| n == name));
        found.next().unwrap_or_else(|| panic!("there is no stage folder of {name}"))
    };
    for file in ["model/config.json", "model/model.safetensors", "model/tokenizer.json", "metrics.parquet"] {
        assert!(stage("rl").join(file).is_file(), "{file} is missing");
    }
    let facts = &manifest(&stage("eval"))["facts"]["figures"];
    for figure in
        ["base.pass_at_1", "base.cons_at_k", "base.pass_at_2", "on_stored_groups.format", "cold_start.language"]
    {
        assert!(facts[figure].is_number(), "{figure} is missing: {facts:#}");
    }
    let facts = &manifest(&stage("robust"))["facts"]["figures"];
    assert!(facts["worst_group_loss"].as_f64() >= facts["mean_group_loss"].as_f64(), "{facts:#}");
    assert_eq!(manifest(&stage("rl"))["counts"]["rollouts"], 6 * 8 * 4);

    let again = gristmill(folder.path(), RUN).succeeded();
    assert_eq!(again.stderr.matches("cached: nothing it depends on has changed").count(), 16, "{}", again.stderr);
    let rollouts = stage("rl").join("rollouts");
    let shown = gristmill(folder.path(), ["inspect", rollouts.to_str().unwrap()]).succeeded();
    assert!(shown.stdout.contains("advantage"), "{}", shown.stdout);
    let chosen = [
        "eval",
        "--prompts",
        "out/4_test",
        "--model",
        "out/7_rl/model",
        "--rules",
        "r1_mini_zero",
        "--set",
        "samples=2",
        "--set",
        "sampling.max_tokens=40",
        "--output",
        "alone",
    ];
    gristmill(folder.path(), chosen).succeeded();
    assert!(folder.path().join("alone/1_eval/evals.parquet").is_file());
}

#[test]
fn a_training_run_killed_at_random_points_ends_with_the_same_bytes() {
    let points = if slow_tests() { 12 } else { 3 };
    let source = folder_with(RECIPE);
    let start = Instant::now();
    gristmill(source.path(), RUN).succeeded();
    let typical = start.elapsed();
    let reference = digests(&source.path().join("out"));
    let mut rng = Rng::new(5);
    let mut killed = 0;
    for point in 0..points {
        let folder = folder_with(RECIPE);
        for _ in 0..3 {
            killed += usize::from(kill_after(folder.path(), typical.mul_f64(rng.uniform())));
        }
        let run = gristmill(folder.path(), [&RUN[..], &["--threads", "1"]].concat()).succeeded();
        let out = folder.path().join("out");
        assert_eq!(leftovers(&out), [""; 0], "{}", run.story());
        let made = digests(&out);
        let differing: Vec<_> = reference.iter().filter(|(file, digest)| made.get(*file) != Some(digest)).collect();
        assert!(
            differing.is_empty() && made.len() == reference.len(),
            "point {point}: {differing:#?}\n{}",
            run.story()
        );
    }
    assert!(killed >= points, "only {killed} of {} runs were still running when killed", 3 * points);
}

#[test]
fn transformers_loads_what_was_trained_and_samples_the_same_greedy_tokens() {
    let Some(python) = std::env::var_os("GRISTMILL_TORCH") else {
        eprintln!("skipped: GRISTMILL_TORCH names no python with torch, transformers and pyarrow");
        return;
    };
    // Trained for longer than the others, so that the likeliest token is so by more than rounding.
    let recipe = RECIPE.split("[stages.cold_corpus]").next().unwrap().replace("documents = 600", "documents = 6000");
    let greedy = "[stages.generate]\nprompts = \"prompts\"\nengine = { kind = \"local\", model = \"base\" }\n\
                  sampling = { temperature = 0.0, max_tokens = 40 }\n";
    let folder = folder_with(&(recipe + greedy));
    gristmill(folder.path(), RUN).succeeded();
    let out = folder.path().join("out");
    let checked = std::process::Command::new(python)
        .arg(crate::support::repository("tests/python/same_greedy_tokens.py"))
        .args([
            out.join("2_base/model"),
            out.join("5_generate/part-00000.parquet"),
            out.join("3_prompts/part-00000.parquet"),
        ])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success(), "{said}");
    eprintln!("{said}");
}

fn kill_after(folder: &Path, delay: Duration) -> bool {
    let mut child = command(folder).args(RUN).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

#[test]
fn mistakes_in_training_stages_are_told_where_they_are() {
    let refusal = |from: &str, to: &str| {
        assert!(RECIPE.contains(from), "{from}");
        let folder = folder_with(&RECIPE.replace(from, to));
        gristmill(folder.path(), ["run", "recipe.toml", "--out", "out", "--dry-run"]).refusal()
    };
    let stories = [
        refusal("model = \"cold_start\"\n", ""),
        refusal("model = \"cold_start\"\n", "model = \"prompts\"\n"),
        refusal("model = \"cold_start\"\n", "model = \"nowhere\"\n"),
        refusal("prompts = \"prompts\"\nrules = \"r1_mini\"\ngroup_size = 4", "rules = \"r1_mini\""),
        refusal("group_size = 4", "group_size = 1"),
        refusal("minibatches = 2", "minibatchs = 2"),
        refusal("corpus = \"cold_corpus\"", "corpus = \"base\""),
        refusal("right = \"eval.base.pass_at_1\"", "right = \"evil.base.pass_at_1\""),
        refusal("heads = 2", "heads = 0"),
    ];
    assert_told!(stories.join("\n"));
}
