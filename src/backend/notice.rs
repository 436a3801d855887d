//! A line for people about the device, from whichever thread finds it out.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Says something on stderr, unless this process has said it before: every stage opens the device anew.
pub(super) fn once(text: &str) {
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.get_or_insert_default().insert(text.to_owned()) {
        // Work does not end because nobody listens.
        let _ = writeln!(anstream::stderr().lock(), "warning: {text}");
    }
}
