//! Beside the requests to servers: Ctrl-C, and how it goes, for people.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::engine::vllm::VllmEngine;
use crate::stage::StageContext;

/// How soon Ctrl-C is noticed.
const TICK: Duration = Duration::from_millis(50);
/// How often it is said how it goes.
const EVERY: Duration = Duration::from_secs(30);

/// Does `work`, which has servers answer; meanwhile Ctrl-C stops the sending (what is in flight is
/// still waited for), and lines say how it goes. At the end a table says what each server did.
pub(in crate::stage) fn attend<T>(engine: Option<&VllmEngine>, cx: &StageContext<'_>, work: impl FnOnce() -> T) -> T {
    let Some(engine) = engine else { return work() };
    if let Some(address) = engine.metrics_address() {
        cx.progress.say(&format!("metrics at http://{address}/metrics"));
    }
    let (done, ended) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || watch(engine, cx, &ended));
        // Dropped when the work ends, in a panic too.
        let _done = done;
        work()
    })
}

fn watch(engine: &VllmEngine, cx: &StageContext<'_>, ended: &Receiver<()>) {
    let cancel = engine.cancel_token();
    let mut said = Instant::now();
    while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if cx.check_stop().is_err() && !cancel.is_cancelled() {
            cx.progress
                .say(&format!("stopping once the {} requests in flight are answered", engine.snapshot().in_flight));
            cancel.cancel();
        }
        engine.take_news().iter().for_each(|line| cx.progress.say(line));
        if said.elapsed() >= EVERY {
            said = Instant::now();
            cx.progress.say(&engine.snapshot().line());
        }
    }
    engine.take_news().iter().for_each(|line| cx.progress.say(line));
    let snapshot = engine.snapshot();
    if snapshot.requests > 0 {
        snapshot.table().iter().for_each(|line| cx.progress.say(line));
    }
}
