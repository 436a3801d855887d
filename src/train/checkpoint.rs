//! Checkpoints: folders that appear whole or not at all.
//!
//! ```text
//! ROOT/step-00000120/          renamed here when complete: that rename is the commit
//!     checkpoint.json          the manifest: step, metric, every file with size and BLAKE3
//!     trainer.json             counters and data position
//!     model/                   weights and config in Hugging Face form; reference/ likewise
//!     optimizer.safetensors    moments
//! ROOT/.step-00000120.tmp      being written; removed when the folder is next opened
//! ROOT/.step-00000120.old      being removed; likewise
//! ROOT/.step-00000120.replaced gives way to one of the same step; put back if that never came
//! ```
//!
//! Everything is flushed to disk before the rename, and the root folder after it, so a kill or a
//! power cut at any moment leaves the previous checkpoints and nothing half-written under a name
//! that is read.

mod tensors;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
pub use tensors::{TensorReader, write_tensors};

use crate::error::{Context, Error, Result};
use crate::store::hash_file;

/// A folder of checkpoints of one run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    root: PathBuf,
    /// Newest checkpoints kept; at least 1.
    keep_last: usize,
}

/// One committed checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Its folder, `step-` and the step in 8 digits.
    pub path: PathBuf,
    /// Optimizer steps done.
    pub step: u64,
    /// What held-out evaluation gave at this step, higher is better; `None` if it was not evaluated.
    pub metric: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    step: u64,
    metric: Option<f64>,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    /// Path below the checkpoint, `/` between folders.
    name: String,
    bytes: u64,
    blake3: String,
}

const MANIFEST: &str = "checkpoint.json";
const VERSION: u32 = 1;

impl Checkpoints {
    /// Opens or makes the folder and removes what an interrupted write or removal left. One process at a time.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(root: impl Into<PathBuf>, keep_last: usize) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).or_fail(|| "cannot make the checkpoint folder".into()).map_err(|e| at(e, &root))?;
        for (name, path) in entries(&root)? {
            let replaced = name.strip_suffix(".replaced").map(|name| root.join(name.trim_start_matches('.')));
            if let Some(committed) = replaced.filter(|committed| name.starts_with(".step-") && !committed.exists()) {
                // Killed between the two renames that replace a checkpoint: the old one is whole.
                fs::rename(&path, &committed)
                    .or_fail(|| "cannot put a checkpoint back".into())
                    .map_err(|e| at(e, &path))?;
            } else if name.starts_with(".step-") {
                fs::remove_dir_all(&path)
                    .or_fail(|| "cannot remove an unfinished checkpoint".into())
                    .map_err(|e| at(e, &path))?;
            }
        }
        let checkpoints = Checkpoints { root, keep_last: keep_last.max(1) };
        // A kill between a commit and what it makes superfluous: no later commit may come to do it.
        checkpoints.prune()?;
        Ok(checkpoints)
    }

    /// Commits what `write` puts into the folder it is given, then removes checkpoints that are
    /// neither among the newest nor the best by metric.
    ///
    /// # Errors
    /// When `write` fails or the disk does; the checkpoints committed before are untouched.
    pub fn commit(
        &self,
        step: u64,
        metric: Option<f64>,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Checkpoint> {
        let path = self.root.join(format!("step-{step:08}"));
        let temporary = self.root.join(format!(".step-{step:08}.tmp"));
        let disk = |result: io::Result<()>| {
            result.or_fail(|| format!("cannot write the checkpoint of step {step}")).map_err(|e| at(e, &temporary))
        };
        if temporary.exists() {
            disk(fs::remove_dir_all(&temporary))?;
        }
        disk(fs::create_dir_all(&temporary))?;
        write(&temporary)?;
        let mut files = Vec::new();
        list_files(&temporary, "", &mut files)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let manifest = Manifest { version: VERSION, step, metric, files };
        let text = serde_json::to_vec_pretty(&manifest).or_fail(|| "cannot encode a checkpoint's manifest".into())?;
        disk(fs::write(temporary.join(MANIFEST), text))?;
        disk(sync(&temporary.join(MANIFEST)).and_then(|()| sync(&temporary)))?;
        if path.exists() {
            // A step done again after a resume: the old folder steps aside first.
            let aside = self.root.join(format!(".step-{step:08}.replaced"));
            disk(fs::rename(&path, &aside))?;
            disk(fs::rename(&temporary, &path).and_then(|()| sync(&self.root)))?;
            disk(fs::remove_dir_all(&aside))?;
        } else {
            disk(fs::rename(&temporary, &path).and_then(|()| sync(&self.root)))?;
        }
        self.prune()?;
        Ok(Checkpoint { path, step, metric })
    }

    /// All committed checkpoints by rising step. Folders without a readable manifest are not
    /// checkpoints and are passed over.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds a checkpoint of another version: that is a run's work and not
    /// something to begin anew beside.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let mut found = Vec::new();
        for (_, path) in entries(&self.root)?.into_iter().filter(|(name, _)| name.starts_with("step-")) {
            check_version(&path)?;
            if let Ok(manifest) = read_manifest(&path) {
                found.push(Checkpoint { path, step: manifest.step, metric: manifest.metric });
            }
        }
        found.sort_by_key(|c| c.step);
        Ok(found)
    }

    /// The checkpoint to resume from.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        Ok(self.list()?.pop())
    }

    /// The checkpoint with the highest metric, the earliest among equals.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn best(&self) -> Result<Option<Checkpoint>> {
        Ok(best_of(&self.list()?).cloned())
    }

    /// The newest checkpoint in a folder that somebody else may have opened; `None` if there is none.
    ///
    /// # Errors
    /// As [`Checkpoints::list`].
    pub fn newest(root: &Path) -> Result<Option<Checkpoint>> {
        if !root.is_dir() {
            return Ok(None);
        }
        Checkpoints { root: root.to_owned(), keep_last: 1 }.latest()
    }

    fn prune(&self) -> Result<()> {
        let all = self.list()?;
        let best = best_of(&all);
        let old = &all[..all.len().saturating_sub(self.keep_last)];
        for checkpoint in old.iter().filter(|c| Some(*c) != best) {
            // Out of sight first: half of a checkpoint must not be taken for one.
            let aside = self.root.join(format!(".step-{:08}.old", checkpoint.step));
            fs::rename(&checkpoint.path, &aside)
                .and_then(|()| fs::remove_dir_all(&aside))
                .or_fail(|| "cannot remove an old checkpoint".into())
                .map_err(|e| at(e, &checkpoint.path))?;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Checks every file against the manifest's sizes and digests.
    ///
    /// # Errors
    /// Names the first file that is missing or differs.
    pub fn verify(&self) -> Result<()> {
        for entry in read_manifest(&self.path)?.files {
            let path = self.path.join(&entry.name);
            let hint = "remove this checkpoint's folder to resume from the one before";
            let (bytes, blake3) = digest(&path).map_err(|e| e.hint(hint))?;
            if (bytes, &blake3) != (entry.bytes, &entry.blake3) {
                return Err(Error::new("a checkpoint's file is damaged").in_file(path.display()).hint(hint));
            }
        }
        Ok(())
    }
}

fn best_of(all: &[Checkpoint]) -> Option<&Checkpoint> {
    let scored = all.iter().filter(|c| c.metric.is_some_and(f64::is_finite));
    scored.fold(
        None,
        |best: Option<&Checkpoint>, c| if best.is_none_or(|b| c.metric > b.metric) { Some(c) } else { best },
    )
}

fn at(error: Error, path: &Path) -> Error {
    error.in_file(path.display())
}

fn entries(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(root)?.map(|e| e.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))).collect()
    };
    let mut found = read().or_fail(|| "cannot read the checkpoint folder".into()).map_err(|e| at(e, root))?;
    found.sort();
    Ok(found)
}

