//! `tests/fuzz` stands outside the workspace and is built by hand: what it takes in by links must not outgrow it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).expect("the pattern is fixed");
    pattern.captures_iter(text).map(|found| found[1].to_string()).collect()
}

/// The files of the package's library that its build reads, links followed; tests are left out.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut waiting = vec![(package().join("src/lib.rs"), package().join("src"))];
    while let Some((file, beside)) = waiting.pop() {
        let text = read(&file);
        // Tests use crates that only tests may, and stand last in a file or in one of their own.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_string();
        let tests = names(r"(?m)^#\[cfg\(test\)\]\n(?:pub(?:\([a-z]+\))? )?mod (\w+);", &text);
        for name in names(r"(?m)^(?:pub(?:\([a-z]+\))? )?mod (\w+);", &text) {
            if !tests.contains(&name) {
                let path = beside.join(format!("{name}.rs"));
                assert!(path.is_file(), "{}: no file for `mod {name}`: link it in tests/fuzz/src", file.display());
                waiting.push((path, beside.join(&name)));
            }
        }
        files.push((file, text));
    }
    files
}

#[test]
fn the_fuzz_package_has_every_room_and_crate_that_the_rules_use() {
    let manifest = read(&package().join("Cargo.toml"));
    let section = manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());
    let crates = names(r"(?m)^([\w-]+) =", section.expect("the package has dependencies"));
    let crates: BTreeSet<String> = crates.iter().map(|name| name.replace('-', "_")).collect();
    let sources = sources();
    assert!(sources.len() > 60, "the links lead to {} files", sources.len());
    let rooms = names(r"(?m)^pub mod (\w+);", &sources[0].1);
    for (path, text) in &sources {
        for room in names(r"\bcrate::([a-z]\w*)", text) {
            assert!(rooms.contains(&room), "{}: tests/fuzz/src has no `{room}`: link it", path.display());
        }
        for first in names(r"(?m)^ *(?:pub )?use ([a-z]\w*)::", text) {
            let known = ["std", "core", "crate", "self", "super"].contains(&first.as_str()) || crates.contains(&first);
            let sibling = text.contains(&format!("mod {first};")) || text.contains(&format!("mod {first} {{"));
            assert!(known || sibling, "{}: tests/fuzz/Cargo.toml lacks `{first}`", path.display());
        }
    }
}
