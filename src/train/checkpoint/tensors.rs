//! f32 tensors in safetensors files, written and read one at a time.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use crate::error::{Error, Result};
use crate::model::tensor_file::{self, TensorFile};

/// A tensor whose values are fetched only when they are written.
struct Lazy<'a> {
    shape: Vec<usize>,
    read: Box<dyn Fn() -> Vec<f32> + 'a>,
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        (self.read)().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Writes (name, shape, values) triples; only one tensor's values are in memory at a time.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (String, Vec<usize>, Box<dyn Fn() -> Vec<f32> + 'a>)>,
) -> Result<()> {
    tensor_file::write_tensors(path, tensors.map(|(name, shape, read)| (name, Lazy { shape, read })), &[])
}

/// A safetensors file of f32 tensors.
pub struct TensorReader {
    path: PathBuf,
    file: TensorFile,
    bytes: Vec<u8>,
}

impl TensorReader {
    /// # Errors
    /// When the file is missing or no safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(TensorReader { path: path.to_owned(), file: TensorFile::open(path)?, bytes: Vec::new() })
    }

    /// One tensor's values.
    ///
    /// # Errors
    /// When it is missing, of another shape, or not f32.
    pub fn get(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.file.read(name, &mut self.bytes)?;
        let tensor = self.file.info(name).expect("it was just read");
        if tensor.dtype != Dtype::F32 || tensor.shape != shape {
            let (dtype, found) = (tensor.dtype, &tensor.shape);
            let message = format!("`{name}` is {dtype:?} {found:?} where F32 {shape:?} is needed");
            return Err(Error::new(message)
                .in_file(self.path.display())
                .hint("is this a checkpoint of another model?"));
        }
        let (values, rest) = self.bytes.as_chunks();
        debug_assert!(rest.is_empty(), "the header is checked against the shape");
        Ok(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_come_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let values = [1.0f32, -0.0, f32::MIN_POSITIVE / 2.0, f32::NAN, f32::INFINITY, 0.1];
        let one = ("w".to_owned(), vec![2, 3], Box::new(move || values.to_vec()) as Box<dyn Fn() -> Vec<f32>>);
        write_tensors(&path, [one].into_iter()).unwrap();
        let mut reader = TensorReader::open(&path).unwrap();
        let read = reader.get("w", &[2, 3]).unwrap();
        assert_eq!(read.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
        assert!(reader.get("w", &[3, 2]).unwrap_err().to_string().contains("[2, 3] where F32 [3, 2]"));
        assert!(reader.get("v", &[1]).unwrap_err().to_string().contains("no tensor `v`"));
        std::fs::write(&path, "no").unwrap();
        assert!(TensorReader::open(&path).is_err());
    }
}
