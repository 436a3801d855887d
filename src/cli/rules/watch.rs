//! `--watch`: run again whenever a rule file changes.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};

/// How often files are looked at.
const EVERY: Duration = Duration::from_millis(300);

/// Runs `work` now and after every change of one of the files; until interrupted.
pub(super) fn watch(files: &[String], work: impl Fn() -> Result<()>) -> Result<()> {
    let paths: Vec<PathBuf> = files.iter().filter_map(|file| super::watched(file)).collect();
    if paths.is_empty() {
        return Err(Error::usage("there is no file to watch").hint("name a rule file by its path"));
    }
    let stamps = || -> Vec<Option<SystemTime>> {
        // A file that is being replaced is missing for a moment: that is a change too.
        paths.iter().map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok()).collect()
    };
    loop {
        let seen = stamps();
        if let Err(error) = work() {
            errln!("{}", error.render(true));
        }
        errln!("watching {} files; Ctrl-C ends", paths.len());
        while stamps() == seen {
            std::thread::sleep(EVERY);
        }
    }
}