fn read_manifest(path: &Path) -> Result<Manifest> {
    let file = path.join(MANIFEST);
    let text = fs::read(&file).or_fail(|| "cannot read a checkpoint's manifest".into()).map_err(|e| at(e, &file))?;
    serde_json::from_slice(&text).or_fail(|| "a checkpoint's manifest is malformed".into()).map_err(|e| at(e, &file))
}

/// Refuses a manifest that another version of this program wrote, whatever else is in it.
fn check_version(path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let file = path.join(MANIFEST);
    let found = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    match found {
        Some(Versioned { version }) if version != VERSION => {
            Err(Error::new(format!("a checkpoint of version {version}; this program reads {VERSION}"))
                .in_file(file.display())
                .hint("go on with the program that wrote it, or remove the checkpoints to begin the stage anew"))
        }
        _ => Ok(()),
    }
}

/// Flushes and lists every file below `folder`.
fn list_files(folder: &Path, prefix: &str, files: &mut Vec<FileEntry>) -> Result<()> {
    for (name, path) in entries(folder)? {
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            list_files(&path, &format!("{name}/"), files)?;
        } else {
            sync(&path).or_fail(|| "cannot flush a checkpoint's file".into()).map_err(|e| at(e, &path))?;
            let (bytes, blake3) = digest(&path)?;
            files.push(FileEntry { name, bytes, blake3 });
        }
    }
    sync(folder).or_fail(|| "cannot flush a checkpoint's folder".into()).map_err(|e| at(e, folder))
}

