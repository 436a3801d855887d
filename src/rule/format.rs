//! The format rule: does the completion keep to the reasoning template?

use regex::Regex;

use super::params::{ParamError, choices, params};
use super::{Rule, Sample, Verdict};
use crate::schema::FinishReason;

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether a completion keeps to the reasoning template
# What
Each tag exactly once, in order, reasoning and answer both non-empty, nothing
outside but white space. A completion cut at the token limit is wrong with the
reason `truncated`, whatever it looks like. With `partial`, the score is the
share of the template's requirements that hold.
# Why
R1-Zero's reward is accuracy + format. Loose checks (a regex that matches
anywhere) pay for several answers, for tags inside the reasoning and for text
outside the tags, and policies find that within a few hundred steps.
# Example
    [rules.format]
    kind = "format"
    style = "think_answer""#;

choices! {
    /// The templates.
    pub enum Style {
        /// `<think>…</think>` then the answer as plain text (R1).
        Think = "think",
        /// `<think>…</think><answer>…</answer>` and nothing else (R1-Zero).
        ThinkAnswer = "think_answer",
        /// As `think`, where the chat template already wrote `<think>`: it must not come again.
        ThinkOpened = "think_opened",
        /// As `think_answer`, where the chat template already wrote `<think>`.
        ThinkAnswerOpened = "think_answer_opened",
        /// Exactly one balanced, non-empty `\boxed{…}`, in the last line that has text or anywhere after the reasoning.
        Boxed = "boxed",
        /// `pattern` decides.
        Custom = "custom",
    }
}

params! {
    /// Parameters of the format rule.
    pub struct FormatConfig {
        /// The template.
        style: Style = Style::Think,
        /// The whole completion must match this regular expression; for `style = "custom"`. `(?s)` makes `.` cross lines.
        pattern: Option<String> = None,
        /// Also require exactly one non-empty `\boxed{…}` in the answer.
        boxed: bool = false,
        /// Score the share of requirements met instead of all or nothing.
        partial: bool = false,
        /// Least characters of reasoning; `0` allows an empty chain of thought.
        min_reasoning_chars: usize = 1,
    }
}

/// See [`DOC`].
pub struct FormatRule {
    config: FormatConfig,
    pattern: Option<Regex>,
}

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
const ANSWER: &str = "<answer>";
const ANSWER_END: &str = "</answer>";

impl FormatRule {
    /// # Errors
    /// A custom style without a pattern, a pattern without a custom style, a pattern that does not compile.
    pub fn new(config: FormatConfig) -> Result<Self, ParamError> {
        let pattern = match (&config.pattern, config.style) {
            (Some(pattern), Style::Custom) => Some(super::pattern::compile(&format!("^(?:{pattern})$"), "pattern")?),
            (None, Style::Custom) => {
                return Err(ParamError::new("style", "a custom format needs a `pattern`")
                    .hint("pattern = '(?s)<think>.+</think>.+'"));
            }
            (Some(_), _) => {
                return Err(ParamError::new("pattern", "`pattern` is only read with `style = \"custom\"`"));
            }
            (None, _) => None,
        };
        Ok(FormatRule { config, pattern })
    }

