//! BLAKE3 digests of the files a run reads, remembered by path, size and modification time; of objects,
//! by URL, size and ETag.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::store::{Location, Shard, hash_file};

const FILE: &str = "_digests.json";

/// Digests of input files, kept in the run's folder so that an unchanged file is read once.
pub struct Digests<'a> {
    /// Set once the user has asked to stop: nothing more is read then.
    stop: &'a AtomicBool,
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    /// What changes with the content: nanoseconds of the modification time, or an ETag.
    mark: String,
    blake3: String,
}

impl<'a> Digests<'a> {
    /// What an earlier run of this folder found; a damaged file only costs reading again.
    pub fn load(run_folder: &Location, stop: &'a AtomicBool) -> Self {
        let mut known: BTreeMap<String, Known> = run_folder
            .join(FILE)
            .read_if_exists()
            .ok()
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        // The embedded sample has another path in every run; what is gone need not be remembered.
        known.retain(|path, _| path.contains("://") || Path::new(path).exists());
        Digests { stop, known: Mutex::new(known) }
    }

    /// Asked while files are found and read.
    ///
    /// # Errors
    /// [`Error::interrupted`] once the user has asked to stop.
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Keeps what was found for the next run. That it cannot be kept costs the next one reading again,
    /// and no run: whatever ails the disk is told by what must be written.
    pub fn save(&self, run_folder: &Location) {
        let known = self.known.lock().expect("no holder panics");
        let bytes = serde_json::to_vec_pretty(&*known).expect("digests are plain data");
        let file = run_folder.join(FILE);
        if file.read_if_exists().is_ok_and(|there| there.as_deref() != Some(&bytes[..])) {
            let _ = file.write(bytes);
        }
    }

    /// BLAKE3 of a local file's bytes, as hex.
    pub fn of_file(&self, path: &Path) -> Result<String> {
        let failed = || "the file cannot be read".to_owned();
        let metadata = std::fs::metadata(path)
            .or_fail(failed)
            .map_err(|e| e.in_file(path.display()).hint("paths in a recipe start at the recipe's own folder"))?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mark = modified.map_or(0, |t| t.as_nanos()).to_string();
        self.known_or(path.display().to_string(), metadata.len(), mark, || {
            let mut hasher = blake3::Hasher::new();
            hash_file(&mut hasher, path).or_fail(failed).map_err(|e| e.in_file(path.display()))?;
            Ok(hasher.finalize().to_hex().to_string())
        })
    }

    /// Digest of a file or URL that a recipe names.
    pub fn of_path(&self, path: &str) -> Result<String> {
        if path.contains("://") && !path.starts_with("file://") {
            let location = Location::parse(path)?;
            let object = location
                .look()?
                .ok_or_else(|| Error::new("there is no such object").in_file(&location).hint("check the URL"))?;
            return self.of_object(&location, object.bytes, object.mark.as_deref());
        }
        self.of_file(Path::new(path.strip_prefix("file://").unwrap_or(path)))
    }

    /// Digest of a file of a dataset that no manifest vouches for.
    pub fn of_shard(&self, shard: &Shard) -> Result<String> {
        match shard.location().as_local() {
            Some(path) => self.of_file(path),
            None => self.of_object(shard.location(), shard.bytes(), shard.mark()),
        }
    }

    /// An object is read once for each ETag: there may be gigabytes of it.
    fn of_object(&self, object: &Location, bytes: u64, mark: Option<&str>) -> Result<String> {
        self.known_or(object.to_string(), bytes, mark.unwrap_or_default().to_owned(), || object.blake3())
    }

    fn known_or(&self, key: String, bytes: u64, mark: String, read: impl FnOnce() -> Result<String>) -> Result<String> {
        if let Some(known) = self.known.lock().expect("no holder panics").get(&key)
            && (known.bytes, &known.mark) == (bytes, &mark)
        {
            return Ok(known.blake3.clone());
        }
        self.check_stop()?;
        let blake3 = read()?;
        let known = Known { bytes, mark, blake3: blake3.clone() };
        self.known.lock().expect("no holder panics").insert(key, known);
        Ok(blake3)
    }
}
