//! Words: columns of text that hold one of a few words, each a value of an enum.
//!
//! A word that nobody knows is an error where a file is read, with its row, and another program's word for a value is
//! read as ours. So whoever reads a batch finds the contract's words, as text or as values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;

use super::cell::{Fault, text_bytes};
use super::{Cell, ColumnType, FinishReason, Outcome, Role};

/// An enum whose values are words in a column.
pub(super) trait Word: Copy + 'static {
    /// What a value is called, in errors.
    const NOUN: &'static str;

    /// The words of all values, as datasets have them.
    fn known() -> Vec<&'static str>;

    /// The word in datasets.
    fn as_str(self) -> &'static str;

    /// The value of that word, or of another that programs have for it.
    fn parse(word: &str) -> Option<Self>;
}

/// The value of the word of that row.
///
/// # Errors
/// Nobody knows the word.
pub(super) fn parse_word<W: Word>(row: usize, word: &str) -> Result<W, Fault> {
    W::parse(word).ok_or_else(|| {
        let hint = format!("one of {}", W::known().join(", "));
        Fault { hint: Some(hint), ..Fault::new(row, format!("`{word}` is no {}", W::NOUN)) }
    })
}

/// The same column in our words; the same buffers where it has no others.
///
/// # Errors
/// The first row whose word nobody knows.
fn in_our_words<W: Word>(array: ArrayRef) -> Result<ArrayRef, Fault> {
    let words = array.as_string::<i32>();
    let mut others = false;
    for row in (0..words.len()).filter(|&row| words.is_valid(row)) {
        let word = words.value(row);
        others |= parse_word::<W>(row, word)?.as_str() != word;
    }
    if !others {
        return Ok(array);
    }
    let ours = |word: Option<&str>| word.and_then(W::parse).map(W::as_str);
    Ok(Arc::new(words.iter().map(ours).collect::<StringArray>()))
}

/// A list of structs whose field of that number is in our words; `item` is what people call one of them.
///
/// # Errors
/// The first row of the list with a word that nobody knows.
pub(super) fn field_in_our_words<W: Word>(array: ArrayRef, field: usize, item: &str) -> Result<ArrayRef, Fault> {
    let list = array.as_list::<i32>();
    let (offsets, items) = (list.value_offsets(), list.values().as_struct());
    // What lies before and behind belongs to no row of this list.
    let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
    let words = items.column(field).slice(first, last - first);
    let ours = in_our_words::<W>(words.clone()).map_err(|fault| {
        let at = first + fault.row;
        let row = offsets.partition_point(|&offset| offset as usize <= at) - 1;
        Fault { row, what: format!("{item} {}: {}", at - offsets[row] as usize, fault.what), ..fault }
    })?;
    if Arc::ptr_eq(&ours, &words) {
        return Ok(array);
    }
    let items = items.slice(first, last - first);
    let mut columns = items.columns().to_vec();
    columns[field] = ours;
    let items = StructArray::new(items.fields().clone(), columns, items.nulls().cloned());
    let DataType::List(item) = list.data_type() else { unreachable!("nested columns are lists") };
    let offsets = OffsetBuffer::from_lengths(offsets.windows(2).map(|pair| (pair[1] - pair[0]) as usize));
    Ok(Arc::new(ListArray::new(item.clone(), offsets, Arc::new(items), list.nulls().cloned())))
}

/// Makes an enum of words what columns hold.
macro_rules! word_cells {
    ($($name:ident: $noun:literal),+) => {$(
        impl Word for $name {
            const NOUN: &'static str = $noun;

            fn known() -> Vec<&'static str> {
                $name::ALL.iter().map(|value| value.as_str()).collect()
            }

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn parse(word: &str) -> Option<Self> {
                $name::parse(word)
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
                let words = array.as_string::<i32>();
                (0..words.len()).map(|row| parse_word(row, words.value(row))).collect()
            }

            fn conform(array: ArrayRef) -> Result<ArrayRef, Fault> {
                in_our_words::<$name>(array)
            }
        }

        impl Cell for Option<$name> {
            const TYPE: ColumnType = ColumnType::Text;
            const NULLABLE: bool = true;

            fn array(cells: &mut dyn Iterator<Item = &Self>) -> ArrayRef {
                Arc::new(cells.map(|cell| cell.map(|value| value.as_str())).collect::<StringArray>())
            }

            fn bytes(&self) -> usize {
                text_bytes(self.map_or("", |value| value.as_str()))
            }

            fn read(array: &ArrayRef) -> Result<Vec<Self>, Fault> {
                let words = array.as_string::<i32>();
                let value = |row: usize| words.is_valid(row).then(|| parse_word(row, words.value(row))).transpose();
                (0..words.len()).map(value).collect()
            }

            fn conform(array: ArrayRef) -> Result<ArrayRef, Fault> {
                in_our_words::<$name>(array)
            }
        }
    )+};
}

word_cells!(Role: "role", FinishReason: "finish reason", Outcome: "outcome");
