//! Tokens to an exact expression, with explicit stacks: no input nests deeper than memory.
//!
//! An operator-precedence parser with one frame per open bracket, brace, bar,
//! matrix or command argument. A frame keeps where its operators, values and
//! finished items begin on the shared stacks.

mod apply;
mod argument;
mod bounds;
mod cases;
mod close;
mod frame;
mod matrix;
mod operand;
mod postfix;
mod relation;
mod statement;
mod word;

pub use self::cases::OTHERWISE;
use self::frame::{Arg, Callee, Frame, Kind, Op, Sep};
use super::ast::{Arena, Func, Func2, Id, Node, Rel};
use super::budget::{Budget, Stop};
use super::lex::{self, Commas, Env, Lexed, Tok, Token};
use super::number::Q;

/// Why a text is not read as mathematics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not a well-formed expression.
    Syntax,
    /// Words around mathematics: to be compared as text.
    Prose,
    /// Too large.
    Budget,
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Budget => Fault::Budget,
            Stop::Undefined | Stop::Unsupported => Fault::Syntax,
        }
    }
}

/// A reading of one text.
#[derive(Debug)]
pub struct Parsed {
    pub root: Id,
    /// Another reading of its commas is possible.
    pub ambiguous_comma: bool,
}

/// Parses cleaned text into `arena`.
pub fn parse(text: &str, commas: Commas, arena: &mut Arena, budget: &mut Budget) -> Result<Parsed, Fault> {
    let Lexed { tokens, ambiguous_comma } = lex::lex(text, commas, arena, budget)?;
    budget.charge(tokens.len() as u64 * 8)?;
    let variables = tokens.iter().enumerate().any(|(i, t)| {
        // km/h; the x of "x = 5 cm" is only a name.
        let below = i > 0 && tokens[i - 1].tok == Tok::Div;
        let name = i == 0 && matches!(tokens.get(1).map(|t| &t.tok), Some(Tok::Rel(Rel::Eq | Rel::Approx)));
        matches!(t.tok, Tok::Sym(_)) && !below && !name
    });
    let worded = tokens.iter().any(|t| matches!(t.tok, Tok::Word(word) | Tok::Run(word) if word.len() > 3));
    let matrices = tokens.iter().any(|t| t.tok == Tok::Begin(Env::Matrix));
    let mut parser = Parser {
        tokens,
        variables,
        worded,
        matrices,
        at: 0,
        arena,
        budget,
        frames: Vec::with_capacity(8),
        ops: Vec::with_capacity(8),
        values: Vec::with_capacity(8),
        items: Vec::new(),
        seps: Vec::new(),
        chain: Vec::new(),
        chain_rels: Vec::new(),
        row_ends: Vec::new(),
        labels_until: 0,
        condition_from: None,
        prose: false,
    };
    let root = parser.run()?;
    if parser.prose {
        return Err(Fault::Prose);
    }
    Ok(Parsed { root, ambiguous_comma })
}

struct Parser<'a, 'b> {
    tokens: Vec<Token<'a>>,
    at: usize,
    arena: &'b mut Arena,
    budget: &'b mut Budget,
    frames: Vec<Frame>,
    ops: Vec<Op>,
    values: Vec<Id>,
    items: Vec<Id>,
    seps: Vec<Sep>,
    chain: Vec<Id>,
    chain_rels: Vec<Rel>,
    row_ends: Vec<usize>,
    /// Up to this token stand only words and punctuation.
    labels_until: usize,
    /// The item that is the condition of the one before it.
    condition_from: Option<usize>,
    prose: bool,
    /// Letters stand for variables somewhere: `nm` is then n times m, not a unit.
    variables: bool,
    /// There are words of more than three letters.
    worded: bool,
    /// There are matrices.
    matrices: bool,
}

