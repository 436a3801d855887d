//! The last `\boxed{…}`: nested boxes count once, adjacent ones together.

use super::super::denial::{asked, denied, doubted};
use super::super::lex::balanced;

const MARKS: [&str; 2] = [r"\boxed", r"\fbox"];

const CONJUNCTIONS: [&str; 12] = ["and", "or", "AND", "OR", "und", "oder", "et", "ou", "y", "o", "和", "或"];

/// Most boxes that may answer together, and most bytes between two of them.
const MANY: usize = 8;
const APART: usize = 80;

struct Found<'a> {
    start: usize,
    end: usize,
    inside: &'a str,
}

/// The content of the last box that closes and is not empty; of several joined by commas or
/// "and", all of them, joined by commas. And whether there are more boxes before them.
pub fn find(text: &str) -> Option<(String, bool)> {
    let mut until = text.len();
    let mut boxes: Vec<Found<'_>> = Vec::new();
    let mut more = false;
    // Bounded, so that a text made of boxes costs no more than its length.
    for _ in 0..64 {
        let Some(found) = last_before(text, until) else { break };
        until = found.start;
        let next = boxes.last().map_or(text.len(), |next| next.start.max(found.end));
        let (before, behind) = (&text[..found.start], &text[found.end..next]);
        if found.inside.trim().is_empty() || denied(before, behind) || unmeant(before, &text[found.end..]) {
            continue;
        }
        match boxes.last() {
            // A box around the one found before, or one whose brace closes inside it.
            Some(inner) if found.end > inner.start => {
                boxes.pop();
                boxes.push(found);
            }
            Some(next) if !joins(&text[found.end..next.start]) => {
                more = true;
                break;
            }
            _ => boxes.push(found),
        }
    }
    match &boxes[..] {
        [] => None,
        [one] => Some((one.inside.trim().to_string(), more)),
        [first, others @ ..] if others.iter().all(|b| b.inside.trim() == first.inside.trim()) => {
            Some((first.inside.trim().to_string(), more))
        }
        many => Some((many.iter().rev().map(|b| b.inside.trim()).collect::<Vec<_>>().join(", "), more)),
    }
}

/// All boxes of a text and how many, where they make a list though words stand between them:
/// "`\boxed{1}` papers and `\boxed{2}` bins". Joined by commas in the order written.
pub fn all(text: &str) -> Option<(usize, String)> {
    let mut until = text.len();
    let mut boxes: Vec<Found<'_>> = Vec::new();
    while let Some(found) = last_before(text, until) {
        until = found.start;
        let (before, behind) = (&text[..found.start], &text[found.end..]);
        if denied(before, behind) || unmeant(before, behind) {
            return None;
        }
        match boxes.last() {
            Some(inner) if found.end > inner.start => {
                boxes.pop();
            }
            Some(next) if !lists(&text[found.end..next.start]) => return None,
            Some(_) | None => {}
        }
        boxes.push(found);
        if boxes.len() > MANY {
            return None;
        }
    }
    let parts: Vec<&str> = boxes.iter().rev().map(|b| b.inside.trim()).collect();
    // The same box twice is one answer said twice.
    (parts.windows(2).any(|pair| pair[0] != pair[1])).then(|| (parts.len(), parts.join(", ")))
}

/// The sentence around a box doubts it or asks for it.
fn unmeant(before: &str, behind: &str) -> bool {
    doubted(before) || asked(behind)
}

/// Text that goes on with a list: short, with a comma or "and", or without words.
fn lists(between: &str) -> bool {
    if between.len() > APART || between.contains("\n\n") {
        return false;
    }
    let mut words = between.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).peekable();
    words.peek().is_none() || between.contains([',', ';', '、', '，']) || words.any(|w| CONJUNCTIONS.contains(&w))
}

/// True if the last box of the text opens a brace and never closes it.
pub fn unclosed(text: &str) -> bool {
    let Some((start, mark)) = last_mark(text) else { return false };
    let rest = text[start + mark.len()..].trim_start();
    rest.starts_with('{') && balanced(rest).is_none()
}

/// True if there is any box in the text.
pub fn marked(text: &str) -> bool {
    last_mark(text).is_some()
}

/// The last box that starts before `until`; unclosed ones are passed over.
fn last_before(text: &str, mut until: usize) -> Option<Found<'_>> {
    for _ in 0..64 {
        let (start, mark) = last_mark(&text[..until])?;
        let after = start + mark.len();
        let rest = &text[after..];
        let trimmed = rest.trim_start();
        let brace = after + rest.len() - trimmed.len();
        if trimmed.starts_with('{') {
            if let Some(len) = balanced(trimmed) {
                return Some(Found { start, end: brace + len, inside: &text[brace + 1..brace + len - 1] });
            }
        } else if !trimmed.starts_with(|c: char| c.is_ascii_alphabetic()) || rest.len() > trimmed.len() {
            // `\boxed 5`: up to the end of the formula.
            let len = trimmed.find(['$', '\n', '.', ',', ' ', '\\', '}']).unwrap_or(trimmed.len());
            if len > 0 {
                return Some(Found { start, end: brace + len, inside: &trimmed[..len] });
            }
        }
        until = start;
    }
    None
}

fn last_mark(text: &str) -> Option<(usize, &'static str)> {
    // Backslashes are rare: step over them from the end.
    let mut end = text.len();
    while let Some(at) = text[..end].rfind('\\') {
        for mark in MARKS {
            if text[at..].starts_with(mark) {
                return Some((at, mark));
            }
        }
        end = at;
    }
    None
}

/// Between two boxes that answer together stands nothing but commas, "and", "or" and delimiters.
fn joins(between: &str) -> bool {
    if between.len() > 60 || between.contains("\n\n") {
        return false;
    }
    if !between.contains('\\') {
        return joins_plain(between);
    }
    let mut plain = between.to_string();
    for mark in [r"\text", r"\quad", r"\qquad", r"\(", r"\)", r"\[", r"\]", r"\,", r"\ ", r"\;"] {
        plain = plain.replace(mark, " ");
    }
    joins_plain(&plain)
}

fn joins_plain(between: &str) -> bool {
    between
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '$' | '{' | '}' | ';' | '、' | '，' | '*' | '\\'))
        .all(|w| w.is_empty() || CONJUNCTIONS.contains(&w))
}
