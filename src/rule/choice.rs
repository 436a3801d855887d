//! The choice rule: which option was picked?

use std::sync::LazyLock;

use regex::Regex;

use super::params::{ParamError, params};
use super::text::{normalised, shorten};
use super::{Rule, Sample, Verdict, think};

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

static COMMITMENT: LazyLock<Regex> = LazyLock::new(|| {
    // "answer" in the languages of the field, then up to a few filler words, then letters.
    Regex::new(concat!(
        r"(?i:\b(?:answer|option|choice|réponse|antwort|lösung|respuesta|opción|resposta|risposta|ответ|вариант)s?",
        r"|\b(?:it is|it's|choose|pick|select|go(?:ing)? (?:with|for))\b",
        r"|答案|选项|选择|应选|故选|选|正解|答え|정답|답|الإجابة|الجواب|उत्तर)",
        r"(?i:\s|\*|is|are|est|ist|es|la|the|correct[ae]?|bonne|richtige|правильный|final|only|for sure|definitely|clearly|certainly|surely|probably|most likely|would|be|therefore|thus|lautet|option|choice|letter|[:：=是为應应はです은는이तोहै]|\\text|\\mathbf|\\textbf|\\boxed|\\[(\[]|[({$（【\[]){0,16}?",
        r"(?-u:\b)([A-J](?:\s*(?:,|、|and|und|et|y|和|&)\s*[A-J](?-u:\b)|[A-J](?-u:\b))*)(?-u:\b)",
    ))
    .expect("a constant pattern")
});

static WHOLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[\s*_#>(（\[【{$]*(?:\\(?:text|mathbf|textbf|mathrm|boxed)\s*\{+)*\s*[(（]?([A-J](?:\s*(?:,|、|and|&)\s*[A-J]|[A-J])*)\s*(?:[)）\]】}*_$\s.。．:：]+(.*))?$")
        .expect("a constant pattern")
});

/// "C is correct", "(C) is the right one".
static JUDGED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u:\b)([A-J])[)*}$]*\s+(?i:is|must be|would be)\s+(?i:the\s+)?(?i:only\s+|most\s+)?(?i:correct|right|answer|best|true)")
        .expect("a constant pattern")
});

/// Words that take back the letters behind them.
static DENIAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i:\bnot\b|n't\b|\bcannot\b|\brather than\b|\binstead of\b|\bnicht\b|\bno es\b|\bnon\b)|不是|不能|而非|не ",
    )
    .expect("a constant pattern")
});

/// What makes a letter part of something larger when it follows: another letter joined to it, or an operator.
static GOES_ON: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^[\s*_)\]}$.]*(?:(?:\\(?:text|mathrm|mbox)\s*)?\{?\s*(?:or|and|ou|oder|und|o|y|e|или|и|或者|或|和|,|，|、|;|/|\||=|&|\\l?or|\\vee)\s*\}?\s*)+",
        r"(?:\\boxed|\\text)?[({$*\s]*[A-J](?:$|[\s)}\]*$.,;，。/=|&])",
        r"|^[\s)}\]$]*(?:[=/+^<>≈±≠]|,\s*[\\\d]|\\(?:pm|cdot|times|neq?|approx|cup|cap|frac|div)|-\s*[\dA-J(])",
    ))
    .expect("a constant pattern")
});

/// Whether letters stand alone, one after the other: "B. C. D."
fn more_letters(tail: &str) -> bool {
    // "It cannot be A or B" takes letters back.
    let tail = &tail[..DENIAL.find(tail).map_or(tail.len(), |found| found.start())];
    let lone = |word: &str| matches!(word.trim_matches(|c: char| !c.is_alphanumeric()).as_bytes(), [b'B'..=b'J']);
    tail.split_whitespace().any(lone)
}

