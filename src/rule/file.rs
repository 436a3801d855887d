//! Rule files: named rules and the expression that turns their scores into a reward.
//!
//! ```toml
//! reward = "accuracy * format"      # meval over rule scores and facts
//!
//! [rules.accuracy]                  # the first rule decides the outcome
//! kind = "math"
//!
//! [rules.format]
//! kind = "format"
//! style = "think_answer"
//! ```
//!
//! Before the first table may stand `extends` (a path or a built-in name; rules of
//! the same name are changed key by key, or replaced when `kind` is given),
//! `without` (rules of the base to leave out), `outcome` (the rule, or the first
//! of several that decides) and `clip = [low, high]`. `[rewards]` gives domains
//! expressions of their own. Without `outcome` the first rule decides, where the
//! reward reads it; else the rules that it reads and that are confined to domains. A rule may be confined by `domains` and `languages`,
//! or run only where others could not tell (`fallback_for`). `[[examples]]` are run
//! by `rules test`. Everything is checked when the file is loaded.

mod example;
mod facts;
mod outcome;
mod parse;
mod print;
mod source;

use std::collections::HashSet;
use std::path::Path;

use super::expression::Expression;
use super::registry::Kind;
use super::{Rule, Sample, Verdict};
use crate::error::Result;
use crate::schema::{Outcome, Score};

use facts::Slot;

pub use example::{Example, Expect};
pub use facts::facts;
pub use source::BUILTIN;

/// Most rules of one file.
const MAX_RULES: usize = 64;

/// A loaded rule file: everything needed to judge completions, from any number of threads.
pub struct RuleSet {
    name: String,
    description: String,
    file: String,
    rules: Vec<Entry>,
    reward: Option<Reward>,
    rewards: Vec<(String, Reward)>,
    clip: Option<(f64, f64)>,
    examples: Vec<Example>,
    resolved: String,
    digest: String,
}

/// One rule of a file.
struct Entry {
    name: String,
    span: std::ops::Range<usize>,
    kind: &'static Kind,
    domains: Vec<String>,
    languages: Vec<String>,
    fallback_for: Vec<usize>,
    rule: Box<dyn Rule>,
}

struct Reward {
    expression: Expression,
    /// Indices of the deciding rules: the first that applies and decides.
    outcome: Vec<usize>,
}

impl Entry {
    fn takes_domain(&self, domain: &str) -> bool {
        self.domains.is_empty() || self.domains.iter().any(|d| d == domain)
    }

    fn takes(&self, domain: &str, language: &str) -> bool {
        self.takes_domain(domain) && (self.languages.is_empty() || self.languages.iter().any(|l| l == language))
    }
}

/// What a rule file says of one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Null where a score or fact that the expression needs is not known, or it is not finite.
    pub reward: Option<f64>,
    /// Of the deciding rule.
    pub outcome: Outcome,
    /// The deciding rule's reason code.
    pub reason: String,
    /// Every verdict in the file's order; rules that do not take the sample have none.
    pub scores: Vec<Score>,
}

impl RuleSet {
    /// Loads a rule file by path, or a built-in one by name (`r1`, `general` …).
    ///
    /// # Errors
    /// A file that cannot be read or is over 1 MiB, TOML that does not parse, unknown keys, kinds
    /// and names, parameters out of range, faulty expressions: with file, line, column and hint.
    pub fn load(path_or_name: &str) -> Result<Self> {
        let (name, text, folder) = source::open(path_or_name, None)?;
        parse::rule_set(&text, &name, folder.as_deref())
    }

