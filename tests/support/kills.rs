//! Commands that are killed on their way, by the system and not by a flag.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gristmill::seed::Rng;
use tempfile::TempDir;

use super::command;

/// Kills runs of one command at random moments.
///
/// How long a run takes depends on what else the machine does, which changes while the tests run. So a run that
/// ends before its moment comes does not count: it tells how quick they have become, and another one is killed.
pub struct Killer<'a> {
    arguments: &'a [&'a str],
    /// The time within which a run is killed: the shortest that a whole one took so far.
    whole: Duration,
    rng: Rng,
    /// Runs killed so far.
    pub kills: usize,
}

impl<'a> Killer<'a> {
    /// `whole` is what an uninterrupted run took.
    pub fn new(arguments: &'a [&'a str], whole: Duration, seed: u64) -> Self {
        Killer { arguments, whole, rng: Rng::new(seed), kills: 0 }
    }

    /// A folder, as `fresh` makes them, in which a run was killed.
    #[track_caller]
    pub fn begin(&mut self, fresh: impl Fn() -> TempDir) -> TempDir {
        for _ in 0..20 {
            let folder = fresh();
            match self.strike(folder.path()) {
                None => return folder,
                Some(took) => self.whole = self.whole.min(took),
            }
        }
        panic!("twenty runs ended before they could be killed, the last within {:?}", self.whole);
    }

    /// Runs the command in a folder where it was killed before, and kills it again unless it ends first.
    pub fn again(&mut self, folder: &Path) {
        self.strike(folder);
    }

    /// Kills a run at a random moment. The time it took, if it ended before.
    fn strike(&mut self, folder: &Path) -> Option<Duration> {
        let moment = self.whole.mul_f64(self.rng.uniform());
        let start = Instant::now();
        let mut child = command(folder)
            .args(self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        loop {
            if child.try_wait().expect("a child can be asked").is_some() {
                return Some(start.elapsed());
            }
            let left = moment.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
        // `Child::kill` sends SIGKILL.
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        self.kills += 1;
        None
    }
}
