//! Which datasets a run holds, told by their columns, and how polars reads them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use polars::prelude::{
    AnyValue, DataFrame, DataType, IntoLazy, LazyFrame, PlRefPath, PolarsError, PolarsResult, ScanArgsParquet,
};

use super::run::Run;
use crate::error::{Error, Result};
use crate::stage::pending_rollouts;
use crate::store::{Dataset, Location};

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Claims,
    Evaluations,
    Metrics,
    Groups,
    Verdicts,
    Completions,
    Corpus,
    Prompts,
}

/// Parquet files of one folder that hold the same thing.
#[derive(Clone, Debug)]
pub struct Table {
    /// The stage's name; empty for files beside the stage folders.
    pub stage: String,
    /// The stage's kind.
    pub kind: String,
    pub class: Class,
    files: Vec<PathBuf>,
    columns: Vec<(String, DataType)>,
}

/// The tables of a run, in the order of its stages.
#[derive(Debug, Default)]
pub struct Catalog {
    pub tables: Vec<Table>,
}

impl Catalog {
    /// Looks at every Parquet file of the run's folder, its stage folders and their folders. Only
    /// footers are read. A file that has none is a note.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn of(run: &Run, notes: &mut Vec<String>) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        catalog.add(&run.folder, "", "", notes)?;
        for stage in &run.stages {
            catalog.add(&stage.path, &stage.name, stage.kind(), notes)?;
            let entries = Location::from(stage.path.as_path()).list()?;
            for entry in entries.into_iter().filter(|entry| entry.is_folder && !entry.name.starts_with('_')) {
                catalog.add(&stage.path.join(entry.name), &stage.name, stage.kind(), notes)?;
            }
            // Shards are written when they are full, which may be hours after the first rollouts.
            let pending = if stage.manifest.is_none() { pending_rollouts(&stage.path) } else { Ok(None) };
            if let Some(Some(file)) = super::noted(pending, notes) {
                let first = catalog.tables.iter().position(|table| table.stage == stage.name);
                catalog.add_file(file, first, &stage.name, stage.kind(), notes);
            }
        }
        Ok(catalog)
    }

    fn add(&mut self, folder: &Path, stage: &str, kind: &str, notes: &mut Vec<String>) -> Result<()> {
        let first = self.tables.len();
        let entries = Location::from(folder).list()?;
        for entry in entries.into_iter().filter(|entry| !entry.is_folder && entry.name.ends_with(".parquet")) {
            self.add_file(folder.join(entry.name), Some(first), stage, kind, notes);
        }
        Ok(())
    }

    /// Adds a file to the table of the same columns from the `first` on, or as a table of its own.
    fn add_file(&mut self, file: PathBuf, first: Option<usize>, stage: &str, kind: &str, notes: &mut Vec<String>) {
        let Some(columns) = super::noted(columns_of(&file), notes) else { return };
        let Some(class) = class_of(&columns) else { return };
        let first = first.unwrap_or(self.tables.len());
        match self.tables[first..].iter_mut().find(|table| table.class == class && table.columns == columns) {
            Some(table) => table.files.push(file),
            None => self.tables.push(Table {
                stage: stage.to_owned(),
                kind: kind.to_owned(),
                class,
                files: vec![file],
                columns,
            }),
        }
    }

    /// The tables of a class.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(move |table| table.class == class)
    }

    /// The rollouts that a training stage scored itself.
    pub fn rollouts(&self) -> impl Iterator<Item = &Table> {
        let data_plane = ["group", "select", "export"];
        self.of_class(Class::Groups).filter(move |table| !data_plane.contains(&table.kind.as_str()))
    }
}

/// The class that the columns tell, whoever wrote them.
fn class_of(columns: &[(String, DataType)]) -> Option<Class> {
    let has = |wanted: &[&str]| wanted.iter().all(|name| columns.iter().any(|(column, _)| column == name));
    let by_columns: [(Class, &[&str]); 8] = [
        (Class::Claims, &["claim", "holds"]),
        (Class::Evaluations, &["model", "slice", "pass_at_1"]),
        (Class::Groups, &["prompt_id", "reward", "advantage"]),
        (Class::Verdicts, &["prompt_id", "scores", "reward"]),
        (Class::Completions, &["prompt_id", "text", "finish_reason"]),
        (Class::Corpus, &["messages", "answer", "track"]),
        (Class::Prompts, &["prompt_id", "messages", "gold"]),
        (Class::Metrics, &["step"]),
    ];
    by_columns.into_iter().find(|(_, columns)| has(columns)).map(|(class, _)| class)
}

fn columns_of(file: &Path) -> Result<Vec<(String, DataType)>> {
    let schema = scan(std::slice::from_ref(&file.to_owned()))
        .and_then(|mut frame| frame.collect_schema())
        .map_err(|e| failed(file, e))?;
    Ok(schema.iter().map(|(name, dtype)| (name.to_string(), dtype.clone())).collect())
}

fn scan(files: &[PathBuf]) -> PolarsResult<LazyFrame> {
    let paths: PolarsResult<Vec<PlRefPath>> = files.iter().map(|file| PlRefPath::try_from_path(file)).collect();
    // Paths are names, not patterns.
    let args = ScanArgsParquet { glob: false, ..ScanArgsParquet::default() };
    LazyFrame::scan_parquet_files(paths?.into(), args)
}

fn failed(file: &Path, error: PolarsError) -> Error {
    let reason = error.to_string();
    let reason = reason.lines().next().unwrap_or("unknown");
    Error::new(format!("the dataset cannot be read: {reason}")).in_file(file.display())
}

