//! Replies of a server, by what was asked: in memory, and on disk where a folder is given.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Most replies kept in memory.
const MOST: usize = 100_000;

/// What was answered.
pub(in crate::rule) struct Cache {
    folder: Option<PathBuf>,
    memory: Mutex<HashMap<String, String>>,
}

impl Cache {
    /// Without a folder, what is kept is gone with the process.
    pub fn new(folder: Option<&str>) -> Self {
        Cache { folder: folder.map(PathBuf::from), memory: Mutex::default() }
    }

    /// The key of a question with everything that changes its answer.
    pub fn key(&self, parts: &[&str]) -> String {
        crate::seed::content_id(parts.iter().map(|part| part.as_bytes()))
    }

    /// What was answered to the question of this key.
    pub fn get(&self, key: &str) -> Option<String> {
        if let Some(reply) = self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(reply.clone());
        }
        std::fs::read_to_string(path(self.folder.as_deref()?, key)).ok()
    }

    /// Keeps a reply. A disk that cannot be written costs a call later, not the verdict.
    pub fn put(&self, key: &str, reply: &str) {
        if let Some(folder) = &self.folder {
            let path = path(folder, key);
            let write = || -> std::io::Result<()> {
                let folder = path.parent().unwrap_or(folder);
                std::fs::create_dir_all(folder)?;
                let mut file = tempfile::NamedTempFile::new_in(folder)?;
                std::io::Write::write_all(&mut file, reply.as_bytes())?;
                file.persist(&path)?;
                Ok(())
            };
            if write().is_ok() {
                return;
            }
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() < MOST {
            memory.insert(key.to_owned(), reply.to_owned());
        }
    }
}

fn path(folder: &Path, key: &str) -> PathBuf {
    folder.join(&key[..2]).join(format!("{key}.txt"))
}
