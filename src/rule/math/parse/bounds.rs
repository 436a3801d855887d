//! Evaluation bars: `\left. x^2 \right|_0^1` is 1 − 0, `\left. x^2 \right|_{x=2}` is 4.

use super::super::ast::{Id, Node, Rel, Sym};
use super::super::lex::{Delim, Tok, is_operator, is_unknown};
use super::frame::{Arg, Kind, Op};
use super::{Fault, Parser};

impl Parser<'_, '_> {
    /// A bar behind a value, with a script at its foot, that closes nothing: what stands before it is evaluated.
    pub(super) fn is_evaluation(&self) -> bool {
        let frame = self.top();
        let sum = |op: &Op| matches!(op, Op::Add | Op::Sub | Op::PlusMinus(_));
        !self.expecting()
            && matches!(self.peek(), Some(Tok::Under))
            && !matches!(frame.kind, Kind::Bar | Kind::Delim(Delim::Bar))
            // In "a + b |_0^1" who knows where it begins.
            && !self.ops[frame.ops..].iter().any(sum)
    }

    /// The bar is read, or the bracket that stands for it: takes the value before it, or all the product where
    /// nothing says where it begins, and reads the script.
    pub(super) fn evaluation(&mut self, product: bool) -> Result<(), Fault> {
        if product {
            self.reduce_to(Op::Mul.precedence(), false)?;
        }
        let body = self.pop_value()?;
        self.top_mut().expect = true;
        self.at += 1;
        self.begin_arg(Arg::Lower(body))
    }

    /// Behind a square bracket, both scripts.
    pub(super) fn is_bracketed_evaluation(&self) -> bool {
        let closed = self.at > 1 && self.tokens[self.at - 2].tok == Tok::Close(Delim::Bracket);
        let braced = matches!(self.peek(), Some(Tok::Open(Delim::Group)));
        let mut ahead = self.tokens[self.at..].iter().take(super::statement::NEAR).map(|t| &t.tok);
        let upper = match braced {
            true => ahead.by_ref().find(|tok| matches!(tok, Tok::Close(Delim::Group))).is_some(),
            false => ahead.next().is_some(),
        };
        closed && upper && matches!(ahead.next(), Some(Tok::Caret))
    }

    /// The script at the foot of the bar: `_{x=2}` is all, behind `_0` comes the other.
    pub(super) fn lower_bound(&mut self, body: Id, lower: Id) -> Result<Option<Id>, Fault> {
        if matches!(self.peek(), Some(Tok::Caret)) {
            self.at += 1;
            self.begin_arg(Arg::Upper(body, lower))?;
            return Ok(None);
        }
        let (Some(var), value) = self.bound(lower)? else { return Err(Fault::Syntax) };
        let id = match *self.arena.node(body) {
            // A derivative at a point has a name.
            Node::Sym(name) => {
                let Node::Num(ref at) = *self.arena.node(value) else { return Err(Fault::Syntax) };
                let name = format!("{}|{}={}", self.arena.name(name), self.arena.name(var), at.show());
                let sym = self.arena.symbol(&name);
                self.arena.push(Node::Sym(sym))?
            }
            _ => self.at_value(body, var, value)?,
        };
        self.retire(body, lower);
        Ok(Some(id))
    }

    /// Both scripts: the value above less the one below.
    pub(super) fn upper_bound(&mut self, body: Id, lower: Id, upper: Id) -> Result<Option<Id>, Fault> {
        let ((named, lo), (again, hi)) = (self.bound(lower)?, self.bound(upper)?);
        let var = match named.or(again) {
            Some(var) => var,
            None => self.only_letter(body)?,
        };
        let above = self.at_value(body, var, hi)?;
        let below = self.at_value(body, var, lo)?;
        self.retire(body, upper);
        Ok(Some(self.arena.push(Node::Sub(above, below))?))
    }

    /// `x = 2` or 2 alone: the letter and its value.
    fn bound(&self, script: Id) -> Result<(Option<Sym>, Id), Fault> {
        let Node::Chain { operands, rels } = *self.arena.node(script) else { return Ok((None, script)) };
        match (self.arena.list(operands), self.arena.chain_rels(rels, 2)) {
            (&[name, value], [Rel::Eq]) => match *self.arena.node(name) {
                Node::Sym(var) => Ok((Some(var), value)),
                _ => Err(Fault::Syntax),
            },
            _ => Err(Fault::Syntax),
        }
    }

    fn only_letter(&self, body: Id) -> Result<Sym, Fault> {
        let mut letters = self.arena.subtree(body).iter().filter_map(|n| match n {
            Node::Sym(sym) => Some(*sym),
            _ => None,
        });
        let first = letters.next().ok_or(Fault::Syntax)?;
        if letters.all(|other| other == first) { Ok(first) } else { Err(Fault::Syntax) }
    }

    /// The body with a value for its letter.
    fn at_value(&mut self, body: Id, var: Sym, value: Id) -> Result<Id, Fault> {
        let named = |n: &Node| matches!(*n, Node::Sym(sym) if sym == var);
        let operator = |n: &Node| {
            matches!(*n, Node::Sym(sym) if {
                let name = self.arena.name(sym);
                is_operator(name) || is_unknown(name) || name.ends_with('\'')
            })
        };
        if !self.arena.any(body, named) || self.arena.any(body, operator) || self.arena.any(value, named) {
            return Err(Fault::Syntax);
        }
        let places = self.arena.subtree(body).iter().filter(|n| named(n)).count() as u64;
        let size = |id: Id| u64::from(id - self.arena.first(id) + 1);
        self.budget.charge(size(body) + places * size(value))?;
        Ok(self.arena.substituted(body, var, value)?)
    }

    fn retire(&mut self, from: Id, to: Id) {
        for id in self.arena.first(from)..=to {
            self.arena.retire(id);
        }
    }
}
