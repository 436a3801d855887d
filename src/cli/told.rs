//! Which rules decide nothing, whatever the row: most often what they need was not sent.

use std::collections::BTreeMap;

use crate::rule::Judgement;

/// What each rule could tell so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    rules: BTreeMap<String, Verdicts>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdicts {
    rows: u64,
    told: u64,
    /// Why it could not tell, with counts.
    reasons: BTreeMap<String, u64>,
    warned: bool,
}

impl Told {
    /// Counts the verdicts on one row.
    pub fn count(&mut self, judgement: &Judgement) {
        for score in &judgement.scores {
            let rule = self.rules.entry(score.rule.clone()).or_default();
            rule.rows += 1;
            if score.score.is_some() {
                rule.told += 1;
            } else if rule.told == 0 {
                *rule.reasons.entry(score.reason.clone()).or_default() += 1;
            }
        }
    }

    /// A warning for each rule that could tell on none of at least `least` rows; once a rule.
    pub fn warnings(&mut self, least: u64) -> Vec<String> {
        let silent = self.rules.iter_mut().filter(|(_, rule)| rule.told == 0 && rule.rows >= least && !rule.warned);
        silent
            .map(|(name, rule)| {
                rule.warned = true;
                let most = rule.reasons.iter().max_by_key(|(_, count)| **count);
                let reason = most.map_or("", |(reason, _)| reason.as_str());
                let missing = match reason {
                    "tokens_unknown" => "; rows have no `tokens`",
                    "gold_missing" | "no_gold" => "; rows have no `gold`",
                    "constraints_missing" | "tests_missing" | "schema_missing" => "; rows have no `verification`",
                    "judge_unavailable" | "judge_down" | "server_unavailable" | "server_down" => {
                        "; no server answers at its `endpoint`"
                    }
                    _ => "",
                };
                format!("rule `{name}` could tell on none of {} rows: {reason}{missing}", rule.rows)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSet;
    use crate::rule::testing::with_gold;

    #[test]
    fn a_rule_that_never_tells_is_told_of_once() {
        let rules =
            "reward = \"a + first(l, 0)\"\n[rules.a]\nkind = \"exact\"\n[rules.l]\nkind = \"length\"\nmax = 4\n";
        let rules = RuleSet::parse(rules, "r").unwrap();
        let mut told = Told::default();
        told.count(&rules.judge(&with_gold("4", "4")));
        assert!(told.warnings(2).is_empty());
        told.count(&rules.judge(&with_gold("4", "")));
        let warned = told.warnings(2);
        assert_eq!(warned, ["rule `l` could tell on none of 2 rows: tokens_unknown; rows have no `tokens`"]);
        assert!(told.warnings(2).is_empty());
        let mut told = Told::default();
        told.count(&rules.judge(&with_gold("4", "4")));
        told.count(&rules.judge(&crate::rule::Sample { tokens: Some(3), ..with_gold("4", "4") }));
        assert!(told.warnings(1).is_empty());
    }
}
