//! A run's folder from outside: whose it is, and which of the folders in it are stages of its recipe.

use serde_json::Value;

use super::Location;
use crate::error::Result;

/// Says whose folder it is: the run's name, gristmill's version, and the names of the recipe's stages in order.
pub const MARKER: &str = "run.json";

/// What a folder says of the run in it.
#[derive(Debug, Default)]
pub struct RunFolder {
    /// The marker; null if there is none, or none that reads.
    pub owner: Value,
    /// Folders of the recipe's stages, in its order: `1_prompts`, `2_generate` …
    pub stages: Vec<String>,
    /// Folders of stages that the recipe no longer has.
    pub left_over: Vec<String>,
}

impl RunFolder {
    /// Looks at a folder. Where its marker names no stages, every folder that is called like one is one.
    ///
    /// # Errors
    /// The disk or store refuses.
    pub fn look(location: &Location) -> Result<RunFolder> {
        let owner = location.join(MARKER).read_if_exists()?;
        let owner: Value = owner.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let known: Option<Vec<&str>> =
            owner.get("stages").and_then(Value::as_array).map(|names| names.iter().filter_map(Value::as_str).collect());
        let (mut stages, mut left_over) = (Vec::new(), Vec::new());
        for entry in location.list()?.into_iter().filter(|entry| entry.is_folder) {
            // `3_verify`; other folders are no stages, whatever they hold.
            let Some((number, name)) = entry.name.split_once('_') else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match known.as_ref().map(|known| known.iter().position(|stage| *stage == name)) {
                None => stages.push((0, number, entry.name)),
                Some(Some(place)) => stages.push((place, number, entry.name)),
                Some(None) => left_over.push(entry.name),
            }
        }
        stages.sort();
        Ok(RunFolder { stages: stages.into_iter().map(|(.., name)| name).collect(), left_over, owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_come_as_the_recipe_has_them_and_those_it_dropped_apart() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["2_verify", "10_report", "1_prompts", "3_group", "cache", "_spill"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let look = || RunFolder::look(&folder.path().into()).unwrap();
        assert_eq!(look().stages, ["1_prompts", "2_verify", "3_group", "10_report"]);
        let owner = r#"{"name": "r", "stages": ["prompts", "report", "verify", "select"]}"#;
        std::fs::write(folder.path().join(MARKER), owner).unwrap();
        assert_eq!(look().stages, ["1_prompts", "10_report", "2_verify"]);
        assert_eq!(look().left_over, ["3_group"]);
    }
}
