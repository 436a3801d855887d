//! CSV and TSV with a header line; empty cells are null, everything else is text.

use std::io::{BufRead, Read};

use serde_json::{Map, Value};

use super::unpack::{TRUNCATED, Unpacked};
use super::{Fault, Item, MAX_ROW_BYTES, Place, Row};
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
    pub(super) fn new(source: Unpacked, delimiter: u8) -> Result<Self> {
        Self::with_limit(source, delimiter, MAX_ROW_BYTES)
    }

    fn with_limit(source: Unpacked, delimiter: u8, most: usize) -> Result<Self> {
        let path = source.path;
        let quotes = Quotes::new(source.reader, delimiter, most);
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(quotes);
        let unusable = |message: String| Error::new(message).in_file(path.display()).at_line(1, None);
        let header = match reader.headers() {
            Ok(header) => header.iter().map(|name| name.trim().to_owned()).collect::<Vec<_>>(),
            Err(error) => {
                let too_long = reader.get_ref().too_long(&path);
                return Err(
                    too_long.unwrap_or_else(|| unusable("cannot read the header line".to_owned()).caused_by(error))
                );
            }
        };
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
                _ => Err(self.reader.get_ref().too_long(&self.path).unwrap_or_else(|| {
                    Error::new("cannot read on in the prompts file")
                        .in_file(self.path.display())
                        .at_line(self.reader.position().line() as usize, None)
                        .hint(TRUNCATED)
                        .caused_by(error)
                })),
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

/// Follows the quotes of what is read: the parser takes the end of the file for a closing quote, and a row of any length.
struct Quotes {
    reader: Box<dyn BufRead + Send>,
    delimiter: u8,
    state: State,
    /// 1-based line of the byte last seen.
    line: usize,
    /// The line where the row began, and its bytes so far.
    began: usize,
    length: usize,
    /// Most bytes of a row.
    most: usize,
    /// The line where the last quoted cell began.
    opened: usize,
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
    fn new(reader: Box<dyn BufRead + Send>, delimiter: u8, most: usize) -> Self {
        Quotes {
            reader,
            delimiter,
            state: State::CellStart,
            line: 1,
            began: 1,
            length: 0,
            most,
            opened: 1,
            ended: false,
        }
    }

    fn follow(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.line += usize::from(byte == b'\n');
            self.length += 1;
            self.state = match (self.state, byte) {
                (State::CellStart, b'"') => {
                    self.opened = self.line;
                    State::Quoted
                }
                (State::Quoted, b'"') => State::QuoteInQuoted,
                (State::QuoteInQuoted, b'"') => State::Quoted,
                (State::Quoted, _) => State::Quoted,
                (_, b'\n' | b'\r') => {
                    (self.began, self.length) = (self.line, 0);
                    State::CellStart
                }
                (_, byte) if byte == self.delimiter => State::CellStart,
                _ => State::Cell,
            };
        }
    }

    /// The error of a row that is too long, once there is one.
    fn too_long(&self, path: &std::path::Path) -> Option<Error> {
        if self.length <= self.most {
            return None;
        }
        let (what, line, hint) = match self.state {
            State::Quoted => (
                "a row with an open quote",
                self.opened,
                "a quote inside a cell is written twice; is one of them missing?",
            ),
            _ => ("a row", self.began, "a row ends with its line; is this file something else?"),
        };
        let message = format!("{what} is longer than {} MiB", self.most >> 20);
        Some(Error::new(message).in_file(path.display()).at_line(line, None).hint(hint))
    }
}

impl Read for Quotes {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(out)?;
        self.ended |= read == 0 && !out.is_empty();
        self.follow(&out[..read]);
        // The parser passes this on, and whoever asked it says what `too_long` has.
        if self.length > self.most { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(read) }
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

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1 << 20;

    fn read(text: String) -> (usize, Option<String>) {
        let source = Unpacked::new(Box::new(std::io::Cursor::new(text)), std::path::Path::new("a.csv"));
        let rows = Delimited::with_limit(source, b',', MOST).map(|rows| rows.collect::<Vec<_>>());
        let steps = rows.unwrap_or_else(|error| vec![Err(error)]);
        let error = steps.iter().find_map(|step| step.as_ref().err()).map(|error| error.render(false));
        (steps.iter().filter(|step| matches!(step, Ok(Item::Row(_)))).count(), error)
    }

    #[test]
    fn a_row_that_never_ends_is_an_error_with_its_line() {
        let long = "x".repeat(MOST + 1);
        let cases = [
            (long.clone(), "a.csv:1", "something else"),
            (format!("q,a\n1,2\n{long}"), "a.csv:3", "something else"),
            (format!("q,a\n1,2\n\"a\",{}", "y,".repeat(MOST)), "a.csv:3", "something else"),
            (format!("q,a\r\n1,\"a\nb\"\r\n1,\"{}", "x\n".repeat(MOST)), "a.csv:4", "written twice"),
        ];
        for (text, place, hint) in cases {
            let error = read(text).1.expect("too long");
            assert!(error.contains("longer than 1 MiB") && error.contains(place) && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn many_rows_are_no_long_row() {
        let rows = |row: &str| read(format!("q,a\n{}", row.repeat(MOST / 4)));
        assert_eq!(rows("1,\"a\"\n"), (MOST / 4, None));
        assert_eq!(rows("1,\"\"\"\n\"\r\n"), (MOST / 4, None));
    }
}
