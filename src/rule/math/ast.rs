//! The parsed answer: nodes in one arena, children always before their parent.
//!
//! Two invariants make everything after the parser a plain loop: a child's id is
//! smaller than its parent's, and the subtree of a node is the contiguous range
//! `first(node)..=node`. So evaluation is one pass over a range, whatever the
//! nesting, and no code recurses on the depth of the input.

use super::budget::Stop;
use super::number::Q;

/// Index of a node in its [`Arena`].
pub type Id = u32;

/// Nodes an answer may have; a larger one is refused as over budget.
pub const MAX_NODES: usize = 60_000;
/// How deep tuples, sets, relations and lists may nest.
pub const MAX_STRUCTURE: u8 = 12;

/// A run of child ids in [`Arena::kids`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    start: u32,
    len: u32,
}

/// A symbol's identity: the hash of its name, equal across arenas.
pub type Sym = u64;

/// Functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Func {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Acot,
    Asec,
    Acsc,
    Sinh,
    Cosh,
    Tanh,
    Coth,
    Asinh,
    Acosh,
    Atanh,
    Exp,
    Ln,
    Log10,
    Abs,
    Floor,
    Ceil,
    Sign,
    Re,
    Im,
    Conj,
    Arg,
    Factorial,
    DoubleFactorial,
}

/// Functions of two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Func2 {
    /// Logarithm of the second to the base of the first.
    Log,
    Binomial,
    /// k-permutations of n.
    Permutations,
    Mod,
    Gcd,
    Lcm,
    Max,
    Min,
    /// The real root: index, radicand.
    Root,
    /// A function that only has a name, and its argument: `f(2x)`.
    Apply,
    /// `×` between vectors: it changes its sign when they change places.
    Cross,
}

/// How two sides of a relation compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rel {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Approx,
    In,
    NotIn,
    Subset,
    Superset,
    /// `→` and `⇒`: maps to, implies.
    Arrow,
    /// `≡`.
    Congruent,
    /// `≅`, of figures.
    CongruentShape,
    Similar,
    Perpendicular,
    Parallel,
    Proportional,
    Iff,
    ProperSubset,
    NotSubset,
    NotCongruent,
}

impl Rel {
    /// The relation read from right to left.
    pub fn flipped(self) -> Rel {
        match self {
            Rel::Lt => Rel::Gt,
            Rel::Le => Rel::Ge,
            Rel::Gt => Rel::Lt,
            Rel::Ge => Rel::Le,
            Rel::Subset => Rel::Superset,
            Rel::Superset => Rel::Subset,
            other => other,
        }
    }

    pub fn is_order(self) -> bool {
        matches!(self, Rel::Lt | Rel::Le | Rel::Gt | Rel::Ge)
    }

    /// Whether its sides may not change places, and no other relation here says the same of them turned round.
    pub fn has_direction(self) -> bool {
        matches!(self, Rel::In | Rel::NotIn | Rel::Arrow | Rel::ProperSubset | Rel::NotSubset)
    }
}

/// A physical or monetary unit: `scale` times the product of base units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// Index in the table of units, see `units.rs`.
    pub index: u16,
    /// The power of ten of a prefix that the table's name does not have.
    pub ten: i8,
}

/// Which named set of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numbers {
    Naturals,
    Integers,
    Rationals,
    Reals,
    Complex,
    Empty,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// An exact number.
    Num(Q),
    /// A decimal literal with its digits after the point and its significant digits.
    Decimal {
        value: Q,
        places: u16,
        digits: u16,
    },
    Sym(Sym),
    Pi,
    Euler,
    Imaginary,
    Infinity,
    Neg(Id),
    Add(Id, Id),
    Sub(Id, Id),
    Mul(Id, Id),
    Div(Id, Id),
    Pow(Id, Id),
    /// `±x` (true) or `∓x`.
    PlusMinus(Id, bool),
    Call(Func, Id),
    Call2(Func2, Id, Id),
    Percent(Id),
    Degree(Id),
    Unit(Unit),
    /// A word that says what is counted ("apples"): no part of the value.
    Label(Sym),
    /// A numeral with its base: value, the digits as read in base ten, base.
    Based {
        value: Q,
        digits: Q,
        base: u8,
    },
    /// A finite sum (or product) over an integer variable: lower, upper, body.
    Series {
        product: bool,
        var: Sym,
        lo: Id,
        hi: Id,
        body: Id,
    },
    /// `(a, b, …)`: point, tuple or open interval.
    Tuple(List),
    /// An interval with at least one square bracket, or one that can only be an interval.
    Interval {
        lo: Id,
        hi: Id,
        closed: (bool, bool),
    },
    Set(List),
    /// Values side by side with commas, and, or.
    List(List),
    Union(Id, Id),
    Intersection(Id, Id),
    Difference(Id, Id),
    /// `{x | condition}`; the variable's own expression and the condition.
    SetOf(Id, Id),
    Numbers(Numbers),
    /// Row-major entries.
    Matrix {
        rows: u16,
        cols: u16,
        entries: List,
    },
    /// `a < b ≤ c`: operands, and the relations between them in [`Arena::rels`] from `rels` on.
    Chain {
        operands: List,
        rels: u32,
    },
    /// All hold (a system), or the values of several names.
    All(List),
    /// `a : b : c`; with the time of day if it was said.
    Colon {
        parts: List,
        meridiem: Option<bool>,
    },
    /// Words, normalised; index in [`Arena::texts`].
    Text(u32),
    /// A row of a piecewise function: a value and when it holds.
    Case(Id, Id),
    /// Something that stands for "and so on".
    Dots,
}

