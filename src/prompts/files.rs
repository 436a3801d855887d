//! Which files a source names: a file, a folder's data files, or those a pattern matches, local or in an object store.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::Path;

use super::read;
use crate::store::{Entry, Location, hub_hint};
use crate::{Error, Result};

/// A file itself, a folder's data files, or the files that match a pattern: in name order.
///
/// In a pattern `*` and `?` stand for any characters and any one character of a name, `**` for any folders. Names that
/// begin with `.` or `_` are passed over unless the pattern says them. `**` follows links to folders, and looks into no
/// folder twice.
///
/// `check_stop` is asked before each folder of a pattern is looked into: a tree may be huge.
///
/// # Errors
/// A folder without a data file, a pattern that matches nothing, a URL of an unknown kind; what `check_stop` fails with.
pub fn expand(path: &str, base: &Path, check_stop: &dyn Fn() -> Result<()>) -> Result<Vec<Location>> {
    let resolve = |path: &str| match path.contains("://") {
        true => Location::parse(path),
        false => Ok(Location::from(base.join(path))),
    };
    let pattern = split_pattern(path);
    // On a disk a file may have a star in its name.
    if pattern.is_none() || !path.contains("://") {
        let exact = resolve(path)?;
        if exact.size()?.is_some() {
            return Ok(vec![exact]);
        }
        if pattern.is_none() {
            return match hub_hint(path) {
                Some(hint) if !exact.exists()? => {
                    Err(Error::new("there is no such file or folder").in_file(path).hint(hint))
                }
                _ => data_files(exact),
            };
        }
    }
    let (folder, pattern) = pattern.unwrap_or_default();
    let folder = resolve(folder)?;
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let mut walk = Walk { files: Vec::new(), seen: HashSet::new(), links: VecDeque::new(), check_stop };
    walk.find(&folder, &parts)?;
    while let Some((folder, parts)) = walk.links.pop_front() {
        walk.find(&folder, parts)?;
    }
    let mut files = walk.files;
    files.sort_by_cached_key(Location::to_string);
    files.dedup_by(|a, b| a.to_string() == b.to_string());
    if files.is_empty() {
        let error = Error::new("no file matches this pattern").in_file(path);
        return Err(match folder.exists()? {
            true => error.hint("`*` and `?` stand for characters of a name, `**` for any folders"),
            false => error.hint(format!("there is no folder `{folder}`")),
        });
    }
    Ok(files)
}

/// A folder's data files; where it has none, those of the `data` in it: there the Hugging Face hub keeps them, and a corpus
/// of ours.
///
/// # Errors
/// There are none, or `data` holds several splits.
fn data_files(folder: Location) -> Result<Vec<Location>> {
    let entries = folder.list()?;
    if entries.is_empty() && !folder.as_local().is_some_and(Path::is_dir) {
        // Not there: whoever opens it says so.
        return Ok(vec![folder]);
    }
    let wanted = |name: &str| read::is_data_file(Path::new(name)) && !is_hidden(name) && !ABOUT.contains(&name);
    let files_in = |folder: &Location, entries: &[Entry]| -> Vec<Location> {
        entries.iter().filter(|e| !e.is_folder && wanted(&e.name)).map(|e| folder.join(&e.name)).collect()
    };
    let mut files = files_in(&folder, &entries);
    if files.is_empty() {
        let data = folder.join("data");
        files = files_in(&data, &data.list()?);
        one_split(&data, &files)?;
    }
    match files.is_empty() {
        false => Ok(files),
        true => Err(Error::new("no data file is in this folder").in_file(&folder).hint(
            "wanted are files ending in .jsonl, .json, .csv, .tsv or .parquet, also with .gz or .zst; \
             `**/*.jsonl` looks into the folders below",
        )),
    }
}

/// What older data sets of the hub say of themselves.
const ABOUT: &[&str] = &["dataset_infos.json"];

/// # Errors
/// Files of several splits (`train-00000-of-00004.parquet`): nobody means to train on the test split beside the others.
fn one_split(folder: &Location, files: &[Location]) -> Result<()> {
    let split = |file: &Location| file.file_name().split(['-', '.']).next().unwrap_or_default().to_owned();
    let splits: BTreeSet<String> = files.iter().map(split).filter(|name| SPLITS.contains(&name.as_str())).collect();
    if splits.len() < 2 {
        return Ok(());
    }
    let names: Vec<&str> = splits.iter().map(String::as_str).collect();
    let meant = if splits.contains("train") { "train" } else { names[0] };
    let error = Error::new(format!("this folder has several splits: {}", names.join(", "))).in_file(folder);
    Err(error.hint(format!("name the one that is meant, as `{folder}/{meant}*`")))
}

