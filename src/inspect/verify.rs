//! Whether files are as their stages wrote them: `gristmill inspect --verify`.

use std::fmt;

use serde::Serialize;

use crate::bytes::size;
use crate::error::{Error, Result};
use crate::store::{Altered, Location, Manifest, RunFolder};

/// What [`verify`] compared with the digests in manifests.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Files that manifests list, altered and missing ones included.
    pub files: usize,
    /// What manifests say these files hold.
    pub bytes: u64,
    /// Files that are not as they were written, by their paths from the location.
    pub altered: Vec<Altered>,
}

/// Reads every file of a stage's folder, or of all finished stages of a run, and compares it with the digest in the
/// stage's manifest. Journals have none, and models have one since manifests list them.
///
/// # Errors
/// There is no manifest; the disk or store refuses.
pub fn verify(location: &Location) -> Result<Verified> {
    let mut verified = Verified { files: 0, bytes: 0, altered: Vec::new() };
    let mut stages = Vec::new();
    // Of a file there is nothing to list.
    if location.size()?.is_none() {
        stages.push((String::new(), location.clone()));
        let folders = RunFolder::look(location)?.stages;
        stages.extend(folders.into_iter().map(|folder| (format!("{folder}/"), location.join(&folder))));
    }
    let mut finished = 0;
    for (prefix, folder) in stages {
        if let Some(manifest) = Manifest::load(&folder)? {
            verified.add(&manifest, &folder, &prefix)?;
            finished += 1;
        }
    }
    match finished {
        0 => Err(Error::new("there is no manifest to verify files by")
            .in_file(location)
            .hint("give the folder of a finished stage, or of a run")),
        _ => Ok(verified),
    }
}

impl Verified {
    fn add(&mut self, manifest: &Manifest, folder: &Location, prefix: &str) -> Result<()> {
        self.files += manifest.listed().count();
        self.bytes += manifest.listed().map(|(_, bytes, _)| bytes).sum::<u64>();
        let altered = manifest.altered(folder)?.into_iter();
        self.altered.extend(altered.map(|of| Altered { file: format!("{prefix}{}", of.file), ..of }));
        Ok(())
    }

    /// # Errors
    /// A file is not as it was written.
    pub fn result(&self) -> Result<()> {
        match self.altered.len() {
            0 => Ok(()),
            count => Err(Error::new(format!("{count} of {} files are not as they were written", self.files))
                .hint("bring them back, or have their stage made again: `gristmill run RECIPE --from STAGE`")),
        }
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.altered.iter().try_for_each(|altered| writeln!(f, "{} {}", altered.file, altered.what))?;
        match self.altered.len() {
            0 => write!(f, "{} files, {}: all as they were written", self.files, size(self.bytes)),
            count => write!(f, "{} files, {}: {count} not as they were written", self.files, size(self.bytes)),
        }
    }
}
