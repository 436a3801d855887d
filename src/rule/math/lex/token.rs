//! Tokens: what the lexer hands to the parser.

use super::super::ast::{Func, Func2, Node, Rel, Sym};
use super::super::number::Q;

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
    /// `\left.` up to the bar at which a formula is evaluated.
    Evaluated,
}

/// What `\begin{…}` opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Env {
    Matrix,
    Determinant,
    /// Rows of statements: align.
    Rows,
    /// Rows of a value and its condition, or of statements.
    Cases,
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
    /// `\times` between two vectors.
    Cross,
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
    /// `∨` (true) and `∧`: between statements, or between values as "or" and "and".
    Logic(bool),
    Not,
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
    /// `a \over b`: infix too.
    Over,
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

/// A token and what came before it.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    pub tok: Tok<'a>,
    pub space: bool,
    pub gap: Gap,
}

/// Wider than a blank: what may part two statements that no comma parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    #[default]
    None,
    /// A line break, or one formula's end and the next one's beginning.
    Line,
    /// `\quad`.
    Quad,
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
