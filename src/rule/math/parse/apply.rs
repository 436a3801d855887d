//! Functions that only have a name: `f(2)` is a name too, and `f(2x)` is f of 2x and no product.

use super::super::ast::{Func2, Id, Node};
use super::super::lex::{Delim, Tok};
use super::frame::{Arg, Kind, Op};
use super::statement::NEAR;
use super::{Fault, Parser};

impl Parser<'_, '_> {
    /// `f(2)`, and `P(0) = …`, `y'(0) = …` on the side of a relation: the value of a function at a number is a
    /// name, and no product that 0 would make nothing of. The bracket is open; true if it was read.
    pub(super) fn value_at(&mut self) -> Result<bool, Fault> {
        let Some(id) = self.last_value().filter(|_| !self.expecting()) else { return Ok(false) };
        let Node::Sym(function) = *self.arena.node(id) else { return Ok(false) };
        let (mut at, mut numerals) = (self.at, Vec::new());
        loop {
            let minus = matches!(self.tokens.get(at).map(|t| &t.tok), Some(Tok::Minus));
            at += usize::from(minus);
            let Some(Tok::Num(lit)) = self.tokens.get(at).map(|t| &t.tok) else { return Ok(false) };
            numerals.push(if minus { lit.value.neg().show() } else { lit.value.show() });
            at += 2;
            match self.tokens.get(at - 1).map(|t| &t.tok) {
                Some(Tok::Comma) if numerals.len() < 3 => {}
                Some(Tok::Close(Delim::Paren)) => break,
                _ => return Ok(false),
            }
        }
        let name = self.arena.name(function);
        let letter = name.trim_end_matches('\'').split('_').next().unwrap_or("");
        let frame = self.top();
        let alone = self.values.len() == frame.values + 1 && self.ops.len() == frame.ops;
        let side = alone && matches!(self.tokens.get(at).map(|t| &t.tok), Some(Tok::Rel(_)));
        if !matches!(letter, "f" | "g" | "h" | "F" | "G" | "I") && !side {
            return Ok(false);
        }
        let name = format!("{name}({})", numerals.join(","));
        let sym = self.arena.symbol(&name);
        self.arena.set_leaf(id, Node::Sym(sym));
        self.at = at;
        Ok(true)
    }

    /// `f(2x)`: opens the bracket of an argument; true if it was read. The letters that functions have are tried,
    /// each with the arguments that it takes: `h(a + b)` is a height times a sum.
    pub(super) fn apply(&mut self) -> Result<bool, Fault> {
        let Some(last) = self.last_value().filter(|_| !self.expecting()) else { return Ok(false) };
        // `f^{-1}(x)`, `f^2(x)`: the power is the function's own.
        let powered = matches!(self.top_op(), Some(Op::Pow)) && self.values.len() > self.top().values + 1;
        let head = if powered { self.values[self.values.len() - 2] } else { last };
        let Node::Sym(sym) = *self.arena.node(head) else { return Ok(false) };
        let constant = matches!(self.arena.node(last), Node::Num(_));
        if (powered && !constant) || !self.takes(self.arena.name(sym)) {
            return Ok(false);
        }
        if powered {
            self.reduce()?;
        }
        let function = self.pop_value()?;
        self.top_mut().expect = true;
        self.open(Kind::Delim(Delim::Paren), Some(Arg::Apply(function)));
        Ok(true)
    }

    /// The letter names functions, and what stands in the bracket is an argument of them.
    fn takes(&self, name: &str) -> bool {
        let letter = name.trim_end_matches('\'').split('_').next().unwrap_or("");
        let among: fn(&str) -> bool = match letter {
            "f" | "Gamma" | "zeta" | "phi" | "varphi" => |_| true,
            _ if letter.contains('∘') => |_| true,
            "g" | "h" | "F" | "G" | "H" | "psi" | "Psi" | "Phi" | "delta" => {
                |letter| matches!(letter, "x" | "y" | "z" | "t" | "u" | "v" | "w" | "n" | "k" | "s" | "f" | "g" | "h")
            }
            // Angles, places and steps over time.
            "theta" | "u" => |letter| letter == "t",
            "x" | "y" if !self.adds_up() => |letter| letter == "t",
            _ => return self.composes(),
        };
        let mut depth = 0u32;
        let mut letters = 0;
        for token in self.tokens[self.at..].iter().take(NEAR) {
            match &token.tok {
                Tok::Close(_) if depth == 0 => break,
                Tok::Open(_) => depth += 1,
                Tok::Close(_) => depth -= 1,
                // "f(x = 2)" is no call.
                Tok::Rel(_) | Tok::Word(_) => return false,
                Tok::Sym(sym) => {
                    letters += 1;
                    if !among(self.arena.name(*sym).trim_end_matches('\'').split('_').next().unwrap_or("")) {
                        return false;
                    }
                }
                Tok::Run(run) => {
                    letters += run.len();
                    if !run.char_indices().all(|(at, c)| among(&run[at..at + c.len_utf8()])) {
                        return false;
                    }
                }
                _ => {}
            }
        }
        letters > 0 || among("a")
    }

    /// A sum stands in the bracket just opened.
    fn adds_up(&self) -> bool {
        let ahead = self.tokens[self.at..].iter().take(NEAR);
        ahead.take_while(|t| !matches!(t.tok, Tok::Close(_))).any(|t| matches!(t.tok, Tok::Plus | Tok::Minus))
    }

    /// `T(S(v))`: whatever the letters, no product is written so.
    fn composes(&self) -> bool {
        let ahead = [0, 1, 2, 3, 4].map(|i| self.tokens.get(self.at + i).map(|t| &t.tok));
        matches!(
            ahead,
            [
                Some(Tok::Sym(_)),
                Some(Tok::Open(Delim::Paren)),
                Some(Tok::Sym(_)),
                Some(Tok::Close(Delim::Paren)),
                Some(Tok::Close(Delim::Paren))
            ]
        )
    }

    /// The value of a function at what stood in its bracket: one argument after the other.
    pub(super) fn applied(&mut self, function: Id, argument: Id) -> Result<Id, Fault> {
        let arguments = match self.arena.node(argument) {
            Node::Tuple(list) => {
                let ids = self.arena.list(*list).to_vec();
                self.arena.retire(argument);
                ids
            }
            _ => vec![argument],
        };
        // `(f ∘ g)(x)` is f(g(x)).
        if let Node::Sym(sym) = *self.arena.node(function)
            && let Some((outer, inner)) = self.arena.name(sym).split_once('∘')
            && let [argument] = arguments[..]
        {
            let (outer, inner) = (outer.to_string(), inner.to_string());
            let inner = self.arena.symbol(&inner);
            self.arena.set_leaf(function, Node::Sym(inner));
            let value = self.arena.push(Node::Call2(Func2::Apply, function, argument))?;
            let outer = self.arena.symbol(&outer);
            let outer = self.arena.push(Node::Sym(outer))?;
            return Ok(self.arena.push(Node::Call2(Func2::Apply, outer, value))?);
        }
        let mut value = function;
        for argument in arguments {
            value = self.arena.push(Node::Call2(Func2::Apply, value, argument))?;
        }
        Ok(value)
    }
}
