//! `replay`: recorded completions served as if they were generated, so that any corpus of real
//! outputs can be graded, selected and trained on.
//!
//! Recordings are found by their question's text. They wait in an unnamed temporary file;
//! memory holds one small entry a recording.

mod columns;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::columns::Columns;
use super::{Engine, EngineInfo, Generated, Request};
use crate::error::{Context, Error, Result};
use crate::prompts::read::{self, Item};
use crate::prompts::source::{Format, OnError};
use crate::schema::{FinishReason, question};
use crate::store::io_error;

/// Where recorded completions are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// JSONL, JSON, CSV or Parquet files, plain or compressed, or their folders or patterns, as sources name them; relative
    /// to the recipe.
    pub files: Vec<String>,
    /// The column with the question, as the prompts have it: a text, or turns whose last user's it is.
    #[serde(default = "default_question")]
    pub question: ColumnName,
    /// Columns with completions: each a string or turns, whose last answer it is, or a list of such.
    pub completions: Vec<ColumnName>,
    /// Columns with the recording's own judgement, one beside each of `completions`: `true` or `false`, 1
    /// or 0, `correct` or `wrong` and words like these, or a list of such. Kept as `label`, to measure
    /// rules against.
    #[serde(default)]
    pub labels: Vec<ColumnName>,
    /// Columns with the finish reason, one beside each of `completions`: `stop`, `length` or `unknown`, or
    /// what servers call these.
    #[serde(default)]
    pub finish_reasons: Vec<ColumnName>,
    /// What the completions say they are from; by default the first file's stem.
    pub model: Option<String>,
    /// What a row that cannot be read, or lacks a column, does.
    #[serde(default)]
    pub on_error: OnError,
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
    /// Recordings of all questions.
    held: u64,
    left_out: BTreeMap<String, u64>,
}

#[derive(Clone, Copy)]
struct Recording {
    offset: u64,
    bytes: u32,
    finish: FinishReason,
    label: Option<bool>,
}