impl<'a> Parser<'a, '_> {
    fn run(&mut self) -> Result<Id, Fault> {
        self.open(Kind::Root, None);
        while let Some(token) = self.tokens.get(self.at) {
            let token = token.clone();
            self.at += 1;
            if self.parts_statements(&token) {
                self.separator(Sep::Comma)?;
            }
            self.step(token)?;
        }
        // What was left open ends with the text.
        while self.frames.len() > 1 {
            self.close_top(None)?;
        }
        self.end_item()?;
        let frame = self.frames[0];
        self.items_node(frame)
    }

    fn top(&self) -> &Frame {
        self.frames.last().expect("the root frame stays until the end")
    }

    fn top_mut(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the root frame stays until the end")
    }

    fn expecting(&self) -> bool {
        self.top().expect
    }

    fn open(&mut self, kind: Kind, arg: Option<Arg>) {
        self.frames.push(Frame {
            kind,
            arg,
            ops: self.ops.len(),
            values: self.values.len(),
            items: self.items.len(),
            seps: self.seps.len(),
            chain: self.chain.len(),
            rels: self.chain_rels.len(),
            rows: self.row_ends.len(),
            expect: true,
        });
    }

    fn peek(&self) -> Option<&Tok<'a>> {
        self.tokens.get(self.at).map(|t| &t.tok)
    }

    fn last_value(&self) -> Option<Id> {
        (self.values.len() > self.top().values).then(|| self.values[self.values.len() - 1])
    }

    fn top_op(&self) -> Option<Op> {
        (self.ops.len() > self.top().ops).then(|| self.ops[self.ops.len() - 1])
    }

    fn step(&mut self, token: Token<'a>) -> Result<(), Fault> {
        match token.tok {
            Tok::Plus if self.expecting() => Ok(()),
            Tok::Minus if self.expecting() => self.prefix(Op::Neg),
            Tok::PlusMinus(plus) if self.expecting() => self.prefix(Op::PrefixPlusMinus(plus)),
            Tok::Plus => self.binary(Op::Add),
            Tok::Minus => self.binary(Op::Sub),
            Tok::PlusMinus(plus) => self.binary(Op::PlusMinus(plus)),
            Tok::Times => self.binary(Op::Mul),
            Tok::Cross => self.binary(Op::Cross),
            Tok::Div => self.binary(Op::Div),
            Tok::Mod => self.binary(Op::Mod),
            Tok::Choose => self.binary(Op::Choose),
            Tok::Over => self.binary(Op::Over),
            Tok::Caret => self.binary(Op::Pow),
            Tok::Cup => self.binary(Op::Union),
            Tok::Cap => self.binary(Op::Intersection),
            Tok::SetMinus => self.binary(Op::Difference),
            Tok::Colon => self.colon(),
            Tok::Rel(rel) => self.relation(rel),
            Tok::Comma => self.separator(Sep::Comma),
            Tok::Semi => self.separator(Sep::Semi),
            Tok::And if self.quantity_goes_on() => Ok(()),
            Tok::And => self.separator(Sep::And),
            Tok::Or => self.separator(Sep::Or),
            Tok::Logic(or) => self.logic(or),
            Tok::Not if self.expecting() => self.prefix(Op::Not),
            Tok::SuchThat => self.separator(Sep::SuchThat),
            Tok::Bang => self.factorial(),
            Tok::Percent => self.percent(),
            Tok::Degree => self.degree(),
            Tok::Prime => self.prime(),
            Tok::Meridiem(pm) => self.meridiem(pm),
            Tok::Bar => self.bar(),
            Tok::Open(delim) => self.open_delim(delim),
            Tok::Close(delim) => self.close_delim(delim),
            Tok::Begin(env) => {
                self.juxtapose()?;
                self.open(Kind::Env(env), None);
                Ok(())
            }
            Tok::End => self.close_env(),
            Tok::Amp => self.cell(),
            Tok::Row => self.row(),
            Tok::Under => self.subscript(),
            other => self.operand_token(other, token.space),
        }
    }

    fn prefix(&mut self, op: Op) -> Result<(), Fault> {
        self.ops.push(op);
        Ok(())
    }

    fn binary(&mut self, op: Op) -> Result<(), Fault> {
        if self.expecting() {
            return Err(Fault::Syntax);
        }
        if let (Op::Pow, Some(Op::Call { closed: true, .. })) = (op, self.top_op()) {
            self.reduce()?;
        }
        self.reduce_to(op.precedence(), matches!(op, Op::Pow))?;
        self.ops.push(op);
        self.top_mut().expect = true;
        Ok(())
    }

    /// Applies waiting operators that bind at least as tightly (more tightly if right-associative).
    fn reduce_to(&mut self, precedence: u8, right: bool) -> Result<(), Fault> {
        while let Some(op) = self.top_op() {
            let p = op.precedence();
            if p < precedence || (right && p == precedence) {
                break;
            }
            self.reduce()?;
        }
        Ok(())
    }

    fn pop_value(&mut self) -> Result<Id, Fault> {
        if self.values.len() <= self.top().values {
            return Err(Fault::Syntax);
        }
        self.values.pop().ok_or(Fault::Syntax)
    }

    /// Applies the top operator.
    fn reduce(&mut self) -> Result<(), Fault> {
        let Some(op) = self.top_op() else { return Err(Fault::Syntax) };
        self.ops.pop();
        let right = self.pop_value()?;
        let node = match op {
            Op::Neg => match self.arena.node(right) {
                Node::Num(q) => Node::Num(q.neg()),
                _ => Node::Neg(right),
            },
            Op::PrefixPlusMinus(plus) => Node::PlusMinus(right, plus),
            // "not 5" is no value.
            Op::Not if !self.speaks_of_names(right) => return Err(Fault::Syntax),
            Op::Not => {
                let one = self.arena.push(Node::Num(Q::ONE))?;
                Node::Sub(one, right)
            }
            Op::Call { callee, power, .. } => {
                let call = self.call(callee, right)?;
                match power {
                    None => {
                        self.values.push(call);
                        return Ok(());
                    }
                    Some(power) => Node::Pow(call, power),
                }
            }
            Op::Series { product, var, lo, hi } => Node::Series { product, var, lo, hi, body: right },
            binary => {
                let left = self.pop_value()?;
                if self.is_words(left) || self.is_words(right) {
                    self.prose |= !matches!(binary, Op::Colon | Op::Union | Op::Intersection | Op::Difference);
                }
                if let Some(id) = self.matrices(binary, left, right)? {
                    self.values.push(id);
                    return Ok(());
                }
                match binary {
                    Op::Colon => return self.join_colon(left, right),
                    // Statements form a lattice: ∨, ∧ and ¬ obey the laws of max, min and 1 − x.
                    Op::Logic(or) => Node::Call2(if or { Func2::Max } else { Func2::Min }, left, right),
                    // ℝ − {0}
                    Op::Sub if self.is_set(left) && matches!(self.arena.node(right), Node::Set(_)) => {
                        Node::Difference(left, right)
                    }
                    Op::Union => Node::Union(left, right),
                    Op::Intersection => Node::Intersection(left, right),
                    Op::Difference => Node::Difference(left, right),
                    Op::Add => Node::Add(left, right),
                    Op::Sub => Node::Sub(left, right),
                    Op::PlusMinus(plus) => {
                        let change = self.arena.push(Node::PlusMinus(right, plus))?;
                        Node::Add(left, change)
                    }
                    Op::Div | Op::Over => Node::Div(left, right),
                    Op::Mod => Node::Call2(Func2::Mod, left, right),
                    Op::Cross => Node::Call2(Func2::Cross, left, right),
                    Op::Choose => Node::Call2(Func2::Binomial, left, right),
                    Op::Pow => Node::Pow(left, right),
                    _ => Node::Mul(left, right),
                }
            }
        };
        let id = self.arena.push(node)?;
        self.values.push(id);
        Ok(())
    }

    fn is_set(&self, id: Id) -> bool {
        matches!(self.arena.node(id), Node::Numbers(_) | Node::Interval { .. } | Node::Set(_) | Node::Union(..))
    }

    fn is_words(&self, id: Id) -> bool {
        matches!(self.arena.node(id), Node::Text(_))
    }

    fn call(&mut self, callee: Callee, arg: Id) -> Result<Id, Fault> {
        let node = match callee {
            Callee::Func(Func::Abs) => return self.determinant(arg),
            Callee::Func(func) => Node::Call(func, arg),
            Callee::Log(None) => {
                let id = self.arena.push(Node::Call(Func::Ln, arg))?;
                self.arena.logs.push(id);
                return Ok(id);
            }
            Callee::Log(Some(base)) => Node::Call2(Func2::Log, base, arg),
        };
        Ok(self.arena.push(node)?)
    }

    /// Reduces the current item to one node and puts it among the frame's items.
    fn end_item(&mut self) -> Result<(), Fault> {
        let frame = *self.top();
        if self.expecting() {
            if self.ops.len() > frame.ops || self.values.len() > frame.values {
                return Err(Fault::Syntax);
            }
            if self.chain.len() > frame.chain {
                return Err(Fault::Syntax);
            }
            return Ok(());
        }
        self.reduce_to(0, false)?;
        let mut item = self.pop_value()?;
        if self.values.len() > frame.values {
            return Err(Fault::Syntax);
        }
        if self.chain.len() > frame.chain {
            self.chain.push(item);
            let operands = self.arena.make_list(&self.chain[frame.chain..]);
            let rels = self.arena.rels.len() as u32;
            self.arena.rels.extend_from_slice(&self.chain_rels[frame.rels..]);
            self.chain.truncate(frame.chain);
            self.chain_rels.truncate(frame.rels);
            self.order_letters(operands, rels);
            item = self.arena.push(Node::Chain { operands, rels })?;
        }
        self.items.push(item);
        self.top_mut().expect = true;
        self.fold_condition()
    }
}
