//! The table of `training`, which `datasets/README.md` has and `--help` shows, against the settings themselves.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::advantage::OverlongPenalty;
use super::objective::Correction;
use super::{GrpoTrainerConfig, PreferenceTrainerConfig, SftConfig};

const GUIDE: &str = include_str!("../../datasets/README.md");

/// A row of the table: the key, of what stages, the default, what it means.
type Row<'a> = [&'a str; 4];

fn rows() -> Vec<Row<'static>> {
    let (_, table) =
        GUIDE.split_once("\n| `training` | of | default | means |\n|---|---|---|---|\n").expect("the table");
    let cells = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        <Row>::try_from(cells).unwrap_or_else(|cells| panic!("four cells: {cells:?}"))
    };
    table.lines().take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// The default that a row gives a stage: `` `2`; align, grpo `1` `` is 1 for align and 2 for the others; `off` is none.
fn default_of(cell: &str, stage: &str) -> String {
    let parts = cell.split("; ").map(|part| match part.split_once('`') {
        Some((names, value)) => (names.trim(), value.trim_end_matches('`')),
        None => ("", part),
    });
    let named = |names: &str| names.split(", ").any(|name| name == stage);
    let parts: Vec<(&str, &str)> = parts.collect();
    let found = parts.iter().find(|(names, _)| named(names)).or(parts.iter().find(|(names, _)| names.is_empty()));
    found.unwrap_or_else(|| panic!("{cell} has nothing for {stage}")).1.to_owned()
}

/// The settings by dotted key. What is off by default is one key, whatever it holds when it is on.
fn settings(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let dot = if prefix.is_empty() { "" } else { "." };
                settings(&format!("{prefix}{dot}{key}"), value, into);
            }
        }
        value => drop(into.insert(prefix.to_owned(), value.clone())),
    }
}

/// The words that may stand where a setting has one, as its own error lists them.
fn words<T: Serialize + DeserializeOwned>(whole: &T, key: &str) -> Vec<String> {
    let mut whole = serde_json::to_value(whole).unwrap();
    *whole.pointer_mut(&format!("/{}", key.replace('.', "/"))).expect("a setting") = json!("?");
    let error = serde_json::from_value::<T>(whole).err().expect("no such word").to_string();
    error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// Compares a stage's settings with the rows of the table that are of it, both ways.
fn agree<T: Serialize + DeserializeOwned>(stage: &str, default: &T, optional: &[(&str, Value)]) {
    let mut expected = BTreeMap::new();
    settings("", &serde_json::to_value(default).unwrap(), &mut expected);
    for (key, value) in optional {
        settings(key, value, &mut expected);
        expected.insert((*key).to_owned(), Value::Null);
    }
    let is_of = |row: &Row<'_>| row[1] == "all" || row[1].split(", ").any(|name| name == stage);
    for [keys, _, default_cell, means] in rows().into_iter().filter(is_of) {
        for key in keys.split(", ").map(|key| key.trim_matches('`')) {
            let value = expected.remove(key).unwrap_or_else(|| panic!("{stage} has no setting `{key}`"));
            let written = default_of(default_cell, stage);
            let parsed = match written.as_str() {
                "off" => Value::Null,
                "*required*" => json!("required"),
                text => serde_json::from_str(text).unwrap_or_else(|e| panic!("{key}: {text}: {e}")),
            };
            let same = parsed == value || parsed.as_f64().is_some_and(|number| Some(number) == value.as_f64());
            assert!(same, "{stage}: `{key}` is {value} by default; the guide says {written}");
            if value.is_string() && value != "required" && !optional.iter().any(|(of, _)| key.starts_with(of)) {
                for word in words(default, key) {
                    let known = default_cell.contains(&word) || means.contains(&word);
                    assert!(known, "the guide does not say that `{key}` may be `{word}`");
                }
            }
        }
    }
    assert!(expected.is_empty(), "the table lacks settings of {stage}: {expected:?}");
}

#[test]
fn the_guide_has_every_setting_of_training_with_its_default() {
    agree("sft", &SftConfig::default(), &[]);
    agree("distill", &SftConfig::default(), &[]);
    agree("align", &PreferenceTrainerConfig::default(), &[]);
    let overlong = OverlongPenalty { limit: 2, buffer: 1, factor: 1.0 };
    let mut overlong_keys = serde_json::to_value(overlong).unwrap();
    overlong_keys["factor"] = serde_json::from_value::<OverlongPenalty>(json!({"limit": 2, "buffer": 1}))
        .map(|penalty| json!(penalty.factor))
        .unwrap();
    (overlong_keys["limit"], overlong_keys["buffer"]) = (json!("required"), json!("required"));
    let correction = serde_json::to_value(Correction::default()).unwrap();
    agree("grpo", &GrpoTrainerConfig::default(), &[("objective.correction", correction), ("overlong", overlong_keys)]);
}

#[test]
fn the_algorithms_of_the_guide_are_settings() {
    let (_, after) = GUIDE.split_once("The field's algorithms, as settings:\n\n```toml\n").expect("the block");
    let block: toml::Table = after.split_once("```").unwrap().0.parse().unwrap();
    assert!(block.len() >= 4, "{block:?}");
    for (name, settings) in block {
        let settings: GrpoTrainerConfig = settings.try_into().unwrap_or_else(|e| panic!("{name}: {e}"));
        settings.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_ne!(settings, GrpoTrainerConfig::default(), "{name}");
    }
}
