//! Files to rows: opens a file, tells its compression and format, and streams its rows as JSON objects.
//!
//! A fault of one row is data ([`Item::Fault`]), so that the caller decides whether it stops the stage; a fault of the
//! file is an [`Error`].

mod delimited;
mod json;
mod lines;
mod object;
mod parquet;
mod row;
mod unpack;

use std::path::{Path, PathBuf};

use self::unpack::{Compression, Unpacked, peek};
use super::source::Format;
use crate::store::Location;
use crate::{Error, Result};

pub(super) use self::object::kind;
pub use self::row::{Fault, Item, Place, Row};

/// Longest single row that is read, in bytes: a guard against files that are no text at all.
pub const MAX_ROW_BYTES: usize = 256 << 20;

/// Streams the rows of one file.
pub struct Rows {
    items: Box<dyn Iterator<Item = Result<Item>> + Send>,
    /// What the file turned out to be.
    pub format: Format,
    /// Whether the file says that it is of a dataset of `prompts`.
    pub is_prompts: bool,
}

impl Iterator for Rows {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.items.next()
    }
}

/// Opens a local file. Rows are read as they are asked for.
///
/// # Errors
/// As [`open_at`].
pub fn open(path: &Path, format: Format) -> Result<Rows> {
    open_at(&Location::from(path), format, None)
}

/// Opens a file, fetching it first if it is an object of a store. `field` is the key of a JSON document under
/// which the rows are. Rows are read as they are asked for.
///
/// # Errors
/// The file does not open, its compression or Parquet footer is broken, its
/// format cannot be told, (JSON) several lists could be the rows, or (CSV) its header is unusable.
pub fn open_at(location: &Location, format: Format, field: Option<&str>) -> Result<Rows> {
    let mut file = location.open()?;
    let path = &PathBuf::from(location.to_string());
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(Error::new("this is a folder, a file is wanted").in_file(path.display()));
    }
    let magic = peek(&mut file, path)?;
    let compression = Compression::of(&magic);
    if compression == Compression::None && is_parquet(&magic, path, format) {
        return parquet::rows(file, path);
    }
    let mut reader = Unpacked::new(compression.reader(file, path)?, path);
    let head = reader.head()?;
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(Error::new("the prompts file is UTF-16")
            .in_file(path.display())
            .hint("convert it to UTF-8, for example with `iconv -f UTF-16 -t UTF-8`"));
    }
    if is_parquet(head, path, format) {
        // Its reader seeks.
        return parquet::rows(reader.into_file()?, path);
    }
    let format = match format {
        Format::Auto => text_format(path, head)?,
        given => given,
    };
    let items: Box<dyn Iterator<Item = Result<Item>> + Send> = match format {
        Format::Jsonl => Box::new(lines::JsonLines::new(reader)),
        Format::Json => json::rows(reader, field)?,
        Format::Csv => Box::new(delimited::Delimited::new(reader, b',')?),
        Format::Tsv => Box::new(delimited::Delimited::new(reader, b'\t')?),
        Format::Parquet | Format::Auto => unreachable!("Parquet left above, auto was told apart"),
    };
    Ok(Rows { items, format, is_prompts: false })
}

/// By magic, or because the name or the recipe says so: then a wrong magic is the Parquet reader's error.
fn is_parquet(head: &[u8], path: &Path, format: Format) -> bool {
    match format {
        Format::Parquet => true,
        Format::Auto => head.starts_with(b"PAR1") || extension(path).as_deref() == Some("parquet"),
        _ => false,
    }
}

/// The extension below `.gz` and `.zst`, in lower case.
fn extension(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    name.rsplit_once('.').map(|(_, extension)| extension.to_owned())
}

/// Whether a folder's file is one of ours, by its name.
pub(super) fn is_data_file(path: &Path) -> bool {
    matches!(extension(path).as_deref(), Some("jsonl" | "ndjson" | "json" | "csv" | "tsv" | "parquet"))
}

