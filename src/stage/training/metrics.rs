//! `metrics.parquet` and `times.parquet`: what every optimizer step measured.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, UInt64Array};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use crate::error::{Context, Result};
pub use crate::store::METRICS;
use crate::store::PendingFile;
use crate::train::StepMetrics;

/// Writes both files into the stage's folder: what a clock measured has one of its own.
///
/// `metrics.parquet` has `step`, every column of [`StepMetrics::COLUMNS`] that some step measured,
/// `reward/RULE` and `reward_std/RULE` for each rule, `loss/GROUP` and `weight/GROUP` for each group.
///
/// # Errors
/// The disk refuses.
pub fn write(folder: &Path, steps: &[StepMetrics]) -> Result<()> {
    let number = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let ids: ArrayRef = Arc::new(UInt64Array::from_iter_values(steps.iter().map(|s| s.step)));
    let mut metrics = vec![("step".to_owned(), Arc::clone(&ids))];
    let mut times = vec![("step".to_owned(), ids)];
    for (index, (name, _)) in StepMetrics::COLUMNS.iter().enumerate() {
        let values: Vec<Option<f64>> = steps.iter().map(|s| s.values()[index]).collect();
        if values.iter().any(Option::is_some) {
            let to = if StepMetrics::WALL_CLOCK.contains(name) { &mut times } else { &mut metrics };
            to.push(((*name).to_owned(), number(values)));
        }
    }
    for rule in names(steps, |s| s.rules.iter().map(|r| r.rule.as_str()).collect()) {
        let of = |s: &StepMetrics| s.rules.iter().find(|r| r.rule == rule).cloned().unwrap_or_default();
        metrics.push((format!("reward/{rule}"), number(steps.iter().map(|s| of(s).mean).collect())));
        metrics.push((format!("reward_std/{rule}"), number(steps.iter().map(|s| of(s).std).collect())));
    }
    for group in names(steps, |s| s.groups.iter().map(|g| g.group.as_str()).collect()) {
        let of = |s: &StepMetrics| s.groups.iter().find(|g| g.group == group).cloned();
        metrics.push((format!("loss/{group}"), number(steps.iter().map(|s| of(s).and_then(|g| g.loss)).collect())));
        metrics.push((format!("weight/{group}"), number(steps.iter().map(|s| of(s).map(|g| g.weight)).collect())));
    }
    write_table(&folder.join(METRICS), metrics)?;
    write_table(&folder.join("times.parquet"), times)
}

fn names(steps: &[StepMetrics], of: impl Fn(&StepMetrics) -> Vec<&str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let all = steps.iter().flat_map(|s| of(s).into_iter().map(str::to_owned).collect::<Vec<_>>());
    all.filter(|name| seen.insert(name.clone())).collect()
}

/// Writes a small table that is no dataset of the contract: whole or not at all.
///
/// # Errors
/// The disk refuses.
pub fn write_table(path: &Path, columns: Vec<(String, ArrayRef)>) -> Result<()> {
    let failed = || "the table cannot be written".to_owned();
    let nullable = columns.into_iter().map(|(name, column)| {
        let nullable = column.null_count() > 0 || name != "step";
        (name, column, nullable)
    });
    let batch = RecordBatch::try_from_iter_with_nullable(nullable).or_fail(failed)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let target = PendingFile::create(path)?;
    let write = || -> Result<()> {
        let mut writer = ArrowWriter::try_new(&target.file, batch.schema(), Some(properties)).or_fail(failed)?;
        writer.write(&batch).or_fail(failed)?;
        writer.close().or_fail(failed).map(drop)
    };
    write().map_err(|e| e.in_file(path.display()))?;
    target.publish()
}

#[cfg(test)]
mod tests {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::train::RuleMetrics;

    #[test]
    fn times_are_kept_apart_and_rules_become_columns() {
        let dir = tempfile::tempdir().unwrap();
        let rule = RuleMetrics { rule: "format".into(), mean: Some(0.5), std: Some(0.1), missing: 0.0 };
        let steps = [
            StepMetrics { step: 0, loss: Some(1.0), update_seconds: Some(0.3), ..StepMetrics::default() },
            StepMetrics { step: 1, rules: vec![rule], ..StepMetrics::default() },
        ];
        write(dir.path(), &steps).unwrap();
        let columns = |file: &str| {
            let file = std::fs::File::open(dir.path().join(file)).unwrap();
            let batch =
                ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().next().unwrap().unwrap();
            batch.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>()
        };
        assert_eq!(columns("metrics.parquet"), ["step", "loss", "reward/format", "reward_std/format"]);
        assert_eq!(columns("times.parquet"), ["step", "update_seconds"]);
    }

    #[test]
    fn a_table_that_cannot_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(METRICS)).unwrap();
        write(dir.path(), &[StepMetrics::default()]).unwrap_err();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [METRICS]);
    }
}
