//! One arm a kind of instruction, with IFEval's ids and argument names.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::language;

mod count;

/// A constant pattern, compiled once.
macro_rules! pattern {
    ($text:literal) => {{
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a constant pattern"));
        &*PATTERN
    }};
}

/// Whether `answer` follows the instruction.
///
/// # Errors
/// An unknown id, or an argument that is missing or of the wrong type: a fault of the data.
pub(super) fn follows(id: &str, arguments: &Value, answer: &str, prompt: &str) -> Result<bool, String> {
    let given = Arguments(arguments);
    let lower = || answer.to_lowercase();
    Ok(match id {
        "keywords:existence" => {
            let (lower, wanted) = (lower(), given.texts("keywords")?);
            // Inside longer words too, as IFEval searches; what is forbidden is a word.
            wanted.iter().all(|word| !word.is_empty() && lower.contains(word.as_str()))
        }
        "keywords:forbidden_words" => {
            let (lower, banned) = (lower(), given.texts("forbidden_words")?);
            !banned.iter().any(|word| has_word(&lower, word))
        }
        "keywords:frequency" => {
            let keyword = given.text("keyword")?.to_lowercase();
            let count = if keyword.is_empty() { 0 } else { lower().matches(&keyword).count() };
            given.relation("relation", count, given.number("frequency")?)?
        }
        "keywords:letter_frequency" => {
            let letter = given.text("letter")?.to_lowercase();
            let letter = letter.chars().next().ok_or("`letter` is empty")?;
            let count = lower().chars().filter(|c| *c == letter).count();
            given.relation("let_relation", count, given.number("let_frequency")?)?
        }
        "language:response_language" => is_in(answer, given.text("language")?)?,
        "length_constraints:number_sentences" => {
            given.relation("relation", count::sentences(answer), given.number("num_sentences")?)?
        }
        "length_constraints:number_words" => {
            given.relation("relation", count::words(answer), given.number("num_words")?)?
        }
        "length_constraints:number_paragraphs" => match parts(answer, "***") {
            Some(parts) => parts.len() == given.number("num_paragraphs")?,
            None => false,
        },
        "length_constraints:nth_paragraph_first_word" => nth_paragraph_begins(answer, given)?,
        "detectable_content:number_placeholders" => {
            pattern!(r"\[.*?\]").find_iter(answer).count() >= given.number("num_placeholders")?
        }
        "detectable_content:postscript" => {
            has_postscript(answer, given.optional("postscript_marker").unwrap_or("P.S."))?
        }
        "detectable_format:number_bullet_lists" => {
            let starred = pattern!(r"(?m)^\s*\*[^*].*$").find_iter(answer).count();
            starred + pattern!(r"(?m)^\s*-.*$").find_iter(answer).count() == given.number("num_bullets")?
        }
        "detectable_format:constrained_response" => {
            ["My answer is yes.", "My answer is no.", "My answer is maybe."].iter().any(|o| answer.contains(o))
        }
        "detectable_format:number_highlighted_sections" => highlights(answer) >= given.number("num_highlights")?,
        "detectable_format:multiple_sections" => {
            heads(answer, given.text("section_spliter")?.trim()) >= given.number("num_sections")?
        }
        "detectable_format:json_format" => is_json(answer),
        "detectable_format:title" => pattern!(r"<<[^\n]+>>")
            .find_iter(answer)
            .any(|title| !title.as_str().trim_start_matches('<').trim_end_matches('>').trim().is_empty()),
        "combination:two_responses" => {
            parts(answer, "******").is_some_and(|parts| matches!(parts[..], [one, other] if one != other))
        }
        "combination:repeat_prompt" => {
            let wanted = given.optional("prompt_to_repeat").unwrap_or(prompt).trim().to_lowercase();
            answer.trim().to_lowercase().starts_with(&wanted)
        }
        "startend:end_checker" => {
            let wanted = given.text("end_phrase")?.trim().to_lowercase();
            lower().trim().trim_matches('"').ends_with(&wanted)
        }
        "startend:quotation" => {
            let answer = answer.trim();
            answer.len() > 1 && answer.starts_with('"') && answer.ends_with('"')
        }
        "change_case:capital_word_frequency" => {
            given.relation("capital_relation", count::capitals(answer), given.number("capital_frequency")?)?
        }
        "change_case:english_capital" => cased(answer, char::is_uppercase, char::is_lowercase),
        "change_case:english_lowercase" => cased(answer, char::is_lowercase, char::is_uppercase),
        "punctuation:no_comma" => !answer.contains([',', '，', '،']),
        _ => return Err("not one of IFEval's kinds".into()),
    })
}

