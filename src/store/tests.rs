use std::fs;
use std::path::Path;

use arrow::array::StringArray;

use super::*;
use crate::schema::{DatasetKind, Outcome, Row, Score, VerdictRow};

fn verdict(i: u32) -> VerdictRow {
    VerdictRow {
        prompt_id: crate::seed::content_id([&(i / 4).to_le_bytes()[..]]),
        sample_index: i % 4,
        completion_id: crate::seed::content_id([&i.to_be_bytes()[..]]),
        reward: (!i.is_multiple_of(3)).then_some(f64::from(i)),
        outcome: Outcome::ALL[i as usize % 3],
        reason: "not_equal".into(),
        scores: (0..i % 3)
            .map(|k| Score {
                rule: "math".into(),
                score: Some(f64::from(k)),
                outcome: Outcome::Wrong,
                reason: "x".into(),
                evidence: None,
            })
            .collect(),
        rules_digest: "r".into(),
    }
}

fn rows(range: std::ops::Range<u32>) -> Vec<VerdictRow> {
    range.map(verdict).collect()
}

fn write(folder: &Path, index: usize, rows: &[VerdictRow], options: WriterOptions) -> ShardInfo {
    let mut writer = ShardWriter::create(&folder.into(), index, DatasetKind::Verdicts, options).unwrap();
    writer.push_rows(rows).unwrap();
    writer.finish().unwrap()
}

fn small_groups() -> WriterOptions {
    WriterOptions { group_rows: 2048, ..WriterOptions::default() }
}

fn read_all(folder: &Path) -> crate::Result<Vec<VerdictRow>> {
    Dataset::open(&folder.into())?.rows_of::<VerdictRow>().collect()
}

#[test]
fn shards_read_back_as_written_and_the_digest_is_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (rows(0..5000), rows(5000..5003));
    let infos = vec![write(folder.path(), 0, &a, small_groups()), write(folder.path(), 1, &b, small_groups())];
    let bytes = fs::read(folder.path().join("part-00000.parquet")).unwrap();
    assert_eq!(infos[0].blake3, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!((infos[0].rows, infos[0].bytes), (5000, bytes.len() as u64));
    let manifest = Manifest::new("v", "verify", Some(DatasetKind::Verdicts), "f", infos);
    manifest.commit(&folder.path().into()).unwrap();
    assert!(manifest.altered(&folder.path().into()).unwrap().is_empty());

    let dataset = Dataset::open(&folder.path().into()).unwrap();
    assert_eq!(dataset.kind().unwrap(), Some(DatasetKind::Verdicts));
    assert_eq!(dataset.rows().unwrap(), 5003);
    assert_eq!(dataset.shards()[0].parquet_metadata().unwrap().num_row_groups(), 3);
    assert_eq!(read_all(folder.path()).unwrap(), [a, b].concat());
}

#[test]
fn a_file_that_is_not_as_it_was_written_is_told_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let infos: Vec<ShardInfo> = (0..4).map(|i| write(folder.path(), i, &rows(0..10), small_groups())).collect();
    let manifest = Manifest::new("v", "verify", Some(DatasetKind::Verdicts), "f", infos);
    let file = |index: usize| folder.path().join(&manifest.shards[index].file);
    let mut bytes = fs::read(file(1)).unwrap();
    bytes[5] ^= 1;
    fs::write(file(1), &bytes).unwrap();
    fs::write(file(2), &bytes[..7]).unwrap();
    fs::remove_file(file(3)).unwrap();
    let told = manifest.altered(&folder.path().into()).unwrap();
    let told: Vec<String> = told.iter().map(|altered| format!("{} {}", altered.file, altered.what)).collect();
    let size = bytes.len();
    assert_eq!(
        told,
        [
            "part-00001.parquet has other bytes than were written".to_owned(),
            format!("part-00002.parquet has 7 bytes of {size}"),
            "part-00003.parquet is gone".to_owned()
        ]
    );
}

#[test]
fn the_bytes_do_not_depend_on_how_the_rows_were_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(0..5000);
    let whole = write(folder.path(), 0, &rows, small_groups());
    for size in [1, 7, 1000, 1024, 3000] {
        let mut writer = ShardWriter::create(&folder.path().into(), 1, DatasetKind::Verdicts, small_groups()).unwrap();
        for rows in rows.chunks(size) {
            writer.push(&VerdictRow::to_batch(rows)).unwrap();
        }
        assert_eq!(writer.finish().unwrap().blake3, whole.blake3, "pushed {size} at a time");
    }
}

