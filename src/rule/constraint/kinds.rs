//! One arm a kind of instruction, with IFEval's ids and argument names.

use serde_json::Value;

use crate::rule::language;
use crate::rule::text::words;

/// Whether `answer` follows the instruction.
///
/// # Errors
/// An unknown id, or an argument that is missing or of the wrong type: a fault of the data.
pub(super) fn follows(id: &str, arguments: &Value, answer: &str, prompt: &str) -> Result<bool, String> {
    let lower = || answer.to_lowercase();
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).ok_or_else(|| format!("`{key}` is not a text"));
    let number = |key: &str| {
        let value = arguments.get(key).and_then(Value::as_f64).ok_or_else(|| format!("`{key}` is not a number"));
        value.and_then(
            |v| if (0.0..=1e9).contains(&v) { Ok(v as usize) } else { Err(format!("`{key}` is out of range")) },
        )
    };
    let texts = |key: &str| -> Result<Vec<String>, String> {
        let items = arguments.get(key).and_then(Value::as_array).ok_or_else(|| format!("`{key}` is not a list"))?;
        items
            .iter()
            .map(|v| v.as_str().map(str::to_lowercase).ok_or_else(|| format!("`{key}` is not a list of texts")))
            .collect()
    };
    let relation = |key: &str, count: usize, bound: usize| match arguments.get(key).and_then(Value::as_str) {
        Some("less than" | "<" | "fewer than") => Ok(count < bound),
        Some("at most" | "<=") => Ok(count <= bound),
        None | Some("at least" | ">=") => Ok(count >= bound),
        Some("more than" | ">") => Ok(count > bound),
        Some("exactly" | "=" | "==") => Ok(count == bound),
        Some(other) => Err(format!("`{key}` = \"{other}\" is no relation")),
    };
    Ok(match id {
        "keywords:existence" => {
            let (lower, wanted) = (lower(), texts("keywords")?);
            // Inside longer words too, as IFEval searches; what is forbidden is a word.
            wanted.iter().all(|word| !word.is_empty() && lower.contains(word.as_str()))
        }
        "keywords:forbidden_words" => {
            let (lower, banned) = (lower(), texts("forbidden_words")?);
            !banned.iter().any(|word| has_word(&lower, word))
        }
        "keywords:frequency" => {
            let keyword = text("keyword")?.to_lowercase();
            let count = if keyword.is_empty() { 0 } else { lower().matches(&keyword).count() };
            relation("relation", count, number("frequency")?)?
        }
        "keywords:letter_frequency" => {
            let letter = text("letter")?.to_lowercase();
            let letter = letter.chars().next().ok_or("`letter` is empty")?;
            let count = lower().chars().filter(|c| *c == letter).count();
            relation("let_relation", count, number("let_frequency")?)?
        }
        "language:response_language" => {
            let wanted = text("language")?;
            if language::LANGUAGES.contains(&wanted) {
                language::detect(answer) == Some(wanted)
            } else {
                let (_, code) = MORE_LANGUAGES
                    .iter()
                    .find(|(tag, _)| *tag == wanted)
                    .ok_or_else(|| format!("language `{wanted}` cannot be told"))?;
                whatlang::detect_lang(answer).is_some_and(|lang| lang.code() == *code)
            }
        }
        "length_constraints:number_sentences" => relation("relation", sentences(answer), number("num_sentences")?)?,
        "length_constraints:number_words" => relation("relation", count_tokens(answer), number("num_words")?)?,
        "length_constraints:number_paragraphs" => {
            let paragraphs: Vec<&str> = answer.split("***").map(str::trim).collect();
            let inner_empty = paragraphs.len() > 2 && paragraphs[1..paragraphs.len() - 1].iter().any(|p| p.is_empty());
            !inner_empty && paragraphs.iter().filter(|p| !p.is_empty()).count() == number("num_paragraphs")?
        }
        "length_constraints:nth_paragraph_first_word" => {
            let paragraphs: Vec<&str> = answer.split("\n\n").map(str::trim).filter(|p| !p.is_empty()).collect();
            let (count, nth) = (number("num_paragraphs")?, number("nth_paragraph")?);
            let first = nth.checked_sub(1).and_then(|i| paragraphs.get(i)).and_then(|p| words(p).next());
            paragraphs.len() == count
                && first.is_some_and(|w| w.to_lowercase() == text("first_word").unwrap_or("").to_lowercase())
        }
        "detectable_content:number_placeholders" => placeholders(answer) >= number("num_placeholders")?,
        "detectable_content:postscript" => {
            let marker = arguments.get("postscript_marker").and_then(Value::as_str).unwrap_or("P.S.").to_lowercase();
            let bare: String = marker.chars().filter(|c| !c.is_whitespace()).collect();
            answer.lines().any(|line| {
                // "P.P.S" is said to be "P. P. S."; where in its line it stands is free.
                let line: String = line.to_lowercase().chars().filter(|c| !c.is_whitespace() && *c != '*').collect();
                let stands = |at: usize| !line[..at].ends_with(char::is_alphanumeric) && at + bare.len() < line.len();
                !bare.is_empty() && line.match_indices(&bare).any(|(at, _)| stands(at))
            })
        }
        "detectable_format:number_bullet_lists" => {
            let bullet = |line: &&str| {
                let line = line.trim_start();
                let starred = line.strip_prefix('*').is_some_and(|rest| !rest.starts_with('*'));
                (starred || line.starts_with('-')) && line.len() > 1 && !line.starts_with("---")
            };
            answer.lines().filter(bullet).count() == number("num_bullets")?
        }
        "detectable_format:constrained_response" => {
            let options = ["my answer is yes.", "my answer is no.", "my answer is maybe."];
            let lower = lower();
            options.iter().any(|option| lower.contains(option))
        }
        "detectable_format:number_highlighted_sections" => highlights(answer) >= number("num_highlights")?,
        "detectable_format:multiple_sections" => {
            let spliter = text("section_spliter")?;
            let heads = answer.lines().filter(|line| {
                let line = line.trim_start_matches(['#', '*', ' ']);
                line.get(..spliter.len()).is_some_and(|head| head.eq_ignore_ascii_case(spliter))
                    && line[spliter.len()..].trim_start().starts_with(|c: char| c.is_ascii_digit())
            });
            heads.count() >= number("num_sections")?
        }
        "detectable_format:json_format" => {
            let inside = crate::rule::json_schema::fence(answer).unwrap_or(answer);
            serde_json::from_str::<serde::de::IgnoredAny>(inside.trim()).is_ok()
        }
        "detectable_format:title" => answer.lines().any(|line| {
            line.split_once("<<")
                .and_then(|(_, rest)| rest.split_once(">>"))
                .is_some_and(|(title, _)| !title.trim().is_empty())
        }),
        "combination:two_responses" => {
            let parts: Vec<&str> = answer.split("******").map(str::trim).filter(|p| !p.is_empty()).collect();
            parts.len() == 2 && parts[0] != parts[1]
        }
        "combination:repeat_prompt" => {
            let wanted =
                arguments.get("prompt_to_repeat").and_then(Value::as_str).unwrap_or(prompt).trim().to_lowercase();
            let lower = lower();
            lower.starts_with(&wanted) && lower.len() > wanted.len()
        }
        "startend:end_checker" => {
            let wanted = text("end_phrase")?.trim().to_lowercase();
            lower().trim_end().trim_matches('"').ends_with(&wanted)
        }
        "startend:quotation" => answer.len() > 1 && answer.starts_with('"') && answer.ends_with('"'),
        "change_case:capital_word_frequency" => {
            let upper = |word: &&str| word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase);
            relation("capital_relation", words(answer).filter(upper).count(), number("capital_frequency")?)?
        }
        "change_case:english_capital" => cased(answer, char::is_lowercase),
        "change_case:english_lowercase" => cased(answer, char::is_uppercase),
        "punctuation:no_comma" => !answer.contains([',', '，', '،']),
        _ => return Err("not one of IFEval's kinds".into()),
    })
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

