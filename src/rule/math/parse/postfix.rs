//! Marks behind an operand: !, %, degrees, primes, a.m. and p.m., subscripts.

use super::super::ast::{Func, Id, Node};
use super::super::lex::Tok;
use super::super::units;
use super::frame::{Arg, Op};
use super::{Fault, Parser};

impl Parser<'_, '_> {
    pub(super) fn factorial(&mut self) -> Result<(), Fault> {
        if self.expecting() {
            return Err(Fault::Syntax);
        }
        let double = matches!(self.peek(), Some(Tok::Bang));
        if double {
            self.at += 1;
        }
        self.wrap(|id| Node::Call(if double { Func::DoubleFactorial } else { Func::Factorial }, id))
    }

    /// Applies a postfix mark to the last operand.
    fn wrap(&mut self, make: impl FnOnce(Id) -> Node) -> Result<(), Fault> {
        let id = self.pop_value()?;
        let node = self.arena.push(make(id))?;
        self.values.push(node);
        Ok(())
    }

    pub(super) fn postfix_unit(&mut self, make: impl FnOnce(Id) -> Node) -> Result<(), Fault> {
        if self.expecting() {
            return Err(Fault::Syntax);
        }
        // 1/2 % and 2^3 ° apply to the whole product before them.
        if !matches!(self.top_op(), Some(Op::Call { .. } | Op::Pow | Op::TightMul)) {
            self.reduce_to(Op::Mul.precedence(), false)?;
        }
        self.wrap(make)
    }

    /// A percent sign; a second one right behind it has no meaning.
    pub(super) fn percent(&mut self) -> Result<(), Fault> {
        if self.last_value().is_some_and(|id| matches!(self.arena.node(id), Node::Percent(_))) {
            return Err(Fault::Syntax);
        }
        self.postfix_unit(Node::Percent)
    }

    pub(super) fn degree(&mut self) -> Result<(), Fault> {
        // °C and °F name a scale; the letter is a label.
        if let Some(Tok::Word("C" | "F") | Tok::Run("C" | "F")) = self.peek() {
            self.at += 1;
            return Ok(());
        }
        let scale = [super::super::ast::hash_name("C"), super::super::ast::hash_name("F")];
        if let Some(Tok::Sym(sym)) = self.peek()
            && scale.contains(sym)
        {
            self.at += 1;
            return Ok(());
        }
        self.postfix_unit(Node::Degree)
    }

    pub(super) fn prime(&mut self) -> Result<(), Fault> {
        let Some(id) = self.last_value().filter(|_| !self.expecting()) else { return Ok(()) };
        // 5' is five feet, 7'' seven inches.
        if let Node::Num(_) | Node::Decimal { .. } = self.arena.node(id) {
            let inches = matches!(self.peek(), Some(Tok::Prime));
            self.at += usize::from(inches);
            let Some(unit) = units::find(if inches { "in" } else { "ft" }) else { return Ok(()) };
            let number = self.pop_value()?;
            let unit = self.arena.push(Node::Unit(unit))?;
            let length = self.arena.push(Node::Mul(number, unit))?;
            self.values.push(length);
            return Ok(());
        }
        // The dash of a matrix is its transpose.
        if let Node::Matrix { .. } = self.arena.node(id) {
            let id = self.pop_value()?;
            if let Some(turned) = self.transposed(id, None)? {
                self.values.push(turned);
            }
            return Ok(());
        }
        if let Node::Sym(sym) = *self.arena.node(id) {
            let name = format!("{}'", self.arena.name(sym));
            let sym = self.arena.symbol(&name);
            let part = self.pop_value()?;
            self.arena.retire(part);
            let id = self.arena.push(Node::Sym(sym))?;
            self.values.push(id);
            return Ok(());
        }
        if self.arena.any(id, |n| matches!(n, Node::Text(_) | Node::Label(_) | Node::Unit(_))) {
            return Ok(());
        }
        // `(fg)'`: what the dash makes of a formula is not worked out.
        let value = self.pop_value()?;
        let dash = self.arena.symbol("'");
        let dash = self.arena.push(Node::Sym(dash))?;
        let id = self.arena.push(Node::Mul(value, dash))?;
        self.values.push(id);
        Ok(())
    }

    pub(super) fn meridiem(&mut self, pm: bool) -> Result<(), Fault> {
        if self.expecting() {
            return Err(Fault::Syntax);
        }
        self.reduce_to(Op::Colon.precedence(), false)?;
        let id = self.pop_value()?;
        let parts = match *self.arena.node(id) {
            Node::Colon { parts, .. } => {
                self.arena.retire(id);
                parts
            }
            _ => self.arena.make_list(&[id]),
        };
        let node = self.arena.push(Node::Colon { parts, meridiem: Some(pm) })?;
        self.values.push(node);
        Ok(())
    }

    /// A subscript after a bracket or power: it names, it does not compute.
    pub(super) fn subscript(&mut self) -> Result<(), Fault> {
        if self.expecting() {
            return Err(Fault::Syntax);
        }
        if self.is_bracketed_evaluation() {
            self.at -= 1;
            return self.evaluation(false);
        }
        let id = self.pop_value()?;
        self.top_mut().expect = true;
        if let Node::Num(_) = self.arena.node(id) {
            return self.begin_arg(Arg::Base(id));
        }
        Err(Fault::Syntax)
    }
}
