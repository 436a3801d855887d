//! Runs a plan: skips what is cached, continues what is partly there, commits the rest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::digests::Digests;
use super::plan::{Opened, Plan, Planned, State};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::recipe::Recipe;
use crate::stage::{Outcome, Progress, StageContext};
use crate::store::{Journal, Location, MANIFEST_FILE, Manifest, SyncPolicy, sweep_unfinished};

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run this stage and what follows it even if cached.
    pub from: Option<String>,
    /// Run only this stage; its inputs must be there.
    pub only: Option<String>,
    /// Make only the shards `i` with `i % of == index`: (index, of).
    pub part: Option<(usize, usize)>,
    /// Threads for independent shards.
    pub threads: usize,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
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
    pub stage: String,
    pub kind: String,
    pub folder: String,
    /// Not run again: nothing it depends on had changed.
    pub cached: bool,
    pub rows: u64,
    pub shards: usize,
    pub bytes: u64,
    pub drops: BTreeMap<String, u64>,
    pub counts: BTreeMap<String, u64>,
    pub seconds: f64,
}

/// What a run came to.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RunSummary {
    pub name: String,
    pub out: String,
    pub stages: Vec<StageSummary>,
    /// Of a run with `--shard`: what other parts have to make before this one can go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
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
    let plan = Plan::new(recipe, out)?;
    for (flag, name) in [("--from", &options.from), ("--only", &options.only)] {
        if let Some(name) = name
            && plan.find(name).is_none()
        {
            let names: Vec<&str> = plan.stages.iter().map(|s| s.name.as_str()).collect();
            return Err(Error::usage(format!("{flag} {name}: the recipe has no such stage"))
                .hint(format!("it has: {}", names.join(", "))));
        }
    }
    let _lock = if options.dry_run { None } else { claim(recipe, out, options)? };
    let digests = Digests::load(out);
    let log = RunLog::open(out, options.dry_run)?;
    log.line("run", serde_json::json!({ "name": recipe.name, "seed": recipe.seed }))?;
    // Hours of generation are not to end at a typo in a rule file. Asked again when the stage's turn
    // comes: a file may change until then.
    for planned in plan.stages.iter().filter(|p| options.only.as_ref().is_none_or(|only| *only == p.name)) {
        planned.materials(recipe, &digests)?;
    }
    let mut stages = Vec::new();
    let mut waits_for = None;
    let mut forced = false;
    let mut changed: Vec<&str> = Vec::new();
    for (number, planned) in plan.stages.iter().enumerate() {
        forced |= options.from.as_deref() == Some(planned.name.as_str());
        if options.only.as_ref().is_some_and(|only| *only != planned.name) {
            continue;
        }
        let waits = options.dry_run && planned.inputs.iter().any(|input| changed.contains(&input.of.as_str()));
        let summary = if waits {
            changed.push(&planned.name);
            reporter.stage(number + 1, plan.stages.len(), &planned.name, &State::Waits);
            continue;
        } else {
            let inputs = planned.open_inputs(&plan, recipe)?;
            let fingerprint = planned.fingerprint(recipe, &digests, &inputs)?;
            let state = if forced { State::Changed } else { planned.state(&fingerprint)? };
            let progress = reporter.stage(number + 1, plan.stages.len(), &planned.name, &state);
            if options.dry_run {
                if state != State::Cached {
                    changed.push(&planned.name);
                }
                let rows: Vec<Option<u64>> =
                    planned.inputs.iter().map(|i| inputs.datasets.get(&i.key)?.rows().ok()).collect();
                if let Some(rows) = planned.stage.expected_rows(&rows) {
                    progress.say(&format!("about {rows} rows"));
                }
                continue;
            }
            digests.save(out)?;
            if state == State::Cached {
                // A kill between the commit and this leaves them.
                delete_journals(&planned.folder)?;
                planned.summary(true, 0.0)?
            } else {
                log.event(&planned.name, "start", serde_json::json!({ "state": state.to_string() }))?;
                let began = Instant::now();
                let made = execute(planned, recipe, out, options, inputs, &fingerprint, &state, &*progress, stop);
                drop(progress);
                if let Err(error) = &made
                    && error.kind() == ErrorKind::Waiting
                {
                    log.event(&planned.name, "waits", serde_json::json!({ "for": error.message() }))?;
                    waits_for = Some(error.message().to_owned());
                    break;
                }
                if let Err(error) = &made {
                    log.event(&planned.name, "failed", serde_json::json!({ "error": error.to_string() }))?;
                }
                made?;
                planned.summary(false, began.elapsed().as_secs_f64())?
            }
        };
        log.event(&planned.name, "done", serde_json::to_value(&summary).expect("a summary is plain data"))?;
        reporter.finished(&summary);
        stages.push(summary);
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(RunSummary { name: recipe.name.clone(), out: out.to_string(), stages, waits_for, seconds })
}

