//! Import: the prompts of one source, file by file, row by row, with an account of what was wrong.

mod mapped;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use self::mapped::Mapped;
use super::files::expand;
use super::gold::Gold;
use super::identity::mint;
use super::layout::{Draft, Layout, draft};
use super::normal::asked;
use super::read::{self, Fault, Item, Place, Row, Rows};
use super::source::{Extra, Format, OnError, SourceConfig};
use crate::language;
use crate::rule::domain_of;
use crate::schema::{BARE_QUESTION, Prompt, set_question};
use crate::store::Location;
use crate::{Error, Result};

/// How many fault places a report keeps; beyond them only the count grows.
pub const KEPT_PLACES: usize = 100;

/// One imported prompt and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// With its id, language and domain.
    pub prompt: Prompt,
    /// The file, as the source names it.
    pub file: Arc<str>,
    /// Its row in that file.
    pub place: Place,
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is handed on.
    Prompt(Box<Imported>),
    /// It was left out under `on_error = "skip"`.
    Skipped(FaultPlace),
}

/// What an import read, and what it could not use.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct ImportReport {
    /// Those opened so far, in the order read.
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
    /// As the source names it; relative to the recipe where it can be.
    pub file: String,
    /// What the file turned out to be, compression aside.
    pub format: Format,
    /// The source's, or as told from the first good row; `auto` if there is none.
    pub layout: Layout,
    /// Rows read, faulty ones included.
    pub rows: u64,
}

/// One row that was left out.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FaultPlace {
    /// As the source names it; relative to the recipe where it can be.
    pub file: String,
    /// 0-based row of that file.
    pub row: u64,
    /// 1-based line where the row starts; null for Parquet.
    pub line: Option<usize>,
    /// A short, stable code: `bad_json`, `invalid_utf8`, `missing_prompt` …
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
}

/// Streams the prompts of one source; [`Importer::next_step`] also tells the rows left out. Memory: one row, and
/// 8 bytes for each row that has an id.
pub struct Importer {
    config: SourceConfig,
    name: String,
    /// Reports name files relative to it: where a recipe lies is not part of what it makes.
    base: PathBuf,
    files: std::vec::IntoIter<Location>,
    current: Option<OpenFile>,
    report: ImportReport,
    ids: HashSet<u64>,
    done: bool,
}

struct OpenFile {
    location: Location,
    file: Arc<str>,
    rows: Rows,
    /// [`Layout::Auto`] until the first good row.
    layout: Layout,
    /// How its rows are read: as the source says, and a dataset of prompts by its own columns.
    config: SourceConfig,
    /// Which of the columns that are named were seen.
    mapped: Mapped,
}

impl Importer {
    /// Resolves the source's paths (relative ones under `base`).
    ///
    /// # Errors
    /// A folder or pattern holds no data file, a URL is of an unknown kind, or the source's language is no tag.
    pub fn open(config: &SourceConfig, base: &Path) -> Result<Importer> {
        Importer::open_until(config, base, &|| Ok(()))
    }

    /// The same, given up once `check_stop` fails: a pattern may lead through a huge tree.
    ///
    /// # Errors
    /// As [`Importer::open`]; what `check_stop` fails with.
    pub fn open_until(config: &SourceConfig, base: &Path, check_stop: &dyn Fn() -> Result<()>) -> Result<Importer> {
        config.check()?;
        let mut files = Vec::new();
        for path in config.path.as_slice() {
            files.extend(expand(&path.to_string_lossy(), base, check_stop)?);
        }
        let name = config.name.clone().or_else(|| files.first().map(|file| stem(file.file_name())));
        Ok(Importer {
            config: config.clone(),
            name: name.unwrap_or_default(),
            base: base.to_owned(),
            files: files.into_iter(),
            current: None,
            report: ImportReport::default(),
            ids: HashSet::new(),
            done: false,
        })
    }

    /// The files it reads, in order.
    pub fn files(&self) -> &[Location] {
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

    /// What becomes of the next row; `None` once there are no more, and after an error.
    pub fn next_step(&mut self) -> Option<Result<Step>> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }

    fn step(&mut self) -> Result<Option<Step>> {
        if self.config.limit.is_some_and(|limit| self.report.imported >= limit) {
            return match self.current.take() {
                Some(open) => open.mapped.check(&open.location).map(|()| None),
                None => Ok(None),
            };
        }
        loop {
            let Some(open) = &mut self.current else {
                let Some(location) = self.files.next() else { return self.finish() };
                let rows = read::open_at(&location, self.config.format, self.config.field.as_deref())?;
                let name = match location.as_local() {
                    Some(path) => path.strip_prefix(&self.base).unwrap_or(path).display().to_string(),
                    None => location.to_string(),
                };
                let file: Arc<str> = name.into();
                self.report.files.push(FileReport {
                    file: file.to_string(),
                    format: rows.format,
                    layout: self.config.layout,
                    rows: 0,
                });
                let mut config = self.config.clone();
                if rows.is_prompts {
                    config.columns = config.columns.or_of_prompts();
                }
                let mapped = Mapped::new(&config);
                self.current = Some(OpenFile { location, file, rows, layout: config.layout, config, mapped });
                continue;
            };
            let Some(item) = open.rows.next() else {
                open.mapped.check(&open.location)?;
                self.current = None;
                continue;
            };
            let item = item?;
            self.report.rows += 1;
            let entry = self.report.files.last_mut().expect("an open file has its report");
            entry.rows += 1;
            let outcome = match item {
                Item::Fault(fault) => Err(fault),
                Item::Row(mut row) => {
                    open.mapped.read(&mut row.columns);
                    if open.layout == Layout::Auto {
                        open.layout = Layout::detect(&row.columns);
                        entry.layout = open.layout;
                    }
                    draft(&row, open.layout, &open.config).map(|draft| (row, draft))
                }
            };
            match outcome {
                Ok((row, draft)) => {
                    let (file, is_prompts) = (Arc::clone(&open.file), open.rows.is_prompts);
                    return Ok(Some(Step::Prompt(Box::new(self.finish_row(row, draft, file, is_prompts)))));
                }
                Err(fault) if self.config.on_error == OnError::Stop => {
                    return Err(fault.into_error(Path::new(&open.location.to_string()), "source"));
                }
                Err(fault) => return Ok(Some(Step::Skipped(note(&mut self.report, &open.file, fault)))),
            }
        }
    }

