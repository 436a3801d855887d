//! Objects as local files, for what reads paths: rule files, recordings, models.

use std::io::Write;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use super::Location;
use super::faults::io_error;
use super::location::Place;
use super::pending::PendingFile;
use super::remote::{remote_error, wait};
use crate::error::{Error, Result};

/// Where copies of objects lie: the user's cache folder, `XDG_CACHE_HOME` or `~/.cache`.
fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    user.unwrap_or_else(std::env::temp_dir).join("gristmill")
}

/// A path as it is; for a URL, the path of a copy of the object (see [`Location::fetch`]).
///
/// # Errors
/// As [`Location::fetch`]; the URL is of no kind that is known.
pub(crate) fn local_file(path: &str) -> Result<String> {
    if !path.contains("://") {
        return Ok(path.to_owned());
    }
    Ok(Location::parse(path)?.fetch(&cache())?.display().to_string())
}

impl Location {
    /// The folder on the local disk: itself, or copies of the objects directly in it, in the user's cache.
    ///
    /// # Errors
    /// There is nothing in the folder; the disk or store refuses.
    pub fn local_folder(&self) -> Result<PathBuf> {
        self.fetch_folder(&cache())
    }

    /// The file on the local disk: itself, or a copy of the object below `cache`, fetched once for each
    /// version of it (told by its ETag and size).
    ///
    /// # Errors
    /// There is no such object, or the disk or store refuses.
    pub fn fetch(&self, cache: &Path) -> Result<PathBuf> {
        if let Place::Local(path) = self.place() {
            return Ok(path.clone());
        }
        let Some(entry) = self.look()? else {
            return Err(Error::new("there is no such object").in_file(self).hint("check the URL"));
        };
        let version = format!("{self}\n{}\n{}", entry.mark.as_deref().unwrap_or_default(), entry.bytes);
        let copy = cache.join(short_hash(&version)).join(self.file_name());
        self.copy_to(&copy, entry.bytes)?;
        Ok(copy)
    }

    /// The folder on the local disk, with the files that lie directly in it; see [`Location::fetch`].
    fn fetch_folder(&self, cache: &Path) -> Result<PathBuf> {
        if let Place::Local(path) = self.place() {
            return Ok(path.clone());
        }
        let entries = self.list()?;
        let files = || entries.iter().filter(|entry| !entry.is_folder);
        if files().next().is_none() {
            return Err(Error::new("there is nothing in this folder").in_file(self).hint("check the URL"));
        }
        let mut version = self.to_string();
        files().for_each(|file| version += &format!("\n{}\n{:?}\n{}", file.name, file.mark, file.bytes));
        // The last part of its path is what a model is called.
        let copy = cache.join(short_hash(&version)).join(self.file_name());
        files().try_for_each(|file| self.join(&file.name).copy_to(&copy.join(&file.name), file.bytes))?;
        Ok(copy)
    }

    fn copy_to(&self, copy: &Path, bytes: u64) -> Result<()> {
        let Place::Remote { store, path, .. } = self.place() else { return Ok(()) };
        if std::fs::metadata(copy).is_ok_and(|metadata| metadata.len() == bytes) {
            return Ok(());
        }
        let mut pending = PendingFile::create(copy)?;
        let (store, path, name) = (store.clone(), path.clone(), self.to_string());
        let pending = wait(async move {
            let failed = |e| remote_error("read", &name, e);
            let mut chunks = store.get(&path).await.map_err(failed)?.into_stream();
            while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
                pending.file.write_all(&chunk).map_err(|e| io_error("write a copy of", &name, e))?;
            }
            Ok::<_, Error>(pending)
        })?;
        pending.publish()
    }
}

fn short_hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}
