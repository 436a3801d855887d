//! The folder of a model: what completions call it, and which of its files decide what it answers.

use std::path::{Path, PathBuf};

use super::layout::MODEL;

/// What completions call a model: its folder's name, or the stage's that trained it.
pub(crate) fn model_name(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = name(folder).unwrap_or_else(|| folder.display().to_string());
    match folder.parent().and_then(name) {
        // `5_r1_zero/model` is the model of the stage `r1_zero`.
        Some(stage) if own == MODEL => stage.split_once('_').map_or(stage.clone(), |(_, name)| name.to_owned()),
        _ => own,
    }
}

/// The files of a model's folder that decide what it answers, by name.
pub(crate) fn model_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let decides = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".safetensors") || name.ends_with(".json") || name.ends_with(".jinja")
    };
    let mut files: Vec<String> = entries.filter(decides).map(|path| path.display().to_string()).collect();
    files.sort();
    files
}
