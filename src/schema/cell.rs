//! Cells: how one Rust value lies in an Arrow column, and how it is read back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float32Builder, Float64Array, ListArray, ListBuilder, StringArray, StringBuilder,
    StructArray, UInt32Array, UInt32Builder, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, UInt32Type, UInt64Type};

use super::{ColumnType, FinishReason, Message, Outcome, Role, Score};
use crate::error::Error;

/// A value a row may hold: its column type and the way to Arrow and back.
pub trait Cell: Sized {
    /// Its type in the column table.
    const TYPE: ColumnType;
    /// Whether null is a value of it: true of `Option` alone.
    const NULLABLE: bool;

    /// The cells as an array of exactly [`ColumnType::arrow`]'s type.
    fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef;

    /// Bytes of its data, as they count towards the size of a piece of rows; an offset is 4.
    fn bytes(&self) -> usize;

    /// The cells of an array of exactly that type, without nulls unless nullable.
    ///
    /// # Errors
    /// The first row whose value is none of the type, such as a word that nobody knows.
    fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault>;
}

/// Bytes of an offset: where a text or a list ends.
const OFFSET: usize = size_of::<i32>();

fn text_bytes(text: &str) -> usize {
    OFFSET + text.len()
}

/// What is wrong with one value of a column.
#[derive(Debug)]
pub struct Fault {
    /// Zero-based row within the batch.
    pub row: usize,
    /// For people, without the place.
    pub what: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Fault {
    pub(super) fn new(row: usize, what: impl Into<String>) -> Self {
        Fault { row, what: what.into(), hint: None }
    }

    /// The error for people; `first_row` is the batch's first row in the file.
    pub(super) fn into_error(self, file: &str, column: &str, first_row: u64) -> Error {
        let mut error = Error::new(self.what).at_row(first_row + self.row as u64).in_field(column);
        if !file.is_empty() {
            error = error.in_file(file);
        }
        if let Some(hint) = self.hint {
            error = error.hint(hint);
        }
        error
    }
}

impl Cell for String {
    const TYPE: ColumnType = ColumnType::Text;
    const NULLABLE: bool = false;

    fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(cells))
    }

    fn bytes(&self) -> usize {
        text_bytes(self)
    }

    fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
        let array = array.as_string::<i32>();
        Ok((0..array.len()).map(|row| array.value(row).to_owned()).collect())
    }
}

impl Cell for Option<String> {
    const TYPE: ColumnType = ColumnType::Text;
    const NULLABLE: bool = true;

    fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
        Arc::new(cells.map(|cell| cell.as_deref()).collect::<StringArray>())
    }

    fn bytes(&self) -> usize {
        text_bytes(self.as_deref().unwrap_or_default())
    }

    fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
        Ok(array.as_string::<i32>().iter().map(|cell| cell.map(str::to_owned)).collect())
    }
}

/// Numbers, plain and nullable.
macro_rules! number_cell {
    ($rust:ty, $column_type:ident, $array:ty, $arrow:ty) => {
        impl Cell for $rust {
            const TYPE: ColumnType = ColumnType::$column_type;
            const NULLABLE: bool = false;

            fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
                Arc::new(<$array>::from_iter_values(cells.copied()))
            }

            fn bytes(&self) -> usize {
                size_of::<$rust>()
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
                Ok(array.as_primitive::<$arrow>().values().to_vec())
            }
        }

        impl Cell for Option<$rust> {
            const TYPE: ColumnType = ColumnType::$column_type;
            const NULLABLE: bool = true;

            fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
                Arc::new(cells.copied().collect::<$array>())
            }

            fn bytes(&self) -> usize {
                size_of::<$rust>()
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
                Ok(array.as_primitive::<$arrow>().iter().collect())
            }
        }
    };
}

number_cell!(u32, U32, UInt32Array, UInt32Type);
number_cell!(u64, U64, UInt64Array, UInt64Type);
number_cell!(f64, F64, Float64Array, Float64Type);

/// Numbers of each token; null where the engine does not tell.
macro_rules! token_cell {
    ($item:ty, $column:ident, $builder:ident, $arrow:ident, $data:ident) => {
        impl Cell for Option<Vec<$item>> {
            const TYPE: ColumnType = ColumnType::$column;
            const NULLABLE: bool = true;

            fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
                let mut builder = ListBuilder::new($builder::new()).with_field(ColumnType::item(DataType::$data));
                for cell in cells {
                    if let Some(items) = cell {
                        builder.values().append_slice(items);
                    }
                    builder.append(cell.is_some());
                }
                Arc::new(builder.finish())
            }

            fn bytes(&self) -> usize {
                OFFSET + size_of_val(self.as_deref().unwrap_or_default())
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
                let read = |list: ArrayRef| list.as_primitive::<$arrow>().values().to_vec();
                Ok(array.as_list::<i32>().iter().map(|cell| cell.map(read)).collect())
            }
        }
    };
}

token_cell!(u32, TokenIds, UInt32Builder, UInt32Type, UInt32);
token_cell!(f32, Logprobs, Float32Builder, Float32Type, Float32);

impl Cell for Vec<Message> {
    const TYPE: ColumnType = ColumnType::Messages;
    const NULLABLE: bool = false;

    fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
        let (mut roles, mut contents, mut lengths) = (StringBuilder::new(), StringBuilder::new(), Vec::new());
        for messages in cells {
            lengths.push(messages.len());
            for message in messages {
                roles.append_value(message.role.as_str());
                contents.append_value(&message.content);
            }
        }
        list_of_structs(ColumnType::Messages, lengths, vec![Arc::new(roles.finish()), Arc::new(contents.finish())])
    }

    fn bytes(&self) -> usize {
        let turn = |turn: &Message| text_bytes(turn.role.as_str()) + text_bytes(&turn.content);
        OFFSET + self.iter().map(turn).sum::<usize>()
    }

    fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
        let list = array.as_list::<i32>();
        let item = list.values().as_struct();
        let (roles, contents) = (item.column(0).as_string::<i32>(), item.column(1).as_string::<i32>());
        read_list(list, |row, i| {
            let role = Role::parse(roles.value(i)).ok_or_else(|| {
                unknown_word(row, "role", roles.value(i), Role::ALL.iter().map(|role| role.as_str()).collect())
            })?;
            Ok(Message { role, content: contents.value(i).to_owned() })
        })
    }
}

impl Cell for Vec<Score> {
    const TYPE: ColumnType = ColumnType::Scores;
    const NULLABLE: bool = false;

    fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
        let (mut rules, mut outcomes) = (StringBuilder::new(), StringBuilder::new());
        let (mut reasons, mut evidence) = (StringBuilder::new(), StringBuilder::new());
        let mut scores = arrow::array::Float64Builder::new();
        let mut lengths = Vec::new();
        for row in cells {
            lengths.push(row.len());
            for score in row {
                rules.append_value(&score.rule);
                scores.append_option(score.score);
                outcomes.append_value(score.outcome.as_str());
                reasons.append_value(&score.reason);
                evidence.append_option(score.evidence.as_deref());
            }
        }
        let fields: Vec<ArrayRef> = vec![
            Arc::new(rules.finish()),
            Arc::new(scores.finish()),
            Arc::new(outcomes.finish()),
            Arc::new(reasons.finish()),
            Arc::new(evidence.finish()),
        ];
        list_of_structs(ColumnType::Scores, lengths, fields)
    }

    fn bytes(&self) -> usize {
        let score = |score: &Score| {
            score.rule.bytes()
                + score.score.bytes()
                + score.outcome.bytes()
                + score.reason.bytes()
                + score.evidence.bytes()
        };
        OFFSET + self.iter().map(score).sum::<usize>()
    }

    fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
        let list = array.as_list::<i32>();
        let item = list.values().as_struct();
        let text = |column: usize| item.column(column).as_string::<i32>();
        let (rules, outcomes, reasons, evidence) = (text(0), text(2), text(3), text(4));
        let scores = item.column(1).as_primitive::<Float64Type>();
        read_list(list, |row, i| {
            Ok(Score {
                rule: rules.value(i).to_owned(),
                score: scores.is_valid(i).then(|| scores.value(i)),
                outcome: Outcome::in_row(row, outcomes.value(i))?,
                reason: reasons.value(i).to_owned(),
                evidence: evidence.is_valid(i).then(|| evidence.value(i).to_owned()),
            })
        })
    }
}

/// The cells of an enum whose values are words.
macro_rules! word_cell {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The value of a word in that row, or what is wrong with it.
            fn in_row(row: usize, word: &str) -> Result<Self, Fault> {
                let known = || $name::ALL.iter().map(|value| value.as_str()).collect();
                $name::parse(word).ok_or_else(|| unknown_word(row, $what, word, known()))
            }
        }

        impl Cell for $name {
            const TYPE: ColumnType = ColumnType::Text;
            const NULLABLE: bool = false;

            fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
                Arc::new(StringArray::from_iter_values(cells.map(|cell| cell.as_str())))
            }

            fn bytes(&self) -> usize {
                text_bytes(self.as_str())
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
                let array = array.as_string::<i32>();
                (0..array.len()).map(|row| $name::in_row(row, array.value(row))).collect()
            }
        }
    };
}

word_cell!(FinishReason, "finish reason");
word_cell!(Outcome, "outcome");

fn unknown_word(row: usize, what: &str, word: &str, known: Vec<&str>) -> Fault {
    let hint = format!("one of {}", known.join(", "));
    Fault { row, what: format!("`{word}` is no {what}"), hint: Some(hint) }
}

fn list_of_structs(column_type: ColumnType, lengths: Vec<usize>, arrays: Vec<ArrayRef>) -> ArrayRef {
    let DataType::List(item) = column_type.arrow() else { unreachable!("lists of structs are lists") };
    let DataType::Struct(fields) = item.data_type() else { unreachable!("their items are structs") };
    let values = StructArray::new(fields.clone(), arrays, None);
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(values), None))
}

fn read_list<T>(list: &ListArray, read: impl Fn(usize, usize) -> Result<T, Fault>) -> Result<Vec<Vec<T>>, Fault> {
    let offsets = list.value_offsets();
    (0..list.len())
        .map(|row| (offsets[row] as usize..offsets[row + 1] as usize).map(|i| read(row, i)).collect())
        .collect()
}
