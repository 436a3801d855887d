//! Parquet rows for `gristmill score`: all columns kept as they are, two added.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Builder, LargeStringArray, RecordBatch, StringArray, StringBuilder,
    StringViewArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};

use super::output::Output;
use super::{Bad, BadRows, CHUNK, Tally, judge, parts};
use crate::cli::rows::{Fields, Row};
use crate::error::{Context, Error, Result};
use crate::rule::RuleSet;

/// Scores a Parquet file into another one.
///
/// # Errors
/// Files that are not Parquet or cannot be written, columns of the same name, and rows without a completion
/// unless they are skipped or marked.
pub(super) fn score(rules: &RuleSet, input: &str, output: &str, handling: BadRows) -> Result<Tally> {
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
    let size = batch_size(builder.metadata());
    let reader = builder.with_batch_size(size).build().or_fail(|| format!("cannot read {input}"))?;
    let columns = schema.fields().iter().map(|field| field.name().clone());
    let columns = columns.filter(|name| !matches!(name.as_str(), "reward" | "verdicts")).collect();
    let (mut tally, mut read) = (Tally { columns, ..Tally::default() }, 0);
    for batch in reader {
        let batch = batch.or_fail(|| format!("cannot read {input}"))?;
        let plain = plain(&batch).or_fail(|| format!("cannot read {input}"))?;
        let (mut good, mut verdicts, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..batch.num_rows() {
            let bad = match Fields::of(&row(&plain, i)) {
                Ok(fields) => {
                    good.push(fields);
                    None
                }
                Err(unfit) => {
                    let reason = unfit.reason;
                    let error = unfit.error().in_file(input).at_row(read);
                    Some(tally.bad(Bad { reason, error }, handling)?)
                }
            };
            read += 1;
            kept.push(bad != Some(None));
            verdicts.push(bad.flatten());
        }
        let mut judged = good.iter().zip(judge(rules, &good));
        let (mut rewards, mut texts) = (Float64Builder::new(), StringBuilder::new());
        for verdict in kept.iter().zip(verdicts).filter_map(|(kept, verdict)| kept.then_some(verdict)) {
            match verdict {
                Some(verdict) => {
                    rewards.append_null();
                    texts.append_value(verdict.to_string());
                }
                None => {
                    let Some((fields, judgement)) = judged.next() else { break };
                    tally.count(fields, &judgement);
                    rewards.append_option(judgement.reward);
                    texts.append_value(parts(judgement).1.to_string());
                }
            }
        }
        let mut columns = if kept.iter().all(|kept| *kept) {
            batch.columns().to_vec()
        } else {
            let kept = BooleanArray::from(kept);
            arrow::compute::filter_record_batch(&batch, &kept)
                .or_fail(|| "bad rows cannot be left out".into())?
                .columns()
                .to_vec()
        };
        columns.push(Arc::new(rewards.finish()));
        columns.push(Arc::new(texts.finish()));
        let batch =
            RecordBatch::try_new(schema.clone(), columns).or_fail(|| "the scored rows do not fit together".into())?;
        writer.write(&batch).or_fail(|| format!("cannot write {output}"))?;
        // A row group is held until it is written.
        if writer.in_progress_size() > MAX_GROUP {
            writer.flush().or_fail(|| format!("cannot write {output}"))?;
        }
    }
    writer.into_inner().or_fail(|| format!("cannot write {output}"))?.finish()?;
    Ok(tally)
}

/// Most encoded bytes of a row group, and of the rows read at once.
const MAX_GROUP: usize = 128 << 20;
const MAX_BATCH: i64 = 64 << 20;

/// Rows read at once: few where they are large.
fn batch_size(metadata: &ParquetMetaData) -> usize {
    let largest = metadata.row_groups().iter().map(|group| group.total_byte_size() / group.num_rows().max(1)).max();
    let fit = MAX_BATCH / largest.unwrap_or(0).max(1);
    usize::try_from(fit).unwrap_or(CHUNK).clamp(1, CHUNK)
}

/// The columns that rules may read, without dictionaries.
fn plain(batch: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let column = match column.data_type() {
            DataType::Dictionary(_, values) => arrow::compute::cast(column, values)?,
            _ => column.clone(),
        };
        Ok((field.name().clone(), column))
    });
    RecordBatch::try_from_iter(columns.collect::<std::result::Result<Vec<_>, ArrowError>>()?)
}

fn row(batch: &RecordBatch, i: usize) -> Row {
    let schema = batch.schema();
    schema.fields().iter().zip(batch.columns()).map(|(field, column)| (field.name().clone(), json(column, i))).collect()
}

