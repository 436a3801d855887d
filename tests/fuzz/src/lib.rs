//! The rule room of gristmill and what it stands on, without Arrow, engines and models, and the
//! watch that the targets keep on it. `rule`, `language`, `error`, `seed` and `words` are links to the files in `src/`.

// What the command alone uses of it goes unused here.
#[allow(dead_code, unused_imports)]
pub mod error;
pub mod language;
pub mod rule;
pub mod schema;
pub mod seed;
pub mod words;

use std::time::{Duration, Instant};

pub use error::{Error, Result};

/// What no input of 4 kB may take, instrumented and on a busy machine. Work is bounded by a count of
/// steps (10 ms of them at the default); this is the alarm for a step that costs more than it says.
pub const ALARM: Duration = Duration::from_millis(1500);

/// Runs `work`; panics where it took longer than [`ALARM`] of this thread's own time.
pub fn watched<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (clock, cpu) = (Instant::now(), thread_time());
    let done = work();
    // The thread's time, so that waiting for a core is no fault of the input.
    let took = thread_time().saturating_sub(cpu).min(clock.elapsed());
    assert!(took <= ALARM, "{what}: {took:?}");
    done
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills; the clock id exists on Linux and macOS.
    let fine = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } == 0;
    if fine { Duration::new(time.tv_sec as u64, time.tv_nsec as u32) } else { Duration::ZERO }
}

/// Text of the fuzzer's bytes: what is no UTF-8 becomes the replacement character.
pub fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// A verdict that keeps its promises.
pub fn assert_sound(verdict: &rule::Verdict) {
    let undecided = verdict.outcome == schema::Outcome::CannotTell;
    assert_eq!(verdict.score.is_none(), undecided, "{verdict:?}");
    assert!(verdict.score.is_none_or(f64::is_finite), "{verdict:?}");
    let code = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    assert!(!verdict.reason.is_empty() && verdict.reason.chars().all(code), "{verdict:?}");
}

/// A sample with nothing but its texts.
pub fn sample<'a>(completion: &'a str, gold: Option<&'a str>) -> rule::Sample<'a> {
    rule::Sample {
        prompt: "What is 6 times 7?",
        completion,
        gold,
        verification: None,
        domain: "math",
        language: "en",
        difficulty: None,
        finish_reason: schema::FinishReason::Stop,
        tokens: None,
        origin: Default::default(),
    }
}
