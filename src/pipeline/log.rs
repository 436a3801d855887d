//! `run.jsonl`: what happened when, for people and their dashboards. Nothing reads it back.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::error::{Context, Result};
use crate::store::{Location, io_error};

/// A line when the run starts, and when a stage starts, ends or fails. Local runs only.
pub(super) struct RunLog(Option<Mutex<File>>);

impl RunLog {
    /// Opens the log of a run's folder for appending; a run in an object store and one on a disk that cannot be written
    /// have none.
    pub fn open(out: &Location) -> Result<RunLog> {
        let Some(folder) = out.as_local() else { return Ok(RunLog(None)) };
        let path = folder.join("run.jsonl");
        match File::options().create(true).append(true).open(&path) {
            Ok(file) => Ok(RunLog(Some(Mutex::new(file)))),
            Err(e) if matches!(e.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
                Ok(RunLog(None))
            }
            Err(e) => Err(io_error("open the run's log", path.display(), e)),
        }
    }

    /// A line about a stage.
    pub fn event(&self, stage: &str, event: &str, more: Value) -> Result<()> {
        let mut line = json!({ "stage": stage });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more.into_iter().filter(|(key, _)| key != "stage"));
        }
        self.line(event, line)
    }

    /// A line about the run.
    pub fn line(&self, event: &str, more: Value) -> Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        let at = jiff::Timestamp::now().to_string();
        let mut line = json!({ "at": at, "event": event });
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        let text = format!("{line}\n");
        file.lock()
            .expect("no holder panics")
            .write_all(text.as_bytes())
            .or_fail(|| "the run's log cannot be written".to_owned())
    }
}
