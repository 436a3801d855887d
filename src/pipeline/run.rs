//! Runs a plan: skips what is cached, continues what is partly there, commits the rest.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::depends::Depends;
use super::digests::Digests;
use super::folder::{begin_alone, claim, find_renumbered};
use super::inputs::Inputs;
use super::journals::{
    Clearing, clear, delete_journals, delete_stage_journals, journal_file, open_journal, read_journals,
    refuse_if_in_use, remove_sent_weights, reopen, units,
};
use super::log::RunLog;
use super::memory::Needs;
use super::models::refuse_losses;
use super::plan::{Plan, Planned};
use super::state::State;
use super::visits::Visit;
use crate::error::{Error, ErrorKind, Result};
use crate::recipe::Recipe;
use crate::stage::layout::ROLLOUTS;
use crate::stage::{Part, Progress, StageContext, StageOutcome};
use crate::store::{Journal, Location, MANIFEST_FILE, Manifest, sweep_unfinished};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run this stage and what follows it even if cached.
    pub from: Option<String>,
    /// Run only this stage; its inputs must be there.
    pub only: Option<String>,
    /// Make only this machine's part of the shards.
    pub part: Option<Part>,
    /// Threads for independent shards.
    pub threads: usize,
}

/// What the command shows while a run goes on.
pub trait Reporter: Send + Sync {
    /// A stage is about to run, or is found cached.
    fn stage(&self, number: usize, of: usize, name: &str, state: &State) -> Box<dyn Progress + '_>;
    /// A stage ended.
    fn finished(&self, summary: &StageSummary);
}

/// What a stage came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StageSummary {
    /// Its name in the recipe.
    pub stage: String,
    /// What it does: `prompts`, `generate`, `verify` …
    pub kind: String,
    /// Path or URL of its folder.
    pub folder: String,
    /// Not run again: nothing it depends on had changed.
    pub cached: bool,
    /// Of all shards; 0 where there are none.
    pub rows: u64,
    /// Files that its manifest lists.
    pub shards: usize,
    /// Of these files, as they are stored.
    pub bytes: u64,
    /// Rows that were dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Sums over its rows or steps, such as `correct` or `steps`.
    pub counts: BTreeMap<String, u64>,
    /// Wall-clock time in this run; 0 if cached.
    pub seconds: f64,
}

impl StageSummary {
    /// What it made, in words: rows where it writes a dataset, else steps or samples.
    pub fn made(&self) -> String {
        match (self.shards, self.counts.get("steps"), self.counts.get("samples")) {
            (0, Some(steps), _) => format!("{steps} optimizer steps"),
            (0, None, Some(samples)) => format!("{samples} samples judged"),
            (0, None, None) => "done".to_owned(),
            _ => format!("{} rows", self.rows),
        }
    }
}

/// What a run came to.
#[derive(Debug, serde::Serialize)]
pub struct RunSummary {
    /// The recipe's.
    pub name: String,
    /// Path or URL of the run's folder.
    pub out: String,
    /// Those that ran or were found cached, in running order.
    pub stages: Vec<StageSummary>,
    /// Of a run with `--shard`: what other parts have to make before this one can go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// Wall-clock time of the run.
    pub seconds: f64,
}

