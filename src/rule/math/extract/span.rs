//! The last formula, the last line, the last number.

use super::super::denial::{asked, denied, doubted, words};

const DELIMITERS: [(&str, &str); 4] = [("$$", "$$"), (r"\[", r"\]"), (r"\(", r"\)"), ("$", "$")];
const ENVIRONMENTS: [&str; 5] = ["align", "align*", "equation", "equation*", "gather*"];

/// The last formula between delimiters; formulas joined by commas, "and" or "or" come together.
pub fn last(text: &str) -> Option<String> {
    let marks = Marks::of(text);
    let (mut start, mut end, mut inside) = last_before(text, text.len(), &marks)?;
    // "$f(x) = 2x$ for all $x$": what it holds for is not the answer.
    if inside.trim().chars().count() == 1
        && let Some(before) = last_before(text, start, &marks)
        && [" for all", " for any", " for every", " for each", " where"]
            .iter()
            .any(|w| text[before.1..start].trim_end().ends_with(w.trim_start()))
    {
        (start, end, inside) = before;
    }
    if denied(&text[..start], &text[end..]) {
        return None;
    }
    let mut parts = vec![inside];
    let mut until = start;
    for _ in 0..64 {
        let Some((start, end, inside)) = last_before(text, until, &marks) else { break };
        let between = text[end..until].trim();
        if !matches!(between, "," | "and" | "or" | ", and" | ", or" | "、" | "和" | "或" | ";" | "und" | "et" | "ou")
        {
            break;
        }
        parts.push(inside);
        until = start;
    }
    parts.reverse();
    let joined = parts.join(", ");
    (!joined.trim().is_empty()).then(|| joined.trim().to_string())
}

/// The sentence of the last formula doubts it or asks for it.
pub fn last_is_unmeant(text: &str) -> bool {
    last_at(text).is_some_and(|(start, end, _)| doubted(&text[..start]) || asked(&text[end..]))
}

/// Where the last formula begins and ends, and what it holds.
pub fn last_at(text: &str) -> Option<(usize, usize, &str)> {
    last_before(text, text.len(), &Marks::of(text))
}

/// Which delimiters a text has: what it lacks is not looked for again before each formula.
struct Marks {
    delimiters: [bool; DELIMITERS.len()],
    environments: bool,
}

impl Marks {
    fn of(text: &str) -> Marks {
        Marks { delimiters: DELIMITERS.map(|(_, close)| text.contains(close)), environments: text.contains(r"\end{") }
    }
}

fn last_before<'t>(text: &'t str, until: usize, marks: &Marks) -> Option<(usize, usize, &'t str)> {
    let text = &text[..until];
    let mut best: Option<(usize, usize, &str)> = None;
    let present = DELIMITERS.iter().zip(marks.delimiters).filter(|(_, present)| *present);
    for (&(open, close), _) in present {
        let Some(end) = text.rfind(close) else { continue };
        if open == "$" && (text[..end].ends_with('\\') || text[..end].ends_with('$') || text[end..].starts_with("$$")) {
            continue;
        }
        let Some(start) = text[..end].rfind(open) else { continue };
        if open == "$" && text[..start].ends_with('\\') {
            continue;
        }
        let found = (start, end + close.len(), &text[start + open.len()..end]);
        if best.is_none_or(|b| found.1 > b.1) && !found.2.trim().is_empty() {
            best = Some(found);
        }
    }
    for name in ENVIRONMENTS.iter().filter(|_| marks.environments) {
        let close = format!(r"\end{{{name}}}");
        let Some(end) = text.rfind(&close) else { continue };
        let open = format!(r"\begin{{{name}}}");
        let Some(start) = text[..end].rfind(&open) else { continue };
        let found = (start, end + close.len(), &text[start..end + close.len()]);
        if best.is_none_or(|b| found.1 > b.1 + 4) {
            best = Some(found);
        }
    }
    best
}

/// The last line that is not blank, if it is short.
pub fn last_line(text: &str) -> Option<&str> {
    let line = text.trim_end().lines().next_back()?.trim();
    let bare = line.trim_start_matches(['-', '*', '#', '>', ' ']);
    let marks = &line[..line.len() - bare.len()];
    // A bullet's dash stands apart; one that touches a formula is its sign.
    let signed = marks.ends_with('-') && !marks.ends_with("--") && !starts_with_word(bare);
    let line = line[marks.len() - usize::from(signed)..].trim_end_matches(['*', ' ']);
    (!line.is_empty() && line.len() <= 2000).then_some(line)
}