impl Replay {
    /// Reads the recordings. `digest` identifies the files' content; texts wait in a temporary file in
    /// `folder`, or where the system has its own.
    ///
    /// # Errors
    /// A file that does not read; a row without a column that is named, with a label or a finish reason
    /// that means nothing, with its place.
    pub fn open(config: &ReplayConfig, files: &[PathBuf], digest: String, folder: Option<&Path>) -> Result<Replay> {
        let columns = Columns::of(config)?;
        let mut out = Spool::create(folder)?;
        let mut by_question: HashMap<u128, Vec<Recording>> = HashMap::new();
        let mut held = 0;
        let mut left_out: BTreeMap<String, u64> = BTreeMap::new();
        let mut first_fault = None;
        for path in files {
            for item in read::open(path, Format::Auto)? {
                let row = match item? {
                    Item::Row(row) => row,
                    Item::Fault(fault) if config.on_error == OnError::Skip => {
                        *left_out.entry(format!("recording:{}", fault.reason)).or_default() += 1;
                        first_fault = first_fault.or_else(|| Some(fault.into_error(path, "engine")));
                        continue;
                    }
                    Item::Fault(fault) => return Err(fault.into_error(path, "engine")),
                };
                let at = |error: Error| {
                    let error = error.in_file(path.display());
                    match row.place.line {
                        Some(line) => error.at_line(line, None),
                        None => error.at_row(row.place.row),
                    }
                };
                let (question, recorded) = match columns.read(&row.columns).map_err(at) {
                    Ok(read) => read,
                    Err(error) if config.on_error == OnError::Skip => {
                        *left_out.entry("recording:unusable".to_owned()).or_default() += 1;
                        first_fault = first_fault.or(Some(error));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let list = by_question.entry(question_key(&question)).or_default();
                for recorded in recorded {
                    let Some(text) = recorded.text else {
                        *left_out.entry("recording_null".to_owned()).or_default() += 1;
                        continue;
                    };
                    held += 1;
                    let (offset, bytes) = out.push(&text)?;
                    list.push(Recording { offset, bytes, finish: recorded.finish, label: recorded.label });
                }
            }
        }
        // Where no row is of use it is not the rows that are at fault.
        if let (0, Some(fault)) = (held, first_fault) {
            return Err(fault);
        }
        let stem =
            files.first().and_then(|f| f.file_stem()).map_or("replay".into(), |s| s.to_string_lossy().into_owned());
        let info = EngineInfo {
            engine: "replay",
            model: config.model.clone().unwrap_or(stem),
            model_digest: digest,
            deterministic: true,
        };
        Ok(Replay { info, spool: out.finish()?, by_question, held, left_out })
    }

    fn serve(&self, request: &Request, recording: Option<Recording>, sample_index: u32) -> Result<Generated> {
        let mut generated = Generated::failed(request.prompt_id.clone(), sample_index, "no recording");
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

    fn holds(&self) -> Option<u64> {
        Some(self.held)
    }

    fn draws(&self) -> bool {
        false
    }

    fn left_out(&self) -> BTreeMap<String, u64> {
        self.left_out.clone()
    }

    fn generate(
        &self,
        requests: &mut (dyn Iterator<Item = Request> + Send),
        sink: &mut (dyn FnMut(Generated) -> Result<()> + Send),
    ) -> Result<()> {
        for request in requests {
            let recordings = self.recordings(&request);
            for sample in &request.samples {
                sink(self.serve(&request, recordings.get(sample.index as usize).copied(), sample.index)?)?;
            }
        }
        Ok(())
    }
}

impl Replay {
    fn recordings(&self, request: &Request) -> &[Recording] {
        self.by_question.get(&question_key(question(&request.messages))).map_or(&[], Vec::as_slice)
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

/// The texts on their way into the temporary file.
struct Spool {
    file: BufWriter<File>,
    offset: u64,
    /// Where it lies, for errors: it has no name.
    folder: PathBuf,
}

impl Spool {
    fn create(folder: Option<&Path>) -> Result<Spool> {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
        let file = tempfile::tempfile_in(&folder).map_err(|e| Spool::failed("make", &folder, e))?;
        Ok(Spool { file: BufWriter::with_capacity(1 << 20, file), offset: 0, folder })
    }

    fn failed(doing: &str, folder: &Path, error: std::io::Error) -> Error {
        io_error(&format!("{doing} the temporary file of recordings"), folder.display(), error)
    }

    fn push(&mut self, text: &str) -> Result<(u64, u32)> {
        let bytes = u32::try_from(text.len()).or_fail(|| "a recorded completion is over 4 GiB".to_owned())?;
        self.file.write_all(text.as_bytes()).map_err(|e| Spool::failed("write", &self.folder, e))?;
        let offset = self.offset;
        self.offset += u64::from(bytes);
        Ok((offset, bytes))
    }

    fn finish(self) -> Result<File> {
        let Spool { file, folder, .. } = self;
        file.into_inner().map_err(|e| Spool::failed("write", &folder, e.into_error()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> ReplayConfig {
        toml::from_str(&format!("files = []\ncompletions = ['c']\n{more}")).unwrap()
    }

    fn open(config: &ReplayConfig, lines: &str) -> Result<Replay> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.jsonl");
        std::fs::write(&file, lines).unwrap();
        Replay::open(config, &[file], "d".into(), Some(folder.path()))
    }

    fn recordings(config: &ReplayConfig, line: &str) -> Vec<(FinishReason, Option<bool>)> {
        let replay = open(config, line).unwrap();
        replay.by_question.values().flatten().map(|r| (r.finish, r.label)).collect()
    }

    #[test]
    fn a_column_that_is_named_and_not_there_is_told_and_one_that_is_null_is_empty() {
        let told = |config: &ReplayConfig, line: &str| open(config, line).err().unwrap().render(false);
        let slip = told(&config("labels = ['lable']"), r#"{"question": "q", "c": ["x"], "label": [true]}"#);
        assert!(slip.contains("no usable `lable`") && slip.contains("r.jsonl:1"), "{slip}");
        assert!(slip.contains("the row has question, c, label"), "{slip}");
        let slip = told(&config(""), "{\"question\": \"q\", \"c\": [\"x\"]}\n{\"question\": \"q\", \"text\": \"x\"}");
        assert!(slip.contains("no usable `c`") && slip.contains("r.jsonl:2"), "{slip}");
        assert_eq!(recordings(&config(""), r#"{"question": "q", "c": null}"#), []);
    }

    #[test]
    fn conversations_are_read_as_prompts_read_them() {
        let turn = |role: &str, content: &str| serde_json::json!({ "role": role, "content": content });
        let (asks, answers) = (turn("user", "1 + 1?"), turn("assistant", "2"));
        let earlier = [turn("user", "Hello"), turn("assistant", "Hello.")];
        let turns = [&earlier[..], &[asks.clone(), answers.clone()]].concat();
        let chat = serde_json::json!({ "messages": turns });
        let trl = serde_json::json!({ "prompt": [&asks], "completion": [&answers] });
        let several = serde_json::json!({ "prompt": "1 + 1?", "completion": [[&answers], [turn("assistant", "3")]] });
        let config = |question: &str, completions: &str| -> ReplayConfig {
            let columns = format!("question = '{question}'\ncompletions = ['{completions}']");
            toml::from_str(&format!("files = []\n{columns}")).unwrap()
        };
        let prompt = config("prompt", "completion");
        for (config, row, texts) in [
            (&config("messages", "messages"), &chat, &["2"][..]),
            (&prompt, &trl, &["2"]),
            (&prompt, &several, &["2", "3"]),
        ] {
            let replay = open(config, &row.to_string()).unwrap();
            let found = &replay.by_question[&question_key("1 + 1?")];
            let sizes: Vec<usize> = found.iter().map(|recording| recording.bytes as usize).collect();
            assert_eq!(sizes, texts.iter().map(|text| text.len()).collect::<Vec<_>>(), "{row}");
            let mut spooled = vec![0; sizes.iter().sum()];
            replay.spool.read_exact_at(&mut spooled, 0).unwrap();
            assert_eq!(spooled, texts.concat().into_bytes(), "{row}");
        }
        let unanswered = serde_json::json!({ "messages": [&asks] });
        let told = open(&config("messages", "messages"), &unanswered.to_string()).err().unwrap().to_string();
        assert!(told.contains("no usable `messages`"), "{told}");
    }

    #[test]
    fn a_sample_that_was_not_recorded_is_counted_and_costs_none_of_the_others() {
        let both = config("labels = ['l']\nfinish_reasons = ['f']");
        let line =
            r#"{"question": "q", "c": ["a", null, "b"], "l": [true, null, false], "f": ["stop", "error", "length"]}"#;
        let replay = open(&both, line).unwrap();
        let read: Vec<_> = replay.by_question.values().flatten().map(|r| (r.finish, r.label)).collect();
        assert_eq!(read, [(FinishReason::Stop, Some(true)), (FinishReason::Length, Some(false))]);
        assert_eq!((replay.holds(), replay.left_out()), (Some(2), BTreeMap::from([("recording_null".to_owned(), 1)])));
    }

    #[test]
    fn rows_that_cannot_be_read_stop_the_stage_or_are_counted_where_the_engine_says_so() {
        let good = r#"{"question": "q", "c": ["a"]}"#;
        let lines = format!("{good}\n{{\"question\": \"r\"}}\n{{\"question\": \"s\", \"c\"");
        let torn = open(&config(""), &format!("{good}\n{{\"question\"")).err().unwrap().render(false);
        assert!(torn.contains("`on_error = \"skip\"` in the engine"), "{torn}");
        let skip = config("on_error = 'skip'");
        let replay = open(&skip, &lines).unwrap();
        let left_out = [("recording:bad_json".to_owned(), 1), ("recording:unusable".to_owned(), 1)];
        assert_eq!((replay.holds(), replay.left_out()), (Some(1), BTreeMap::from(left_out)));
        let slip = open(&skip, r#"{"question": "q", "text": "a"}"#).err().unwrap().to_string();
        assert!(slip.contains("no usable `c`"), "where no row is of use: {slip}");
    }

    #[test]
    fn labels_and_finish_reasons_are_read_in_words_too_and_refused_where_they_mean_nothing() {
        let both = config("labels = ['l']\nfinish_reasons = ['f']");
        let row = |labels: &str, finishes: &str| {
            format!(r#"{{"question": "q", "c": ["x", "y"], "l": {labels}, "f": {finishes}}}"#)
        };
        use FinishReason::{Length, Stop, Unknown};
        assert_eq!(
            recordings(&both, &row(r#"["correct", "Incorrect"]"#, r#"["eos_token", "max_tokens"]"#)),
            [(Stop, Some(true)), (Length, Some(false))]
        );
        assert_eq!(recordings(&both, &row("[1, null]", "null")), [(Unknown, Some(true)), (Unknown, None)]);
        let told = |labels: &str, finishes: &str| open(&both, &row(labels, finishes)).err().unwrap().to_string();
        assert!(told(r#"["good", true]"#, "null").contains("`good` is no label"));
        assert!(told("[true]", "null").contains("`l` has 1 values beside 2 completions"));
        assert!(told("null", r#"["stop", "because"]"#).contains("`because` is no finish reason"));
        assert!(told("null", r#"["stop", "error"]"#).contains("no recording"));
    }
}
