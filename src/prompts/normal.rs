//! The normal form that duplicates and contamination are judged by, and its tokens.
//!
//! Case, Unicode form (NFKC), white space, quotes and sentence punctuation do not tell two
//! questions apart. What changes an answer does: operators, digits, decimal points (`.5` is
//! `0.5`, not `5`), exponents and indices (`5²` is `5^2`, not `52`), factorials, primes of
//! derivatives, ratios, and words of mixed case such as `AbC`.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::hash::hash_bytes;
use crate::schema::{Message, Role};

/// A text in normal form with its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normal {
    /// NFKC with single spaces; words are in lower case unless their mixed case means something.
    pub text: String,
    /// In the order of the text.
    pub tokens: Vec<Token>,
}

/// A word, one CJK character, or an operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Byte range in [`Normal::text`].
    pub start: usize,
    /// Past its last byte.
    pub end: usize,
    /// 64-bit hash of its bytes.
    pub hash: u64,
    /// Decides what is compared: n-grams leave operators out.
    pub kind: TokenKind,
}

/// What a [`Token`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Letters and digits without a space, a letter first, in a script written with spaces.
    Word,
    /// A word that starts with a digit.
    Number,
    /// One character of a script written without spaces.
    Character,
    /// `+ - * / = < > ^ %`, a factorial, the prime of a derivative, the colon of a ratio, and the other symbols of
    /// mathematics.
    Operator,
}

/// What a conversation asks: the text of all turns but the system's, a line each. Duplicates, contamination and
/// splits are judged by its normal form.
pub fn asked(messages: &[Message]) -> Cow<'_, str> {
    let mut turns = messages.iter().filter(|m| m.role != Role::System).map(|m| m.content.as_str());
    match (turns.next(), turns.next()) {
        (Some(only), None) => Cow::Borrowed(only),
        (Some(first), Some(second)) => {
            Cow::Owned([first, second].into_iter().chain(turns).collect::<Vec<_>>().join("\n"))
        }
        (None, _) => Cow::Borrowed(""),
    }
}

impl Normal {
    /// Brings a text to normal form and cuts it into tokens.
    pub fn of(text: &str) -> Normal {
        if text.is_ascii() {
            return Scan::over(text);
        }
        let composed: String = spelled(text).nfkc().map(unify).collect();
        Scan::over(&composed)
    }

    /// The normal form of what a conversation asks, see [`asked`].
    pub fn of_turns(messages: &[Message]) -> Normal {
        Normal::of(&asked(messages))
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

/// Reads a text from left to right; `rest` below is always what follows the character in hand.
struct Scan {
    normal: Normal,
    /// Start of the open word.
    word: Option<usize>,
    /// The character that stands before the open word.
    before_word: char,
    /// A space is due before the next character.
    space: bool,
    previous: char,
    /// The last character that is no white space.
    visible: char,
}

impl Scan {
    fn over(text: &str) -> Normal {
        let mut scan =
            Scan { normal: Normal::default(), word: None, before_word: ' ', space: false, previous: ' ', visible: ' ' };
        scan.normal.text.reserve(text.len());
        scan.normal.tokens.reserve(text.len() / 4);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let run = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let taken = if run > 0 {
                scan.letters(&rest[..run]);
                run
            } else {
                scan.take(c, &rest[c.len_utf8()..]);
                c.len_utf8()
            };
            scan.previous = rest[..taken].chars().next_back().unwrap_or(c);
            if !scan.previous.is_whitespace() {
                scan.visible = scan.previous;
            }
            rest = &rest[taken..];
        }
        scan.close();
        scan.normal
    }

    /// ASCII letters and digits, which most of most texts are.
    fn letters(&mut self, run: &str) {
        self.due_space();
        let start = self.normal.text.len();
        self.normal.text.push_str(run);
        self.open(start);
    }

    fn take(&mut self, c: char, rest: &str) {
        let next = rest.chars().next().unwrap_or(' ');
        if is_spaceless(c) {
            self.close();
            let start = self.push(c);
            self.token(start, TokenKind::Character);
        } else if c.is_alphanumeric() || (!c.is_ascii() && is_combining_mark(c)) {
            let start = self.push(c);
            self.open(start);
        } else if c.is_whitespace() || c.is_control() || is_invisible(c) {
            self.close();
            self.space = true;
        } else if is_sentence_mark(c) {
            if is_word(self.previous) && is_word(next) && c != '"' {
                // 3.5, 1,000, don't
                self.push(c);
            } else if c == '.' && next.is_ascii_digit() && self.previous != '.' {
                self.close();
                let start = self.push('0');
                self.open(start);
                self.push('.');
            } else if self.is_operator(c, rest, next) {
                self.operator(c);
            } else {
                self.close();
                self.space = true;
            }
        } else {
            // A hyphen joins words, and is a minus between variables.
            let hyphen = c == '-'
                && self.previous.is_alphabetic()
                && next.is_alphabetic()
                && !self.after_letter()
                && !is_letter_alone(rest);
            let bare = matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '$' | '\\' | '_' | '`' | '#');
            if hyphen || bare {
                self.close();
                self.push(c);
            } else {
                self.operator(c);
            }
        }
    }

