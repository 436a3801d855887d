//! Text as rules compare it: normalised answers, words, tokens.

use unicode_normalization::UnicodeNormalization;

use crate::language::is_mark;

/// An answer for comparison: NFKC (full-width and ligatures folded), lower case, markdown and quotes
/// taken off, white space single, final punctuation dropped.
pub(crate) fn normalised(text: &str) -> String {
    let folded: String = text.nfkc().flat_map(char::to_lowercase).collect();
    let mut out = String::with_capacity(folded.len());
    for c in folded.chars() {
        match c {
            '*' | '`' | '"' | '“' | '”' | '„' | '«' | '»' | '\u{200b}' | '\u{feff}' => {}
            '’' | '‘' => out.push('\''),
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
    }
    let end = |c: char| {
        c.is_whitespace() || matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '。' | '，' | '！' | '？' | '、')
    };
    out.trim_end_matches(end).trim_start().to_owned()
}

/// Whether a character is written without spaces between words.
pub(crate) fn is_unspaced(c: char) -> bool {
    matches!(c as u32, 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2fa1f
        | 0x0e00..=0x0e7f)
}

/// Words in order: runs of letters and digits (marks and inner apostrophes included); each character of
/// a script written without spaces is a word.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        while let Some((start, c)) = chars.next() {
            if !c.is_alphanumeric() {
                continue;
            }
            let mut end = start + c.len_utf8();
            if is_unspaced(c) {
                return Some(&text[start..end]);
            }
            while let Some(&(at, next)) = chars.peek() {
                let apostrophe = matches!(next, '\'' | '’')
                    && text[at + next.len_utf8()..].chars().next().is_some_and(char::is_alphabetic);
                if !(next.is_alphanumeric() && !is_unspaced(next) || is_mark(next) || apostrophe) {
                    break;
                }
                end = at + next.len_utf8();
                chars.next();
            }
            return Some(&text[start..end]);
        }
        None
    })
}

/// The region a rule looks at.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_differ_only_in_dress_are_equal() {
        assert_eq!(normalised(" **Paris**. "), "paris");
        assert_eq!(normalised("Ｐａｒｉｓ！"), "paris");
        assert_eq!(normalised("the\n  “Eiffel”  tower"), "the eiffel tower");
        assert_ne!(normalised("-4"), normalised("4"));
    }

    #[test]
    fn words_of_every_script() {
        let all: Vec<_> = words("It's 3 नमस्ते, 你好 café-bar").collect();
        assert_eq!(all, ["It's", "3", "नमस्ते", "你", "好", "café", "bar"]);
    }
}
