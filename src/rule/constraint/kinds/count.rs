//! Counts of words and sentences as IFEval's checkers take them, which take them from NLTK.

use crate::rule::text::is_unspaced;

/// Runs of letters, digits and underscores (`\w+`): "don't" and "well-known" are two each, `snake_case` one.
/// Characters of scripts without spaces count one each.
pub(super) fn words(text: &str) -> usize {
    let (mut count, mut inside) = (0, false);
    for c in text.chars() {
        let word = c.is_alphanumeric() || c == '_' || inside && crate::language::is_mark(c);
        count += usize::from(word && (!inside || is_unspaced(c)));
        inside = word && !is_unspaced(c);
    }
    count
}

/// Words that a full stop belongs to.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "rev", "gen", "sen", "rep", "gov", "capt", "col", "lt", "vs",
    "inc", "corp", "co", "ltd", "e.g", "i.e", "u.s", "u.k", "a.m", "p.m", "ph.d", "jan", "feb", "mar", "apr", "aug",
    "sept", "oct", "nov", "dec",
];

/// Sentences: what a final mark ends that white space or nothing follows, quotes and brackets apart. A line
/// break alone ends none; the full stop of an abbreviation or an initial ends none, nor do three before a small letter.
pub(super) fn sentences(text: &str) -> usize {
    let mut count = 0;
    let mut start = 0;
    let mut marks = text.char_indices().peekable();
    while let Some((at, c)) = marks.next() {
        let wide = matches!(c, '。' | '！' | '？' | '।');
        if !wide && !matches!(c, '.' | '!' | '?') {
            continue;
        }
        // "?!", "...", a closing quote: one end.
        let mut end = at + c.len_utf8();
        while let Some(&(next, d)) = marks.peek() {
            if !matches!(d, '.' | '!' | '?' | '。' | '！' | '？' | '"' | '\'' | ')' | ']' | '”' | '’' | '」') {
                break;
            }
            end = next + d.len_utf8();
            marks.next();
        }
        let rest = &text[end..];
        let over = wide || rest.is_empty() || rest.starts_with(char::is_whitespace);
        if over && (rest.trim().is_empty() || wide || !goes_on(&text[start..at], &text[at..end], rest)) {
            count += usize::from(text[start..end].contains(char::is_alphanumeric));
            start = end;
        }
    }
    count + usize::from(text[start..].contains(char::is_alphanumeric))
}

/// Whether the sentence goes on behind a mark.
fn goes_on(before: &str, mark: &str, rest: &str) -> bool {
    if mark.starts_with("..") {
        return rest.trim_start().starts_with(char::is_lowercase);
    }
    if mark != "." {
        return false;
    }
    let word = before.rsplit(char::is_whitespace).next().unwrap_or("").trim_start_matches(['(', '"', '\'', '“', '[']);
    let lower = word.to_lowercase();
    let mut letters = word.chars();
    let initial = matches!((letters.next(), letters.next()), (Some(c), None) if c.is_uppercase() && c != 'I');
    initial || ABBREVIATIONS.contains(&lower.as_str())
}

/// Words that are all capitals, of the Penn Treebank's tokens: "WELL-KNOWN" and "U.S." are one each, "DON'T" two.
pub(super) fn capitals(text: &str) -> usize {
    let split = |c: char| {
        c.is_whitespace()
            || matches!(
                c,
                ';' | '@'
                    | '#'
                    | '$'
                    | '%'
                    | '&'
                    | '?'
                    | '!'
                    | '"'
                    | '“'
                    | '”'
                    | '('
                    | ')'
                    | '['
                    | ']'
                    | '{'
                    | '}'
                    | '<'
                    | '>'
            )
    };
    let upper = |word: &str| word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase);
    let mut count = 0;
    for piece in text.split(split).flat_map(|piece| piece.split("--")) {
        // A comma or colon parts words unless a digit follows.
        let mut start = 0;
        for (at, c) in piece.char_indices() {
            let next = piece[at + c.len_utf8()..].chars().next();
            if matches!(c, ',' | ':') && !next.is_some_and(|next| next.is_ascii_digit()) {
                count += contracted(&piece[start..at], upper);
                start = at + c.len_utf8();
            }
        }
        count += contracted(&piece[start..], upper);
    }
    count
}

/// A word of capitals, and the contraction that is a token of its own.
fn contracted(word: &str, upper: impl Fn(&str) -> bool) -> usize {
    const TAILS: [&str; 14] =
        ["N'T", "N’T", "'S", "’S", "'M", "’M", "'D", "’D", "'LL", "’LL", "'RE", "’RE", "'VE", "’VE"];
    let word = word.trim_end_matches(['.', ',', ':']);
    match TAILS.iter().find_map(|tail| word.strip_suffix(tail)) {
        Some(head) => 1 + usize::from(upper(head)),
        None => usize::from(upper(word)),
    }
}