/// A row that says that it is long, and lies in no batch with too many others.
struct Long(VerdictRow);

impl Row for Long {
    const KIND: DatasetKind = DatasetKind::Verdicts;

    fn columns() -> &'static [crate::schema::Column] {
        VerdictRow::columns()
    }

    fn to_batch(rows: &[Self]) -> arrow::array::RecordBatch {
        assert!(rows.iter().map(Row::bytes).sum::<usize>() <= 64 << 20, "{} long rows in a batch", rows.len());
        VerdictRow::to_batch(&rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>())
    }

    fn bytes(&self) -> usize {
        if self.0.reason == "endless" { 2 << 30 } else { 2_100_000 }
    }

    fn from_batch(_: &arrow::array::RecordBatch) -> crate::Result<Vec<Self>> {
        unreachable!("only written")
    }
}

#[test]
fn long_rows_are_pushed_a_few_at_a_time_and_the_bytes_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::from(folder.path());
    let whole = write(folder.path(), 0, &rows(0..1100), small_groups());
    let long: Vec<Long> = rows(0..1100).into_iter().map(Long).collect();
    let mut writer = ShardWriter::create(&location, 1, DatasetKind::Verdicts, small_groups()).unwrap();
    writer.push_rows(&long).unwrap();
    assert_eq!(writer.finish().unwrap().blake3, whole.blake3);

    let mut writer = RowWriter::create(&location, 2, small_groups()).unwrap();
    long.into_iter().try_for_each(|row| writer.push(row)).unwrap();
    assert_eq!(writer.rows(), 1100);
    assert_eq!(writer.finish().unwrap().blake3, whole.blake3, "one by one");

    let mut writer = ShardWriter::create(&location, 3, DatasetKind::Verdicts, small_groups()).unwrap();
    let endless = Long(VerdictRow { reason: "endless".into(), ..verdict(0) });
    let error = writer.push_rows(&[Long(verdict(0)), endless]).unwrap_err().render(false);
    assert!(error.contains("part-00003.parquet, row 1") && error.contains("shorten its longest text"), "{error}");
}

#[test]
fn a_writer_that_does_not_finish_leaves_nothing_and_leftovers_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::from(folder.path());
    let mut writer = ShardWriter::create(&location, 0, DatasetKind::Verdicts, WriterOptions::default()).unwrap();
    writer.push_rows(&rows(0..10)).unwrap();
    assert_eq!(sweep_unfinished(&location).unwrap(), 0, "a live writer's file is left alone");
    drop(writer);
    assert!(location.list().unwrap().is_empty());
    fs::write(folder.path().join("part-00003.parquet.tmp-1-1"), "half").unwrap();
    let error = Dataset::open(&location).unwrap_err().render(false);
    assert!(error.contains("did not finish"), "{error}");
    assert_eq!(sweep_unfinished(&location).unwrap(), 1);
    assert!(location.list().unwrap().is_empty());
}

#[test]
fn columns_are_projected_in_the_order_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &rows(0..100), WriterOptions::default());
    let dataset = Dataset::open(&folder.path().into()).unwrap();
    let batch = dataset.batches(Some(DatasetKind::Verdicts), Some(&["reward", "prompt_id"])).next().unwrap().unwrap();
    let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["reward", "prompt_id"]);
}

#[test]
fn hugging_face_layout_opens_by_split() {
    let folder = tempfile::tempdir().unwrap();
    let options = |split: &str| WriterOptions {
        naming: Naming::HuggingFace { split: split.into(), shards: 1 },
        ..WriterOptions::default()
    };
    write(folder.path(), 0, &rows(0..5), options("train"));
    write(folder.path(), 0, &rows(5..7), options("validation"));
    let dataset = Dataset::open(&folder.path().into()).unwrap();
    assert_eq!(dataset.rows().unwrap(), 7);
    assert_eq!(dataset.split("train").shards()[0].name(), "data/train-00000-of-00001.parquet");
    assert_eq!(dataset.split("validation").rows().unwrap(), 2);
}

