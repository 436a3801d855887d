//! Checking what a file has against the contract, and casting what is physically different but equal.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef};

use super::cell::Fault;
use super::{Column, ColumnType, DatasetKind, REASONING_FIELDS, SCHEMA_KEY, VERSION_KEY};
use crate::error::{Error, Result};

/// What [`DatasetKind::check`] found: which file columns to read, and the schema batches will have.
#[derive(Clone, Debug)]
pub struct Projection {
    /// Positions of the wanted columns in the file, in the order they were asked for; without those that came with a
    /// later version than the file's.
    pub indices: Vec<usize>,
    /// The contract's schema, projected.
    pub schema: SchemaRef,
    columns: Vec<&'static Column>,
}

impl DatasetKind {
    /// Checks a file's schema against the contract: all columns, or those of `projection`. Whoever knows the file adds its
    /// name to the error.
    ///
    /// Columns the contract does not know are ignored. Types that hold the same
    /// values are accepted and cast by [`Projection::conform`].
    ///
    /// # Errors
    /// A column is missing (with the nearest name of the file as a hint), has a
    /// type that cannot hold the contract's values, or the file was written under
    /// a newer version or as another kind of dataset.
    pub fn check(self, schema: &Schema, projection: Option<&[&str]>) -> Result<Projection> {
        if let Some(kind) = schema.metadata().get(SCHEMA_KEY).filter(|kind| *kind != self.as_str()) {
            return Err(Error::new(format!("this is a {kind} dataset where {self} is expected"))
                .hint("check the order of the stages' inputs"));
        }
        let version = schema.metadata().get(VERSION_KEY).and_then(|text| text.parse::<u32>().ok());
        if let Some(version) = version.filter(|&version| version > self.version()) {
            return Err(Error::new(format!(
                "{self} version {version} is newer than this gristmill, which reads up to {}",
                self.version()
            ))
            .hint("use the gristmill that wrote it, or a later one"));
        }
        let columns: Vec<&'static Column> = match projection {
            None => self.columns().iter().collect(),
            Some(names) => names
                .iter()
                .map(|name| {
                    self.column(name).ok_or_else(|| {
                        let known = self.columns().iter().map(|column| column.name);
                        with_nearest(
                            Error::new(format!("{self} datasets have no column `{name}`")).in_field(*name),
                            name,
                            known,
                        )
                    })
                })
                .collect::<Result<_>>()?,
        };
        let mut indices = Vec::with_capacity(columns.len());
        for column in &columns {
            let index = schema.index_of(column.name);
            if index.is_err() && column.came_later() {
                continue;
            }
            let Ok(index) = index else {
                let message = format!("column `{}` ({}) of {self} is missing", column.name, column.column_type);
                // A column that is itself part of the contract was not renamed.
                let others = schema.fields().iter().map(|field| field.name().as_str());
                let others = others.filter(|name| self.column(name).is_none());
                return Err(with_nearest(Error::new(message).in_field(column.name), column.name, others)
                    .hint(format!("it means: {}", column.doc())));
            };
            let found = schema.field(index).data_type();
            if !accepts(column.column_type, found) {
                return Err(Error::new(format!(
                    "column `{}` is {found} where {} is expected",
                    column.name, column.column_type
                ))
                .in_field(column.name)
                .hint(format!("it means: {}", column.doc())));
            }
            indices.push(index);
        }
        let fields: Vec<Field> = columns.iter().map(|column| column.field()).collect();
        let schema = match projection {
            None => self.arrow(),
            Some(_) => Arc::new(Schema::new_with_metadata(fields, self.metadata())),
        };
        Ok(Projection { indices, schema, columns })
    }

    /// Checks and casts a batch that holds all columns of the contract.
    ///
    /// # Errors
    /// As [`DatasetKind::check`] and [`Projection::conform`].
    pub fn conform(self, batch: &RecordBatch) -> Result<RecordBatch> {
        if batch.schema_ref().fields() == self.arrow().fields() {
            return Ok(batch.clone());
        }
        self.check(batch.schema_ref(), None)?.conform(0, batch)
    }
}

