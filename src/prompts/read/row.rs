//! What a reader yields: rows, and the faults of rows that cannot be read.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// One row of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its row, and its line in a text file.
    pub place: Place,
    /// By name, as JSON: of CSV and TSV all text, and null where the cell is empty.
    pub columns: Map<String, Value>,
}

/// Where in its file a row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// 0-based.
    pub row: u64,
    /// 1-based line of a text file where the row starts; `None` for Parquet.
    pub line: Option<usize>,
}

/// What is wrong with one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Its row, and its line in a text file.
    pub place: Place,
    /// 1-based, in characters, where known.
    pub column: Option<usize>,
    /// The column at fault; `None` if the row is as a whole.
    pub field: Option<String>,
    /// A short, stable code, counted by the import report: `bad_json`, `invalid_utf8`, `missing_prompt` …
    pub reason: &'static str,
    /// For people, without the place.
    pub message: String,
    /// Boxed: a fault travels in every row's `Result`.
    pub hint: Option<Box<str>>,
}

impl Fault {
    pub(in crate::prompts) fn new(place: Place, reason: &'static str, message: impl Into<String>) -> Self {
        Fault { place, column: None, field: None, reason, message: message.into(), hint: None }
    }

    pub(in crate::prompts) fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    pub(in crate::prompts) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into_boxed_str());
        self
    }

    /// The fault as an error that stops the stage; `reader` is the table of the recipe that names the file.
    pub fn into_error(self, file: &Path, reader: &str) -> Error {
        let mut error = Error::new(self.message).in_file(file.display());
        error = match self.place.line {
            Some(line) => error.at_line(line, self.column),
            None => error.at_row(self.place.row),
        };
        if let Some(field) = self.field {
            error = error.in_field(field);
        }
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        error.hint(format!("`on_error = \"skip\"` in the {reader} leaves such rows out and counts them"))
    }
}

/// One step of reading.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A row as JSON, whatever the file's format.
    Row(Row),
    /// A row that cannot be read; what follows it can be.
    Fault(Fault),
}