/// The arguments of an instruction. An argument that is missing or of the wrong type is a fault of the data.
#[derive(Clone, Copy)]
struct Arguments<'a>(&'a Value);

impl<'a> Arguments<'a> {
    fn text(self, key: &str) -> Result<&'a str, String> {
        self.optional(key).ok_or_else(|| format!("`{key}` is not a text"))
    }

    fn optional(self, key: &str) -> Option<&'a str> {
        self.0.get(key).and_then(Value::as_str)
    }

    /// In lower case.
    fn texts(self, key: &str) -> Result<Vec<String>, String> {
        let items = self.0.get(key).and_then(Value::as_array).ok_or_else(|| format!("`{key}` is not a list"))?;
        items
            .iter()
            .map(|v| v.as_str().map(str::to_lowercase).ok_or_else(|| format!("`{key}` is not a list of texts")))
            .collect()
    }

    fn number(self, key: &str) -> Result<usize, String> {
        match self.0.get(key).and_then(Value::as_f64) {
            Some(number) if (0.0..=1e9).contains(&number) => Ok(number as usize),
            Some(_) => Err(format!("`{key}` is out of range")),
            None => Err(format!("`{key}` is not a number")),
        }
    }

    /// Whether a count is to its bound as the argument says.
    fn relation(self, key: &str, count: usize, bound: usize) -> Result<bool, String> {
        match self.optional(key) {
            Some("less than" | "<" | "fewer than") => Ok(count < bound),
            Some("at most" | "<=") => Ok(count <= bound),
            None | Some("at least" | ">=") => Ok(count >= bound),
            Some("more than" | ">") => Ok(count > bound),
            Some("exactly" | "=" | "==") => Ok(count == bound),
            Some(other) => Err(format!("`{key}` = \"{other}\" is no relation")),
        }
    }
}

/// Whether an answer is in that language.
fn is_in(answer: &str, wanted: &str) -> Result<bool, String> {
    if language::LANGUAGES.contains(&wanted) {
        return Ok(language::count(answer).main() == Some(wanted));
    }
    let (_, code) = MORE_LANGUAGES
        .iter()
        .find(|(tag, _)| *tag == wanted)
        .ok_or_else(|| format!("language `{wanted}` cannot be told"))?;
    Ok(whatlang::detect_lang(answer).is_some_and(|lang| lang.code() == *code))
}

/// The parts between separators that are not empty; `None` where an inner one is empty.
fn parts<'a>(answer: &'a str, separator: &str) -> Option<Vec<&'a str>> {
    let parts: Vec<&str> = answer.split(separator).map(str::trim).collect();
    let gap = parts.len() > 2 && parts[1..parts.len() - 1].iter().any(|part| part.is_empty());
    (!gap).then(|| parts.into_iter().filter(|part| !part.is_empty()).collect())
}

fn nth_paragraph_begins(answer: &str, given: Arguments<'_>) -> Result<bool, String> {
    let paragraphs: Vec<&str> = answer.split("\n\n").map(str::trim).collect();
    let filled = paragraphs.iter().filter(|p| !p.is_empty()).count();
    let (count, nth) = (given.number("num_paragraphs")?, given.number("nth_paragraph")?);
    // Empty ones do not count, but they keep their place.
    let paragraph = nth.checked_sub(1).filter(|_| nth <= filled).and_then(|i| paragraphs.get(i));
    let word = paragraph.and_then(|p| p.split_whitespace().next()).unwrap_or("");
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let word = word.split(['.', ',', '?', '!', '\'', '"']).next().unwrap_or("");
    Ok(filled == count && word.to_lowercase() == given.text("first_word")?.to_lowercase())
}