const SPLITS: &[&str] = &["train", "test", "validation", "valid", "dev", "eval"];

/// The folder before the first part with a wildcard, and the rest; `None` where there is no wildcard.
fn split_pattern(path: &str) -> Option<(&str, &str)> {
    let wild = path.find(['*', '?'])?;
    let cut = path[..wild].rfind('/').map_or(0, |slash| slash + 1);
    Some((&path[..cut], &path[cut..]))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// A search for the files of a pattern.
struct Walk<'a> {
    files: Vec<Location>,
    /// Folders that `**` has looked into, as they are called without links, and how many parts of the pattern were left.
    seen: HashSet<(String, usize)>,
    /// Links to folders that `**` found, and what is looked for there: after all else, so that a file has the name it
    /// has without them if it lies here at all.
    links: VecDeque<(Location, &'a [&'a str])>,
    check_stop: &'a dyn Fn() -> Result<()>,
}

impl<'a> Walk<'a> {
    fn find(&mut self, folder: &Location, parts: &'a [&'a str]) -> Result<()> {
        (self.check_stop)()?;
        let Some((&part, rest)) = parts.split_first() else { return Ok(()) };
        if part == "**" {
            return self.find_anywhere(folder, parts, rest);
        }
        if !part.contains(['*', '?']) {
            let next = folder.join(part);
            if !rest.is_empty() {
                return self.find(&next, rest);
            }
            self.files.extend(next.size()?.map(|_| next));
            return Ok(());
        }
        for entry in folder.list()? {
            if !matches(part, &entry.name) || is_hidden(&entry.name) && !is_hidden(part) {
                continue;
            }
            match (entry.is_folder, rest.is_empty()) {
                (false, true) => self.files.push(folder.join(&entry.name)),
                (true, false) => self.find(&folder.join(&entry.name), rest)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `parts` begin with `**`, `rest` is behind it.
    fn find_anywhere(&mut self, folder: &Location, parts: &'a [&'a str], rest: &'a [&'a str]) -> Result<()> {
        if !self.seen.insert((folder.canonical(), parts.len())) {
            return Ok(());
        }
        self.find(folder, rest)?;
        for entry in folder.list()?.iter().filter(|entry| !is_hidden(&entry.name)) {
            let next = folder.join(&entry.name);
            if entry.is_folder {
                match next.as_local().is_some_and(Path::is_symlink) {
                    true => self.links.push_back((next, parts)),
                    false => self.find_anywhere(&next, parts, rest)?,
                }
            } else if rest.is_empty() && read::is_data_file(Path::new(&entry.name)) {
                self.files.push(next);
            }
        }
        Ok(())
    }
}

