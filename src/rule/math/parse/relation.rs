//! What stands between values and is no operation: relations, colons, separators, and the words of logic.

use super::super::ast::{Id, List, Node, Rel};
use super::super::lex::{Delim, Env, Tok};
use super::super::units;
use super::frame::{Kind, Op, Sep};
use super::statement::{MANY, NEAR};
use super::{Fault, Parser};

impl Parser<'_, '_> {
    /// A value with a letter in it, as statements are written.
    pub(super) fn speaks_of_names(&self, id: Id) -> bool {
        self.arena.is_scalar(id) && self.arena.any(id, |n| matches!(n, Node::Sym(_)))
    }

    /// `p ∨ q` between statements; `x = 1 ∨ x = 2` and `1 ∨ 2` are values side by side.
    pub(super) fn logic(&mut self, or: bool) -> Result<(), Fault> {
        let statement = self.chain.len() == self.top().chain
            && !self.expecting()
            && self.last_value().is_some_and(|id| self.speaks_of_names(id));
        if statement {
            return self.binary(Op::Logic(or));
        }
        self.separator(if or { Sep::Or } else { Sep::And })
    }

    pub(super) fn join_colon(&mut self, left: Id, right: Id) -> Result<(), Fault> {
        let parts = match *self.arena.node(left) {
            Node::Colon { parts, .. } => {
                let mut ids = self.arena.list(parts).to_vec();
                self.budget.charge(ids.len() as u64)?;
                self.arena.retire(left);
                ids.push(right);
                ids
            }
            _ => vec![left, right],
        };
        let parts = self.arena.make_list(&parts);
        let id = self.arena.push(Node::Colon { parts, meridiem: None })?;
        self.values.push(id);
        Ok(())
    }

    pub(super) fn colon(&mut self) -> Result<(), Fault> {
        if self.expecting() {
            return Ok(());
        }
        if self.top().kind == Kind::Delim(Delim::Set) && self.seps.len() == self.top().seps {
            return self.separator(Sep::SuchThat);
        }
        if self.last_value().is_some_and(|id| self.is_words(id)) {
            return self.relation(Rel::Eq);
        }
        self.binary(Op::Colon)
    }

    pub(super) fn relation(&mut self, rel: Rel) -> Result<(), Fault> {
        if self.expecting() && self.continues_row() {
            return self.continue_row(rel);
        }
        if self.expecting() {
            let fresh = self.top_op().is_none() && self.chain.len() == self.top().chain;
            let again = self.top_op().is_none() && self.chain_rels[self.top().rels..].last() == Some(&Rel::Eq);
            return match rel {
                // "The area is = 5".
                Rel::Eq if again => Ok(()),
                // "= 5": the left side was left out.
                Rel::Eq | Rel::Approx if fresh => Ok(()),
                // "<1, 2>" is a vector.
                Rel::Lt if fresh => {
                    self.open(Kind::Delim(Delim::Angle), None);
                    Ok(())
                }
                _ => Err(Fault::Syntax),
            };
        }
        if rel == Rel::Gt && self.top().kind == Kind::Delim(Delim::Angle) {
            return self.close_delim(Delim::Angle);
        }
        self.reduce_to(0, false)?;
        let left = self.pop_value()?;
        self.chain.push(left);
        self.chain_rels.push(rel);
        self.top_mut().expect = true;
        Ok(())
    }

    /// In `1 ≤ i ≤ n` the i is a letter: complex numbers have no order.
    pub(super) fn order_letters(&mut self, operands: List, rels: u32) {
        let ids = self.arena.list(operands).to_vec();
        if !self.arena.chain_rels(rels, ids.len()).iter().any(|rel| rel.is_order()) {
            return;
        }
        for id in ids {
            if *self.arena.node(id) == Node::Imaginary {
                let sym = self.arena.symbol("i");
                self.arena.set_leaf(id, Node::Sym(sym));
            }
        }
    }

    /// In `align`, a row that starts with a relation goes on with the row above.
    fn continues_row(&self) -> bool {
        let frame = self.top();
        matches!(frame.kind, Kind::Env(Env::Rows | Env::Cases))
            && self.items.len() > frame.items
            && self.ops.len() == frame.ops
            && self.chain.len() == frame.chain
    }