impl Table {
    /// Whether it has the column.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == column)
    }

    /// Columns of numbers, in their order.
    pub fn numbers(&self) -> impl Iterator<Item = &str> {
        let numeric = |dtype: &DataType| dtype.is_primitive_numeric() || *dtype == DataType::Boolean;
        self.columns.iter().filter(move |(_, dtype)| numeric(dtype)).map(|(name, _)| name.as_str())
    }

    /// Runs a query over the table.
    ///
    /// # Errors
    /// A file cannot be read, or a column has a type the query cannot work with.
    pub fn query(&self, query: impl FnOnce(LazyFrame) -> LazyFrame) -> Result<DataFrame> {
        scan(&self.files).and_then(|frame| query(frame).collect()).map_err(|e| failed(&self.files[0], e))
    }

    /// Runs a query over so many rows of the table at a time as keep memory small, and stacks what it
    /// gives; it reads the `columns` alone. The query also gets the first of its rows: the query of a sum
    /// gives a part of it each time.
    ///
    /// # Errors
    /// As [`Table::query`].
    pub fn query_by_parts(&self, columns: &[&str], query: impl Fn(LazyFrame, u32) -> LazyFrame) -> Result<DataFrame> {
        let mut stacked: Option<DataFrame> = None;
        let mut first = 0;
        for file in &self.files {
            for rows in parts(file, columns)? {
                let of_part = |frame: LazyFrame| query(frame.slice(rows.start.into(), rows.end - rows.start), first);
                let part = scan(std::slice::from_ref(file)).and_then(|frame| of_part(frame).collect());
                let part = part.map_err(|e| failed(file, e))?;
                match &mut stacked {
                    Some(stacked) => drop(stacked.vstack_mut(&part).map_err(|e| failed(file, e))?),
                    None => stacked = Some(part),
                }
                first += rows.end - rows.start;
            }
        }
        match stacked {
            Some(stacked) => Ok(stacked),
            // No file has a row; what the query makes of none.
            None => self.query(|frame| query(frame.limit(0), 0)),
        }
    }

    /// The table, for a query over several.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn scan(&self) -> Result<LazyFrame> {
        scan(&self.files).map_err(|e| failed(&self.files[0], e))
    }

    /// Runs a query over what one of this table gave.
    ///
    /// # Errors
    /// A column has a type the query cannot work with.
    pub fn of_rows(&self, rows: &DataFrame, query: impl FnOnce(LazyFrame) -> LazyFrame) -> Result<DataFrame> {
        query(rows.clone().lazy()).collect().map_err(|e| failed(&self.files[0], e))
    }

    /// Runs a query over some rows of the table.
    ///
    /// # Errors
    /// As [`Table::query`].
    pub fn query_rows(&self, rows: Range<u32>, query: impl FnOnce(LazyFrame) -> LazyFrame) -> Result<DataFrame> {
        self.query(|frame| query(frame.slice(rows.start.into(), rows.end - rows.start)))
    }
}

/// What a part of a table may hold, decoded.
const PART_BYTES: u64 = 64 << 20;

/// The rows of a file, cut into parts by what its footer says of the columns' sizes.
fn parts(file: &Path, columns: &[&str]) -> Result<Vec<Range<u32>>> {
    let dataset = Dataset::open(&file.into())?;
    let mut parts: Vec<Range<u32>> = Vec::new();
    let (mut first, mut held) = (0u32, 0);
    for group in dataset.shards()[0].parquet_metadata()?.row_groups() {
        let of_columns = group
            .columns()
            .iter()
            .filter(|column| column.column_path().parts().first().is_some_and(|root| columns.contains(&root.as_str())));
        let bytes: u64 = of_columns.map(|column| column.uncompressed_size().max(0) as u64).sum();
        let rows = group.num_rows().max(0) as u32;
        match parts.last_mut() {
            Some(part) if held + bytes <= PART_BYTES => {
                part.end += rows;
                held += bytes;
            }
            // A group that is too long itself is read in several goes.
            _ => {
                let goes = bytes.div_ceil(PART_BYTES).clamp(1, u64::from(rows.max(1))) as u32;
                let at = |go: u32| first + (u64::from(rows) * u64::from(go) / u64::from(goes)) as u32;
                parts.extend((0..goes).map(|go| at(go)..at(go + 1)));
                held = if goes == 1 { bytes } else { PART_BYTES };
            }
        }
        first += rows;
    }
    Ok(parts)
}

/// Typed looks at a query's result; a column that is not there, or of another type, is all null.
pub trait FrameExt {
    fn texts(&self, column: &str) -> Vec<Option<String>>;
    fn floats(&self, column: &str) -> Vec<Option<f64>>;
    fn counts(&self, column: &str) -> Vec<Option<u64>>;
    fn flags(&self, column: &str) -> Vec<Option<bool>>;
}

fn values<T>(frame: &DataFrame, column: &str, get: impl Fn(AnyValue) -> Option<T>) -> Vec<Option<T>> {
    let found = frame.column(column).ok();
    (0..frame.height()).map(|row| get(found?.get(row).ok()?)).collect()
}

impl FrameExt for DataFrame {
    fn texts(&self, column: &str) -> Vec<Option<String>> {
        values(self, column, |value| value.get_str().map(str::to_owned))
    }

    /// What is not finite is null.
    fn floats(&self, column: &str) -> Vec<Option<f64>> {
        values(self, column, |value| value.extract::<f64>().filter(|x| x.is_finite()))
    }

    fn counts(&self, column: &str) -> Vec<Option<u64>> {
        values(self, column, |value| value.extract::<u64>())
    }

    fn flags(&self, column: &str) -> Vec<Option<bool>> {
        values(self, column, |value| match value {
            AnyValue::Boolean(flag) => Some(flag),
            _ => None,
        })
    }
}
