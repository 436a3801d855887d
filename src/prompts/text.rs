//! The normal form that duplicates and contamination are judged by, its tokens, and the hashes of both.
//!
//! Case, Unicode form (NFKC), white space, quotes and sentence punctuation do
//! not tell two questions apart; operators, digits, decimal points and
//! factorials do: `3+5` and `3-5` stay different.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A text in normal form with its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normal {
    pub text: String,
    pub tokens: Vec<Token>,
}

/// A word, one CJK character, or an operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Byte range in [`Normal::text`].
    pub start: usize,
    pub end: usize,
    pub hash: u64,
    pub kind: TokenKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Word,
    /// A word that starts with a digit.
    Number,
    /// One character of a script written without spaces.
    Character,
    /// `+ - * / = < > ^ %` and the other symbols of mathematics.
    Operator,
}

impl Normal {
    /// Brings a text to normal form and cuts it into tokens.
    pub fn of(text: &str) -> Normal {
        let folded: String = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            text.nfkc().flat_map(char::to_lowercase).map(unify).collect()
        };
        let mut scan = Scan { normal: Normal::default(), word: None, space: false };
        scan.normal.text.reserve(folded.len());
        scan.normal.tokens.reserve(folded.len() / 4);
        let mut previous = ' ';
        let mut chars = folded.chars().peekable();
        while let Some(c) = chars.next() {
            let next = chars.peek().copied().unwrap_or(' ');
            scan.take(previous, c, next);
            previous = c;
        }
        scan.close();
        scan.normal
    }

    /// A 128-bit hash of the normal form: a million million texts collide with probability about 1e-15.
    pub fn key(&self) -> u128 {
        let bytes = self.text.as_bytes();
        u128::from(hash_bytes(bytes, 1)) << 64 | u128::from(hash_bytes(bytes, 2))
    }

    /// The text from one token to another, both included.
    pub fn slice(&self, first: &Token, last: &Token) -> &str {
        &self.text[first.start..last.end]
    }
}

struct Scan {
    normal: Normal,
    /// Start of the open word.
    word: Option<usize>,
    /// A space is due before the next character.
    space: bool,
}

impl Scan {
    fn take(&mut self, previous: char, c: char, next: char) {
        if is_spaceless(c) {
            self.close();
            let start = self.push(c);
            self.token(start, TokenKind::Character);
        } else if c.is_alphanumeric() || (!c.is_ascii() && is_combining_mark(c)) {
            let start = self.push(c);
            self.word.get_or_insert(start);
        } else if c.is_whitespace() || c.is_control() || is_invisible(c) {
            self.close();
            self.space = true;
        } else if is_sentence_mark(c) {
            let inside = is_word(previous) && is_word(next);
            if inside && c != '"' {
                // 3.5, 1,000, don't
                self.push(c);
            } else if c == '!' && (previous.is_ascii_digit() || previous == ')') {
                self.close();
                let start = self.push(c);
                self.token(start, TokenKind::Operator);
            } else {
                self.close();
                self.space = true;
            }
        } else {
            let hyphen = c == '-' && previous.is_alphabetic() && next.is_alphabetic();
            self.close();
            let start = self.push(c);
            if !hyphen && !matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '$' | '\\' | '_' | '`' | '#') {
                self.token(start, TokenKind::Operator);
            }
        }
    }

    fn push(&mut self, c: char) -> usize {
        if self.space && !self.normal.text.is_empty() {
            self.normal.text.push(' ');
        }
        self.space = false;
        let start = self.normal.text.len();
        self.normal.text.push(c);
        start
    }

    fn close(&mut self) {
        if let Some(start) = self.word.take() {
            let digit = self.normal.text.as_bytes()[start].is_ascii_digit();
            self.token(start, if digit { TokenKind::Number } else { TokenKind::Word });
        }
    }

    fn token(&mut self, start: usize, kind: TokenKind) {
        let end = self.normal.text.len();
        let hash = hash_bytes(&self.normal.text.as_bytes()[start..end], 0);
        self.normal.tokens.push(Token { start, end, hash, kind });
    }
}

/// One sign for the many dashes and apostrophes.
fn unify(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{02bc}' | '\u{2032}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}' | '\u{300c}' | '\u{300d}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        c => c,
    }
}

fn is_sentence_mark(c: char) -> bool {
    matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '。' | '、' | '·' | '¿' | '¡' | '।' | '؟' | '،')
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() && !is_spaceless(c)
}