/// A word, as behind a bullet; `sqrt(2)` and `pi` are formulas.
fn starts_with_word(text: &str) -> bool {
    let letters = text.chars().take_while(|c| c.is_alphabetic()).count();
    let rest = text.trim_start_matches(|c: char| c.is_alphabetic());
    letters > 1 && !rest.starts_with('(') && !["pi", "inf", "oo"].iter().any(|name| text.starts_with(name))
}

/// The line, unless it is a sentence: then what stands behind its last equals sign.
pub fn formula(line: &str) -> Option<&str> {
    let prose = |text: &str| {
        let mut words = 0;
        let (mut run, mut command) = (0, false);
        for c in text.chars().chain(" ".chars()) {
            if c.is_alphabetic() {
                run += 1;
                continue;
            }
            words += usize::from(run >= 2 && !command);
            (run, command) = (0, c == '\\');
        }
        words > 5
    };
    if !prose(line) {
        return Some(line);
    }
    let side = line[line.rfind('=')? + 1..].trim();
    // A sentence behind it says more: "= 274 g. So 79 g are left."
    let goes_on = |(at, _): (usize, &str)| side[at + 2..].starts_with(|c: char| c.is_uppercase() || c == '*');
    if side.match_indices(". ").any(goes_on) {
        return None;
    }
    (!side.is_empty() && !prose(side)).then_some(side)
}

/// Commands that words or units stand in.
const WORDED: [&str; 6] = ["text", "mathrm", "mbox", "rm", "operatorname", "quad"];

/// Another number may be the answer: "5, maybe 6", "5 or more".
fn hedged(rest: &str) -> bool {
    let mut hedge = false;
    rest.split_whitespace().any(|word| {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        hedge |=
            ["or", "maybe", "perhaps", "possibly", "probably", "wait"].iter().any(|h| bare.eq_ignore_ascii_case(h));
        let bound = ["more", "less", "fewer", "greater", "above", "below", "higher", "lower"].contains(&bare);
        hedge && (bound || bare.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// The number that a text starts with, with its sign, currency and percent sign.
pub fn leading_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() && matches!(bytes[i], b'$' | b'\\' | b' ' | b'-' | b'+' | b'*') {
        i += 1;
    }
    let start = i;
    while i < bytes.len() && (bytes[i].is_ascii_digit() || matches!(bytes[i], b'.' | b',' | b'/')) {
        i += 1;
    }
    if i == start {
        return None;
    }
    let mut end = i;
    while end > start && !bytes[end - 1].is_ascii_digit() {
        end -= 1;
    }
    // Only in front of words: "5 apples" yes, "5x + 2" and "5 \cdot 2 m" no.
    let rest = &text[end..];
    let bare = rest.trim_start_matches(['.', ',', ')', '%', '*', ' ', '$']);
    let command = bare.strip_prefix('\\').filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    if command.is_some_and(|name| !WORDED.iter().any(|word| name.starts_with(word)))
        || hedged(rest)
        || denied("", &words(rest))
    {
        return None;
    }
    let worded = rest.trim_start_matches(['.', ',', ')', '%', '*', ' ', '$', '\\']);
    let is_word = worded.chars().take(2).filter(|c| c.is_alphabetic()).count() == 2 || worded.is_empty();
    let percent = usize::from(rest.starts_with('%')) + 2 * usize::from(rest.starts_with("\\%"));
    (end > start && is_word).then(|| text[..end + percent].trim_start_matches('*').trim())
}

/// The last number anywhere.
pub fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let mut until = bytes.len();
    let (mut start, end) = loop {
        let end = bytes[..until].iter().rposition(u8::is_ascii_digit)? + 1;
        let mut start = end;
        while start > 0 && (bytes[start - 1].is_ascii_digit() || matches!(bytes[start - 1], b'.' | b',' | b'/')) {
            start -= 1;
        }
        // "K2" is a name.
        if !text[..start].ends_with(|c: char| c.is_ascii_alphabetic()) {
            break (start, end);
        }
        until = start;
    };
    while !bytes[start].is_ascii_digit() && bytes[start] != b'.' {
        start += 1;
    }
    if start > 0 && bytes[start - 1] == b'-' && !(start > 1 && bytes[start - 2].is_ascii_alphanumeric()) {
        start -= 1;
    }
    let percent = usize::from(bytes.get(end) == Some(&b'%'));
    Some(&text[start..end + percent])
}
