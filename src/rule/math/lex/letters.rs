//! Letters: words, symbols with their subscripts, keywords, other scripts.

use super::super::ast::{Func2, Node};
use super::super::number::Q;
use super::command::balanced;
use super::words::{is_text_command, keyword};
use super::{Delim, Lexer, Lit, Tok, Token};

impl<'a> Lexer<'a, '_> {
    pub(super) fn letters(&mut self) {
        let rest = self.rest();
        let in_text = !self.text_depth.is_empty();
        for (mark, pm) in [("a.m", false), ("p.m", true), ("A.M", false), ("P.M", true)] {
            if rest.starts_with(mark) {
                self.at += 3;
                if self.peek() == b'.' {
                    self.at += 1;
                }
                return self.push(Tok::Meridiem(pm));
            }
        }
        let mut len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        // "Lösung" is one word.
        if rest[len..].starts_with(|c: char| matches!(c, '\u{c0}'..='\u{24f}') && c.is_alphabetic()) {
            let word: usize = rest.chars().take_while(|c| c.is_alphabetic()).map(char::len_utf8).sum();
            self.at += word;
            return self.push(Tok::Word(&rest[..word]));
        }
        let mut run = &rest[..len];
        let after_number = matches!(self.out.tokens.last(), Some(Token { tok: Tok::Num(_), .. }));
        if after_number && run == "to" {
            self.at += len;
            return self.push(Tok::Colon);
        }
        if after_number && matches!(run, "am" | "pm" | "AM" | "PM") {
            self.at += len;
            return self.push(Tok::Meridiem(run.eq_ignore_ascii_case("pm")));
        }
        if after_number && matches!(run, "pct" | "percentage" | "percents" | "pourcent" | "Prozent" | "prozent") {
            self.at += len;
            return self.push(Tok::Percent);
        }
        // "USD 12.50"
        if matches!(run, "USD" | "EUR" | "GBP" | "CNY" | "RMB")
            && self.out.tokens.is_empty()
            && rest[len..].trim_start().starts_with(|c: char| c.is_ascii_digit())
        {
            self.at += len;
            return self.unit(run);
        }
        if !in_text && len == 2 && rest.as_bytes().get(2) == Some(&b'/') && self.plain_derivative() {
            return;
        }
        // (1, 2) U (3, 4), and 7.5 x 10^4 typed with letters.
        let behind = rest[len..].trim_start();
        let bracket = matches!(self.out.tokens.last().map(|t| &t.tok), Some(Tok::Close(Delim::Paren | Delim::Bracket)));
        if run == "U" && bracket && behind.starts_with(['(', '[']) {
            self.at += len;
            return self.push(Tok::Cup);
        }
        if run == "x" && after_number && behind.starts_with("10^") {
            self.at += len;
            return self.push(Tok::Times);
        }
        if let Some(tok) = keyword(run) {
            self.at += len;
            return self.push(tok);
        }
        if in_text || len > 1 {
            // Words may hold apostrophes and hyphens.
            if in_text || len > 3 {
                while matches!(self.bytes.get(self.at + len), Some(b'-' | b'\''))
                    && self.bytes.get(self.at + len + 1).is_some_and(u8::is_ascii_alphabetic)
                {
                    len += 1;
                    len += self.text[self.at + len..].bytes().take_while(u8::is_ascii_alphabetic).count();
                }
                run = &rest[..len];
            }
            if !in_text && len <= 3 && self.bytes.get(self.at + len) == Some(&b'_') {
                for i in 0..len - 1 {
                    let sym = self.arena.symbol(&run[i..=i]);
                    self.push(Tok::Sym(sym));
                }
                self.at += len - 1;
                return self.symbol(&run[len - 1..]);
            }
            self.at += len;
            return self.push(if in_text { Tok::Word(run) } else { Tok::Run(run) });
        }
        self.symbol(&rest[..1]);
    }

    /// One letter (or Greek name), its subscript, and the `(x)` of a definition `f(x) = …`.
    pub(super) fn symbol(&mut self, base: &'a str) {
        self.at += 1;
        self.named(base);
    }

    pub(super) fn named(&mut self, base: &str) {
        if matches!(base, "C" | "A" | "P") && self.combination(base) {
            return;
        }
        if self.peek() != b'_' {
            match base {
                "i" => return self.push(Tok::Atom(Node::Imaginary)),
                "e" => return self.push(Tok::Atom(Node::Euler)),
                _ => {}
            }
        }
        let mut name = String::from(base);
        if self.peek() == b'_' {
            let sub = self.subscript();
            name.push('_');
            name.push_str(&sub);
        }
        let head = matches!(
            self.out.tokens.last().map(|t| &t.tok),
            None | Some(Tok::Comma | Tok::Semi | Tok::And | Tok::Or | Tok::Row | Tok::Amp | Tok::Rel(_) | Tok::Open(_))
        );
        if head && let Some(len) = definition(self.rest()) {
            name.push_str(&self.rest()[..len].replace(' ', ""));
            self.at += len;
        }
        if matches!(base, "f" | "g" | "h" | "F" | "G" | "I")
            && let Some(len) = numeral_argument(self.rest())
        {
            name.push_str(&self.rest()[..len]);
            self.at += len;
        }
        let sym = self.arena.symbol(&name);
        self.push(Tok::Sym(sym));
    }

    /// `C_{n}^{k}`, `A_{n}^{k}` with numerals: combinations and permutations, as written in China and France.
    fn combination(&mut self, base: &str) -> bool {
        let Some((n, rest)) = script(self.rest(), '_') else { return false };
        let Some((k, rest)) = script(rest, '^') else { return false };
        let (Ok(n), Ok(k)) = (n.trim().parse::<i64>(), k.trim().parse::<i64>()) else { return false };
        self.at = self.text.len() - rest.len();
        let func = if base == "C" { Func2::Binomial } else { Func2::Permutations };
        for tok in [
            Tok::Func2(func),
            Tok::Open(Delim::Paren),
            Tok::Num(integer(n)),
            Tok::Comma,
            Tok::Num(integer(k)),
            Tok::Close(Delim::Paren),
        ] {
            self.push(tok);
        }
        true
    }

    /// Reads what follows `_` as a name: letters and digits only.
    fn subscript(&mut self) -> String {
        self.at += 1;
        let rest = self.rest();
        let taken = if rest.starts_with('{') {
            balanced(rest).unwrap_or(rest.len())
        } else if let Some(command) = rest.strip_prefix('\\') {
            1 + command.bytes().take_while(u8::is_ascii_alphabetic).count()
        } else {
            rest.chars().next().map_or(0, char::len_utf8)
        };
        self.at += taken;
        let mut name = String::new();
        let mut chars = rest[..taken].chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\\' {
                let mut command = String::new();
                while chars.peek().is_some_and(char::is_ascii_alphabetic) {
                    command.extend(chars.next());
                }
                if !is_text_command(&command) {
                    name.push_str(&command);
                }
            } else if c.is_alphanumeric() || matches!(c, '+' | '-' | ',') {
                name.push(c);
            }
        }
        name
    }

    pub(super) fn foreign(&mut self) {
        let rest = self.rest();
        let c = rest.chars().next().unwrap_or(' ');
        if !c.is_alphabetic() {
            self.at += c.len_utf8();
            let mut buffer = [0u8; 4];
            // An operator that is not known means something all the same.
            if matches!(c, '\u{2190}'..='\u{22ff}' | '\u{27c0}'..='\u{27ef}' | '\u{2980}'..='\u{2aff}') {
                let sym = self.arena.symbol(c.encode_utf8(&mut buffer));
                return self.push(Tok::Sym(sym));
            }
            self.unit(c.encode_utf8(&mut buffer));
            return;
        }
        // "13只鸟和鹳鸟": between two words it is part of what is counted.
        let counted = matches!(self.out.tokens.last(), Some(Token { tok: Tok::Word(_), .. }))
            && rest[c.len_utf8()..].starts_with(|next: char| next.is_alphabetic() && !next.is_ascii());
        if matches!(c, '或' | '和' | '与' | '及') && !counted {
            self.at += c.len_utf8();
            return self.push(if c == '或' { Tok::Or } else { Tok::And });
        }
        let len: usize = rest
            .chars()
            .enumerate()
            .take_while(|&(i, c)| c.is_alphabetic() && (i == 0 || !matches!(c, '或' | '和' | '与' | '及')))
            .map(|(_, c)| c)
            .map(char::len_utf8)
            .sum();
        self.at += len;
        self.push(Tok::Word(&rest[..len]));
    }
}