    /// The requirements in order: whether each holds, and the reason when it does not.
    fn requirements(&self, text: &str) -> Vec<(bool, &'static str)> {
        let style = self.config.style;
        let mut checks = Vec::with_capacity(10);
        let mut answer = text;
        match style {
            Style::Custom => {
                checks.push((self.pattern.as_ref().is_some_and(|p| p.is_match(text.trim())), "pattern_not_matched"));
            }
            Style::Boxed => answer = super::think::split(text).answer,
            Style::Think | Style::ThinkAnswer | Style::ThinkOpened | Style::ThinkAnswerOpened => {
                let opened = matches!(style, Style::ThinkOpened | Style::ThinkAnswerOpened);
                let tagged = matches!(style, Style::ThinkAnswer | Style::ThinkAnswerOpened);
                let opens = text.matches(OPEN).count();
                let closes = text.matches(CLOSE).count();
                if opened {
                    checks.push((opens == 0, "think_reopened"));
                } else {
                    checks.push((opens > 0, "think_missing"));
                    checks.push((opens <= 1, "think_repeated"));
                    checks.push((text.trim_start().starts_with(OPEN), "text_before_think"));
                }
                checks.push((closes > 0, "think_not_closed"));
                checks.push((closes <= 1, "think_close_repeated"));
                let start = if opened { Some(0) } else { text.find(OPEN).map(|at| at + OPEN.len()) };
                let end = text.find(CLOSE);
                let ordered = start.zip(end).filter(|(start, end)| start <= end);
                let reasoning = ordered.map_or("", |(start, end)| text[start..end].trim());
                checks.push((
                    ordered.is_some() && long_enough(reasoning, self.config.min_reasoning_chars),
                    "reasoning_empty",
                ));
                let rest = end.map_or("", |end| text[end + CLOSE.len()..].trim());
                let (opens, closes) = (text.matches(ANSWER).count(), text.matches(ANSWER_END).count());
                if tagged {
                    checks.push((opens > 0, "answer_missing"));
                    checks.push((opens <= 1, "answer_repeated"));
                    checks.push((closes > 0, "answer_not_closed"));
                    checks.push((closes <= 1, "answer_close_repeated"));
                    let inside = rest.strip_prefix(ANSWER).and_then(|rest| rest.strip_suffix(ANSWER_END));
                    checks.push((inside.is_some(), "text_outside_tags"));
                    answer = inside.unwrap_or("").trim();
                } else {
                    checks.push((opens == 0 && closes == 0, "answer_tag_unexpected"));
                    answer = rest;
                }
                checks.push((!answer.is_empty(), "answer_empty"));
            }
        }
        if self.config.boxed || style == Style::Boxed {
            let boxes = boxes(answer);
            checks.push((!boxes.is_empty(), "box_missing"));
            checks.push((boxes.len() <= 1, "box_repeated"));
            checks.push((boxes.iter().all(|inside| inside.is_some_and(|s| !s.trim().is_empty())), "box_empty"));
        }
        checks
    }
}

impl Rule for FormatRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        if sample.finish_reason == FinishReason::Length {
            return Verdict::wrong("truncated");
        }
        let checks = self.requirements(sample.completion);
        let failed = checks.iter().find(|check| !check.0);
        match failed {
            None => Verdict::correct("format_kept"),
            Some(&(_, reason)) => {
                let mut verdict = Verdict::wrong(reason);
                if self.config.partial {
                    // Met only because nothing is there to break them: no credit.
                    let kept = checks.iter().filter(|check| check.0 && !check.1.ends_with("repeated")).count();
                    let all = checks.iter().filter(|check| !check.1.ends_with("repeated")).count();
                    let broken = checks.iter().filter(|check| !check.0 && check.1.ends_with("repeated")).count();
                    verdict.score = Some(kept.saturating_sub(broken) as f64 / all.max(1) as f64);
                }
                verdict
            }
        }
    }
}

fn long_enough(text: &str, least: usize) -> bool {
    text.len() >= least && text.chars().take(least).count() >= least
}

