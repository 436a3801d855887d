//! Faulty rows of prompt files: told with their line, or left out and counted where the recipe says so.

use super::{RUN, refused, with_recipe};
use crate::support::{gristmill, manifest};

const GOOD: &str = "{\"question\": \"What is 1 + 1?\", \"answer\": \"2\"}\n";
const OTHER: &str = "{\"question\": \"How many days has a week?\", \"answer\": \"7\"}\n";

/// A recipe that imports `prompts.jsonl`, with more keys for its source.
fn import(bytes: &[u8], more: &str) -> tempfile::TempDir {
    let folder = with_recipe(&format!("[stages.prompts]\nsources = [{{ path = \"prompts.jsonl\"{more} }}]\n"));
    std::fs::write(folder.path().join("prompts.jsonl"), bytes).unwrap();
    folder
}

#[test]
fn a_bad_line_is_told_with_its_number() {
    let text = format!("{GOOD}{{\"question\": \"What is 2 + 2?\", \"answer\": 4\n{OTHER}");
    assert_told!(refused(import(text.as_bytes(), "").path(), &RUN));
}

#[test]
fn a_bad_line_is_left_out_and_counted_where_the_recipe_says_so() {
    let text = format!("{GOOD}{{\"question\": \n{OTHER}[1]\n");
    let folder = import(text.as_bytes(), ", on_error = \"skip\"");
    gristmill(folder.path(), RUN).succeeded();
    let manifest = manifest(&folder.path().join("out/1_prompts"));
    assert_eq!(manifest["rows"], 2);
    assert_eq!(manifest["drops"], serde_json::json!({ "import:bad_json": 1, "import:not_an_object": 1 }));
    let places = &manifest["facts"]["imports"][0]["places"];
    assert_eq!((&places[0]["line"], &places[1]["line"]), (&2.into(), &4.into()), "{places}");
}

#[test]
fn bytes_that_are_not_utf8_are_told_with_line_and_column() {
    let text = [GOOD.as_bytes(), b"{\"question\": \"caf\xe9?\", \"answer\": \"2\"}\n"].concat();
    assert_told!(refused(import(&text, "").path(), &RUN));
}

#[test]
fn a_file_without_rows_is_told() {
    assert_told!(refused(import(b"\n\n", "").path(), &RUN));
}

#[test]
fn a_row_without_a_question_is_told() {
    let text = format!("{GOOD}{{\"qestion\": \"What is 2 + 2?\", \"answer\": \"4\"}}\n");
    assert_told!(refused(import(text.as_bytes(), "").path(), &RUN));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let folder = with_recipe("[stages.prompts]\nsources = [{ path = \"missing.jsonl\" }]\n");
    assert_told!(refused(folder.path(), &RUN));
}

#[test]
fn rows_without_gold_are_counted_and_can_be_dropped() {
    let text = format!("{GOOD}{{\"question\": \"Why is the sky blue?\", \"answer\": null}}\n");
    let folder = import(text.as_bytes(), "");
    gristmill(folder.path(), RUN).succeeded();
    let kept = manifest(&folder.path().join("out/1_prompts"));
    assert_eq!((&kept["rows"], &kept["counts"]["gold_missing:absent"]), (&2.into(), &1.into()), "{kept:#}");

    let strict = ["run", "recipe.toml", "--out", "out", "--set", "prompts.filter.require_gold=true"];
    gristmill(folder.path(), strict).succeeded();
    let kept = manifest(&folder.path().join("out/1_prompts"));
    assert_eq!((&kept["rows"], &kept["drops"]["no_gold"]), (&1.into(), &1.into()), "{kept:#}");
    let listed = std::fs::read_to_string(folder.path().join("out/1_prompts/_drops.jsonl")).unwrap();
    assert!(listed.contains("no_gold") && listed.contains("\"line\":2"), "{listed}");
}

#[test]
fn equal_ids_of_different_questions_are_counted() {
    let text = "{\"id\": 5, \"question\": \"What is 1 + 1?\", \"answer\": \"2\"}\n{\"id\": 5, \"question\": \"How many days has a week?\", \"answer\": \"7\"}\n";
    let folder = import(text.as_bytes(), ", columns = { id = \"id\" }");
    gristmill(folder.path(), RUN).succeeded();
    let manifest = manifest(&folder.path().join("out/1_prompts"));
    assert_eq!((&manifest["rows"], &manifest["counts"]["duplicate_ids"]), (&2.into(), &1.into()), "{manifest:#}");
}

#[test]
fn a_recording_without_its_column_is_told_with_its_line() {
    let folder = with_recipe(
        "[stages.prompts]\nsources = [{ path = \"prompts.jsonl\" }]\n\n[stages.generate]\nengine = { kind = \"replay\", files = [\"c.jsonl\"], completions = [\"texts\"] }\n",
    );
    std::fs::write(folder.path().join("prompts.jsonl"), GOOD).unwrap();
    std::fs::write(folder.path().join("c.jsonl"), "{\"question\": \"a\", \"texts\": [\"b\"]}\n{\"query\": \"a\"}\n")
        .unwrap();
    assert_told!(refused(folder.path(), &RUN));
    assert!(folder.path().join("out/1_prompts/_manifest.json").is_file(), "what was committed before stays");
}
