//! What of a text is language: code, mathematics, markup and links are taken out.

use std::borrow::Cow;
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
const PROSE_COMMANDS: &[&str] = &["\\textbf{", "\\textit{", "\\textrm{", "\\text{", "\\mbox{", "\\emph{"];

/// The text with a blank for its formulas, code blocks, commands, tags and links.
pub(super) fn of(text: &str) -> String {
    ranges(text).into_iter().map(|range| &text[range]).collect::<Vec<_>>().join(" ")
}

/// Ranges of prose, in order; the gaps between them are code, mathematics and markup. Linear time; an opening
/// without its closing is left alone.
pub(super) fn ranges(text: &str) -> Vec<Range<usize>> {
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

/// Ranges of the prose inside a formula: the arguments of `\text` and its kin, in order.
pub(super) fn arguments(formula: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(found) = formula[at..].find('\\') {
        at += found;
        let Some(command) = PROSE_COMMANDS.iter().find(|command| formula[at..].starts_with(**command)) else {
            at += 1;
            continue;
        };
        let start = at + command.len();
        let mut depth = 1usize;
        let end = formula[start..].bytes().position(|byte| {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        // What is never closed is looked through no further.
        let Some(end) = end.map(|end| start + end) else { break };
        ranges.push(start..end);
        at = end;
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
        if found - inside > most || matches!(open, "$" | "`") && text[inside..found].contains("\n\n") || found == inside
        {
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

/// The end of a TeX command's name, or of its brace where its argument is prose.
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
    inside.split_whitespace().filter(word).count() >= 2 || inside.chars().any(super::script::is_cjk)
}

/// Opening and closing quotation marks.
const QUOTES: [(char, char); 7] =
    [('"', '"'), ('“', '”'), ('„', '“'), ('«', '»'), ('‘', '’'), ('\'', '\''), ('「', '」')];

/// The prose with a blank for each short quotation.
pub(super) fn without_quotations(prose: &str) -> Cow<'_, str> {
    const LONGEST: usize = 400;
    let mut out = String::new();
    let (mut kept, mut before, mut at) = (0, ' ', 0);
    while let Some(c) = prose[at..].chars().next() {
        let inside = at + c.len_utf8();
        let close = QUOTES.iter().find(|(open, _)| *open == c).map(|(_, close)| *close);
        // An apostrophe opens nothing inside a word, and closes nothing before a letter.
        let found = close.filter(|_| !before.is_alphanumeric()).and_then(|close| {
            let ends = |end: &usize| {
                let after = prose[end + close.len_utf8()..].chars().next().unwrap_or(' ');
                !after.is_alphanumeric()
            };
            let reach = prose[inside..].char_indices().take_while(|(offset, _)| *offset <= LONGEST);
            reach.filter(|(_, c)| *c == close).map(|(offset, _)| inside + offset).find(ends)
        });
        match found {
            Some(end) => {
                out.push_str(&prose[kept..at]);
                out.push(' ');
                at = end + prose[end..].chars().next().map_or(0, char::len_utf8);
                (kept, before) = (at, ' ');
            }
            None => (at, before) = (inside, c),
        }
    }
    if kept == 0 {
        return Cow::Borrowed(prose);
    }
    out.push_str(&prose[kept..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> String {
        of(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn code_mathematics_and_links_go_and_prices_stay() {
        assert_eq!(words("so $x = 1$ and \\(y\\) `let z` http://a.b end"), "so and end");
        assert_eq!(words("a ```py\nprint(1)\n``` b"), "a b");
        assert_eq!(words("pay $5 and get $6 back"), "pay $5 and get $6 back");
        assert_eq!(words(r"\begin{align} a &= b \end{align} done"), "done");
        assert_eq!(words(r"求 $\frac{d}{dx}\left(\sin x\right)$ 的值"), "求 的值");
        assert_eq!(words(r"\frac{x}{2} is \text{half of} it"), "{x}{2} is half of} it");
        assert_eq!(words("an open $ dollar"), "an open $ dollar");
    }

    #[test]
    fn formulas_have_prose_of_their_own() {
        let inside =
            |formula: &str| arguments(formula).into_iter().map(|range| formula[range].to_owned()).collect::<Vec<_>>();
        assert_eq!(inside(r"$x = 1 \text{ if } \mathrm{x} \mbox{is $\{y\}$ or so}$"), [" if ", r"is $\{y\}$ or so"]);
        assert!(inside(r"$\frac{1}{2} \text{ open$").is_empty());
    }

    #[test]
    fn quotations_go_and_apostrophes_stay() {
        let plain = |text: &str| without_quotations(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(plain("What does 'c'est la vie' mean?"), "What does mean?");
        assert_eq!(plain("Traduis « hello » en français, l'ami d'un"), "Traduis en français, l'ami d'un");
        assert_eq!(plain("don't say \"no\" or “yes”, it's the dogs' bowl"), "don't say or , it's the dogs' bowl");
        assert_eq!(plain("an open \" mark"), "an open \" mark");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in r#"([$`'"«»\\]|\\\(|\\\)|\\begin\{a\}|\\end\{|```|é|的|x| |\n){0,40}"#) {
            let _ = without_quotations(&of(&text)).len();
        }
    }
}
