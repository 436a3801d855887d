//! Damaged Parquet files can trip assertions deep in a decoder: they become errors like the others.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use parquet::errors::Result as ParquetResult;

use super::faults::parquet_error;
use crate::error::{Error, Result};

/// Runs a step of a Parquet reader. A reader that panicked must not be used again.
///
/// # Errors
/// The reader's error, or that the file is damaged where it panicked; nothing is printed of the panic.
pub(crate) fn guarded<T>(file: &str, read: impl FnOnce() -> ParquetResult<T>) -> Result<T> {
    match quietly(read) {
        Some(result) => result.map_err(|e| parquet_error(file, e)),
        None => Err(Error::new("the Parquet file is damaged").in_file(file).hint("write or download it again")),
    }
}

thread_local! {
    /// Whether a panic of this thread is expected, and answered by an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or nothing if it panicked; the panic's message and backtrace are not printed.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                others(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(before);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_decoder_is_an_error_with_the_file() {
        let error = guarded::<()>("a.parquet", || panic!("an offset lies outside its page")).unwrap_err();
        assert_eq!(error.to_string(), "the Parquet file is damaged (a.parquet)");
        assert_eq!(guarded("a.parquet", || Ok(3)).unwrap(), 3);
        assert!(!QUIET.get(), "panics elsewhere are printed again");
    }
}
