//! LaTeX and plain text to tokens, in one pass from left to right.

mod numeral;
mod words;

use self::words::{Command, command_token, is_text_command, keyword};
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
