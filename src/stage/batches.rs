//! Rows of Arrow batches, as several stages read them.

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use crate::error::{Error, Result};
use crate::schema::{BatchExt, Message, Role};

/// A conversation out of a batch's list column.
pub(crate) fn messages_at(batch: &RecordBatch, column: &str, row: usize) -> Result<Vec<Message>> {
    let turns = batch.list(column)?.value(row);
    let turns = turns.as_struct();
    let field = |name: &str| {
        let column = turns.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        column.ok_or_else(|| Error::new(format!("a turn has no `{name}`")).in_field(name))
    };
    let (roles, contents) = (field("role")?, field("content")?);
    (0..turns.len())
        .map(|i| {
            let role = Role::parse(roles.value(i)).ok_or_else(|| {
                let known: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
                Error::new(format!("turn {i}: `{}` is no role", roles.value(i)))
                    .in_field(column)
                    .hint(format!("roles: {}", known.join(", ")))
            })?;
            Ok(Message { role, content: contents.value(i).to_owned() })
        })
        .collect()
}

/// The rows of a batch at these indices, in their order.
pub(crate) fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    let indices = UInt32Array::from(rows.to_vec());
    take_record_batch(batch, &indices).map_err(|e| Error::new("rows cannot be taken from a batch").caused_by(e))
}
