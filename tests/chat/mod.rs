//! `gristmill chat`: reasoning and answer of a model, apart.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use gristmill::backend::Heads;
use gristmill::model::{Config, Dtype, Model, Tokenizer};

use crate::support::{Finished, command, gristmill};

/// The template opens the reasoning, as that of the distilled R1 models does.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}<think>";

/// Saves a small random model whose words come about equally often, `</think>` among them.
fn save_model(folder: &Path, context: usize) {
    let words = ["<unk>", "<end>", "</think>", "user", "assistant", "system", "one", "two", "three", "four"];
    let tokenizer = Tokenizer::words(&words.map(String::from), "<unk>", "<end>", TEMPLATE).unwrap();
    let heads = Heads { query: 2, kv: 1, dim: 8 };
    let config = Config::fresh(words.len(), 16, 24, 1, heads, context, &[]).unwrap();
    Model::init(config, 5).save(folder, Dtype::F32).unwrap();
    tokenizer.save(folder).unwrap();
    // No word ends a turn, so that an answer is as long as is asked for.
    let config = serde_json::json!({ "unk_token": "<unk>", "chat_template": TEMPLATE });
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// Runs the command with lines on stdin.
fn converse(folder: &Path, args: &[&str], lines: &str) -> Finished {
    let mut child = command(folder)
        .args([&["chat", "model"], args].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// A stage that trains a model of the mini world for a step.
const TRAINED: &str = r#"name = "trained"

[stages.base_text]
documents = 8
text = { tasks = [{ family = "mix", level = 1 }] }

[stages.base]
kind = "sft"
init = { tokenizer = "mini", hidden = 8, layers = 1, heads = 1, context = 96 }
corpus = "base_text"
format = "text"
training = { steps = 1, batch_size = 4 }
"#;

#[test]
fn the_folder_of_a_stage_or_of_a_run_is_the_model_that_was_trained_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("recipe.toml"), TRAINED).unwrap();
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "out"]).succeeded();
    let ask = |model: &str| {
        let args = ["chat", model, "--prompt", "two", "--max-tokens", "5", "--temperature", "0", "--json"];
        gristmill(folder.path(), args)
    };
    let answer = ask("out/2_base/model").succeeded().stdout;
    for model in ["out/2_base", "out"] {
        assert_eq!(ask(model).succeeded().stdout, answer, "{model}");
    }
    let refused = ask("out/1_base_text");
    assert_eq!(refused.code, Some(2), "{}", refused.story());
    assert!(refused.stderr.contains("a stage `base_text`, which holds no model"), "{}", refused.story());
}

/// Sampling that lets every word come.
const WIDE: [&str; 8] = ["--temperature", "1", "--top-p", "1", "--max-tokens", "60", "--seed", "3"];

#[test]
fn reasoning_and_answer_come_in_two_parts() {
    let folder = tempfile::tempdir().unwrap();
    save_model(&folder.path().join("model"), 96);
    let ask = |more: &[&str]| {
        let args = [&["chat", "model", "--prompt", "one two"], &WIDE[..], more].concat();
        gristmill(folder.path(), args).succeeded()
    };
    let told = ask(&["--json"]);
    assert_eq!(told.stdout.lines().count(), 1);
    let parts = json(&told.stdout);
    let keys: Vec<&String> = parts.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["reasoning", "answer"]);
    let (reasoning, answer) = (parts["reasoning"].as_str().unwrap(), parts["answer"].as_str().unwrap());
    assert!(!reasoning.is_empty() && !answer.is_empty(), "{parts}");
    // The same words as text, without styles where nobody looks.
    let text = ask(&[]).stdout;
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(
        text.starts_with("[reasoning]\n") && text.contains("\n\n[answer]\n") && !text.contains("</think>"),
        "{text}"
    );
    assert_eq!(ask(&[]).stdout, text, "the same seed gives the same answer");
    assert!(ask(&[]).stderr.contains("cut after 60 tokens"));
}

#[test]
fn every_line_is_a_turn_until_the_conversation_is_reset() {
    let folder = tempfile::tempdir().unwrap();
    save_model(&folder.path().join("model"), 96);
    let args = ["--temperature", "1", "--top-p", "1", "--max-tokens", "12", "--json"];
    let told = converse(folder.path(), &args, "one\n\n/what\n/reset\ntwo three\n/exit\nnever asked\n").succeeded();
    assert_eq!(told.stdout.lines().count(), 2, "{}", told.story());
    told.stdout.lines().for_each(|line| drop(json(line)));
    assert!(told.stderr.contains("there is no command `/what`"), "{}", told.story());
    let silent = converse(folder.path(), &args, "").succeeded();
    assert_eq!(silent.stdout, "");
}

