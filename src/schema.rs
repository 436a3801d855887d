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

pub use batch::BatchExt;
pub use cell::{Cell, Fault};
pub use columns::{Column, ColumnType, DatasetKind, SCHEMA_KEY, VERSION_KEY};
pub use completion::{Completion, FinishReason};
pub use conform::Projection;
pub use corpus::CorpusRow;
pub use group::GroupRow;
pub use preference::Preference;
pub use prompt::{Message, Prompt, REASONING_FIELDS, Role, question};
pub use row::Row;
pub(crate) use row::read_cells;
pub use verdict::{Outcome, Score, VerdictRow};

/// The words an enum has in text columns.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal $(| $other:literal)*),+ $(,)? }) => {
        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word in datasets.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }

            /// The value of that word, or of another that programs have for it.
            pub fn parse(word: &str) -> Option<$name> {
                match word { $($word $(| $other)* => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

words!(Role { System = "system" | "developer", User = "user", Assistant = "assistant", Tool = "tool" });
words!(FinishReason { Stop = "stop", Length = "length", Error = "error", Unknown = "unknown" });
words!(Outcome { Correct = "correct", Wrong = "wrong", CannotTell = "cannot_tell" });

#[cfg(test)]
#[path = "schema/tests.rs"]
mod tests;

#[cfg(test)]
mod golden;
