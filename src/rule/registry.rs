//! Every kind of rule: its name in a rule file, its reference, and how it is built.

use serde_spanned::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::params::{Field, ParamError, Params};
use super::{
    Rule, choice, code, constraint, exact, format, http, json_schema, judge, language, length, math, overlap, pattern,
    readability, repetition,
};

/// One kind of rule.
pub struct Kind {
    /// What `kind = "…"` says.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// What, why and an example, as Markdown.
    pub doc: &'static str,
    /// The parameters.
    pub fields: fn() -> Vec<Field>,
    build: Build,
}

/// Makes a rule from its table.
type Build = fn(Spanned<DeValue<'_>>) -> Result<Box<dyn Rule>, BuildError>;

/// Why a rule could not be built from its table.
pub enum BuildError {
    /// The table does not have the parameters' form; carries the span and serde's words.
    Form(toml::de::Error),
    /// The form is right, a value is not.
    Value(ParamError),
}

impl Kind {
    /// Builds the rule from its table, the keys common to all rules taken out.
    ///
    /// # Errors
    /// Unknown keys, wrong types, values out of range.
    pub fn build(&self, table: Spanned<DeValue<'_>>) -> Result<Box<dyn Rule>, BuildError> {
        (self.build)(table)
    }
}

/// A kind whose parameters are a serde struct `$config` and whose rule is `$make(config)`.
macro_rules! kind {
    ($name:literal, $config:ty, $make:expr, $doc:expr) => {
        Kind {
            name: $name,
            summary: first_line($doc),
            doc: $doc,
            fields: <$config as Params>::fields,
            build: |table| {
                let config = <$config as serde::Deserialize>::deserialize(ValueDeserializer::from(table))
                    .map_err(BuildError::Form)?;
                Ok(Box::new($make(config).map_err(BuildError::Value)?))
            },
        }
    };
}

const fn first_line(doc: &'static str) -> &'static str {
    let bytes = doc.as_bytes();
    let mut end = 0;
    while end < bytes.len() && bytes[end] != b'\n' {
        end += 1;
    }
    doc.split_at(end).0
}

static KINDS: &[Kind] = &[
    kind!("math", math::MathConfig, math::MathRule::new, math::DOC),
    kind!("format", format::FormatConfig, format::FormatRule::new, format::DOC),
    kind!("language", language::LanguageConfig, language::LanguageRule::new, language::DOC),
    kind!("choice", choice::ChoiceConfig, choice::ChoiceRule::new, choice::DOC),
    kind!("exact", exact::ExactConfig, exact::ExactRule::new, exact::DOC),
    kind!("regex", pattern::RegexConfig, pattern::RegexRule::new, pattern::DOC),
    kind!("overlap", overlap::OverlapConfig, overlap::OverlapRule::new, overlap::DOC),
    kind!("length", length::LengthConfig, length::LengthRule::new, length::DOC),
    kind!("repetition", repetition::RepetitionConfig, repetition::RepetitionRule::new, repetition::DOC),
    kind!("readability", readability::ReadabilityConfig, readability::ReadabilityRule::new, readability::DOC),
    kind!("constraint", constraint::ConstraintConfig, constraint::ConstraintRule::new, constraint::DOC),
    kind!("json_schema", json_schema::JsonSchemaConfig, json_schema::JsonSchemaRule::new, json_schema::DOC),
    kind!("code", code::CodeConfig, code::CodeRule::new, code::DOC),
    kind!("judge", judge::JudgeConfig, judge::JudgeRule::new, judge::DOC),
    kind!("http", http::HttpConfig, http::HttpRule::new, http::DOC),
];

/// Every kind, in the order of the reference.
pub fn kinds() -> &'static [Kind] {
    KINDS
}

/// The kind of that name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::rule::testing::with_gold;
    use crate::rule::{RuleSet, Sample};

    /// Every kind that neither runs programs nor asks a server, with its defaults.
    fn all() -> RuleSet {
        let mut text = "reward = \"format\"\n".to_owned();
        for (kind, more) in [
            ("format", "partial = true"),
            ("language", ""),
            ("choice", "multiple = true"),
            ("exact", "gold_separator = \"|\""),
            ("regex", "pattern = '(?P<answer>\\w+)'"),
            ("overlap", ""),
            ("length", "unit = \"words\""),
            ("repetition", ""),
            ("readability", ""),
            ("constraint", ""),
            ("json_schema", "schema = '{\"type\": \"object\"}'"),
        ] {
            let name = if kind == "format" { kind.to_owned() } else { format!("rule_{kind}") };
            text += &format!("[rules.{name}]\nkind = \"{kind}\"\n{more}\n");
        }
        RuleSet::parse(&text, "all").unwrap()
    }

    proptest! {
        #[test]
        fn no_text_makes_a_rule_panic(
            pieces in prop::collection::vec(prop_oneof![
                "\\PC{0,6}", Just("<think>".to_owned()), Just("</think>".into()), Just("<answer>".into()), Just("</answer>".into()),
                Just("$".into()), Just("\\\\(".into()), Just("\\\\boxed{".into()), Just("}".into()), Just("```".into()), Just("\n".into()),
                Just("答案是 C。".into()), Just("é'à".into()), Just("The answer is A or B".into()), Just("{\"a\":1}".into())], 0..20),
            gold in "\\PC{0,8}",
        ) {
            let completion = pieces.concat();
            let rules = all();
            let sample = Sample { verification: Some(&completion), prompt: &completion, ..with_gold(&completion, &gold) };
            let judgement = rules.judge(&sample);
            for score in &judgement.scores {
                prop_assert_eq!(score.score.is_none(), score.outcome == crate::schema::Outcome::CannotTell, "{}", score.rule);
                prop_assert!(score.score.is_none_or(f64::is_finite));
            }
            prop_assert_eq!(rules.judge_batch(&[sample])[0].clone(), judgement);
        }
    }

    #[test]
    fn long_and_repetitive_texts_are_judged_in_linear_time() {
        let rules = all();
        for piece in [
            "<think>",
            "</think>",
            "$",
            "\\(",
            "\\boxed{",
            "```",
            "(A",
            "A. ",
            "answer is ",
            "<<",
            "[",
            "\"",
            "*",
            "的",
            "a b ",
            "9",
        ] {
            let text = piece.repeat(200_000 / piece.len());
            let start = std::time::Instant::now();
            rules.judge(&with_gold(&text, "A"));
            assert!(start.elapsed() < std::time::Duration::from_secs(8), "{piece:?} took {:?}", start.elapsed());
        }
    }
}
