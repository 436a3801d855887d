//! Import: the prompts of one source, file by file, row by row, with an account of what was wrong.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::gold::Gold;
use super::identity::mint;
use super::layout::{Draft, Layout, draft};
use super::read::{self, Fault, Item, Row, Rows};
use super::source::{Extra, Format, OnError, SourceConfig};
use super::{language, read::Place};
use crate::error::Context;
use crate::schema::Prompt;
use crate::{Error, Result};

/// How many fault places a report keeps; beyond them only the count grows.
pub const KEPT_PLACES: usize = 100;

/// One imported prompt and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub prompt: Prompt,
    /// The file, as the source names it.
    pub file: Arc<str>,
    pub place: Place,
}

/// What an import read, and what it could not use.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ImportReport {
    pub files: Vec<FileReport>,
    /// Rows read, faulty ones included.
    pub rows: u64,
    /// Prompts handed on.
    pub imported: u64,
    /// Rows left out under `on_error = "skip"`, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// The first [`KEPT_PLACES`] of them.
    pub places: Vec<FaultPlace>,
    /// Prompts without gold, by reason: `absent`, `empty`, `proof`, `notfound`, `no_marker`, `no_box`, `imprecise`.
    pub gold_missing: BTreeMap<String, u64>,
    /// Rows whose own id was seen before in this source. They are handed on: dedup judges content.
    pub duplicate_ids: u64,
}

/// One file of an import.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FileReport {
    pub file: String,
    pub format: Format,
    pub layout: Layout,
    pub rows: u64,
}

/// One row that was left out.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FaultPlace {
    pub file: String,
    pub row: u64,
    pub line: Option<usize>,
    pub reason: String,
    pub message: String,
}

/// Streams the prompts of one source. Memory: one row, and 8 bytes for each row that has an id.
pub struct Importer {
    config: SourceConfig,
    name: String,
    /// Reports name files relative to it: where a recipe lies is not part of what it makes.
    base: PathBuf,
    files: std::vec::IntoIter<PathBuf>,
    current: Option<Open>,
    report: ImportReport,
    ids: HashSet<u64>,
    done: bool,
}

struct Open {
    path: PathBuf,
    file: Arc<str>,
    rows: Rows,
    /// [`Layout::Auto`] until the first good row.
    layout: Layout,
}

impl Importer {
    /// Resolves the source's paths (relative ones under `base`).
    ///
    /// # Errors
    /// A path does not exist, or a folder or pattern holds no data file.
    pub fn open(config: &SourceConfig, base: &Path) -> Result<Importer> {
        let mut files = Vec::new();
        for path in config.path.as_slice() {
            files.extend(expand(&base.join(path))?);
        }
        let Some(first) = files.first() else {
            return Err(Error::usage("the source names no file").hint("give it one: `path = \"prompts.jsonl\"`"));
        };
        if let Some(tag) = config.language.as_ref().filter(|tag| language::normalise_tag(tag).is_none()) {
            let error = Error::usage(format!("`{tag}` is no language tag"));
            return Err(error.hint("write a BCP 47 tag such as `en`, `fr` or `zh`"));
        }
        let name = config.name.clone().unwrap_or_else(|| stem(first));
        Ok(Importer {
            config: config.clone(),
            name,
            base: base.to_owned(),
            files: files.into_iter(),
            current: None,
            report: ImportReport::default(),
            ids: HashSet::new(),
            done: false,
        })
    }

    /// The files it reads, in order.
    pub fn files(&self) -> &[PathBuf] {
        self.files.as_slice()
    }

    /// The source's name, as rows carry it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The account so far; whole once the iterator has ended.
    pub fn report(&self) -> &ImportReport {
        &self.report
    }

    fn step(&mut self) -> Result<Option<Imported>> {
        if self.config.limit.is_some_and(|limit| self.report.imported >= limit) {
            return Ok(None);
        }
        loop {
            let Some(open) = &mut self.current else {
                let Some(path) = self.files.next() else { return self.finish() };
                let rows = read::open(&path, self.config.format)?;
                let file: Arc<str> = path.strip_prefix(&self.base).unwrap_or(&path).display().to_string().into();
                self.report.files.push(FileReport {
                    file: file.to_string(),
                    format: rows.format,
                    layout: self.config.layout,
                    rows: 0,
                });
                self.current = Some(Open { path, file, rows, layout: self.config.layout });
                continue;
            };
            let Some(item) = open.rows.next() else {
                self.current = None;
                continue;
            };
            let item = item?;
            self.report.rows += 1;
            let entry = self.report.files.last_mut().expect("an open file has its report");
            entry.rows += 1;
            let outcome = match item {
                Item::Fault(fault) => Err(fault),
                Item::Row(row) => {
                    if open.layout == Layout::Auto {
                        open.layout = Layout::detect(&row.columns);
                        entry.layout = open.layout;
                    }
                    draft(&row, open.layout, &self.config).map(|draft| (row, draft))
                }
            };
            match outcome {
                Ok((row, draft)) => {
                    let file = Arc::clone(&open.file);
                    return Ok(Some(self.finish_row(row, draft, file)));
                }
                Err(fault) if self.config.on_error == OnError::Stop => return Err(fault.into_error(&open.path)),
                Err(fault) => note(&mut self.report, &open.file, fault),
            }
        }
    }