#[test]
fn what_was_said_is_remembered_until_the_reset() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    save_model(&model, 96);
    // No reasoning: every answer is kept whole.
    for (file, tag, instead) in [("tokenizer.json", "</think>", "five"), ("tokenizer_config.json", "<think>", "")] {
        let text = std::fs::read_to_string(model.join(file)).unwrap();
        std::fs::write(model.join(file), text.replace(tag, instead)).unwrap();
    }
    // Two answers of 40 words and one of the 8 that are left fill the context of 96.
    let args = ["--temperature", "1", "--top-p", "1", "--max-tokens", "40", "--json"];
    let told = converse(folder.path(), &args, "one\none\none\none\n/reset\none\n").succeeded();
    let words = |line: &str| json(line)["answer"].as_str().unwrap().split_whitespace().count();
    assert_eq!(told.stdout.lines().map(words).collect::<Vec<_>>(), [40, 40, 8, 40], "{}", told.story());
    assert_eq!(told.stderr.matches("the model's context of 96 leaves no room").count(), 1, "{}", told.story());
}

#[test]
fn a_turn_that_does_not_fit_costs_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    save_model(&folder.path().join("model"), 96);
    let long = "one ".repeat(200);
    let told = converse(folder.path(), &["--json", "--max-tokens", "4"], &format!("{long}\ntwo\n")).succeeded();
    assert_eq!(told.stdout.lines().count(), 1, "{}", told.story());
    assert!(told.stderr.contains("the model's context of 96 leaves no room"), "{}", told.story());
    // Asked alone, it is the command that fails.
    let refused = gristmill(folder.path(), ["chat", "model", "--prompt", &long]);
    assert_eq!(refused.code, Some(1), "{}", refused.story());
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_not_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    save_model(&folder.path().join("model"), 60_000);
    let mut child = command(folder.path())
        .args(["chat", "model", "--max-tokens", "50000", "--temperature", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).expect("the answer begins");
    // SAFETY: `kill` has no memory to misuse; the process is our child, not waited for yet.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    // It goes on reading, and ends when it is told so.
    stdin.write_all(b"/exit\n").unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{told}");
    assert!(told.contains("(stopped)"), "{told}");
    let words = String::from_utf8(rest).unwrap().split_whitespace().count();
    assert!(words < 49_000, "the answer went on for {words} words");
}

#[test]
fn a_model_without_a_chat_template_continues_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    save_model(&model, 96);
    std::fs::write(model.join("tokenizer_config.json"), r#"{ "bos_token": "<end>" }"#).unwrap();
    let args = ["chat", "model", "--prompt", "one two", "--max-tokens", "5", "--temperature", "0", "--json"];
    let told = gristmill(folder.path(), args).succeeded();
    assert!(told.stderr.contains("no chat template"), "{}", told.story());
    assert!(json(&told.stdout)["answer"].is_string());
    // A model that has one may be asked so too.
    save_model(&model, 96);
    let raw = gristmill(folder.path(), [&args[..], &["--raw"]].concat()).succeeded();
    assert!(!raw.stderr.contains("no chat template"), "{}", raw.story());
}

#[test]
fn wrong_options_and_a_folder_without_a_model_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    save_model(&model, 96);
    for wrong in [["--temperature", "-1"], ["--top-p", "0"], ["--min-p", "2"], ["--max-tokens", "0"]] {
        let refused = gristmill(folder.path(), [&["chat", "model", "--prompt", "one"], &wrong[..]].concat());
        assert_eq!(refused.code, Some(2), "{wrong:?}: {}", refused.story());
    }
    let refused = gristmill(folder.path(), ["chat", "nowhere", "--prompt", "one"]);
    assert_eq!(refused.code, Some(1), "{}", refused.story());
    assert!(refused.stderr.contains("config.json"), "{}", refused.story());
    // What the model itself recommends is checked too, and can be overridden.
    std::fs::write(model.join("generation_config.json"), r#"{ "top_p": 7.5 }"#).unwrap();
    let refused = gristmill(folder.path(), ["chat", "model", "--prompt", "one"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("top_p 7.5"), "{}", refused.story());
    gristmill(folder.path(), ["chat", "model", "--prompt", "one", "--top-p", "1", "--max-tokens", "3"]).succeeded();
}
