//! What an unfinished stage's folder holds: journals that say which shards are there, and what an
//! earlier configuration left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::stage::layout::{ADAPTER, CHECKPOINTS, JOURNAL, MODEL, REQUESTS, ROLLOUTS, SAMPLES, SENT, SPILL, of_part};
use crate::stage::{Part, StageOutcome, finished_record};
use crate::store::{Journal, Location, MANIFEST_FILE, Manifest, SyncPolicy, Unit, damaged};

/// Which part clears a stage's folder, where there are no locks to tell.
const CLAIM: &str = "_claim";
/// How long a part waits for the one that clears: that one has died by then.
const CLEARING: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(200);

/// The journal of finished shards; each part of a run in parts has one of its own.
pub(super) fn journal_file(folder: &Location, part: Option<Part>) -> Location {
    folder.join(&of_part(JOURNAL, part))
}

/// Opens a journal of finished shards, and heads it with the fingerprint if it is new.
pub(super) fn open_journal(folder: &Location, part: Option<Part>, fingerprint: &str) -> Result<Journal> {
    let mut is_new = true;
    let mut journal = Journal::open(&journal_file(folder, part), SyncPolicy::default(), |_, _| {
        is_new = false;
        Ok(())
    })?;
    if is_new {
        journal.append(fingerprint.as_bytes())?;
        // Other parts look for it.
        journal.sync()?;
    }
    Ok(journal)
}

/// Decides which of the parts that begin a stage at once clears its folder: the others wait until it is
/// cleared. Object stores know no locks, but of several that make one object one does.
pub(super) struct Clearing {
    /// Says when the folder is clear.
    claim: Location,
    is_ours: bool,
}

impl Clearing {
    /// Answers once this part is to clear the folder, or once another one has.
    ///
    /// # Errors
    /// [`Error::interrupted`] once `stop` is set; the store refuses.
    pub fn decide(folder: &Location, fingerprint: &str, stop: &AtomicBool) -> Result<Clearing> {
        Clearing::decide_within(CLEARING, folder, fingerprint, stop)
    }

    /// Of the parts that find the one dead that was to clear, the first one to make the next claim takes its place.
    fn decide_within(patience: Duration, folder: &Location, fingerprint: &str, stop: &AtomicBool) -> Result<Clearing> {
        let claim = folder.join(&claim_file(fingerprint));
        let is_clear = || Ok::<_, Error>(claim.read_if_exists()?.as_deref() == Some(b"cleared"));
        let (mut own, mut attempt) = (claim.clone(), 0_u32);
        loop {
            if own.write_new("clearing")? {
                // The one before may have been slow and not dead.
                let is_ours = attempt == 0 || !is_clear()?;
                return Ok(Clearing { claim, is_ours });
            }
            let began = Instant::now();
            while began.elapsed() < patience {
                if is_clear()? {
                    return Ok(Clearing { claim, is_ours: false });
                }
                if stop.load(Ordering::Relaxed) {
                    return Err(Error::interrupted());
                }
                std::thread::sleep(TICK);
            }
            attempt += 1;
            own = folder.join(&format!("{}.{attempt}", claim.file_name()));
        }
    }

    /// Whether it is this part that clears.
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// The folder is clear, and this part's journal is there.
    pub fn done(self) -> Result<()> {
        if self.is_ours { self.claim.write("cleared") } else { Ok(()) }
    }
}

fn claim_file(fingerprint: &str) -> String {
    format!("{CLAIM}-{}", &fingerprint[..16])
}

/// Fails where another part of a run is at work, since what it makes is not to be cleared under it.
pub(super) fn refuse_if_in_use(folder: &Location, part: Option<Part>) -> Result<()> {
    let own = journal_file(folder, part);
    let is_journal = |name: &str| name.starts_with(JOURNAL) || name.starts_with(REQUESTS);
    let entries = folder.list()?;
    let others = entries.iter().filter(|e| is_journal(&e.name) && e.name != own.file_name());
    match others.map(|entry| folder.join(&entry.name)).find(Journal::is_in_use) {
        None => Ok(()),
        Some(journal) => {
            Err(Error::new("another part of the run is at work on this stage, with another configuration")
                .in_file(journal)
                .hint("give every part the same recipe and the same `--set`, or wait until the other one has ended"))
        }
    }
}

