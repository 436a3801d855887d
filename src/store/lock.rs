//! Locks on files: who works where. They go with the process that holds them.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

/// A process that was killed holds its locks until the system has taken its memory apart.
const PATIENCE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// Tries to lock, for a moment again and again: the same command right after a kill is to work.
///
/// # Errors
/// As the last try.
pub(crate) fn lock_soon(mut lock: impl FnMut() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    let began = Instant::now();
    loop {
        match lock() {
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => std::thread::sleep(TICK),
            result => return result,
        }
    }
}

/// Whether some process holds the file's lock; false where the file system knows no locks.
pub(crate) fn is_locked(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => {
            // Only looked at. A lock that cannot be given back goes when the file is closed.
            let _ = file.unlock();
            false
        }
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_given_back_soon_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            || File::options().create(true).truncate(false).write(true).open(folder.path().join("lock")).unwrap();
        let (held, wanted) = (open(), open());
        held.lock().unwrap();
        assert!(is_locked(&wanted));
        let (locked, began) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                began.recv().unwrap();
                drop(held);
            });
            let mut first = true;
            lock_soon(|| {
                let result = wanted.try_lock();
                if std::mem::take(&mut first) {
                    assert!(result.is_err());
                    locked.send(()).unwrap();
                }
                result
            })
            .unwrap();
        });
        assert!(is_locked(&open()));
    }
}
