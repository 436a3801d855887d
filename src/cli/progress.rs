//! Progress for people: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::pipeline::{Reporter, StageSummary, State};
use crate::stage::Progress;

/// Reports a run on stderr.
pub struct Terminal {
    bars: bool,
}

impl Terminal {
    pub fn new() -> Self {
        Terminal { bars: std::io::stderr().is_terminal() }
    }
}

impl Reporter for Terminal {
    fn stage(&self, number: usize, of: usize, name: &str, state: &State) -> Box<dyn Progress + '_> {
        let title = format!("[{number}/{of}] {name}");
        match (self.bars, state) {
            (_, State::Cached) | (false, _) => {
                errln!("{title}: {state}");
                Box::new(Lines { title, state: Mutex::new(None) })
            }
            (true, _) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
                bar.enable_steady_tick(Duration::from_millis(250));
                bar.set_prefix(title);
                bar.set_style(style("{prefix}  {spinner} {msg}"));
                Box::new(Bar(bar))
            }
        }
    }

    fn finished(&self, summary: &StageSummary) {
        if summary.cached {
            return;
        }
        let drops: u64 = summary.drops.values().sum();
        let dropped = if drops > 0 { format!(", {drops} dropped") } else { String::new() };
        let shards = match summary.shards {
            0 => String::new(),
            1 => format!(" in 1 shard ({})", crate::bytes::size(summary.bytes)),
            shards => format!(" in {shards} shards ({})", crate::bytes::size(summary.bytes)),
        };
        errln!("    {}: {}{shards}{dropped}, {:.1} s", summary.stage, summary.made(), summary.seconds);
        for (reason, n) in &summary.drops {
            errln!("        dropped {n}: {reason}");
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant").progress_chars("━╸─")
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn start(&self, total: u64, unit: &'static str) {
        if total > 0 {
            self.0.set_length(total);
            self.0.set_style(style(&format!(
                "{{prefix}}  {{bar:24}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}"
            )));
        } else {
            self.0.set_style(style(&format!("{{prefix}}  {{spinner}} {{pos}} {unit}  {{per_sec}}  {{msg}}")));
        }
    }

    fn advance(&self, n: u64) {
        self.0.inc(n);
    }

    fn say(&self, line: &str) {
        self.0.suspend(|| errln!("    {line}"));
    }

    fn latest(&self, figures: String) {
        self.0.set_message(figures);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line now and then, for logs.
struct Lines {
    title: String,
    state: Mutex<Option<Count>>,
}

struct Count {
    total: u64,
    unit: &'static str,
    done: u64,
    /// The newest figures, or nothing.
    latest: String,
    started: Instant,
    said: Instant,
}

const EVERY: Duration = Duration::from_secs(10);

impl Count {
    /// How far the work is after so many `seconds`.
    fn line(&self, seconds: f64) -> String {
        let rate = self.done as f64 / seconds.max(1e-9);
        let left = match self.total.saturating_sub(self.done) {
            0 => String::new(),
            rest => format!(" of {}, {:.0} s left", self.total, rest as f64 / rate.max(1e-9)),
        };
        let pace = if rate >= 1.0 { format!("{rate:.0}/s") } else { format!("{:.1} s each", 1.0 / rate.max(1e-9)) };
        let latest = if self.latest.is_empty() { String::new() } else { format!("  {}", self.latest) };
        format!("{} {}{left}, {pace}{latest}", self.done, self.unit)
    }
}

impl Progress for Lines {
    fn start(&self, total: u64, unit: &'static str) {
        let now = Instant::now();
        let count = Count { total, unit, done: 0, latest: String::new(), started: now, said: now };
        *self.state.lock().expect("no holder panics") = Some(count);
    }

    fn advance(&self, n: u64) {
        let mut state = self.state.lock().expect("no holder panics");
        let Some(count) = state.as_mut() else { return };
        count.done += n;
        if count.said.elapsed() < EVERY {
            return;
        }
        count.said = Instant::now();
        errln!("{}: {}", self.title, count.line(count.started.elapsed().as_secs_f64()));
    }

    fn say(&self, line: &str) {
        errln!("    {line}");
    }

    fn latest(&self, figures: String) {
        if let Some(count) = self.state.lock().expect("no holder panics").as_mut() {
            count.latest = figures;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_says_how_far_how_fast_and_what_was_measured_last() {
        let now = Instant::now();
        let mut count = Count { total: 10_400, unit: "steps", done: 0, latest: String::new(), started: now, said: now };
        count.done = 100;
        assert_eq!(count.line(50.0), "100 steps of 10400, 5150 s left, 2/s");
        count.latest = "reward 0.250  KL 0.013".to_owned();
        assert_eq!(count.line(1250.0), "100 steps of 10400, 128750 s left, 12.5 s each  reward 0.250  KL 0.013");
    }
}