    /// Whether a mark that may end a sentence is mathematics here.
    fn is_operator(&self, c: char, rest: &str, next: char) -> bool {
        // The same sign just before: n!!, y''
        let again = |sign| self.word.is_none() && self.previous == c && self.normal.text.ends_with(sign);
        match c {
            // 5!, (n+1)!, n!, n!! and f!/g, but not a word's own: "Stop!"
            '!' => {
                matches!(self.previous, '0'..='9' | ')' | ']' | '}')
                    || self.after_letter()
                    || again('!')
                    || self.previous.is_alphabetic() && "+-*/=^<>|\u{d7}\u{f7}\u{2264}\u{2265}".contains(next)
            }
            // f'(x), y' and y'', but not the end of a quotation: 'a'
            '\'' => {
                self.after_letter() && self.before_word != '\''
                    || self.previous.is_alphabetic() && next == '('
                    || again('\'')
            }
            // 3 : 4 and a : b, but not "Solve: 3x = 4".
            ':' => {
                let before = matches!(self.visible, '0'..='9' | ')') || self.after_letter() || self.letter_closed();
                let after = rest.trim_start();
                before && (after.starts_with(|c: char| c.is_ascii_digit() || c == '(') || is_letter_alone(after))
            }
            // Chinese and Catalan write it between letters.
            '\u{b7}' => !(self.previous.is_alphabetic() && next.is_alphabetic()),
            _ => false,
        }
    }

    /// Whether the open word is one letter.
    fn after_letter(&self) -> bool {
        self.word.is_some_and(|start| is_letter_alone(&self.normal.text[start..]))
    }

    /// Whether the last word was one letter, with white space since.
    fn letter_closed(&self) -> bool {
        self.word.is_none()
            && self.visible.is_alphabetic()
            && self.normal.tokens.last().is_some_and(|t| is_letter_alone(&self.normal.text[t.start..]))
    }

    fn open(&mut self, start: usize) {
        if self.word.is_none() {
            self.word = Some(start);
            self.before_word = self.previous;
        }
    }

    fn due_space(&mut self) {
        if self.space && !self.normal.text.is_empty() {
            self.normal.text.push(' ');
        }
        self.space = false;
    }

    fn push(&mut self, c: char) -> usize {
        self.due_space();
        let start = self.normal.text.len();
        self.normal.text.push(c);
        start
    }

    fn operator(&mut self, c: char) {
        self.close();
        let start = self.push(c);
        self.token(start, TokenKind::Operator);
    }