    /// Parses a rule file's text; `name` is what errors call it. Relative `extends` start at the
    /// working directory.
    ///
    /// # Errors
    /// As [`RuleSet::load`].
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        parse::rule_set(text, name, None::<&Path>)
    }

    /// Judges one completion.
    pub fn judge(&self, sample: &Sample<'_>) -> Judgement {
        let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(self.rules.len());
        for entry in &self.rules {
            let runs =
                entry.takes(sample.domain, sample.language) && self.left_open(entry, |index| verdicts[index].as_ref());
            verdicts.push(runs.then(|| entry.rule.check(sample)));
        }
        self.conclude(sample, verdicts)
    }

    /// Judges many, in order; rules that wait overlap their waiting.
    pub fn judge_batch(&self, samples: &[Sample<'_>]) -> Vec<Judgement> {
        let mut verdicts: Vec<Vec<Option<Verdict>>> = vec![Vec::with_capacity(self.rules.len()); samples.len()];
        for entry in &self.rules {
            let takes = |sample: &Sample<'_>| entry.takes(sample.domain, sample.language);
            let runs = |i: &usize| takes(&samples[*i]) && self.left_open(entry, |index| verdicts[*i][index].as_ref());
            let chosen: Vec<usize> = (0..samples.len()).filter(runs).collect();
            let subset: Vec<Sample<'_>> = chosen.iter().map(|&i| samples[i]).collect();
            let mut answers = chosen.iter().zip(entry.rule.check_batch(&subset)).peekable();
            for (i, row) in verdicts.iter_mut().enumerate() {
                row.push(answers.next_if(|(chosen, _)| **chosen == i).map(|(_, verdict)| verdict));
            }
        }
        samples.iter().zip(verdicts).map(|(sample, verdicts)| self.conclude(sample, verdicts)).collect()
    }

    /// Whether the rules an entry falls back for decided nothing.
    fn left_open<'v>(&self, entry: &Entry, verdict: impl Fn(usize) -> Option<&'v Verdict>) -> bool {
        entry.fallback_for.iter().all(|&index| verdict(index).is_none_or(|v| v.outcome == Outcome::CannotTell))
    }

    fn conclude(&self, sample: &Sample<'_>, verdicts: Vec<Option<Verdict>>) -> Judgement {
        let taken = |index: &&usize| verdicts[**index].is_some();
        let decided = |index: &&usize| verdicts[**index].as_ref().is_some_and(|v| v.outcome != Outcome::CannotTell);
        let own = self.reward_for(sample.domain);
        let order = own.map_or(&[][..], |reward| reward.outcome.as_slice());
        let deciding = order.iter().find(decided).or_else(|| order.iter().find(taken));
        let (mut outcome, mut reason) = match deciding.and_then(|&index| verdicts[index].as_ref()) {
            Some(verdict) => (verdict.outcome, verdict.reason),
            None => (Outcome::CannotTell, "no_rule_for_sample"),
        };
        let mut reward = None;
        match own.map(|reward| &reward.expression) {
            None => (outcome, reason) = (Outcome::CannotTell, "no_reward_for_domain"),
            Some(expression) => {
                let mut slots = [f64::NAN; facts::MOST_SLOTS];
                for &slot in expression.uses() {
                    slots[slot] = match Slot::of(slot, self.rules.len()) {
                        Slot::Rule(index) => verdicts[index].as_ref().and_then(|v| v.score).unwrap_or(f64::NAN),
                        Slot::Fact(index) => facts::value(index, sample),
                    };
                }
                let value = expression.eval(&slots);
                if value.is_finite() {
                    // `+ 0.0` so that a reward of -0 is stored as 0.
                    reward = Some(self.clip.map_or(value, |(low, high)| value.clamp(low, high)) + 0.0);
                } else if !value.is_nan() || expression.uses().iter().all(|&slot| !slots[slot].is_nan()) {
                    (outcome, reason) = (Outcome::CannotTell, "reward_not_finite");
                }
            }
        }
        let scores = self
            .rules
            .iter()
            .zip(verdicts)
            .filter_map(|(entry, verdict)| verdict.map(|verdict| score(&entry.name, verdict)))
            .collect();
        Judgement { reward, outcome, reason: reason.to_owned(), scores }
    }

    fn reward_for(&self, domain: &str) -> Option<&Reward> {
        let own = self.rewards.iter().find(|(d, _)| d == domain).map(|(_, reward)| reward);
        own.or(self.reward.as_ref())
    }

    /// The rewards: the default one under `None`, then each domain's.
    fn all_rewards(&self) -> impl Iterator<Item = (Option<&str>, &Reward)> {
        let own = self.rewards.iter().map(|(domain, reward)| (Some(domain.as_str()), reward));
        self.reward.iter().map(|reward| (None, reward)).chain(own)
    }

    /// BLAKE3 of the resolved file, 64 hex digits: the same for two files that judge alike but for
    /// comments, layout, examples and `[meta]`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The file with `extends` inlined, as canonical TOML; parses to the same rule set.
    pub fn resolved(&self) -> &str {
        &self.resolved
    }

    /// The `[meta]` name, or the file's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `[meta]` description; empty if there is none.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What the file was loaded as.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Whether this machine has what the rules need: a sandbox for code.
    ///
    /// # Errors
    /// What is missing and how to get it. Without this check such rules cannot tell, row by row.
    pub fn ensure_ready(&self) -> Result<()> {
        // Where code is one domain of several, its rows say `sandbox_missing` and the others go on.
        let mut deciding = self.all_rewards().flat_map(|(_, reward)| &reward.outcome);
        if deciding.all(|&index| self.rules[index].kind.name == "code") { super::code::ready() } else { Ok(()) }
    }

    /// Names and kinds of the rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.rules.iter().map(|entry| (entry.name.as_str(), entry.kind.name))
    }

    /// Further columns of prompts that rules read ([`Rule::columns`]), each once, in order.
    pub fn columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = self.rules.iter().flat_map(|entry| entry.rule.columns()).cloned().collect();
        columns.sort();
        columns.dedup();
        columns
    }

    /// Whether a deciding rule and a reward take samples of this domain and language. Of others there is no verdict,
    /// whatever the completion.
    pub fn decides_on(&self, domain: &str, language: &str) -> bool {
        let takes = |&index: &usize| self.rules[index].takes(domain, language);
        self.reward_for(domain).is_some_and(|reward| reward.outcome.iter().any(takes))
    }

    /// The domains that the deciding rules are confined to, in the file's order; none if one takes them all.
    pub fn domains(&self) -> Vec<&str> {
        let mut domains: Vec<(usize, &str)> = Vec::new();
        for (own, reward) in self.all_rewards() {
            for &index in &reward.outcome {
                let entry = &self.rules[index];
                match own {
                    None if entry.domains.is_empty() => return Vec::new(),
                    None => domains.extend(entry.domains.iter().map(|domain| (index, domain.as_str()))),
                    Some(domain) => domains.extend(entry.takes_domain(domain).then_some((index, domain))),
                }
            }
        }
        domains.sort_by_key(|(index, _)| *index);
        let mut seen = HashSet::new();
        domains.into_iter().map(|(_, domain)| domain).filter(|d| self.decides_in(d) && seen.insert(*d)).collect()
    }

    /// Whether a deciding rule takes samples of this domain.
    fn decides_in(&self, domain: &str) -> bool {
        let takes = |&index: &usize| self.rules[index].takes_domain(domain);
        self.reward_for(domain).is_some_and(|reward| reward.outcome.iter().any(takes))
    }

    /// The file's `[[examples]]`.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// The reward expressions: the default under `None`, then each domain's.
    pub fn rewards(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        self.all_rewards().map(|(domain, reward)| (domain, reward.expression.text()))
    }

    /// The rules whose score an expression reads, by index.
    fn read_by(&self, expression: &Expression) -> impl Iterator<Item = usize> {
        Slot::rules(expression.uses(), self.rules.len())
    }

    /// What is legal but hardly meant: rules whose score no expression reads, rewards that read no
    /// rule, domains without a reward, and domains with a reward and no verdict.
    pub fn warnings(&self) -> Vec<String> {
        let expressions: Vec<&Expression> = self.all_rewards().map(|(_, reward)| &reward.expression).collect();
        let decides = |index: usize| self.all_rewards().any(|(_, reward)| reward.outcome.contains(&index));
        let mut warnings = Vec::new();
        for (index, entry) in self.rules.iter().enumerate() {
            let read = expressions.iter().any(|e| self.read_by(e).any(|rule| rule == index));
            if !read && !decides(index) {
                warnings.push(format!("no reward reads rule `{}`", entry.name));
            }
        }
        for expression in &expressions {
            if self.read_by(expression).next().is_none() {
                warnings.push(format!("the reward `{}` reads no rule", expression.text()));
            }
            let slots = facts::slots(self.rules.len());
            for score in [0.0, 1.0] {
                if !expression.eval(&vec![score; slots]).is_finite() {
                    warnings.push(format!(
                        "the reward `{}` is no finite number where every score is {score}",
                        expression.text()
                    ));
                }
            }
        }
        for (domain, _) in self.rewards.iter().filter(|(domain, _)| !self.decides_in(domain)) {
            warnings.push(format!(
                "no rule of `outcome` takes `{domain}`: its samples have a reward and are neither correct nor wrong"
            ));
        }
        if let Some(reward) = &self.reward {
            let needed = Slot::rules(reward.expression.needs(), self.rules.len()).map(|index| &self.rules[index]);
            for entry in needed.filter(|entry| !entry.domains.is_empty()) {
                warnings.push(format!(
                    "`{}` takes only {}: elsewhere the default reward is not known (see first(…) and [rewards])",
                    entry.name,
                    entry.domains.join(", ")
                ));
            }
        }
        warnings
    }
}

fn score(rule: &str, verdict: Verdict) -> Score {
    let evidence = (!verdict.evidence.is_empty()).then(|| {
        let map: serde_json::Map<String, serde_json::Value> =
            verdict.evidence.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        serde_json::Value::Object(map).to_string()
    });
    Score {
        rule: rule.to_owned(),
        score: verdict.score,
        outcome: verdict.outcome,
        reason: verdict.reason.to_owned(),
        evidence,
    }
}

#[cfg(test)]
mod tests;
