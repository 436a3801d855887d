//! Rule files as stages name them.

use std::path::Path;

use super::{CheckContext, Fault};
use crate::error::{Error, Result, nearest};
use crate::recipe::Base;
use crate::rule::file::BUILTIN;
use crate::store::local_file;

/// A rule file's path, or the name of a built-in one if there is no such file.
///
/// # Errors
/// A URL whose object cannot be fetched.
pub(super) fn rules_path(rules: &str, base: &Base) -> Result<String> {
    let path = local_file(&base.resolve(rules))?;
    Ok(if Path::new(&path).exists() { path } else { rules.to_owned() })
}

/// Finds a slip in the name of a rule file before anything runs.
pub(super) fn check_rules(key: &str, rules: &str, cx: &CheckContext<'_>) -> Result<(), Fault> {
    let path = cx.base.resolve(rules);
    let names = || BUILTIN.iter().map(|(name, _)| *name);
    if path.contains("://") || Path::new(&path).exists() || names().any(|name| name == rules) {
        return Ok(());
    }
    let hint = match nearest(rules, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("built-in rule files: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Fault::new(key, Error::usage(format!("there is no rule file `{path}`")).hint(hint)))
}
