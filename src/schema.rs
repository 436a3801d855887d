//! The contract between stages: the columns of every dataset, with versions.
//!
//! Each dataset kind has a file here with its row struct; the column table
//! (name, type, whether null is allowed, what it means and who writes it) and
//! the conversions to and from Arrow derive from it. Every read checks the
//! columns of the file against this contract, see [`DatasetKind::check`].

mod batch;
mod cell;
mod columns;
mod completion;
mod conform;
mod corpus;
mod group;
mod preference;
mod prompt;
mod row;
mod verdict;
mod word;

pub use batch::BatchExt;
pub use cell::{Cell, Fault};
pub use columns::{Column, ColumnType, DatasetKind, SCHEMA_KEY, VERSION_KEY, Values};
pub use completion::{Completion, FinishReason};
pub use conform::Projection;
pub use corpus::CorpusRow;
pub use group::GroupRow;
pub use preference::Preference;
pub use prompt::{BARE_QUESTION, Message, Prompt, REASONING_FIELDS, Role, question, set_question};
pub use row::Row;
pub use verdict::{Outcome, Score, VerdictRow};

#[cfg(test)]
#[path = "schema/tests.rs"]
mod tests;

#[cfg(test)]
mod golden;
