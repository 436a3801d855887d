//! A run's folder as the report sees it: its stages, its log, its times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::store::{Location, Manifest, RunFolder};

/// A run's folder: `run.json`, `run.jsonl`, and the stage folders with their manifests.
#[derive(Debug)]
pub struct Run {
    pub folder: PathBuf,
    name: String,
    seed: Option<u64>,
    version: Option<String>,
    pub stages: Vec<StageFolder>,
    /// Folders of stages that the recipe no longer has: shown nowhere.
    pub left_over: Vec<String>,
    log: Log,
}

/// One stage's folder, finished or not.
#[derive(Debug)]
pub struct StageFolder {
    pub name: String,
    pub path: PathBuf,
    /// None while the stage is not finished.
    pub manifest: Option<Manifest>,
}

/// What `run.jsonl` tells.
#[derive(Debug, Default)]
struct Log {
    /// The last line about the run as a whole.
    seed: Option<u64>,
    began: Option<String>,
    ended: Option<String>,
    /// Seconds of each stage when it last really ran.
    seconds: BTreeMap<String, f64>,
    /// Why a stage failed, unless it ran well since.
    failures: BTreeMap<String, String>,
}

/// The head of the report.
#[derive(Debug, Serialize)]
pub struct Overview {
    name: String,
    seed: Option<u64>,
    version: Option<String>,
    began: Option<String>,
    ended: Option<String>,
    /// Sum of the stages' times.
    seconds: f64,
    stages: Vec<StageLine>,
}

/// A row of the table of stages.
#[derive(Debug, Serialize)]
struct StageLine {
    name: String,
    kind: String,
    finished: bool,
    failure: Option<String>,
    rows: Option<u64>,
    bytes: Option<u64>,
    seconds: Option<f64>,
    /// Share of the run's time, in percent.
    share: f64,
    facts: Vec<(String, String)>,
}

impl StageFolder {
    /// What the stage does; of an unfinished one, its name.
    pub fn kind(&self) -> &str {
        self.manifest.as_ref().map_or(&self.name, |manifest| &manifest.kind)
    }
}

impl Run {
    /// # Errors
    /// The folder is no run's, or a manifest or the log cannot be read.
    pub fn load(folder: &Path) -> Result<Run> {
        let location = Location::from(folder);
        let RunFolder { owner, stages: folders, left_over } = RunFolder::look(&location)?;
        let mut stages = Vec::new();
        for folder_name in folders {
            let manifest = Manifest::load(&location.join(&folder_name))?;
            let name = folder_name.split_once('_').map_or(folder_name.as_str(), |(_, name)| name);
            let name = manifest.as_ref().map_or(name, |manifest| &manifest.stage).to_owned();
            stages.push(StageFolder { name, path: folder.join(&folder_name), manifest });
        }
        if stages.is_empty() && owner.is_null() && !location.exists()? {
            return Err(Error::new("there is no such folder").in_file(folder.display()).hint("check the path"));
        }
        if stages.is_empty() && owner.is_null() {
            return Err(Error::new("this folder is not a run: it has neither `run.json` nor stage folders")
                .in_file(folder.display())
                .hint("give the folder that `gristmill run --out` wrote"));
        }
        let text = |key: &str| owner.get(key).and_then(Value::as_str).map(str::to_owned);
        let log = Log::load(&location.join("run.jsonl"))?;
        let of_folder = || folder.file_name().map_or_else(|| "run".to_owned(), |n| n.to_string_lossy().into_owned());
        Ok(Run {
            folder: folder.to_owned(),
            name: text("name").unwrap_or_else(of_folder),
            seed: log.seed.or_else(|| owner.get("seed").and_then(Value::as_u64)),
            version: text("gristmill"),
            stages,
            left_over,
            log,
        })
    }

    /// What curves of several runs are told apart by.
    pub fn label(&self) -> String {
        match self.seed {
            Some(seed) => format!("{} (seed {seed})", self.name),
            None => self.name.clone(),
        }
    }

    /// The head of the report.
    pub fn overview(&self) -> Overview {
        let total: f64 = self.stages.iter().filter_map(|stage| self.log.seconds.get(&stage.name)).sum();
        let line = |stage: &StageFolder| {
            let seconds = self.log.seconds.get(&stage.name).copied();
            let shards = stage.manifest.as_ref().map(|manifest| &manifest.shards);
            StageLine {
                name: stage.name.clone(),
                kind: stage.kind().to_owned(),
                finished: stage.manifest.is_some(),
                failure: self.log.failures.get(&stage.name).cloned(),
                rows: stage.manifest.as_ref().map(|manifest| manifest.rows),
                bytes: shards.map(|shards| shards.iter().map(|shard| shard.bytes).sum()),
                seconds,
                share: seconds.filter(|_| total > 0.0).map_or(0.0, |seconds| 100.0 * seconds / total),
                facts: stage.manifest.as_ref().map(facts).unwrap_or_default(),
            }
        };
        Overview {
            name: self.name.clone(),
            seed: self.seed,
            version: self.version.clone(),
            began: self.log.began.clone(),
            ended: self.log.ended.clone(),
            seconds: total,
            stages: self.stages.iter().map(line).collect(),
        }
    }
}

/// The manifest's facts that are a word or a number; digests cut to what tells them apart.
fn facts(manifest: &Manifest) -> Vec<(String, String)> {
    let short = |key: &str, value: &Value| match value {
        Value::String(text) if key.ends_with("digest") => Some(text.chars().take(12).collect()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    manifest.facts.iter().filter_map(|(key, value)| Some((key.clone(), short(key, value)?))).collect()
}

impl Log {
    fn load(file: &Location) -> Result<Log> {
        let mut log = Log::default();
        let Some(bytes) = file.read_if_exists()? else { return Ok(log) };
        // A kill may have cut the last line; it is the only one that can be no JSON.
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            log.take_in(&event);
        }
        Ok(log)
    }

    fn take_in(&mut self, event: &Value) {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        if let Some(at) = text("at") {
            self.began.get_or_insert_with(|| to_seconds(at));
            self.ended = Some(to_seconds(at));
        }
        let (what, stage) = (text("event").unwrap_or_default(), text("stage").unwrap_or_default());
        match what {
            "run" => self.seed = event.get("seed").and_then(Value::as_u64),
            "done" if event.get("cached").and_then(Value::as_bool) != Some(true) => {
                if let Some(seconds) = event.get("seconds").and_then(Value::as_f64) {
                    self.seconds.insert(stage.to_owned(), seconds);
                }
                self.failures.remove(stage);
            }
            "failed" => {
                let error = text("error").unwrap_or("failed");
                self.failures.insert(stage.to_owned(), error.to_owned());
            }
            _ => {}
        }
    }
}

/// `2026-11-23T10:00:00.123456789Z` without its fraction.
fn to_seconds(at: &str) -> String {
    match at.parse::<jiff::Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => at.to_owned(),
    }
}
