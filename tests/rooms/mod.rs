//! The house rule of ARCHITECTURE.md: no room imports one above it.

use std::path::{Path, PathBuf};

use crate::support::repository;

/// The rooms, floor by floor, as ARCHITECTURE.md says: from the ground up.
const FLOORS: &[&[&str]] = &[
    &["error", "seed", "words", "schema", "store", "recipe", "device", "language", "bytes"],
    &["backend"],
    &["model"],
    &["rule", "engine", "train", "eval", "prompts", "procedural", "inspect", "doctor"],
    &["stage", "report"],
    &["pipeline"],
    &["cli"],
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The rooms that a source names, its comments and tests left out.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = lines.flat_map(|line| line.split("crate::").skip(1));
    paths.map(|path| path.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default())
}

#[test]
fn no_room_imports_one_above_it() {
    let src = repository("src");
    let mut upwards = Vec::new();
    let mut imports = 0;
    for path in sources(&src) {
        let within = path.strip_prefix(&src).unwrap();
        let of_tests = within.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
        let first = within.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own) = floor(first.trim_end_matches(".rs")).filter(|_| !of_tests) else { continue };
        let text = std::fs::read_to_string(&path).unwrap();
        for room in named(&text) {
            let Some(other) = floor(room) else { continue };
            imports += 1;
            if other > own {
                upwards.push(format!("{} -> {room}", within.display()));
            }
        }
    }
    assert!(imports > 500, "only {imports} imports were seen");
    assert!(upwards.is_empty(), "{upwards:#?}");
}

#[test]
fn every_room_has_its_floor_and_its_line_in_the_table() {
    let architecture = std::fs::read_to_string(repository("ARCHITECTURE.md")).unwrap();
    let library = std::fs::read_to_string(repository("src/lib.rs")).unwrap();
    let rooms: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(rooms.len() > 10, "{rooms:?}");
    let floors = architecture.split("Floors, from the top").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    for room in rooms {
        assert!(floor(room).is_some(), "{room} is on no floor");
        assert!(architecture.contains(&format!("\n| `{room}` |")), "{room} is not in the table of rooms");
        assert!(floors.contains(&format!("`{room}`")), "{room} is not among the floors of ARCHITECTURE.md");
    }
}