/// The letters of a captured group, ascending, each once.
fn letters(text: &str) -> String {
    let mut letters: Vec<char> = text.chars().filter(|c| c.is_ascii_uppercase()).collect();
    letters.sort_unstable();
    letters.dedup();
    letters.into_iter().collect()
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
            let picked = letters(&found[1]);
            let known = |tail: &str| options.iter().any(|option| normalised(option) == normalised(tail));
            // "A nice question" is no pick, "A. nice" is one only where that is the option's text or the line is short.
            if tail.is_empty()
                || known(tail)
                || picked.len() == 1
                    && tail.chars().count() <= 80
                    && closed
                    && !more_letters(tail)
                    && !GOES_ON.is_match(tail)
            {
                return Some(picked);
            }
        }
        if self.config.option_text {
            let wanted = normalised(text);
            let mut same = options.iter().enumerate().filter(|(_, option)| normalised(option) == wanted);
            if let (Some((index, _)), None) = (same.next(), same.next())
                && !wanted.is_empty()
            {
                return Some(letter(index).to_string());
            }
        }
        None
    }

    /// What the answer commits to, and how it was found.
    fn pick(&self, answer: &str, options: &Options) -> Option<(String, &'static str)> {
        let boxes = super::format::boxes(answer);
        if !boxes.is_empty() {
            // Boxes that disagree are several answers, whichever is last.
            let mut picked = String::new();
            for inside in boxes {
                let inside = inside?.trim();
                let bare = inside.strip_prefix("\\text{").and_then(|rest| rest.strip_suffix('}')).unwrap_or(inside);
                picked += &self.as_option(bare, options)?;
            }
            return Some((letters(&picked), "boxed"));
        }
        if let Some(picked) = self.as_option(answer, options) {
            return Some((picked, "whole_answer"));
        }
        let said = COMMITMENT.captures_iter(answer).filter(|found| {
            // "… not option (D)" commits to nothing.
            let before = found.get(0).map_or("", |whole| &answer[..whole.start()]).trim_end();
            !["not", "n't", "nicht", "不是", "而非"].iter().any(|no| before.ends_with(no))
        });
        let said = said.last().and_then(|found| found.get(1));
        let judged = JUDGED.captures_iter(answer).last().and_then(|found| found.get(1));
        // Whichever is said last.
        if let Some(found) = said.into_iter().chain(judged).max_by_key(|found| found.start()) {
            let rest = &answer[found.end()..];
            // "C or A", "C = A", "C/2": a letter that goes on is no commitment to it.
            return (!GOES_ON.is_match(rest)).then(|| (letters(found.as_str()), "phrase"));
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
        let answer = think::split(sample.completion).answer;
        let Some((picked, how)) = self.pick(answer, &options) else { return Verdict::wrong("no_answer") };
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
mod tests {
    use super::*;
    use crate::rule::testing::with_gold;

    fn reason(completion: &str, gold: &str) -> &'static str {
        let mut sample = with_gold(completion, gold);
        sample.prompt = "Which is prime?\nA) 4\nB) 6\nC) 7\nD) nine";
        ChoiceRule::new(ChoiceConfig::default()).unwrap().check(&sample).reason
    }

    #[test]
    fn commitments_of_many_forms_are_read() {
        for answer in [
            "C",
            "(C)",
            "**C**",
            "C.",
            "C) 7",
            "**C. 7**",
            "The answer is C.",
            "The correct answer is (C).",
            r"So \boxed{C}.",
            r"$\boxed{\text{C}}$",
            r"\boxed{(C)}",
            "Answer: **C**",
            "答案：C",
            "答案是 C。",
            "因此选C。",
            "La réponse est C.",
            "Die Antwort lautet C.",
            "La respuesta correcta es C.",
            "Ответ: C",
            "7",
            "Some words.\n\nC",
            "정답: C",
            "A is even and B too, so the answer is option C",
            "The answer is C because A and B are even.",
            "The answer is C, as 7 is prime.",
            r"The answer is \(C\).",
            "C. It is 7.",
            "C. It can't be A or B.",
            "It's not A because 4 is even, so I think it's C",
            "The answer is for sure C, it cannot be D",
            "I would choose C.",
            "C is correct.",
            "A is correct? No, (C) is the right one.",
            "Hence option (C) is correct, not option (D).",
            "The answer is not A, it is C.",
            "<think>A? B?</think>C",
        ] {
            assert_eq!(reason(answer, "C"), "equal", "{answer}");
        }
        assert_eq!(reason("C", "7"), "equal");
    }

    #[test]
    fn what_is_not_a_commitment_earns_nothing() {
        for (answer, expected) in [
            ("A", "not_equal"),
            ("A nice question about primes", "no_answer"),
            ("C nice question about primes.", "no_answer"),
            ("I would say so.", "no_answer"),
            ("The answer is not C.", "no_answer"),
            ("A, B, C", "several_answers"),
            ("The answer is A, B, C", "several_answers"),
            (r"\boxed{A} \boxed{D}", "several_answers"),
            (r"\boxed{A} or \boxed{C}", "several_answers"),
            ("The answer is C or A.", "no_answer"),
            (r"The answer is C \text{ or } A.", "no_answer"),
            ("The answer is C = A.", "no_answer"),
            ("The answer is C/(1-1).", "no_answer"),
            ("C. B. A. D.", "no_answer"),
            ("I would say 7 or so, not nine", "no_answer"),
            ("<think>C</think>", "no_answer"),
            ("<think>The answer is C", "no_answer"),
            ("E", "no_such_option"),
            ("", "no_answer"),
        ] {
            assert_eq!(reason(answer, "C"), expected, "{answer}");
        }
        assert_eq!(reason("C", "F"), "gold_not_an_option");
        assert_eq!(reason("C", "eleven"), "gold_not_an_option");
    }

    #[test]
    fn options_come_from_verification_first() {
        let mut sample = with_gold("Lyon", "B");
        sample.verification = Some(r#"{"choices": ["Paris", "Lyon"]}"#);
        let rule = ChoiceRule::new(ChoiceConfig::default()).unwrap();
        assert_eq!(rule.check(&sample).reason, "equal");
        sample.verification = Some(r#"{"choices": {"A": "Lyon", "B": "Paris"}}"#);
        assert_eq!(rule.check(&sample).reason, "not_equal");
    }

    #[test]
    fn several_right_options_are_a_set() {
        let rule = ChoiceRule::new(ChoiceConfig { multiple: true, ..ChoiceConfig::default() }).unwrap();
        assert_eq!(rule.check(&with_gold("The answer is C and A", "AC")).reason, "equal");
        assert_eq!(rule.check(&with_gold("A", "AC")).reason, "not_equal");
        assert_eq!(rule.check(&with_gold("ABCD", "AC")).reason, "not_equal");
    }
}
