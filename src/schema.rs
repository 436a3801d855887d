//! The contract between stages: the columns of every dataset, with versions.
//!
//! Each dataset kind has a file here with its columns (name, type, whether null
//! is allowed, what it means and who writes it), the row struct the stages work
//! with, and the conversion between the two. Every read checks the columns of
//! the file against this contract, see [`DatasetKind::check`].

mod columns;
mod completion;
mod corpus;
mod group;
mod preference;
mod prompt;
mod verdict;

pub use columns::{Column, ColumnType, DatasetKind};
pub use completion::{Completion, FinishReason};
pub use corpus::CorpusRow;
pub use group::GroupRow;
pub use preference::Preference;
pub use prompt::{Message, Prompt, Role};
pub use verdict::{Outcome, Score, VerdictRow};