impl Projection {
    /// Casts a batch to the contract's types, columns found by name; `first_row` is its first row in the file.
    /// What is no finite number is null where null is allowed: so other programs write what they do not know. Another
    /// program's word for a value, such as a finish reason, becomes ours.
    ///
    /// # Errors
    /// A null in a column that allows none, a number out of the column's range, or a word that nobody knows, with the row.
    pub fn conform(&self, first_row: u64, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let Some(array) = batch.column_by_name(column.name) else {
                if column.came_later() {
                    arrays.push(new_null_array(&column.column_type.arrow(), batch.num_rows()));
                    continue;
                }
                let missing = Error::new(format!("column `{}` is missing", column.name));
                return Err(missing.in_field(column.name));
            };
            let fault = |fault: Fault| fault.into_error(column.name, first_row);
            let mut array = conform_array(array, column.column_type).map_err(fault)?;
            match (column.nullable, column.column_type) {
                (false, _) => no_nulls(&array).map_err(fault)?,
                (true, ColumnType::F64) => array = finite(array),
                (true, _) => {}
            }
            arrays.push((column.conform)(array).map_err(fault)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|e| Error::new("the columns do not fit together").caused_by(e))
    }
}

/// Adds "did you mean" with the nearest of `names`, if one is near.
fn with_nearest<'a>(error: Error, name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let near = names
        .map(|other| (strsim::jaro_winkler(name, &other.to_lowercase()), other))
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, other)) => error.hint(format!("is `{other}` the column that is meant? Rename it to `{name}`")),
        None => error,
    }
}

/// Whether the file's type can hold the contract's values.
fn accepts(wanted: ColumnType, found: &DataType) -> bool {
    use DataType::{Dictionary, LargeUtf8, Null, Utf8, Utf8View};
    match (wanted, found) {
        // A column of nothing but nulls; refused later, with the row, where null is not allowed.
        (_, Null) => true,
        (_, Dictionary(_, value)) => accepts(wanted, value),
        (ColumnType::Text, found) => matches!(found, Utf8 | LargeUtf8 | Utf8View),
        (ColumnType::U32 | ColumnType::U64, found) => found.is_integer(),
        (ColumnType::F64, found) => found.is_floating() || found.is_integer(),
        (ColumnType::TokenIds, found) => list_item(found).is_some_and(|item| accepts(ColumnType::U32, item)),
        (ColumnType::Logprobs, found) => list_item(found).is_some_and(|item| accepts(ColumnType::F64, item)),
        (ColumnType::Messages | ColumnType::Scores, found) => {
            let Some(DataType::Struct(found)) = list_item(found) else { return false };
            struct_fields(wanted).iter().all(|wanted| {
                found.find(wanted.name()).is_some_and(|(_, found)| accepts(leaf_type(wanted), found.data_type()))
            })
        }
    }
}

fn list_item(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        DataType::ListView(item) | DataType::LargeListView(item) => Some(item.data_type()),
        _ => None,
    }
}

fn struct_fields(column_type: ColumnType) -> Fields {
    match list_item(&column_type.arrow()) {
        Some(DataType::Struct(fields)) => fields.clone(),
        _ => Fields::empty(),
    }
}

fn leaf_type(field: &Field) -> ColumnType {
    if field.data_type() == &DataType::Float64 { ColumnType::F64 } else { ColumnType::Text }
}

/// The array in the contract's type; the same buffers where the type is equal already.
fn conform_array(array: &ArrayRef, wanted: ColumnType) -> Result<ArrayRef, Fault> {
    let target = wanted.arrow();
    if array.data_type() == &target {
        return Ok(array.clone());
    }
    if array.data_type() == &DataType::Null {
        return Ok(new_null_array(&target, array.len()));
    }
    match wanted {
        ColumnType::Text | ColumnType::U32 | ColumnType::U64 | ColumnType::F64 => cast_leaf(array, &target),
        ColumnType::TokenIds | ColumnType::Logprobs | ColumnType::Messages | ColumnType::Scores => {
            let list = as_list(array)?;
            let values = conform_items(&list, wanted)?;
            let DataType::List(item) = target else { unreachable!("nested columns are lists") };
            Ok(Arc::new(ListArray::new(item, list.offsets().clone(), values, list.nulls().cloned())))
        }
    }
}

