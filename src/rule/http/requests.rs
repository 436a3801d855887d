//! Rows from many threads, gathered into a few requests at a time.
//!
//! There is no timer: while all requests are in flight rows gather by themselves, and the next request that is free
//! takes those that wait. Whoever asks waits for its answers, so no more rows wait than are being judged.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::reply::{self, Fault, Said};
use crate::rule::remote::{Client, Failure};

/// What came of a row.
pub(super) type Answer = Result<Said, Fault>;

/// Most bytes of a request, but that a row that is longer goes alone: a quarter of what `serve-rewards` takes.
const MAX_BYTES: usize = 16 << 20;

struct Waiting {
    row: String,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Requests that are in flight or about to be.
    running: usize,
}

/// The requests of one rule.
pub(super) struct Requests {
    client: Client,
    batch: usize,
    parallel: usize,
    state: Mutex<State>,
}

impl Requests {
    pub fn new(client: Client, batch: usize, parallel: usize) -> Self {
        Requests { client, batch, parallel, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts rows in line. Their answers come in any order, each to its own row.
    pub fn ask(self: &Arc<Self>, runtime: &Runtime, rows: Vec<String>) -> Vec<impl Future<Output = Answer> + use<>> {
        let (lines, answers): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|row| {
                let (answer, comes) = oneshot::channel();
                (Waiting { row, answer }, async move { comes.await.unwrap_or_else(|_| Err(lost())) })
            })
            .unzip();
        let mut state = self.state();
        state.waiting.extend(lines);
        let wanted = state.waiting.len().div_ceil(self.batch).min(self.parallel - state.running);
        state.running += wanted;
        drop(state);
        for _ in 0..wanted {
            runtime.spawn(self.clone().run());
        }
        answers
    }

    /// Sends what waits until nothing does.
    async fn run(self: Arc<Self>) {
        while let Some(rows) = self.next() {
            // A task of its own: whatever becomes of it, those who wait behind these rows are served.
            let _ = tokio::spawn(self.clone().send(rows)).await;
        }
    }

    /// The rows of the next request; without any, this one is free again.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        let (mut count, mut bytes) = (0, 0);
        for waiting in state.waiting.iter().take(self.batch) {
            bytes += waiting.row.len();
            if count > 0 && bytes > MAX_BYTES {
                break;
            }
            count += 1;
        }
        if count == 0 {
            state.running -= 1;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }

    async fn send(self: Arc<Self>, rows: Vec<Waiting>) {
        let texts: Vec<&str> = rows.iter().map(|waiting| waiting.row.as_str()).collect();
        let body = format!("{{\"rows\":[{}]}}", texts.join(","));
        let reply = self.client.post(&body, |bytes| Ok(reply::read(bytes, texts.len()))).await;
        drop((texts, body));
        let answers = reply.unwrap_or_else(|failure| Err(fault(failure)));
        match answers {
            // Nobody may be waiting any more; then nobody misses it.
            Ok(answers) => rows.into_iter().zip(answers).for_each(|(row, answer)| drop(row.answer.send(answer))),
            Err(fault) => rows.into_iter().for_each(|row| drop(row.answer.send(Err(fault.clone())))),
        }
    }
}

fn fault(failure: Failure) -> Fault {
    match failure {
        Failure::Refused(why) => {
            Fault::new("server_refused", format!("{why}; is `endpoint` the whole address, with its path?"))
        }
        Failure::Unavailable(why) => {
            Fault::new("server_unavailable", format!("{why}; is the server of `endpoint` running?"))
        }
        Failure::Down(why) => Fault::new("server_down", format!("{why}; is the server of `endpoint` running?")),
    }
}

fn lost() -> Fault {
    Fault::new("server_unavailable", "the request was lost")
}
