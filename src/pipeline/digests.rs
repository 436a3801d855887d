//! BLAKE3 digests of the files a run reads, remembered by path, size and modification time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::store::Location;

const FILE: &str = "_digests.json";

/// Digests of input files, kept in the run's folder so that an unchanged file is read once.
pub struct Digests {
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    modified_ns: u128,
    blake3: String,
}

impl Digests {
    /// What an earlier run of this folder found; a damaged file only costs reading again.
    pub fn load(run_folder: &Location) -> Self {
        let mut known: BTreeMap<String, Known> = run_folder
            .join(FILE)
            .read_if_exists()
            .ok()
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        // The embedded sample has another path in every run; what is gone need not be remembered.
        known.retain(|path, _| Path::new(path).exists());
        Digests { known: Mutex::new(known) }
    }

    /// Keeps what was found for the next run.
    pub fn save(&self, run_folder: &Location) -> Result<()> {
        let known = self.known.lock().expect("no holder panics");
        let bytes = serde_json::to_vec_pretty(&*known).expect("digests are plain data");
        let file = run_folder.join(FILE);
        if file.read_if_exists()?.as_deref() == Some(&bytes[..]) {
            return Ok(());
        }
        file.write(bytes)
    }

    /// BLAKE3 of a local file's bytes, as hex.
    pub fn of_file(&self, path: &Path) -> Result<String> {
        let failed = || "the file cannot be read".to_owned();
        let metadata = std::fs::metadata(path)
            .or_fail(failed)
            .map_err(|e| e.in_file(path.display()).hint("paths in a recipe start at the recipe's own folder"))?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let modified_ns = modified.map_or(0, |t| t.as_nanos());
        let key = path.display().to_string();
        if let Some(known) = self.known.lock().expect("no holder panics").get(&key)
            && (known.bytes, known.modified_ns) == (metadata.len(), modified_ns)
        {
            return Ok(known.blake3.clone());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path).or_fail(failed).map_err(|e| e.in_file(path.display()))?;
        let blake3 = hasher.finalize().to_hex().to_string();
        let known = Known { bytes: metadata.len(), modified_ns, blake3: blake3.clone() };
        self.known.lock().expect("no holder panics").insert(key, known);
        Ok(blake3)
    }

    /// Digest of a file or URL that a recipe names.
    pub fn of_path(&self, path: &str) -> Result<String> {
        if path.contains("://") && !path.starts_with("file://") {
            let bytes = Location::parse(path)?.read()?;
            return Ok(blake3::hash(&bytes).to_hex().to_string());
        }
        self.of_file(Path::new(path.strip_prefix("file://").unwrap_or(path)))
    }
}
