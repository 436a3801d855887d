//! Operands: numbers, symbols, words and units, commands and their arguments.

use super::super::ast::{Id, Node};
use super::super::lex::{Delim, Lit, Tok, Token};
use super::super::number::Q;
use super::super::units;
use super::frame::{Arg, Callee, Kind, Op, Sep};
use super::{Fault, Parser};

impl<'a> Parser<'a, '_> {
    /// Inserts the product between an operand and the one about to come.
    pub(super) fn juxtapose(&mut self) -> Result<(), Fault> {
        if self.expecting() {
            return Ok(());
        }
        let op = match self.top_op() {
            Some(Op::Call { closed: false, .. } | Op::TightMul) => Op::TightMul,
            _ => Op::Mul,
        };
        self.binary(op)
    }

    /// An operand is complete. Arguments read without braces end with it.
    pub(super) fn operand(&mut self, mut id: Id, bracketed: bool) -> Result<(), Fault> {
        loop {
            if self.top().kind == Kind::Single {
                let arg = self.top().arg.ok_or(Fault::Syntax)?;
                self.frames.pop();
                match self.deliver(arg, id)? {
                    Some(next) => {
                        id = next;
                        continue;
                    }
                    None => return Ok(()),
                }
            }
            let ops = self.top().ops;
            if bracketed && let Some(Op::Call { closed, .. }) = self.ops[ops..].last_mut() {
                *closed = true;
            }
            self.values.push(id);
            self.top_mut().expect = false;
            return Ok(());
        }
    }

    pub(super) fn atom(&mut self, node: Node) -> Result<(), Fault> {
        let id = self.arena.push(node)?;
        self.operand(id, false)
    }

    pub(super) fn operand_token(&mut self, tok: Tok<'a>, space: bool) -> Result<(), Fault> {
        match tok {
            Tok::Num(lit) => self.number(lit, space),
            Tok::Sym(sym) => {
                if self.unit_after_slash() {
                    let name = self.arena.name(sym).to_string();
                    if let Some(unit) = units::find(&name) {
                        return self.atom(Node::Unit(unit));
                    }
                }
                self.juxtapose()?;
                self.atom(Node::Sym(sym))
            }
            Tok::Run(run) => self.letters(run, space),
            Tok::Word(word) => self.word(word),
            Tok::Atom(node) => {
                self.juxtapose()?;
                self.atom(node)
            }
            Tok::Func(func) => self.function(Callee::Func(func)),
            Tok::Log => self.function(Callee::Log(None)),
            Tok::Func2(func) => {
                self.juxtapose()?;
                self.begin_arg(Arg::FuncArgs(func))
            }
            Tok::Frac => {
                if self.mixed_fraction()? {
                    return Ok(());
                }
                self.juxtapose()?;
                self.begin_arg(Arg::FracTop)
            }
            Tok::Sqrt => {
                self.juxtapose()?;
                if matches!(self.peek(), Some(Tok::Open(Delim::Bracket))) {
                    self.at += 1;
                    self.open(Kind::Delim(Delim::Bracket), Some(Arg::SqrtIndex));
                    return Ok(());
                }
                self.begin_arg(Arg::Sqrt(None))
            }
            Tok::Binom => {
                self.juxtapose()?;
                self.begin_arg(Arg::BinomTop)
            }
            Tok::Series(product) => {
                self.juxtapose()?;
                if matches!(self.peek(), Some(Tok::Under)) {
                    self.at += 1;
                    return self.begin_arg(Arg::SeriesLower(product));
                }
                Err(Fault::Syntax)
            }
            Tok::Transparent => {
                self.juxtapose()?;
                self.begin_arg(Arg::Transparent)
            }
            Tok::Dots => {
                if self.expecting() {
                    return self.atom(Node::Dots);
                }
                // "0.333…": the dots say that the decimal goes on.
                let after_decimal =
                    self.last_value().is_some_and(|id| matches!(self.arena.node(id), Node::Decimal { .. }));
                if after_decimal {
                    return Ok(());
                }
                self.juxtapose()?;
                self.atom(Node::Dots)
            }
            _ => Err(Fault::Syntax),
        }
    }

    fn number(&mut self, lit: Lit<'a>, space: bool) -> Result<(), Fault> {
        let node = match lit.places {
            Some(places) => Node::Decimal { value: lit.value.clone(), places, digits: lit.digits },
            None => Node::Num(lit.value.clone()),
        };
        if !self.expecting() {
            // 30°15', 5'7''.
            if matches!(self.peek(), Some(Tok::Prime)) && self.smaller_part(&node)? {
                return Ok(());
            }
            // "3 1/2" is a mixed number.
            if space && lit.places.is_none() && self.mixed_plain(&lit)? {
                return Ok(());
            }
            // "1 2 3" is a list without its commas: no product.
            let numeral = |at: usize| matches!(self.tokens.get(at).map(|t| &t.tok), Some(Tok::Num(_)));
            if self.at > 1 && numeral(self.at - 2) {
                self.separator(Sep::Comma)?;
            } else if self.next_part_of_quantity() {
                self.binary(Op::Add)?;
            } else {
                self.juxtapose()?;
            }
        }
        // 1010_2: a numeral with its base.
        if matches!(self.peek(), Some(Tok::Under)) {
            self.at += 1;
            let id = self.arena.push(node)?;
            return self.begin_arg(Arg::Base(id));
        }
        self.atom(node)
    }

    /// Minutes and seconds behind degrees, inches behind feet: they add to what stands before them.
    fn smaller_part(&mut self, number: &Node) -> Result<bool, Fault> {
        let Some(left) = self.last_value() else { return Ok(false) };
        self.budget.charge((left - self.arena.first(left)).into())?;
        let seconds = matches!(self.tokens.get(self.at + 1).map(|t| &t.tok), Some(Tok::Prime));
        let angle = self.arena.any(left, |n| matches!(n, Node::Degree(_)));
        let feet = units::find("ft").map(Node::Unit);
        let length = self.arena.any(left, |n| Some(n) == feet.as_ref());
        if !(angle || length && seconds) {
            return Ok(false);
        }
        self.at += 1 + usize::from(seconds);
        let left = self.pop_value()?;
        let number = self.arena.push(number.clone())?;
        let part = if angle {
            let parts = self.arena.push(Node::Num(Q::int(if seconds { 3600 } else { 60 })))?;
            let fraction = self.arena.push(Node::Div(number, parts))?;
            self.arena.push(Node::Degree(fraction))?
        } else {
            let inch = self.arena.push(units::find("in").map_or(Node::Num(Q::ONE), Node::Unit))?;
            self.arena.push(Node::Mul(number, inch))?
        };
        let sum = self.arena.push(Node::Add(left, part))?;
        self.values.push(sum);
        Ok(true)
    }

    /// The value before is a whole number standing alone: the start of a mixed number.
    fn whole_before(&self) -> Option<(Id, Q)> {
        if self.expecting() || matches!(self.top_op(), Some(Op::Mul | Op::Div | Op::Pow | Op::TightMul)) {
            return None;
        }
        let id = self.last_value()?;
        match self.arena.node(id) {
            Node::Num(q) if q.is_integer() && !q.is_negative() => Some((id, q.clone())),
            _ => None,
        }
    }

    fn join_mixed(&mut self, whole: Q, top: &Q, bottom: &Q) -> Result<(), Fault> {
        let fraction = top.div(bottom, self.budget)?;
        let value = whole.add(&fraction, self.budget)?;
        let part = self.pop_value()?;
        self.arena.retire(part);
        let id = self.arena.push(Node::Num(value))?;
        self.values.push(id);
        Ok(())
    }

    fn mixed_plain(&mut self, top: &Lit<'a>) -> Result<bool, Fault> {
        let Some((_, whole)) = self.whole_before() else { return Ok(false) };
        let (Some(Tok::Div), Some(Token { tok: Tok::Num(bottom), .. })) = (self.peek(), self.tokens.get(self.at + 1))
        else {
            return Ok(false);
        };
        if bottom.places.is_some() || bottom.value.is_zero() || top.value.cmp(&bottom.value).is_ge() {
            return Ok(false);
        }
        let bottom = bottom.value.clone();
        self.at += 2;
        self.join_mixed(whole, &top.value, &bottom)?;
        Ok(true)
    }

    /// `1\frac{4}{5}`: reads a fraction of two numerals after a whole number as their sum.
    fn mixed_fraction(&mut self) -> Result<bool, Fault> {
        let Some((_, whole)) = self.whole_before() else { return Ok(false) };
        let mut at = self.at;
        let mut numerals: [Option<Q>; 2] = [None, None];
        for slot in &mut numerals {
            match self.tokens.get(at).map(|t| &t.tok) {
                Some(Tok::Num(lit)) if lit.plain && lit.raw.len() == 1 => {
                    *slot = Some(lit.value.clone());
                    at += 1;
                }
                Some(Tok::Num(lit)) if lit.plain && lit.raw.len() == 2 && at == self.at => {
                    let digits = lit.raw.as_bytes();
                    numerals = [Some(Q::int((digits[0] - b'0') as i64)), Some(Q::int((digits[1] - b'0') as i64))];
                    at += 1;
                    break;
                }
                Some(Tok::Open(Delim::Group)) => {
                    let (Some(Tok::Num(lit)), Some(Tok::Close(Delim::Group))) =
                        (self.tokens.get(at + 1).map(|t| &t.tok), self.tokens.get(at + 2).map(|t| &t.tok))
                    else {
                        return Ok(false);
                    };
                    if lit.places.is_some() {
                        return Ok(false);
                    }
                    *slot = Some(lit.value.clone());
                    at += 3;
                }
                _ => return Ok(false),
            }
        }
        let [Some(top), Some(bottom)] = numerals else { return Ok(false) };
        if bottom.is_zero() || top.cmp(&bottom).is_ge() {
            return Ok(false);
        }
        self.at = at;
        self.join_mixed(whole, &top, &bottom)?;
        Ok(true)
    }

    fn function(&mut self, callee: Callee) -> Result<(), Fault> {
        // `\sin x \cos x`: the next function ends the argument of the one before.
        while matches!(self.top_op(), Some(Op::Call { .. } | Op::TightMul)) && !self.expecting() {
            self.reduce()?;
        }
        self.juxtapose()?;
        if let Callee::Log(_) = callee
            && matches!(self.peek(), Some(Tok::Under))
        {
            self.at += 1;
            return self.begin_arg(Arg::LogBase);
        }
        self.function_tail(callee)
    }

    /// After the name and base of a function: an optional power, then the argument.
    pub(super) fn function_tail(&mut self, callee: Callee) -> Result<(), Fault> {
        if matches!(self.peek(), Some(Tok::Caret)) {
            self.at += 1;
            return self.begin_arg(Arg::FuncPower(callee));
        }
        self.push_call(callee, None);
        Ok(())
    }

    pub(super) fn push_call(&mut self, callee: Callee, power: Option<Id>) {
        self.ops.push(Op::Call { callee, power, closed: false });
        self.top_mut().expect = true;
    }
}
