//! JSON documents: an array of rows is streamed element by element; an object that holds the rows is read whole.

use std::io::{BufRead, Read};

use serde_json::{Map, Value};

use super::object::{kind, parse_object};
use super::unpack::{TRUNCATED, Unpacked};
use super::{Fault, Item, MAX_ROW_BYTES, Place, Row};
use crate::{Error, Result};

/// Largest object-of-rows document; arrays and JSON Lines have no such limit.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;

/// Keys under which files of the field keep their list of rows.
const WRAPPERS: [&str; 12] = [
    "data",
    "rows",
    "examples",
    "instances",
    "items",
    "problems",
    "questions",
    "prompts",
    "train",
    "test",
    "validation",
    "dev",
];

/// The rows of a JSON document; of an object those under `field`, if one is given.
pub(super) fn rows(mut source: Unpacked, field: Option<&str>) -> Result<Box<dyn Iterator<Item = Result<Item>> + Send>> {
    let mut line = 1;
    loop {
        let head = source
            .reader
            .fill_buf()
            .map_err(|e| Error::new("cannot read the prompts file").in_file(source.path.display()).caused_by(e))?;
        match head.first() {
            None => return Ok(Box::new(std::iter::empty())),
            Some(b'[') => {
                source.reader.consume(1);
                return Ok(Box::new(Elements { source, line, row: 0, state: State::First }));
            }
            Some(byte) if byte.is_ascii_whitespace() => {
                line += usize::from(*byte == b'\n');
                source.reader.consume(1);
            }
            Some(_) => return whole(source, line, field),
        }
    }
}

/// Whether a `.json` file is JSON Lines: its first line is an object by itself and another follows.
pub(super) fn is_lines(head: &[u8]) -> bool {
    let Some(end) = head.iter().position(|&byte| byte == b'\n') else { return false };
    let next = head[end..].iter().find(|byte| !byte.is_ascii_whitespace());
    serde_json::from_slice::<Map<String, Value>>(&head[..end]).is_ok() && next == Some(&b'{')
}

/// Streams the elements of a top-level array: finds where each ends, then parses it alone,
/// so that a fault inside one element does not lose the next.
struct Elements {
    source: Unpacked,
    line: usize,
    row: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    First,
    Next,
    Done,
}

impl Elements {
    /// The next byte that is not white space, not consumed.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            let buffer = self.source.reader.fill_buf();
            let first =
                buffer.map(|buffer| buffer.first().copied()).map_err(|e| self.source.error(e, Some(self.line)))?;
            match first {
                Some(byte) if byte.is_ascii_whitespace() => {
                    self.line += usize::from(byte == b'\n');
                    self.source.reader.consume(1);
                }
                other => return Ok(other),
            }
        }
    }

    /// Bytes up to the comma or bracket that ends the element.
    fn element(&mut self) -> Result<Vec<u8>> {
        let (mut bytes, mut depth, mut in_string, mut escaped) = (Vec::new(), 0u64, false, false);
        loop {
            let buffer = match self.source.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => return Err(self.source.error(error, Some(self.line))),
            };
            if buffer.is_empty() {
                return Err(self.broken("the array is not closed: the file ends inside it"));
            }
            let mut end = None;
            for (i, &byte) in buffer.iter().enumerate() {
                if in_string {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => in_string = false,
                        _ => {}
                    }
                    continue;
                }
                match byte {
                    b'"' => in_string = true,
                    b'[' | b'{' => depth += 1,
                    b',' | b']' | b'}' if depth == 0 => {
                        end = Some(i);
                        break;
                    }
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
            }
            let used = end.unwrap_or(buffer.len());
            bytes.extend_from_slice(&buffer[..used]);
            self.source.reader.consume(used);
            if end.is_some() {
                return Ok(bytes);
            }
            if bytes.len() > MAX_ROW_BYTES {
                return Err(self.broken(&format!("a row is longer than {} MiB", MAX_ROW_BYTES >> 20)));
            }
        }
    }

    fn broken(&self, message: &str) -> Error {
        Error::new(message).in_file(self.source.path.display()).at_line(self.line, None).hint(TRUNCATED)
    }

    fn step(&mut self) -> Result<Option<Item>> {
        match self.peek()? {
            Some(b']') => {
                self.source.reader.consume(1);
                return match self.peek()? {
                    None => Ok(None),
                    Some(_) => Err(self.broken("text after the end of the array")),
                };
            }
            Some(b',') if self.state == State::Next => {
                self.source.reader.consume(1);
                self.peek()?;
            }
            None => return Err(self.broken("the array is not closed: the file ends inside it")),
            Some(_) => {}
        }
        let place = Place { row: self.row, line: Some(self.line) };
        let bytes = self.element()?;
        if bytes.is_empty() && self.peek()? == Some(b'}') {
            return Err(self.broken("a brace closes what no brace opened"));
        }
        self.row += 1;
        self.line += bytes.iter().filter(|&&byte| byte == b'\n').count();
        Ok(Some(match parse_object(&bytes, place) {
            Ok(columns) => Item::Row(Row { place, columns }),
            Err(fault) => Item::Fault(fault),
        }))
    }
}