/// One value as JSON; bytes, and numbers that JSON does not have, are null.
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
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(i)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Value::Null,
        // As it is printed: an f32 of 0.1 is 0.1, and no 64-bit integer is rounded.
        kind if kind.is_numeric() => {
            let text = array_value_to_string(array, i).unwrap_or_default();
            serde_json::from_str::<serde_json::Number>(&text).map_or(Value::Null, Value::Number)
        }
        _ => array_value_to_string(array, i).map_or(Value::Null, Value::String),
    }
}

fn list(items: &ArrayRef) -> Value {
    Value::Array((0..items.len()).map(|i| json(items, i)).collect())
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Float32Array, Int32Array, UInt64Array};
    use arrow::datatypes::{Float64Type, Int32Type};

    use super::*;

    fn write(path: &std::path::Path, batch: &RecordBatch) {
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }

    fn read(path: &std::path::Path) -> RecordBatch {
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap())
            .unwrap()
            .build()
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
    }

    fn rules() -> RuleSet {
        RuleSet::parse("[rules.a]\nkind = \"exact\"\n", "r").unwrap()
    }

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
        write(&input, &batch);
        let (from, to) = (input.to_str().unwrap(), output.to_str().unwrap());
        assert_eq!(score(&rules(), from, to, BadRows::Fail).unwrap().correct, 1);
        let scored = read(&output);
        assert_eq!(scored.column(0), batch.column(0));
        let rewards = scored.column_by_name("reward").unwrap().as_primitive::<Float64Type>();
        assert_eq!((rewards.value(0), rewards.value(1)), (1.0, 0.0));
        assert!(scored.column_by_name("verdicts").unwrap().as_string::<i32>().value(1).contains("not_equal"));
        assert!(score(&rules(), to, from, BadRows::Fail).is_err(), "a scored file is not scored again");
    }

    #[test]
    fn every_way_to_store_texts_and_numbers_is_read_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.parquet"), folder.path().join("out.parquet"));
        let texts = ["0.1", "18446744073709551615"];
        let dictionary: DictionaryArray<Int32Type> = texts.into_iter().collect();
        let golds: [ArrayRef; 6] = [
            Arc::new(LargeStringArray::from(texts.to_vec())),
            Arc::new(StringViewArray::from(texts.to_vec())),
            Arc::new(dictionary.clone()),
            Arc::new(Float32Array::from(vec![0.1, 2.0])),
            Arc::new(UInt64Array::from(vec![3, u64::MAX])),
            Arc::new(arrow::array::Decimal128Array::from(vec![1, 2]).with_precision_and_scale(5, 1).unwrap()),
        ];
        for (gold, correct) in golds.into_iter().zip([2, 2, 2, 1, 1, 1]) {
            let batch =
                RecordBatch::try_from_iter([("completion", Arc::new(dictionary.clone()) as ArrayRef), ("gold", gold)])
                    .unwrap();
            write(&input, &batch);
            let tally = score(&rules(), input.to_str().unwrap(), output.to_str().unwrap(), BadRows::Fail).unwrap();
            let scored = read(&output);
            assert_eq!(tally.correct, correct, "{}", batch.column(1).data_type());
            assert_eq!((scored.column(0), scored.column(1)), (batch.column(0), batch.column(1)));
        }
    }

    #[test]
    fn rows_without_a_completion_fail_are_left_out_or_marked() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.parquet"), folder.path().join("out.parquet"));
        let batch = RecordBatch::try_from_iter([
            ("completion", Arc::new(StringArray::from(vec![Some("4"), None, Some("4")])) as ArrayRef),
            ("gold", Arc::new(Int32Array::from(vec![4, 5, 6])) as ArrayRef),
        ])
        .unwrap();
        write(&input, &batch);
        let (from, to) = (input.to_str().unwrap(), output.to_str().unwrap());
        let error = score(&rules(), from, to, BadRows::Fail).unwrap_err();
        assert!(error.to_string().contains("row 1"), "{error}");
        assert_eq!(score(&rules(), from, to, BadRows::Skip).unwrap().bad, 1);
        assert_eq!(read(&output).column(1).as_ref(), &Int32Array::from(vec![4, 6]) as &dyn Array);
        score(&rules(), from, to, BadRows::Mark).unwrap();
        let scored = read(&output);
        assert_eq!(scored.column(1), batch.column(1));
        assert!(scored.column(2).is_null(1) && !scored.column(2).is_null(2));
        assert!(scored.column(3).as_string::<i32>().value(1).contains("no_completion"));
    }
}