/// What each unit of a committed stage came to, by its journals; empty if it was one unit, which the
/// manifest's own sums tell.
pub(super) fn units(folder: &Location, manifest: &Manifest) -> Result<Vec<Unit>> {
    let done = read_journals(folder, &manifest.fingerprint)?.unwrap_or_default();
    let are_all = done.values().flat_map(|outcome| &outcome.shards).eq(&manifest.shards);
    if done.len() < 2 || !are_all {
        return Ok(Vec::new());
    }
    let unit = |outcome: StageOutcome| Unit {
        shards: outcome.shards.len(),
        drops: outcome.drops,
        counts: outcome.counts,
        facts: outcome.facts,
    };
    Ok(done.into_values().map(unit).collect())
}

/// Makes a committed stage that lost shards an unfinished one that lacks these and no others: the
/// whole units are journaled as finished, and then the manifest goes.
pub(super) fn reopen(
    folder: &Location,
    part: Option<Part>,
    fingerprint: &str,
    manifest: &Manifest,
) -> Result<BTreeMap<usize, StageOutcome>> {
    delete_stage_journals(folder)?;
    let lost: Vec<&str> =
        damaged(folder, &manifest.shards)?.into_iter().map(|(shard, _)| shard.file.as_str()).collect();
    let mut journal = open_journal(folder, part, fingerprint)?;
    let mut done = BTreeMap::new();
    let mut rest = &manifest.shards[..];
    for (index, unit) in manifest.units.iter().enumerate() {
        let (shards, behind) = rest.split_at(unit.shards.min(rest.len()));
        rest = behind;
        if shards.iter().any(|shard| lost.contains(&shard.file.as_str())) {
            continue;
        }
        let (drops, counts, facts) = (unit.drops.clone(), unit.counts.clone(), unit.facts.clone());
        let outcome = StageOutcome { shards: shards.to_vec(), drops, counts, facts, ..StageOutcome::default() };
        journal.append(&finished_record(index, &outcome))?;
        done.insert(index, outcome);
    }
    journal.sync()?;
    folder.join(MANIFEST_FILE).delete()?;
    Ok(done)
}

/// Deletes all journals: what they kept is committed.
pub(super) fn delete_journals(folder: &Location) -> Result<()> {
    for entry in folder.list()?.iter().filter(|entry| entry.name.starts_with(CLAIM)) {
        folder.join(&entry.name).delete()?;
    }
    delete(folder, |name| name.starts_with(JOURNAL) || name.starts_with(REQUESTS))
}

/// Deletes the journals of finished shards; finished requests stay.
pub(super) fn delete_stage_journals(folder: &Location) -> Result<()> {
    delete(folder, |name| name.starts_with(JOURNAL))
}

fn delete(folder: &Location, is_one: impl Fn(&str) -> bool) -> Result<()> {
    let entries = folder.list()?;
    entries.iter().filter(|e| is_one(&e.name)).try_for_each(|e| Journal::delete(&folder.join(&e.name)))
}

/// Finished shards of every part; `None` if no journal carries this fingerprint, that is, if what
/// is in the folder is not of this configuration.
///
/// A shard that a journal vouches for and that is gone, or was cut, counts as not made.
pub(super) fn read_journals(folder: &Location, fingerprint: &str) -> Result<Option<BTreeMap<usize, StageOutcome>>> {
    let mut done: BTreeMap<usize, StageOutcome> = BTreeMap::new();
    let mut begun = false;
    for entry in folder.list()?.iter().filter(|entry| entry.name.starts_with(JOURNAL)) {
        let mut is_ours = None;
        Journal::replay(&folder.join(&entry.name), |record| {
            match is_ours {
                None => is_ours = Some(record == fingerprint.as_bytes()),
                Some(false) => {}
                Some(true) => {
                    if let Ok((shard, outcome)) = serde_json::from_slice::<(usize, StageOutcome)>(record) {
                        done.insert(shard, outcome);
                    }
                }
            }
            Ok(())
        })?;
        begun |= is_ours == Some(true);
    }
    if !begun {
        return Ok(None);
    }
    let lost: Vec<String> = damaged(folder, done.values().flat_map(|outcome| &outcome.shards))?
        .into_iter()
        .map(|(shard, _)| shard.file.clone())
        .collect();
    done.retain(|_, outcome| outcome.shards.iter().all(|shard| !lost.contains(&shard.file)));
    Ok(Some(done))
}