/// `*` stands for any run of characters, `?` for one. Steps back to the last star only, so it is quadratic at worst.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(path: &str, base: &Path) -> Result<Vec<Location>> {
        super::expand(path, base, &|| Ok(()))
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["b.jsonl", "a.jsonl", "notes.txt", "_part.jsonl", "x/c1.jsonl", "x/y/c2.csv", "x/.z/c3.csv", "x/c*.jsonl"]
        {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    #[test]
    fn files_folders_and_patterns_name_files_in_order() {
        let dir = tree();
        let names = |path: &str| -> Vec<String> {
            let strip = |file: Location| file.to_string().replace(&format!("{}/", dir.path().display()), "");
            expand(path, dir.path()).unwrap().into_iter().map(strip).collect()
        };
        for (path, expected) in [
            (".", ["./a.jsonl", "./b.jsonl"].as_slice()),
            ("x", &["x/c*.jsonl", "x/c1.jsonl"]),
            ("*.jsonl", &["a.jsonl", "b.jsonl"]),
            ("_*.jsonl", &["_part.jsonl"]),
            ("?.jsonl", &["a.jsonl", "b.jsonl"]),
            ("x/c?.jsonl", &["x/c*.jsonl", "x/c1.jsonl"]),
            ("x/c*.jsonl", &["x/c*.jsonl"]),
            ("**/*.jsonl", &["a.jsonl", "b.jsonl", "x/c*.jsonl", "x/c1.jsonl"]),
            ("**/c2.csv", &["x/y/c2.csv"]),
            ("x/**", &["x/c*.jsonl", "x/c1.jsonl", "x/y/c2.csv"]),
            ("?/y/*", &["x/y/c2.csv"]),
            ("gone.jsonl", &["gone.jsonl"]),
        ] {
            assert_eq!(names(path), expected, "{path}");
        }
    }

    #[test]
    fn a_folder_as_the_hub_has_it_is_read_where_its_data_lies() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        ["README.md", "dataset_infos.json", ".cache/x.jsonl", "data/train-00000-of-00002.parquet"]
            .iter()
            .for_each(|name| put(name));
        put("data/train-00001-of-00002.parquet");
        let names =
            || expand(".", dir.path()).map(|files| files.iter().map(|f| f.file_name().to_owned()).collect::<Vec<_>>());
        assert_eq!(names().unwrap(), ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]);
        put("data/test-00000-of-00001.parquet");
        let told = names().unwrap_err().render(false);
        assert!(told.contains("several splits: test, train") && told.contains("data/train*`"), "{told}");
        put("own.jsonl");
        assert_eq!(names().unwrap(), ["own.jsonl"], "its own files come first");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_each_folder_is_looked_into_once() {
        let dir = tree();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::create_dir(elsewhere.path().join("z")).unwrap();
        std::fs::write(elsewhere.path().join("z/far.jsonl"), "").unwrap();
        link(".", "around");
        link("..", "x/up");
        link("../x", "x/y/again");
        link("x", "a-link-before-x");
        link(elsewhere.path().to_str().unwrap(), "far");
        link(dir.path().to_str().unwrap(), "x/y/whole");
        let names = |path: &str| -> Vec<String> {
            let strip = |file: Location| file.to_string().replace(&format!("{}/", dir.path().display()), "");
            expand(path, dir.path()).unwrap().into_iter().map(strip).collect()
        };
        assert_eq!(names("**/*.jsonl"), ["a.jsonl", "b.jsonl", "far/z/far.jsonl", "x/c*.jsonl", "x/c1.jsonl"]);
        assert_eq!(names("**/y/*.csv"), ["x/y/c2.csv"]);
        // A name that the pattern says is found by that name.
        assert_eq!(names("a-link-before-x/c1*"), ["a-link-before-x/c1.jsonl"]);
        assert_eq!(names("far/**"), ["far/z/far.jsonl"]);
    }

    #[test]
    fn a_search_ends_as_soon_as_it_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..50 {
            std::fs::create_dir_all(dir.path().join(format!("{i}/below"))).unwrap();
        }
        let asked = std::cell::Cell::new(0);
        let stop_at_the_third = || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Ok(()) } else { Err(Error::interrupted()) }
        };
        for pattern in ["**/*.jsonl", "*/*/*.jsonl"] {
            asked.set(0);
            let error = super::expand(pattern, dir.path(), &stop_at_the_third).unwrap_err();
            assert_eq!((error.kind(), asked.get()), (crate::error::ErrorKind::Interrupted, 3), "{pattern}");
        }
    }

    #[test]
    fn what_matches_nothing_is_told_with_the_reason() {
        let dir = tree();
        let told = |path: &str| expand(path, dir.path()).unwrap_err().render(false);
        assert!(told("c*.jsonl").contains("no file matches this pattern"), "{}", told("c*.jsonl"));
        assert!(told("gone/*.jsonl").contains("there is no folder"), "{}", told("gone/*.jsonl"));
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(told("empty").contains("no data file is in this folder"), "{}", told("empty"));
        assert!(told("ftp://a/b.jsonl").contains("not known"), "{}", told("ftp://a/b.jsonl"));
    }

    proptest! {
        #[test]
        fn patterns_match_as_a_plain_search_does(pattern in "[ab*?]{0,6}", name in "[ab]{0,6}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.first(), name.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => plain(&pattern[1..], name) || !name.is_empty() && plain(pattern, &name[1..]),
                    (Some(b'?'), Some(_)) => plain(&pattern[1..], &name[1..]),
                    (Some(a), Some(b)) if a == b => plain(&pattern[1..], &name[1..]),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
