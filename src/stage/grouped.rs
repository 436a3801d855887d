//! Streams of batches cut so that no group is split, and the best and the worst of a group.

mod arrange;
mod pair;

pub use arrange::{Batches, each_shard};
pub use pair::best_and_worst;

use arrow::array::{RecordBatch, StringArray, UInt64Array};
use arrow::compute::concat_batches;

use crate::error::{Error, Result};
use crate::schema::BatchExt;

/// Yields the rows of a stream in order, in batches that hold whole groups.
///
/// A group is a run of rows with one `prompt_id` and one `policy_step`. Only the rows of
/// the last, perhaps unfinished, group of a batch are held back and copied.
pub struct WholeGroups<I> {
    batches: I,
    held: Option<RecordBatch>,
    ready: Option<RecordBatch>,
}

impl<I: Iterator<Item = Result<RecordBatch>>> WholeGroups<I> {
    pub fn new(batches: I) -> Self {
        WholeGroups { batches, held: None, ready: None }
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.ready.take() {
            return Ok(Some(batch));
        }
        loop {
            let Some(batch) = self.batches.next().transpose()? else { return Ok(self.held.take()) };
            if batch.num_rows() == 0 {
                continue;
            }
            let keys = Keys::of(&batch)?;
            // The held group goes on up to `first` in this batch.
            let first = match &self.held {
                Some(held) => {
                    let last = Keys::of(held)?.key(held.num_rows() - 1);
                    (0..batch.num_rows()).find(|&row| keys.key(row) != last).unwrap_or(batch.num_rows())
                }
                None => 0,
            };
            let head = match self.held.take() {
                Some(held) if first > 0 => {
                    let parts = [held, batch.slice(0, first)];
                    Some(
                        concat_batches(&batch.schema(), &parts)
                            .map_err(|e| Error::new("a group is too large for one batch").caused_by(e))?,
                    )
                }
                held => held,
            };
            if first == batch.num_rows() {
                self.held = head;
                continue;
            }
            let end = keys.key(batch.num_rows() - 1);
            let last = (first..batch.num_rows()).rev().find(|&row| keys.key(row) != end).map_or(first, |row| row + 1);
            self.held = Some(batch.slice(last, batch.num_rows() - last));
            let middle = (last > first).then(|| batch.slice(first, last - first));
            match (head, middle) {
                (Some(head), middle) => {
                    self.ready = middle;
                    return Ok(Some(head));
                }
                (None, Some(middle)) => return Ok(Some(middle)),
                (None, None) => {}
            }
        }
    }
}

impl<I: Iterator<Item = Result<RecordBatch>>> Iterator for WholeGroups<I> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// First rows of the groups of a batch, and one past its last row.
///
/// # Errors
/// A missing column.
pub fn boundaries(batch: &RecordBatch) -> Result<Vec<usize>> {
    let keys = Keys::of(batch)?;
    let rows = batch.num_rows();
    let mut starts = Vec::with_capacity(rows / 8 + 2);
    starts.extend((0..rows).filter(|&row| row == 0 || keys.key(row) != keys.key(row - 1)));
    starts.push(rows);
    Ok(starts)
}

/// Fails where a completion is twice in one group: it would count twice. `bounds` are [`boundaries`].
///
/// # Errors
/// That, naming the completion; a missing column.
pub fn require_distinct(batch: &RecordBatch, bounds: &[usize]) -> Result<()> {
    let ids = batch.text("completion_id")?;
    let mut group: Vec<&str> = Vec::new();
    for pair in bounds.windows(2) {
        group.clear();
        group.extend((pair[0]..pair[1]).map(|row| ids.value(row)));
        group.sort_unstable();
        if let Some(twice) = group.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::new(format!("the completion {} is twice in its group", twice[0]))
                .in_field("completion_id")
                .hint("ids must be unique; remove the duplicate rows"));
        }
    }
    Ok(())
}

struct Keys<'a> {
    prompts: &'a StringArray,
    steps: &'a UInt64Array,
}

impl<'a> Keys<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self> {
        Ok(Keys { prompts: batch.text("prompt_id")?, steps: batch.u64("policy_step")? })
    }

    fn key(&self, row: usize) -> (&'a str, u64) {
        (self.prompts.value(row), self.steps.value(row))
    }
}