impl Planned {
    fn state(&self, fingerprint: &str) -> Result<State> {
        if let Some(manifest) = Manifest::load(&self.folder)? {
            let failed = manifest.counts.get("failed").copied().unwrap_or(0);
            return Ok(match manifest.fingerprint == fingerprint {
                true if failed > 0 => State::Retry { failed },
                true => State::Cached,
                false => State::Changed,
            });
        }
        let shards = read_journals(&self.folder, fingerprint)?.map_or(0, |done| done.len());
        Ok(if shards > 0 { State::Partial { shards } } else { State::New })
    }

    fn summary(&self, cached: bool, seconds: f64) -> Result<StageSummary> {
        let manifest = Manifest::load(&self.folder)?.ok_or_else(|| {
            Error::new("the stage's manifest is gone")
                .in_file(&self.folder)
                .hint("another process removed it; run again")
        })?;
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

#[allow(clippy::too_many_arguments)]
fn execute(
    planned: &Planned,
    recipe: &Recipe,
    out: &Location,
    options: &Options,
    inputs: Opened,
    fingerprint: &str,
    state: &State,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<()> {
    let folder = &planned.folder;
    // A retry reads what is there; anything else that is stale must not be found again.
    let begun = match state {
        State::Partial { .. } | State::Waits | State::New => read_journals(folder, fingerprint)?,
        State::Cached | State::Changed | State::Retry { .. } => None,
    };
    if options.part.is_none() {
        // The run's lock is ours, so what bears a temporary name is a killed writer's.
        sweep_unfinished(folder)?;
    }
    if begun.is_none() {
        match state {
            // The manifest vouches for the shards; a journal that a kill after the commit left would
            // vouch for them still when they have been replaced.
            State::Retry { .. } => delete_stage_journals(folder)?,
            _ => clear(folder)?,
        }
    }
    let mut is_new = true;
    let mut journal = Journal::open(&journal_file(folder, options.part), SyncPolicy::default(), |_| {
        is_new = false;
        Ok(())
    })?;
    if is_new {
        journal.append(fingerprint.as_bytes())?;
    }
    let resolve = |path: &str| recipe.resolve(path);
    let cx = StageContext {
        name: &planned.name,
        folder,
        run_folder: out,
        seed: recipe.seed,
        device: recipe.device,
        shard_rows: recipe.shard_rows,
        threads: options.threads,
        part: options.part,
        progress,
        stop,
        inputs: inputs.datasets,
        folders: inputs.folders,
        resolve: &resolve,
        journal: Mutex::new(journal),
        done: begun.unwrap_or_default(),
    };
    let outcome: Outcome = planned.stage.run(&cx).map_err(|e| match e.kind() {
        ErrorKind::Interrupted | ErrorKind::Waiting => e,
        _ => e.context(format!("stage `{}`", planned.name)),
    })?;
    drop(cx);
    let manifest = Manifest::new(&planned.name, &planned.kind, planned.stage.output(), fingerprint, outcome.shards);
    Manifest { drops: outcome.drops, counts: outcome.counts, facts: outcome.facts, ..manifest }.commit(folder)?;
    delete_journals(folder)
}

/// What the journals kept is committed.
fn delete_journals(folder: &Location) -> Result<()> {
    for entry in folder.list()?.iter().filter(|entry| is_journal(&entry.name)) {
        Journal::delete(&folder.join(&entry.name))?;
    }
    Ok(())
}

/// As [`delete_journals`], but finished requests stay.
fn delete_stage_journals(folder: &Location) -> Result<()> {
    for entry in folder.list()?.iter().filter(|entry| entry.name.starts_with(JOURNAL)) {
        Journal::delete(&folder.join(&entry.name))?;
    }
    Ok(())
}

const JOURNAL: &str = "_journal";

fn journal_file(folder: &Location, part: Option<(usize, usize)>) -> Location {
    folder.join(&part.map_or(JOURNAL.to_owned(), |(index, of)| format!("{JOURNAL}-{index}-of-{of}")))
}

fn is_journal(file: &str) -> bool {
    file.starts_with("_journal") || file.starts_with("_requests")
}

/// Finished shards of every part; `None` if no journal carries this fingerprint, that is, if what
/// is in the folder is not of this configuration.
fn read_journals(folder: &Location, fingerprint: &str) -> Result<Option<BTreeMap<usize, Outcome>>> {
    let mut done = BTreeMap::new();
    let mut begun = false;
    for entry in folder.list()?.iter().filter(|entry| entry.name.starts_with(JOURNAL)) {
        let mut is_ours = None;
        Journal::replay(&folder.join(&entry.name), |record| {
            match is_ours {
                None => is_ours = Some(record == fingerprint.as_bytes()),
                Some(false) => {}
                Some(true) => {
                    if let Ok((shard, outcome)) = serde_json::from_slice::<(usize, Outcome)>(record) {
                        done.insert(shard, outcome);
                    }
                }
            }
            Ok(())
        })?;
        begun |= is_ours == Some(true);
    }
    Ok(begun.then_some(done))
}

/// Removes what an earlier configuration left. Request journals name what they answer, so they
/// stay: a change that does not touch the requests does not cost their answers.
fn clear(folder: &Location) -> Result<()> {
    // First what vouches for the rest, so that a kill in between leaves nothing that looks whole.
    let (mut vouching, rest): (Vec<_>, Vec<_>) =
        folder.list()?.into_iter().partition(|e| e.name.starts_with(JOURNAL) || e.name == MANIFEST_FILE);
    vouching.extend(rest);
    for entry in vouching {
        let file = folder.join(&entry.name);
        match entry.name.as_str() {
            name if name.starts_with("_requests") => {}
            name if name.starts_with(JOURNAL) => Journal::delete(&file)?,
            "data" | "_spill" if entry.is_folder => clear(&file)?,
            "model" | "checkpoints" | "rollouts" | "samples" | "policy" if entry.is_folder => remove_folder(&file)?,
            name if name.starts_with('_') || name == "README.md" => file.delete()?,
            name if name.ends_with(".parquet") || name.ends_with(".jsonl") => file.delete()?,
            _ => {}
        }
    }
    Ok(())
}

/// Removes a folder that a training stage made, whatever is in it. Such folders are local.
fn remove_folder(folder: &Location) -> Result<()> {
    let Some(path) = folder.as_local() else { return Ok(()) };
    std::fs::remove_dir_all(path)
        .or_fail(|| "what an earlier configuration left cannot be removed".to_owned())
        .map_err(|e| e.in_file(folder))
}

/// Makes the folder this run's, or says whose it is.
fn claim(recipe: &Recipe, out: &Location, options: &Options) -> Result<Option<File>> {
    if out.size()?.is_some() {
        return Err(Error::new("the output is a file; a run needs a folder")
            .in_file(out)
            .hint("choose another folder with `--out`"));
    }
    let marker = out.join("run.json");
    if marker.exists()? {
        let bytes = marker.read()?;
        let owner: serde_json::Value =
            serde_json::from_slice(&bytes).or_fail(|| "`run.json` is damaged".to_owned()).map_err(|e| {
                e.in_file(&marker).hint("if the folder is this run's, remove the file; else choose another")
            })?;
        let name = owner.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
        if name != recipe.name {
            return Err(Error::new(format!("the folder belongs to the run `{name}`, not to `{}`", recipe.name))
                .in_file(out)
                .hint("choose another folder with `--out`, or remove this one"));
        }
    } else {
        // A kill before the first marker was whole leaves its temporary file, and nothing else.
        if out.list()?.iter().any(|entry| !entry.name.starts_with("run.json.tmp-")) {
            return Err(Error::new("the output folder is not empty and is not a run of gristmill")
                .in_file(out)
                .hint("choose another folder with `--out`"));
        }
        let owner = serde_json::json!({ "name": recipe.name, "gristmill": env!("CARGO_PKG_VERSION") });
        marker.write(format!("{owner:#}\n"))?;
    }
    let Some(folder) = out.as_local().filter(|_| options.part.is_none()) else { return Ok(None) };
    let path = folder.join("_lock");
    let file = File::create(&path)
        .or_fail(|| "the run's lock cannot be made".to_owned())
        .map_err(|e| e.in_file(path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            sweep_unfinished(out)?;
            Ok(Some(file))
        }
        Err(_) => Err(Error::new("another process is running in this folder")
            .in_file(out)
            .hint("wait for it, or choose another folder with `--out`")),
    }
}

/// `run.jsonl`: a line when the run starts, and when a stage starts, ends or fails. Local runs only.
struct RunLog(Option<Mutex<File>>);

impl RunLog {
    fn open(out: &Location, dry_run: bool) -> Result<RunLog> {
        let Some(folder) = out.as_local().filter(|_| !dry_run) else { return Ok(RunLog(None)) };
        let path = folder.join("run.jsonl");
        let file = File::options().create(true).append(true).open(&path);
        Ok(RunLog(Some(Mutex::new(
            file.or_fail(|| "the run's log cannot be opened".to_owned()).map_err(|e| e.in_file(path.display()))?,
        ))))
    }

    /// A line about a stage.
    fn event(&self, stage: &str, event: &str, more: serde_json::Value) -> Result<()> {
        let mut line = serde_json::json!({ "stage": stage });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more.into_iter().filter(|(key, _)| key != "stage"));
        }
        self.line(event, line)
    }

    fn line(&self, event: &str, more: serde_json::Value) -> Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        let at = jiff::Timestamp::now().to_string();
        let mut line = serde_json::json!({ "at": at, "event": event });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        let text = format!("{line}\n");
        file.lock()
            .expect("no holder panics")
            .write_all(text.as_bytes())
            .or_fail(|| "the run's log cannot be written".to_owned())
    }
}
