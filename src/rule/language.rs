//! The language rule: is the chain of thought in the language of the question?

use super::params::{ParamError, params};
use super::pattern::Region;
use super::{Rule, Sample, Verdict, think};
use crate::language::{LANGUAGES, count};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"The share of the chain of thought's words that are in the target language
# What
R1's language consistency reward (arXiv 2501.12948, section 2.3.2): target-language
words over all words of the reasoning. Code, LaTeX, numbers, units, variables and
names are no words, but what LaTeX has in `\text{…}` and what code and links have in
other letters than Latin ones are, and so is all in a text that is nothing but code;
Chinese and Japanese characters count half a word each. Words of a script that the
rule does not know are in none of its languages. A text with no words at all is 1:
nothing is in the wrong language. Without a reasoning tag the whole completion is read.
# Why
RL on verifiable answers alone drifts into mixed languages. R1 adds this share to
the accuracy reward, at a small cost in accuracy, for readability.
# Example
    [rules.language]
    kind = "language"
    target = "column"   # the prompt's language; "en" would force English"#;

params! {
    /// Parameters of the language rule.
    pub struct LanguageConfig {
        /// `column`: the prompt's `language`, told from its text where that is `und`; `prompt`: always told from its text; or a language such as `en`.
        target: String = "column".into(),
        /// The text that is read.
        region: Region = Region::Reasoning,
        /// Share from which the text counts as consistent.
        min_share: f64 = 0.9,
        /// Score 1 or 0 at `min_share` instead of the share.
        gate: bool = false,
    }
}

/// See [`DOC`].
pub struct LanguageRule {
    config: LanguageConfig,
}

impl LanguageRule {
    /// # Errors
    /// A target that cannot be told from others; `min_share` outside [0, 1].
    pub fn new(config: LanguageConfig) -> Result<Self, ParamError> {
        let known = ["column", "prompt"].into_iter().chain(LANGUAGES.into_iter().filter(|l| *l != "und"));
        if !known.clone().any(|name| name == config.target) {
            return Err(ParamError::new("target", format!("`{}` is not a language this rule can tell", config.target))
                .hint(format!("one of: {}", known.collect::<Vec<_>>().join(", "))));
        }
        if !(0.0..=1.0).contains(&config.min_share) {
            return Err(ParamError::new("min_share", "`min_share` must be between 0 and 1"));
        }
        Ok(LanguageRule { config })
    }

    fn target<'a>(&'a self, sample: &Sample<'a>) -> Result<&'a str, &'static str> {
        match self.config.target.as_str() {
            "prompt" => count(sample.prompt).main().ok_or("language_unknown"),
            "column" => {
                let tag = sample.language.split(['-', '_']).next().unwrap_or("");
                match tag {
                    "" | "und" => count(sample.prompt).main().ok_or("language_unknown"),
                    tag if LANGUAGES.contains(&tag) => Ok(tag),
                    _ => Err("language_not_supported"),
                }
            }
            target => Ok(target),
        }
    }
}

impl Rule for LanguageRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let target = match self.target(sample) {
            Ok(target) => target,
            Err(reason) => return Verdict::cannot_tell(reason),
        };
        let text = match self.config.region {
            Region::Reasoning => think::split(sample.completion).thought(),
            region => region.of(sample.completion),
        };
        if text.trim().is_empty() {
            return Verdict::wrong("no_text");
        }
        let counts = count(text);
        let Some(share) = counts.share(target) else { return Verdict::correct("no_words") };
        let reason = if share >= self.config.min_share { "consistent" } else { "mixed_language" };
        let mut verdict = Verdict::graded(share, self.config.min_share, reason);
        if self.config.gate {
            verdict.score = Some(f64::from(u8::from(share >= self.config.min_share)));
        }
        verdict = verdict.with("target", target).with("share", format!("{share:.3}"));
        match counts.others(target).first() {
            Some((other, words)) => verdict.with("also", format!("{other} ({words} words)")),
            None => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::sample;

    #[test]
    fn the_rule_reads_the_chain_of_thought_in_the_prompts_language() {
        let rule = LanguageRule::new(LanguageConfig::default()).unwrap();
        let mut s = sample("<think>We add the two numbers and get four.</think>Die Antwort ist vier.");
        assert_eq!(rule.check(&s).score, Some(1.0));
        s.language = "de";
        assert_eq!(rule.check(&s).score, Some(0.0));
        s.language = "und";
        s.prompt = "Wie viele Eier hat sie am Ende noch?";
        assert_eq!(rule.check(&s).reason, "mixed_language");
        s.prompt = "2+2=?";
        assert_eq!(rule.check(&s).reason, "language_unknown");
        s.language = "tlh";
        assert_eq!(rule.check(&s).reason, "language_not_supported");
        assert_eq!(rule.check(&sample("<think>2+2=4</think>4")).reason, "no_words");
        assert_eq!(rule.check(&sample("<think> </think>4")).reason, "no_text");
    }
}
