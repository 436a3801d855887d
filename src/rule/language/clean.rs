//! What of a text is language: code, mathematics, markup and links are taken out.

use std::ops::Range;

/// Constructs with an opening, a closing and the most bytes between them; the longest opening first.
const SPANS: &[(&str, &str, usize)] = &[
    ("```", "```", usize::MAX),
    ("~~~", "~~~", usize::MAX),
    ("[asy]", "[/asy]", usize::MAX),
    ("\\begin{", "\\end{", usize::MAX),
    ("$$", "$$", 8000),
    ("\\[", "\\]", 8000),
    ("\\(", "\\)", 4000),
    ("<<", ">>", 400),
    ("$", "$", 800),
    ("`", "`", 400),
];

/// Commands whose argument is prose.
const PROSE_COMMANDS: &[&str] = &["\\textbf{", "\\textit{", "\\text{", "\\mbox{", "\\emph{"];

/// Prose ranges of `text`, in order; the gaps between them are code, mathematics and markup.
/// Linear time; an opening without its closing is left alone.
pub(super) fn prose(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    // The next closing of each construct at or after the place last asked for.
    let mut closings: [Option<usize>; SPANS.len()] = [Some(0); SPANS.len()];
    let mut ranges = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        let end = match bytes[at] {
            b'$' | b'\\' | b'`' | b'~' | b'<' | b'[' => {
                construct(text, at, &mut closings).or_else(|| command(text, at)).or_else(|| tag(text, at))
            }
            b'h' if text[at..].starts_with("http://") || text[at..].starts_with("https://") => Some(word_end(text, at)),
            b'w' if text[at..].starts_with("www.") => Some(word_end(text, at)),
            _ => None,
        };
        match end {
            Some(end) => {
                if at > from {
                    ranges.push(from..at);
                }
                (from, at) = (end, end);
            }
            None => at += 1,
        }
    }
    if from < text.len() {
        ranges.push(from..text.len());
    }
    ranges
}

/// The end of the construct that opens at `at`.
fn construct(text: &str, at: usize, closings: &mut [Option<usize>; SPANS.len()]) -> Option<usize> {
    for (&(open, close, most), next) in SPANS.iter().zip(closings) {
        if !text[at..].starts_with(open) {
            continue;
        }
        let inside = at + open.len();
        // A closing that stands before this opening is old; look for the next one, once.
        if next.is_some_and(|found| found < inside) {
            *next = text[inside..].find(close).map(|found| inside + found);
        }
        let Some(found) = *next else { continue };
        if found - inside > most || matches!(open, "$" | "`") && text[inside..found].contains('\n') || found == inside {
            continue;
        }
        if open == "$" && is_currency(&text[inside..found]) {
            return None;
        }
        let end = found + close.len();
        return Some(if open == "\\begin{" { text[end..].find('}').map_or(end, |brace| end + brace + 1) } else { end });
    }
    None
}

/// The end of a LaTeX command's name, or of its brace where its argument is prose.
fn command(text: &str, at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix('\\')?;
    if let Some(prose) = PROSE_COMMANDS.iter().find(|command| text[at..].starts_with(**command)) {
        return Some(at + prose.len());
    }
    let name = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    (name > 0).then_some(at + 1 + name)
}

/// The end of an XML-like tag.
fn tag(text: &str, at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix('<')?;
    let body = rest.strip_prefix('/').unwrap_or(rest);
    body.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '|')).then_some(())?;
    let end = rest.bytes().take(60).position(|b| matches!(b, b'>' | b'<' | b'\n'))?;
    (rest.as_bytes()[end] == b'>').then_some(at + 1 + end + 1)
}

fn word_end(text: &str, at: usize) -> usize {
    text[at..].find(char::is_whitespace).map_or(text.len(), |end| at + end)
}

/// "$5 and the other $" is two prices, not a formula.
fn is_currency(inside: &str) -> bool {
    if inside.contains('\\') {
        return false;
    }
    let word =
        |w: &&str| w.chars().count() >= 2 && w.chars().all(|c| c.is_alphabetic() || matches!(c, ',' | '.' | '\''));
    inside.split_whitespace().filter(word).count() >= 2 || inside.chars().any(super::detect::is_cjk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        prose(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn code_mathematics_and_links_go_and_prices_stay() {
        assert_eq!(kept("so $x = 1$ and \\(y\\) `let z` http://a.b end"), "so  and    end");
        assert_eq!(kept("a ```py\nprint(1)\n``` b"), "a  b");
        assert_eq!(kept("pay $5 and get $6 back"), "pay $5 and get $6 back");
        assert_eq!(kept(r"\begin{align} a &= b \end{align} done"), " done");
        assert_eq!(kept("an open $ dollar"), "an open $ dollar");
    }
}
