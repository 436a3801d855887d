//! What a stage is given to work with: its inputs, its folder, and shards that survive a kill.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::{Part, StageOutcome};
use crate::backend::Device;
use crate::error::{Error, Result};
use crate::recipe::Base;
use crate::store::{Dataset, Journal, Location};

/// Reports how far a stage is; printing is the command's business.
pub trait Progress: Send + Sync {
    /// The stage's work in its own unit, known when it starts; 0 if unknown.
    fn start(&self, total: u64, unit: &'static str);
    /// That much more is done.
    fn advance(&self, n: u64);
    /// A line for people, such as a step's metrics.
    fn say(&self, line: &str);
    /// The newest of figures that change all the time, in few words: shown with how far the work is.
    fn latest(&self, figures: String);
}

/// A running stage's surroundings.
pub struct StageContext<'a> {
    /// The stage's name in the recipe.
    pub name: &'a str,
    /// The stage's own folder.
    pub folder: &'a Location,
    /// The run's folder.
    pub run_folder: &'a Location,
    /// The run's seed.
    pub seed: u64,
    /// Where models run.
    pub device: Device,
    /// Rows of a shard, where the stage has the choice.
    pub shard_rows: usize,
    /// Threads for independent shards.
    pub threads: usize,
    /// This machine's part of the shards; all of them where there is none.
    pub part: Option<Part>,
    /// Where the stage tells people how far it is; nothing it writes depends on it.
    pub progress: &'a dyn Progress,
    /// Set by Ctrl-C: finish what is in hand, commit it, and return [`Error::interrupted`].
    pub stop: &'a AtomicBool,
    pub(crate) inputs: BTreeMap<String, Dataset>,
    /// Folders of models and of stages whose figures are read, by key.
    pub(crate) folders: BTreeMap<String, Location>,
    /// What relative paths of the recipe are relative to.
    pub(crate) base: &'a Base,
    /// Removes what is stale and opens the journal; see [`StageContext::begin`].
    pub(crate) begin: &'a (dyn Fn() -> Result<Journal> + Sync),
    pub(crate) journal: OnceLock<Mutex<Journal>>,
    /// Shards that an earlier run (or another machine) finished.
    pub(crate) done: BTreeMap<usize, StageOutcome>,
    /// The folder holds the stage as it was finished, and rows of it failed that are to be asked again.
    pub(crate) retry: bool,
}

/// What a journal says of a finished shard.
pub(crate) fn finished_record(shard: usize, outcome: &StageOutcome) -> Vec<u8> {
    serde_json::to_vec(&(shard, outcome)).expect("an outcome is plain data")
}

/// What models and tables of figures are written to and read from: libraries that make them know no object stores.
fn local(folder: &Location, what: impl FnOnce() -> String) -> Result<&Path> {
    folder.as_local().ok_or_else(|| {
        Error::usage(format!("{} a local folder, and this is none", what()))
            .in_file(folder)
            .hint("run in a local folder with `--out`; datasets may stay where they are")
    })
}

