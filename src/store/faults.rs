//! What disks and Parquet files do wrong, said so that a person can act on it.

use std::fmt::Display;
use std::io;

use parquet::errors::ParquetError;

use crate::error::Error;

/// Marks an error of a temporary file: the disk at fault is not the one that the bytes are for.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct OfTemporary(io::Error);

/// An error of a temporary file, for [`io_error`] to name the folder of such files.
pub(super) fn of_temporary(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), OfTemporary(error))
}

/// An I/O error with the file and, for the common causes, what to do. Of a temporary file ([`of_temporary`]) the
/// place is the folder of temporary files.
pub(crate) fn io_error(doing: &str, file: impl Display, error: io::Error) -> Error {
    if error.get_ref().is_some_and(|cause| cause.is::<OfTemporary>()) {
        let doing = format!("{doing} {file} by way of a temporary file");
        let hint = "TMPDIR names the folder for temporary files; what goes to an object store waits there";
        return plain_error(&doing, std::env::temp_dir().display(), error).hint(hint);
    }
    plain_error(doing, file, error)
}

fn plain_error(doing: &str, file: impl Display, error: io::Error) -> Error {
    use io::ErrorKind::{FileTooLarge, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let (what, hint) = match error.kind() {
        StorageFull => {
            ("the disk is full", Some("free some space, then run the same command: it continues where it stopped"))
        }
        QuotaExceeded => (
            "the disk quota is used up",
            Some("free some space, then run the same command: it continues where it stopped"),
        ),
        FileTooLarge => (
            "the file would be larger than files may be here",
            Some("raise the limit (`ulimit -f unlimited`), then run the same command: it continues where it stopped"),
        ),
        ReadOnlyFilesystem => ("the file system is read-only", Some("choose another output folder")),
        PermissionDenied => {
            ("permission denied", Some("check who owns the folder and its mode, or choose another one"))
        }
        NotFound => ("there is no such file or folder", Some("check the path")),
        _ => ("", None),
    };
    let message = if what.is_empty() { format!("cannot {doing}: {error}") } else { format!("cannot {doing}: {what}") };
    let mut result = Error::new(message).in_file(file).caused_by(error);
    if let Some(hint) = hint {
        result = result.hint(hint);
    }
    result
}

/// A Parquet or Arrow error while reading, with the file.
pub(super) fn parquet_error(file: impl Display, error: ParquetError) -> Error {
    let text = error.to_string();
    // Arrow wraps the fault of a remote store or disk; those say what happened by themselves.
    let lower = text.to_lowercase();
    let (message, hint) = if lower.contains("utf-8") || lower.contains("utf8") {
        (
            "a text column holds bytes that are not UTF-8",
            "the file is damaged, or was written with a binary column declared as text",
        )
    } else if lower.contains("corrupt footer") || lower.contains("magic") {
        (
            "this is not a Parquet file, or it was cut short",
            "write or download it again; a Parquet file begins and ends with `PAR1`",
        )
    } else if let Some(what) = unsupported(&text) {
        return Error::new(format!("the Parquet file is intact, but {what} is not supported"))
            .in_file(file)
            .hint("write it again with zstd, snappy or gzip compression, or none");
    } else {
        ("the Parquet file is damaged", "write or download it again")
    };
    Error::new(message).in_file(file).caused_by(error).hint(hint)
}

/// What a file is made with that this build does not read, by the reader's words.
fn unsupported(text: &str) -> Option<String> {
    const LEFT_OUT: &str = "Disabled feature at compile time: ";
    const UNKNOWN: &str = "The codec type ";
    if let Some((_, codec)) = text.split_once(LEFT_OUT) {
        return Some(format!("{} compression", codec.trim()));
    }
    let (_, rest) = text.split_once(UNKNOWN)?;
    Some(format!("{} compression", rest.split_whitespace().next()?.to_lowercase()))
}

/// A Parquet error while writing: nearly always the disk's.
pub(super) fn write_error(file: impl Display, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => io_error("write", file, *error),
            Err(source) => Error::new(format!("cannot write: {source}")).in_file(file),
        },
        other => Error::new("cannot write").in_file(file).caused_by(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_of_temporary_files_is_told_from_the_one_the_bytes_are_for() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let told = io_error("write", "s3://bucket/part", of_temporary(full())).render(false);
        assert!(told.contains("cannot write s3://bucket/part by way of a temporary file: the disk is full"), "{told}");
        let folder = std::env::temp_dir().display().to_string();
        assert!(told.contains(&format!("at: {folder}")) && told.contains("TMPDIR"), "{told}");
        let told = io_error("write", "out/part", full()).render(false);
        assert!(told.contains("at: out/part") && !told.contains("TMPDIR"), "{told}");
        let parquet = ParquetError::External(Box::new(of_temporary(full())));
        assert!(write_error("s3://bucket/part", parquet).render(false).contains(&format!("at: {folder}")));
    }

    #[test]
    fn an_intact_file_in_another_compression_is_not_called_damaged() {
        for (said, codec) in [
            ("Disabled feature at compile time: brotli", "brotli"),
            ("Disabled feature at compile time: lz4", "lz4"),
            ("The codec type LZO is not supported yet", "lzo"),
        ] {
            let error = parquet_error("a.parquet", ParquetError::General(said.to_owned())).render(false);
            assert!(error.contains(&format!("{codec} compression is not supported\n")), "{error}");
            assert!(!error.contains("damaged") && error.contains("write it again with zstd"), "{error}");
        }
    }
}
