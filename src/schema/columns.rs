//! What a column is: name, type, nullability, meaning; and the datasets made of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};

use super::{Cell, Completion, CorpusRow, Fault, GroupRow, Preference, Prompt, Row, VerdictRow};
use crate::words::words;

words! {
    /// The datasets that stages exchange, in flow order, by the words in manifests, file metadata and recipes.
    #[derive(PartialOrd, Ord)]
    pub enum DatasetKind {
        /// [`Prompt`]: questions with their golds, as `prompts` writes them.
        Prompts = "prompts",
        /// [`Completion`]: sampled answers, as `generate` writes them.
        Completions = "completions",
        /// [`VerdictRow`]: what rules say of each completion, as `verify` writes them.
        Verdicts = "verdicts",
        /// [`GroupRow`]: completions by prompt, with rewards and advantages, as `group` and `select` write them.
        Groups = "groups",
        /// [`CorpusRow`]: conversations to train on, as `corpus` and `base_text` write them.
        Corpus = "corpus",
        /// [`Preference`]: pairs of a better and a worse answer, as `preferences` writes them.
        Preferences = "preferences",
    }
}

/// The types a column may have; each maps to one Arrow type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// utf8
    Text,
    /// uint32
    U32,
    /// uint64
    U64,
    /// float64
    F64,
    /// list<uint32>
    TokenIds,
    /// list<float32>
    Logprobs,
    /// list<struct<role: utf8, content: utf8>>
    Messages,
    /// list<struct<rule: utf8, score: float64?, outcome: utf8, reason: utf8, evidence: utf8?>>
    Scores,
}

/// How a column's values repeat, which is how a file is laid out best for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Many rows have the same, as with words and figures.
    Repeated,
    /// No two rows have the same, and people look for one.
    Unique,
    /// Running text.
    Prose,
}

/// One column of a dataset.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Part of the contract: another name is another version.
    pub name: &'static str,
    /// Physically different but equal types are cast to it when a file is read.
    pub column_type: ColumnType,
    /// Whether null is allowed; where it is not, a null is an error with file and row.
    pub nullable: bool,
    /// How its values repeat; of lists it says nothing.
    pub values: Values,
    /// The version of the contract that added it. A column that a later one than the first added reads as null in files
    /// that lack it.
    pub since: u32,
    /// What it means, its unit, who writes it, what null means. As the doc comment
    /// has it; [`Column::doc`] is the tidy form.
    pub doc: &'static str,
    /// [`Cell::conform`](super::Cell::conform) of its cells.
    pub(super) conform: Conform,
}

/// Brings an array of a column's Arrow type to what readers of the column rely on.
pub(super) type Conform = fn(ArrayRef) -> Result<ArrayRef, Fault>;

impl Column {
    /// A column with cells of that type, whose values repeat, in the contract from the start.
    pub(super) const fn of<C: Cell>(name: &'static str, doc: &'static str) -> Column {
        Column {
            name,
            column_type: C::TYPE,
            nullable: C::NULLABLE,
            values: Values::Repeated,
            since: 1,
            doc,
            conform: C::conform,
        }
    }

    /// It holds running text.
    pub(super) const fn prose(self) -> Column {
        Column { values: Values::Prose, ..self }
    }

    /// No two rows have the same value.
    pub(super) const fn unique(self) -> Column {
        Column { values: Values::Unique, ..self }
    }

    /// That version of the contract added it.
    pub(super) const fn since(self, version: u32) -> Column {
        assert!(self.nullable, "what earlier files lack reads as null");
        Column { since: version, ..self }
    }

    /// Whether files of an earlier version lack it, where it reads as null.
    pub(super) fn came_later(&self) -> bool {
        self.since > 1
    }

    /// The documentation on one line.
    pub fn doc(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The Arrow field.
    pub fn field(&self) -> Field {
        Field::new(self.name, self.column_type.arrow(), self.nullable)
    }
}

/// Schema metadata key that names the dataset kind in a file.
pub const SCHEMA_KEY: &str = "gristmill.schema";
/// Schema metadata key of the contract's version.
pub const VERSION_KEY: &str = "gristmill.version";

impl DatasetKind {
    /// Its columns, in file order.
    pub fn columns(self) -> &'static [Column] {
        match self {
            DatasetKind::Prompts => Prompt::columns(),
            DatasetKind::Completions => Completion::columns(),
            DatasetKind::Verdicts => VerdictRow::columns(),
            DatasetKind::Groups => GroupRow::columns(),
            DatasetKind::Corpus => CorpusRow::columns(),
            DatasetKind::Preferences => Preference::columns(),
        }
    }

    /// The column of that name.
    pub fn column(self, name: &str) -> Option<&'static Column> {
        self.columns().iter().find(|column| column.name == name)
    }

    /// The contract's version, raised when a column changes its meaning or type, or is added or removed.
    pub fn version(self) -> u32 {
        match self {
            DatasetKind::Preferences => 2,
            _ => 1,
        }
    }

    /// The Arrow schema, with `gristmill.schema` and `gristmill.version` as metadata.
    pub fn arrow(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 6]> = LazyLock::new(|| {
            DatasetKind::ALL.map(|kind| {
                let fields: Vec<Field> = kind.columns().iter().map(Column::field).collect();
                Arc::new(Schema::new_with_metadata(fields, kind.metadata()))
            })
        });
        SCHEMAS[self as usize].clone()
    }

    /// The schema metadata of files of this kind.
    pub(crate) fn metadata(self) -> HashMap<String, String> {
        HashMap::from([
            (SCHEMA_KEY.to_owned(), self.as_str().to_owned()),
            (VERSION_KEY.to_owned(), self.version().to_string()),
        ])
    }
}

impl ColumnType {
    /// The one Arrow type a conformed batch has for it.
    pub fn arrow(self) -> DataType {
        let text = |name: &str, nullable: bool| Field::new(name, DataType::Utf8, nullable);
        let list = |item: DataType| DataType::List(ColumnType::item(item));
        match self {
            ColumnType::Text => DataType::Utf8,
            ColumnType::U32 => DataType::UInt32,
            ColumnType::U64 => DataType::UInt64,
            ColumnType::F64 => DataType::Float64,
            ColumnType::TokenIds => list(DataType::UInt32),
            ColumnType::Logprobs => list(DataType::Float32),
            ColumnType::Messages => {
                list(DataType::Struct(Fields::from(vec![text("role", false), text("content", false)])))
            }
            ColumnType::Scores => list(DataType::Struct(Fields::from(vec![
                text("rule", false),
                Field::new("score", DataType::Float64, true),
                text("outcome", false),
                text("reason", false),
                text("evidence", true),
            ]))),
        }
    }

    /// The field of a list's items: named as the Parquet specification names it, never null.
    pub(super) fn item(data_type: DataType) -> FieldRef {
        Arc::new(Field::new("element", data_type, false))
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnType::Text => "text",
            ColumnType::U32 => "uint32",
            ColumnType::U64 => "uint64",
            ColumnType::F64 => "float64",
            ColumnType::TokenIds => "list<uint32>",
            ColumnType::Logprobs => "list<float32>",
            ColumnType::Messages => "list<struct<role: text, content: text>>",
            ColumnType::Scores => {
                "list<struct<rule: text, score: float64?, outcome: text, reason: text, evidence: text?>>"
            }
        })
    }
}

impl fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
