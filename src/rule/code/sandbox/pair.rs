//! A program and its judge, each in a sandbox of its own, with a pipe each way between them.

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Ended, Job, capture, ended, overrun, slots, start};
use crate::error::{Context, Result};

/// What a program and its judge left behind.
#[derive(Debug)]
pub(crate) struct Judged {
    /// How the program ended: by itself, or by a limit that either passed; `None` if it was still there when
    /// the judge was done.
    pub ended: Option<Ended>,
    /// What the judge wrote to its standard error, which the program has no way to.
    pub report: Vec<u8>,
    /// The program's standard error.
    pub stderr: Vec<u8>,
}

/// How long a program may take to end after its judge has.
const LEAVE: Duration = Duration::from_millis(300);
/// Most bytes of a report.
const MAX_REPORT: usize = 16 << 20;

/// Runs both to the judge's end: the standard output of each is the standard input of the other. As they mostly wait
/// for each other, they take one place among those that run at once.
///
/// # Errors
/// Only when bubblewrap itself cannot be started.
pub(crate) fn run_judged(program: &Job<'_>, judge: &Job<'_>) -> Result<Judged> {
    let _slot = slots::of_process().take();
    let mut held = start(program, Stdio::piped(), Stdio::piped())?;
    let (Some(stdin), Some(stdout)) = (held.process().stdin.take(), held.process().stdout.take()) else {
        return Err(crate::Error::new("a program has no pipes"));
    };
    let mut judging = start(judge, stdout.into(), stdin.into())?;
    let (stderr, report) = (held.process().stderr.take(), judging.process().stderr.take());
    let (flooded, overlong) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let stderr = scope.spawn(|| capture(stderr, program.limits.output, &flooded));
        let report = scope.spawn(|| capture(report, MAX_REPORT, &overlong));
        let ended = watch(held.process(), judging.process(), program, judge, &flooded);
        // The readers end when the writers have.
        drop((held, judging));
        Ok(Judged {
            ended: ended.or_fail(|| "cannot wait for a program".into())?,
            report: report.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    })
}

fn watch(
    program: &mut Child,
    judging: &mut Child,
    job: &Job<'_>,
    judge: &Job<'_>,
    flooded: &AtomicBool,
) -> std::io::Result<Option<Ended>> {
    let (start, mut pause) = (Instant::now(), Duration::from_millis(1));
    let mut over = None;
    loop {
        // A program whose output is no longer read ends by itself.
        let own = program.try_wait()?.map(|status| match flooded.load(Ordering::Relaxed) {
            true => Ended::OutputLimit,
            false => ended(status),
        });
        if judging.try_wait()?.is_some() {
            let since = *over.get_or_insert_with(Instant::now);
            if own.is_some() || since.elapsed() > LEAVE {
                return Ok(own);
            }
        } else if let Some(limit) = overrun(judging, start, &judge.limits, flooded) {
            return Ok(own.or(Some(limit)));
        }
        if own.is_none()
            && let Some(limit) = overrun(program, start, &job.limits, flooded)
        {
            return Ok(Some(limit));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
