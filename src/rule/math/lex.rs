//! LaTeX and plain text to tokens, in one pass from left to right.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::ast::{Arena, Func, Func2, Node, Numbers, Rel, Sym};
use super::budget::{Budget, Stop};
use super::number::Q;
use super::units;

/// Longest numeral read as a number, in digits.
pub const MAX_DIGITS: usize = 20_000;

/// Brackets that must pair up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delim {
    Paren,
    Bracket,
    /// `\{ \}`.
    Set,
    /// LaTeX grouping braces.
    Group,
    Floor,
    Ceil,
    Angle,
    /// `\left|` and `\right|`.
    Bar,
}

/// What `\begin{…}` opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Env {
    Matrix,
    Determinant,
    /// Rows of statements: cases, align.
    Rows,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Tok<'a> {
    Num(Lit<'a>),
    Sym(Sym),
    /// A run of letters in math: product of letters or a word, as the parser finds.
    Run(&'a str),
    /// A word inside `\text{…}` or the like.
    Word(&'a str),
    /// A value with no parts.
    Atom(Node),
    Func(Func),
    /// `log` with no base yet.
    Log,
    /// Functions written with a list of arguments: gcd(a, b).
    Func2(Func2),
    Plus,
    Minus,
    PlusMinus(bool),
    Times,
    Div,
    Mod,
    Caret,
    Under,
    Bang,
    Percent,
    Degree,
    Prime,
    Open(Delim),
    Close(Delim),
    Bar,
    Comma,
    Semi,
    Colon,
    And,
    Or,
    SuchThat,
    Rel(Rel),
    Cup,
    Cap,
    SetMinus,
    Amp,
    Row,
    Begin(Env),
    End,
    Frac,
    Sqrt,
    Binom,
    /// Infix, between top and bottom.
    Choose,
    Series(bool),
    Meridiem(bool),
    Dots,
    /// A command that only decorates its argument.
    Transparent,
}

/// A numeral as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Lit<'a> {
    pub value: Q,
    /// Digits after the decimal point, if it has one.
    pub places: Option<u16>,
    /// Significant digits.
    pub digits: u16,
    /// The characters; only digits when `plain`.
    pub raw: &'a str,
    pub plain: bool,
}

/// A token and whether blank space came before it.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    pub tok: Tok<'a>,
    pub space: bool,
}

/// How commas between digits are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commas {
    /// Three digits after a comma belong to the number: `1,234`.
    Thousands,
    /// A comma always separates values.
    Separate,
    /// A comma between digits is the decimal point.
    Decimal,
}

/// What the lexer found besides tokens.
#[derive(Debug, Default)]
pub struct Lexed<'a> {
    pub tokens: Vec<Token<'a>>,
    /// A comma between digits was read one way where another was possible.
    pub ambiguous_comma: bool,
}

/// Splits cleaned text into tokens.
pub fn lex<'a>(text: &'a str, commas: Commas, arena: &mut Arena, budget: &mut Budget) -> Result<Lexed<'a>, Stop> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        commas,
        arena,
        budget,
        out: Lexed::default(),
        space: false,
        nesting: 0,
        text_depth: Vec::new(),
        dollars: text.bytes().filter(|&b| b == b'$').count()
            - text.as_bytes().windows(2).filter(|w| w == b"\\$").count(),
    };
    lexer.budget.charge(text.len() as u64 * 2)?;
    lexer.run()?;
    Ok(lexer.out)
}

struct Lexer<'a, 'b> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    commas: Commas,
    arena: &'b mut Arena,
    budget: &'b mut Budget,
    out: Lexed<'a>,
    space: bool,
    /// Open round, square and set brackets: inside them commas separate.
    nesting: u32,
    /// Brace depth inside each open `\text{…}`.
    text_depth: Vec<u32>,
    dollars: usize,
}

