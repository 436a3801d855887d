//! The readability rule: what R1 throws out when it samples its SFT data.

use super::params::{ParamError, params};
use super::{Rule, Sample, Verdict, think};
use crate::language;

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether a chain of thought is fit to be read and trained on
# What
Wrong when the reasoning mixes languages, has a paragraph that is too long, or
contains code blocks: the three rejections of R1's rejection sampling (arXiv
2501.12948, section 2.3.3). The paper gives no thresholds; these are ours.
# Why
Correct answers come with chains of thought that no one wants a student to
imitate. Use it as a gate when selecting, not as a reward.
# Example
    [rules.readable]
    kind = "readability"
    max_paragraph_chars = 2000"#;

params! {
    /// Parameters of the readability rule.
    pub struct ReadabilityConfig {
        /// Least share of words in the reasoning's main language; 0 allows any mix.
        min_language_share: f64 = 0.95,
        /// Longest paragraph (lines without an empty line between them), in characters; 0 is no limit.
        max_paragraph_chars: usize = 2500,
        /// Most fenced code blocks in the reasoning.
        max_code_blocks: usize = 0,
        /// Longest single line of the whole completion, in characters; 0 is no limit.
        max_line_chars: usize = 0,
    }
}

/// See [`DOC`].
pub struct ReadabilityRule {
    config: ReadabilityConfig,
}

impl ReadabilityRule {
    /// # Errors
    /// A share outside [0, 1].
    pub fn new(config: ReadabilityConfig) -> Result<Self, ParamError> {
        if !(0.0..=1.0).contains(&config.min_language_share) {
            return Err(ParamError::new("min_language_share", "a share is between 0 and 1"));
        }
        Ok(ReadabilityRule { config })
    }
}

/// Characters of the longest run of lines without an empty one.
fn longest_paragraph(text: &str) -> usize {
    let (mut longest, mut here) = (0, 0);
    for line in text.lines() {
        here = if line.trim().is_empty() { 0 } else { here + line.chars().count() + 1 };
        longest = longest.max(here.saturating_sub(1));
    }
    longest
}

impl Rule for ReadabilityRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let config = &self.config;
        let reasoning = think::split(sample.completion).thought();
        let blocks = reasoning.lines().filter(|line| line.trim_start().starts_with("```")).count().div_ceil(2);
        if blocks > config.max_code_blocks {
            return Verdict::wrong("code_block").with("blocks", blocks.to_string());
        }
        let longest = longest_paragraph(reasoning);
        if config.max_paragraph_chars > 0 && longest > config.max_paragraph_chars {
            return Verdict::wrong("long_paragraph").with("chars", longest.to_string());
        }
        if config.max_line_chars > 0
            && let Some(line) =
                sample.completion.lines().map(|l| l.chars().count()).find(|&l| l > config.max_line_chars)
        {
            return Verdict::wrong("long_line").with("chars", line.to_string());
        }
        let share = language::count(reasoning).largest_share();
        if share < config.min_language_share {
            return Verdict::wrong("mixed_language").with("main_share", format!("{share:.3}"));
        }
        Verdict::correct("readable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::sample;

    #[test]
    fn the_three_rejections_of_r1() {
        let rule = ReadabilityRule::new(ReadabilityConfig::default()).unwrap();
        let reason = |thought: &str| rule.check(&sample(&format!("<think>{thought}</think>4"))).reason;
        assert_eq!(reason("First we add.\n\nThen we stop."), "readable");
        assert_eq!(reason("We run\n```py\nprint(4)\n```\nso it is four."), "code_block");
        assert_eq!(reason(&"We go on and on. ".repeat(200)), "long_paragraph");
        assert_eq!(reason("First we add the numbers. 然后我们把结果除以二。"), "mixed_language");
    }
}