impl StageContext<'_> {
    /// Whether anything was done yet to what an earlier run left.
    pub(crate) fn has_begun(&self) -> bool {
        self.journal.get().is_some()
    }

    /// An input by its key.
    ///
    /// # Errors
    /// The stage declares no dataset under this key.
    pub fn input(&self, key: &str) -> Result<&Dataset> {
        self.inputs.get(key).ok_or_else(|| Error::usage(format!("the stage `{}` has no input `{key}`", self.name)))
    }

    /// The folder of a model or of a stage with figures, by its key.
    ///
    /// # Errors
    /// The stage declares no such input, or it lies in an object store.
    pub fn input_folder(&self, key: &str) -> Result<&Path> {
        let folder = self.folders.get(key);
        let folder = folder.ok_or_else(|| Error::usage(format!("the stage `{}` has no input `{key}`", self.name)))?;
        local(folder, || format!("the stage `{}` reads its input `{key}` from", self.name))
    }

    /// The stage's own folder as a path, for what cannot be written to an object store.
    ///
    /// # Errors
    /// A run in an object store.
    pub fn local_folder(&self) -> Result<&Path> {
        local(self.folder, || format!("the stage `{}` writes to", self.name))
    }

    /// Makes a path of the recipe absolute.
    pub fn resolve(&self, path: &str) -> String {
        self.base.resolve(path)
    }

    /// Asked between pieces of work, so that Ctrl-C ends a stage soon.
    ///
    /// # Errors
    /// [`Error::interrupted`] once the user has asked to stop.
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// The outcome of a shard that is already there, if it is.
    pub fn finished(&self, shard: usize) -> Option<&StageOutcome> {
        self.done.get(&shard)
    }

    /// Whether this machine makes this shard.
    pub fn is_mine(&self, shard: usize) -> bool {
        self.part.is_none_or(|part| part.owns(shard))
    }

    /// Begins: what an earlier configuration left is removed, and finished shards can be recorded. Done
    /// before the stage runs, unless [`super::Stage::begins_late`]. Later calls do nothing.
    ///
    /// # Errors
    /// Another process is at work in the folder; the disk or store refuses.
    pub fn begin(&self) -> Result<()> {
        if self.journal.get().is_none() {
            let journal = (self.begin)()?;
            // One thread begins, before there are others.
            let _ = self.journal.set(Mutex::new(journal));
        }
        Ok(())
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        let journal = self.journal.get().expect("a stage begins before it finishes shards");
        journal.lock().expect("no holder of the journal panics")
    }

    /// Records a finished shard: from here on a kill does not cost it.
    ///
    /// # Errors
    /// The disk or store refuses the record.
    pub fn finish_shard(&self, shard: usize, outcome: &StageOutcome) -> Result<()> {
        self.journal().append(&finished_record(shard, outcome)).map(drop)
    }

    /// Makes sure that every finished shard recorded so far outlives a power cut.
    pub(super) fn sync_journal(&self) -> Result<()> {
        self.journal().sync()
    }

    /// Makes `total` independent shards, in parallel, skipping those already there.
    ///
    /// `make` is called with a shard's index and answers with what it wrote. The result has
    /// every shard's outcome added up in the order of the shards, whatever ran first.
    ///
    /// # Errors
    /// The error of the lowest shard that failed; what others finished stays finished.
    /// [`Error::interrupted`] if the user stopped the run.
    pub fn each_shard(
        &self,
        total: usize,
        make: impl Fn(usize) -> Result<StageOutcome> + Sync,
    ) -> Result<StageOutcome> {
        let todo: Vec<usize> = (0..total).filter(|i| self.is_mine(*i) && !self.done.contains_key(i)).collect();
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let results: Mutex<BTreeMap<usize, Result<StageOutcome>>> = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, todo.len().max(1)) {
                scope.spawn(|| {
                    while let Some(&shard) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if failed.load(Ordering::Relaxed) || self.stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let result =
                            make(shard).and_then(|outcome| self.finish_shard(shard, &outcome).map(|()| outcome));
                        failed.fetch_or(result.is_err(), Ordering::Relaxed);
                        results.lock().expect("no holder panics").insert(shard, result);
                    }
                });
            }
        });
        let mut made = results.into_inner().expect("no holder panicked");
        if let Some(shard) = made.iter().find(|(_, result)| result.is_err()).map(|(&shard, _)| shard) {
            return Err(made.remove(&shard).and_then(Result::err).expect("just found"));
        }
        self.check_stop()?;
        let mut sum = StageOutcome::default();
        for shard in 0..total {
            let outcome = match made.remove(&shard) {
                Some(outcome) => outcome?,
                None => match self.done.get(&shard) {
                    Some(outcome) => outcome.clone(),
                    None => return Err(self.waits_for_others(total)),
                },
            };
            sum.absorb(outcome);
        }
        Ok(sum)
    }

    /// This machine's shards are done, others' are not.
    pub(super) fn waits_for_others(&self, total: usize) -> Error {
        let part = self.part.map_or("0/1".to_owned(), |part| part.to_string());
        let missing = (0..total).filter(|&shard| !self.is_mine(shard) && !self.done.contains_key(&shard)).count();
        Error::waiting(format!(
            "part {part} of the stage `{}` is done; {missing} of its {total} shards are other parts' and not there yet",
            self.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_a_local_folder_is_told_by_name() {
        let folder = Location::parse("s3://bucket/run").unwrap();
        let told = local(&folder, || "the stage `claims` writes to".to_owned()).unwrap_err().render(false);
        assert!(told.contains("the stage `claims` writes to a local folder, and this is none"), "{told}");
        assert!(told.contains("s3://bucket/run"), "{told}");
    }
}
