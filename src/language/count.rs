//! Which language each word of a text is in, also when the text is short and full of mathematics.
//!
//! Scripts decide where they can; what is Latin, Chinese or Japanese is decided sentence by sentence. Letters of a script
//! that is none of these languages' are words of `und`.

use super::prose;
use super::script::{is_han, is_kana, is_latin, is_mark, is_of_another_script};
use sentence::{Found, Sentence};

mod sentence;

/// Languages that can be told: the Latin ones first, `und` last.
pub const LANGUAGES: [&str; 18] =
    ["en", "fr", "de", "es", "it", "pt", "nl", "ru", "uk", "zh", "ja", "ko", "ar", "fa", "hi", "th", "el", "und"];
/// How many of them share the Latin script: the first ones of the lexicon's.
pub(super) const LATIN: usize = 7;
const UND: usize = LANGUAGES.len() - 1;
const RU: usize = 7;
const ZH: usize = 9;
const JA: usize = 10;

/// How many words of each language a text has; characters of scripts without spaces count half.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts([f64; LANGUAGES.len()]);

impl Counts {
    /// Words counted.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The share of `language` among the words counted; `None` if nothing was, or for a language
    /// that cannot be told.
    pub fn share(&self, language: &str) -> Option<f64> {
        let index = LANGUAGES.iter().position(|l| *l == language).filter(|&i| i != UND)?;
        let total = self.total();
        (total > 0.0).then(|| self.0[index] / total)
    }

    /// The share of the language that has the most words, `und` included; 1 where nothing was counted.
    pub fn largest_share(&self) -> f64 {
        let total = self.total();
        if total > 0.0 { self.0.iter().copied().fold(0.0, f64::max) / total } else { 1.0 }
    }

    /// The language with the most words, if it has more than half of them.
    pub fn main(&self) -> Option<&'static str> {
        let (index, &most) = self.0.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        (index != UND && most > 0.5 * self.total()).then(|| LANGUAGES[index])
    }

    /// The other languages found, most words first.
    pub fn others(&self, language: &str) -> Vec<(&'static str, f64)> {
        let mut others: Vec<_> = LANGUAGES
            .iter()
            .zip(self.0)
            .filter(|(l, count)| **l != language && *count > 0.0)
            .map(|(l, c)| (*l, c))
            .collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1));
        others
    }
}

/// The language that a script alone decides.
fn of_script(c: char) -> Option<usize> {
    Some(match c as u32 {
        0x0400..=0x052f => RU,
        0xac00..=0xd7a3 | 0x1100..=0x11ff | 0x3130..=0x318f => 11,
        0x0600..=0x06ff | 0x0750..=0x077f | 0xfb50..=0xfdff | 0xfe70..=0xfeff => 12,
        0x0900..=0x097f => 14,
        0x0e00..=0x0e7f => 15,
        0x0370..=0x03ff | 0x1f00..=0x1fff => 16,
        _ if is_of_another_script(c) => UND,
        _ => return None,
    })
}

/// Whether words of a script are written without spaces between them: Thai, Lao, Tibetan, Burmese, Khmer.
fn is_run_on(c: char) -> bool {
    matches!(c as u32, 0x0e00..=0x0fff | 0x1000..=0x109f | 0x1780..=0x17ff)
}

/// Counts the words of each language. Where a text is code and formulas alone, what is language in those.
pub fn count(text: &str) -> Counts {
    let (mut found, mut sentence) = (Found::default(), Sentence::default());
    let mut last = 0;
    for range in prose::ranges(text) {
        read_between(&text[last..range.start], &mut sentence, &mut found);
        last = range.end;
        read(&text[range], &mut sentence, &mut found);
    }
    read_between(&text[last..], &mut sentence, &mut found);
    sentence.close(&mut found);
    let counts = found.counted();
    if counts.total() > 0.0 {
        return counts;
    }
    let (mut found, mut sentence) = (Found::default(), Sentence::of_code());
    read(text, &mut sentence, &mut found);
    sentence.close(&mut found);
    found.counted()
}