fn integer(value: i64) -> Lit<'static> {
    Lit { value: Q::int(value), places: None, digits: 1, raw: "", plain: false }
}

/// `_{…}` or `^{…}` or with one character: the inside and what follows.
fn script(rest: &str, mark: char) -> Option<(&str, &str)> {
    let rest = rest.strip_prefix(mark)?;
    if rest.starts_with('{') {
        let end = balanced(rest)?;
        return Some((&rest[1..end - 1], &rest[end..]));
    }
    let c = rest.chars().next()?;
    Some((&rest[..c.len_utf8()], &rest[c.len_utf8()..]))
}

/// Length of `(0)` or `(-2)`: what a function is taken at, and no factor.
fn numeral_argument(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('(')?;
    let sign = usize::from(inner.starts_with('-'));
    let digits = inner[sign..].bytes().take(7).take_while(u8::is_ascii_digit).count();
    ((1..7).contains(&digits) && inner[sign + digits..].starts_with(')')).then_some(sign + digits + 2)
}

/// Length of `(x)` or `(x, y)` when an equals sign follows: the head of a definition.
fn definition(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('(')?;
    let close = inner.bytes().take(13).position(|b| b == b')').filter(|&i| i > 0)?;
    let names = &inner[..close];
    if !names.split(',').all(|n| n.trim().len() == 1 && n.trim().bytes().all(|b| b.is_ascii_lowercase())) {
        return None;
    }
    let after = inner[close + 1..].trim_start();
    (after.starts_with('=') && !after.starts_with("==")).then_some(close + 2)
}
