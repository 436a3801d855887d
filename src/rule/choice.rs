//! The choice rule: which option was picked?

use std::sync::LazyLock;

use regex::Regex;

mod phrases;

use super::announce::{announced, bare, unsaid};
use super::params::{ParamError, params};
use super::text::{normalised, shorten};
use super::{Rule, Sample, Verdict, think};
use phrases::{COMMITMENT, CONCLUDED, COPULA, DENIED, GOES_ON, JUDGED, NOUN, SMALL, SMALL_WHOLE, WHOLE};
use phrases::{folded, is_word, more_letters};

/// The reference shown by `rules list`.
pub const DOC: &str = r#"Whether the option picked is the right one
# What
Finds the letter (A to J) the answer commits to: in its last `\boxed{}`, after
"answer is", "答案", "la réponse est" and the like, or because the answer (or its
last line) *is* an option: "C", "(C)", "**C.** 42", or an option's text. Options
come from the `verification` JSON (`{"choices": ["…", …]}`) or from the lines
"A) …" of the prompt; gold is a letter or an option's text.
# Why
R1's STEM prompts have 4 to 8 options. Taking the first capital letter of the
text pays for guessing ("A nice question"); listing several options must not win.
# Example
    [rules.accuracy]
    kind = "choice"
    domains = ["stem"]"#;

params! {
    /// Parameters of the choice rule.
    pub struct ChoiceConfig {
        /// Several letters may be right together (gold `ACD`); order does not count.
        multiple: bool = false,
        /// Accept an option's text in place of its letter.
        option_text: bool = true,
    }
}

/// See [`DOC`].
pub struct ChoiceRule {
    config: ChoiceConfig,
}

impl ChoiceRule {
    /// # Errors
    /// None today; the signature is that of every rule.
    pub fn new(config: ChoiceConfig) -> Result<Self, ParamError> {
        Ok(ChoiceRule { config })
    }
}

/// Options by letter, `A` first.
type Options = Vec<String>;

fn letter(index: usize) -> char {
    (b'A' + index as u8) as char
}

/// Options from the verification JSON: an array, or an object keyed by letter.
fn options_of(verification: Option<&str>) -> Option<Options> {
    let value: serde_json::Value = serde_json::from_str(verification?).ok()?;
    let choices = value.get("choices").or_else(|| value.get("options"))?;
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match choices {
        serde_json::Value::Array(items) => Some(items.iter().take(10).map(text).collect()),
        serde_json::Value::Object(map) => {
            (0..10).map_while(|i| map.get(letter(i).encode_utf8(&mut [0; 4]) as &str)).map(text).map(Some).collect()
        }
        _ => None,
    }
}

/// Whether a verification lists options to choose from.
pub(super) fn has_options(verification: Option<&str>) -> bool {
    options_of(verification).is_some_and(|options| options.len() > 1)
}

static OPTION_LINE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)(?:^|\s)[(（]?([A-J])[)）.．:：、]\s*([^\n]*?)\s*(?:$|(?:[;；,，]?\s+)[(（]?[B-J][)）.．:：、]\s)")
        .expect("a constant pattern")
});

/// Options written in the prompt, line by line, in the order A, B, C …
fn options_in(prompt: &str) -> Options {
    let mut options = Options::new();
    let mut from = 0;
    while options.len() < 10 && from < prompt.len() {
        let Some(found) = OPTION_LINE.captures_at(prompt, from) else { break };
        let (Some(name), Some(text)) = (found.get(1), found.get(2)) else { break };
        if name.as_str().starts_with(letter(options.len())) {
            options.push(text.as_str().to_owned());
        }
        from = text.end().max(name.end());
    }
    options
}

/// The letters of a captured group, ascending, each once.
fn letters(text: &str) -> String {
    let mut letters: Vec<char> = text.chars().filter(|c| c.is_ascii_uppercase()).collect();
    letters.sort_unstable();
    letters.dedup();
    letters.into_iter().collect()
}

/// The text behind a dash between blanks, which parts a letter from its option: "C - 7".
fn without_dash(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(['*', ')', ' ']);
    ["- ", "– ", "— "].iter().find_map(|dash| text.strip_prefix(dash))
}

impl ChoiceRule {
    /// A piece of text that is an option: its letter or letters.
    fn as_option(&self, text: &str, options: &Options) -> Option<String> {
        let text = text.trim();
        if let Some(found) = WHOLE.captures(text) {
            // "A nice question.": a full stop at the far end marks no option.
            let letters_end = found.get(1).map_or(0, |group| group.end());
            let closed = text[letters_end..].starts_with(['.', ')', ':', '：', '）', '。', '*', '}', ']', '$']);
            let tail = found.get(2).map_or("", |tail| tail.as_str().trim_matches(['*', '}', '$', ' ']));
            let tail = without_dash(tail).unwrap_or(tail);
            let picked = letters(&found[1]);
            let known = options.iter().position(|option| normalised(option) == normalised(tail));
            let own = known.is_some_and(|index| picked.contains(letter(index)));
            // "A nice question" is no pick, "A. nice" is one only where that is the option's text or the line is
            // short; "C) nine" says two things where nine is D.
            if tail.is_empty()
                || own
                || known.is_none()
                    && picked.len() == 1
                    && tail.chars().count() <= 80
                    && closed
                    && !more_letters(tail)
                    && !GOES_ON.is_match(tail)
            {
                return Some(picked);
            }
        }
        let by_text = self.by_text(text, options);
        by_text.or_else(|| SMALL_WHOLE.captures(text).map(|found| found[1].to_uppercase()))
    }