/// Reads what stands between ranges of prose: the prose inside it, and what is written in letters of which no program
/// and no formula is made.
fn read_between(text: &str, sentence: &mut Sentence, found: &mut Found) {
    let ends_line = text.contains('\n');
    if ends_line {
        sentence.close(found);
    }
    let mut last = 0;
    for range in prose::arguments(text) {
        read_other_scripts(&text[last..range.start], sentence, found);
        last = range.end;
        read(&text[range], sentence, found);
    }
    read_other_scripts(&text[last..], sentence, found);
    if ends_line {
        sentence.close(found);
    }
}

fn read_other_scripts(text: &str, sentence: &mut Sentence, found: &mut Found) {
    let mut at = 0;
    while let Some(skipped) = text[at..].find(|c: char| !c.is_ascii()) {
        let start = at + skipped;
        let c = text[start..].chars().next().unwrap_or(' ');
        at = start + c.len_utf8();
        if is_han(c) {
            sentence.han(c);
        } else if is_kana(c) {
            sentence.kana();
        } else if of_script(c).is_some() {
            at = word_end(text, c, at).0;
            other_script(&text[start..at], c, found);
        }
    }
}

/// Reads one range of prose.
fn read(text: &str, sentence: &mut Sentence, found: &mut Found) {
    let mut before = ' ';
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        at += c.len_utf8();
        // ASCII first: most text is, and it has no script to look up.
        let ascii = c.is_ascii();
        if matches!(c, '\n' | '.' | '!' | '?' | '。' | '！' | '？' | '।' | '؟') {
            let decimal = c == '.' && before.is_ascii_digit();
            if !decimal {
                sentence.close(found);
            }
        } else if matches!(c, ',' | ';' | ':' | '(' | ')' | '，' | '；' | '：' | '、' | '"' | '“' | '”' | '—' | '–')
        {
            sentence.clause();
        } else if ascii && !c.is_ascii_alphabetic() {
            // A blank, a digit, a sign.
        } else if !ascii && is_han(c) {
            sentence.han(c);
        } else if !ascii && is_kana(c) {
            sentence.kana();
        } else if is_latin(c) || of_script(c).is_some() {
            let (end, digit) = word_end(text, c, at);
            at = end;
            let digit = digit || before.is_ascii_digit() || before == '_';
            let after = text[end..].chars().next().unwrap_or(' ');
            let word = &text[start..end];
            let symbol = |c: char| matches!(c, '=' | '^' | '\\' | '<' | '>' | '{' | '}' | '|');
            let formula = digit || symbol(before) || symbol(after) || after == '(' && is_latin(c);
            if !formula {
                if is_latin(c) {
                    sentence.latin(word);
                } else {
                    other_script(word, c, found);
                }
            }
            before = word.chars().next_back().unwrap_or(c);
            continue;
        }
        before = c;
    }
}

/// The end of the word that begins with `first` and goes on at `end`, and whether digits are part of it.
fn word_end(text: &str, first: char, mut end: usize) -> (usize, bool) {
    let latin = is_latin(first);
    let same = |next: char| {
        if latin { is_latin(next) } else { of_script(next) == of_script(first) || is_mark(next) }
    };
    let mut digit = false;
    loop {
        if latin {
            end += text.as_bytes()[end..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        }
        let Some(next) = text[end..].chars().next() else { break };
        let after = end + next.len_utf8();
        let inner = matches!(next, '\'' | '’' | '-')
            && text[after..].chars().next().is_some_and(|after| same(after) && after.is_alphabetic());
        digit |= next.is_ascii_digit() || next == '_';
        if !(same(next) || inner || next.is_ascii_digit() || next == '_') {
            break;
        }
        end = after;
    }
    (end, digit)
}

/// Counts a word that its script decides.
fn other_script(word: &str, first: char, found: &mut Found) {
    let Some(mut language) = of_script(first) else { return };
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    // Single Greek and Cyrillic letters are variables, Greek words rare.
    if letters < 2 && !matches!(language, 11 | 12 | 14) && !"авикосуяАВИКОСУЯ".contains(first)
        || language == 16 && letters < 4
    {
        return;
    }
    if language == RU && word.contains(['і', 'ї', 'є', 'ґ', 'І', 'Ї', 'Є', 'Ґ']) {
        language += 1;
    }
    if language == 12 && word.contains(['پ', 'چ', 'ژ', 'گ', 'ک', 'ی']) {
        language += 1;
    }
    found.counts.0[language] += if is_run_on(first) { letters as f64 / 4.0 } else { 1.0 };
}

#[cfg(test)]
mod tests;