    fn close(&mut self) {
        if let Some(start) = self.word.take() {
            fold_case(&mut self.normal.text, start);
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

/// Whether the text begins with a letter that is a word by itself.
fn is_letter_alone(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() && !is_spaceless(c))
        && !chars.next().is_some_and(char::is_alphanumeric)
}

/// Writes the word from `start` in lower case: `What`, `WHAT` and `what` are one word. Mixed case means something.
fn fold_case(text: &mut String, start: usize) {
    let word = &text[start..];
    if word.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return;
    }
    let mut cases = word.chars().filter(|c| c.is_uppercase() || c.is_lowercase()).map(char::is_uppercase);
    let first = cases.next();
    let second = cases.next();
    let rest_alike = cases.all(|upper| Some(upper) == second);
    if first == Some(false) && second == Some(true) || !rest_alike {
        return;
    }
    if word.is_ascii() {
        text[start..].make_ascii_lowercase();
    } else {
        let lower = word.to_lowercase();
        text.truncate(start);
        text.push_str(&lower);
    }
}

/// Writes raised and lowered characters with `^` and `_`, and fractions of one character with a space before them
/// after a digit: NFKC would run them into what they follow.
fn spelled(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| level(c).is_some() || is_fraction(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut before = None;
    for c in text.chars() {
        let level = level(c);
        match level {
            Some(sign) if level != before => out.push(sign),
            _ if is_fraction(c) && out.ends_with(|c: char| c.is_ascii_digit()) => out.push(' '),
            _ => {}
        }
        out.push(c);
        before = level;
    }
    Cow::Owned(out)
}

/// `^` for a superscript, `_` for a subscript.
fn level(c: char) -> Option<char> {
    match c {
        '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{2070}'..='\u{207f}' | '\u{2b0}'..='\u{2b8}' | '\u{2e0}'..='\u{2e4}' => {
            Some('^')
        }
        '\u{1d2c}'..='\u{1d61}' | '\u{1d78}' | '\u{1d9b}'..='\u{1dbf}' => Some('^'),
        '\u{2080}'..='\u{209c}' | '\u{1d62}'..='\u{1d6a}' | '\u{2c7c}' => Some('_'),
        _ => None,
    }
}

/// One half, two thirds … in one character.
fn is_fraction(c: char) -> bool {
    matches!(c, '\u{bc}'..='\u{be}' | '\u{2150}'..='\u{215f}' | '\u{2189}')
}

/// One sign for the many dashes, apostrophes and slashes.
fn unify(c: char) -> char {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{02bc}' | '\u{2032}' => '\'',
        '\u{201c}' | '\u{201d}' | '\u{201e}' | '\u{ab}' | '\u{bb}' | '\u{300c}' | '\u{300d}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
        '\u{2044}' | '\u{2215}' => '/',
        '\u{2236}' => ':',
        c => c,
    }
}

fn is_sentence_mark(c: char) -> bool {
    matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '。' | '、' | '\u{b7}' | '¿' | '¡' | '।' | '؟' | '،')
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
        for (a, b) in [
            (".5 + -.25", "0.5 + -0.25"),
            ("x² + y³", "x^2 + y^3"),
            ("a₁₂", "a_12"),
            ("3½ cups", "3 1/2 cups"),
            ("f′(2)", "f'(2)"),
            ("C'EST FINI!", "c’est fini"),
            ("the dogs' bowl, 'quoted' and 'a'", "the dogs bowl quoted and a"),
        ] {
            assert_eq!(Normal::of(a).text, Normal::of(b).text);
        }
    }

    #[test]
    fn what_changes_the_answer_changes_the_key_and_the_tokens() {
        let pairs = [
            ("3+5", "3-5"),
            ("3.5", "35"),
            (".5", "5"),
            ("5!", "5"),
            ("n!/(n-1)", "n/(n-1)"),
            ("(n+1)! is", "(n+1) is"),
            ("k! =", "k ="),
            ("n!!", "n!"),
            ("1,000", "1 000"),
            ("x^2", "x2"),
            ("5²", "52"),
            ("x₁", "x1"),
            ("2ⁿ", "2n"),
            ("2½", "21/2"),
            ("f'(2)", "f(2)"),
            ("y'' + y' = 0", "y' + y' = 0"),
            ("y' + y = 0", "y + y = 0"),
            ("sin'(x)", "sin(x)"),
            ("3 : 4", "3 4"),
            ("a : b", "a b"),
            ("x-y", "xy"),
            ("3 · 4", "3 4"),
            ("a<b", "a>b"),
            ("AbC", "abC"),
            ("abC", "abc"),
        ];
        for (a, b) in pairs {
            assert_ne!(Normal::of(a).key(), Normal::of(b).key(), "{a} {b}");
            assert_ne!(words(a), words(b));
        }
        assert_ne!(Normal::of("f(x)").key(), Normal::of("fx").key());
    }

    #[test]
    fn tokens_are_words_characters_and_operators() {
        assert_eq!(words("Don't solve 3.5x + 1,000 = 7!"), ["don't", "solve", "3.5x", "+", "1,000", "=", "7", "!"]);
        assert_eq!(words("求well-known值。"), ["求", "well", "known", "值"]);
        assert_eq!(words("约翰·史密斯: n-k"), ["约", "翰", "史", "密", "斯", "n", "-", "k"]);
        assert_eq!(words("\\frac{1}{2}"), ["frac", "1", "2"]);
        assert_eq!(words("Stop! I'd say: go. Problem 3. x=1; ...5"), words("stop I'd say go problem 3 x=1 5"));
        assert_eq!(words("  \n "), Vec::<String>::new());
    }

    #[test]
    fn a_conversation_is_asked_without_its_system_turn() {
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let turns = [
            turn(Role::System, "Be brief."),
            turn(Role::User, "Hi!"),
            turn(Role::Assistant, "Hello."),
            turn(Role::User, "2+2?"),
        ];
        assert_eq!(Normal::of_turns(&turns), Normal::of("hi hello 2+2"));
        assert_eq!(Normal::of_turns(&turns[..1]), Normal::default());
    }

    proptest! {
        #[test]
        fn spans_are_sound(text in any::<String>()) {
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
    }
}