/// The nodes of one parsed answer.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    nodes: Vec<Node>,
    first: Vec<Id>,
    depth: Vec<u8>,
    kids: Vec<Id>,
    pub rels: Vec<Rel>,
    pub texts: Vec<String>,
    /// Calls of `\log` without a base.
    pub logs: Vec<Id>,
    /// Names of the symbols met, in order of first appearance.
    pub names: Vec<(Sym, String)>,
}

impl Arena {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.first.clear();
        self.depth.clear();
        self.kids.clear();
        self.rels.clear();
        self.texts.clear();
        self.names.clear();
        self.logs.clear();
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// Smallest id in the subtree of `id`: the subtree is `first(id)..=id`.
    pub fn first(&self, id: Id) -> Id {
        self.first[id as usize]
    }

    pub fn subtree(&self, id: Id) -> &[Node] {
        &self.nodes[self.first(id) as usize..=id as usize]
    }

    pub fn list(&self, list: List) -> &[Id] {
        &self.kids[list.start as usize..(list.start + list.len) as usize]
    }

    /// Makes a node that is no longer part of the expression a harmless leaf: it still lies in its
    /// parent's range.
    pub fn retire(&mut self, id: Id) {
        self.nodes[id as usize] = Node::Num(Q::ZERO);
    }

    /// Reads each `\log` without a base as one to the base ten.
    pub fn logs_to_base_ten(&mut self) {
        for &id in &self.logs {
            if let Node::Call(Func::Ln, arg) = self.nodes[id as usize] {
                self.nodes[id as usize] = Node::Call(Func::Log10, arg);
            }
        }
    }

    /// Reads each value of a function that `head` names as a product, `h(a + 2)` as h times the sum; false if there
    /// was none.
    pub fn calls_to_products(&mut self, head: impl Fn(Sym) -> bool) -> bool {
        let mut changed = false;
        for id in 0..self.nodes.len() {
            if let Node::Call2(Func2::Apply, function, argument) = self.nodes[id]
                && let Node::Sym(sym) = self.nodes[function as usize]
                && head(sym)
            {
                self.nodes[id] = Node::Mul(function, argument);
                changed = true;
            }
        }
        changed
    }

    /// A copy of a value with another value in each place of a symbol.
    ///
    /// # Errors
    /// A value that holds other ones side by side, and too many nodes.
    pub fn substituted(&mut self, id: Id, sym: Sym, value: Id) -> Result<Id, Stop> {
        let first = self.first(id);
        let mut copies: Vec<Id> = Vec::with_capacity((id - first + 1) as usize);
        for old in first..=id {
            let copy = match self.nodes[old as usize] {
                Node::Sym(other) if other == sym && value != id => self.substituted(value, sym, value)?,
                ref node => {
                    let node = node.with_children(|child| copies[(child - first) as usize]).ok_or(Stop::Unsupported)?;
                    self.push(node)?
                }
            };
            copies.push(copy);
        }
        Ok(copies[copies.len() - 1])
    }

    /// Reads a leaf as another one.
    pub fn set_leaf(&mut self, id: Id, leaf: Node) {
        self.nodes[id as usize] = leaf;
    }

    /// Stores child ids.
    pub fn make_list(&mut self, ids: &[Id]) -> List {
        let start = self.kids.len() as u32;
        self.kids.extend_from_slice(ids);
        List { start, len: ids.len() as u32 }
    }