/// Runs of letters, digits and underscores, as IFEval counts words: "don't" and "well-known" are two each.
/// Characters of scripts without spaces count one each.
fn count_tokens(text: &str) -> usize {
    words(text).map(|word| 1 + word.matches(['\'', '’']).count()).sum()
}

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

fn cased(text: &str, forbidden: fn(char) -> bool) -> bool {
    text.chars().any(char::is_alphabetic) && !text.chars().any(forbidden)
}

/// Occurrences of `word` (lower case, maybe several words) not inside a longer word.
fn count_word(lower: &str, word: &str) -> usize {
    if word.is_empty() {
        return 0;
    }
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !crate::rule::text::is_unspaced(c));
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

/// Sentences: runs of text that a final mark (with white space or nothing after it) or a line break ends.
fn sentences(text: &str) -> usize {
    let (mut count, mut open) = (0, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let wide = matches!(c, '。' | '！' | '？' | '।');
        let end = wide
            || c == '\n'
            || matches!(c, '.' | '!' | '?')
                && chars.peek().is_none_or(|n| n.is_whitespace() || matches!(n, '"' | '\'' | ')' | '”'));
        if end && open {
            count += 1;
            open = false;
        } else if c.is_alphanumeric() {
            open = true;
        }
    }
    count + usize::from(open)
}

/// `[placeholder]`s.
fn placeholders(text: &str) -> usize {
    text.split('[')
        .skip(1)
        .filter(|rest| rest.find(']').is_some_and(|end| end > 0 && !rest[..end].contains('\n')))
        .count()
}

/// `*highlighted*` and `**highlighted**` spans with text inside.
fn highlights(text: &str) -> usize {
    let mut count = 0;
    for line in text.lines() {
        for mark in ["**", "*"] {
            let rest = if mark == "*" { line.replace("**", "\u{0}") } else { line.to_owned() };
            let pieces: Vec<&str> = rest.split(mark).collect();
            count += pieces
                .iter()
                .enumerate()
                .filter(|(i, piece)| i % 2 == 1 && *i + 1 < pieces.len() && !piece.trim().is_empty())
                .count();
        }
    }
    count
}