/// Scripts written without spaces between words: Han, kana, Thai, Lao, Khmer, Myanmar.
fn is_spaceless(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}' | '\u{e01}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
        && c.is_alphanumeric()
}

const K: [u64; 3] = [0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

/// Multiply and fold, the step of wyhash (Wang Yi 2019).
#[inline]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product ^ (product >> 64)) as u64
}

/// A fast 64-bit hash in the manner of wyhash. Stable: it decides what a dataset holds.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut state = seed.wrapping_add(1).wrapping_mul(K[0]) ^ (bytes.len() as u64).wrapping_mul(K[1]);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        state = fold(state ^ u64::from_le_bytes(word.try_into().expect("chunks of eight")), K[2]);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(last), K[1]);
    }
    fold(state ^ K[0], K[2])
}

/// Calls `each` with the hash of every window of `n` hashes, by a rolling polynomial mod 2^64.
/// Nothing is called where there are fewer than `n`.
pub(crate) fn rolling(hashes: &[u64], n: usize, mut each: impl FnMut(usize, u64)) {
    const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
    if n == 0 || hashes.len() < n {
        return;
    }
    let top = (1..n).fold(1u64, |power, _| power.wrapping_mul(BASE));
    let mut state = 0u64;
    for (i, &hash) in hashes.iter().enumerate() {
        if i >= n {
            state = state.wrapping_sub(hashes[i - n].wrapping_mul(top));
        }
        state = state.wrapping_mul(BASE).wrapping_add(hash);
        if i + 1 >= n {
            each(i + 1 - n, fold(state ^ K[0], K[1]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let normal = Normal::of(text);
        normal.tokens.iter().map(|t| normal.text[t.start..t.end].to_owned()).collect()
    }

    #[test]
    fn case_space_width_and_punctuation_do_not_tell_texts_apart() {
        let base = Normal::of("What is the sum of 3 and 5?").key();
        for same in [
            "what is  the SUM of 3 and 5",
            "What is the sum of 3 and 5 ?\n",
            "\u{feff}“What is the sum of 3 and 5?”",
            "Ｗｈａｔ is the sum of ３ and ５？",
            "What is the sum, of 3 and 5...",
        ] {
            assert_eq!(Normal::of(same).key(), base, "{same}");
        }
    }

    #[test]
    fn what_changes_the_answer_changes_the_key() {
        let pairs = [
            ("3+5", "3-5"),
            ("3.5", "35"),
            ("5!", "5"),
            ("1,000", "1 000"),
            ("x^2", "x2"),
            ("f(x)", "fx"),
            ("a<b", "a>b"),
        ];
        for (a, b) in pairs {
            assert_ne!(Normal::of(a).key(), Normal::of(b).key(), "{a} {b}");
        }
    }

    #[test]
    fn tokens_are_words_characters_and_operators() {
        assert_eq!(words("Don't solve 3.5x + 1,000 = 7!"), ["don't", "solve", "3.5x", "+", "1,000", "=", "7", "!"]);
        assert_eq!(words("求well-known值。"), ["求", "well", "known", "值"]);
        assert_eq!(words("\\frac{1}{2}"), ["frac", "1", "2"]);
        assert_eq!(words("  \n "), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent_and_spans_are_sound(text in any::<String>()) {
            let once = Normal::of(&text);
            for pair in once.tokens.windows(2) {
                prop_assert!(pair[0].end <= pair[1].start);
                prop_assert!(once.text.is_char_boundary(pair[0].end));
            }
        }

        #[test]
        fn ascii_and_unicode_paths_agree(text in "[ -~]{0,60}") {
            // A trailing ideographic space forces the Unicode path and is then white space.
            prop_assert_eq!(Normal::of(&text).text, Normal::of(&format!("{text}\u{3000}")).text);
        }

        #[test]
        fn a_rolling_window_equals_a_fresh_one(hashes in prop::collection::vec(any::<u64>(), 0..40), n in 1usize..8) {
            let mut rolled = Vec::new();
            rolling(&hashes, n, |at, hash| rolled.push((at, hash)));
            prop_assert_eq!(rolled.len(), (hashes.len() + 1).saturating_sub(n));
            for (at, hash) in rolled {
                let mut fresh = None;
                rolling(&hashes[at..at + n], n, |_, hash| fresh = Some(hash));
                prop_assert_eq!(Some(hash), fresh);
            }
        }
    }
}
