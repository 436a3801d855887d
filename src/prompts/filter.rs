//! Filters that look at one prompt alone: length, language, gold.

use serde::{Deserialize, Serialize};

use crate::language::normalise_tag;
use crate::schema::{Prompt, Role};
use crate::{Error, Result};

/// What a prompt must be like. Unset bounds do not filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterConfig {
    /// Least characters of all user turns together.
    pub min_chars: Option<u64>,
    /// Most characters of them; a prompt of just as many stays.
    pub max_chars: Option<u64>,
    /// Least words of all user turns together, approximately: a CJK character counts as 0.6 words.
    pub min_words: Option<u64>,
    /// Most words of them, counted in the same way.
    pub max_words: Option<u64>,
    /// The languages to keep; empty keeps all.
    pub languages: Vec<String>,
    /// With `languages`: also keep prompts whose language is unknown (`und`), as bare formulas are.
    pub keep_unknown_language: bool,
    /// Drop prompts without a gold answer and without a `verification`.
    pub require_gold: bool,
}

impl FilterConfig {
    /// # Errors
    /// It would drop everything: a least length above the greatest, or a language that no prompt can have.
    pub fn check(&self) -> Result<()> {
        for (what, least, most) in
            [("chars", self.min_chars, self.max_chars), ("words", self.min_words, self.max_words)]
        {
            if let (Some(least), Some(most)) = (least, most)
                && least > most
            {
                return Err(Error::usage(format!("filter: `min_{what}` is {least}, `max_{what}` is {most}"))
                    .hint("no prompt is both as long and as short"));
            }
        }
        for tag in &self.languages {
            let known = normalise_tag(tag);
            if known.as_ref() != Some(tag) && tag != "und" {
                let error = Error::usage(format!("filter: `{tag}` is no tag that a prompt's language can have"));
                return Err(error.hint(match known {
                    Some(tag) => format!("write `{tag}`"),
                    None => "write primary BCP 47 tags such as `en`, `fr` or `zh`".to_owned(),
                }));
            }
        }
        Ok(())
    }

    /// Why this prompt is dropped (code and detail), or `None` if it stays.
    pub fn reason(&self, prompt: &Prompt) -> Option<(&'static str, String)> {
        if self.require_gold && prompt.gold.is_none() && prompt.verification.is_none() {
            return Some(("no_gold", "neither gold nor verification".to_owned()));
        }
        let unknown = prompt.language == "und" && self.keep_unknown_language;
        if !self.languages.is_empty() && !unknown && !self.languages.contains(&prompt.language) {
            return Some(("language", prompt.language.clone()));
        }
        let messages = prompt.bare_messages();
        let turns = || messages.iter().filter(|m| m.role == Role::User).map(|m| m.content.as_str());
        if self.min_chars.is_some() || self.max_chars.is_some() {
            let chars = turns().map(|text| text.chars().count() as u64).sum();
            if let Some(reason) = outside(chars, self.min_chars, self.max_chars, "characters") {
                return Some(reason);
            }
        }
        if self.min_words.is_some() || self.max_words.is_some() {
            return outside(turns().map(approximate_words).sum(), self.min_words, self.max_words, "words");
        }
        None
    }
}

fn outside(length: u64, min: Option<u64>, max: Option<u64>, unit: &str) -> Option<(&'static str, String)> {
    match (min, max) {
        (Some(min), _) if length < min => Some(("too_short", format!("{length} {unit}, at least {min} wanted"))),
        (_, Some(max)) if length > max => Some(("too_long", format!("{length} {unit}, at most {max} wanted"))),
        _ => None,
    }
}

/// Runs between white space, and 0.6 for each CJK character: about what a translation has.
pub fn approximate_words(text: &str) -> u64 {
    let (mut words, mut characters, mut inside) = (0u64, 0u64, false);
    for c in text.chars() {
        let cjk = matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}');
        characters += u64::from(cjk);
        let word = !cjk && !c.is_whitespace() && (inside || c.is_alphanumeric());
        words += u64::from(word && !inside);
        inside = word;
    }
    words + (characters * 3).div_ceil(5)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::schema::Message;

    pub(crate) fn prompt(question: &str) -> Prompt {
        super::super::identity::mint(Prompt {
            prompt_id: String::new(),
            messages: vec![Message { role: Role::User, content: question.to_owned() }],
            gold: Some("1".to_owned()),
            solution: None,
            verification: None,
            domain: "math".to_owned(),
            language: "en".to_owned(),
            difficulty: None,
            source: "test".to_owned(),
            license: None,
            extra: None,
        })
    }

    #[test]
    fn each_bound_drops_with_its_own_reason() {
        let reason = |filter: FilterConfig, prompt: &Prompt| {
            filter.reason(prompt).map(|(code, detail)| format!("{code}: {detail}"))
        };
        let p = prompt("one two three");
        assert_eq!(reason(FilterConfig::default(), &p), None);
        let filter = FilterConfig { min_words: Some(4), ..FilterConfig::default() };
        assert_eq!(reason(filter, &p).as_deref(), Some("too_short: 3 words, at least 4 wanted"));
        let filter = FilterConfig { max_chars: Some(5), ..FilterConfig::default() };
        assert_eq!(reason(filter, &p).as_deref(), Some("too_long: 13 characters, at most 5 wanted"));
        let filter = FilterConfig { languages: vec!["fr".to_owned()], ..FilterConfig::default() };
        assert_eq!(reason(filter, &p).as_deref(), Some("language: en"));
        let filter = FilterConfig { require_gold: true, ..FilterConfig::default() };
        assert_eq!(reason(filter.clone(), &p), None);
        assert!(filter.reason(&Prompt { gold: None, ..p }).is_some());
    }

    #[test]
    fn what_would_drop_everything_is_refused() {
        let told = |text: &str| toml::from_str::<FilterConfig>(text).unwrap().check().map_err(|e| e.render(false));
        for (text, hint) in [
            ("languages = ['English']", "write `en`"),
            ("languages = ['fr', 'zh-CN']", "write `zh`"),
            ("languages = ['eng']", "write `en`"),
            ("languages = ['no language']", "BCP 47"),
            ("min_chars = 100\nmax_chars = 3", "as long and as short"),
            ("min_words = 2\nmax_words = 1", "`max_words` is 1"),
        ] {
            let error = told(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert_eq!(told("languages = ['en', 'und']\nmin_chars = 3\nmax_chars = 3"), Ok(()));
    }

    #[test]
    fn an_unknown_language_stays_only_when_asked() {
        let formula = Prompt { language: "und".to_owned(), ..prompt("1+1=?") };
        let filter = FilterConfig { languages: vec!["en".to_owned()], ..FilterConfig::default() };
        assert!(filter.reason(&formula).is_some());
        assert!(FilterConfig { keep_unknown_language: true, ..filter }.reason(&formula).is_none());
    }

    #[test]
    fn words_are_counted_in_any_script() {
        assert_eq!(approximate_words("  What is  3+5 ? "), 3);
        assert_eq!(approximate_words("一共有多少个水果呢"), 6);
        assert_eq!(approximate_words(""), 0);
    }
}
