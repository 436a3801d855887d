//! What the parser keeps on its stacks: operators with their precedence, and frames of open brackets and arguments.

use super::super::ast::{Func, Func2, Id, Sym};
use super::super::lex::{Delim, Env};

/// What closes a frame, and so what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Root,
    Delim(Delim),
    /// `|…|` opened by a plain bar.
    Bar,
    /// `]a, b[`.
    Reversed,
    Env(Env),
    /// One operand without braces, as in `\sqrt\frac12`.
    Single,
}

/// What an argument, once read, is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    FracTop,
    FracBottom(Id),
    SqrtIndex,
    Sqrt(Option<Id>),
    BinomTop,
    BinomBottom(Id),
    FuncPower(Callee),
    LogBase,
    FuncArgs(Func2),
    /// The argument of a function that only has a name.
    Apply(Id),
    SeriesLower(bool),
    SeriesUpper {
        product: bool,
        var: Sym,
        lo: Id,
    },
    Transparent,
    Base(Id),
    /// Of an evaluation bar: the body, and the lower bound once it is read.
    Lower(Id),
    Upper(Id, Id),
}

/// A function whose argument is still to come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Callee {
    Func(Func),
    Log(Option<Id>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// `∨` (true) and `∧` between statements.
    Logic(bool),
    Not,
    Colon,
    Union,
    Intersection,
    Difference,
    Add,
    Sub,
    /// `n \choose k`.
    Choose,
    /// `a \over b`.
    Over,
    PlusMinus(bool),
    Mul,
    /// `×` between vectors.
    Cross,
    /// Juxtaposition inside a function's argument: binds tighter than the function.
    TightMul,
    Div,
    Mod,
    Neg,
    PrefixPlusMinus(bool),
    /// A function, the power it is raised to, and whether its argument was bracketed.
    Call {
        callee: Callee,
        power: Option<Id>,
        closed: bool,
    },
    Series {
        product: bool,
        var: Sym,
        lo: Id,
        hi: Id,
    },
    Pow,
}

impl Op {
    pub(super) fn precedence(self) -> u8 {
        match self {
            Op::Logic(or) => 5 - u8::from(or),
            Op::Colon => 8,
            Op::Union | Op::Intersection | Op::Difference => 10,
            Op::Choose | Op::Over => 15,
            Op::Add | Op::Sub | Op::PlusMinus(_) => 20,
            Op::Series { .. } => 25,
            Op::Mul | Op::Div | Op::Mod => 30,
            Op::Neg | Op::Not | Op::PrefixPlusMinus(_) => 35,
            // −2a × b is −2 times the product of the vectors.
            Op::Cross => 36,
            Op::Call { .. } => 40,
            Op::TightMul => 45,
            Op::Pow => 50,
        }
    }
}

/// What separates items in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sep {
    Comma,
    Semi,
    And,
    Or,
    SuchThat,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) arg: Option<Arg>,
    pub(super) ops: usize,
    pub(super) values: usize,
    pub(super) items: usize,
    pub(super) seps: usize,
    pub(super) chain: usize,
    pub(super) rels: usize,
    pub(super) rows: usize,
    /// An operand must come next.
    pub(super) expect: bool,
}