/// Casts a flat array; a value the target cannot hold is a fault at its row.
fn cast_leaf(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, Fault> {
    if array.data_type() == target {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let result = cast_with_options(array, target, &options).map_err(|e| Fault::new(0, e.to_string()))?;
    let nulls_before = array.logical_nulls();
    if result.null_count() > nulls_before.as_ref().map_or(0, |nulls| nulls.null_count()) {
        let lost = |&row: &usize| result.is_null(row) && nulls_before.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let row = (0..result.len()).find(lost).unwrap_or(0);
        let value = arrow::util::display::array_value_to_string(array, row).unwrap_or_default();
        return Err(Fault::new(row, format!("{value} does not fit {target}")));
    }
    Ok(result)
}

/// Any list layout as a plain list whose child values all belong to some row, so that no
/// fault can be found among values nobody refers to.
fn as_list(array: &ArrayRef) -> Result<ListArray, Fault> {
    let item = match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => item,
        DataType::ListView(item) | DataType::LargeListView(item) => item,
        other => return Err(Fault::new(0, format!("{other} is no list"))),
    };
    let list = cast(array, &DataType::List(item.clone())).map_err(|e| Fault::new(0, e.to_string()))?;
    let list = list.as_list::<i32>();
    let (first, last) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
    if first == 0 && last == list.values().len() {
        return Ok(list.clone());
    }
    let offsets = OffsetBuffer::from_lengths(list.value_offsets().windows(2).map(|w| (w[1] - w[0]) as usize));
    Ok(ListArray::new(item.clone(), offsets, list.values().slice(first, last - first), list.nulls().cloned()))
}

fn conform_items(list: &ListArray, wanted: ColumnType) -> Result<ArrayRef, Fault> {
    let row_of = |fault: Fault| {
        let row = list.value_offsets().partition_point(|&offset| offset as usize <= fault.row).saturating_sub(1);
        Fault { row, ..fault }
    };
    let DataType::List(target) = wanted.arrow() else { unreachable!("nested columns are lists") };
    let values = list.values();
    let DataType::Struct(fields) = target.data_type() else {
        let values = cast_leaf(values, target.data_type()).map_err(row_of)?;
        no_nulls(&values).map_err(row_of)?;
        return Ok(values);
    };
    no_nulls(values).map_err(row_of)?;
    let found = values.as_struct();
    let mut arrays = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.name();
        let array = found.column_by_name(name).ok_or_else(|| Fault::new(0, format!("field `{name}` is missing")))?;
        let array = conform_array(array, leaf_type(field))
            .and_then(|array| if field.is_nullable() { Ok(array) } else { no_nulls(&array).map(|()| array) })
            .map_err(|fault| Fault { what: format!("field `{name}`: {}", fault.what), ..row_of(fault) })?;
        arrays.push(array);
    }
    if wanted == ColumnType::Messages {
        no_reasoning_beside(found).map_err(row_of)?;
    }
    Ok(Arc::new(StructArray::new(fields.clone(), arrays, None)))
}

/// A turn has one text: a chain of thought beside it would go without a word.
fn no_reasoning_beside(turns: &StructArray) -> Result<(), Fault> {
    for name in REASONING_FIELDS {
        let Some(array) = turns.column_by_name(name).filter(|array| array.null_count() < array.len()) else { continue };
        let texts = cast(array, &DataType::Utf8).map_err(|e| Fault::new(0, format!("field `{name}`: {e}")))?;
        let says = |text: Option<&str>| text.is_some_and(|text| !text.trim().is_empty());
        if let Some(row) = texts.as_string::<i32>().iter().position(says) {
            let hint = "put it before `content`, within <think> tags, as `prompts` with `layout = \"chat\"` does";
            let fault = Fault::new(row, format!("a turn has a chain of thought beside its `content`, in `{name}`"));
            return Err(Fault { hint: Some(hint.to_owned()), ..fault });
        }
    }
    Ok(())
}

/// A column of numbers without NaN and infinities; the same buffers where it has none.
fn finite(array: ArrayRef) -> ArrayRef {
    let numbers = array.as_primitive::<Float64Type>();
    if numbers.values().iter().all(|x| x.is_finite()) {
        return array;
    }
    Arc::new(numbers.iter().map(|x| x.filter(|x| x.is_finite())).collect::<Float64Array>())
}

fn no_nulls(array: &ArrayRef) -> Result<(), Fault> {
    if array.null_count() == 0 {
        return Ok(());
    }
    let row = (0..array.len()).find(|&row| array.is_null(row)).unwrap_or(0);
    Err(Fault::new(row, "null where a value is required"))
}
