//! Rows: one struct a dataset, its columns derived from the struct, and the way to Arrow and back.
//!
//! [`dataset!`] reads a struct once and makes three things of it that can never
//! disagree: the struct, the column table (names, types, nullability and docs),
//! and the conversions. Hot stages do not build rows: they read typed columns
//! through [`BatchExt`](super::BatchExt).

use arrow::array::{ArrayRef, RecordBatch};

use super::{Cell, Column, DatasetKind};
use crate::error::{Error, Result};

/// A struct that is one row of a dataset.
pub trait Row: Sized {
    /// The dataset it is a row of.
    const KIND: DatasetKind;

    /// The columns, in file order.
    fn columns() -> &'static [Column];

    /// Rows as one Arrow batch of [`DatasetKind::arrow`]'s schema.
    ///
    /// At most 2 GiB of text a column (Arrow's 32-bit offsets); `ShardWriter`
    /// pushes rows in pieces far below that, by their [`Row::bytes`].
    fn to_batch(rows: &[Self]) -> RecordBatch;

    /// Bytes of its data in a batch.
    fn bytes(&self) -> usize;

    /// The rows of a batch that holds all columns of the contract, in any order.
    ///
    /// # Errors
    /// A column missing or of the wrong type; a null or an unknown word (such as
    /// a finish reason nobody knows) with the row within the batch.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>>;
}

/// One column of a batch as cells; the batch has been conformed already. For stages that read a few columns as they are in
/// rows, and not whole rows.
pub(crate) fn read_cells<C: Cell>(batch: &RecordBatch, name: &'static str) -> Result<Vec<C>> {
    let array =
        batch.column_by_name(name).ok_or_else(|| Error::new(format!("there is no column `{name}`")).in_field(name))?;
    C::read(array).map_err(|fault| fault.into_error("", name, 0))
}

/// Assembles the arrays of a batch under the contract's schema.
pub(super) fn assemble(kind: DatasetKind, arrays: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(kind.arrow(), arrays).expect("cells make arrays of the contract's types and equal lengths")
}

/// Declares the row struct of a dataset: `dataset! { Kind; /// docs … pub struct Name { /// docs … pub field: Type, } }`.
///
/// Each field's doc comment is its column's documentation.
macro_rules! dataset {
    (
        $kind:ident;
        $(#[doc = $struct_doc:literal])*
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ pub $field:ident: $type:ty, )+
        }
    ) => {
        $(#[doc = $struct_doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $type, )+
        }

        impl $crate::schema::Row for $name {
            const KIND: $crate::schema::DatasetKind = $crate::schema::DatasetKind::$kind;

            fn columns() -> &'static [$crate::schema::Column] {
                const COLUMNS: &[$crate::schema::Column] = &[$(
                    $crate::schema::Column {
                        name: stringify!($field),
                        column_type: <$type as $crate::schema::Cell>::TYPE,
                        nullable: <$type as $crate::schema::Cell>::NULLABLE,
                        doc: concat!($($doc),+),
                    },
                )+];
                COLUMNS
            }

            fn to_batch(rows: &[Self]) -> arrow::array::RecordBatch {
                let arrays = vec![$(
                    <$type as $crate::schema::Cell>::array(&mut rows.iter().map(|row| &row.$field)),
                )+];
                $crate::schema::row::assemble(Self::KIND, arrays)
            }

            fn bytes(&self) -> usize {
                0 $( + $crate::schema::Cell::bytes(&self.$field) )+
            }

            fn from_batch(batch: &arrow::array::RecordBatch) -> $crate::error::Result<Vec<Self>> {
                let batch = Self::KIND.conform("", batch)?;
                $( let mut $field = $crate::schema::row::read_cells::<$type>(&batch, stringify!($field))?.into_iter(); )+
                Ok((0..batch.num_rows())
                    .map(|_| $name {
                        $( $field: $field.next().expect("every column has as many cells as the batch has rows"), )+
                    })
                    .collect())
            }
        }
    };
}
pub(super) use dataset;
