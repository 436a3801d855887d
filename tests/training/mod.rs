//! The trainer as a pipeline: stages that train, measure and check, killed and resumed.

mod adapter;
mod ends;
mod finished;
mod left_out;
mod live;
mod stored;
mod temperature;
mod validation;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::support::kills::Killer;
use gristmill::store::{Dataset, Location};

use crate::support::{column, digests, gristmill, leftovers, manifest, slow_tests};

/// R1's stages in a few seconds: too short to learn, long enough to go wrong.
const RECIPE: &str = r#"name = "tiny_r1"
seed = 1
shard_rows = 48

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
    // What was drawn at the evaluation's temperature is scored at it: the policy that drew it has ratios of 1.
    let stored = stage("stored").join("metrics.parquet");
    assert_eq!((column(&stored, "rollout_gap_max")[0], column(&stored, "ratio_max")[0]), (Some(0.0), Some(1.0)));
    assert!(run.stderr.contains("the groups were drawn with `top_p` 0.95"), "{}", run.story());

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
fn a_dry_run_says_what_stages_hold_and_a_gpu_that_is_not_there_stops_a_run_before_it_starts() {
    let folder = folder_with(RECIPE);
    let lines = |with: &[&str]| {
        let run = gristmill(folder.path(), [&RUN[..], &["--dry-run"], with].concat()).succeeded();
        run.stderr.lines().filter(|line| line.contains("memory on")).map(str::to_owned).collect::<Vec<_>>()
    };
    // Five that train, one that samples, one that evaluates; none of them has run yet.
    let on_cpu = lines(&[]);
    assert_eq!(on_cpu.len(), 7, "{on_cpu:#?}");
    for part in ["memory on the CPU: up to", "parameters", "gradients", "optimizer", "activations", "workspace"] {
        assert!(on_cpu[0].contains(part), "{part} is missing: {}", on_cpu[0]);
    }
    assert!(!on_cpu[0].contains("KV cache") && on_cpu[1].contains("KV cache"), "the second is evaluated: {on_cpu:#?}");
    if gristmill::backend::Cuda::open(0).is_ok() {
        println!("skipped: there is a GPU here");
        return;
    }
    let on_gpu = lines(&["--set", "device=cuda"]);
    assert!(on_gpu.len() == 7 && on_gpu[0].contains("memory on a GPU (none here: "), "{on_gpu:#?}");
    let refused = gristmill(folder.path(), [&RUN[..], &["--set", "device=cuda"]].concat());
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("stage `base`: "), "{}", refused.story());
    assert!(!folder.path().join("out/1_base_text").exists(), "nothing has started");
}

/// A base model in eight steps, with a checkpoint after every fourth.
const BASE: &str = r#"name = "base"

[stages.base_text]
documents = 64
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }
corpus = "base_text"
format = "text"
training = { steps = 8, batch_size = 8 }
checkpoints = { every = 4, keep = 2 }
"#;

/// On policy, in rollout batches of two updates, at a constant rate. Every shard of rollouts is longer than the run, so they lie in
/// the checkpoints until its end.
const RL: &str = r#"
[stages.prompts]
procedural = [{ count = 32, mix = [{ name = "mini_mix" }], levels = [1] }]

[stages.rl]
kind = "grpo"
model = "base"
prompts = "prompts"
rules = "r1_mini"
group_size = 4
sampling = { max_tokens = 20 }
training = { steps = 6, prompts_per_rollout = 8, minibatches = 2, schedule = { learning_rate = 1e-3 } }
checkpoints = { every = 2, keep = 1 }
"#;

