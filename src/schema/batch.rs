//! Typed columns of a batch by name: what hot stages read instead of building rows.

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Float64Type, UInt32Type, UInt64Type};

use super::Cell;
use crate::error::{Error, Result};

/// Typed, zero-copy access to the columns of a batch that was read under the contract.
///
/// # Errors
/// Each getter fails if there is no such column or it has another type.
pub trait BatchExt {
    /// A text column. Check `is_null(row)` before `value(row)` where the column is nullable.
    fn text(&self, name: &str) -> Result<&StringArray>;
    /// A column as values, each read once, as [`Outcome`](super::Outcome) and [`FinishReason`](super::FinishReason) are
    /// of words.
    fn cells<C: Cell>(&self, name: &str) -> Result<Vec<C>>;
    /// A field of a list's items as values, of all items in their order.
    fn item_cells<C: Cell>(&self, list: &str, field: &str) -> Result<Vec<C>>;
    /// A uint32 column, as indexes and counts of tokens are.
    fn u32(&self, name: &str) -> Result<&UInt32Array>;
    /// A uint64 column, as seeds are.
    fn u64(&self, name: &str) -> Result<&UInt64Array>;
    /// A float64 column, as rewards are; null is not known, and never 0.
    fn f64(&self, name: &str) -> Result<&Float64Array>;
    /// Token ids, logprobs, messages or scores: offsets and the items' array.
    fn list(&self, name: &str) -> Result<&ListArray>;
}

fn typed<'a, T>(
    batch: &'a RecordBatch,
    name: &str,
    wanted: &str,
    cast: impl FnOnce(&'a dyn Array) -> Option<&'a T>,
) -> Result<&'a T> {
    let array = column(batch, name)?;
    cast(array.as_ref()).ok_or_else(|| mistyped(array, name, wanted))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| Error::new(format!("there is no column `{name}`")).in_field(name))
}

fn mistyped(array: &ArrayRef, name: &str, wanted: &str) -> Error {
    Error::new(format!("column `{name}` is {} where {wanted} is expected", array.data_type())).in_field(name)
}

fn read<C: Cell>(array: &ArrayRef, name: &str) -> Result<Vec<C>> {
    if array.data_type() != &C::TYPE.arrow() {
        return Err(mistyped(array, name, &C::TYPE.to_string()));
    }
    C::read(array).map_err(|fault| fault.into_error(name, 0))
}

impl BatchExt for RecordBatch {
    fn text(&self, name: &str) -> Result<&StringArray> {
        typed(self, name, "text", |array| array.as_string_opt::<i32>())
    }

    fn cells<C: Cell>(&self, name: &str) -> Result<Vec<C>> {
        read(column(self, name)?, name)
    }

    fn item_cells<C: Cell>(&self, list: &str, field: &str) -> Result<Vec<C>> {
        let items = self.list(list)?.values().as_struct_opt();
        let cells = items.and_then(|items| items.column_by_name(field));
        read(cells.ok_or_else(|| Error::new(format!("its items have no `{field}`")).in_field(list))?, list)
    }

    fn u32(&self, name: &str) -> Result<&UInt32Array> {
        typed(self, name, "uint32", |array| array.as_primitive_opt::<UInt32Type>())
    }

    fn u64(&self, name: &str) -> Result<&UInt64Array> {
        typed(self, name, "uint64", |array| array.as_primitive_opt::<UInt64Type>())
    }

    fn f64(&self, name: &str) -> Result<&Float64Array> {
        typed(self, name, "float64", |array| array.as_primitive_opt::<Float64Type>())
    }

    fn list(&self, name: &str) -> Result<&ListArray> {
        typed(self, name, "a list", |array| array.as_list_opt::<i32>())
    }
}