/// The insides of every `\boxed{…}` and `\fbox{…}` not inside another box; `None` for an unbalanced one.
pub(crate) fn boxes(text: &str) -> Vec<Option<&str>> {
    let mut found = Vec::new();
    let mut rest = text;
    // One step a backslash, so that the work is linear however many boxes there are.
    while let Some(at) = rest.find('\\') {
        rest = &rest[at + 1..];
        let Some(after) = rest.strip_prefix("boxed").or_else(|| rest.strip_prefix("fbox")) else { continue };
        let Some(body) = after.trim_start().strip_prefix('{') else { continue };
        let (mut depth, mut end, mut escaped) = (1usize, None, false);
        for (i, byte) in body.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                end = Some(i);
                break;
            }
        }
        match end {
            Some(end) => {
                found.push(Some(&body[..end]));
                rest = &body[end + 1..];
            }
            None => {
                found.push(None);
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::sample;

    fn check(config: FormatConfig, completion: &str) -> Verdict {
        FormatRule::new(config).unwrap().check(&sample(completion))
    }

    fn style(style: Style) -> FormatConfig {
        FormatConfig { style, ..FormatConfig::default() }
    }

    #[test]
    fn r1_zero_wants_each_tag_once_in_order_and_nothing_outside() {
        let good = " <think>\na\n</think>\n\n<answer>4</answer>\n";
        assert_eq!(check(style(Style::ThinkAnswer), good).reason, "format_kept");
        for (text, reason) in [
            ("4", "think_missing"),
            ("<think>a</think><answer>4</answer><answer>5</answer>", "answer_repeated"),
            ("<think>a<think>b</think><answer>4</answer>", "think_repeated"),
            ("<think>a</think></think><answer>4</answer>", "think_close_repeated"),
            ("hi <think>a</think><answer>4</answer>", "text_before_think"),
            ("<think>a</think>so <answer>4</answer>", "text_outside_tags"),
            ("<think>a</think><answer>4</answer> ok", "text_outside_tags"),
            ("<think> </think><answer>4</answer>", "reasoning_empty"),
            ("<think>a</think><answer> </answer>", "answer_empty"),
            ("<think>a<answer>4</answer></think>", "text_outside_tags"),
            ("<answer>4</answer><think>a</think>", "text_before_think"),
            ("<think>a<answer>4</answer>", "think_not_closed"),
            ("<think>a</think>4", "answer_missing"),
        ] {
            assert_eq!(check(style(Style::ThinkAnswer), text).reason, reason, "{text}");
        }
    }

    #[test]
    fn r1_takes_a_plain_answer_and_templates_may_open_the_tag() {
        assert_eq!(check(style(Style::Think), "<think>a</think>4").score, Some(1.0));
        assert_eq!(check(style(Style::Think), "a</think>4").reason, "think_missing");
        assert_eq!(check(style(Style::ThinkOpened), "a</think>4").score, Some(1.0));
        assert_eq!(check(style(Style::ThinkOpened), "<think>a</think>4").reason, "think_reopened");
        assert_eq!(check(style(Style::ThinkAnswerOpened), "a</think><answer>4</answer>").score, Some(1.0));
        assert_eq!(check(style(Style::Think), "<think>a</think>").reason, "answer_empty");
    }

    #[test]
    fn truncated_is_a_reason_of_its_own() {
        let rule = FormatRule::new(style(Style::Think)).unwrap();
        let mut cut = sample("<think>a</think>4");
        cut.finish_reason = FinishReason::Length;
        assert_eq!(rule.check(&cut).reason, "truncated");
    }

    #[test]
    fn a_box_must_be_single_balanced_and_filled() {
        let boxed = style(Style::Boxed);
        assert_eq!(check(boxed.clone(), r"so \boxed{\frac{1}{2}}.").score, Some(1.0));
        assert_eq!(check(boxed.clone(), "so 4").reason, "box_missing");
        assert_eq!(check(boxed.clone(), r"\boxed{1} or \boxed{2}").reason, "box_repeated");
        assert_eq!(check(boxed.clone(), r"\boxed{1").reason, "box_empty");
        assert_eq!(check(boxed, r"\boxed{ }").reason, "box_empty");
    }

    #[test]
    fn very_many_boxes_take_linear_time() {
        let text = r"\boxed{1} \\ \fbox{2} ".repeat(50_000);
        let start = std::time::Instant::now();
        assert_eq!(boxes(&text).len(), 100_000);
        assert!(start.elapsed() < std::time::Duration::from_secs(2));
    }

    #[test]
    fn partial_credit_counts_what_holds() {
        let config = FormatConfig { partial: true, ..style(Style::ThinkAnswer) };
        let none = check(config.clone(), "four").score.unwrap();
        let some = check(config.clone(), "<think>a</think>4").score.unwrap();
        let more = check(config, "<think>a</think> so <answer>4</answer>").score.unwrap();
        assert!(none == 0.0 && none < some && some < more && more < 1.0, "{none} {some} {more}");
    }

    #[test]
    fn a_custom_pattern_matches_the_whole_completion() {
        let config = FormatConfig { pattern: Some("(?s)A.*Z".into()), ..style(Style::Custom) };
        assert_eq!(check(config.clone(), "A\nZ").score, Some(1.0));
        assert_eq!(check(config, "A\nZ!").score, Some(0.0));
        assert!(FormatRule::new(style(Style::Custom)).is_err());
    }
}