    /// Nothing read at all is a fault of the recipe, not an empty dataset.
    fn finish(&self) -> Result<Option<Step>> {
        if self.report.rows == 0 {
            let mut error = Error::new("the source has no rows").hint("is this the right file?");
            if let Some(entry) = self.report.files.first() {
                error = error.in_file(self.base.join(&entry.file).display());
            }
            return Err(error);
        }
        Ok(None)
    }

    fn finish_row(&mut self, mut row: Row, draft: Draft, file: Arc<str>, is_prompts: bool) -> Imported {
        self.report.imported += 1;
        if let Some(id) = &draft.id {
            self.report.duplicate_ids += u64::from(!self.ids.insert(super::hash::hash_bytes(id.as_bytes(), 0)));
        }
        let gold = match draft.gold {
            Gold::Answer(text) => Some(text),
            Gold::Missing(reason) => {
                *self.report.gold_missing.entry(reason.to_owned()).or_default() += 1;
                None
            }
        };
        let mut messages = draft.messages;
        let asks_for = self.config.ask.as_ref().map(|ask| ask.values(&row.columns));
        let mut earlier = if is_prompts { earlier_extra(&mut row.columns, &self.config.extra) } else { None };
        // Other words take the place of those that an earlier import put around the question.
        if self.config.ask.is_some()
            && let Some(Value::String(bare)) = earlier.as_mut().and_then(|earlier| earlier.remove(BARE_QUESTION))
        {
            set_question(&mut messages, bare);
        }
        let domain =
            draft.domain.unwrap_or_else(|| domain_of(gold.as_deref(), draft.verification.as_deref()).to_owned());
        let mut prompt = Prompt {
            prompt_id: String::new(),
            messages,
            gold,
            solution: draft.solution,
            verification: draft.verification,
            domain,
            language: String::new(),
            difficulty: draft.difficulty,
            source: draft.source.unwrap_or_else(|| self.name.clone()),
            license: draft.license.or_else(|| self.config.license.clone()),
            extra: extra(row.columns, &draft.used, &self.config.extra, earlier),
        };
        let told = draft.language.or_else(|| self.config.language.as_deref().and_then(language::normalise_tag));
        prompt.language = told.unwrap_or_else(|| {
            // A last turn of a word ("And now?") is of the language that was spoken before.
            let last = language::detect(prompt.question());
            if last == "und" { language::detect(&asked(&prompt.messages)) } else { last }.to_owned()
        });
        let mut prompt = mint(prompt);
        if let (Some(ask), Some(values)) = (&self.config.ask, asks_for) {
            prompt = ask.around(prompt, &values);
        }
        Imported { prompt, file, place: row.place }
    }
}

impl Iterator for Importer {
    type Item = Result<Imported>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_step()? {
                Ok(Step::Prompt(imported)) => return Some(Ok(*imported)),
                Ok(Step::Skipped(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn note(report: &mut ImportReport, file: &str, fault: Fault) -> FaultPlace {
    *report.skipped.entry(fault.reason.to_owned()).or_default() += 1;
    let place = FaultPlace {
        file: file.to_owned(),
        row: fault.place.row,
        line: fault.place.line,
        reason: fault.reason.to_owned(),
        message: fault.message,
    };
    if report.places.len() < KEPT_PLACES {
        report.places.push(place.clone());
    }
    place
}

/// What the import that made a dataset of prompts kept, taken out of its row; the id is made anew.
fn earlier_extra(columns: &mut Map<String, Value>, keep: &Extra) -> Option<Map<String, Value>> {
    columns.remove("prompt_id");
    let mut kept = match columns.remove("extra")? {
        Value::String(text) => serde_json::from_str::<Map<String, Value>>(&text).ok()?,
        // Parsed already, on the way to a column that the recipe names in it.
        Value::Object(kept) => kept,
        _ => return None,
    };
    kept.retain(|name, _| match keep {
        _ if name == BARE_QUESTION => true,
        Extra::All(all) => *all,
        Extra::Only(names) => names.contains(name),
    });
    Some(kept)
}

/// The columns to keep, behind those that an earlier import kept.
fn extra(
    columns: Map<String, Value>,
    used: &[String],
    keep: &Extra,
    earlier: Option<Map<String, Value>>,
) -> Option<String> {
    let mut kept = earlier.unwrap_or_default();
    match keep {
        Extra::All(false) => {}
        Extra::All(true) => {
            kept.extend(columns.into_iter().filter(|(name, value)| !used.contains(name) && !value.is_null()));
        }
        Extra::Only(names) => kept.extend(columns.into_iter().filter(|(name, _)| names.contains(name))),
    }
    (!kept.is_empty()).then(|| Value::Object(kept).to_string())
}

/// A file's name without its extensions.
fn stem(name: &str) -> String {
    match name.find('.') {
        Some(dot) if dot > 0 => name[..dot].to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
