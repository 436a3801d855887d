//! Rule files as their authors use them: probes in CI, and datasets that lie in folders of shards.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use crate::support::{gristmill, repository};

#[test]
fn probes_whose_reward_is_meant_are_allowed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let rules = repository("rules/gsm8k.toml").display().to_string();
    let audit = |more: &[&str]| gristmill(folder.path(), [&["rules", "audit", rules.as_str()], more].concat());
    let found = audit(&[]);
    assert_eq!(found.code, Some(1), "{}", found.story());
    let hint = found.stderr.lines().find(|line| line.contains("--allow ")).expect("a hint that says how");
    let allowed: Vec<&str> = hint.split_whitespace().skip_while(|word| *word != "--allow").collect();
    assert!(audit(&allowed).succeeded().stdout.contains("(allowed)"));
    assert_eq!(audit(&allowed[2..]).code, Some(1));
    let mistyped = audit(&["--allow", "many_boxs"]);
    assert!(mistyped.code == Some(2) && mistyped.stderr.contains("`many_boxes`"), "{}", mistyped.story());
}

fn shard(path: &Path, completion: &str) {
    let texts = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let columns = [("completion", texts(completion)), ("gold", texts("4")), ("note", texts("kept"))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn folders_of_shards_are_scored_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("rows")).unwrap();
    shard(&path.join("rows/part-00000.parquet"), "4");
    shard(&path.join("rows/part-00001.parquet"), "The answer is 4.");
    std::fs::write(path.join("a.toml"), "[rules.a]\nkind = \"exact\"\n").unwrap();
    std::fs::write(path.join("b.toml"), "[rules.a]\nkind = \"exact\"\nstrict = true\n").unwrap();
    let scored = gristmill(path, ["score", "--rules", "a.toml", "rows", "-o", "scored.parquet"]).succeeded();
    assert!(scored.stderr.contains("2 rows: 2 correct"), "{}", scored.story());
    // Its own output is input too; a reward that is there is replaced.
    let again = gristmill(path, ["score", "--rules", "b.toml", "scored.parquet", "-o", "scored.parquet"]).succeeded();
    assert!(again.stderr.contains("2 rows: 1 correct, 1 wrong"), "{}", again.story());
    for rows in ["rows", "scored.parquet"] {
        let diff = gristmill(path, ["rules", "diff", "a.toml", "b.toml", "--on", rows]).succeeded();
        assert!(diff.stderr.contains("1 of 2 rows change"), "{}", diff.story());
        assert!(diff.stdout.contains("row 1:"), "{}", diff.story());
    }
}
