//! Prompts that no rule decides on: found before anything is asked, since their completions get no verdict.

use std::collections::BTreeMap;

use crate::rule::file::RuleSet;
use crate::schema::Prompt;

/// How many prompts there are, and of how many the rules cannot tell anything.
pub struct Unruled<'a> {
    rules: &'a RuleSet,
    prompts: u64,
    /// Those that no rule decides on, by domain.
    left: BTreeMap<String, u64>,
}

impl<'a> Unruled<'a> {
    pub fn new(rules: &'a RuleSet) -> Self {
        Unruled { rules, prompts: 0, left: BTreeMap::new() }
    }

    /// Of prompts in memory.
    pub fn of(rules: &'a RuleSet, prompts: &[Prompt]) -> Self {
        let mut seen = Self::new(rules);
        prompts.iter().for_each(|prompt| seen.see(&prompt.domain, &prompt.language));
        seen
    }

    /// Counts a prompt.
    pub fn see(&mut self, domain: &str, language: &str) {
        self.prompts += 1;
        if !self.rules.decides_on(domain, language) {
            *self.left.entry(domain.to_owned()).or_default() += 1;
        }
    }

    /// A line for people where it is most prompts. `what` says which prompts they are.
    pub fn warning(&self, what: &str) -> Option<String> {
        let left: u64 = self.left.values().sum();
        if 2 * left <= self.prompts {
            return None;
        }
        let domains: Vec<String> = self.left.iter().map(|(domain, n)| format!("{domain} {n}")).collect();
        let mut line = format!(
            "warning: the rules `{}` decide nothing on {left} of {} {what} (by domain: {}): completions of these get no \
             verdict, and no reward that needs one",
            self.rules.name(),
            self.prompts,
            domains.join(", ")
        );
        line += &match self.rules.domains() {
            domains if domains.is_empty() => "; take other rules".to_owned(),
            domains => format!(
                "; they decide on {}: say at the prompts' source which `domain` they are of, or take other rules",
                domains.join(", ")
            ),
        };
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_prompts_without_a_rule_are_told_with_their_domains() {
        let rules = RuleSet::load("r1").unwrap();
        let mut seen = Unruled::new(&rules);
        seen.see("math", "en");
        seen.see("general", "en");
        assert_eq!(seen.warning("prompts"), None, "one of two is not most");
        seen.see("history", "en");
        let line = seen.warning("prompts").unwrap();
        assert!(line.contains("2 of 3 prompts (by domain: general 1, history 1)"), "{line}");
        assert!(line.contains("decide on math, stem, logic, code"), "{line}");
        let any = RuleSet::load("r1_zero").unwrap();
        let mut seen = Unruled::new(&any);
        seen.see("history", "en");
        assert_eq!(seen.warning("prompts"), None, "a rule without domains takes them all");
    }
}