#[test]
fn broken_files_are_named_and_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &rows(0..3000), small_groups());
    let file = folder.path().join("part-00000.parquet");
    let good = fs::read(&file).unwrap();
    let middle_flipped = {
        let mut bytes = good.clone();
        bytes.iter_mut().take(good.len() / 2).skip(good.len() / 8).for_each(|byte| *byte ^= 0x5a);
        bytes
    };
    let cases = [
        ("empty", Vec::new(), "the file is empty"),
        ("truncated", good[..good.len() / 2].to_vec(), "not a Parquet file"),
        ("wrong magic", b"not parquet at all, but long enough".to_vec(), "not a Parquet file"),
        ("flipped bytes", middle_flipped, "damaged"),
    ];
    for (name, bytes, wanted) in cases {
        fs::write(&file, bytes).unwrap();
        let error = read_all(folder.path()).unwrap_err().render(false);
        assert!(error.contains(wanted) && error.contains("part-00000.parquet"), "{name}: {error}");
        assert!(error.contains("hint:"), "{name}: {error}");
    }
}

#[test]
fn a_missing_or_resized_shard_of_a_manifest_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::from(folder.path());
    let info = write(folder.path(), 0, &rows(0..3), WriterOptions::default());
    let mut manifest = Manifest::new("v", "verify", Some(DatasetKind::Verdicts), "f", vec![info]);
    manifest.drops.insert("too_long".into(), 4);
    manifest.commit(&location).unwrap();
    assert_eq!(Manifest::load(&location).unwrap().unwrap(), manifest);
    let file = folder.path().join("part-00000.parquet");
    fs::write(&file, "short").unwrap();
    assert!(Dataset::open(&location).unwrap_err().to_string().contains("5 bytes where the manifest says"));
    fs::remove_file(&file).unwrap();
    assert!(Dataset::open(&location).unwrap_err().to_string().contains("missing"));
    fs::write(folder.path().join(MANIFEST_FILE), "{\"format\": 9}").unwrap();
    assert!(Manifest::load(&location).unwrap_err().to_string().contains("newer"));
    fs::write(folder.path().join(MANIFEST_FILE), "{\"format\"").unwrap();
    assert!(Manifest::load(&location).unwrap_err().to_string().contains("not a manifest"));
}

fn replayed(file: &Location) -> (Journal, Vec<Vec<u8>>) {
    let mut records = Vec::new();
    let journal = Journal::open(file, SyncPolicy::default(), |_, record| {
        records.push(record.to_vec());
        Ok(())
    });
    (journal.unwrap(), records)
}

#[test]
fn a_journal_torn_at_any_byte_keeps_every_whole_record_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = Location::from(folder.path().join("journal"));
    let written = [b"first".to_vec(), Vec::new(), vec![7; 40]];
    let (mut journal, _) = replayed(&file);
    for record in &written {
        journal.append(record).unwrap();
    }
    drop(journal);
    let bytes = fs::read(file.as_local().unwrap()).unwrap();
    for cut in 0..=bytes.len() {
        fs::write(file.as_local().unwrap(), &bytes[..cut]).unwrap();
        let (mut journal, records) = replayed(&file);
        assert_eq!(records, written[..records.len()], "cut at {cut}");
        let whole: u64 = 8 + records.iter().map(|record| record.len() as u64 + 12).sum::<u64>();
        let torn = if cut < 8 { cut as u64 } else { cut as u64 - whole };
        assert_eq!((journal.lost().tail, journal.lost().torn), (torn, torn > 0), "cut at {cut}");
        assert_eq!(journal.lost().told(&file).is_some(), torn > 0);
        journal.append(b"next").unwrap();
        drop(journal);
        let (_, after) = replayed(&file);
        assert_eq!(after.len(), records.len() + 1, "cut at {cut}");
        assert_eq!(after.last().unwrap(), b"next");
    }
    // A byte that changed costs its record, and no other.
    let place = bytes.len() - 1;
    let changed = |at: usize| [&bytes[..at], &[!bytes[at]], &bytes[at + 1..]].concat();
    let last = written.last().unwrap().len() as u64 + 12;
    fs::write(file.as_local().unwrap(), changed(20)).unwrap();
    let (journal, records) = replayed(&file);
    assert_eq!(records, written[1..]);
    let told = journal.lost().told(&file).unwrap();
    assert!(told.contains("1 damaged records (17 bytes) are passed over"), "{told}");
    drop(journal);
    fs::write(file.as_local().unwrap(), changed(place)).unwrap();
    let (mut journal, records) = replayed(&file);
    assert_eq!(records, written[..2]);
    assert_eq!((journal.lost().tail, journal.lost().torn), (last, false));
    journal.append(b"next").unwrap();
    drop(journal);
    assert_eq!(replayed(&file).1.last().unwrap(), b"next");
    fs::write(file.as_local().unwrap(), "somebody's notes").unwrap();
    assert!(Journal::open(&file, SyncPolicy::default(), |_, _| Ok(())).is_err());
}

