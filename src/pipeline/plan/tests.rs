use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::error::ErrorKind;
use crate::pipeline::inputs::Inputs;

const RECIPE: &str = r#"
name = "r"
device = "cpu"

[stages.prompts]
procedural = [{ count = 8, mix = [{ name = "mini_mix" }], levels = [1] }]

[stages.sft]
init = { tokenizer = "mini", hidden = 8, layers = 1, heads = 1 }
corpus = "corpus"
training = { steps = 4 }

[stages.corpus]
tracks = [{ name = "all", prompts = "prompts" }]

[stages.rl]
kind = "grpo"
model = "sft"
prompts = "prompts"
rules = "r1_mini"
engine = { kind = "vllm", endpoints = ["http://a:8000"] }

[stages.align]
model = "rl"
preferences = "pairs"

[stages.pairs]
kind = "preferences"
prompts = "prompts"

[stages.eval]
rules = "r1_mini"
models = ["rl"]
engine = { kind = "vllm", endpoints = ["http://a:8000"] }

[stages.zero]
kind = "grpo"
model = "sft"
prompts = "prompts"
rules = "r1_mini"

[stages.made]
kind = "generate"
prompts = "prompts"
engine = { kind = "local", model = "sft" }

[stages.measured]
kind = "eval"
rules = "r1_mini"
models = ["rl"]
"#;

/// Every stage's fingerprint, by name.
fn fingerprints(set: &[&str]) -> BTreeMap<String, String> {
    let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
    let recipe = Recipe::parse("recipe.toml", RECIPE, Path::new("."), &set).unwrap();
    let out = tempfile::tempdir().unwrap();
    let (out, stop) = (Location::from(out.path()), AtomicBool::new(false));
    let (plan, digests) = (Plan::new(&recipe, &out).unwrap(), Digests::load(&out, &stop));
    let of = |planned: &Planned| planned.depends(&recipe, &digests, &Inputs::default()).unwrap().fingerprint;
    plan.stages.iter().map(|planned| (planned.name.clone(), of(planned))).collect()
}

#[test]
fn how_the_work_is_done_is_no_part_of_what_was_done() {
    let before = fingerprints(&[]);
    for set in [
        "sft.training.tokens_per_microbatch=50",
        "sft.training.recompute=true",
        "sft.training.optimizer.offload=true",
        "sft.checkpoints.keep=3",
        "sft.evaluate.every=8",
        "sft.evaluate.rules=r1",
        "sft.evaluate.batch=7",
        "sft.evaluate={ cache_gib = 2.5, prefill_tokens = 64 }",
        "sft.save_adapter=false",
        "rl.evaluate.cache_gib=2.5",
        "rl.evaluate.sampling.max_tokens=9",
        "rl.training.tokens_per_microbatch=50",
        "rl.training.optimizer.max_bad_steps=9",
        "rl.checkpoints.every=3",
        "rl.engine.endpoints=[\"http://b:8000\"]",
        "rl.engine.request_timeout_s=5",
        "rl.engine.tolerance=0.5",
        "align.training.recompute=true",
        "align.checkpoints.every=7",
        "eval.engine.endpoints=[\"http://b:8000\", \"http://c:8000\"]",
        "eval.engine.max_concurrency=5",
        "zero.engine={ kind = \"local\", cache_gib = 2.5 }",
        "made.engine.batch=7",
        "made.engine.cache_gib=20",
        "measured.engine={ kind = \"local\", prefill_tokens = 64 }",
    ] {
        assert_eq!(fingerprints(&[set]), before, "{set}");
    }
    for (set, stage) in [
        ("sft.training.steps=5", "sft"),
        ("rl.training.optimizer.beta1=0.8", "rl"),
        ("align.training.objective.beta=0.3", "align"),
        ("eval.samples=3", "eval"),
    ] {
        let after = fingerprints(&[set]);
        let changed: Vec<&str> = before.keys().filter(|&name| after[name] != before[name]).map(|n| &**n).collect();
        assert_eq!(changed, [stage], "{set}");
    }
}

#[test]
fn a_local_engine_takes_no_key_that_it_does_not_know_nor_a_size_that_is_none() {
    for (set, part) in [
        ("zero.engine={ kind = \"local\", cache = 20 }", "unknown key `cache`"),
        ("made.engine.cache_gb=20", "unknown key `cache_gb`"),
        ("measured.engine={ kind = \"local\", model = \"sft\" }", "unknown key `model`"),
        ("zero.engine={ kind = \"local\", batch = 0 }", "it is 0, and must be from 1 to 1024"),
        ("made.engine.prefill_tokens=1025", "it is 1025, and must be"),
        ("measured.engine={ kind = \"local\", cache_gib = -1 }", "-1 GiB of KV cache"),
        ("sft.evaluate.cache_gb=20", "unknown key `cache_gb`"),
        ("sft.evaluate.batch=0", "it is 0, and must be from 1 to 1024"),
        ("zero.evaluate.batch=7", "says itself how much it takes on"),
    ] {
        let recipe = Recipe::parse("recipe.toml", RECIPE, Path::new("."), &[set.to_owned()]).unwrap();
        let said = Plan::new(&recipe, &Location::parse("runs/none").unwrap()).err().expect(set).render(false);
        assert!(said.contains(part) && said.contains(set.split('=').next().unwrap()), "{set}: {said}");
        assert!(!part.contains("unknown") || said.contains("cache_gib"), "{set}: {said}");
    }
}

#[test]
fn files_are_not_looked_for_any_more_once_the_user_has_asked_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("a")).unwrap();
    std::fs::write(folder.path().join("a/b.jsonl"), "{}\n").unwrap();
    let out = Location::from(folder.path().join("out").as_path());
    let found = |path: &str, stop: bool| {
        let text = format!("name = \"r\"\n[stages.prompts]\nsources = [{{ path = \"{path}\" }}]\n");
        let recipe = Recipe::parse("recipe.toml", &text, folder.path(), &[]).unwrap();
        let stop = AtomicBool::new(stop);
        let (plan, digests) = (Plan::new(&recipe, &out).unwrap(), Digests::load(&out, &stop));
        plan.stages[0].materials(&recipe, &digests).map(|found| found.len()).map_err(|error| error.kind())
    };
    for path in ["**/*.jsonl", "a/b.jsonl"] {
        assert_eq!(found(path, false), Ok(1), "{path}");
        assert_eq!(found(path, true), Err(ErrorKind::Interrupted), "{path}");
    }
}

#[test]
fn gpus_are_one_device_and_the_cpu_is_another() {
    let [cpu, one, two] = ["cpu", "cuda", "cuda:0,1"].map(|device| fingerprints(&[&format!("device={device}")]));
    assert_eq!(one, two);
    let differ: Vec<&str> = cpu.keys().filter(|&name| cpu[name] != one[name]).map(|n| &**n).collect();
    assert_eq!(differ, ["align", "eval", "made", "measured", "rl", "sft", "zero"]);
}
