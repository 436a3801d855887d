//! Safetensors files: read a tensor at a time, written whole.
//!
//! Files are read and not mapped: one that is cut short under us is then an error, and not a signal that ends the
//! process.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::View;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Context, Error, Result};

/// Bytes before the header, which say how long it is.
const PREFIX: usize = 8;
/// Longest header that is read, as the format has it.
const MOST_HEADER: u64 = 100_000_000;

/// A file whose tensors are where its header says.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors begin.
    start: u64,
}

impl TensorFile {
    /// Reads the header.
    ///
    /// # Errors
    /// A file that cannot be read, is no safetensors file, or is of another length than its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).or_fail(|| format!("cannot open {}", path.display()))?;
        let (metadata, start) =
            header(&mut file).map_err(|e| e.in_file(path.display()).hint("was the download or copy cut short?"))?;
        Ok(TensorFile { path: path.to_owned(), file, metadata, start })
    }

    /// Names of the tensors, in the order in which they lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Type, shape and place of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(name)
    }

    /// Replaces `bytes` by those of a tensor, little-endian, as [`TensorFile::info`] says.
    ///
    /// # Errors
    /// There is no such tensor, or the file cannot be read.
    pub fn read(&mut self, name: &str, bytes: &mut Vec<u8>) -> Result<()> {
        let fail = |e: Error| e.in_file(self.path.display());
        let info = self.metadata.info(name).ok_or_else(|| fail(Error::new(format!("no tensor `{name}`"))))?;
        let (begin, end) = info.data_offsets;
        bytes.resize(end - begin, 0);
        let at = SeekFrom::Start(self.start + begin as u64);
        let read = self.file.seek(at).and_then(|_| self.file.read_exact(bytes));
        read.or_fail(|| format!("tensor `{name}` cannot be read"))
            .map_err(|e| fail(e).hint("has another process changed the file?"))
    }
}

/// What the header says, and where it ends.
fn header(file: &mut File) -> Result<(Metadata, u64)> {
    let damaged = || "damaged safetensors file".to_owned();
    let length = file.metadata().or_fail(damaged)?.len();
    let mut prefix = [0; PREFIX];
    file.read_exact(&mut prefix).or_fail(damaged)?;
    let bytes = u64::from_le_bytes(prefix);
    let start = PREFIX as u64 + bytes.min(MOST_HEADER);
    if bytes > MOST_HEADER || start > length {
        return Err(Error::new(damaged()));
    }
    let mut text = vec![0; bytes as usize];
    file.read_exact(&mut text).or_fail(damaged)?;
    // Offsets, shapes and types are checked against each other as it is parsed.
    let metadata: Metadata = serde_json::from_slice(&text).or_fail(damaged)?;
    let data = metadata.data_len() as u64;
    if length - start != data {
        let message = format!("{}: its tensors take {data} bytes, and {} are there", damaged(), length - start);
        return Err(Error::new(message));
    }
    Ok((metadata, start))
}

/// Writes tensors, one in memory at a time, to a file that appears whole or not at all.
///
/// # Errors
/// The disk refuses.
pub fn write_tensors<S: AsRef<str> + Ord + Display, V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (S, V)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let failed = || format!("cannot write {}", path.display());
    safetensors::serialize_to_file(tensors, Some(metadata), path).or_fail(failed)?;
    open_to_others(path).or_fail(failed)
}

/// Gives a file the permissions of any other new one. It was written through a temporary file, which is its owner's
/// alone; a server under another user is to read it too.
fn open_to_others(path: &Path) -> std::io::Result<()> {
    let plain = path.with_extension("permissions");
    let permissions = File::create(&plain)?.metadata()?.permissions();
    std::fs::remove_file(&plain)?;
    std::fs::set_permissions(path, permissions)
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::*;

    /// Two tensors of three and of one number.
    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("a.safetensors");
        let (a, b) = ([1.0f32, -2.0, 0.5], [7.0f32]);
        let view = |values| {
            TensorView::new(
                Dtype::F32,
                vec![bytemuck::cast_slice::<f32, u8>(values).len() / 4],
                bytemuck::cast_slice(values),
            )
        };
        write_tensors(&path, [("a", view(&a[..]).unwrap()), ("b", view(&b[..]).unwrap())], &[]).unwrap();
        path
    }

    #[test]
    fn tensors_are_read_one_by_one_into_the_same_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TensorFile::open(&written(dir.path())).unwrap();
        let mut bytes = Vec::new();
        for (name, values) in [("a", &[1.0f32, -2.0, 0.5][..]), ("b", &[7.0]), ("a", &[1.0, -2.0, 0.5])] {
            file.read(name, &mut bytes).unwrap();
            assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(values), "{name}");
        }
        assert!(file.read("c", &mut bytes).unwrap_err().to_string().contains("no tensor `c`"));
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error_before_and_after_it_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path());
        let mut open = TensorFile::open(&path).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        for cut in [length - 4, 40, 8, 3, 0] {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
            let error = TensorFile::open(&path).err().unwrap().render(false);
            assert!(error.contains("damaged") && error.contains("cut short"), "{cut}: {error}");
        }
        let last = open.names().pop().unwrap();
        let error = open.read(&last, &mut Vec::new()).unwrap_err().render(false);
        assert!(error.contains("cannot be read") && error.contains("another process"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn whoever_may_read_other_files_may_read_these() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let other = dir.path().join("other");
        std::fs::write(&other, "").unwrap();
        assert_eq!(mode(&written(dir.path())), mode(&other));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }
}
