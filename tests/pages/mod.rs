//! The Markdown pages against what they speak of: links lead somewhere, a recipe is the file's, and columns are the schema's.

use gristmill::schema::{ColumnType, DatasetKind};

use crate::support::repository;

const PAGES: [&str; 11] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "GPU.md",
    "datasets/README.md",
    "datasets/COLUMNS.md",
    "datasets/R1_MINI.md",
    "datasets/VLLM.md",
    "rules/README.md",
    "benches/README.md",
    "benches/gpu/RESULTS.md",
];

/// A page without its blocks of code.
fn prose(page: &str) -> String {
    let text = std::fs::read_to_string(repository(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
    let mut in_code = false;
    let kept = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// What GitHub calls the place of a heading: lower case, spaces as hyphens, no other punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut followed = 0;
    for page in PAGES {
        let text = prose(page);
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            followed += 1;
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = if path.is_empty() { page.to_owned() } else { format!("{folder}/{path}") };
            let found = repository(target.trim_start_matches('/'));
            assert!(found.exists(), "{page}: nothing lies at {link}");
            if !place.is_empty() {
                let text = std::fs::read_to_string(&found).unwrap();
                let is_there = text.lines().any(|line| line.starts_with('#') && anchor(line) == place);
                assert!(is_there, "{page}: {link} has no such heading");
            }
        }
    }
    assert!(followed > 40, "only {followed} links were seen");
}

#[test]
fn the_recipe_of_the_readme_is_the_whole_quickstart() {
    let page = std::fs::read_to_string(repository("README.md")).unwrap();
    let (_, shown) = page.split_once("comments aside:\n\n```toml\n").unwrap();
    let shown = shown.split_once("```").unwrap().0;
    let file = std::fs::read_to_string(repository("datasets/quickstart.toml")).unwrap();
    let kept: String = file.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(shown, kept);
}

#[test]
fn the_columns_of_the_page_are_those_of_the_schema() {
    let page = prose("datasets/COLUMNS.md");
    for kind in DatasetKind::ALL {
        let (_, section) = page.split_once(&format!("\n## `{kind}`\n")).unwrap_or_else(|| panic!("no {kind}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let written: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(written.len(), kind.columns().len(), "{kind}");
        let expected = kind.columns().iter().map(|column| {
            let name = match column.column_type {
                ColumnType::Messages => "messages".to_owned(),
                ColumnType::Scores => "scores".to_owned(),
                other => other.to_string(),
            };
            let nullable = if column.nullable { "?" } else { "" };
            format!("| `{}` | `{name}{nullable}` | {} |", column.name, column.doc())
        });
        for (written, expected) in written.into_iter().zip(expected) {
            assert_eq!(written, expected, "{kind}");
        }
    }
}
