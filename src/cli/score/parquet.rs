//! Parquet rows for `gristmill score`: all columns kept as they are, two added.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::output::Output;
use super::{Bad, BadRows, CHUNK, Tally, judge, parts};
use crate::cli::rows::Fields;
use crate::cli::rows::parquet::{Columns, Tables, schema};
use crate::error::{Context, Error, Result};
use crate::rule::RuleSet;

/// What scoring adds to a row; a row's own columns of these names are replaced.
const ADDED: [&str; 2] = ["reward", "verdicts"];

/// Scores Parquet files, as one table, into another one.
///
/// # Errors
/// Files that are not Parquet, have not the same columns or cannot be written, and rows without a completion unless
/// they are skipped or marked.
pub(super) fn score(rules: &RuleSet, inputs: &[PathBuf], output: &str, handling: BadRows) -> Result<Tally> {
    let own = columns(inputs)?;
    let mut fields: Vec<Arc<Field>> = own.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("reward", DataType::Float64, true)));
    fields.push(Arc::new(Field::new("verdicts", DataType::Utf8, false)));
    let scored_schema = Arc::new(Schema::new_with_metadata(fields, own.metadata().clone()));
    let target = Output::open(output)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(target, scored_schema.clone(), Some(properties))
        .or_fail(|| format!("cannot write {output}"))?;
    let names = own.fields().iter().map(|field| field.name().clone()).collect();
    let mut tally = Tally { columns: names, ..Tally::default() };
    for input in inputs {
        let name = input.display().to_string();
        let mut first = 0;
        for batch in Tables::open(input, CHUNK, None)? {
            let batch = batch?;
            let scored = scored(rules, &batch, &scored_schema, handling, &mut tally, |row, error| {
                error.in_file(&name).at_row(first + row)
            })?;
            first += batch.num_rows() as u64;
            writer.write(&scored).or_fail(|| format!("cannot write {output}"))?;
            // A row group is held until it is written.
            if writer.in_progress_size() > MAX_GROUP {
                writer.flush().or_fail(|| format!("cannot write {output}"))?;
            }
        }
    }
    writer.into_inner().or_fail(|| format!("cannot write {output}"))?.finish()?;
    Ok(tally)
}

