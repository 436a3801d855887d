//! LaTeX and plain text to tokens, in one pass from left to right.

mod command;
mod letters;
mod named;
mod numeral;
mod token;
mod words;

pub use self::command::balanced;
pub use self::named::{is_operator, is_unknown};
pub use self::token::{Commas, Delim, Env, Gap, Lexed, Lit, Tok, Token};
pub use self::words::{is_command, wants_more};
use super::ast::{Arena, Node, Rel};
use super::budget::{Budget, Stop};
use super::units;

/// Longest numeral read as a number, in digits.
pub const MAX_DIGITS: usize = 20_000;

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
        gap: Gap::None,
        nesting: 0,
        text_depth: Vec::new(),
        bar: None,
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
    gap: Gap,
    /// Open round, square and set brackets: inside them commas separate.
    nesting: u32,
    /// Brace depth inside each open `\text{…}`.
    text_depth: Vec<u32>,
    /// A plain bar is open, and whether it was a double one.
    bar: Option<bool>,
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
        self.out.tokens.push(Token { tok, space: self.space, gap: self.gap });
        (self.space, self.gap) = (false, Gap::None);
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
                    if b == b'\n' {
                        self.gap = self.gap.max(Gap::Line);
                    }
                    self.at += 1;
                    self.space = true;
                }
                b'0'..=b'9' | b'A'..=b'F' if self.lettered().is_some() => {
                    if let Some((value, len)) = self.lettered() {
                        self.at += len;
                        self.push(Tok::Atom(Node::Num(value)));
                    }
                }
                b'0'..=b'9' => self.number()?,
                b'.' => self.dot()?,
                b'a'..=b'z' | b'A'..=b'Z' => self.letters(),
                b'\\' => self.command(),
                b'{' if self.rest().starts_with("{:}") => {
                    self.at += 3;
                    self.push(Tok::Colon);
                }
                b'{' if self.rest().starts_with("{}") && self.prescript(2)? => {}
                b'_' | b'^' if self.begins() && self.prescript(0)? => {}
                b'{' if self.braced_unit() => {}
                b'{' => self.open_brace(),
                b'}' => self.close_brace(),
                b'(' => self.open(Delim::Paren),
                b')' => self.close(Delim::Paren),
                b'[' => self.open(Delim::Bracket),
                b']' => self.close(Delim::Bracket),
                b'+' if self.rest().starts_with("+/-") => {
                    self.at += 3;
                    self.push(Tok::PlusMinus(true));
                }
                b'+' => self.single(Tok::Plus),
                b'-' if self.ahead(1) == b'>' => {
                    self.at += 2;
                    self.push(Tok::Rel(Rel::Arrow));
                }
                b'-' => self.single(Tok::Minus),
                b'*' if self.ahead(1) == b'*' => self.two_stars(),
                b'*' => self.single(Tok::Times),
                b'/' if self.closes_rupees() => self.at += 2,
                b'/' => self.single(Tok::Div),
                b'^' => self.caret(),
                b'_' => self.single(Tok::Under),
                b'!' if self.ahead(1) == b'=' && !self.ends_factorial() => {
                    self.at += 2;
                    self.push(Tok::Rel(Rel::Ne));
                }
                b'!' => self.single(Tok::Bang),
                b'%' => self.single(Tok::Percent),
                b'\'' => self.single(Tok::Prime),
                b',' => self.single(Tok::Comma),
                b';' => self.single(Tok::Semi),
                b':' => self.single(Tok::Colon),
                b'|' => self.plain_bar(),
                b'=' | b'<' | b'>' => self.relation(),
                b'&' => self.single(Tok::Amp),
                b'$' => self.dollar(),
                // 12°34'56" and 5'7".
                b'"' if matches!(
                    self.out.tokens[..],
                    [.., Token { tok: Tok::Prime, .. }, Token { tok: Tok::Num(_), .. }]
                ) =>
                {
                    self.at += 1;
                    self.push(Tok::Prime);
                    self.push(Tok::Prime);
                }
                b'"' | b'`' | b'?' => {
                    self.at += 1;
                    self.space = true;
                }
                b'#' | b'@' => {
                    let sign = &self.rest()[..1];
                    self.at += 1;
                    self.sign(sign);
                }
                _ if b < 0x80 => {
                    self.at += 1;
                }
                _ => self.foreign(),
            }
        }
        Ok(())
    }

    fn open(&mut self, delim: Delim) {
        self.nesting += 1;
        self.single(Tok::Open(delim));
    }

    fn close(&mut self, delim: Delim) {
        self.nesting = self.nesting.saturating_sub(1);
        self.single(Tok::Close(delim));
    }

    fn open_brace(&mut self) {
        self.at += 1;
        match self.text_depth.last_mut() {
            Some(depth) => *depth += 1,
            None => self.push(Tok::Open(Delim::Group)),
        }
    }

    fn close_brace(&mut self) {
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

    /// Power, or Markdown bold around the whole.
    fn two_stars(&mut self) {
        self.at += 2;
        let bold = self.out.tokens.is_empty() || self.rest().trim().is_empty();
        if !bold {
            self.push(Tok::Caret);
        }
    }

    /// `||x||` is a norm, and in `|x||y|` one bar closes and one opens.
    fn plain_bar(&mut self) {
        let double = self.ahead(1) == b'|' && self.bar != Some(false);
        self.bar = if self.bar.is_some() { None } else { Some(double) };
        self.at += if double { 2 } else { 1 };
        self.push(Tok::Bar);
    }

    /// The end of a formula, or money.
    fn dollar(&mut self) {
        // `$ $`: one formula ends, another begins.
        if self.text[..self.at].trim_end().ends_with('$') {
            self.gap = self.gap.max(Gap::Line);
        }
        self.at += 1;
        let money = self.dollars % 2 == 1 && matches!(self.peek(), b'0'..=b'9' | b' ' | b'.');
        if money {
            self.unit("$");
        }
        self.space = true;
    }

    /// No operand stands before: what comes is the first of an item, an argument or a side.
    fn begins(&self) -> bool {
        use Tok::*;
        let operand = |tok: &Tok<'_>| {
            matches!(tok, Num(_) | Sym(_) | Run(_) | Word(_) | Atom(_) | Func(_) | Log | Func2(_) | Close(_) | Bar)
                || matches!(tok, Bang | Percent | Degree | Prime | End | Frac | Sqrt | Binom | Series(_) | Dots)
                || matches!(tok, Under | Caret | Transparent | Not | Choose | Over)
        };
        self.out.tokens.last().is_none_or(|last| !operand(&last.tok))
    }

    /// "x != 5" and "x_2!=5", but in 5!=120 and (3!)!=720 the mark is a factorial.
    fn ends_factorial(&self) -> bool {
        let before = &self.text[..self.at];
        let number = before.trim_end_matches(|c: char| c.is_ascii_digit());
        before.ends_with(')') || (number.len() < before.len() && !number.ends_with('_'))
    }

    /// A sign that is not known: between two operands an operation; before or behind all a mark that says nothing.
    fn sign(&mut self, sign: &str) {
        let worded = match self.out.tokens.last().map(|t| &t.tok) {
            Some(Tok::Run(run)) => run.len() > 3,
            Some(Tok::Word(_)) => true,
            _ => !self.text_depth.is_empty(),
        };
        self.space = true;
        if !worded && !self.begins() && !self.rest().trim_matches([' ', '}', '$', '.']).is_empty() {
            let sym = self.arena.symbol(sign);
            self.push(Tok::Sym(sym));
        }
    }

    /// "Rs. 500/-": the stroke says that no paise follow.
    fn closes_rupees(&self) -> bool {
        let rupees = |t: &Token<'_>| matches!(t.tok, Tok::Atom(Node::Unit(unit)) if units::is_named(unit, "₹"));
        self.ahead(1) == b'-' && self.rest()[2..].trim().is_empty() && self.out.tokens.first().is_some_and(rupees)
    }

    fn unit(&mut self, name: &str) {
        if let Some(unit) = units::find(name) {
            self.push(Tok::Atom(Node::Unit(unit)));
        }
    }

    fn relation(&mut self) {
        let (rel, len) = match (self.peek(), self.ahead(1), self.ahead(2)) {
            (b'=', b'=', b'>') => (Rel::Arrow, 3),
            (b'=', b'=', _) => (Rel::Eq, 2),
            (b'=', b'>', _) => (Rel::Arrow, 2),
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
        for mark in [r"{\prime \prime}", r"{\prime\prime}", r"{''}"] {
            if rest.starts_with(mark) {
                self.at += skipped + mark.len();
                self.push(Tok::Prime);
                return self.push(Tok::Prime);
            }
        }
        // The T of a transpose, upright.
        for mark in [
            r"{\mathsf{T}}",
            r"{\mathrm{T}}",
            r"{\text{T}}",
            r"{\mathsf T}",
            r"{\mathrm T}",
            r"{\rm T}",
            r"\mathsf{T}",
            r"\mathrm{T}",
        ] {
            if rest.starts_with(mark) {
                self.at += skipped + mark.len();
                self.push(Tok::Caret);
                return self.named("T");
            }
        }
        for (mark, tok) in [
            (r"{\circ}", Tok::Degree),
            (r"{\prime}", Tok::Prime),
            (r"{'}", Tok::Prime),
            (r"{ \circ }", Tok::Degree),
            (r"{\degree}", Tok::Degree),
            (r"\degree", Tok::Degree),
            (r"{\text{o}}", Tok::Degree),
            (r"{\mathrm{o}}", Tok::Degree),
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
        // `.\overline{6}` is 2/3.
        let repeats = [r".\overline{", r".\bar{", r".\dot{"].iter().any(|open| {
            self.rest().strip_prefix(open).is_some_and(|inside| inside.starts_with(|c: char| c.is_ascii_digit()))
        });
        if self.ahead(1).is_ascii_digit() || repeats {
            return self.number();
        }
        let dots = self.rest().bytes().take_while(|&b| b == b'.').count();
        let formula = self.text[..self.at].ends_with('$');
        self.at += dots;
        // "The solution is $v$. A basis is $w$": two statements.
        let next = self.rest().strip_prefix(' ').filter(|next| next.starts_with(|c: char| c.is_ascii_uppercase()));
        if dots >= 2 {
            self.push(Tok::Dots);
        } else if formula && next.is_some_and(|next| next.contains(" is $")) {
            self.push(Tok::Comma);
        } else {
            self.space = true;
        }
        Ok(())
    }
}
