//! Prompts as verl's RL rows, in Parquet: its datasets read nothing else.
//!
//! A rule-based reward compares to `reward_model.ground_truth`: the gold answer, or where there is none what the prompt is
//! checked by, as a program's tests. Prompts with neither are left out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::names;
use crate::error::{Error, Result};
use crate::schema::{BatchExt, DatasetKind};
use crate::stage::{StageContext, StageOutcome};
use crate::store::{Dataset, ShardInfo, Sink};

const COLUMNS: &[&str] =
    &["prompt_id", "messages", "gold", "verification", "domain", "language", "difficulty", "source"];

/// A row group ends once it holds so many bytes.
const GROUP_BYTES: usize = 64 << 20;

/// Writes a file for each shard; `split` is what every row says it is of.
pub fn write(cx: &StageContext<'_>, prompts: &Dataset, split: &str) -> Result<StageOutcome> {
    // A row's index is its place in the dataset, whatever is left out before it.
    let mut first_rows = vec![0];
    for shard in prompts.shards() {
        first_rows.push(first_rows[first_rows.len() - 1] + shard.rows()? as i64);
    }
    // Whatever rows may say, a file's name has no other signs.
    let is_word = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || c == '_');
    let names = names(prompts, if is_word { split } else { "train" });
    cx.each_shard(prompts.shards().len(), |index| {
        let source = &prompts.shards()[index];
        let mut outcome = StageOutcome::default();
        let mut out = File::create(cx, &format!("{}.parquet", names[index]))?;
        let mut first = first_rows[index];
        for batch in source.batches(Some(DatasetKind::Prompts), Some(COLUMNS))? {
            let batch = batch?;
            cx.check_stop()?;
            let (rows, without) = rows(&batch, first, split)?;
            (0..without).for_each(|_| outcome.drop_row("no_gold"));
            out.push(&rows)?;
            first += batch.num_rows() as i64;
            cx.progress.advance(batch.num_rows() as u64);
        }
        outcome.shards.push(out.finish()?);
        Ok(outcome)
    })
}

/// verl's rows of a batch of prompts that begins at `first`, and how many prompts have nothing to compare to.
fn rows(batch: &RecordBatch, first: i64, split: &str) -> Result<(RecordBatch, usize)> {
    let failed = |e| Error::new("rows cannot be filtered").caused_by(e);
    let (gold, checks) = (batch.text("gold")?, batch.text("verification")?);
    let truth =
        |row: usize| [gold, checks].into_iter().find(|column| column.is_valid(row)).map(|column| column.value(row));
    let truths: Vec<Option<&str>> = (0..batch.num_rows()).map(truth).collect();
    let keep: BooleanArray = truths.iter().map(|truth| Some(truth.is_some())).collect();
    let truths: ArrayRef = Arc::new(StringArray::from_iter_values(truths.into_iter().flatten()));
    let index = Int64Array::from_iter_values((first..).take(batch.num_rows()));
    let index = arrow::compute::filter(&index, &keep).map_err(failed)?;
    let kept = filter_record_batch(batch, &keep).map_err(failed)?;
    let column = |name: &str| kept.column_by_name(name).cloned().expect("all columns were asked for");
    let all =
        |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, kept.num_rows()))) as ArrayRef;
    let reward = [("style", all("rule")), ("ground_truth", truths)];
    let mut extra = vec![("split", all(split)), ("index", index)];
    extra.extend(["prompt_id", "domain", "language", "difficulty", "verification"].map(|name| (name, column(name))));
    let columns = [
        ("data_source", column("source")),
        ("prompt", column("messages")),
        ("ability", column("domain")),
        ("reward_model", structs(&reward)),
        ("extra_info", structs(&extra)),
    ];
    let rows = RecordBatch::try_new(schema(&columns), columns.into_iter().map(|(_, array)| array).collect());
    let rows = rows.map_err(|e| Error::new("the rows do not fit verl's columns").caused_by(e))?;
    Ok((rows, batch.num_rows() - kept.num_rows()))
}

fn fields(columns: &[(&str, ArrayRef)]) -> Fields {
    columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect()
}

fn structs(columns: &[(&str, ArrayRef)]) -> ArrayRef {
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    Arc::new(StructArray::new(fields(columns), arrays, None))
}

fn schema(columns: &[(&str, ArrayRef)]) -> SchemaRef {
    Arc::new(Schema::new(fields(columns)))
}

/// A Parquet file of rows as they are.
struct File {
    writer: ArrowWriter<Sink>,
    rows: u64,
}

impl File {
    fn create(cx: &StageContext<'_>, name: &str) -> Result<File> {
        let nothing = RecordBatch::new_empty(DatasetKind::Prompts.arrow());
        let schema = rows(&nothing, 0, "")?.0.schema();
        let properties = WriterProperties::builder()
            .set_created_by("gristmill".to_owned())
            .set_compression(Compression::ZSTD(Default::default()))
            .build();
        let sink = Sink::create(cx.folder, name.to_owned())?;
        let writer = ArrowWriter::try_new(sink, schema, Some(properties)).map_err(failed)?;
        Ok(File { writer, rows: 0 })
    }

    fn push(&mut self, rows: &RecordBatch) -> Result<()> {
        self.writer.write(rows).map_err(failed)?;
        self.rows += rows.num_rows() as u64;
        if self.writer.in_progress_size() >= GROUP_BYTES { self.writer.flush().map_err(failed) } else { Ok(()) }
    }

    fn finish(self) -> Result<ShardInfo> {
        self.writer.into_inner().map_err(failed)?.finish(self.rows)
    }
}

fn failed(error: parquet::errors::ParquetError) -> Error {
    Error::new("a Parquet file cannot be written").caused_by(error)
}
