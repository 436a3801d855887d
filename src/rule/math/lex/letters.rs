//! Letters: words, symbols with their subscripts, keywords, other scripts.

use super::super::ast::{Func, Func2, Node};
use super::super::budget::Stop;
use super::super::number::Q;
use super::super::units;
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
        // "USD 12.50", "Rs. 500"
        if let Some(len) = self.currency(run) {
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
        if run == "sec" && self.is_second(len) {
            self.at += len;
            return self.push(Tok::Word(run));
        }
        if let Some(tok) = keyword(run) {
            self.at += len;
            return self.push(tok);
        }
        // cis x is e^{ix}.
        if run == "cis" {
            self.at += len;
            self.push(Tok::Func(Func::Exp));
            return self.push(Tok::Atom(Node::Imaginary));
        }
        // "theta/2": a Greek letter by its name.
        if !in_text && is_greek(run) && !rest[len..].starts_with('_') {
            self.at += len;
            return self.named(run);
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

    /// "2.5 sec", "ft/sec": no secant, for it has no argument.
    fn is_second(&self, len: usize) -> bool {
        let unit = |tok: Option<&Token<'_>>| matches!(tok.map(|t| &t.tok), Some(Tok::Word(_) | Tok::Run(_)));
        let before = &self.out.tokens;
        if matches!(before.last().map(|t| &t.tok), Some(Tok::Div)) && unit(before.iter().rev().nth(1)) {
            return true;
        }
        let behind = self.rest()[len..].trim_start_matches(['}', ' ', '$', '.', '\\', ',']);
        !before.is_empty() && (behind.is_empty() || behind.starts_with([')', ']', ';', '=', '/']))
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
        let sym = self.arena.symbol(&name);
        self.push(Tok::Sym(sym));
    }

    /// How long the name of a currency is that stands in front of an amount, with its dot.
    fn currency(&self, name: &str) -> Option<usize> {
        let begins = matches!(
            self.out.tokens.last().map(|t| &t.tok),
            None | Some(Tok::Comma | Tok::Semi | Tok::And | Tok::Or | Tok::Rel(_) | Tok::Open(_) | Tok::Minus)
        );
        if !begins || !matches!(name, "USD" | "EUR" | "GBP" | "CNY" | "RMB" | "INR" | "Rs") {
            return None;
        }
        let rest = &self.rest()[name.len()..];
        let after = if name == "Rs" { rest.strip_prefix('.').unwrap_or(rest) } else { rest };
        let mut amount = after;
        let gaps = [" ", "~", "}", "{", "$", r"\ ", r"\,", r"\;", r"\:"];
        while let Some(next) = gaps.iter().find_map(|gap| amount.strip_prefix(gap)) {
            amount = next;
        }
        amount.starts_with(|c: char| c.is_ascii_digit()).then(|| name.len() + rest.len() - after.len())
    }

    /// `C_{n}^{k}`, `C^{k}_{n}`, `A_{n}^{k}` with numerals: combinations and permutations, as written in China
    /// and France.
    pub(super) fn combination(&mut self, base: &str) -> bool {
        let lower_first = self.peek() == b'_';
        let (first, second) = if lower_first { ('_', '^') } else { ('^', '_') };
        let Some((a, rest)) = script(self.rest(), first) else { return false };
        let Some((b, rest)) = script(rest, second) else { return false };
        let (n, k) = if lower_first { (a, b) } else { (b, a) };
        let (Ok(n), Ok(k)) = (n.trim().parse::<i64>(), k.trim().parse::<i64>()) else { return false };
        // C_1^2 is a constant squared.
        if k > n {
            return false;
        }
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

    /// `{}_{n}C_{k}`, `{}^{n}P_{k}`: combinations and permutations with the set's size in front. True if they
    /// stand behind the next `skip` bytes.
    pub(super) fn prescript(&mut self, skip: usize) -> Result<bool, Stop> {
        let rest = &self.rest()[skip..];
        let Some((n, rest)) = script(rest, '_').or_else(|| script(rest, '^')) else { return Ok(false) };
        let rest = rest.trim_start_matches(' ');
        let letters = [("C", Func2::Binomial), ("P", Func2::Permutations)];
        let dressings = [("", ""), ("{", "}"), (r"\mathrm{", "}"), (r"\text{", "}"), (r"\mathrm ", ""), (r"\rm ", "")];
        let letter = letters.iter().find_map(|(letter, func)| {
            let after = dressings
                .iter()
                .find_map(|(open, close)| rest.strip_prefix(open)?.strip_prefix(letter)?.strip_prefix(close))?;
            Some((*func, after))
        });
        let Some((func, rest)) = letter else { return Ok(false) };
        let Some((k, rest)) = script(rest, '_') else { return Ok(false) };
        // Without scripts and commands of their own: what is read here holds no third reading.
        let plain = |text: &str| {
            !text.trim().is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'+' | b'-'))
        };
        if !plain(n) || !plain(k) {
            return Ok(false);
        }
        let end = self.text.len() - rest.len();
        let (open, shut) = (Tok::Open(Delim::Group), Tok::Close(Delim::Group));
        // As `\binom{n}{k}` is read; the permutations are a function of two.
        let (begin, between, close) = match func {
            Func2::Binomial => (vec![Tok::Binom, open.clone()], vec![shut.clone(), open], shut),
            _ => (vec![Tok::Func2(func), Tok::Open(Delim::Paren)], vec![Tok::Comma], Tok::Close(Delim::Paren)),
        };
        begin.into_iter().for_each(|tok| self.push(tok));
        self.inside(n)?;
        between.into_iter().for_each(|tok| self.push(tok));
        self.inside(k)?;
        self.push(close);
        self.at = end;
        Ok(true)
    }

    /// The tokens of a short part of the text, out of its order.
    fn inside(&mut self, part: &'a str) -> Result<(), Stop> {
        let whole = self.text;
        (self.text, self.bytes, self.at) = (part, part.as_bytes(), 0);
        self.nesting += 1;
        let done = self.run();
        self.nesting -= 1;
        (self.text, self.bytes) = (whole, whole.as_bytes());
        done
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
            let sign: &str = c.encode_utf8(&mut buffer);
            return match units::find(sign) {
                Some(_) => self.unit(sign),
                // The bar and the dot over a letter.
                None if matches!(c, '\u{300}'..='\u{36f}') => {
                    let sym = self.arena.symbol(sign);
                    self.push(Tok::Sym(sym));
                }
                None if matches!(c, '\u{2000}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '¡' | '¿' | '・') => {}
                None => self.sign(sign),
            };
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

/// A Greek letter's name that is no English word and no short run of letters.
fn is_greek(run: &str) -> bool {
    matches!(run, "alpha" | "beta" | "gamma" | "theta" | "lambda" | "omega" | "sigma" | "rho" | "phi" | "varphi")
}

fn integer(value: i64) -> Lit<'static> {
    Lit { value: Q::int(value), places: None, digits: 1, raw: "", plain: false }
}

/// Longest script that is read as one of a combination's two numbers, in bytes.
const MAX_SCRIPT: usize = 32;

/// `_{…}` or `^{…}` or with one character: the inside and what follows.
fn script(rest: &str, mark: char) -> Option<(&str, &str)> {
    let rest = rest.strip_prefix(mark)?;
    if rest.starts_with('{') {
        // What never closes would be looked through to the end by each one that opens.
        let end = balanced(&rest[..rest.floor_char_boundary(MAX_SCRIPT)])?;
        return Some((&rest[1..end - 1], &rest[end..]));
    }
    let c = rest.chars().next()?;
    Some((&rest[..c.len_utf8()], &rest[c.len_utf8()..]))
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