#[test]
fn what_was_trained_outlives_a_change_of_how_and_is_not_lost_to_one_of_what() {
    let folder = folder_with(BASE);
    let run = |more: &[&str]| gristmill(folder.path(), [&RUN[..], more].concat());
    run(&["--only", "base_text"]).succeeded();
    // A file in the model's place: the steps are done, and the stage fails before it is committed.
    let stage = folder.path().join("out/2_base");
    std::fs::create_dir_all(&stage).unwrap();
    std::fs::write(stage.join("model"), "").unwrap();
    assert_eq!(run(&[]).code, Some(1));
    std::fs::remove_file(stage.join("model")).unwrap();
    let checkpoint = stage.join("checkpoints/step-00000008/checkpoint.json");
    let trained = std::fs::read(&checkpoint).unwrap();

    let how = ["--set", "base.training.tokens_per_microbatch=50", "--set", "base.training.recompute=true"];
    let plan = run(&[&how[..], &["--dry-run"]].concat()).succeeded();
    assert_eq!(plan.state_of("base"), "will continue: from the checkpoint of step 8");

    let what = ["--set", "base.training.batch_size=4"];
    let plan = run(&[&what[..], &["--dry-run"]].concat());
    assert_eq!(plan.code, Some(1), "it ends as the run would: {}", plan.story());
    assert!(plan.state_of("base").ends_with("has changed, and 8 steps would be lost"), "{}", plan.story());
    let refused = run(&what);
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("8 steps were trained here") && refused.stderr.contains("`--from base`"));
    assert_eq!(std::fs::read(&checkpoint).unwrap(), trained, "nothing is lost");

    let done = run(&how).succeeded();
    assert!(done.state_of("base").starts_with("will continue"), "{}", done.story());
    assert_eq!(manifest(&stage)["counts"]["steps"], 8);
    for again in [&[][..], &how, &["--set", "base.checkpoints.keep=3"]] {
        assert!(run(again).succeeded().state_of("base").starts_with("cached"), "{again:?}");
    }
    run(&[&what[..], &["--from", "base"]].concat()).succeeded();
    assert_ne!(std::fs::read(&checkpoint).unwrap(), trained, "trained anew, as asked for");
}

#[test]
fn a_model_is_written_in_the_type_that_is_asked_for_and_is_what_the_stage_says_of_it() {
    let folder = folder_with(BASE);
    let model = |out: &str| folder.path().join(out).join("2_base/model");
    for (out, dtype) in [("wide", "float32"), ("narrow", "bfloat16")] {
        let set = format!("base.dtype={dtype}");
        gristmill(folder.path(), ["run", "recipe.toml", "--out", out, "--set", &set]).succeeded();
        let config = std::fs::read_to_string(model(out).join("config.json")).unwrap();
        assert!(config.contains(&format!("\"torch_dtype\": \"{dtype}\"")), "{config}");
        let loaded = gristmill::model::Model::load(&model(out)).unwrap().digest();
        assert_eq!(manifest(&folder.path().join(out).join("2_base"))["facts"]["model_digest"], loaded);
    }
    let bytes = |out: &str| std::fs::metadata(model(out).join("model.safetensors")).unwrap().len();
    assert!(bytes("narrow") < bytes("wide") * 6 / 10, "{} and {}", bytes("narrow"), bytes("wide"));
}