/// Size and BLAKE3 of a file.
fn digest(path: &Path) -> Result<(u64, String)> {
    let read = || -> io::Result<_> {
        let mut hasher = blake3::Hasher::new();
        hash_file(&mut hasher, path)?;
        Ok((hasher.count(), hasher.finalize().to_hex().to_string()))
    };
    read().or_fail(|| "cannot read a checkpoint's file".into()).map_err(|e| at(e, path))
}

/// Flushes a file or, where the system allows, a folder to disk.
fn sync(path: &Path) -> io::Result<()> {
    if cfg!(unix) || path.is_file() { File::open(path)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(text: &str) -> impl FnOnce(&Path) -> Result<()> {
        move |dir| fs::write(dir.join("weights"), text).or_fail(|| "write".into())
    }

    #[test]
    fn the_newest_and_the_best_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), 2).unwrap();
        for (step, metric) in [(1, None), (2, Some(0.9)), (3, Some(0.4)), (4, Some(f64::NAN)), (5, Some(0.5))] {
            checkpoints.commit(step, metric.filter(|m: &f64| m.is_finite()), file_of("x")).unwrap();
        }
        let steps: Vec<u64> = checkpoints.list().unwrap().iter().map(|c| c.step).collect();
        assert_eq!(steps, [2, 4, 5]);
        assert_eq!(checkpoints.latest().unwrap().unwrap().step, 5);
        assert_eq!(checkpoints.best().unwrap().unwrap().metric, Some(0.9));
    }

    #[test]
    fn a_failed_or_killed_write_leaves_the_checkpoint_before() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), 1).unwrap();
        checkpoints.commit(1, None, file_of("good")).unwrap();
        let failed = checkpoints.commit(2, None, |dir| {
            fs::write(dir.join("weights"), "half").unwrap();
            Err(Error::new("disk full"))
        });
        assert!(failed.is_err());
        assert_eq!(checkpoints.latest().unwrap().unwrap().step, 1);
        let reopened = Checkpoints::open(dir.path(), 1).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the half-written folder is gone");
        reopened.latest().unwrap().unwrap().verify().unwrap();
    }

    #[test]
    fn what_a_killed_removal_left_goes_when_the_folder_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let all = Checkpoints::open(dir.path(), 9).unwrap();
        for step in 1..=4 {
            all.commit(step, None, file_of("x")).unwrap();
        }
        // Half of one is gone, another was not begun with.
        fs::rename(dir.path().join("step-00000001"), dir.path().join(".step-00000001.old")).unwrap();
        fs::remove_file(dir.path().join(".step-00000001.old").join(MANIFEST)).unwrap();
        assert_eq!(Checkpoints::newest(dir.path()).unwrap().map(|newest| newest.step), Some(4));
        let two = Checkpoints::open(dir.path(), 2).unwrap();
        assert_eq!(two.list().unwrap().iter().map(|c| c.step).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_step_done_again_replaces_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), 3).unwrap();
        checkpoints.commit(7, None, file_of("old")).unwrap();
        let again = checkpoints.commit(7, Some(1.0), file_of("new")).unwrap();
        assert_eq!(fs::read_to_string(again.path.join("weights")).unwrap(), "new");
        assert_eq!(checkpoints.list().unwrap(), [again]);
    }

    #[test]
    fn a_kill_between_the_renames_of_a_replacement_loses_no_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        Checkpoints::open(dir.path(), 1).unwrap().commit(7, None, file_of("old")).unwrap();
        fs::rename(dir.path().join("step-00000007"), dir.path().join(".step-00000007.replaced")).unwrap();
        fs::create_dir(dir.path().join(".step-00000007.tmp")).unwrap();
        let reopened = Checkpoints::open(dir.path(), 1).unwrap();
        assert_eq!(fs::read_to_string(reopened.latest().unwrap().unwrap().path.join("weights")).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), 3).unwrap();
        let checkpoint = checkpoints.commit(7, None, file_of("weights")).unwrap();
        checkpoint.verify().unwrap();
        fs::write(checkpoint.path.join("weights"), "wEights").unwrap();
        assert!(checkpoint.verify().unwrap_err().to_string().contains("damaged"));
        fs::remove_file(checkpoint.path.join("weights")).unwrap();
        assert!(checkpoint.verify().is_err());
        fs::write(checkpoint.path.join(MANIFEST), "{").unwrap();
        assert_eq!(checkpoints.latest().unwrap(), None, "no readable manifest, no checkpoint");
    }

    #[test]
    fn a_checkpoint_of_another_version_is_refused_and_not_begun_anew_beside() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoints::open(dir.path(), 3).unwrap().commit(7, None, file_of("weights")).unwrap();
        fs::write(checkpoint.path.join(MANIFEST), r#"{"version": 2, "of": "another day"}"#).unwrap();
        let error = Checkpoints::open(dir.path(), 3).unwrap_err().to_string();
        assert!(error.contains("version 2; this program reads 1"), "{error}");
        assert!(checkpoint.path.exists());
    }
}
