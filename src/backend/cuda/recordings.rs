//! Work that operations issue between them, recorded and replayed: what the backend keeps of each key, and a recording
//! while it is made. The device's side is [`recorder`](super::recorder).

use std::collections::HashMap;
use std::sync::PoisonError;
use std::thread::ThreadId;

use super::Cuda;
use super::recorder::Recording;
use crate::error::{Error, Result};

/// Recorded work by key.
#[derive(Default)]
pub struct Recordings {
    /// `None` once it has been issued as it is.
    kept: HashMap<usize, Option<Recording>>,
    /// Why nothing is recorded any more: work is issued as it is.
    refused: Option<String>,
}

impl Recordings {
    /// How many keys have recorded work, and why there will be no more if there will not.
    pub fn state(&self) -> (usize, Option<&str>) {
        (self.kept.values().flatten().count(), self.refused.as_deref())
    }
}

/// A recording being made.
pub(super) struct Attempt {
    pub by: ThreadId,
    /// The first thing that cannot be recorded.
    pub fault: Option<Error>,
}

impl Cuda {
    /// Issues work of this key: as it is the first time, then recorded, then replayed.
    pub(super) fn replay_or_record(&self, recordings: &mut Recordings, key: usize, work: &mut dyn FnMut()) {
        if recordings.refused.is_some() {
            return work();
        }
        let Some(kept) = recordings.kept.get_mut(&key) else {
            work();
            recordings.kept.insert(key, None);
            return;
        };
        if let Some(recording) = kept
            && self.issue("replay", |_| self.recorder.replay(recording)) != Some(false)
        {
            return;
        }
        // The old one goes first.
        *kept = None;
        match self.record(work) {
            Ok(mut recording) => {
                self.issue("replay", |_| self.recorder.replay(&mut recording));
                *kept = Some(recording);
            }
            Err(error) => {
                recordings.refused = Some(error.to_string());
                work();
            }
        }
    }

    /// Records what `work` issues.
    fn record(&self, work: &mut dyn FnMut()) -> Result<Recording> {
        let mut turn = self.turn();
        self.recorder.begin()?;
        turn.recording = Some(Attempt { by: std::thread::current().id(), fault: None });
        drop(turn);
        let open = OpenRecording { cuda: self, ended: false };
        work();
        open.end()
    }
}

/// A recording that ends with its owner: if the work panics, the others go on.
struct OpenRecording<'a> {
    cuda: &'a Cuda,
    ended: bool,
}

impl OpenRecording<'_> {
    fn end(mut self) -> Result<Recording> {
        self.ended = true;
        self.close()
    }

    fn close(&self) -> Result<Recording> {
        let Cuda { recorder, shared, .. } = self.cuda;
        let mut turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let recording = recorder.end();
        let fault = turn.recording.take().and_then(|attempt| attempt.fault);
        drop(turn);
        shared.recorded.notify_all();
        fault.map_or(recording, Err)
    }
}

impl Drop for OpenRecording<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // What was recorded so far is nothing.
            let _ = self.close();
        }
    }
}