fn has_postscript(answer: &str, marker: &str) -> Result<bool, String> {
    Ok(match marker.trim() {
        "" => return Err("`postscript_marker` is empty".into()),
        "P.P.S" => pattern!(r"(?i)p\.\s?p\.\s?s").is_match(answer),
        "P.S." => pattern!(r"(?i)p\.\s?s\.").is_match(answer),
        marker => answer.to_lowercase().contains(&marker.to_lowercase()),
    })
}

/// Whether it is JSON, in a fence or not.
fn is_json(answer: &str) -> bool {
    let inside = answer.trim();
    let opened = ["```json", "```Json", "```JSON", "```"].iter().find_map(|fence| inside.strip_prefix(fence));
    let inside = opened.unwrap_or(inside);
    let inside = inside.strip_suffix("```").unwrap_or(inside);
    serde_json::from_str::<serde::de::IgnoredAny>(inside.trim()).is_ok()
}

/// IFEval's languages beyond those that the language rule tells apart: IETF tag, ISO 639-3 code.
const MORE_LANGUAGES: [(&str, &str); 17] = [
    ("bg", "bul"),
    ("bn", "ben"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("gu", "guj"),
    ("he", "heb"),
    ("kn", "kan"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("ne", "nep"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("ta", "tam"),
    ("te", "tel"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("vi", "vie"),
];

/// Every instruction id, for lists.
#[cfg(test)]
pub(super) const IDS: &[&str] = &[
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "language:response_language",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "length_constraints:number_paragraphs",
    "length_constraints:nth_paragraph_first_word",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:number_bullet_lists",
    "detectable_format:constrained_response",
    "detectable_format:number_highlighted_sections",
    "detectable_format:multiple_sections",
    "detectable_format:json_format",
    "detectable_format:title",
    "combination:two_responses",
    "combination:repeat_prompt",
    "startend:end_checker",
    "startend:quotation",
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "punctuation:no_comma",
];

/// English in one case; a text too short to be told a language is taken for it.
fn cased(text: &str, wanted: fn(char) -> bool, forbidden: fn(char) -> bool) -> bool {
    text.chars().any(wanted)
        && !text.chars().any(forbidden)
        && language::count(&text.to_lowercase()).main().is_none_or(|found| found == "en")
}

/// Occurrences of `word` (lower case, maybe several words) not inside a longer word.
fn count_word(lower: &str, word: &str) -> usize {
    if word.is_empty() {
        return 0;
    }
    let letter =
        |c: Option<char>| c.is_some_and(|c| (c.is_alphanumeric() || c == '_') && !crate::rule::text::is_unspaced(c));
    lower
        .match_indices(word)
        .filter(|(at, _)| {
            let edges = word.chars().next().zip(word.chars().next_back());
            let (first, last) = edges.map_or((false, false), |(a, b)| (a.is_alphanumeric(), b.is_alphanumeric()));
            let inside = first && letter(lower[..*at].chars().next_back())
                || last && letter(lower[at + word.len()..].chars().next());
            !inside
        })
        .count()
}

fn has_word(lower: &str, word: &str) -> bool {
    count_word(lower, word) > 0
}

/// `*highlighted*` and `**highlighted**` spans with text inside.
fn highlights(text: &str) -> usize {
    let filled = |span: &regex::Match<'_>| !span.as_str().trim_matches('*').trim().is_empty();
    let single = pattern!(r"\*[^\n*]*\*").find_iter(text).filter(filled).count();
    single + pattern!(r"\*\*[^\n*]*\*\*").find_iter(text).filter(filled).count()
}

/// Places where `word` and a number head a section, anywhere, in that case.
fn heads(text: &str, word: &str) -> usize {
    let numbered = |at: usize| {
        let rest = &text[at + word.len()..];
        let rest = rest.strip_prefix(char::is_whitespace).unwrap_or(rest);
        rest.starts_with(|c: char| c.is_ascii_digit())
    };
    if word.is_empty() { 0 } else { text.match_indices(word).filter(|(at, _)| numbered(*at)).count() }
}
