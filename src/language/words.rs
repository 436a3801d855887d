//! The words of a question that say something of its language.

use super::lexicon::{Reader, elided, known};
use super::script::is_latin;

/// A word of prose.
pub(super) struct Word {
    pub lower: String,
    /// Bit `i` is language `i` of [`LATIN`](super::lexicon::LATIN); 0 for a word that no list has.
    pub languages: u32,
    capital: bool,
}

impl Word {
    /// Whether it is as likely a name or an acronym as a word.
    pub fn is_name(&self) -> bool {
        self.languages == 0 && self.capital && self.lower.is_ascii()
    }
}

/// The Latin words of a text that say something of its language: no variables, units or identifiers.
pub(super) fn of(prose: &str) -> impl Iterator<Item = Word> {
    let mut rest = prose;
    let mut before = ' ';
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(is_latin)?;
            before = rest[..start].chars().next_back().unwrap_or(before);
            let end = word_end(&rest[start..]) + start;
            let (text, after) = (&rest[start..end], rest[end..].chars().next().unwrap_or(' '));
            rest = &rest[end..];
            let symbol =
                |c: char| c.is_ascii_digit() || matches!(c, '=' | '^' | '\\' | '<' | '>' | '{' | '}' | '|' | '_');
            let formula =
                symbol(before) || symbol(after) || after == '(' || text.contains(|c: char| c.is_ascii_digit());
            before = text.chars().next_back().unwrap_or(' ');
            if !formula && let Some(word) = word(text) {
                return Some(word);
            }
        }
    })
}

/// Letters with the apostrophes, digits and underscores between them; a hyphen ends a word.
fn word_end(text: &str) -> usize {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let inner = matches!(c, '\'' | '’') && chars.peek().is_some_and(|(_, next)| is_latin(*next));
        if !(is_latin(c) || inner || c.is_ascii_digit() || c == '_') {
            break;
        }
        end = at + c.len_utf8();
    }
    end
}

fn word(text: &str) -> Option<Word> {
    let lower = text.to_lowercase().replace('’', "'");
    let entry = known(&lower, Reader::Detect);
    // A letter of ASCII is a variable; `à`, `è` and `é` are words.
    if entry.neutral || lower.is_ascii() && lower.bytes().filter(u8::is_ascii_alphabetic).nth(1).is_none() {
        return None;
    }
    let languages = match (entry.languages, lower.split_once('\'')) {
        (0, Some((head, tail))) => elided(head, tail, Reader::Detect),
        (languages, _) => languages,
    };
    Some(Word { languages, capital: text.starts_with(char::is_uppercase), lower })
}
