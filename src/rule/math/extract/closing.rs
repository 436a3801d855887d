//! How a text without a box closes: on a number behind its last formula, or on a formula that only says when.

use super::super::denial::{doubted, negated};
use super::{phrase, span};

/// Words in front of what a sentence states.
const COPULAS: [&str; 12] = [
    " is ",
    " are ",
    " was ",
    " were ",
    " equals ",
    " equal to ",
    " be ",
    " becomes ",
    " gives ",
    " est ",
    " ist ",
    " = ",
];

/// Words in front of a formula that says when something holds, and not what it is.
const CONDITIONS: [&str; 8] = [" when", " if", " since", " because", " where", " as", " for", " at"];

/// What the closing sentence states besides its last formula: the 24 of "Since $x = 3$, the area is 24." and the
/// −7 of "The minimum of $y$ is −7, which occurs when $x = 0$."
pub fn stated(text: &str) -> Option<&str> {
    let text = text.trim_end();
    // A question states nothing.
    if text.ends_with(['?', '？']) {
        return None;
    }
    let (start, end, _) = span::last_at(text)?;
    if !text[end..].contains(|c: char| c.is_alphanumeric()) {
        return before_condition(&text[..start]);
    }
    number(sentence(&text[end..]))
}

/// What is said before the word that a formula is the condition of, if there is such a word.
fn before_condition(head: &str) -> Option<&str> {
    let head = head.trim_end();
    let said = CONDITIONS.iter().find_map(|word| head.strip_suffix(word))?;
    let said = sentence(said);
    let Some((start, end, inside)) = span::last_at(said) else { return number(said) };
    let constant = || {
        let mut command = false;
        inside.chars().all(|c| {
            command = c == '\\' || (command && c.is_ascii_alphabetic());
            command || !c.is_alphabetic()
        })
    };
    let copula = COPULAS.iter().any(|word| said[..start].ends_with(word));
    if copula && constant() && !negated(&said[..start]) && !doubted(&said[..start]) {
        return Some(inside.trim());
    }
    number(&said[end..])
}

/// The last sentence of a text.
pub fn sentence(text: &str) -> &str {
    let text = text.trim_end();
    let ends = |&(at, c): &(usize, char)| match c {
        '\n' => true,
        // Behind "p.m." and "sq." small letters follow, and `\! ` is a space.
        '.' | '!' | '?' => {
            let behind = &text[at + 1..];
            let goes_on = behind.trim_start().starts_with(|c: char| c.is_ascii_lowercase());
            behind.starts_with(char::is_whitespace) && !goes_on && !text[..at].ends_with('\\')
        }
        _ => false,
    };
    let from = text.char_indices().rev().find(ends).map_or(0, |(at, _)| at + 1);
    &text[from..]
}

/// Words behind which a total is no statement, but the reason of one or what a part is taken of.
const ASIDES: [&str; 13] =
    ["when", "if", "since", "because", "where", "as", "while", "out", "from", "among", "than", "not", "without"];

/// "for a total of 9", "there are in total 9": where the number begins.
fn total(part: &str) -> Option<usize> {
    let at = part.rfind(" total ")? + " total ".len();
    // "a total area of 12"
    let kind = part[at..].split(' ').take(3).position(|word| word == "of");
    let words: usize = part[at..].split(' ').take(kind.map_or(0, |n| n + 1)).map(|word| word.len() + 1).sum();
    let clause = part[..at].rsplit([',', ';']).next().unwrap_or("");
    let mut before = clause.split_whitespace().rev().skip(1);
    let aside = clause.split_whitespace().any(|word| ASIDES.contains(&word.to_lowercase().as_str()));
    // "3 of a total of 9"
    let part_of = matches!((before.next(), before.next()), (Some("a" | "the"), Some("of")) | (Some("of"), _));
    let end = (at + words).min(part.len());
    let number = part[end..].trim_start_matches(['*', '$', '\\', ' ']).starts_with(|c: char| c.is_ascii_digit());
    (!aside && !part_of && number).then_some(end)
}

/// The number, with its unit, that a part of a sentence states last.
fn number(part: &str) -> Option<&str> {
    let end = COPULAS.iter().filter_map(|word| part.rfind(word).map(|at| at + word.len())).chain(total(part)).max()?;
    let said = phrase::trim_prose(&part[end..]);
    let said = said.split_once(", ").map_or(said, |(said, _)| said);
    let digits = said.trim_start_matches(['*', ' ', '\\', '$', '£', '€', '-', '−', '+']);
    let turned = negated(&part[..end]) || doubted(&part[..end]) || said.contains("divided");
    let plain = said.replace("square ", "");
    (digits.starts_with(|c: char| c.is_ascii_digit()) && !turned && phrase::only_number(&plain).is_some())
        .then_some(said)
}
