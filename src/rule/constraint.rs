//! The constraint rule: instructions that a program can check.

use serde_json::Value;

mod kinds;

use super::params::{ParamError, params};
use super::{Rule, Sample, Verdict, think};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the answer follows its instructions (IFEval's 25 kinds)
# What
The prompt's verification JSON lists them as IFEval does (arXiv 2311.07911):
`{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`, or
`{"constraints": [{"id": "length_constraints:number_words", "relation":
"at least", "num_words": 50}]}`. The score is the share that is followed; right
means all of them.
# Why
Instruction following is the general data whose reward needs no judge. Only the
answer counts: what the chain of thought says does not.
# Example
    [rules.instructions]
    kind = "constraint"
    all_or_nothing = true"#;

params! {
    /// Parameters of the constraint rule.
    pub struct ConstraintConfig {
        /// Score 1 only if every instruction is followed, else 0.
        all_or_nothing: bool = false,
    }
}

/// See [`DOC`].
pub struct ConstraintRule {
    config: ConstraintConfig,
}

impl ConstraintRule {
    /// # Errors
    /// None today; the signature is that of every rule.
    pub fn new(config: ConstraintConfig) -> Result<Self, ParamError> {
        Ok(ConstraintRule { config })
    }
}

/// Most constraints of one prompt.
const MAX_CONSTRAINTS: usize = 64;

/// The constraints of a verification: id and arguments.
fn listed(verification: &Value) -> Option<Vec<(&str, &Value)>> {
    if let Some(ids) = verification.get("instruction_id_list").and_then(Value::as_array) {
        let arguments = verification.get("kwargs").and_then(Value::as_array);
        let at = |i: usize| arguments.and_then(|a| a.get(i)).unwrap_or(&Value::Null);
        return ids.iter().enumerate().map(|(i, id)| Some((id.as_str()?, at(i)))).collect();
    }
    let items = verification.get("constraints")?.as_array()?;
    items.iter().map(|item| Some((item.get("id")?.as_str()?, item))).collect()
}

impl Rule for ConstraintRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let parsed: Option<Value> = sample.verification.and_then(|text| serde_json::from_str(text).ok());
        let Some(constraints) = parsed.as_ref().and_then(listed).filter(|list| !list.is_empty()) else {
            return Verdict::cannot_tell("constraints_missing");
        };
        if constraints.len() > MAX_CONSTRAINTS {
            return Verdict::cannot_tell("too_many_constraints");
        }
        let answer = think::split(sample.completion).answer;
        let mut broken = Vec::new();
        for (id, arguments) in &constraints {
            match kinds::follows(id, arguments, answer, sample.prompt) {
                // An empty answer follows many instructions, and none of them on purpose.
                Ok(follows) if follows && !answer.is_empty() => {}
                Ok(_) => broken.push(*id),
                Err(fault) => {
                    return Verdict::cannot_tell("constraint_unknown").with("constraint", *id).with("fault", fault);
                }
            }
        }
        let share = 1.0 - broken.len() as f64 / constraints.len() as f64;
        let score = if self.config.all_or_nothing { share.floor() } else { share };
        let reason = if broken.is_empty() { "all_followed" } else { "not_followed" };
        let verdict = Verdict::graded(score, 1.0, reason);
        if broken.is_empty() { verdict } else { verdict.with("broken", broken.join(", ")) }
    }
}

#[cfg(test)]
mod tests;
