//! What may be secret in settings, and is not shown.

use super::VllmConfig;
use crate::error::names_a_secret;

const HIDDEN: &str = "***";

/// Without what may be secret: passwords and queries in addresses, keys in what servers are sent or started with.
impl std::fmt::Debug for VllmConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.clone();
        shown.endpoints.iter_mut().for_each(|address| *address = without_secrets(address));
        let secret = shown.extra_body.iter_mut().filter(|(key, value)| value.is_string() && names_a_secret(key));
        secret.for_each(|(_, value)| *value = HIDDEN.into());
        shown.server.env.values_mut().for_each(|value| *value = HIDDEN.into());
        shown.server.args = hide_arguments(&shown.server.args);
        write!(f, "VllmConfig {}", serde_json::to_value(shown).map_err(|_| std::fmt::Error)?)
    }
}

/// The address with anything between `//` and `@`, and behind `?` or `#`, hidden.
pub(super) fn without_secrets(text: &str) -> String {
    let (text, query) = match text.find(['?', '#']) {
        // A password may hold these characters: then what is before the `@` is hidden with them.
        Some(at) if !text[at..].contains('@') => (&text[..at], &text[at..=at]),
        _ => (text, ""),
    };
    let shown = match (text.find("//"), text.rfind('@')) {
        (Some(start), Some(end)) if start + 2 < end => format!("{}{HIDDEN}{}", &text[..start + 2], &text[end..]),
        (None, Some(end)) => format!("{HIDDEN}{}", &text[end..]),
        _ => text.to_owned(),
    };
    if query.is_empty() { shown } else { format!("{shown}{query}{HIDDEN}") }
}

/// Arguments of a program with the values of those hidden that name a secret.
pub(super) fn hide_arguments(arguments: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(arguments.len());
    let mut hide = false;
    for argument in arguments {
        let flag = argument.split_once('=').filter(|(flag, _)| names_a_secret(flag));
        shown.push(match flag {
            Some((flag, _)) => format!("{flag}={HIDDEN}"),
            None if hide && !argument.starts_with("--") => HIDDEN.to_owned(),
            None => argument.clone(),
        });
        // A flag may take several keys.
        hide = if argument.starts_with('-') { flag.is_none() && names_a_secret(argument) } else { hide };
    }
    shown
}
