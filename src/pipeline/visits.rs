//! Which stages of a plan a run comes to, and which of them run even if they are cached.

use super::plan::{Plan, Planned};
use super::run::Options;
use crate::error::{Error, Result};

/// A stage that a run comes to.
pub(super) struct Visit<'p> {
    /// Its place in the running order, from 0.
    pub index: usize,
    pub planned: &'p Planned,
    /// Whether it was asked for anew, or follows one that was.
    pub forced: bool,
}

impl Plan {
    /// Fails where the options name a stage that is not there.
    ///
    /// # Errors
    /// That, with the names there are.
    pub(super) fn check_names(&self, options: &Options) -> Result<()> {
        for (flag, name) in [("--from", &options.from), ("--only", &options.only)] {
            if let Some(name) = name
                && self.find(name).is_none()
            {
                let names: Vec<&str> = self.stages.iter().map(|s| s.name.as_str()).collect();
                return Err(Error::usage(format!("{flag} {name}: the recipe has no such stage"))
                    .hint(format!("it has: {}", names.join(", "))));
            }
        }
        Ok(())
    }

    /// The stages that a run with these options comes to, in running order.
    pub(super) fn visits(&self, options: &Options) -> impl Iterator<Item = Visit<'_>> {
        let is_named = |name: &Option<String>, planned: &Planned| name.as_ref() == Some(&planned.name);
        let from = self.stages.iter().position(|planned| is_named(&options.from, planned));
        let visits = self.stages.iter().enumerate().map(move |(index, planned)| Visit {
            index,
            planned,
            forced: from.is_some_and(|from| index >= from),
        });
        visits.filter(move |visit| options.only.is_none() || is_named(&options.only, visit.planned))
    }
}