/// Runs a recipe in the folder `out`.
///
/// # Errors
/// The first stage that fails; everything committed before stays. [`Error::interrupted`]
/// after Ctrl-C: what was in hand is committed.
pub fn run(
    recipe: &Recipe,
    out: &Location,
    options: &Options,
    reporter: &dyn Reporter,
    stop: &AtomicBool,
) -> Result<RunSummary> {
    let start = Instant::now();
    let mut plan = Plan::new(recipe, out)?;
    plan.check_names(options)?;
    let claimed = claim(recipe, &plan, out, options.part.is_some())?;
    find_renumbered(&mut plan, out, options.part.is_some())?;
    let digests = Digests::load(out, stop);
    let log = RunLog::open(out)?;
    log.line("run", serde_json::json!({ "name": recipe.name, "seed": recipe.seed }))?;
    // Hours of generation are not to end at a typo in a rule file. Asked again when the stage's turn
    // comes: a file may change until then.
    for visit in plan.visits(options) {
        visit.planned.materials(recipe, &digests)?;
    }
    let mut needs = Needs::new(&plan, recipe);
    for Visit { planned, .. } in plan.visits(options) {
        // A stage that has run here before is asked when its turn comes: it may be cached.
        if matches!(Manifest::load(&planned.folder), Ok(None)) {
            needs.check(planned)?;
            planned.check_process()?;
        }
    }
    refuse_losses(&plan, recipe, options, &digests)?;
    let mut stages = Vec::new();
    let run = Run { plan: &plan, recipe, out, options, digests: &digests, log: &log, reporter, stop };
    let waits_for = match run.stages(&mut needs, &mut stages) {
        Err(error) if error.kind() == ErrorKind::Waiting => Some(error.message().to_owned()),
        result => result.map(|()| None)?,
    };
    drop(claimed);
    let seconds = start.elapsed().as_secs_f64();
    Ok(RunSummary { name: recipe.name.clone(), out: out.to_string(), stages, waits_for, seconds })
}

/// The state of a stage, and the finished shards that it goes on from; `None` if it does not go on.
type Begun = (State, Option<BTreeMap<usize, StageOutcome>>);

/// What of a stage's folder goes when the stage begins.
enum Stale {
    /// The stage goes on from what is there.
    Nothing,
    /// Of a stage whose failed rows are asked again. The manifest vouches for the shards; a journal that a kill after
    /// the commit left would vouch for them still when they have been replaced.
    Journals,
    /// Of a stage that trains on from its end: what says that it is whole.
    End,
    /// What an earlier configuration left.
    All {
        /// Whether the answers of servers stay.
        keep_requests: bool,
    },
}

/// A run that goes on.
struct Run<'a> {
    plan: &'a Plan,
    recipe: &'a Recipe,
    out: &'a Location,
    options: &'a Options,
    digests: &'a Digests<'a>,
    log: &'a RunLog,
    reporter: &'a dyn Reporter,
    stop: &'a AtomicBool,
}

