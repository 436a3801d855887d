//! Whether ids are unique, at eight bytes a row.

use std::collections::HashMap;

use arrow::array::Array;
use rayon::prelude::*;

use super::dataset::{Dataset, Shard};
use super::lookup::hash_id;
use crate::error::{Error, Result};
use crate::schema::{BatchExt, DatasetKind};

impl Dataset {
    /// Fails if a text column has a value twice, naming both places.
    ///
    /// # Errors
    /// That; the column is missing, of another type, or null somewhere; a file cannot be read.
    pub fn require_unique(&self, kind: DatasetKind, column: &str) -> Result<()> {
        let of_shard = |shard: &Shard| {
            let mut hashes = Vec::new();
            each(shard, kind, column, |_, (_, low)| hashes.push(low)).map(|()| hashes)
        };
        let mut hashes: Vec<u64> = self.shards().par_iter().map(of_shard).collect::<Result<Vec<_>>>()?.concat();
        hashes.par_sort_unstable();
        let mut twice: Vec<u64> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        drop(hashes);
        twice.dedup();
        if twice.is_empty() {
            return Ok(());
        }
        // Two ids may share 64 bits: the few that do are told apart by 128.
        let mut seen: HashMap<(u64, u64), (usize, u64)> = HashMap::new();
        for (index, shard) in self.shards().iter().enumerate() {
            let mut found = None;
            each(shard, kind, column, |row, hash| {
                if found.is_none()
                    && twice.binary_search(&hash.1).is_ok()
                    && let Some(first) = seen.insert(hash, (index, row))
                {
                    found = Some((first, row));
                }
            })?;
            if let Some(((first, first_row), row)) = found {
                return Err(occurs_twice((&self.shards()[first], first_row), (shard, row), column));
            }
        }
        Ok(())
    }
}

/// Calls `take` with every row and its id's hash.
fn each(shard: &Shard, kind: DatasetKind, column: &str, mut take: impl FnMut(u64, (u64, u64))) -> Result<()> {
    let mut row = 0;
    for batch in shard.batches(Some(kind), Some(&[column]))? {
        let batch = batch?;
        let ids = batch.text(column).map_err(|e| e.in_file(shard))?;
        (0..ids.len()).for_each(|i| take(row + i as u64, hash_id(ids.value(i))));
        row += ids.len() as u64;
    }
    Ok(())
}

/// The error about an id that two rows have.
pub(super) fn occurs_twice(first: (&Shard, u64), second: (&Shard, u64), column: &str) -> Error {
    let earlier = if first.0.name() == second.0.name() { "the same file".to_owned() } else { first.0.to_string() };
    Error::new(format!("an id occurs twice: also in {earlier}, row {}", first.1))
        .in_file(second.0)
        .at_row(second.1)
        .in_field(column)
        .hint("ids must be unique; remove the duplicate rows")
}
