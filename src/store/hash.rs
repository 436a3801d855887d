//! BLAKE3 of files, read and not mapped: a file that somebody cuts meanwhile is an error, not the end of the process.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use blake3::Hasher;

use crate::error::{Context, Result};

/// Read at once: enough for all cores to hash a part of it.
const CHUNK: usize = 4 << 20;
/// Below this, other cores are not worth waking.
const WORTH_SHARING: usize = 128 << 10;

/// Adds a file's bytes to a hash.
pub(crate) fn hash_file(hasher: &mut Hasher, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(CHUNK);
    let mut chunk = Vec::with_capacity(length.clamp(1, CHUNK));
    loop {
        chunk.clear();
        let read = Read::by_ref(&mut file).take(CHUNK as u64).read_to_end(&mut chunk)?;
        match read {
            0 => return Ok(()),
            small if small < WORTH_SHARING => hasher.update(&chunk),
            _ => hasher.update_rayon(&chunk),
        };
    }
}

/// BLAKE3 of files' bytes, one file after the other, in hex; `what` they are is for an error.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn digest_files<P: AsRef<Path>>(what: &str, files: impl IntoIterator<Item = P>) -> Result<String> {
    let mut hasher = Hasher::new();
    for file in files {
        let file = file.as_ref();
        hash_file(&mut hasher, file)
            .or_fail(|| format!("{what} cannot be read"))
            .map_err(|e| e.in_file(file.display()))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_hash_as_their_bytes_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, WORTH_SHARING - 1, WORTH_SHARING, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let mut hasher = Hasher::new();
            hash_file(&mut hasher, &path).unwrap();
            assert_eq!(hasher.finalize(), blake3::hash(&bytes), "{length} bytes");
        }
    }
}
