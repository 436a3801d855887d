//! Parquet rows for `gristmill score`: all columns kept as they are, two added.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Builder, LargeStringArray, RecordBatch, StringArray, StringBuilder,
    StringViewArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use super::output::Output;
use super::{CHUNK, Tally, add, judge};
use crate::cli::rows::{Fields, Row};
use crate::error::{Context, Error, Result};
use crate::rule::RuleSet;

/// Scores a Parquet file into another one.
///
/// # Errors
/// Files that are not Parquet or cannot be written, rows without a completion, columns of the same name.
pub(super) fn score(rules: &RuleSet, input: &str, output: &str) -> Result<Tally> {
    let source = File::open(input).or_fail(|| format!("cannot read {input}"))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(source).or_fail(|| format!("{input} is not Parquet"))?;
    let schema = builder.schema().clone();
    for name in ["reward", "verdicts"] {
        if schema.field_with_name(name).is_ok() {
            return Err(Error::new(format!("there already is a column `{name}`")).in_file(input).in_field(name));
        }
    }
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("reward", DataType::Float64, true)));
    fields.push(Arc::new(Field::new("verdicts", DataType::Utf8, false)));
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let target = Output::open(output)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer =
        ArrowWriter::try_new(target, schema.clone(), Some(properties)).or_fail(|| format!("cannot write {output}"))?;
    let reader = builder.with_batch_size(CHUNK).build().or_fail(|| format!("cannot read {input}"))?;
    let mut tally = Tally::default();
    for batch in reader {
        let batch = batch.or_fail(|| format!("cannot read {input}"))?;
        let rows: Vec<Row> = (0..batch.num_rows()).map(|i| row(&batch, i)).collect();
        let fields = rows
            .iter()
            .enumerate()
            .map(|(i, row)| {
                Fields::of(row).ok_or_else(|| {
                    Error::new("a row has no completion")
                        .in_file(input)
                        .at_row(tally.rows + i as u64)
                        .in_field("completion")
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let (mut rewards, mut verdicts) = (Float64Builder::new(), StringBuilder::new());
        for judgement in judge(rules, &fields) {
            tally.count(&judgement);
            rewards.append_option(judgement.reward);
            let mut row = Row::new();
            add(&mut row, judgement);
            verdicts.append_value(row.remove("verdicts").unwrap_or_default().to_string());
        }
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns.push(Arc::new(rewards.finish()));
        columns.push(Arc::new(verdicts.finish()));
        let batch =
            RecordBatch::try_new(schema.clone(), columns).or_fail(|| "the scored rows do not fit together".into())?;
        writer.write(&batch).or_fail(|| format!("cannot write {output}"))?;
    }
    writer.into_inner().or_fail(|| format!("cannot write {output}"))?.finish()?;
    Ok(tally)
}

fn row(batch: &RecordBatch, i: usize) -> Row {
    let schema = batch.schema();
    schema.fields().iter().zip(batch.columns()).map(|(field, column)| (field.name().clone(), json(column, i))).collect()
}

/// One value as JSON; types that no rule reads are null.
fn json(array: &ArrayRef, i: usize) -> Value {
    if array.is_null(i) {
        return Value::Null;
    }
    let any = array.as_any();
    if let Some(texts) = any.downcast_ref::<StringArray>() {
        return texts.value(i).into();
    }
    if let Some(texts) = any.downcast_ref::<LargeStringArray>() {
        return texts.value(i).into();
    }
    if let Some(texts) = any.downcast_ref::<StringViewArray>() {
        return texts.value(i).into();
    }
    if let Some(flags) = any.downcast_ref::<BooleanArray>() {
        return flags.value(i).into();
    }
    match array.data_type() {
        DataType::List(_) => list(&array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(i)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let map: Map<String, Value> =
                fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), json(column, i))).collect();
            Value::Object(map)
        }
        kind if kind.is_integer() => {
            let one = arrow::compute::cast(&array.slice(i, 1), &DataType::Int64);
            one.map_or(Value::Null, |one| one.as_primitive::<Int64Type>().value(0).into())
        }
        kind if kind.is_floating() => {
            let one = arrow::compute::cast(&array.slice(i, 1), &DataType::Float64);
            one.map_or(Value::Null, |one| one.as_primitive::<Float64Type>().value(0).into())
        }
        _ => Value::Null,
    }
}

fn list(items: &ArrayRef) -> Value {
    Value::Array((0..items.len()).map(|i| json(items, i)).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;

    #[test]
    fn columns_are_kept_and_two_are_added() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.parquet"), folder.path().join("out.parquet"));
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int32Array::from(vec![7, 8])) as ArrayRef),
            ("completion", Arc::new(StringArray::from(vec!["4", "5"])) as ArrayRef),
            ("gold", Arc::new(Int32Array::from(vec![4, 4])) as ArrayRef),
        ])
        .unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&input).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let rules = RuleSet::parse("[rules.a]\nkind = \"exact\"\n", "r").unwrap();
        let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
        assert_eq!(score(&rules, input, output).unwrap().correct, 1);
        let mut reader =
            ParquetRecordBatchReaderBuilder::try_new(File::open(output).unwrap()).unwrap().build().unwrap();
        let scored = reader.next().unwrap().unwrap();
        assert_eq!(scored.column(0), batch.column(0));
        let rewards = scored.column_by_name("reward").unwrap().as_primitive::<Float64Type>();
        assert_eq!((rewards.value(0), rewards.value(1)), (1.0, 0.0));
        assert!(scored.column_by_name("verdicts").unwrap().as_string::<i32>().value(1).contains("not_equal"));
        assert!(score(&rules, output, input).is_err(), "a scored file is not scored again");
    }
}
