//! Languages, and phrasings as data: a table of templates per language.

use std::fmt::Display;

use crate::seed::Rng;

/// A language that questions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// `en`, English.
    En,
    /// `fr`, French.
    Fr,
    /// `zh`, Chinese in simplified characters.
    Zh,
    /// `de`, German.
    De,
    /// `es`, Spanish.
    Es,
}

impl Language {
    /// BCP 47 primary tag, as in the `language` column.
    pub fn code(self) -> &'static str {
        match self {
            Language::En => "en",
            Language::Fr => "fr",
            Language::Zh => "zh",
            Language::De => "de",
            Language::Es => "es",
        }
    }

    /// One of five texts by language.
    pub(super) fn of<'a>(self, en: &'a str, fr: &'a str, zh: &'a str, de: &'a str, es: &'a str) -> &'a str {
        match self {
            Language::En => en,
            Language::Fr => fr,
            Language::Zh => zh,
            Language::De => de,
            Language::Es => es,
        }
    }

    /// One of three texts by language, for generators that speak only these three.
    pub(super) fn of3<T>(self, en: T, fr: T, zh: T) -> T {
        match self {
            Language::Fr => fr,
            Language::Zh => zh,
            _ => en,
        }
    }

    /// Items separated as the language does: `1, 2, 3` or `1、2、3`.
    pub(super) fn list<T: Display>(self, items: &[T]) -> String {
        let separator = if self == Language::Zh { "、" } else { ", " };
        items.iter().map(T::to_string).collect::<Vec<_>>().join(separator)
    }

    /// A numbered line of a chain of thought; `index` counts from 0.
    pub(super) fn step(self, index: usize, text: &str) -> String {
        let number = index + 1;
        match self {
            Language::En => format!("Step {number}: {text}"),
            Language::Fr => format!("Étape {number} : {text}"),
            Language::Zh => format!("第{number}步：{text}"),
            Language::De => format!("Schritt {number}: {text}"),
            Language::Es => format!("Paso {number}: {text}"),
        }
    }

    /// The steps numbered, then the conclusion.
    pub(super) fn chain(self, steps: &[String], answer: &str) -> Vec<String> {
        let numbered = steps.iter().enumerate().map(|(index, text)| self.step(index, text));
        numbered.chain([self.conclusion(answer)]).collect()
    }

    /// The last line of a chain of thought. The answer stands at its end.
    pub(super) fn conclusion(self, answer: &str) -> String {
        match self {
            Language::En => format!("So the answer is {answer}."),
            Language::Fr => format!("La réponse est donc {answer}."),
            Language::Zh => format!("所以答案是：{answer}。"),
            Language::De => format!("Die Antwort ist also {answer}."),
            Language::Es => format!("Por lo tanto, la respuesta es {answer}."),
        }
    }
}

/// Ways to say one thing, by language; placeholders are `{name}`.
pub(super) struct Phrases {
    pub en: &'static [&'static str],
    pub fr: &'static [&'static str],
    pub zh: &'static [&'static str],
    pub de: &'static [&'static str],
    pub es: &'static [&'static str],
}

impl Phrases {
    /// For generators without German and Spanish.
    pub const fn three(
        en: &'static [&'static str],
        fr: &'static [&'static str],
        zh: &'static [&'static str],
    ) -> Phrases {
        Phrases { en, fr, zh, de: en, es: en }
    }

    pub fn pick(&self, rng: &mut Rng, language: Language) -> &'static str {
        let options = match language {
            Language::En => self.en,
            Language::Fr => self.fr,
            Language::Zh => self.zh,
            Language::De => self.de,
            Language::Es => self.es,
        };
        options[rng.below(options.len() as u64) as usize]
    }

    /// Picks a phrasing and fills its placeholders.
    pub fn say(&self, rng: &mut Rng, language: Language, values: &[(&str, &dyn Display)]) -> String {
        fill(self.pick(rng, language), values)
    }
}

/// Replaces each `{name}` by its value. Values are not searched again.
pub(super) fn fill(template: &str, values: &[(&str, &dyn Display)]) -> String {
    let mut text = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open..].find('}') else { break };
        let name = &rest[open + 1..open + length];
        text.push_str(&rest[..open]);
        match values.iter().find(|(key, _)| *key == name) {
            Some((_, value)) => text += &value.to_string(),
            None => text.push_str(&rest[open..=open + length]),
        }
        rest = &rest[open + length + 1..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_braces_are_not_filled_again() {
        assert_eq!(fill("{a} and {b}{c}", &[("a", &"{b}"), ("b", &2)]), "{b} and 2{c}");
    }
}
