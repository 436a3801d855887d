//! Local files that appear whole: written under a temporary name, flushed to the disk, then renamed.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::Location;
use super::faults::io_error;
use crate::error::Result;

/// Marks temporary files; see [`sweep_unfinished`].
const TEMPORARY: &str = ".tmp-";

/// A file under a temporary name beside its own; dropped without [`PendingFile::publish`], it is removed.
pub(crate) struct PendingFile {
    /// What is written; it gets its name by [`PendingFile::publish`].
    pub file: fs::File,
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

/// Temporary files this process is writing, which a sweep must leave alone.
static LIVE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

impl PendingFile {
    /// Begins a file; the folders above it are made.
    pub fn create(target: &Path) -> Result<PendingFile> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        /// Two machines (or containers) that share a folder may have processes of one number.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        make_folder(folder_of(target))?;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        name.push(format!("{TEMPORARY}{:016x}-{unique}", *PROCESS));
        let temporary = target.with_file_name(name);
        live().insert(temporary.clone());
        match fs::File::create(&temporary) {
            Ok(file) => Ok(PendingFile { file, temporary, target: target.to_owned(), published: false }),
            Err(e) => {
                live().remove(&temporary);
                Err(io_error("write", target.display(), e))
            }
        }
    }

    /// Flushes the file to the disk and gives it its name; the folder is flushed too.
    pub fn publish(mut self) -> Result<()> {
        let fail = |e| io_error("write", self.target.display(), e);
        self.file.sync_all().map_err(fail)?;
        fs::rename(&self.temporary, &self.target).map_err(fail)?;
        self.published = true;
        // Makes the rename itself durable.
        sync_folder(folder_of(&self.target)).map_err(fail)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.published {
            // Best effort: a leftover is swept when the stage starts again.
            let _ = fs::remove_file(&self.temporary);
        }
        live().remove(&self.temporary);
    }
}

fn live() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what killed writers left in the folder and its `data` folder; returns how many files.
///
/// Call it when no other process writes there; shards being written by this process are left alone.
///
/// # Errors
/// The disk refuses.
pub fn sweep_unfinished(folder: &Location) -> Result<usize> {
    let mut removed = 0;
    for folder in [folder.clone(), folder.join("data")] {
        let Some(path) = folder.as_local() else { continue };
        for entry in folder.list()?.iter().filter(|entry| !entry.is_folder && entry.name.contains(TEMPORARY)) {
            let file = path.join(&entry.name);
            if !live().contains(&file) {
                fs::remove_file(&file).map_err(|e| io_error("delete", file.display(), e))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the folder and those above it, so that they outlive a power cut.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    let fail = |e| io_error("make the folder", folder.display(), e);
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(folder).map_err(fail)?;
    missing.iter().try_for_each(|made| sync_folder(folder_of(made))).map_err(fail)
}

/// Makes files that another library wrote into a folder durable, as [`Location::write`] does of its own.
///
/// # Errors
/// The disk refuses.
pub(crate) fn sync_files(folder: &Path) -> Result<()> {
    let fail = |e| io_error("write", folder.display(), e);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.is_file() {
            fs::File::open(&path).and_then(|file| file.sync_all()).map_err(|e| io_error("write", path.display(), e))?;
        }
    }
    sync_folder(folder).map_err(fail)
}

/// Makes what was created or renamed in a folder durable; some file systems cannot open folders, and need not.
pub(super) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    let Ok(folder) = fs::File::open(folder) else { return Ok(()) };
    folder.sync_all().or_else(|e| if e.kind() == std::io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })
}