    /// Adds a node; its children must already be here.
    pub fn push(&mut self, node: Node) -> Result<Id, Stop> {
        let id = self.nodes.len();
        if id >= MAX_NODES {
            return Err(Stop::Budget);
        }
        let mut first = id as Id;
        let mut depth = 0u8;
        self.for_children(&node, |child| {
            first = first.min(self.first[child as usize]);
            depth = depth.max(self.depth[child as usize]);
        });
        if node.is_structure() {
            depth += 1;
            if depth > MAX_STRUCTURE {
                return Err(Stop::Budget);
            }
        }
        self.nodes.push(node);
        self.first.push(first);
        self.depth.push(depth);
        Ok(id as Id)
    }

    /// Calls `f` on each child.
    pub fn for_children(&self, node: &Node, mut f: impl FnMut(Id)) {
        match *node {
            Node::Neg(a) | Node::PlusMinus(a, _) | Node::Call(_, a) | Node::Percent(a) | Node::Degree(a) => f(a),
            Node::Add(a, b)
            | Node::Sub(a, b)
            | Node::Mul(a, b)
            | Node::Div(a, b)
            | Node::Pow(a, b)
            | Node::Call2(_, a, b)
            | Node::Union(a, b)
            | Node::Intersection(a, b)
            | Node::Difference(a, b)
            | Node::SetOf(a, b)
            | Node::Case(a, b)
            | Node::Interval { lo: a, hi: b, .. } => {
                f(a);
                f(b);
            }
            Node::Series { lo, hi, body, .. } => {
                f(lo);
                f(hi);
                f(body);
            }
            Node::Tuple(list)
            | Node::Set(list)
            | Node::List(list)
            | Node::All(list)
            | Node::Matrix { entries: list, .. }
            | Node::Chain { operands: list, .. }
            | Node::Colon { parts: list, .. } => self.list(list).iter().for_each(|&id| f(id)),
            _ => {}
        }
    }

    /// The relations of a chain of so many operands.
    pub fn chain_rels(&self, rels: u32, operands: usize) -> &[Rel] {
        &self.rels[rels as usize..rels as usize + operands.saturating_sub(1)]
    }

    /// Interns a symbol.
    pub fn symbol(&mut self, name: &str) -> Sym {
        let sym = hash_name(name);
        if !self.names.iter().any(|(s, _)| *s == sym) && self.names.len() < 64 {
            self.names.push((sym, name.to_string()));
        }
        sym
    }

    /// The name of a symbol.
    pub fn name(&self, sym: Sym) -> &str {
        self.names.iter().find(|(s, _)| *s == sym).map_or("?", |(_, name)| name)
    }

    pub fn text(&mut self, text: String) -> Result<Id, Stop> {
        self.texts.push(text);
        self.push(Node::Text(self.texts.len() as u32 - 1))
    }

    /// True if a node of the subtree satisfies `test`.
    pub fn any(&self, id: Id, test: impl FnMut(&Node) -> bool) -> bool {
        self.subtree(id).iter().any(test)
    }

    /// True if the subtree is a value that evaluation can yield: no sets, words or relations.
    pub fn is_scalar(&self, id: Id) -> bool {
        !self.any(id, |n| n.is_structure() || matches!(n, Node::Text(_) | Node::Dots | Node::Numbers(_)))
    }
}

impl Node {
    /// The same operation on other operands; `None` for what is no plain operation.
    fn with_children(&self, of: impl Fn(Id) -> Id) -> Option<Node> {
        Some(match *self {
            Node::Neg(a) => Node::Neg(of(a)),
            Node::Add(a, b) => Node::Add(of(a), of(b)),
            Node::Sub(a, b) => Node::Sub(of(a), of(b)),
            Node::Mul(a, b) => Node::Mul(of(a), of(b)),
            Node::Div(a, b) => Node::Div(of(a), of(b)),
            Node::Pow(a, b) => Node::Pow(of(a), of(b)),
            Node::Call(func, a) => Node::Call(func, of(a)),
            Node::Call2(func, a, b) => Node::Call2(func, of(a), of(b)),
            Node::Num(_) | Node::Decimal { .. } | Node::Sym(_) | Node::Infinity => self.clone(),
            Node::Pi | Node::Euler | Node::Imaginary => self.clone(),
            _ => return None,
        })
    }

    /// True for nodes that hold values side by side instead of computing one.
    pub fn is_structure(&self) -> bool {
        matches!(
            self,
            Node::Tuple(_)
                | Node::Interval { .. }
                | Node::Set(_)
                | Node::List(_)
                | Node::Union(..)
                | Node::Intersection(..)
                | Node::Difference(..)
                | Node::SetOf(..)
                | Node::Case(..)
                | Node::Matrix { .. }
                | Node::Chain { .. }
                | Node::All(_)
                | Node::Colon { .. }
        )
    }
}

/// FNV-1a: a symbol's identity does not depend on where it was met.
pub fn hash_name(name: &str) -> Sym {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}