/// Removes what an earlier configuration left. Request journals and kept samples name what they answer, so they may
/// stay: a change that does not touch the requests does not cost their answers.
pub(super) fn clear(folder: &Location, fingerprint: &str, keep_requests: bool) -> Result<()> {
    // First what vouches for the rest, so that a kill in between leaves nothing that looks whole.
    let (mut vouching, rest): (Vec<_>, Vec<_>) =
        folder.list()?.into_iter().partition(|e| e.name.starts_with(JOURNAL) || e.name == MANIFEST_FILE);
    vouching.extend(rest);
    for entry in vouching {
        let file = folder.join(&entry.name);
        match entry.name.as_str() {
            name if name.starts_with(REQUESTS) && keep_requests => {}
            name if name.starts_with(JOURNAL) || name.starts_with(REQUESTS) => Journal::delete(&file)?,
            name if name.starts_with(&claim_file(fingerprint)) => {}
            "data" | SPILL if entry.is_folder => clear(&file, fingerprint, true)?,
            SAMPLES if keep_requests => {}
            MODEL | ADAPTER | CHECKPOINTS | ROLLOUTS | SAMPLES if entry.is_folder => remove_folder(&file)?,
            name if name.starts_with('_') || name == "README.md" => file.delete()?,
            name if name.ends_with(".parquet") || name.ends_with(".jsonl") => file.delete()?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes weights that a killed run left for servers to load. What servers have loaded is not to go when a stage
/// begins, so it is no part of [`clear`].
pub(super) fn remove_sent_weights(folder: &Location) -> Result<()> {
    match folder.list()?.iter().any(|entry| entry.name == SENT && entry.is_folder) {
        true => remove_folder(&folder.join(SENT)),
        false => Ok(()),
    }
}

/// Removes a folder that a training stage made, whatever is in it. Such folders are local.
fn remove_folder(folder: &Location) -> Result<()> {
    let Some(path) = folder.as_local() else { return Ok(()) };
    std::fs::remove_dir_all(path)
        .or_fail(|| "what an earlier configuration left cannot be removed".to_owned())
        .map_err(|e| e.in_file(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: &str = "ffffffffffffffff0000";

    /// A folder with what an earlier configuration left.
    fn stale() -> (tempfile::TempDir, Location) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Location::from(dir.path());
        folder.join("part-00000.parquet").write("of an earlier configuration").unwrap();
        (dir, folder)
    }

    /// Several parts begin at once; one of them clears, and all find the folder clear.
    fn one_of_several_clears(folder: &Location, patience: Duration) {
        let part = || {
            let clearing = Clearing::decide_within(patience, folder, FINGERPRINT, &AtomicBool::new(false)).unwrap();
            let was_ours = clearing.is_ours();
            if was_ours {
                clear(folder, FINGERPRINT, true).unwrap();
            }
            let is_clear = folder.join("part-00000.parquet").size().unwrap().is_none();
            clearing.done().unwrap();
            (was_ours, is_clear)
        };
        let parts: Vec<(bool, bool)> = std::thread::scope(|scope| {
            let parts: Vec<_> = (0..4).map(|_| scope.spawn(part)).collect();
            parts.into_iter().map(|part| part.join().unwrap()).collect()
        });
        assert_eq!(parts.iter().filter(|(was_ours, _)| *was_ours).count(), 1);
        assert!(parts.iter().all(|(_, is_clear)| *is_clear));
        delete_journals(folder).unwrap();
        assert!(folder.list().unwrap().is_empty());
    }

    #[test]
    fn of_parts_that_begin_at_once_one_clears_and_the_others_wait_for_it() {
        let (_dir, folder) = stale();
        one_of_several_clears(&folder, CLEARING);
    }

    #[test]
    fn of_parts_that_outlive_the_one_that_was_to_clear_one_takes_its_place() {
        let (_dir, folder) = stale();
        folder.join(&claim_file(FINGERPRINT)).write("clearing").unwrap();
        one_of_several_clears(&folder, 2 * TICK);
    }

    #[test]
    fn a_part_that_waits_for_another_one_to_clear_ends_when_it_is_told_to_stop() {
        let (_dir, folder) = stale();
        folder.join(&claim_file(FINGERPRINT)).write("clearing").unwrap();
        let stopped = Clearing::decide(&folder, FINGERPRINT, &AtomicBool::new(true));
        assert_eq!(stopped.err().unwrap().kind(), crate::error::ErrorKind::Interrupted);
    }
}
