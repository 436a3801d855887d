//! Where the rows of a dataset's groups lie, and how rows that other programs scattered are brought together.
//!
//! Our own files hold each group as neighbours in one shard, and are streamed. That it is so is not
//! believed but looked at: two columns are read, and sixteen bytes a run of neighbours kept. Where a
//! group lies in two places every row gets a place instead (by its group's first row, its sample, its own
//! row), and rows travel there through sorted runs on the disk.

use std::ops::Range;

use arrow::array::RecordBatch;
use rayon::prelude::*;

use super::{Keys, WholeGroups};
use crate::error::{Error, Result};
use crate::schema::{BatchExt, DatasetKind};
use crate::stage::external_sort::ExternalSort;
use crate::stage::{StageContext, StageOutcome};
use crate::store::{Dataset, Shard, hash_id};

/// Batches of rows, one after the other.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>;

/// Makes shards out of whole groups, wherever their rows lie.
///
/// `rows` streams a shard of `dataset`, whose kind has `prompt_id`, `policy_step` and `sample_index`, in the
/// order of its rows. `make` makes an output shard of whole groups, which has a number from 0 of so many. Where groups lie
/// together there is one for each shard of the dataset; else `widen` turns a batch into rows of groups, which
/// can wait on the disk.
///
/// # Errors
/// As `rows`, `widen` and `make`; the keys cannot be read; scattered rows are more than 2³².
pub fn each_shard<'a>(
    cx: &StageContext<'_>,
    dataset: &'a Dataset,
    kind: DatasetKind,
    rows: impl Fn(usize) -> Result<Batches<'a>> + Sync,
    widen: impl Fn(RecordBatch) -> Result<RecordBatch> + Sync,
    make: impl Fn((usize, usize), &mut dyn Iterator<Item = Result<RecordBatch>>) -> Result<StageOutcome> + Sync,
) -> Result<StageOutcome> {
    if are_neighbours(dataset, kind)? {
        let of = dataset.shards().len();
        return cx.each_shard(of, |shard| make((shard, of), &mut WholeGroups::new(rows(shard)?)));
    }
    cx.progress.say(&format!("{}: groups of {} lie scattered; they are brought together", cx.name, dataset.location()));
    // One unit of work: where rows end up is decided over all of them.
    cx.each_shard(1, |_| {
        let Places { of_row, groups } = Places::of(dataset, kind)?;
        let mut sort = ExternalSort::new(cx.folder, DatasetKind::Groups)?;
        let mut first = 0;
        for shard in 0..dataset.shards().len() {
            for batch in rows(shard)? {
                cx.check_stop()?;
                let batch = widen(batch?)?;
                let places = of_row[first..first + batch.num_rows()].iter().copied();
                first += batch.num_rows();
                sort.push(batch, places)?;
            }
        }
        let shards = shards_of(&groups, cx.shard_rows);
        let made = sort.drain(cx, &shards, |shard, rows| make((shard, shards.len()), &mut WholeGroups::new(rows)))?;
        let mut sum = StageOutcome::default();
        made.into_iter().for_each(|outcome| sum.absorb(outcome));
        Ok(sum)
    })
}

/// What names a group, in 128 bits.
type Key = (u64, u64);

fn key_of((prompt, step): (&str, u64)) -> Key {
    let (high, low) = hash_id(prompt);
    // Nearly all steps are 0, and then the key is the id.
    (high, low ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Whether every group is a run of neighbouring rows in one shard.
fn are_neighbours(dataset: &Dataset, kind: DatasetKind) -> Result<bool> {
    let runs = |shard: &Shard| -> Result<Vec<Key>> {
        let mut runs = Vec::new();
        let mut last: Option<(String, u64)> = None;
        for batch in shard.batches(Some(kind), Some(&["prompt_id", "policy_step"]))? {
            let batch = batch?;
            let keys = Keys::of(&batch).map_err(|e| e.in_file(shard))?;
            for row in 0..batch.num_rows() {
                let key = keys.key(row);
                let goes_on = match row {
                    0 => last.as_ref().is_some_and(|(prompt, step)| (prompt.as_str(), *step) == key),
                    _ => key == keys.key(row - 1),
                };
                if !goes_on {
                    runs.push(key_of(key));
                }
            }
            last = batch.num_rows().checked_sub(1).map(|row| keys.key(row)).map(|(p, step)| (p.to_owned(), step));
        }
        Ok(runs)
    };
    let mut runs = dataset.shards().par_iter().map(runs).collect::<Result<Vec<_>>>()?.concat();
    runs.par_sort_unstable();
    Ok(runs.windows(2).all(|pair| pair[0] != pair[1]))
}

/// Where every row of a dataset goes so that groups lie together.
struct Places {
    of_row: Vec<u32>,
    /// Rows of each group, in the order of their places.
    groups: Vec<u32>,
}

impl Places {
    fn of(dataset: &Dataset, kind: DatasetKind) -> Result<Places> {
        /// A row by what it is sorted by: 24 bytes.
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        struct Entry {
            key: Key,
            sample: u32,
            row: u32,
        }
        let rows = dataset.rows()?;
        if u32::try_from(rows).is_err() {
            let error =
                Error::new(format!("groups lie scattered over {rows} rows, which are too many to be brought together"));
            return Err(error.in_file(dataset.location()).hint("sort the rows by `prompt_id` and `policy_step`"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(rows as usize);
        for batch in dataset.batches(Some(kind), Some(&["prompt_id", "policy_step", "sample_index"])) {
            let batch = batch?;
            let (keys, samples) = (Keys::of(&batch)?, batch.u32("sample_index")?);
            let first = entries.len();
            let entry =
                |i: usize| Entry { key: key_of(keys.key(i)), sample: samples.value(i), row: (first + i) as u32 };
            entries.extend((0..batch.num_rows()).map(entry));
        }
        entries.par_sort_unstable();
        // (first row, first entry, entries) of each group: groups come as their first rows do.
        let mut groups: Vec<(u32, u32, u32)> = Vec::new();
        for group in entries.chunk_by(|a, b| a.key == b.key) {
            let first_row = group.iter().map(|entry| entry.row).min().unwrap_or(0);
            let start = groups.last().map_or(0, |(_, start, rows)| start + rows);
            groups.push((first_row, start, group.len() as u32));
        }
        groups.par_sort_unstable();
        let mut of_row = vec![0; entries.len()];
        let mut place = 0;
        for &(_, start, rows) in &groups {
            for entry in &entries[start as usize..(start + rows) as usize] {
                of_row[entry.row as usize] = place;
                place += 1;
            }
        }
        Ok(Places { of_row, groups: groups.into_iter().map(|(.., rows)| rows).collect() })
    }
}

/// Places cut into shards of about so many rows, between groups.
fn shards_of(groups: &[u32], shard_rows: usize) -> Vec<Range<u32>> {
    let mut shards = Vec::new();
    let (mut start, mut end) = (0, 0);
    for rows in groups {
        end += rows;
        if (end - start) as usize >= shard_rows {
            shards.push(start..end);
            start = end;
        }
    }
    if end > start || shards.is_empty() {
        shards.push(start..end);
    }
    shards
}
