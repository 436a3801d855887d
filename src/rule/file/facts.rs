//! What a reward may name beside the rules: facts of the sample.

use super::MAX_RULES;
use crate::rule::{Sample, text, think};
use crate::schema::FinishReason;

/// A fact's value for a sample; NaN where it is not known.
type Fact = fn(&Sample<'_>) -> f64;

/// Name, meaning, value.
const FACTS: &[(&str, &str, Fact)] = &[
    ("length_chars", "characters of the completion", |s| chars(s.completion)),
    ("length_words", "words of the completion", |s| text::words(s.completion).count() as f64),
    ("tokens", "tokens of the completion; not known for every engine", |s| s.tokens.map_or(f64::NAN, f64::from)),
    ("reasoning_chars", "characters of the chain of thought", |s| {
        chars(think::split(s.completion).reasoning.unwrap_or(""))
    }),
    ("answer_chars", "characters after it", |s| chars(think::split(s.completion).answer)),
    ("prompt_chars", "characters of the prompt", |s| chars(s.prompt)),
    ("truncated", "1 if the completion was cut at the token limit", |s| flag(s.finish_reason == FinishReason::Length)),
    ("difficulty", "0 (easiest) to 1; not known for every prompt", |s| s.difficulty.unwrap_or(f64::NAN)),
    ("has_gold", "1 if the prompt has a gold answer", |s| flag(s.gold.is_some_and(|gold| !gold.trim().is_empty()))),
    ("lang_en", "1 if the prompt's language is English", |s| flag(s.language == "en")),
    ("lang_zh", "Chinese", |s| flag(s.language == "zh")),
    ("lang_fr", "French", |s| flag(s.language == "fr")),
    ("lang_de", "German", |s| flag(s.language == "de")),
    ("lang_es", "Spanish", |s| flag(s.language == "es")),
    ("lang_ja", "Japanese", |s| flag(s.language == "ja")),
    ("lang_ko", "Korean", |s| flag(s.language == "ko")),
    ("lang_ru", "Russian", |s| flag(s.language == "ru")),
    ("lang_ar", "Arabic", |s| flag(s.language == "ar")),
    ("lang_hi", "Hindi", |s| flag(s.language == "hi")),
];

fn chars(text: &str) -> f64 {
    text.chars().count() as f64
}

fn flag(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

/// Every fact an expression may use: name and meaning, for the reference.
pub fn facts() -> impl Iterator<Item = (&'static str, &'static str)> {
    FACTS.iter().map(|fact| (fact.0, fact.1))
}

/// Most slots that an expression of a rule file has.
pub(super) const MOST_SLOTS: usize = MAX_RULES + FACTS.len();

/// How many slots the expressions of a file of so many rules have.
pub(super) fn slots(rules: usize) -> usize {
    rules + FACTS.len()
}

/// What a slot of a reward expression stands for: the rules come first, in the file's order, then the facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The score of the rule with this index.
    Rule(usize),
    /// A row of the table of facts.
    Fact(usize),
}

impl Slot {
    /// What a slot stands for in a file of so many rules.
    pub fn of(slot: usize, rules: usize) -> Slot {
        slot.checked_sub(rules).map_or(Slot::Rule(slot), Slot::Fact)
    }

    /// The rules among slots, by index.
    pub fn rules(slots: &[usize], rules: usize) -> impl Iterator<Item = usize> {
        slots.iter().filter_map(move |&slot| match Slot::of(slot, rules) {
            Slot::Rule(index) => Some(index),
            Slot::Fact(_) => None,
        })
    }
}

/// The value of a fact, by its row.
pub(super) fn value(fact: usize, sample: &Sample<'_>) -> f64 {
    FACTS[fact].2(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSet;
    use crate::rule::testing::with_gold;

    #[test]
    fn every_fact_is_what_its_name_says() {
        let reward = |name: &str, sample: &Sample<'_>| {
            let text = format!("reward = \"{name}\"\n[rules.math]\nkind = \"math\"\n");
            RuleSet::parse(&text, "rules.toml").unwrap().judge(sample).reward
        };
        let plain = Sample { prompt: "1 + 1?", ..with_gold("<think>Añadir.</think> It is 4.", "2") };
        let known = Sample {
            tokens: Some(9),
            difficulty: Some(0.25),
            finish_reason: FinishReason::Length,
            gold: None,
            ..plain
        };
        let of_prompt = |name: &str| match name {
            "length_chars" => [31.0, 31.0].map(Some),
            "length_words" => [6.0, 6.0].map(Some),
            "tokens" => [None, Some(9.0)],
            "reasoning_chars" => [7.0, 7.0].map(Some),
            "answer_chars" => [8.0, 8.0].map(Some),
            "prompt_chars" => [6.0, 6.0].map(Some),
            "truncated" => [0.0, 1.0].map(Some),
            "difficulty" => [None, Some(0.25)],
            "has_gold" => [1.0, 0.0].map(Some),
            _ => panic!("nothing is known of `{name}`"),
        };
        for (name, _) in facts() {
            let Some(language) = name.strip_prefix("lang_") else {
                assert_eq!([reward(name, &plain), reward(name, &known)], of_prompt(name), "{name}");
                continue;
            };
            assert_eq!(reward(name, &Sample { language, ..plain }), Some(1.0), "{name}");
            assert_eq!(reward(name, &Sample { language: "und", ..plain }), Some(0.0), "{name}");
        }
    }

    #[test]
    fn slots_are_the_rules_and_then_the_facts() {
        assert_eq!(
            [0, 1, 2, 3].map(|slot| Slot::of(slot, 2)),
            [Slot::Rule(0), Slot::Rule(1), Slot::Fact(0), Slot::Fact(1)]
        );
        assert_eq!(Slot::rules(&[0, 1, 5], 2).collect::<Vec<_>>(), [0, 1]);
    }
}
