//! What a stage's folder holds of what the stage would make now: why it will, or will not, run.

use super::depends::Depends;
use super::journals::read_journals;
use super::plan::Planned;
use crate::error::Result;
use crate::stage::{CUT, FAILED, trained_steps};
use crate::store::Manifest;

/// Why a stage will, or will not, run.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Its manifest has the fingerprint it would have now.
    Cached,
    /// Nothing is there.
    New,
    /// An input, the configuration or a file changed since the manifest was written.
    Changed,
    /// What is there is a model that was trained to its end, with another of these.
    Replaces {
        /// What is another now, in words.
        changed: String,
    },
    /// `--from` asks for it.
    Forced,
    /// It is complete, but so many of its shards are gone or were cut since.
    Damaged {
        /// Those to be made again.
        shards: usize,
    },
    /// It has a model that was trained to its end, of which so many files are gone or were cut.
    Broken {
        /// Of the model's folder and what lies beside it.
        files: usize,
    },
    /// A kill left some shards; they are kept.
    Partial {
        /// Those that are whole.
        shards: usize,
    },
    /// A kill left checkpoints: it goes on from the newest, of this step.
    Resumes {
        /// Optimizer steps that it has done.
        step: u64,
    },
    /// It is complete, and its recipe asks for more steps of the same training: it goes on from its last checkpoint.
    Extends {
        /// Optimizer steps that it has done.
        step: u64,
    },
    /// A kill left checkpoints, but what they were trained with has changed since: so many steps would be lost.
    Discards {
        /// Optimizer steps of the newest checkpoint.
        steps: u64,
    },
    /// It is complete but holds rows that failed and are to be tried again.
    Retry {
        /// Rows whose request failed.
        failed: u64,
    },
    /// One of its inputs will be made first.
    Waits,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            State::Cached => f.write_str("cached: nothing it depends on has changed"),
            State::New => f.write_str("will run: nothing is there yet"),
            State::Changed => f.write_str("will run: its configuration, an input or a file has changed"),
            State::Replaces { changed } => {
                write!(f, "will not run: its finished model was trained with another {changed}")
            }
            State::Forced => f.write_str("will run: `--from` asks for it"),
            State::Damaged { shards: 1 } => f.write_str("will make a shard again that is gone or was cut"),
            State::Damaged { shards } => write!(f, "will make {shards} shards again that are gone or were cut"),
            State::Broken { files } => {
                write!(f, "will not run: of its finished model, files that are gone or were cut: {files}")
            }
            State::Partial { shards } => write!(f, "will continue: {shards} shards are there"),
            State::Resumes { step } => write!(f, "will continue: from the checkpoint of step {step}"),
            State::Extends { step } => write!(f, "will go on: more than its {step} steps are asked for"),
            State::Discards { steps } => {
                write!(
                    f,
                    "will not run: its configuration, an input or a file has changed, and {steps} steps would be lost"
                )
            }
            State::Retry { failed } => write!(f, "will retry {failed} rows that failed"),
            State::Waits => f.write_str("will run: after its inputs"),
        }
    }
}

impl Planned {
    /// What is there, and so what is to be done.
    ///
    /// # Errors
    /// The folder, or what vouches for it, cannot be read.
    pub(super) fn state(&self, depends: &Depends) -> Result<State> {
        let fingerprint = depends.fingerprint.as_str();
        if let Some(manifest) = Manifest::load(&self.folder)? {
            let failed = manifest.counts.get(FAILED).copied().unwrap_or(0);
            return Ok(match manifest.fingerprint == fingerprint {
                true => match manifest.damaged(&self.folder)?.len() {
                    0 if failed > 0 => State::Retry { failed },
                    0 if !self.stage.has_its_lists(&manifest, &self.folder)? => State::Changed,
                    0 => State::Cached,
                    files if self.stage.writes_model() => State::Broken { files },
                    shards => State::Damaged { shards },
                },
                false if self.goes_on(&manifest, depends)? => State::Extends { step: steps(&manifest) },
                false if self.stage.writes_model() => State::Replaces { changed: depends.changed(&manifest.made_of) },
                false => State::Changed,
            });
        }
        let done = read_journals(&self.folder, fingerprint)?;
        let trained = if self.stage.writes_model() { trained_steps(&self.folder)? } else { None };
        Ok(match (done, trained) {
            (Some(_), Some(step)) => State::Resumes { step },
            (None, Some(steps)) => State::Discards { steps },
            (Some(done), None) if !done.is_empty() => State::Partial { shards: done.len() },
            _ => State::New,
        })
    }

    /// Whether what was trained to its end is the beginning of what is asked for now.
    fn goes_on(&self, manifest: &Manifest, depends: &Depends) -> Result<bool> {
        let others = depends.other_parts(&manifest.made_of);
        let is_beginning = others.into_iter().eq(["config.training.steps"])
            && self.stage.goes_on_after(steps(manifest))
            && !manifest.facts.contains_key(CUT);
        Ok(is_beginning && trained_steps(&self.folder)? == Some(steps(manifest)))
    }
}

/// Optimizer steps of a finished training stage.
fn steps(manifest: &Manifest) -> u64 {
    manifest.counts.get("steps").copied().unwrap_or(0)
}
