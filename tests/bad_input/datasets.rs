//! Datasets that are not what they should be: damaged Parquet, other columns, rows that do not belong together.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::refused;
use crate::support::{gristmill, manifest, repository};

/// The golden datasets of version 1 and a rule file, as files a user may have got from anywhere.
fn golden() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for kind in ["prompts", "completions", "verdicts", "groups"] {
        let file = format!("{kind}.parquet");
        std::fs::copy(repository(&format!("datasets/golden/v1/{file}")), folder.path().join(&file)).unwrap();
    }
    std::fs::copy(repository("rules/gsm8k.toml"), folder.path().join("rules.toml")).unwrap();
    folder
}

fn read(file: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

fn write(file: &Path, batch: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(File::create(file).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// The batch with one column taken away, and another in its place if one is given.
fn with_column(batch: &RecordBatch, name: &str, put: Option<(&str, ArrayRef)>) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let mut columns: Vec<(String, ArrayRef, bool)> =
        columns.map(|(f, c)| (f.name().clone(), Arc::clone(c), f.is_nullable())).collect();
    let at = columns.iter().position(|(n, ..)| n == name).unwrap();
    columns.remove(at);
    columns.extend(put.map(|(name, array)| (name.to_owned(), array, true)));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

const VERIFY: [&str; 9] = [
    "verify",
    "--prompts",
    "prompts.parquet",
    "--completions",
    "completions.parquet",
    "--rules",
    "rules.toml",
    "--output",
    "out",
];

#[test]
fn the_golden_datasets_themselves_are_fine() {
    gristmill(golden().path(), VERIFY).succeeded();
}

#[test]
fn a_truncated_parquet_file_is_told() {
    let folder = golden();
    let file = folder.path().join("completions.parquet");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_told!(refused(folder.path(), &VERIFY));
}

#[test]
fn a_file_that_only_claims_to_be_parquet_is_told() {
    let folder = golden();
    std::fs::write(folder.path().join("prompts.parquet"), "question,answer\nWhat is 1 + 1?,2\n").unwrap();
    assert_told!(refused(folder.path(), &VERIFY));
}

#[test]
fn a_damaged_page_is_told() {
    let folder = golden();
    let file = folder.path().join("completions.parquet");
    let mut bytes = std::fs::read(&file).unwrap();
    // The first pages, well before the footer.
    bytes[4..200].fill(0xff);
    std::fs::write(&file, bytes).unwrap();
    let said = refused(folder.path(), &VERIFY);
    assert!(said.starts_with("exit 1\n") && said.contains("completions.parquet"), "{said}");
}

#[test]
fn a_dataset_of_another_kind_is_told_by_the_column_it_lacks() {
    let folder = golden();
    std::fs::copy(folder.path().join("verdicts.parquet"), folder.path().join("completions.parquet")).unwrap();
    assert_told!(refused(folder.path(), &VERIFY));
}

#[test]
fn a_renamed_column_is_told_with_the_name_it_has() {
    let folder = golden();
    let file = folder.path().join("completions.parquet");
    let batch = read(&file);
    let text = Arc::clone(batch.column_by_name("finish_reason").unwrap());
    write(&file, &with_column(&batch, "finish_reason", Some(("finish_reasons", text))));
    assert_told!(refused(folder.path(), &VERIFY));
}

/// A golden dataset with these words in a column of its two rows.
fn with_words(folder: &Path, kind: &str, column: &str, words: [&str; 2]) {
    let file = folder.join(format!("{kind}.parquet"));
    let words: ArrayRef = Arc::new(StringArray::from(words.to_vec()));
    write(&file, &with_column(&read(&file), column, Some((column, words))));
}

const SELECT: [&str; 5] = ["select", "--groups", "groups.parquet", "--output", "out"];

#[test]
fn a_word_that_nobody_knows_is_told_by_whatever_stage_reads_it() {
    let folder = golden();
    with_words(folder.path(), "groups", "outcome", ["correct", "Correct"]);
    assert_told!(refused(folder.path(), &SELECT));
    let folder = golden();
    with_words(folder.path(), "completions", "finish_reason", ["stop", "halted"]);
    let said = refused(folder.path(), &VERIFY);
    assert!(said.contains("`halted` is no finish reason") && said.contains("row 1"), "{said}");
}

#[test]
fn a_cut_is_one_in_any_programs_word() {
    let folder = golden();
    with_words(folder.path(), "groups", "outcome", ["correct"; 2]);
    with_words(folder.path(), "groups", "finish_reason", ["max_tokens", "stop"]);
    gristmill(folder.path(), SELECT).succeeded();
    assert_eq!(manifest(&folder.path().join("out/1_select"))["drops"], serde_json::json!({ "truncated": 1 }));
}

#[test]
fn a_column_of_another_type_is_told() {
    let folder = golden();
    let file = folder.path().join("prompts.parquet");
    let batch = read(&file);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..batch.num_rows() as i64));
    write(&file, &with_column(&batch, "gold", Some(("gold", numbers))));
    assert_told!(refused(folder.path(), &VERIFY));
}

#[test]
fn an_id_that_occurs_twice_is_told() {
    let folder = golden();
    let file = folder.path().join("prompts.parquet");
    let batch = read(&file);
    write(&file, &concat_batches(&batch.schema(), [&batch, &batch]).unwrap());
    assert_told!(refused(folder.path(), &VERIFY));
}

#[test]
fn a_completion_of_a_prompt_that_is_not_there_is_told() {
    let folder = golden();
    let file = folder.path().join("prompts.parquet");
    let batch = read(&file);
    write(&file, &batch.slice(0, 0));
    assert_told!(refused(folder.path(), &VERIFY));
}

#[test]
fn a_dataset_without_rows_makes_a_dataset_without_rows() {
    let folder = golden();
    let file = folder.path().join("completions.parquet");
    let batch = read(&file);
    write(&file, &batch.slice(0, 0));
    gristmill(folder.path(), VERIFY).succeeded();
    assert_eq!(manifest(&folder.path().join("out/1_verify"))["rows"], 0);
}

#[test]
fn a_prompt_file_in_parquet_without_rows_is_told() {
    let folder = golden();
    let batch = read(&folder.path().join("prompts.parquet"));
    write(&folder.path().join("empty.parquet"), &batch.slice(0, 0));
    let args = ["prompts", "--set", "sources=[{ path = \"empty.parquet\" }]", "--output", "out"];
    assert_told!(refused(folder.path(), &args));
}

#[test]
fn verdicts_of_other_completions_are_told() {
    let folder = golden();
    let file = folder.path().join("verdicts.parquet");
    let batch = read(&file);
    let rows = batch.num_rows() as u32;
    let backwards = arrow::array::UInt32Array::from_iter_values((0..rows).rev());
    write(&file, &arrow::compute::take_record_batch(&batch, &backwards).unwrap());
    let args = [
        "group",
        "--prompts",
        "prompts.parquet",
        "--completions",
        "completions.parquet",
        "--verdicts",
        "verdicts.parquet",
        "--output",
        "out",
    ];
    assert_told!(refused(folder.path(), &args));
}

#[test]
fn a_folder_without_parquet_files_is_told() {
    let folder = golden();
    std::fs::create_dir(folder.path().join("nothing")).unwrap();
    let args = ["export", "--set", "input=nothing", "--set", "format=messages", "--output", "out"];
    assert_told!(refused(folder.path(), &args));
    assert_told!(refused(folder.path(), &["inspect", "nowhere"]));
}