    /// Nothing read at all is a fault of the recipe, not an empty dataset.
    fn finish(&self) -> Result<Option<Imported>> {
        if self.report.rows == 0 {
            let mut error = Error::new("the source has no rows").hint("is this the right file?");
            if let Some(entry) = self.report.files.first() {
                error = error.in_file(self.base.join(&entry.file).display());
            }
            return Err(error);
        }
        Ok(None)
    }

    fn finish_row(&mut self, row: Row, draft: Draft, file: Arc<str>) -> Imported {
        self.report.imported += 1;
        if let Some(id) = &draft.id {
            self.report.duplicate_ids += u64::from(!self.ids.insert(super::text::hash_bytes(id.as_bytes(), 0)));
        }
        let gold = match draft.gold {
            Gold::Answer(text) => Some(text),
            Gold::Missing(reason) => {
                *self.report.gold_missing.entry(reason.to_owned()).or_default() += 1;
                None
            }
        };
        let mut prompt = Prompt {
            prompt_id: String::new(),
            messages: draft.messages,
            gold,
            solution: draft.solution,
            verification: draft.verification,
            domain: draft.domain.unwrap_or_else(|| "general".to_owned()),
            language: String::new(),
            difficulty: draft.difficulty,
            source: draft.source.unwrap_or_else(|| self.name.clone()),
            license: draft.license.or_else(|| self.config.license.clone()),
            extra: extra(row.columns, &draft.used, &self.config.extra),
        };
        let told = draft.language.or_else(|| self.config.language.as_deref().and_then(language::normalise_tag));
        prompt.language = told.unwrap_or_else(|| language::detect(prompt.question()).to_owned());
        Imported { prompt: mint(prompt), file, place: row.place }
    }
}

impl Iterator for Importer {
    type Item = Result<Imported>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}

fn note(report: &mut ImportReport, file: &str, fault: Fault) {
    *report.skipped.entry(fault.reason.to_owned()).or_default() += 1;
    if report.places.len() < KEPT_PLACES {
        report.places.push(FaultPlace {
            file: file.to_owned(),
            row: fault.place.row,
            line: fault.place.line,
            reason: fault.reason.to_owned(),
            message: fault.message,
        });
    }
}

fn extra(columns: Map<String, Value>, used: &[String], keep: &Extra) -> Option<String> {
    let kept: Map<String, Value> = match keep {
        Extra::All(false) => return None,
        Extra::All(true) => {
            columns.into_iter().filter(|(name, value)| !used.contains(name) && !value.is_null()).collect()
        }
        Extra::Only(names) => columns.into_iter().filter(|(name, _)| names.contains(name)).collect(),
    };
    (!kept.is_empty()).then(|| Value::Object(kept).to_string())
}

/// A file itself, a folder's data files, or the files that match a `*` pattern: in name order.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    let pattern = path.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*'));
    let folder = match pattern {
        Some(_) if !path.exists() => path.parent().unwrap_or(Path::new(".")),
        _ if path.is_dir() => path,
        _ => return Ok(vec![path.to_owned()]),
    };
    let listing = std::fs::read_dir(folder).or_fail(|| "cannot list the folder".to_owned());
    let mut files = Vec::new();
    for entry in listing.map_err(|error| error.in_file(folder.display()))? {
        let entry = entry.or_fail(|| "cannot list the folder".to_owned())?.path();
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or("");
        let wanted = match pattern {
            Some(pattern) if folder != path => wildcard(pattern, name),
            _ => read::is_data_file(&entry) && !name.starts_with(['.', '_']),
        };
        if wanted && entry.is_file() {
            files.push(entry);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::new("no data file here")
            .in_file(path.display())
            .hint("wanted are files ending in .jsonl, .json, .csv, .tsv or .parquet, also with .gz or .zst"));
    }
    Ok(files)
}

/// `*` stands for any run of characters.
fn wildcard(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or("");
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn stem(path: &Path) -> String {
    let name = path.file_name().map_or_else(|| "prompts".to_owned(), |name| name.to_string_lossy().into_owned());
    match name.find('.') {
        Some(dot) if dot > 0 => name[..dot].to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests;