impl<'a> Lexer<'a, '_> {
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn ahead(&self, n: usize) -> u8 {
        self.bytes.get(self.at + n).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, tok: Tok<'a>) {
        self.out.tokens.push(Token { tok, space: self.space });
        self.space = false;
    }

    fn single(&mut self, tok: Tok<'a>) {
        self.at += 1;
        self.push(tok);
    }

    fn run(&mut self) -> Result<(), Stop> {
        while self.at < self.bytes.len() {
            let b = self.peek();
            match b {
                b' ' | b'\t' | b'\n' | b'\r' | b'~' => {
                    self.at += 1;
                    self.space = true;
                }
                b'0'..=b'9' => self.number()?,
                b'.' => self.dot()?,
                b'a'..=b'z' | b'A'..=b'Z' => self.letters(),
                b'\\' => self.command(),
                b'{' if self.rest().starts_with("{:}") => {
                    self.at += 3;
                    self.push(Tok::Colon);
                }
                b'{' => {
                    self.at += 1;
                    match self.text_depth.last_mut() {
                        Some(depth) => *depth += 1,
                        None => self.push(Tok::Open(Delim::Group)),
                    }
                }
                b'}' => {
                    self.at += 1;
                    match self.text_depth.last_mut() {
                        Some(0) => {
                            self.text_depth.pop();
                            self.space = true;
                        }
                        Some(depth) => *depth -= 1,
                        None => self.push(Tok::Close(Delim::Group)),
                    }
                }
                b'(' => {
                    self.nesting += 1;
                    self.single(Tok::Open(Delim::Paren));
                }
                b')' => {
                    self.nesting = self.nesting.saturating_sub(1);
                    self.single(Tok::Close(Delim::Paren));
                }
                b'[' => {
                    self.nesting += 1;
                    self.single(Tok::Open(Delim::Bracket));
                }
                b']' => {
                    self.nesting = self.nesting.saturating_sub(1);
                    self.single(Tok::Close(Delim::Bracket));
                }
                b'+' if self.rest().starts_with("+/-") => {
                    self.at += 3;
                    self.push(Tok::PlusMinus(true));
                }
                b'+' => self.single(Tok::Plus),
                b'-' if self.ahead(1) == b'>' => {
                    self.at += 2;
                    self.push(Tok::Rel(Rel::Other(1)));
                }
                b'-' => self.single(Tok::Minus),
                b'*' if self.ahead(1) == b'*' => {
                    // Power, or Markdown bold around the whole.
                    self.at += 2;
                    let bold = self.out.tokens.is_empty() || self.rest().trim().is_empty();
                    if !bold {
                        self.push(Tok::Caret);
                    }
                }
                b'*' => self.single(Tok::Times),
                b'/' => self.single(Tok::Div),
                b'^' => self.caret(),
                b'_' => self.single(Tok::Under),
                b'!' if self.ahead(1) == b'=' => {
                    self.at += 2;
                    self.push(Tok::Rel(Rel::Ne));
                }
                b'!' => self.single(Tok::Bang),
                b'%' => self.single(Tok::Percent),
                b'\'' => self.single(Tok::Prime),
                b',' => self.single(Tok::Comma),
                b';' => self.single(Tok::Semi),
                b':' => self.single(Tok::Colon),
                b'|' => {
                    self.at += if self.ahead(1) == b'|' { 2 } else { 1 };
                    self.push(Tok::Bar);
                }
                b'=' | b'<' | b'>' => self.relation(),
                b'&' => self.single(Tok::Amp),
                b'$' => {
                    self.at += 1;
                    let money = self.dollars % 2 == 1 && matches!(self.peek(), b'0'..=b'9' | b' ' | b'.');
                    if money {
                        self.unit("$");
                    }
                    self.space = true;
                }
                b'"' | b'`' | b'?' | b'#' | b'@' => {
                    self.at += 1;
                    self.space = true;
                }
                _ if b < 0x80 => {
                    self.at += 1;
                }
                _ => self.foreign(),
            }
        }
        Ok(())
    }

    fn unit(&mut self, name: &str) {
        if let Some(unit) = units::find(name) {
            self.push(Tok::Atom(Node::Unit(unit)));
        }
    }

    fn relation(&mut self) {
        let (rel, len) = match (self.peek(), self.ahead(1), self.ahead(2)) {
            (b'=', b'=', b'>') => (Rel::Other(1), 3),
            (b'=', b'=', _) => (Rel::Eq, 2),
            (b'=', b'>', _) => (Rel::Other(1), 2),
            (b'=', b'<', _) | (b'<', b'=', _) => (Rel::Le, 2),
            (b'>', b'=', _) => (Rel::Ge, 2),
            (b'<', b'>', _) => (Rel::Ne, 2),
            (b'=', ..) => (Rel::Eq, 1),
            (b'<', ..) => (Rel::Lt, 1),
            _ => (Rel::Gt, 1),
        };
        self.at += len;
        self.push(Tok::Rel(rel));
    }

    fn caret(&mut self) {
        self.at += 1;
        let rest = self.rest().trim_start();
        let skipped = self.rest().len() - rest.len();
        for (mark, tok) in [
            (r"{\circ}", Tok::Degree),
            (r"{\prime}", Tok::Prime),
            (r"{\prime \prime}", Tok::Prime),
            (r"{\prime\prime}", Tok::Prime),
            (r"{ \circ }", Tok::Degree),
            (r"\circ", Tok::Degree),
            (r"\prime", Tok::Prime),
            ("°", Tok::Degree),
        ] {
            if rest.starts_with(mark) {
                self.at += skipped + mark.len();
                self.push(tok);
                return;
            }
        }
        self.push(Tok::Caret);
    }

    fn dot(&mut self) -> Result<(), Stop> {
        if self.ahead(1).is_ascii_digit() {
            return self.number();
        }
        let dots = self.rest().bytes().take_while(|&b| b == b'.').count();
        self.at += dots;
        if dots >= 2 {
            self.push(Tok::Dots);
        } else {
            self.space = true;
        }
        Ok(())
    }

    /// Where the separator between groups of three digits ends, if one starts at `at`.
    fn thousands(&self, at: usize) -> Option<(usize, bool)> {
        let rest = &self.bytes[at..];
        for (mark, sure) in [
            (&br"{,}"[..], true),
            (br",\!", true),
            (br"{,\!}", true),
            (br"\,", true),
            (br"\;", true),
            (b",", false),
            (b" ", true),
            (b"'", true),
        ] {
            if rest.starts_with(mark) {
                let mut end = at + mark.len();
                if mark.ends_with(b"!") {
                    while self.bytes.get(end) == Some(&b' ') {
                        end += 1;
                    }
                }
                let group = self.bytes[end..].iter().take_while(|b| b.is_ascii_digit()).count();
                return (group == 3).then_some((end, sure));
            }
        }
        None
    }

    fn number(&mut self) -> Result<(), Stop> {
        let start = self.at;
        let digits_from = |bytes: &[u8], at: usize| bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut plain = true;
        let lead = digits_from(self.bytes, self.at);
        self.at += lead;
        let mut separated: Option<String> = None;
        if (1..=3).contains(&lead) && self.bytes[start] != b'0' {
            while let Some((end, sure)) = self.thousands(self.at) {
                if !sure {
                    if self.commas != Commas::Thousands || self.nesting > 0 {
                        self.out.ambiguous_comma = true;
                        break;
                    }
                    self.out.ambiguous_comma = true;
                }
                let buffer = separated.get_or_insert_with(|| self.text[start..self.at].to_string());
                buffer.push_str(&self.text[end..end + 3]);
                self.at = end + 3;
                plain = false;
            }
        }
        let whole_end = self.at;
        let mut fraction: &str = "";
        let mut has_point = false;
        let decimal_comma = separated.is_none()
            && self.peek() == b','
            && self.ahead(1).is_ascii_digit()
            && (self.commas == Commas::Decimal);
        let braced_comma = separated.is_none() && self.rest().starts_with("{,}") && self.ahead(3).is_ascii_digit();
        if self.peek() == b',' && self.ahead(1).is_ascii_digit() {
            self.out.ambiguous_comma = true;
        }
        if decimal_comma || braced_comma {
            self.at += if braced_comma { 3 } else { 1 };
            let n = digits_from(self.bytes, self.at);
            fraction = &self.text[self.at..self.at + n];
            self.at += n;
            has_point = true;
            plain = false;
        } else if self.peek() == b'.' && self.ahead(1) != b'.' {
            let n = digits_from(self.bytes, self.at + 1);
            let joined = n > 0 || (!self.ahead(1).is_ascii_whitespace() && self.at + 1 < self.bytes.len());
            if joined {
                fraction = &self.text[self.at + 1..self.at + 1 + n];
                self.at += 1 + n;
                has_point = n > 0 || self.rest().starts_with('\\') || self.peek() == b'(';
                plain = false;
            }
        }
        let whole = separated.as_deref().unwrap_or(&self.text[start..whole_end]);
        let total = whole.len() + fraction.len();
        if total > MAX_DIGITS {
            return Err(Stop::Budget);
        }
        let words = total as u64 / 18 + 1;
        self.budget.charge(words * words)?;
        let places = fraction.len();
        let repetend = if has_point { self.repetend() } else { None };
        let mut value = decimal(whole, fraction);
        let mut exact = false;
        if let Some(digits) = repetend {
            // x = 0.ab(cde): add cde / (10^places · (10^len − 1)).
            let tail = decimal(digits, "");
            let nines = Q::int(10).pow(digits.len() as i64, self.budget)?.sub(&Q::ONE, self.budget)?;
            let shift = Q::int(10).pow(places as i64, self.budget)?;
            let part = tail.div(&nines.mul(&shift, self.budget)?, self.budget)?;
            value = value.add(&part, self.budget)?;
            exact = true;
        }
        if let Some((exponent, len)) = self.exponent() {
            self.at += len;
            plain = false;
            value = value.mul(&Q::int(10).pow(exponent, self.budget)?, self.budget)?;
            has_point = true;
        }
        let significant = whole.trim_start_matches('0').len();
        let digits = if significant > 0 { significant + places } else { fraction.trim_start_matches('0').len() };
        self.push(Tok::Num(Lit {
            value,
            places: (has_point && !exact).then_some(places.min(9999) as u16),
            digits: digits.min(60_000) as u16,
            raw: &self.text[start..self.at],
            plain,
        }));
        Ok(())
    }

    /// `\overline{3}`, `\bar{3}`, `\dot{3}` or `(3)` right after a decimal fraction.
    fn repetend(&mut self) -> Option<&'a str> {
        for (open, close) in [(r"\overline{", '}'), (r"\bar{", '}'), (r"\dot{", '}'), ("(", ')'), (r"\overline ", ' ')]
        {
            if let Some(rest) = self.rest().strip_prefix(open) {
                let n = rest.bytes().take_while(u8::is_ascii_digit).count();
                if n > 0 && n <= 64 && (rest[n..].starts_with(close) || close == ' ') {
                    self.at += open.len() + n + usize::from(close != ' ');
                    return Some(&rest[..n]);
                }
            }
        }
        None
    }

    /// `e-5`, `E10` glued to a number: value and length.
    fn exponent(&self) -> Option<(i64, usize)> {
        if !matches!(self.peek(), b'e' | b'E') {
            return None;
        }
        let sign = usize::from(matches!(self.ahead(1), b'+' | b'-'));
        let digits = self.rest()[1 + sign..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 4 {
            return None;
        }
        let len = 1 + sign + digits;
        if self.ahead(len).is_ascii_alphabetic() {
            return None;
        }
        self.rest()[1..len].parse().ok().map(|e| (e, len))
    }

    fn letters(&mut self) {
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
    fn symbol(&mut self, base: &'a str) {
        self.at += 1;
        self.named(base);
    }

    fn named(&mut self, base: &str) {
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

    fn foreign(&mut self) {
        let rest = self.rest();
        let c = rest.chars().next().unwrap_or(' ');
        if !c.is_alphabetic() {
            self.at += c.len_utf8();
            let mut buffer = [0u8; 4];
            self.unit(c.encode_utf8(&mut buffer));
            return;
        }
        if matches!(c, '或' | '和' | '与' | '及') {
            self.at += c.len_utf8();
            return self.push(if c == '或' { Tok::Or } else { Tok::And });
        }
        let len: usize = rest
            .chars()
            .take_while(|c| c.is_alphabetic() && !matches!(c, '或' | '和' | '与' | '及'))
            .map(char::len_utf8)
            .sum();
        self.at += len;
        self.push(Tok::Word(&rest[..len]));
    }

    fn command(&mut self) {
        self.at += 1;
        let rest = self.rest();
        let len = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        if len == 0 {
            let c = rest.chars().next().unwrap_or(' ');
            self.at += c.len_utf8();
            match c {
                '{' => {
                    self.nesting += 1;
                    self.push(Tok::Open(Delim::Set));
                }
                '}' => {
                    self.nesting = self.nesting.saturating_sub(1);
                    self.push(Tok::Close(Delim::Set));
                }
                '%' => self.push(Tok::Percent),
                '$' => self.unit("$"),
                '\\' => {
                    // An optional `[2pt]` belongs to the line break.
                    if self.peek() == b'['
                        && let Some(end) = self.rest().find(']')
                        && self.rest()[1..end].ends_with("pt")
                    {
                        self.at += end + 1;
                    }
                    self.push(Tok::Row);
                }
                '|' => self.push(Tok::Bar),
                _ => self.space = true,
            }
            return;
        }
        let name = &rest[..len];
        self.at += len;
        if is_text_command(name) {
            while self.peek() == b' ' {
                self.at += 1;
            }
            if self.peek() == b'{' {
                self.at += 1;
                self.text_depth.push(0);
                self.space = true;
            }
            return;
        }
        match name {
            "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl" | "Bigr" | "middle"
            | "biggl" | "biggr" | "Biggl" | "Biggr" => self.sized(name),
            "begin" | "end" => self.environment(name),
            "mathbb" => {
                let (inner, taken) = argument(self.rest());
                self.at += taken;
                let set = match inner.trim() {
                    "R" => Some(Numbers::Reals),
                    "Z" => Some(Numbers::Integers),
                    "N" => Some(Numbers::Naturals),
                    "Q" => Some(Numbers::Rationals),
                    "C" => Some(Numbers::Complex),
                    _ => None,
                };
                match set {
                    Some(set) => self.push(Tok::Atom(Node::Numbers(set))),
                    None => {
                        let sym = self.arena.symbol(inner.trim());
                        self.push(Tok::Sym(sym));
                    }
                }
            }
            "not" => {
                let next = self.rest().trim_start();
                let skip = self.rest().len() - next.len();
                for (mark, rel) in [("=", Rel::Ne), (r"\in", Rel::NotIn)] {
                    if next.starts_with(mark) {
                        self.at += skip + mark.len();
                        return self.push(Tok::Rel(rel));
                    }
                }
            }
            "pmod" | "bmod" | "mod" => {
                self.push(Tok::Mod);
            }
            "hspace" | "vspace" | "phantom" | "label" | "tag" | "color" | "textcolor" => {
                let (_, taken) = argument(self.rest());
                self.at += taken;
                self.space = true;
            }
            _ => match command_token(name) {
                Command::Token(tok) => {
                    match tok {
                        Tok::Open(_) => self.nesting += 1,
                        Tok::Close(_) => self.nesting = self.nesting.saturating_sub(1),
                        _ => {}
                    }
                    self.push(tok);
                }
                Command::Space => self.space = true,
                Command::Name => self.named(name),
            },
        }
    }

    fn sized(&mut self, name: &str) {
        while self.peek() == b' ' {
            self.at += 1;
        }
        let opens = !(name == "right" || name.ends_with('r'));
        if self.peek() == b'.' {
            self.at += 1;
        } else if self.peek() == b'|' || self.rest().starts_with(r"\|") {
            self.at += if self.peek() == b'|' { 1 } else { 2 };
            self.push(match name {
                "middle" => Tok::SuchThat,
                "left" => Tok::Open(Delim::Bar),
                "right" => Tok::Close(Delim::Bar),
                _ if opens => Tok::Bar,
                _ => Tok::Bar,
            });
        }
    }

    fn environment(&mut self, which: &str) {
        let (name, taken) = argument(self.rest());
        self.at += taken;
        let env = match name.trim_end_matches('*') {
            "pmatrix" | "bmatrix" | "Bmatrix" | "matrix" | "smallmatrix" | "array" => Env::Matrix,
            "vmatrix" | "Vmatrix" => Env::Determinant,
            _ => Env::Rows,
        };
        if which == "end" {
            self.nesting = self.nesting.saturating_sub(1);
            return self.push(Tok::End);
        }
        self.nesting += 1;
        if name == "array" && self.rest().trim_start().starts_with('{') {
            let (_, taken) = argument(self.rest());
            self.at += taken;
        }
        self.push(Tok::Begin(env));
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

/// Length of the balanced braces that `text` starts with.
pub fn balanced(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// The braced argument at the start of `text`, and how many bytes it takes.
fn argument(text: &str) -> (&str, usize) {
    let trimmed = text.trim_start();
    let skipped = text.len() - trimmed.len();
    if trimmed.starts_with('{')
        && let Some(end) = balanced(trimmed)
    {
        return (&trimmed[1..end - 1], skipped + end);
    }
    let len = trimmed.chars().next().map_or(0, char::len_utf8);
    (&trimmed[..len], skipped + len)
}

/// Length of `(x)` or `(x, y)` when an equals sign follows: the head of a definition.
fn definition(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('(')?;
    let close = inner.find(')').filter(|&i| i > 0 && i <= 12)?;
    let names = &inner[..close];
    if !names.split(',').all(|n| n.trim().len() == 1 && n.trim().bytes().all(|b| b.is_ascii_lowercase())) {
        return None;
    }
    let after = inner[close + 1..].trim_start();
    (after.starts_with('=') && !after.starts_with("==")).then_some(close + 2)
}

fn decimal(whole: &str, fraction: &str) -> Q {
    let fraction = fraction.trim_end_matches('0');
    if whole.len() + fraction.len() <= 18 {
        let mut n = 0i64;
        for b in whole.bytes().chain(fraction.bytes()) {
            n = n * 10 + i64::from(b - b'0');
        }
        return Q::ratio(n as i128, 10i128.pow(fraction.len() as u32)).unwrap_or(Q::ZERO);
    }
    let digits = [whole, fraction].concat();
    let n = BigInt::parse_bytes(digits.as_bytes(), 10).unwrap_or_default();
    if fraction.is_empty() {
        return Q::from_bigint(n);
    }
    Q::from_big(BigRational::new(n, num_traits::pow(BigInt::from(10), fraction.len())))
}

fn is_text_command(name: &str) -> bool {
    matches!(
        name,
        "text"
            | "mbox"
            | "hbox"
            | "textbf"
            | "textit"
            | "textrm"
            | "textsf"
            | "texttt"
            | "mathrm"
            | "rm"
            | "operatorname"
            | "textnormal"
            | "emph"
            | "mathit"
            | "mathsf"
    )
}

fn keyword<'a>(run: &str) -> Option<Tok<'a>> {
    use Func::*;
    Some(match run {
        "sin" => Tok::Func(Sin),
        "cos" => Tok::Func(Cos),
        "tan" | "tg" => Tok::Func(Tan),
        "cot" | "ctg" => Tok::Func(Cot),
        "sec" => Tok::Func(Sec),
        "csc" | "cosec" => Tok::Func(Csc),
        "arcsin" | "asin" => Tok::Func(Asin),
        "arccos" | "acos" => Tok::Func(Acos),
        "arctan" | "atan" | "arctg" => Tok::Func(Atan),
        "arccot" | "acot" => Tok::Func(Acot),
        "arcsec" => Tok::Func(Asec),
        "arccsc" => Tok::Func(Acsc),
        "sinh" => Tok::Func(Sinh),
        "cosh" => Tok::Func(Cosh),
        "tanh" => Tok::Func(Tanh),
        "coth" => Tok::Func(Coth),
        "arcsinh" | "asinh" | "arsinh" => Tok::Func(Asinh),
        "arccosh" | "acosh" => Tok::Func(Acosh),
        "arctanh" | "atanh" | "artanh" => Tok::Func(Atanh),
        "exp" => Tok::Func(Exp),
        "ln" => Tok::Func(Ln),
        "log" => Tok::Log,
        "lg" => Tok::Func(Log10),
        "abs" => Tok::Func(Abs),
        "floor" => Tok::Func(Floor),
        "ceil" => Tok::Func(Ceil),
        "sgn" | "sign" => Tok::Func(Sign),
        "conj" => Tok::Func(Conj),
        "arg" => Tok::Func(Arg),
        "gcd" => Tok::Func2(Func2::Gcd),
        "lcm" => Tok::Func2(Func2::Lcm),
        "binom" | "binomial" => Tok::Func2(Func2::Binomial),
        "sqrt" => Tok::Sqrt,
        "pi" | "Pi" => Tok::Atom(Node::Pi),
        "infty" | "infinity" | "inf" | "oo" | "Infinity" => Tok::Atom(Node::Infinity),
        "or" | "ou" | "oder" => Tok::Or,
        "and" | "et" | "und" => Tok::And,
        "mod" => Tok::Mod,
        "union" => Tok::Cup,
        "deg" | "degree" | "degrees" => Tok::Degree,
        "percent" => Tok::Percent,
        "per" => Tok::Div,
        "is" | "equals" => Tok::Rel(Rel::Eq),
        _ => return None,
    })
}

enum Command<'a> {
    Token(Tok<'a>),
    Space,
    Name,
}

fn command_token<'a>(name: &str) -> Command<'a> {
    let token = match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" => Tok::Frac,
        "sqrt" => Tok::Sqrt,
        "binom" | "dbinom" | "tbinom" => Tok::Binom,
        "choose" => Tok::Choose,
        "pi" => Tok::Atom(Node::Pi),
        "infty" => Tok::Atom(Node::Infinity),
        "emptyset" | "varnothing" => Tok::Atom(Node::Numbers(Numbers::Empty)),
        "cdot" | "times" | "ast" | "bullet" => Tok::Times,
        "div" => Tok::Div,
        "pm" => Tok::PlusMinus(true),
        "mp" => Tok::PlusMinus(false),
        "le" | "leq" | "leqslant" | "leqq" => Tok::Rel(Rel::Le),
        "ge" | "geq" | "geqslant" | "geqq" => Tok::Rel(Rel::Ge),
        "lt" => Tok::Rel(Rel::Lt),
        "gt" => Tok::Rel(Rel::Gt),
        "ne" | "neq" => Tok::Rel(Rel::Ne),
        "approx" | "simeq" | "doteq" => Tok::Rel(Rel::Approx),
        "equiv" => Tok::Rel(Rel::Other(2)),
        "cong" => Tok::Rel(Rel::Other(3)),
        "sim" => Tok::Rel(Rel::Other(4)),
        "perp" => Tok::Rel(Rel::Other(5)),
        "parallel" => Tok::Rel(Rel::Other(6)),
        "propto" => Tok::Rel(Rel::Other(7)),
        "to" | "rightarrow" | "implies" | "Rightarrow" | "longrightarrow" | "mapsto" => Tok::Rel(Rel::Other(1)),
        "iff" | "Leftrightarrow" | "leftrightarrow" => Tok::Rel(Rel::Other(8)),
        "in" => Tok::Rel(Rel::In),
        "notin" => Tok::Rel(Rel::NotIn),
        "subset" | "subseteq" => Tok::Rel(Rel::Subset),
        "cup" | "bigcup" => Tok::Cup,
        "cap" | "bigcap" => Tok::Cap,
        "setminus" | "backslash" => Tok::SetMinus,
        "lfloor" => Tok::Open(Delim::Floor),
        "rfloor" => Tok::Close(Delim::Floor),
        "lceil" => Tok::Open(Delim::Ceil),
        "rceil" => Tok::Close(Delim::Ceil),
        "langle" => Tok::Open(Delim::Angle),
        "rangle" => Tok::Close(Delim::Angle),
        "lbrace" => Tok::Open(Delim::Set),
        "rbrace" => Tok::Close(Delim::Set),
        "lbrack" => Tok::Open(Delim::Bracket),
        "rbrack" => Tok::Close(Delim::Bracket),
        "lvert" => Tok::Open(Delim::Bar),
        "rvert" => Tok::Close(Delim::Bar),
        "vert" => Tok::Bar,
        "mid" => Tok::SuchThat,
        "degree" | "circ" => Tok::Degree,
        "percent" => Tok::Percent,
        "prime" => Tok::Prime,
        "sum" => Tok::Series(false),
        "prod" => Tok::Series(true),
        "lor" | "vee" => Tok::Or,
        "land" | "wedge" => Tok::And,
        "dots" | "ldots" | "cdots" | "dotsc" | "dotsb" | "vdots" => Tok::Dots,
        "max" => Tok::Func2(Func2::Max),
        "min" => Tok::Func2(Func2::Min),
        "Re" => Tok::Func(Func::Re),
        "Im" => Tok::Func(Func::Im),
        "cr" | "newline" => Tok::Row,
        "overline" | "bar" | "vec" | "overrightarrow" | "hat" | "widehat" | "tilde" | "mathbf" | "boldsymbol"
        | "bm" | "mathcal" | "underline" | "boxed" | "fbox" | "mathfrak" | "pmb" | "dot" | "ddot" | "overset"
        | "bold" => Tok::Transparent,
        "quad" | "qquad" | "displaystyle" | "textstyle" | "limits" | "nolimits" | "hfill" | "hline" | "normalsize"
        | "large" | "Large" | "small" | "bf" | "it" | "thinspace" | "colon" | "par" | "nonumber" | "notag" | "null"
        | "therefore" | "because" | "allowbreak" | "nobreak" | "space" | "thickspace" | "medspace" | "negthinspace" => {
            return Command::Space;
        }
        _ => match keyword(name) {
            Some(tok) => tok,
            None => return Command::Name,
        },
    };
    Command::Token(token)
}
