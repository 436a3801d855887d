//! Which rules decide the outcome.

use super::Entry;
use super::facts::Slot;
use crate::error::nearest;
use crate::rule::expression::Expression;

/// The rules that the file names.
///
/// # Errors
/// None are named, or one that is not there: what is wrong, and a hint.
pub(super) fn named(rules: &[Entry], names: &[String]) -> Result<Vec<usize>, (String, Option<String>)> {
    if names.is_empty() {
        return Err(("`outcome` names no rule".to_owned(), None));
    }
    let known = || rules.iter().map(|rule| rule.name.as_str());
    let find = |name: &String| {
        known().position(|rule| rule == name).ok_or_else(|| {
            let hint = match nearest(name, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("rules here: {}", known().collect::<Vec<_>>().join(", ")),
            };
            (format!("`outcome` names no rule of this file: `{name}`"), Some(hint))
        })
    };
    names.iter().map(find).collect()
}

/// The rules that decide where the file names none. The first does, where the reward reads it and it takes the
/// domain; for the default reward also those of other domains that the reward reads. Else those that are confined to
/// this domain, or the first that the reward reads at all.
pub(super) fn by_default(rules: &[Entry], reward: &Expression, domain: Option<&str>) -> Vec<usize> {
    let read = || Slot::rules(reward.uses(), rules.len());
    let Some(domain) = domain else {
        let confined = |rule: &usize| !rules[0].domains.is_empty() && !rules[*rule].domains.is_empty();
        return std::iter::once(0).chain(read().filter(|&rule| rule > 0).filter(confined)).collect();
    };
    let taking: Vec<usize> = read().filter(|&rule| rules[rule].takes_domain(domain)).collect();
    let own: Vec<usize> = taking.iter().copied().filter(|&rule| !rules[rule].domains.is_empty()).collect();
    match taking.first() {
        None | Some(0) => vec![0],
        Some(_) if !own.is_empty() => own,
        Some(&first) => vec![first],
    }
}