/// Two streams of the same rows with different batch boundaries, zipped: yields slices of
/// equal length.
///
/// # Errors
/// When one stream has more rows than the other.
pub struct Aligned<A, B> {
    left: Rest<A>,
    right: Rest<B>,
    /// Nothing follows an error.
    failed: bool,
}

struct Rest<I> {
    batches: I,
    batch: Option<RecordBatch>,
}

impl<I: Iterator<Item = Result<RecordBatch>>> Rest<I> {
    fn fill(&mut self) -> Result<usize> {
        while self.batch.as_ref().is_none_or(|batch| batch.num_rows() == 0) {
            match self.batches.next().transpose()? {
                Some(batch) => self.batch = Some(batch),
                None => return Ok(0),
            }
        }
        Ok(self.batch.as_ref().map_or(0, RecordBatch::num_rows))
    }

    fn take(&mut self, rows: usize) -> RecordBatch {
        let batch = self.batch.take().expect("filled before it is taken from");
        self.batch = Some(batch.slice(rows, batch.num_rows() - rows));
        batch.slice(0, rows)
    }
}

impl<A, B> Aligned<A, B>
where
    A: Iterator<Item = Result<RecordBatch>>,
    B: Iterator<Item = Result<RecordBatch>>,
{
    pub fn new(left: A, right: B) -> Self {
        Aligned {
            left: Rest { batches: left, batch: None },
            right: Rest { batches: right, batch: None },
            failed: false,
        }
    }
}

impl<A, B> Iterator for Aligned<A, B>
where
    A: Iterator<Item = Result<RecordBatch>>,
    B: Iterator<Item = Result<RecordBatch>>,
{
    type Item = Result<(RecordBatch, RecordBatch)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

impl<A, B> Aligned<A, B>
where
    A: Iterator<Item = Result<RecordBatch>>,
    B: Iterator<Item = Result<RecordBatch>>,
{
    fn advance(&mut self) -> Result<Option<(RecordBatch, RecordBatch)>> {
        match (self.left.fill()?, self.right.fill()?) {
            (0, 0) => Ok(None),
            (0, _) | (_, 0) => Err(Error::new("two datasets that belong together have different numbers of rows")
                .hint("make the verdicts again from these completions")),
            (left, right) => {
                let rows = left.min(right);
                Ok(Some((self.left.take(rows), self.right.take(rows))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn batch(keys: &[u8]) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("prompt_id", DataType::Utf8, false),
            Field::new("policy_step", DataType::UInt64, false),
        ]);
        let ids: StringArray = keys.iter().map(|k| Some(k.to_string())).collect();
        let steps = UInt64Array::from(vec![0; keys.len()]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(steps)]).unwrap()
    }

    fn keys(batch: &RecordBatch) -> Vec<String> {
        batch.text("prompt_id").unwrap().iter().map(|k| k.unwrap().to_owned()).collect()
    }

    proptest! {
        #[test]
        fn groups_come_whole_and_in_order_whatever_the_batches(
            sizes in prop::collection::vec(1usize..6, 0..12),
            cuts in prop::collection::vec(0usize..5, 0..40),
        ) {
            let rows: Vec<u8> = sizes.iter().enumerate().flat_map(|(key, &n)| vec![key as u8; n]).collect();
            let mut batches = Vec::new();
            let mut rest = &rows[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                batches.push(Ok(batch(head)));
                rest = tail;
            }
            batches.push(Ok(batch(rest)));
            let out: Vec<RecordBatch> = WholeGroups::new(batches.into_iter()).collect::<Result<_>>().unwrap();
            let got: Vec<String> = out.iter().flat_map(keys).collect();
            prop_assert_eq!(got, rows.iter().map(u8::to_string).collect::<Vec<_>>());
            for pair in out.windows(2) {
                let (before, after) = (keys(&pair[0]), keys(&pair[1]));
                prop_assert_ne!(before.last(), after.first());
            }
        }
    }

    #[test]
    fn a_missing_row_is_an_error_not_a_shorter_result() {
        let left = vec![Ok(batch(&[1, 1])), Ok(batch(&[2]))];
        let right = vec![Ok(batch(&[1, 1]))];
        let zipped: Vec<_> = Aligned::new(left.into_iter(), right.into_iter()).collect();
        assert!(zipped[0].is_ok() && zipped[1].is_err());
    }
}
