//! Models of a run on servers: stages train, servers load what they made and answer.

use crate::support::openai_server::{Behaviour, OpenAiServer};
use crate::support::{gristmill, manifest};

fn recipe(endpoint: &str) -> String {
    format!(
        r#"name = "served"
seed = 1

[stages.base_text]
documents = 200
text = {{ tasks = [{{ family = "mix", level = 1 }}] }}

[stages.base]
kind = "sft"
init = {{ tokenizer = "mini", hidden = 16, intermediate = 32, layers = 1, heads = 2, kv_heads = 1, context = 96 }}
corpus = "base_text"
format = "text"
training = {{ steps = 2, batch_size = 8, schedule = {{ learning_rate = 1e-3 }} }}

[stages.tuned]
kind = "sft"
model = "base"
corpus = "base_text"
format = "text"
training = {{ steps = 2, batch_size = 8, schedule = {{ learning_rate = 1e-3 }} }}

[stages.prompts]
procedural = [{{ count = 20, mix = [{{ name = "mini_mix" }}], levels = [1], part = "train" }}]

[stages.generate]
samples = 2
sampling = {{ max_tokens = 16 }}
engine = {{ kind = "vllm", endpoints = ["{endpoint}"], policy = "tuned" }}

[stages.eval]
models = ["base", "tuned"]
rules = "r1_mini"
samples = 2
sampling = {{ max_tokens = 16 }}
engine = {{ kind = "vllm", endpoints = ["{endpoint}"] }}
"#
    )
}

#[test]
fn servers_load_the_models_that_stages_trained_and_answer_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = OpenAiServer::start(Behaviour { dev_mode: true, ..Behaviour::default() });
    std::fs::write(folder.path().join("recipe.toml"), recipe(&server.url())).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();

    let out = folder.path().join("out");
    let generated = manifest(&out.join("5_generate"));
    assert_eq!(generated["rows"], 40);
    assert_eq!(generated["facts"]["model"], "tuned", "not what the server calls the model it was started with");
    let figures = manifest(&out.join("6_eval"))["facts"]["figures"].to_string();
    assert!(figures.contains("base.pass_at_1") && figures.contains("tuned.pass_at_1"), "{figures}");

    let control = server.seen.control.lock().unwrap();
    let loads: Vec<&String> =
        control.iter().filter(|(path, _)| path.contains("collective_rpc")).map(|(_, b)| b).collect();
    // Their heads are tied, so servers are given copies that are not, which are gone afterwards.
    for (load, copy) in loads.iter().zip(["5_generate/policy", "6_eval/policy", "6_eval/policy"]) {
        assert!(load.contains(copy), "{loads:?}");
        assert!(!out.join(copy).exists(), "{copy}");
    }
    assert_eq!(loads.len(), 3);
    drop(control);

    let asked = server.seen.completions.load(std::sync::atomic::Ordering::Relaxed);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    assert_eq!(server.seen.completions.load(std::sync::atomic::Ordering::Relaxed), asked, "nothing is asked twice");
}

#[test]
fn a_server_that_cannot_load_weights_is_named_with_the_ways_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let server = OpenAiServer::start(Behaviour::default());
    std::fs::write(folder.path().join("recipe.toml"), recipe(&server.url())).unwrap();
    let failure = gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).refusal();
    assert!(failure.contains("VLLM_SERVER_DEV_MODE=1") && failure.contains(&server.url()), "{failure}");
    assert_eq!(manifest(&folder.path().join("out/3_tuned"))["stage"], "tuned", "what was trained stays");
}

#[test]
fn a_model_that_is_served_already_is_measured_and_nothing_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let server = OpenAiServer::start(Behaviour::default());
    let recipe = |models: &str| {
        format!(
            r#"name = "served"

[stages.prompts]
procedural = [{{ count = 10, mix = [{{ name = "mini_mix" }}], levels = [1] }}]

[stages.eval]
models = {models}
rules = "r1_mini"
samples = 2
sampling = {{ max_tokens = 16 }}
engine = {{ kind = "vllm", endpoints = ["{}"] }}
"#,
            server.url()
        )
    };
    let run = |models: &str| {
        std::fs::write(folder.path().join("recipe.toml"), recipe(models)).unwrap();
        gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"])
    };
    run(r#"[{ name = "theirs", served = true }]"#).succeeded();
    let figures = manifest(&folder.path().join("out/2_eval"))["facts"]["figures"].to_string();
    assert!(figures.contains("theirs.pass_at_1"), "{figures}");
    assert_eq!(server.seen.control.lock().unwrap().len(), 0, "weights stay as they are");

    let refused = [
        run(r#"[{ name = "theirs" }]"#).refusal(),
        run(r#"[{ name = "theirs", served = true }, "out"]"#).refusal(),
        run(r#"[{ served = true, chat_template = "plain" }]"#).refusal(),
    ];
    for (refused, told) in refused.iter().zip([
        "names one of `model`, `groups` and `served = true`",
        "beside other models",
        "`engine.template`",
    ]) {
        assert!(refused.starts_with("exit 2") && refused.contains(told), "{refused}");
    }
}