#[test]
fn records_read_back_by_their_places_whether_just_written_or_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = Location::from(folder.path().join("journal"));
    let written = [b"head".to_vec(), vec![7; 40], Vec::new(), b"last".to_vec()];
    let (mut journal, _) = replayed(&file);
    let places: Vec<Place> = written.iter().map(|record| journal.append(record).unwrap()).collect();
    let read = |journal: &Journal, places: &[Place]| -> Vec<Vec<u8>> {
        places.iter().rev().map(|&place| journal.read(place).unwrap()).rev().collect()
    };
    assert_eq!(read(&journal, &places), written);
    drop(journal);
    let mut found = Vec::new();
    let journal = Journal::open(&file, SyncPolicy::default(), |place, _| {
        found.push(place);
        Ok(())
    });
    assert_eq!(found, places);
    assert_eq!(read(&journal.unwrap(), &found), written);
    assert_eq!(Journal::first(&file).unwrap().as_deref(), Some(&b"head"[..]));
    assert_eq!(Journal::first(&Location::from(folder.path().join("none"))).unwrap(), None);
}

#[test]
fn an_id_in_two_shards_is_told_with_both_places() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Dataset::open(&folder.path().into()).unwrap();
    write(folder.path(), 0, &rows(0..3000), small_groups());
    write(folder.path(), 1, &rows(3000..5000), small_groups());
    open().require_unique(DatasetKind::Verdicts, "completion_id").unwrap();
    let mut more = rows(3000..5000);
    more.extend(rows(2990..2995));
    write(folder.path(), 1, &more, small_groups());
    let error = open().require_unique(DatasetKind::Verdicts, "completion_id").unwrap_err().to_string();
    assert!(error.contains("part-00000.parquet, row 2990"), "{error}");
    assert!(error.contains("part-00001.parquet, row 2000, column `completion_id`"), "{error}");
}

#[test]
fn files_of_other_programs_bookkeeping_are_no_data() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &rows(0..10), small_groups());
    for name in ["_metadata.parquet", ".part-00000.parquet"] {
        fs::copy(folder.path().join("part-00000.parquet"), folder.path().join(name)).unwrap();
    }
    assert_eq!(Dataset::open(&folder.path().into()).unwrap().rows().unwrap(), 10);
}

#[test]
fn a_journal_of_many_blocks_is_replayed_in_order_with_its_places() {
    let folder = tempfile::tempdir().unwrap();
    let file = Location::from(folder.path().join("journal"));
    let (mut journal, _) = replayed(&file);
    // Records that lie across the ends of the blocks it is read in, and one that is longer than a block.
    let record = |i: usize| vec![i as u8; if i == 20 { 17 << 20 } else { 1_000_003 * (i % 3) + i }];
    let places: Vec<Place> = (0..40).map(|i| journal.append(&record(i)).unwrap()).collect();
    drop(journal);
    let mut found = Vec::new();
    let journal = Journal::open(&file, SyncPolicy::default(), |place, bytes| {
        assert_eq!(bytes, record(found.len()));
        found.push(place);
        Ok(())
    });
    assert_eq!(found, places);
    assert_eq!(journal.unwrap().lost(), crate::store::Lost::default());
}

#[test]
fn a_journal_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let file = Location::from(folder.path().join("journal"));
    assert!(!Journal::is_in_use(&file));
    let (_journal, _) = replayed(&file);
    assert!(Journal::is_in_use(&file));
    let error = Journal::open(&file, SyncPolicy::default(), |_, _| Ok(())).err().unwrap();
    assert!(error.to_string().contains("another process"));
}

