//! The bytes of a file, unpacked as they are read. What packs them is told by magic bytes (gzip `1f 8b`, zstd
//! `28 b5 2f fd`), never by name.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::{Error, Result};

/// An unpacked byte stream that knows its file and has lost its byte-order mark.
pub(super) struct Unpacked {
    pub reader: Box<dyn BufRead + Send>,
    pub path: PathBuf,
}

impl Unpacked {
    pub fn new(reader: Box<dyn BufRead + Send>, path: &Path) -> Self {
        Unpacked { reader, path: path.to_owned() }
    }

    /// The first bytes, not consumed; a UTF-8 byte-order mark is.
    pub fn head(&mut self) -> Result<&[u8]> {
        let path = &self.path;
        let broken = |error: std::io::Error| {
            Error::new("cannot read the prompts file").in_file(path.display()).caused_by(error).hint(TRUNCATED)
        };
        if self.reader.fill_buf().map_err(broken)?.starts_with(b"\xef\xbb\xbf") {
            self.reader.consume(3);
        }
        self.reader.fill_buf().map_err(broken)
    }

    /// All of it as a temporary file: for readers that seek.
    pub fn into_file(mut self) -> Result<File> {
        let mut file = tempfile::tempfile().or_fail(|| "cannot make a temporary file".to_owned())?;
        std::io::copy(&mut self.reader, &mut file)
            .and_then(|_| file.seek(SeekFrom::Start(0)))
            .or_fail(|| "cannot unpack the Parquet file".to_owned())
            .map_err(|error| error.in_file(self.path.display()).hint(TRUNCATED))?;
        Ok(file)
    }

    /// An input/output fault with its place: most often a cut-off archive.
    pub fn error(&self, error: std::io::Error, line: Option<usize>) -> Error {
        let mut report = Error::new("cannot read on in the prompts file").in_file(self.path.display()).hint(TRUNCATED);
        if let Some(line) = line {
            report = report.at_line(line, None);
        }
        report.caused_by(error)
    }
}

pub(super) const TRUNCATED: &str =
    "the file may be cut off or damaged; compare its size or checksum with the original's";

/// What packs a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    pub fn reader(self, file: File, path: &Path) -> Result<Box<dyn BufRead + Send>> {
        let file = BufReader::with_capacity(1 << 16, file);
        Ok(match self {
            Compression::None => Box::new(file),
            // Concatenated members are one file, as gzip(1) has it.
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(1 << 17, flate2::bufread::MultiGzDecoder::new(file)))
            }
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(file)
                    .or_fail(|| "cannot start to decompress".to_owned())
                    .map_err(|error| error.in_file(path.display()))?;
                Box::new(BufReader::with_capacity(1 << 17, decoder))
            }
        })
    }
}

/// The first four bytes, not consumed.
pub(super) fn peek(file: &mut File, path: &Path) -> Result<Vec<u8>> {
    let mut magic = Vec::with_capacity(4);
    Read::by_ref(file)
        .take(4)
        .read_to_end(&mut magic)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .or_fail(|| "cannot read the prompts file".to_owned())
        .map_err(|error| error.in_file(path.display()))?;
    Ok(magic)
}
