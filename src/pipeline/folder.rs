//! A run's folder: whose it is, who works in it, and where the stages of an edited recipe lie.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;

use super::plan::Plan;
use crate::error::{Context, Error, Result};
use crate::recipe::Recipe;
use crate::store::{Location, MARKER, io_error, lock_soon, sweep_unfinished};

/// Locked while a run goes on.
const LOCK: &str = "_lock";

/// Locks of a run in a local folder; they go when it is dropped, or the process dies.
pub(super) struct Claim {
    _lock: Option<File>,
}

/// Makes the folder this run's, or says whose it is, or who is at work in it.
///
/// A whole run shares the folder with nobody, parts of a run (`--shard`) share it with other
/// parts. Object stores know no locks.
///
/// # Errors
/// The folder holds something else, belongs to another run, is in use, or cannot be written.
pub(super) fn claim(recipe: &Recipe, plan: &Plan, out: &Location, is_part: bool) -> Result<Claim> {
    check_owner(recipe, out)?;
    let stages: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
    let owner = serde_json::json!({ "name": recipe.name, "gristmill": env!("CARGO_PKG_VERSION"), "stages": stages });
    let (marker, owner) = (out.join(MARKER), format!("{owner:#}\n"));
    out.create_folder()?;
    let (lock, is_alone) = lock(out, is_part)?;
    // Another run may have made the folder its own before this one held the lock.
    check_owner(recipe, out)?;
    let written = marker.read_if_exists()?;
    // Parts at work lock the marker ([`begin_alone`]), so it is not replaced under them.
    if written.is_none() || is_alone && written.as_deref() != Some(owner.as_bytes()) {
        marker.write(owner)?;
    }
    if let (Some(file), true) = (&lock, is_part && is_alone) {
        hold(out, || file.try_lock_shared())?;
    }
    if !is_part {
        sweep_unfinished(out)?;
    }
    Ok(Claim { _lock: lock })
}

/// Fails unless the folder is this run's, or may become it.
///
/// # Errors
/// The folder is a file, holds something else, or belongs to another run.
pub(super) fn check_owner(recipe: &Recipe, out: &Location) -> Result<()> {
    let elsewhere = "choose another folder with `--out`";
    if out.size()?.is_some() {
        return Err(Error::new("the output is a file; a run needs a folder").in_file(out).hint(elsewhere));
    }
    let marker = out.join(MARKER);
    // A kill before the first marker was whole leaves its temporary file, and nothing else.
    let is_other = |name: &str| !name.starts_with("run.json.tmp-") && name != LOCK;
    // Listed before the marker is read: whatever a run that begins meanwhile makes, it makes after its marker.
    let is_used = out.list()?.iter().any(|entry| is_other(&entry.name));
    let Some(bytes) = marker.read_if_exists()? else {
        return match is_used {
            false => Ok(()),
            true => Err(Error::new("the output folder is not empty and is not a run of gristmill")
                .in_file(out)
                .hint(elsewhere)),
        };
    };
    let owner: serde_json::Value = serde_json::from_slice(&bytes)
        .or_fail(|| "`run.json` is damaged".to_owned())
        .map_err(|e| e.in_file(&marker).hint("if the folder is this run's, remove the file; else choose another"))?;
    let name = owner.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
    if name != recipe.name {
        return Err(Error::new(format!("the folder belongs to the run `{name}`, not to `{}`", recipe.name))
            .in_file(out)
            .hint(format!("{elsewhere}, or remove this one")));
    }
    Ok(())
}

/// Locks the run: its lock, if there are locks, and whether nobody else holds it. The first of several parts
/// is alone until it shares what it holds.
fn lock(out: &Location, is_part: bool) -> Result<(Option<File>, bool)> {
    let Some(folder) = out.as_local() else { return Ok((None, true)) };
    let path = folder.join(LOCK);
    let file = match File::create(&path) {
        Ok(file) => file,
        // Where nothing can be written nobody else writes either: what is finished can still be found so.
        Err(e) if matches!(e.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
            return Ok((None, true));
        }
        Err(e) => return Err(io_error("lock the run", path.display(), e)),
    };
    let mut is_alone = true;
    let is_locked = hold(out, || {
        let whole = file.try_lock();
        is_alone = !matches!(whole, Err(TryLockError::WouldBlock));
        if is_part && !is_alone { file.try_lock_shared() } else { whole }
    })?;
    Ok((is_locked.then_some(file), is_alone))
}

/// Takes a lock of the run; false where there are none.
fn hold(out: &Location, lock: impl FnMut() -> std::result::Result<(), TryLockError>) -> Result<bool> {
    match lock_soon(lock) {
        Ok(()) => Ok(true),
        // Some network file systems know no locks; then whoever starts two runs must know.
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(false),
        Err(TryLockError::Error(e)) => Err(io_error("lock the run", out.join(LOCK), e)),
        Err(TryLockError::WouldBlock) => Err(Error::new("another process is running in this folder")
            .in_file(out)
            .hint("wait for it, or choose another folder with `--out`")),
    }
}

/// Holds other parts off while one sees what a stage's folder holds and makes its journal; until the
/// file is dropped. Nothing where there are no locks.
pub(super) fn begin_alone(out: &Location) -> Option<File> {
    let file = File::open(out.as_local()?.join(MARKER)).ok()?;
    file.lock().is_ok().then_some(file)
}

/// Finds stages under the number that they had before the recipe was edited: a stage put in before
/// others must not cost what those have made. Local folders are given their new numbers, unless
/// `look_only`; those of an object store keep the old ones.
///
/// # Errors
/// The folder cannot be listed, or one in it cannot be renamed.
pub(super) fn find_renumbered(plan: &mut Plan, out: &Location, look_only: bool) -> Result<()> {
    let folders: Vec<String> = out.list()?.into_iter().filter(|e| e.is_folder).map(|e| e.name).collect();
    let of_stage = |folder: &&String, stage: &str| {
        folder.split_once('_').is_some_and(|(number, name)| name == stage && number.parse::<u32>().is_ok())
    };
    for planned in &mut plan.stages {
        let wanted = planned.folder.file_name().to_owned();
        if folders.contains(&wanted) {
            continue;
        }
        let Some(found) = folders.iter().rfind(|folder| of_stage(folder, &planned.name)) else { continue };
        let found = out.join(found);
        match (found.as_local(), planned.folder.as_local()) {
            (Some(from), Some(to)) if !look_only => std::fs::rename(from, to)
                .or_fail(|| format!("the stage's folder cannot be renamed to `{wanted}`"))
                .map_err(|e| e.in_file(from.display()))?,
            _ => planned.folder = found,
        }
    }
    Ok(())
}