    /// The option whose text this is.
    fn by_text(&self, text: &str, options: &Options) -> Option<String> {
        let wanted = normalised(text);
        if !self.config.option_text || wanted.is_empty() {
            return None;
        }
        let mut same = options.iter().enumerate().filter(|(_, option)| normalised(option) == wanted);
        match (same.next(), same.next()) {
            (Some((index, _)), None) => Some(letter(index).to_string()),
            _ => None,
        }
    }

    /// What the answer commits to, and how it was found.
    fn pick(&self, answer: &str, options: &Options) -> Option<(String, &'static str)> {
        let boxes = super::format::boxes(answer);
        if !boxes.is_empty() {
            // Boxes that disagree are several answers, whichever is last.
            let mut picked = String::new();
            for inside in boxes {
                picked += &self.as_option(bare(inside?), options)?;
            }
            return Some((letters(&picked), "boxed"));
        }
        if let Some(picked) = self.as_option(answer, options) {
            return Some((picked, "whole_answer"));
        }
        let said = COMMITMENT.captures_iter(answer).filter_map(|found| {
            let (whole, picked) = (found.get(0)?, found.get(1)?);
            let (between, rest) = (&answer[whole.start()..picked.start()], &answer[picked.end()..]);
            // "Option B says …" announces nothing; "so option B." does.
            let ends = rest.trim_start_matches([')', '*', '}', ']', '$', '.']).split('\n').next().unwrap_or("").trim();
            let announced = !NOUN.is_match(between) || COPULA.is_match(between) || ends.is_empty();
            let committed = announced
                && !unsaid(&answer[..whole.start()])
                && !DENIED.is_match(rest)
                && !is_word(picked.as_str(), rest);
            committed.then(|| (picked.start(), picked.end(), letters(picked.as_str())))
        });
        let judged = JUDGED.captures_iter(answer).filter_map(|found| {
            let picked = found.get(1)?;
            (!unsaid(&answer[..picked.start()])).then(|| (picked.start(), picked.end(), letters(picked.as_str())))
        });
        let small = SMALL.captures_iter(answer).filter_map(|found| {
            let (whole, picked) = (found.get(0)?, found.get(1).or(found.get(2))?);
            let said = !unsaid(&answer[..whole.start()]) && !DENIED.is_match(&answer[picked.end()..]);
            said.then(|| (picked.start(), picked.end(), picked.as_str().to_uppercase()))
        });
        let by_text = announced(answer)
            .filter_map(|(start, text)| Some((start, start + text.len(), self.by_text(text, options)?)));
        let concluded = CONCLUDED.captures_iter(answer).filter_map(|found| {
            let (whole, picked) = (found.get(0)?, found.get(1)?);
            (!unsaid(&answer[..whole.start()])).then(|| (picked.start(), picked.end(), letters(picked.as_str())))
        });
        // Whichever is said last.
        let last = [said.last(), judged.last(), small.last(), by_text.last(), concluded.last()].into_iter().flatten();
        if let Some((_, end, picked)) = last.max_by_key(|found| found.0) {
            // "C or A", "C = A", "C/2": a letter that goes on is no commitment to it, but "C - 7" is where 7 is C.
            let rest = &answer[end..];
            let own = without_dash(rest.lines().next().unwrap_or("")).and_then(|text| self.by_text(text, options));
            let kept = own.map_or_else(|| !GOES_ON.is_match(rest), |own| own == picked);
            return kept.then_some((picked, "phrase"));
        }
        let last = answer.lines().rev().find(|line| !line.trim().is_empty())?;
        self.as_option(last, options).map(|picked| (picked, "last_line"))
    }
}

impl Rule for ChoiceRule {
    fn check(&self, sample: &Sample<'_>) -> Verdict {
        let Some(gold) = sample.gold.map(str::trim).filter(|gold| !gold.is_empty()) else {
            return Verdict::cannot_tell("gold_missing");
        };
        let options = options_of(sample.verification).unwrap_or_else(|| options_in(sample.prompt));
        let Some(gold) = self.as_option(gold, &options) else { return Verdict::cannot_tell("gold_not_an_option") };
        let beyond =
            |picked: &str| !options.is_empty() && picked.chars().any(|c| (c as usize) >= 'A' as usize + options.len());
        if beyond(&gold) || gold.len() > 1 && !self.config.multiple {
            return Verdict::cannot_tell("gold_not_an_option");
        }
        let answer = folded(think::split(sample.completion).answer);
        let Some((picked, how)) = self.pick(&answer, &options) else { return Verdict::wrong("no_answer") };
        let verdict = if picked == gold {
            Verdict::correct("equal")
        } else if beyond(&picked) {
            Verdict::wrong("no_such_option")
        } else if picked.len() > 1 && !self.config.multiple {
            Verdict::wrong("several_answers")
        } else {
            Verdict::wrong("not_equal")
        };
        verdict.with("picked", shorten(&picked, 40)).with("found_by", how).with("gold", gold)
    }
}

#[cfg(test)]
mod tests;
