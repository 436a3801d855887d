//! The columns that a recipe names: a file in which one is nowhere has another layout, or the name is a slip.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::prompts::column_ref::ColumnRef;
use crate::prompts::source::SourceConfig;
use crate::recipe::suggest;
use crate::store::Location;
use crate::{Error, Result};

/// Column names kept for the hint, at most.
const NAMES: usize = 100;

/// Which named columns one file has.
pub(super) struct Mapped {
    /// Key, column, whether a row had it.
    columns: Vec<(&'static str, ColumnRef, bool)>,
    rows: u64,
    names: BTreeSet<String>,
}

impl Mapped {
    pub(super) fn new(config: &SourceConfig) -> Mapped {
        let asked = config.ask.iter().flat_map(|ask| ask.columns().map(|column| ("ask", column)));
        let columns = config.columns.entries().chain(asked).map(|(key, column)| (key, column.clone(), false)).collect();
        Mapped { columns, rows: 0, names: BTreeSet::new() }
    }

    /// Takes note of a row, and parses what stands as JSON text on the way to a named column.
    pub(super) fn read(&mut self, row: &mut Map<String, Value>) {
        if self.columns.is_empty() {
            return;
        }
        self.rows += 1;
        let mut missing = false;
        for (_, column, seen) in &mut self.columns {
            column.unpack(row);
            *seen = *seen || column.is_in(row);
            missing |= !*seen;
        }
        if missing && self.names.len() < NAMES {
            self.names.extend(row.iter().flat_map(|(name, value)| {
                let inner = value.as_object().into_iter().flatten();
                std::iter::once(name.clone()).chain(inner.map(move |(part, _)| format!("{name}.{part}")))
            }));
        }
    }

    /// # Errors
    /// No row of the file has a column that the recipe names.
    pub(super) fn check(&self, file: &Location) -> Result<()> {
        let Some((key, column, _)) = self.columns.iter().find(|(_, _, seen)| !seen).filter(|_| self.rows > 0) else {
            return Ok(());
        };
        let name = column.to_string();
        let key = if *key == "ask" { (*key).to_owned() } else { format!("columns.{key}") };
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        Err(Error::usage(format!("no row of this file has the column `{name}` that `{key}` names"))
            .in_file(file)
            .hint(suggest(&name, &names)))
    }
}
