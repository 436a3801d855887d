//! What people feed a program by mistake: each mistake is told with its place and a way out, as
//! exit code 1 (it failed) or 2 (wrong usage). `tests/snapshots` holds the words.

mod datasets;
mod folders;
mod recipes;
mod rows;

use std::path::Path;

use crate::support::{gristmill, leftovers};

/// Runs the command, which must fail, and answers with its exit code and report.
#[track_caller]
fn refused(folder: &Path, args: &[&str]) -> String {
    let run = gristmill(folder, args);
    assert!(matches!(run.code, Some(1 | 2)), "{}", run.story());
    assert!(!run.stderr.contains("panicked"), "{}", run.story());
    if folder.join("out").is_dir() {
        let temporary: Vec<_> = leftovers(&folder.join("out")).into_iter().filter(|f| f.contains(".tmp-")).collect();
        assert!(temporary.is_empty(), "a failed run leaves {temporary:?}");
    }
    run.refusal()
}

/// A folder with a recipe of this text.
fn with_recipe(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("recipe.toml"), text).expect("a temporary folder is writable");
    folder
}

const RUN: [&str; 4] = ["run", "recipe.toml", "--out", "out"];
