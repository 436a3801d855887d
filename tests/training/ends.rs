//! The token that turns are trained to end with is the one that the model which is left stops at, whatever it began with.

use std::path::Path;

use gristmill::schema::Completion;
use gristmill::store::{Dataset, Location};
use serde_json::{Value, json};

use crate::support::{TINY_MODEL, gristmill};

/// What the mini tokenizer calls `<pad>`, `<eos>` and `<unk>`.
const PAD: u64 = 0;
const EOS: u64 = 2;
const UNK: u64 = 3;

/// As base models are delivered: the tokenizer names one end, the model's own files another, and a chat template may have a
/// third.
const RECIPE: &str = r#"name = "ends"

[stages.chats]
kind = "prompts"
sources = [{ path = "chats.jsonl", layout = "chat" }]

[stages.corpus]
tracks = [{ name = "c", prompts = "chats" }]

[stages.named]
kind = "sft"
model = "base"
corpus = "corpus"
training = { steps = 150, batch_size = 4, schedule = { learning_rate = 1e-2 } }

[stages.closed]
kind = "sft"
model = "base"
chat_template = "closed.jinja"
corpus = "corpus"
training = { steps = 150, batch_size = 4, schedule = { learning_rate = 1e-2 } }

[stages.generate]
prompts = "chats"
engine = { kind = "local", model = "closed" }
sampling = { temperature = 0.0, max_tokens = 12 }
"#;

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_trained_model_stops_at_the_token_that_its_turns_were_trained_to_end_with() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    std::fs::write(at("recipe.toml"), TINY_MODEL).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "tiny"]).succeeded();
    std::fs::rename(at("tiny/2_base/model"), at("base")).unwrap();
    for file in ["base/config.json", "base/generation_config.json"] {
        let mut config = read(&at(file));
        config["eos_token_id"] = json!(UNK);
        std::fs::write(at(file), config.to_string()).unwrap();
    }
    let template = "{% for m in messages %}{{ m.content }} {% if m.role == 'assistant' %}<pad> {% endif %}{% endfor %}";
    std::fs::write(at("closed.jinja"), template).unwrap();
    let turns = json!([{ "role": "user", "content": "what is 3 + 4 ?" }, { "role": "assistant", "content": "7" }]);
    std::fs::write(at("chats.jsonl"), format!("{}\n", json!({ "messages": turns }))).unwrap();
    std::fs::write(at("recipe.toml"), RECIPE).unwrap();
    let run = gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();

    for (stage, ends) in [("3_named", json!([EOS, UNK])), ("4_closed", json!([PAD, UNK]))] {
        for file in ["config.json", "generation_config.json"] {
            assert_eq!(read(&at("out").join(stage).join("model").join(file))["eos_token_id"], ends, "{stage}: {file}");
        }
    }
    for said in
        ["does not stop at `<eos>` (the tokenizer's `eos_token`)", "does not stop at `<pad>` (with which the chat"]
    {
        assert!(run.stderr.contains(said), "{said}: {}", run.story());
    }
    let completions = Dataset::open(&Location::from(at("out/5_generate"))).unwrap();
    let row: Completion = completions.rows_of().next().unwrap().unwrap();
    assert_eq!((row.text.as_deref(), row.stop_reason.as_deref()), (Some("7"), Some("<pad>")));
    let ids = row.token_ids.unwrap();
    assert!(ids.len() == 2 && ids[1] == PAD as u32, "the end is among the ids: {ids:?}");
}
