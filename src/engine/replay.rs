//! `replay`: recorded completions served as if they were generated, so that any corpus of real
//! outputs can be graded, selected and trained on.
//!
//! Recordings are found by their question's text. They wait in an unnamed temporary file;
//! memory holds one small entry a recording.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::{Engine, EngineInfo, Generated, Request};
use crate::error::{Context, Error, Result};
use crate::prompts::read::{self, Item};
use crate::prompts::source::{ColumnRef, Format};
use crate::schema::{FinishReason, Role};

/// Where recorded completions are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// JSONL, JSON, CSV or Parquet files, plain or compressed; relative to the recipe.
    pub files: Vec<String>,
    /// The column with the question, as the prompts have it.
    #[serde(default = "default_question")]
    pub question: ColumnName,
    /// Columns with completions: each a string or a list of strings.
    pub completions: Vec<ColumnName>,
    /// Columns with the recording's own judgement, one beside each of `completions`: a boolean or
    /// a list of booleans. Kept as `label`, to measure rules against.
    #[serde(default)]
    pub labels: Vec<ColumnName>,
    /// Columns with the finish reason, one beside each of `completions`.
    #[serde(default)]
    pub finish_reasons: Vec<ColumnName>,
    /// What the completions say they are from; by default the first file's stem.
    pub model: Option<String>,
}

/// A column path in the recipe, such as `175b_verification.solution`.
pub type ColumnName = String;

fn default_question() -> ColumnName {
    "question".to_owned()
}

/// The engine.
pub struct Replay {
    info: EngineInfo,
    spool: File,
    by_question: HashMap<u128, Vec<Recording>>,
}

#[derive(Clone, Copy)]
struct Recording {
    offset: u64,
    bytes: u32,
    finish: FinishReason,
    label: Option<bool>,
}

impl Replay {
    /// Reads the recordings. `digest` identifies the files' content.
    ///
    /// # Errors
    /// A file that does not read, a row without the question or a completion column, with its place.
    pub fn open(config: &ReplayConfig, files: &[PathBuf], digest: String) -> Result<Replay> {
        for (name, list) in [("labels", &config.labels), ("finish_reasons", &config.finish_reasons)] {
            if !list.is_empty() && list.len() != config.completions.len() {
                return Err(Error::usage(format!(
                    "`{name}` names {} columns, `completions` {}",
                    list.len(),
                    config.completions.len()
                ))
                .hint(format!("`{name}` has one column beside each of `completions`")));
            }
        }
        let spool = tempfile::tempfile().or_fail(|| "a temporary file cannot be made".to_owned())?;
        let mut out = Spool { file: BufWriter::new(spool), offset: 0 };
        let mut by_question: HashMap<u128, Vec<Recording>> = HashMap::new();
        for path in files {
            for item in read::open(path, Format::Auto)? {
                let row = match item? {
                    Item::Row(row) => row,
                    Item::Fault(fault) => return Err(fault.into_error(path)),
                };
                let fault = |column: &str| {
                    let error = Error::new(format!("a recording has no usable `{column}`")).in_file(path.display());
                    let error = match row.place.line {
                        Some(line) => error.at_line(line, None),
                        None => error.at_row(row.place.row),
                    };
                    error.hint("name the columns in the engine's `question`, `completions` and `labels`")
                };
                let column = |name: &str| ColumnRef::parse(name);
                let question_column = column(&config.question);
                let question =
                    question_column.get(&row.columns).and_then(Value::as_str).ok_or_else(|| fault(&config.question))?;
                let list = by_question.entry(question_key(question)).or_default();
                for (i, name) in config.completions.iter().enumerate() {
                    let texts_column = column(name);
                    let texts = items(texts_column.get(&row.columns));
                    let labels_column = config.labels.get(i).map(|name| column(name));
                    let labels = items(labels_column.as_ref().and_then(|c| c.get(&row.columns)));
                    let finish_column = config.finish_reasons.get(i).map(|name| column(name));
                    let finishes = items(finish_column.as_ref().and_then(|c| c.get(&row.columns)));
                    for (k, text) in texts.iter().enumerate() {
                        let text = text.as_str().ok_or_else(|| fault(name))?;
                        let finish = finishes.get(k).and_then(|v| v.as_str()).and_then(FinishReason::parse);
                        let (offset, bytes) = out.push(text)?;
                        list.push(Recording {
                            offset,
                            bytes,
                            finish: finish.unwrap_or(FinishReason::Unknown),
                            label: labels.get(k).and_then(|v| v.as_bool()),
                        });
                    }
                }
            }
        }
        let stem =
            files.first().and_then(|f| f.file_stem()).map_or("replay".into(), |s| s.to_string_lossy().into_owned());
        let info = EngineInfo {
            engine: "replay",
            model: config.model.clone().unwrap_or(stem),
            model_digest: digest,
            deterministic: true,
        };
        let spool = out
            .file
            .into_inner()
            .map_err(|e| Error::new("the temporary file of recordings cannot be written").caused_by(e.into_error()))?;
        Ok(Replay { info, spool, by_question })
    }

    fn serve(&self, request: &Request, recording: Option<Recording>, sample_index: u32) -> Result<Generated> {
        let mut generated = Generated {
            prompt_id: request.prompt_id.clone(),
            sample_index,
            text: None,
            token_ids: None,
            logprobs: None,
            prompt_token_ids: None,
            finish_reason: FinishReason::Error,
            stop_reason: None,
            prompt_tokens: None,
            completion_tokens: None,
            label: None,
            error: Some("no recording".to_owned()),
        };
        if let Some(recording) = recording {
            let mut bytes = vec![0; recording.bytes as usize];
            self.spool
                .read_exact_at(&mut bytes, recording.offset)
                .or_fail(|| "the temporary file of recordings cannot be read".to_owned())?;
            generated.text = Some(String::from_utf8(bytes).expect("written from a string"));
            generated.finish_reason = recording.finish;
            generated.label = recording.label;
            generated.error = None;
        }
        Ok(generated)
    }
}

impl Engine for Replay {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn available(&self, request: &Request) -> Option<usize> {
        Some(self.recordings(request).len())
    }

    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        for request in requests {
            let recordings = self.recordings(&request);
            for &(sample_index, _) in &request.samples {
                sink(self.serve(&request, recordings.get(sample_index as usize).copied(), sample_index)?)?;
            }
        }
        Ok(())
    }
}

impl Replay {
    fn recordings(&self, request: &Request) -> &[Recording] {
        let question = request.messages.iter().rev().find(|m| m.role == Role::User).map_or("", |m| m.content.as_str());
        self.by_question.get(&question_key(question)).map_or(&[], Vec::as_slice)
    }
}

/// Questions that differ only in white space at their ends or runs of it are one question.
fn question_key(question: &str) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for word in question.split_whitespace() {
        hasher.update(word.as_bytes());
        hasher.update(b" ");
    }
    u128::from_le_bytes(hasher.finalize().as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
}

fn items(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(value) => vec![value],
        None => Vec::new(),
    }
}

struct Spool {
    file: BufWriter<File>,
    offset: u64,
}

impl Spool {
    fn push(&mut self, text: &str) -> Result<(u64, u32)> {
        let bytes = u32::try_from(text.len()).or_fail(|| "a recorded completion is over 4 GiB".to_owned())?;
        self.file
            .write_all(text.as_bytes())
            .or_fail(|| "the temporary file of recordings cannot be written".to_owned())?;
        let offset = self.offset;
        self.offset += u64::from(bytes);
        Ok((offset, bytes))
    }
}
