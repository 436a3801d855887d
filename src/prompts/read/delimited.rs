//! CSV and TSV with a header line; empty cells are null, everything else is text.

use serde_json::{Map, Value};

use super::{Fault, Item, Place, Row, Source};
use crate::{Error, Result};

pub(super) struct Delimited {
    reader: csv::Reader<Box<dyn std::io::BufRead + Send>>,
    path: std::path::PathBuf,
    header: Vec<String>,
    row: u64,
    done: bool,
}

impl Delimited {
    /// Reads the header. An empty file has no rows.
    pub(super) fn new(source: Source, delimiter: u8) -> Result<Self> {
        let path = source.path;
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(source.reader);
        let unusable = |message: String| Error::new(message).in_file(path.display()).at_line(1, None);
        let header = reader.headers().map_err(|e| unusable("cannot read the header line".to_owned()).caused_by(e))?;
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        for (i, name) in header.iter().enumerate() {
            if header[..i].contains(name) {
                return Err(unusable(format!("two columns are named `{name}`")).hint("rename one in the header line"));
            }
        }
        Ok(Delimited { reader, path, header, row: 0, done: false })
    }

    fn step(&mut self) -> Result<Option<Item>> {
        let mut record = csv::ByteRecord::new();
        let outcome = self.reader.read_byte_record(&mut record);
        let place = |position: Option<&csv::Position>, row| Place { row, line: position.map(|p| p.line() as usize) };
        let row = self.row;
        self.row += 1;
        match outcome {
            Ok(false) => Ok(None),
            Ok(true) => {
                let place = place(record.position(), row);
                let mut columns = Map::with_capacity(self.header.len());
                for (name, cell) in self.header.iter().zip(record.iter()) {
                    let Ok(text) = std::str::from_utf8(cell) else {
                        let fault = Fault::new(place, "invalid_utf8", "invalid UTF-8").in_field(name.clone());
                        return Ok(Some(Item::Fault(fault.hint("convert the file to UTF-8, for example with iconv"))));
                    };
                    let value = if text.is_empty() { Value::Null } else { Value::String(text.to_owned()) };
                    columns.insert(name.clone(), value);
                }
                Ok(Some(Item::Row(Row { place, columns })))
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                    let message = format!("the row has {len} cells, the header {expected_len}");
                    let fault = Fault::new(place(pos.as_ref(), row), "ragged_row", message);
                    Ok(Some(Item::Fault(fault.hint("a cell that holds the delimiter or a newline needs quotes"))))
                }
                _ => Err(Error::new("cannot read on in the prompts file")
                    .in_file(self.path.display())
                    .at_line(self.reader.position().line() as usize, None)
                    .hint(super::TRUNCATED)
                    .caused_by(error)),
            },
        }
    }
}

impl Iterator for Delimited {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done = !matches!(step, Some(Ok(_)));
        step
    }
}