impl Iterator for Elements {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        let step = self.step().transpose();
        self.state = if matches!(step, Some(Ok(_))) { State::Next } else { State::Done };
        step
    }
}

/// `{"data": [rows]}`, `{"id": {row}, …}`, or one row alone.
fn whole(
    mut source: Unpacked,
    line: usize,
    field: Option<&str>,
) -> Result<Box<dyn Iterator<Item = Result<Item>> + Send>> {
    let mut bytes = Vec::new();
    let read = source.reader.by_ref().take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes);
    let read = read.map_err(|e| source.error(e, None))?;
    if read as u64 == MAX_DOCUMENT_BYTES {
        return Err(Error::new("a JSON object of more than 1 GiB is not read whole")
            .in_file(source.path.display())
            .hint("write it as JSON Lines or as an array of rows: both are streamed"));
    }
    let place = Place { row: 0, line: Some(line) };
    let document = match parse_object(&bytes, place) {
        Ok(document) => document,
        // A first line too long to see its end: one object a line after all.
        Err(fault) if fault.message.contains("trailing characters") => {
            source.reader = Box::new(std::io::Cursor::new(bytes));
            return Ok(Box::new(super::lines::JsonLines::new(source)));
        }
        Err(fault) => return Ok(Box::new(std::iter::once(Ok(Item::Fault(fault))))),
    };
    let is_rows =
        |value: &Value| value.as_array().is_some_and(|rows| !rows.is_empty() && rows.iter().all(Value::is_object));
    let lists: Vec<&str> = document.iter().filter(|(_, value)| is_rows(value)).map(|(key, _)| key.as_str()).collect();
    let usual: Vec<&str> = lists.iter().copied().filter(|key| WRAPPERS.contains(key)).collect();
    let wrapped = match (field, &usual[..]) {
        (Some(field), _) if document.get(field).is_some_and(Value::is_array) => Some(field.to_owned()),
        (Some(field), _) => {
            let error = Error::new(format!("there is no list of rows under `{field}`")).in_file(source.path.display());
            return Err(match lists.is_empty() {
                true => error.hint("no key of this document holds a list of rows"),
                false => error.hint(format!("lists are under {}", lists.join(", "))),
            });
        }
        (None, []) => None,
        (None, [only]) => Some((*only).to_owned()),
        (None, [first, ..]) => {
            let message = format!("several lists of rows are in this document: {}", usual.join(", "));
            return Err(Error::new(message).in_file(source.path.display()).hint(format!(
                "say in the source which to read: `field = \"{first}\"`; another source may read another"
            )));
        }
    };
    let values: Vec<Value> = if let Some(key) = wrapped {
        match document.into_iter().find(|(name, _)| *name == key) {
            Some((_, Value::Array(rows))) => rows,
            _ => Vec::new(),
        }
    } else if document.len() > 1 && document.values().all(Value::is_object) {
        document.into_iter().map(|(_, row)| row).collect()
    } else {
        vec![Value::Object(document)]
    };
    Ok(Box::new(values.into_iter().enumerate().map(|(row, value)| {
        // Lines inside the document are not known any more.
        let place = Place { row: row as u64, line: None };
        Ok(match value {
            Value::Object(columns) => Item::Row(Row { place, columns }),
            other => {
                let message = format!("a row must be a JSON object, this is {}", kind(&other));
                Item::Fault(Fault::new(place, "not_an_object", message))
            }
        })
    })))
}