fn text_format(path: &Path, head: &[u8]) -> Result<Format> {
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    match (extension(path).as_deref(), first) {
        (Some("jsonl" | "ndjson"), Some(b'[')) => Ok(Format::Json),
        (Some("jsonl" | "ndjson"), _) => Ok(Format::Jsonl),
        // Many a `.json` file of the field holds one object a line.
        (Some("json"), Some(b'{')) if json::is_lines(head) => Ok(Format::Jsonl),
        (Some("json"), _) => Ok(Format::Json),
        (Some("csv"), _) => Ok(Format::Csv),
        (Some("tsv"), _) => Ok(Format::Tsv),
        (_, Some(b'{')) => Ok(Format::Jsonl),
        (_, Some(b'[')) => Ok(Format::Json),
        _ => Err(Error::new("cannot tell what format the prompts file is in")
            .in_file(path.display())
            .hint("say it in the source: `format = \"jsonl\"`, `json`, `csv`, `tsv` or `parquet`")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    pub(crate) fn write(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn questions(path: &Path, format: Format) -> Vec<String> {
        open(path, format)
            .unwrap()
            .map(|item| match item.unwrap() {
                Item::Row(row) => row.columns["q"].as_str().unwrap().to_owned(),
                Item::Fault(fault) => format!("!{} {:?}", fault.reason, fault.place.line),
            })
            .collect()
    }

    #[test]
    fn every_text_format_yields_the_same_rows_packed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let jsonl = b"\xef\xbb\xbf{\"q\": \"a\"}\n\n{\"q\": \"b\"}".as_slice();
        let cases: [(&str, &[u8]); 8] = [
            ("a.jsonl", jsonl),
            ("b.json", b"[{\"q\":\"a\"},\n {\"q\":\"b\"}]"),
            ("c.json", b"{\"data\": [{\"q\":\"a\"}, {\"q\":\"b\"}]}"),
            ("d.json", b"{\n \"x1\": {\"q\":\"a\"},\n \"x2\": {\"q\":\"b\"}}"),
            ("e.csv", b"q,n\na,1\nb,2\n"),
            ("f.tsv", b"q\tn\r\na\t1\r\nb\t2\r\n"),
            ("g.json", b"{\"q\": \"a\"}\n{\"q\": \"b\"}\n"),
            ("h", b"{\"q\": \"a\"}\n{\"q\": \"b\"}\n"),
        ];
        for (name, bytes) in cases {
            assert_eq!(questions(&write(&dir, name, bytes), Format::Auto), ["a", "b"], "{name}");
            // The name lies about the packing on purpose: magic decides.
            assert_eq!(
                questions(&write(&dir, &format!("{name}.zst"), &gzip(bytes)), Format::Auto),
                ["a", "b"],
                "{name} gzip"
            );
            let packed = zstd::encode_all(bytes, 1).unwrap();
            assert_eq!(questions(&write(&dir, name, &packed), Format::Auto), ["a", "b"], "{name} zstd");
        }
    }

    #[test]
    fn a_document_of_several_lists_wants_to_be_told_which() {
        let dir = tempfile::tempdir().unwrap();
        let splits = write(
            &dir,
            "a.json",
            br#"{"version": 2, "train": [{"q": "a"}], "test": [{"q": "b"}], "other": [{"q": "c"}]}"#,
        );
        let text = open(&splits, Format::Auto).err().unwrap().render(false);
        assert!(
            text.contains("several lists") && text.contains("train, test") && text.contains("`field = \"train\"`"),
            "{text}"
        );
        let read = |field: &str| -> Vec<Item> {
            let rows = open_at(&Location::from(splits.as_path()), Format::Auto, Some(field)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        for (field, question) in [("test", "b"), ("other", "c")] {
            assert!(matches!(&read(field)[..], [Item::Row(row)] if row.columns["q"] == question), "{field}");
        }
        let error = open_at(&Location::from(splits.as_path()), Format::Auto, Some("dev")).err().unwrap();
        assert!(error.render(false).contains("lists are under train, test, other"), "{error:?}");
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let open = b"q,a\nWhat is one?,1\nWhat is two?,\"2\nWhat is three?,3\nWhat is four?,4\n";
        assert_eq!(questions(&write(&dir, "a.csv", open), Format::Auto), ["What is one?", "!open_quote Some(3)"]);
        let long: String = (0..5_000).map(|i| format!("row {i},\"he said \"\"{i}\"\"\"\r\n")).collect();
        let fine = format!("q,a\n{long}last,\"a\nb\"");
        assert_eq!(questions(&write(&dir, "b.csv", fine.as_bytes()), Format::Auto).len(), 5_001);
        let opened = format!("q,a\n{long}last,\"a\nb");
        let read = questions(&write(&dir, "c.csv", opened.as_bytes()), Format::Auto);
        assert_eq!((read.len(), read[5_000].as_str()), (5_001, "!open_quote Some(5002)"));
    }

    #[test]
    fn a_cut_off_archive_is_an_error_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..5_000).map(|i| format!("{{\"q\": \"question {}\"}}\n", i * 7919)).collect();
        let packed = gzip(text.as_bytes());
        let path = write(&dir, "a.jsonl.gz", &packed[..packed.len() / 2]);
        let error = open(&path, Format::Auto).unwrap().find_map(Result::err).expect("half a file is not whole");
        assert!(error.render(false).contains("may be cut off"), "{error:?}");
    }

    #[test]
    fn faults_name_their_line_and_reading_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, "a.jsonl", b"{\"q\": \"a\"}\n{\"q\": tru}\n{\"q\": \"\xff\"}\n[1]\n{\"q\": \"b\"}\n");
        assert_eq!(
            questions(&path, Format::Auto),
            ["a", "!bad_json Some(2)", "!invalid_utf8 Some(3)", "!not_an_object Some(4)", "b"]
        );
    }

    #[test]
    fn deep_nesting_is_a_fault_not_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let deep = format!("{{\"q\": {}", "[".repeat(200_000));
        assert_eq!(questions(&write(&dir, "a.jsonl", deep.as_bytes()), Format::Auto), ["!bad_json Some(1)"]);
        let array = write(&dir, "a.json", format!("[{}", "[".repeat(200_000)).as_bytes());
        let error = open(&array, Format::Auto).unwrap().find_map(Result::err).expect("the array is not closed");
        assert!(error.to_string().contains("the file ends inside it"), "{error}");
    }

    #[test]
    fn a_damaged_parquet_file_is_an_error_wherever_it_is_damaged() {
        use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
        use arrow::datatypes::Int64Type;
        let dir = tempfile::tempdir().unwrap();
        let questions: Vec<String> = (0..400).map(|i| format!("question {} is what", i % 50)).collect();
        let lists = (0..400).map(|i| Some([Some(1), None, Some(i)]));
        let batch = arrow::array::RecordBatch::try_from_iter([
            ("q", std::sync::Arc::new(StringArray::from(questions)) as ArrayRef),
            ("n", std::sync::Arc::new(Int64Array::from_iter_values(0..400)) as ArrayRef),
            ("l", std::sync::Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)) as ArrayRef),
        ])
        .unwrap();
        let mut bytes = Vec::new();
        let mut writer = ::parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let mut errors = 0;
        for broken in crate::store::broken_copies(&bytes) {
            let path = write(&dir, "a.parquet", &broken);
            let read = open(&path, Format::Auto).and_then(|rows| rows.collect::<Result<Vec<_>>>());
            if let Err(error) = read {
                errors += 1;
                assert!(error.to_string().contains("a.parquet"), "{error}");
            }
        }
        assert!(errors > 100, "{errors} of 400 were found out");
    }

    #[test]
    fn unknown_formats_folders_and_missing_files_are_clear_errors() {
        let dir = tempfile::tempdir().unwrap();
        let text = |path: &Path| open(path, Format::Auto).err().unwrap().render(false);
        assert!(text(&write(&dir, "notes", b"hello")).contains("hint: say it in the source: `format"));
        assert!(text(dir.path()).contains("folder"));
        assert!(text(&dir.path().join("nothing.jsonl")).contains("there is no such file"));
        assert!(text(&write(&dir, "fake.parquet", b"not at all parquet")).contains("this is not a Parquet file"));
        assert!(text(&write(&dir, "cut.parquet", b"PAR1\x00\x01")).contains("Parquet file"));
    }
}