#[test]
fn a_lookup_finds_every_row_and_decodes_each_block_once_in_file_order() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &rows(0..5000), small_groups());
    write(folder.path(), 1, &rows(5000..6000), small_groups());
    let dataset = Dataset::open(&folder.path().into()).unwrap();
    let kind = Some(DatasetKind::Verdicts);
    let lookup = Lookup::build(&dataset, kind, "completion_id", None).unwrap().with_cache_bytes(0);
    for i in 0..6000 {
        let row = verdict(i);
        let (batch, at) = lookup.get(&row.completion_id).unwrap().unwrap();
        assert_eq!(VerdictRow::from_batch(&batch.slice(at, 1)).unwrap(), [row]);
    }
    let (decoded, blocks) = lookup.decoded_blocks();
    assert_eq!(decoded, blocks);
    assert!(lookup.get("nobody").unwrap().is_none());
    let error = Lookup::build(&dataset, kind, "prompt_id", None).err().unwrap().to_string();
    assert!(error.contains("twice: also in the same file, row 0") && error.contains("row 1"), "{error}");
}

#[test]
fn locations_join_list_and_write_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse(&format!("file://{}", folder.path().display())).unwrap();
    let file = location.join("a/b.txt");
    assert!(!file.exists().unwrap());
    file.write("one").unwrap();
    file.write("two").unwrap();
    assert_eq!(file.read().unwrap(), "two");
    assert_eq!(location.list().unwrap(), [Entry { name: "a".into(), is_folder: true, bytes: 0, mark: None }]);
    assert_eq!(location.join("a").list().unwrap().len(), 1);
    file.delete().unwrap();
    file.delete().unwrap();
    assert!(file.read().unwrap_err().to_string().contains("no such file"));
    assert_eq!(Location::parse("ftp://x/y").unwrap_err().exit_code(), 2);
    assert_eq!(Location::parse("").unwrap_err().exit_code(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_lookup_gathers_rows_in_the_order_asked_from_scattered_blocks() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, &rows(0..5000), small_groups());
    write(folder.path(), 1, &rows(5000..6000), small_groups());
    let dataset = Dataset::open(&folder.path().into()).unwrap();
    let lookup = Lookup::build(&dataset, Some(DatasetKind::Verdicts), "completion_id", None).unwrap();
    let wanted: Vec<VerdictRow> = (0..7000).map(|i| verdict((i * 2621) % 6000)).collect();
    let ids: StringArray = wanted.iter().map(|row| Some(row.completion_id.as_str())).collect();
    let got = VerdictRow::from_batch(&lookup.gather(&ids).unwrap()).unwrap();
    assert!(got == wanted, "rows come in another order");
    let (decoded, blocks) = lookup.decoded_blocks();
    assert_eq!(decoded, blocks);
    assert_eq!(lookup.gather(&StringArray::from(Vec::<&str>::new())).unwrap().num_rows(), 0);
    let error = lookup.gather(&StringArray::from(vec!["nobody"])).unwrap_err().to_string();
    assert!(error.contains("no row with the id `nobody`"), "{error}");
}

#[test]
fn a_range_of_rows_reads_what_a_scan_has_there() {
    let folder = tempfile::tempdir().unwrap();
    let all = rows(0..5000);
    write(folder.path(), 0, &all, small_groups());
    let dataset = Dataset::open(&folder.path().into()).unwrap();
    for range in [0..5000, 0..0, 2047..2049, 2048..4096, 3000..3001, 4999..5000, 5000..5000] {
        let (start, end) = (range.start as usize, range.end as usize);
        let batches = dataset.shards()[0].rows_in(range.clone(), Some(DatasetKind::Verdicts), None).unwrap();
        let got: Vec<VerdictRow> = batches.flat_map(|batch| VerdictRow::from_batch(&batch.unwrap()).unwrap()).collect();
        assert!(got == all[start..end], "{range:?} has {} rows", got.len());
    }
}

#[test]
fn a_full_disk_is_called_one() {
    use std::io::Write;
    let mut full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = faults::io_error("write", "/dev/full", full.write_all(b"x").unwrap_err()).render(false);
    assert!(error.contains("the disk is full") && error.contains("hint:"), "{error}");
}
