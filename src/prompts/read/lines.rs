//! JSON Lines: one object a line; blank lines are passed over, a missing last newline is fine.

use std::io::{BufRead, Read};

use super::object::parse_object;
use super::unpack::Unpacked;
use super::{Fault, Item, MAX_ROW_BYTES, Place, Row};
use crate::{Error, Result};

pub(super) struct JsonLines {
    source: Unpacked,
    line: usize,
    row: u64,
    buffer: Vec<u8>,
    done: bool,
}

impl JsonLines {
    pub(super) fn new(source: Unpacked) -> Self {
        JsonLines { source, line: 0, row: 0, buffer: Vec::new(), done: false }
    }

    fn step(&mut self) -> Result<Option<Item>> {
        loop {
            self.buffer.clear();
            let mut limited = self.source.reader.by_ref().take(MAX_ROW_BYTES as u64);
            let read =
                limited.read_until(b'\n', &mut self.buffer).map_err(|e| self.source.error(e, Some(self.line + 1)))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if read == MAX_ROW_BYTES && !self.buffer.ends_with(b"\n") {
                return Err(Error::new(format!("a line is longer than {} MiB", MAX_ROW_BYTES >> 20))
                    .in_file(self.source.path.display())
                    .at_line(self.line, None)
                    .hint("JSON Lines has one object a line; is this file something else?"));
            }
            let bytes = self.buffer.trim_ascii();
            if bytes.is_empty() {
                continue;
            }
            let place = Place { row: self.row, line: Some(self.line) };
            self.row += 1;
            return Ok(Some(match parse_object(bytes, place) {
                Ok(columns) => Item::Row(Row { place, columns }),
                Err(fault) => Item::Fault(lone_array_hint(fault, bytes)),
            }));
        }
    }
}

impl Iterator for JsonLines {
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

/// A pretty-printed JSON file read as lines fails at its first brace: say so.
fn lone_array_hint(fault: Fault, bytes: &[u8]) -> Fault {
    if fault.reason == "bad_json" && matches!(bytes, b"{" | b"[") {
        return fault.hint("the file may be one JSON document rather than one object a line: `format = \"json\"`");
    }
    fault
}
