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

/// How many of the next items, of so many bytes each, are taken at once: as many as fit into `budget`, and one at least.
pub(crate) fn fitting(bytes: impl Iterator<Item = u64>, budget: u64) -> usize {
    let mut sum = 0;
    let fits = |bytes: &u64| {
        sum += bytes;
        sum <= budget
    };
    bytes.take_while(fits).count().max(1)
}

/// The rows of a batch at these indices, in their order.
pub(crate) fn take_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    let indices = UInt32Array::from(rows.to_vec());
    take_record_batch(batch, &indices).map_err(|e| Error::new("rows cannot be taken from a batch").caused_by(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_fits_its_budget_unless_it_is_one_item() {
        let of = |bytes: &[u64]| fitting(bytes.iter().copied(), 10);
        assert_eq!([of(&[4, 6, 1]), of(&[4, 7, 1]), of(&[11, 1]), of(&[1, 2])], [2, 1, 1, 2]);
    }
}