/// What TRL and others train on: a Parquet file of conversations, and nothing else in it.
#[test]
fn a_file_of_conversations_alone_is_a_corpus() {
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let folder = folder_with(BASE);
    gristmill(folder.path(), RUN).succeeded();
    let corpus = folder.path().join("out/1_base_text");
    let shards = Dataset::open(&Location::from(corpus.as_path())).unwrap();
    let shard = std::fs::File::open(corpus.join(shards.shards()[0].name())).unwrap();
    let batches: Vec<_> =
        ParquetRecordBatchReaderBuilder::try_new(shard).unwrap().build().unwrap().map(Result::unwrap).collect();
    let only = |batch: &arrow::array::RecordBatch| {
        let column = std::sync::Arc::clone(batch.column_by_name("messages").unwrap());
        arrow::array::RecordBatch::try_from_iter([("messages", column)]).unwrap()
    };
    let file = std::fs::File::create(folder.path().join("conversations.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, only(&batches[0]).schema(), None).unwrap();
    batches.iter().for_each(|batch| writer.write(&only(batch)).unwrap());
    writer.close().unwrap();

    let sets = ["model=out/2_base/model", "format=text", "training.steps=2", "training.batch_size=4"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let args = ["sft", "--corpus", "conversations.parquet", "--output", "again"];
    gristmill(folder.path(), args.into_iter().chain(sets)).succeeded();
    assert_eq!(manifest(&folder.path().join("again/1_sft"))["counts"]["corpus_rows"], 64);
}

#[test]
fn a_training_run_killed_at_random_points_ends_with_the_same_bytes() {
    let points = if slow_tests() { 12 } else { 3 };
    let source = folder_with(RECIPE);
    let start = Instant::now();
    gristmill(source.path(), RUN).succeeded();
    let typical = start.elapsed();
    let reference = digests(&source.path().join("out"));
    let mut killer = Killer::new(&RUN, typical, 5);
    for point in 0..points {
        let folder = killer.begin(|| folder_with(RECIPE));
        for _ in 0..2 {
            killer.again(folder.path());
        }
        let run = gristmill(folder.path(), [&RUN[..], &["--threads", "1"]].concat()).succeeded();
        let out = folder.path().join("out");
        assert_eq!(leftovers(&out), [""; 0], "{}", run.story());
        let made = digests(&out);
        let files: BTreeSet<_> = reference.keys().chain(made.keys()).collect();
        let differing: Vec<_> = files.into_iter().filter(|&file| made.get(file) != reference.get(file)).collect();
        assert!(differing.is_empty(), "point {point}: {differing:#?}\n{}", run.story());
    }
    eprintln!("{points} points, {} kills, a run takes {:.2} s", killer.kills, typical.as_secs_f64());
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

/// A reference that is no copy of the policy beside it.
const WIDE: &str = r#"[stages.wide]
kind = "sft"
init = { tokenizer = "mini", hidden = 32, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }
corpus = "base_text"

[stages.beside]
kind = "grpo"
model = "robust"
reference = "wide"
groups = "group"

"#;

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
        refusal("minibatches = 2", "minibatches = 2, lr = 1e-6"),
        refusal("minibatches = 2", "minibatches = 2, beta = 0.04"),
        refusal("group_size = 4", "num_generations = 4"),
        refusal("group_size = 4", "group_size = 4\nmax_completion_length = 40"),
        refusal("epochs = 2, batch_size = 16", "epochs = 2, max_length = 96"),
        refusal("decay = \"constant\" }", "decay = \"constant\", warmup_steps = 2, warmup_ratio = 0.1 }"),
        refusal("corpus = \"cold_corpus\"", "corpus = \"base\""),
        refusal("right = \"eval.base.pass_at_1\"", "right = \"evil.base.pass_at_1\""),
        refusal("heads = 2", "heads = 0"),
        refusal("documents = 600", "documents = 0"),
        refusal("epochs = 2, batch_size = 16", "epochs = 0, batch_size = 16"),
        refusal(
            "training = { batch_size = 16, schedule",
            "training = { batch_size = 16, objective = { beta = 0 }, schedule",
        ),
        refusal("learning_rate = 3e-4, decay", "learning_rate = -1, decay"),
        refusal("minibatches = 1, old", "minibatches = 1, optimizer = { beta2 = 1.5 }, old"),
        refusal("temperature = 1.0, top_p = 1.0, max_tokens = 40", "top_p = 0.9, max_tokens = 40"),
        refusal("[stages.eval]\n", &format!("{WIDE}[stages.eval]\n")),
        refusal("groups = \"group\"\n", "groups = \"group\"\nrules = \"r1_mini\"\n"),
        refusal("groups = \"group\"\n", "groups = \"group\"\nsampling = { temperature = 0.6, top_p = 0.8 }\n"),
        refusal("ks = [2]", "ks = [2, 8]"),
        refusal("objective = { kl_coefficient = 0.001 }", "objective = { surrogate = \"cispo\", clip_low = 0.1 }"),
    ];
    assert_told!(stories.join("\n"));
}
