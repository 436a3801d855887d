//! CSV and TSV with a header line; empty cells are null, everything else is text.

use std::io::{BufRead, Read};

use serde_json::{Map, Value};

use super::{Fault, Item, MAX_ROW_BYTES, Place, Row, Source};
use crate::{Error, Result};

pub(super) struct Delimited {
    reader: csv::Reader<Quotes>,
    path: std::path::PathBuf,
    header: Vec<String>,
    row: u64,
    done: bool,
}

impl Delimited {
    /// Reads the header. An empty file has no rows.
    pub(super) fn new(source: Source, delimiter: u8) -> Result<Self> {
        let path = source.path;
        let mut reader =
            csv::ReaderBuilder::new().delimiter(delimiter).from_reader(Quotes::new(source.reader, delimiter));
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
                if let Some(fault) = self.unclosed(place) {
                    return Ok(Some(Item::Fault(fault)));
                }
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
                    if let Some(fault) = self.unclosed(place(pos.as_ref(), row)) {
                        return Ok(Some(Item::Fault(fault)));
                    }
                    let message = format!("the row has {len} cells, the header {expected_len}");
                    let fault = Fault::new(place(pos.as_ref(), row), "ragged_row", message);
                    Ok(Some(Item::Fault(fault.hint("a cell that holds the delimiter or a newline needs quotes"))))
                }
                csv::ErrorKind::Io(cause) if cause.kind() == std::io::ErrorKind::FileTooLarge => {
                    Err(Error::new(cause.to_string())
                        .in_file(self.path.display())
                        .at_line(self.reader.get_ref().opened, None)
                        .hint("a quote inside a cell is written twice; is one of them missing?"))
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

impl Delimited {
    /// The fault of a row that the file's end closed.
    fn unclosed(&self, place: Place) -> Option<Fault> {
        let quotes = self.reader.get_ref();
        (quotes.ended && quotes.state == State::Quoted).then(|| {
            let message = "a quote is never closed: this row goes on to the end of the file";
            let fault = Fault::new(Place { line: Some(quotes.opened), ..place }, "open_quote", message);
            fault.hint("a quote inside a cell is written twice, and the cell stands in quotes")
        })
    }
}

/// Follows the quotes of what is read: the parser takes the end of the file for a closing quote.
struct Quotes {
    reader: Box<dyn BufRead + Send>,
    delimiter: u8,
    state: State,
    /// 1-based line of the byte last seen.
    line: usize,
    /// The line where the last quoted cell began, and its bytes so far.
    opened: usize,
    length: usize,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    CellStart,
    Cell,
    Quoted,
    /// After a quote in a quoted cell: a second one makes a quotation mark of it.
    QuoteInQuoted,
}

impl Quotes {
    fn new(reader: Box<dyn BufRead + Send>, delimiter: u8) -> Self {
        Quotes { reader, delimiter, state: State::CellStart, line: 1, opened: 1, length: 0, ended: false }
    }

    fn follow(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::CellStart, b'"') => {
                    (self.opened, self.length) = (self.line, 0);
                    State::Quoted
                }
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::QuoteInQuoted, b'"') => State::Quoted,
                (State::Quoted, _) => State::Quoted,
                (_, b'\n' | b'\r') => State::CellStart,
                (_, byte) if byte == self.delimiter => State::CellStart,
                _ => State::Cell,
            };
            self.line += usize::from(byte == b'\n');
        }
        self.length += bytes.len();
    }
}

impl Read for Quotes {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(out)?;
        self.ended |= read == 0 && !out.is_empty();
        self.follow(&out[..read]);
        if self.state == State::Quoted && self.length > MAX_ROW_BYTES {
            let message = format!("a quoted cell is longer than {} MiB", MAX_ROW_BYTES >> 20);
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
        }
        Ok(read)
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
