//! A corpus needs no gristmill to be read: polars, pyarrow and Hugging Face `datasets` take it as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{gristmill, repository, slow_tests, write_recordings};

/// A Python with the three libraries, installed once into the build folder; `None` where that fails.
fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus-readers");
    let python = folder.join("bin/python");
    let has_all = |python: &Path| {
        let mut command = Command::new(python);
        command.args(["-c", "import polars, pyarrow, datasets"]).output().is_ok_and(|output| output.status.success())
    };
    if has_all(&python) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&folder).status().is_ok_and(|status| status.success());
    let pip = ["-m", "pip", "install", "--quiet", "polars", "pyarrow", "datasets"];
    (made && Command::new(&python).args(pip).status().is_ok_and(|status| status.success()) && has_all(&python))
        .then_some(python)
}

#[test]
fn polars_pyarrow_and_datasets_read_a_corpus_as_it_is() {
    if !slow_tests() {
        eprintln!("skipped: it installs Python packages (GRISTMILL_SLOW_TESTS=1 runs it)");
        return;
    }
    let Some(python) = python() else {
        eprintln!("skipped: polars, pyarrow and datasets cannot be installed with python3 here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    gristmill(folder.path(), ["run", "quickstart", "--out", "quickstart"]).succeeded();
    // Several shards a split, too.
    write_recordings(folder.path(), 800);
    gristmill(folder.path(), ["run", "recipe.toml", "--out", "sharded"]).succeeded();
    for corpus in ["quickstart/7_corpus", "sharded/6_corpus"] {
        let output = Command::new(&python)
            .arg(repository("tests/python/read_corpus.py"))
            .arg(folder.path().join(corpus))
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", folder.path().join("hf"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{corpus}\n{said}{}", String::from_utf8_lossy(&output.stderr));
        eprint!("{corpus}: {said}");
    }
}