impl Run<'_> {
    /// Runs the plan's stages, or the one asked for, and adds what each came to.
    fn stages(&self, needs: &mut Needs<'_>, done: &mut Vec<StageSummary>) -> Result<()> {
        for visit in self.plan.visits(self.options) {
            let summary = self.stage(&visit, needs)?;
            let line = serde_json::to_value(&summary).expect("a summary is plain data");
            self.log.event(&visit.planned.name, "done", line)?;
            self.reporter.finished(&summary);
            done.push(summary);
        }
        Ok(())
    }

    fn stage(&self, visit: &Visit<'_>, needs: &mut Needs<'_>) -> Result<StageSummary> {
        let Visit { index, planned, forced } = *visit;
        let name = &planned.name;
        let inputs = planned.open_inputs(self.plan, self.recipe)?;
        let depends = planned.depends(self.recipe, self.digests, &inputs)?;
        let state = if forced { State::Forced } else { planned.state(&depends)? };
        let progress = self.reporter.stage(index + 1, self.plan.stages.len(), name, &state);
        let intact = if state == State::Cached { Ok(()) } else { planned.check_inputs(self.digests, &inputs) };
        self.digests.save(self.out);
        intact?;
        if state == State::Cached {
            // A kill between the commit and this leaves them.
            delete_journals(&planned.folder)?;
            return planned.summary(true, 0.0);
        }
        let within = |error: Error| error.context(format!("stage `{name}`"));
        // An input may have become another one in this run.
        planned.refuse_loss(&state).map_err(within)?;
        planned.check_models(self.plan)?;
        needs.check(planned)?;
        planned.check_process()?;
        self.log.event(name, "start", serde_json::json!({ "state": state.to_string() }))?;
        let began = Instant::now();
        let made = self.execute(planned, inputs, &depends, state, &*progress);
        drop(progress);
        if let Err(error) = made {
            let (event, more) = match error.kind() {
                ErrorKind::Waiting => ("waits", serde_json::json!({ "for": error.message() })),
                _ => ("failed", serde_json::json!({ "error": error.to_string() })),
            };
            self.log.event(name, event, more)?;
            return Err(match error.kind() {
                ErrorKind::Interrupted | ErrorKind::Waiting => error,
                _ => within(error),
            });
        }
        planned.summary(false, began.elapsed().as_secs_f64())
    }

    /// Makes what is missing of a stage, and commits it.
    fn execute(
        &self,
        planned: &Planned,
        inputs: Inputs,
        depends: &Depends,
        state: State,
        progress: &dyn Progress,
    ) -> Result<()> {
        let fingerprint = depends.fingerprint.as_str();
        let (folder, part) = (&planned.folder, self.options.part);
        let alone = part.and_then(|_| begin_alone(self.out));
        let Some((state, begun)) = self.look_again(planned, depends, state)? else { return Ok(()) };
        // Whoever asks for a stage from its beginning does not want its old answers.
        let anew = state == State::Forced && self.options.from.as_ref() == Some(&planned.name);
        let stale = match state {
            State::Extends { .. } => Stale::End,
            _ if begun.is_some() => Stale::Nothing,
            State::Retry { .. } => Stale::Journals,
            _ => Stale::All { keep_requests: !anew },
        };
        let begin = || self.begin(folder, fingerprint, &stale, progress);
        let cx = StageContext {
            name: &planned.name,
            folder,
            run_folder: self.out,
            seed: self.recipe.seed,
            device: self.recipe.device,
            shard_rows: self.recipe.shard_rows,
            threads: self.options.threads,
            part,
            progress,
            stop: self.stop,
            inputs: inputs.datasets,
            folders: inputs.folders,
            base: &self.recipe.base,
            begin: &begin,
            journal: OnceLock::new(),
            done: begun.unwrap_or_default(),
            retry: matches!(state, State::Retry { .. }),
        };
        // Other parts are held off until this one's journal says that it has begun.
        // Even under `--from`, the old model stays until its replacement has all it needs to start.
        if part.is_some() || anew && !planned.stage.writes_model() || !planned.stage.begins_late() {
            cx.begin()?;
        }
        drop(alone);
        let outcome: StageOutcome = match planned.stage.run(&cx) {
            // What was finished stays finished while nobody is there to do the rest again.
            Err(error) if error.kind() == ErrorKind::Unavailable && !cx.has_begun() => {
                let (State::Retry { failed }, Some(manifest)) = (&state, Manifest::load(folder)?) else {
                    return Err(error);
                };
                progress.say(&format!("{error}: the {failed} rows that failed are not asked again this time"));
                return planned.stage.accept(&manifest, folder);
            }
            outcome => outcome?,
        };
        drop(cx);
        let mut manifest =
            Manifest::new(&planned.name, &planned.kind, planned.stage.output(), fingerprint, outcome.shards);
        (manifest.drops, manifest.counts, manifest.facts) = (outcome.drops, outcome.counts, outcome.facts);
        manifest.files = outcome.files;
        if planned.stage.writes_model() {
            manifest.made_of = depends.parts.clone();
        }
        let manifest = self.commit(folder, manifest)?;
        planned.stage.accept(&manifest, folder)
    }

    /// Looks at the folder as the stage is about to begin: its state now, and the finished shards that the stage goes on
    /// from, if it goes on. `None` if another part has committed the stage.
    fn look_again(&self, planned: &Planned, depends: &Depends, mut state: State) -> Result<Option<Begun>> {
        let (folder, part) = (&planned.folder, self.options.part);
        if part.is_some() {
            // Other parts may have begun meanwhile; what they made is not to be cleared.
            state = planned.state(depends)?;
            if state == State::Cached {
                return Ok(None);
            }
            planned.refuse_loss(&state)?;
        } else {
            // The run's lock is ours, so what bears a temporary name is a killed writer's.
            sweep_unfinished(folder)?;
            remove_sent_weights(folder)?;
        }
        // A retry reads what is there; anything else that is stale must not be found again.
        let begun = match state {
            State::Partial { .. } | State::Resumes { .. } | State::Waits | State::New => {
                read_journals(folder, &depends.fingerprint)?
            }
            State::Damaged { .. } => Some(planned.reopen(part, &depends.fingerprint)?),
            State::Extends { .. } => Some(BTreeMap::new()),
            State::Cached | State::Changed | State::Forced | State::Retry { .. } => None,
            State::Replaces { .. } | State::Discards { .. } | State::Broken { .. } => unreachable!("it was refused"),
        };
        if begun.is_none() && matches!(state, State::Partial { .. }) && planned.state(depends)? == State::Cached {
            // Where there are no locks another part may have committed between the two looks.
            return Ok(None);
        }
        Ok(Some((state, begun)))
    }

    /// Removes what is stale, and opens the journal of finished shards.
    fn begin(&self, folder: &Location, fingerprint: &str, stale: &Stale, progress: &dyn Progress) -> Result<Journal> {
        let part = self.options.part;
        let mut clearing = None;
        match *stale {
            Stale::Nothing => {}
            Stale::Journals | Stale::End => delete_stage_journals(folder)?,
            Stale::All { keep_requests } => {
                if part.is_some() {
                    refuse_if_in_use(folder, part)?;
                    let is_remote = folder.as_local().is_none();
                    clearing = is_remote.then(|| Clearing::decide(folder, fingerprint, self.stop)).transpose()?;
                }
                if clearing.as_ref().is_none_or(Clearing::is_ours) {
                    clear(folder, fingerprint, keep_requests)?;
                }
            }
        }
        let journal = open_journal(folder, part, fingerprint)?;
        if let Stale::End = stale {
            // After the journal, so that a kill in between leaves what says whose the checkpoints are.
            [folder.clone(), folder.join(ROLLOUTS)].iter().try_for_each(|of| of.join(MANIFEST_FILE).delete())?;
        }
        journal.lost().told(&journal_file(folder, part)).iter().for_each(|line| progress.say(line));
        clearing.map_or(Ok(()), Clearing::done)?;
        Ok(journal)
    }

    /// Commits a stage that is whole; answers with the manifest that stands.
    ///
    /// Parts that all find the last shard there all come here. The first one's manifest stands, since its
    /// journals are gone when the others look for what its units came to.
    fn commit(&self, folder: &Location, mut manifest: Manifest) -> Result<Manifest> {
        let part = self.options.part;
        let alone = part.and_then(|_| begin_alone(self.out));
        manifest.units = units(folder, &manifest)?;
        let stands = loop {
            match part.map_or(Ok(None), |_| Manifest::load(folder))? {
                Some(there) if there.fingerprint == manifest.fingerprint && there.shards == manifest.shards => {
                    break there;
                }
                None if part.is_some() => {
                    // Where there are no locks another part may be first even now.
                    if manifest.commit_first(folder)? {
                        break manifest;
                    }
                }
                _ => {
                    manifest.commit(folder)?;
                    break manifest;
                }
            }
        };
        delete_journals(folder)?;
        drop(alone);
        Ok(stands)
    }
}

impl Planned {
    /// Makes the finished stage one that lacks the shards it lost; what of it stays.
    fn reopen(&self, part: Option<Part>, fingerprint: &str) -> Result<BTreeMap<usize, StageOutcome>> {
        let manifest = Manifest::load(&self.folder)?.ok_or_else(|| self.lost_manifest())?;
        reopen(&self.folder, part, fingerprint, &manifest)
    }

    fn lost_manifest(&self) -> Error {
        Error::new("the stage's manifest is gone").in_file(&self.folder).hint("another process removed it; run again")
    }

    fn summary(&self, cached: bool, seconds: f64) -> Result<StageSummary> {
        let manifest = Manifest::load(&self.folder)?.ok_or_else(|| self.lost_manifest())?;
        Ok(StageSummary {
            stage: self.name.clone(),
            kind: self.kind.clone(),
            folder: self.folder.to_string(),
            cached,
            rows: manifest.shards.iter().map(|s| s.rows).sum(),
            shards: manifest.shards.len(),
            bytes: manifest.shards.iter().map(|s| s.bytes).sum(),
            drops: manifest.drops,
            counts: manifest.counts,
            seconds,
        })
    }
}
