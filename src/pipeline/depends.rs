//! What a stage's output depends on, as one fingerprint, and by parts that can be told apart.

use std::collections::{BTreeMap, BTreeSet};

use super::digests::Digests;
use super::inputs::Inputs;
use super::plan::Planned;
use crate::device::Device;
use crate::error::Result;
use crate::recipe::Recipe;
use crate::stage;
use crate::store::Manifest;

/// Parts that are told of a change; more of them are counted.
const TOLD: usize = 4;

/// Everything that a stage's output depends on.
pub(super) struct Depends {
    /// BLAKE3 of all of it, in hex.
    pub fingerprint: String,
    /// Digests of its parts by dotted name: `config.training.batch_size`, `inputs.corpus`, `seed`.
    pub parts: BTreeMap<String, String>,
}

impl Depends {
    /// Of a table: values that are no tables are the parts; of `materials`, pairs of a name and a digest, each one.
    pub fn new(all: serde_json::Value) -> Self {
        let mut parts = BTreeMap::new();
        collect("", &all, &mut parts);
        Depends { fingerprint: digest(all.to_string().as_bytes()), parts }
    }

    /// Names of the parts that are not as they were when a manifest said what its stage was made of.
    pub fn other_parts<'a>(&'a self, made_of: &'a BTreeMap<String, String>) -> BTreeSet<&'a str> {
        let names = self.parts.keys().chain(made_of.keys());
        names.filter(|&name| self.parts.get(name) != made_of.get(name)).map(String::as_str).collect()
    }

    /// What is not as it was when a manifest said what its stage was made of: a list for people, with nothing in it
    /// that could be told of a manifest that does not say.
    pub fn changed(&self, made_of: &BTreeMap<String, String>) -> String {
        let mut told: Vec<String> = self.other_parts(made_of).into_iter().map(in_words).collect();
        if made_of.is_empty() || told.is_empty() {
            return "configuration, input or file".to_owned();
        }
        if told.len() > TOLD {
            let more = told.len() - (TOLD - 1);
            told.truncate(TOLD - 1);
            told.push(format!("{more} more"));
        }
        let last = told.pop().unwrap_or_default();
        if told.is_empty() { last } else { format!("{} and {last}", told.join(", ")) }
    }
}

impl Planned {
    /// What the output depends on.
    pub(super) fn depends(&self, recipe: &Recipe, digests: &Digests<'_>, inputs: &Inputs) -> Result<Depends> {
        let mut materials = self.materials(recipe, digests)?;
        let mut input_digests = inputs.digests.clone();
        for (key, folder) in inputs.folders.iter().filter(|(key, _)| !inputs.digests.contains_key(*key)) {
            let files = stage::model_files(std::path::Path::new(&folder.to_string()));
            input_digests.insert(key.clone(), together(files.iter().map(|file| digests.of_path(file)))?);
        }
        for (key, dataset) in &inputs.datasets {
            let digest = match dataset.manifest() {
                Some(manifest) => manifest.digest(),
                None => together(dataset.shards().iter().map(|shard| digests.of_shard(shard)))?,
            };
            input_digests.insert(key.clone(), digest);
        }
        let mut config = self.table.config.to_json();
        // Names of inputs and paths of files are not what the bytes depend on: digests of both are. How the work is
        // done is not what is computed.
        let inputs = self.inputs.iter().map(|input| input.key.as_str());
        for key in inputs.chain(self.stage.unfingerprinted_keys()) {
            remove(&mut config, key);
        }
        // A GPU rounds differently than the CPU. Which of them it is, and how many, is no reason to lose what was trained.
        let device = (recipe.device != Device::Cpu).then(|| recipe.device.make());
        if self.stage.uses_device() {
            materials.extend(device.map(|device| ("device".to_owned(), device.to_owned())));
        }
        Ok(Depends::new(serde_json::json!({
            "format": Manifest::FORMAT,
            "schema": self.stage.output().map(|kind| (kind.to_string(), kind.version())),
            "kind": self.kind,
            "version": self.stage.version(),
            "config": config,
            "seed": recipe.seed,
            "shard_rows": recipe.shard_rows,
            "inputs": input_digests,
            "materials": materials,
        })))
    }
}

/// One digest of several.
fn together(digests: impl Iterator<Item = Result<String>>) -> Result<String> {
    Ok(digest(digests.collect::<Result<String>>()?.as_bytes()))
}

/// Removes a dotted key from a table, and a table within it that nothing is left of: that is as if neither had been
/// written. A number is an item of a list, `*` every one of them.
fn remove(value: &mut serde_json::Value, key: &str) {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (value, rest) {
        (serde_json::Value::Object(map), None) => drop(map.shift_remove(first)),
        (serde_json::Value::Object(map), Some(rest)) => {
            let Some(inner) = map.get_mut(first) else { return };
            remove(inner, rest);
            if inner.as_object().is_some_and(serde_json::Map::is_empty) {
                map.shift_remove(first);
            }
        }
        (serde_json::Value::Array(items), Some(rest)) => {
            let of_item = |i: &usize| first == "*" || first.parse() == Ok(*i);
            items.iter_mut().enumerate().filter(|(i, _)| of_item(i)).for_each(|(_, item)| remove(item, rest));
        }
        _ => {}
    }
}

fn collect(name: &str, value: &serde_json::Value, parts: &mut BTreeMap<String, String>) {
    let within = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        serde_json::Value::Object(table) => table.iter().for_each(|(key, value)| collect(&within(key), value, parts)),
        serde_json::Value::Array(pairs) if name == "materials" => {
            let pairs = pairs.iter().filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?)));
            pairs.for_each(|(what, value)| collect(&within(what), value, parts));
        }
        value => drop(parts.insert(name.to_owned(), digest(value.to_string().as_bytes()))),
    }
}

fn in_words(name: &str) -> String {
    match name.split_once('.') {
        Some(("config", key)) => format!("`{key}`"),
        Some(("inputs", key)) => format!("input `{key}`"),
        Some(("materials", what)) => what.to_string(),
        _ if ["seed", "shard_rows"].contains(&name) => format!("`{name}`"),
        _ => "version of gristmill".to_owned(),
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_by_its_key() {
        let of = |steps: u32, corpus: &str, file: &str| {
            Depends::new(json!({
                "config": { "training": { "steps": steps, "batch_size": 8 }, "dtype": "float32" },
                "seed": 1, "version": 2, "inputs": { "corpus": corpus }, "materials": [["tokenizer/tokenizer.json", file]],
            }))
        };
        let (before, after) = (of(4, "a", "x"), of(5, "b", "x"));
        assert_ne!(before.fingerprint, after.fingerprint);
        assert_eq!(after.changed(&before.parts), "`training.steps` and input `corpus`");
        assert_eq!(of(4, "a", "y").changed(&before.parts), "tokenizer/tokenizer.json");
        assert_eq!(after.changed(&BTreeMap::new()), "configuration, input or file");
        let others = Depends::new(json!({ "config": { "a": 1, "b": 2, "c": 3 }, "seed": 2 }));
        let none = Depends::new(json!({ "version": 1 }));
        assert_eq!(others.changed(&none.parts), "`a`, `b`, `c` and 2 more");
    }
}