    fn continue_row(&mut self, rel: Rel) -> Result<(), Fault> {
        let Some(above) = self.items.pop() else { return Err(Fault::Syntax) };
        match *self.arena.node(above) {
            Node::Chain { operands, rels } => {
                let ids = self.arena.list(operands).to_vec();
                let kinds = self.arena.chain_rels(rels, ids.len()).to_vec();
                self.budget.charge(ids.len() as u64)?;
                self.arena.retire(above);
                self.chain.extend(ids);
                self.chain_rels.extend(kinds);
            }
            _ => self.chain.push(above),
        }
        self.chain_rels.push(rel);
        Ok(())
    }

    /// The bracket stands behind a name: the argument of P or E.
    fn is_argument(&self) -> bool {
        let frame = self.top();
        let bracket = matches!(frame.kind, Kind::Delim(Delim::Paren | Delim::Bracket)) && frame.arg.is_none();
        let name = |id: Id| matches!(self.arena.node(id), Node::Sym(_) | Node::Numbers(_));
        bracket
            && !self.expecting()
            && self.frames.len() > 1
            && frame.values > self.frames[self.frames.len() - 2].values
            && name(self.values[frame.values - 1])
    }

    /// `P(A | B)`: the bar is an item of its own, so that it says another thing than a comma.
    fn given(&mut self) -> Result<(), Fault> {
        self.separator(Sep::Comma)?;
        let sym = self.arena.symbol("|");
        self.atom(Node::Sym(sym))?;
        self.separator(Sep::Comma)
    }

    /// A plain bar that no other closes before the argument ends.
    pub(super) fn is_given(&self) -> bool {
        if !self.is_argument() {
            return false;
        }
        let (mut depth, mut bars) = (0u32, 0);
        for token in self.tokens[self.at..].iter().take(NEAR) {
            match token.tok {
                Tok::Open(_) => depth += 1,
                Tok::Close(_) if depth == 0 => break,
                Tok::Close(_) => depth -= 1,
                Tok::Bar => bars += 1,
                _ => {}
            }
        }
        bars % 2 == 0
    }

    /// "1/2 (or 0.5)", "30 minutes (0.5 hours)": takes the "or" and the closing bracket out, if they are there.
    pub(super) fn opens_alternative(&mut self) -> bool {
        let root = self.top().kind == Kind::Root && !self.expecting() && self.tokens.len() < MANY;
        let ahead = [0, 1, 2].map(|i| self.tokens.get(self.at + i).map(|t| &t.tok));
        let quantity = matches!(ahead, [Some(Tok::Num(_)), Some(Tok::Word(unit) | Tok::Run(unit)), Some(Tok::Close(Delim::Paren))]
            if units::find(unit).is_some())
            && self.last_value().is_some_and(|id| self.arena.any(id, |n| matches!(n, Node::Unit(_))));
        if !root || !(quantity || self.peek() == Some(&Tok::Or)) {
            return false;
        }
        let ahead = self.tokens[self.at..].iter().take(NEAR);
        let Some(close) = ahead.clone().position(|t| t.tok == Tok::Close(Delim::Paren)) else { return false };
        if ahead.take(close).any(|t| matches!(t.tok, Tok::Open(Delim::Paren))) {
            return false;
        }
        self.tokens.remove(self.at + close);
        self.at += usize::from(!quantity);
        true
    }

    /// Ends the item being read and notes what separates it from the next.
    pub(super) fn separator(&mut self, sep: Sep) -> Result<(), Fault> {
        if sep == Sep::SuchThat && self.is_argument() {
            return self.given();
        }
        if sep == Sep::SuchThat && self.top().kind != Kind::Delim(Delim::Set) {
            return if self.top().kind == Kind::Root { self.bar() } else { Err(Fault::Syntax) };
        }
        let before = self.items.len();
        self.end_item()?;
        if self.items.len() == before {
            // ", and": the second separator names the first.
            let seps = self.top().seps;
            if let Some(last) = self.seps[seps..].last_mut() {
                *last = sep;
            }
            return Ok(());
        }
        self.seps.push(sep);
        Ok(())
    }
}