/// The columns that all files have, but for those that scoring adds; null where one file's may be.
fn columns(inputs: &[PathBuf]) -> Result<Schema> {
    let mut common: Option<Schema> = None;
    for input in inputs {
        let schema = schema(input)?;
        let kept = schema.fields().iter().filter(|field| !ADDED.contains(&field.name().as_str()));
        let here = Schema::new_with_metadata(kept.cloned().collect::<Vec<_>>(), schema.metadata().clone());
        let Some(before) = common.take() else {
            common = Some(here);
            continue;
        };
        let shape = |schema: &Schema| -> Vec<(String, DataType)> {
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        if shape(&before) != shape(&here) {
            return Err(Error::new("this file has not the columns of the first one")
                .in_file(input.display())
                .hint("score files of different columns one by one"));
        }
        let fields = before.fields().iter().zip(here.fields());
        let fields =
            fields.map(|(a, b)| Arc::new(a.as_ref().clone().with_nullable(a.is_nullable() || b.is_nullable())));
        common = Some(Schema::new_with_metadata(fields.collect::<Vec<_>>(), before.metadata().clone()));
    }
    Ok(common.unwrap_or_else(Schema::empty))
}

/// The rows of a batch that are kept, under the schema that scoring gives them.
fn scored(
    rules: &RuleSet,
    batch: &RecordBatch,
    schema: &SchemaRef,
    handling: BadRows,
    tally: &mut Tally,
    place: impl Fn(u64, Error) -> Error,
) -> Result<RecordBatch> {
    let more = rules.columns();
    let columns = Columns::of(batch, &more);
    let (mut good, mut verdicts, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..batch.num_rows() {
        let row = columns.row(i);
        let bad = match Fields::of(&row) {
            Ok(fields) => {
                good.push(fields.with(&row, &more));
                None
            }
            Err(unfit) => {
                let reason = unfit.reason;
                Some(tally.bad(Bad { reason, error: place(i as u64, unfit.error()) }, handling)?)
            }
        };
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
    let all = kept.iter().all(|kept| *kept);
    let kept = BooleanArray::from(kept);
    let names = batch.schema();
    let own = names.fields().iter().zip(batch.columns()).filter(|(field, _)| !ADDED.contains(&field.name().as_str()));
    let own = own.map(|(_, column)| if all { Ok(column.clone()) } else { arrow::compute::filter(column, &kept) });
    let mut columns: Vec<ArrayRef> =
        own.collect::<std::result::Result<_, _>>().or_fail(|| "bad rows cannot be left out".into())?;
    columns.push(Arc::new(rewards.finish()));
    columns.push(Arc::new(texts.finish()));
    RecordBatch::try_new(schema.clone(), columns).or_fail(|| "the scored rows do not fit together".into())
}

/// Most encoded bytes of a row group.
const MAX_GROUP: usize = 128 << 20;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::slice::from_ref;

    use arrow::array::{
        Array, AsArray, DictionaryArray, Float32Array, Int32Array, LargeStringArray, StringArray, StringViewArray,
        UInt64Array,
    };
    use arrow::datatypes::{Float64Type, Int32Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

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
        let (from, to) = (from_ref(&input), output.to_str().unwrap());
        assert_eq!(score(&rules(), from, to, BadRows::Fail).unwrap().correct, 1);
        let scored = read(&output);
        assert_eq!(scored.column(0), batch.column(0));
        let rewards = scored.column_by_name("reward").unwrap().as_primitive::<Float64Type>();
        assert_eq!((rewards.value(0), rewards.value(1)), (1.0, 0.0));
        assert!(scored.column_by_name("verdicts").unwrap().as_string::<i32>().value(1).contains("not_equal"));
        // A scored file is scored again, here onto itself.
        assert_eq!(score(&rules(), from_ref(&output), to, BadRows::Fail).unwrap().correct, 1);
        assert_eq!(read(&output), scored);
    }

    #[test]
    fn the_shards_of_a_folder_are_one_table() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let table = |names: [&str; 2], gold: i32| {
            RecordBatch::try_from_iter([
                (names[0], Arc::new(StringArray::from(vec!["4"])) as ArrayRef),
                (names[1], Arc::new(Int32Array::from(vec![gold])) as ArrayRef),
            ])
            .unwrap()
        };
        for (name, gold) in [("part-00000.parquet", 4), ("part-00001.parquet", 5), ("_other.parquet", 6)] {
            write(&folder.path().join(name), &table(["completion", "gold"], gold));
        }
        let files = || crate::cli::rows::parquet::files(folder.path().to_str().unwrap()).unwrap().unwrap();
        let tally = score(&rules(), &files(), output.to_str().unwrap(), BadRows::Fail).unwrap();
        assert_eq!((tally.rows, tally.correct, tally.wrong), (2, 1, 1));
        assert_eq!(read(&output).column(1).as_ref(), &Int32Array::from(vec![4, 5]) as &dyn Array);
        write(&folder.path().join("part-00002.parquet"), &table(["completion", "answer"], 4));
        let error = score(&rules(), &files(), output.to_str().unwrap(), BadRows::Fail).unwrap_err();
        assert!(error.to_string().contains("part-00002"), "{error}");
    }

    /// What no rule reads is copied and never looked at.
    #[test]
    fn columns_that_no_rule_reads_are_not_read_as_rows() {
        let logprobs = arrow::array::ListArray::from_iter_primitive::<Float64Type, _, _>([Some([Some(-0.5), None])]);
        let batch = RecordBatch::try_from_iter([
            ("completion", Arc::new(StringArray::from(vec!["4"])) as ArrayRef),
            ("Gold", Arc::new(Int32Array::from(vec![4])) as ArrayRef),
            ("logprobs", Arc::new(logprobs) as ArrayRef),
        ])
        .unwrap();
        assert_eq!(Columns::of(&batch, &[]).row(0).keys().collect::<Vec<_>>(), ["completion", "Gold"]);
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.parquet"), folder.path().join("out.parquet"));
        write(&input, &batch);
        assert_eq!(score(&rules(), &[input], output.to_str().unwrap(), BadRows::Fail).unwrap().correct, 1);
        assert_eq!(read(&output).column(2), batch.column(2));
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
            let tally = score(&rules(), from_ref(&input), output.to_str().unwrap(), BadRows::Fail).unwrap();
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
        let (from, to) = (from_ref(&input), output.to_str().unwrap());
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

    #[test]
    fn gold_is_what_import_reads_of_the_same_column() {
        use arrow::array::{BinaryArray, MapBuilder, StringBuilder};
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.parquet"), folder.path().join("out.parquet"));
        let mut model = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        model.keys().append_value("ground_truth");
        model.values().append_value("4");
        model.append(true).unwrap();
        let columns: [(&str, ArrayRef); 2] =
            [("answer", Arc::new(BinaryArray::from_vec(vec![b"4"]))), ("reward_model", Arc::new(model.finish()))];
        for (name, gold) in columns {
            let texts =
                ["completion", "question"].map(|text| (text, Arc::new(StringArray::from(vec!["4"])) as ArrayRef));
            let batch = RecordBatch::try_from_iter(texts.into_iter().chain([(name, gold)])).unwrap();
            write(&input, &batch);
            assert_eq!(
                score(&rules(), from_ref(&input), output.to_str().unwrap(), BadRows::Fail).unwrap().correct,
                1,
                "{name}"
            );
            let rows = crate::prompts::read::open(&input, crate::prompts::source::Format::Auto).unwrap();
            let read: Vec<_> = rows.map(Result::unwrap).collect();
            let crate::prompts::read::Item::Row(row) = &read[0] else { panic!("a fault") };
            assert_eq!(Fields::of(&row.columns).unwrap().gold.as_deref(), Some("4"), "{name}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let (input, output) = (folder.path().join("in.parquet"), folder.path().join("out.parquet"));
        let words: DictionaryArray<Int32Type> = (0..400).map(|i| ["4", "5", "six"][i % 3]).collect();
        let lists = (0..400).map(|i| Some([Some(1), None, Some(i)]));
        let lists = arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        let texts: Vec<String> = (0..400).map(|i| format!("{}", i % 50)).collect();
        let batch = RecordBatch::try_from_iter([
            ("completion", Arc::new(StringArray::from(texts)) as ArrayRef),
            ("gold", Arc::new(words) as ArrayRef),
            ("other", Arc::new(lists) as ArrayRef),
        ])
        .unwrap();
        write(&input, &batch);
        let bytes = std::fs::read(&input).unwrap();
        let mut errors = 0;
        for broken in crate::store::broken_copies(&bytes) {
            std::fs::write(&input, &broken).unwrap();
            if let Err(error) = score(&rules(), from_ref(&input), output.to_str().unwrap(), BadRows::Skip) {
                errors += 1;
                assert!(error.to_string().contains("in.parquet"), "{error}");
            }
        }
        assert!(errors > 50, "{errors} of 400 were found out");
    }
}
