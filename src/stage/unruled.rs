//! What rules decide nothing on: prompts of domains that they know nothing of, found before anything is asked, and
//! completions that got no verdict, by reason.

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

/// Completions by their verdict, and why there is none.
#[derive(Debug, Default)]
pub struct Undecided {
    judged: u64,
    reasons: BTreeMap<String, u64>,
}

/// A request that failed has nothing to judge: that is no fault of the rules.
const FAILED: &str = "request_failed";
/// Reasons that a line names.
const NAMED: usize = 3;

impl Undecided {
    /// Of a stage's counts: completions judged, and those under `cannot_tell:REASON`.
    pub fn of(judged: u64, counts: &BTreeMap<String, u64>) -> Self {
        let reason = |(what, n): (&String, &u64)| Some((what.strip_prefix("cannot_tell:")?.to_owned(), *n));
        Undecided { judged, reasons: counts.iter().filter_map(reason).collect() }
    }

    /// Counts a completion; `reason` is why it has no verdict, if it has none.
    pub fn see(&mut self, reason: Option<&str>) {
        self.judged += 1;
        if let Some(reason) = reason {
            *self.reasons.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// The commonest reasons with their numbers; empty where all was decided.
    pub fn reasons(&self) -> String {
        let mut all: Vec<_> = self.reasons.iter().collect();
        all.sort_by_key(|&(_, n)| std::cmp::Reverse(*n));
        let named: Vec<String> = all.iter().take(NAMED).map(|(reason, n)| format!("{reason} {n}")).collect();
        named.join(", ")
    }

    /// A line for people where most completions that came have no verdict.
    pub fn warning(&self, rules: &RuleSet) -> Option<String> {
        let failed = self.reasons.get(FAILED).copied().unwrap_or(0);
        let undecided = self.reasons.values().sum::<u64>() - failed;
        let came = self.judged.saturating_sub(failed);
        (2 * undecided > came).then(|| {
            format!(
                "warning: the rules `{}` decided nothing on {undecided} of {came} completions ({}): these have no verdict, and \
                 no reward that needs one; look at what the prompts' `gold` and `verification` hold, or take other rules",
                rules.name(),
                self.reasons()
            )
        })
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

    #[test]
    fn completions_without_a_verdict_are_told_with_their_reasons_where_they_are_most() {
        let rules = RuleSet::load("r1").unwrap();
        let mut seen = Undecided::default();
        for reason in [None, Some("no_answer"), Some("no_gold"), Some("request_failed")] {
            seen.see(reason);
        }
        assert_eq!(seen.reasons(), "no_answer 1, no_gold 1, request_failed 1");
        let line = seen.warning(&rules).expect("two of the three that came");
        assert!(line.contains("decided nothing on 2 of 3 completions (no_answer 1, no_gold 1"), "{line}");
        seen.see(None);
        assert_eq!(seen.warning(&rules), None, "half is not most");
        let counts = BTreeMap::from([("cannot_tell:no_gold".to_owned(), 2), ("cannot_tell".to_owned(), 2)]);
        assert_eq!(Undecided::of(9, &counts).reasons(), "no_gold 2");
    }
}
