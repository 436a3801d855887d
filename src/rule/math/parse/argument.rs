//! Arguments of commands and functions: where they begin, and what they make of the operand.

use super::super::ast::{Func, Func2, Id, Node, Rel};
use super::super::lex::{Delim, Gap, Lit, Tok, Token};
use super::super::number::Q;
use super::frame::{Arg, Callee, Kind, Op};
use super::{Fault, Parser};

impl<'a> Parser<'a, '_> {
    /// Starts reading one argument: a braced group, a bracketed one, or a single token.
    pub(super) fn begin_arg(&mut self, arg: Arg) -> Result<(), Fault> {
        match self.tokens.get(self.at).map(|t| &t.tok) {
            Some(Tok::Open(delim @ (Delim::Group | Delim::Paren))) => {
                let delim = *delim;
                self.at += 1;
                self.open(Kind::Delim(delim), Some(arg));
                Ok(())
            }
            Some(Tok::Num(lit)) if lit.plain && lit.raw.len() > 1 => {
                // LaTeX takes one digit; the rest is what follows.
                let digits = lit.raw;
                let keep_all = (matches!(arg, Arg::Base(_) | Arg::FuncPower(_)) && digits.len() <= 2)
                    || (matches!(arg, Arg::Sqrt(_)) && digits.len() <= 18);
                let take = if keep_all { digits.len() } else { 1 };
                let value = digits[..take].parse().unwrap_or(0);
                if take == digits.len() {
                    self.at += 1;
                } else {
                    let rest = &digits[take..];
                    let number = Q::from_bigint(rest.parse().unwrap_or_default());
                    self.tokens[self.at] = Token {
                        tok: Tok::Num(Lit {
                            value: number,
                            places: None,
                            digits: rest.len().min(60_000) as u16,
                            raw: rest,
                            plain: true,
                        }),
                        space: false,
                        gap: Gap::None,
                    };
                }
                let id = self.arena.push(Node::Num(Q::int(value)))?;
                self.deliver_operand(arg, id)
            }
            Some(Tok::Minus) if matches!(arg, Arg::FuncPower(_)) => {
                self.at += 1;
                let Some(Token { tok: Tok::Num(lit), .. }) = self.tokens.get(self.at) else {
                    return Err(Fault::Syntax);
                };
                let value = lit.value.neg();
                self.at += 1;
                let id = self.arena.push(Node::Num(value))?;
                self.deliver_operand(arg, id)
            }
            Some(Tok::Run(run)) if run.len() > 1 => {
                let run: &'a str = run;
                self.tokens[self.at] = Token { tok: Tok::Run(&run[1..]), space: false, gap: Gap::None };
                let sym = self.arena.symbol(&run[..1]);
                let id = self.arena.push(Node::Sym(sym))?;
                self.deliver_operand(arg, id)
            }
            Some(Tok::Word(word)) if matches!(arg, Arg::Base(_)) => {
                let base = base_name(word).ok_or(Fault::Syntax)?;
                self.at += 1;
                let id = self.arena.push(Node::Num(Q::int(base)))?;
                self.deliver_operand(arg, id)
            }
            None => Err(Fault::Syntax),
            Some(_) => {
                self.open(Kind::Single, Some(arg));
                Ok(())
            }
        }
    }

    fn deliver_operand(&mut self, arg: Arg, id: Id) -> Result<(), Fault> {
        match self.deliver(arg, id)? {
            Some(node) => self.operand(node, false),
            None => Ok(()),
        }
    }

    /// Uses an argument; returns the operand it completes, if it does.
    pub(super) fn deliver(&mut self, arg: Arg, id: Id) -> Result<Option<Id>, Fault> {
        let node = match arg {
            Arg::FracTop => {
                self.begin_arg(Arg::FracBottom(id))?;
                return Ok(None);
            }
            Arg::FracBottom(top) => Node::Div(top, id),
            Arg::SqrtIndex => {
                self.begin_arg(Arg::Sqrt(Some(id)))?;
                return Ok(None);
            }
            Arg::Sqrt(index) => {
                let index = match index {
                    Some(index) => index,
                    // Keep children contiguous: the index comes before the radicand.
                    None => return Ok(Some(self.square_root(id)?)),
                };
                Node::Call2(Func2::Root, index, id)
            }
            Arg::BinomTop => {
                self.begin_arg(Arg::BinomBottom(id))?;
                return Ok(None);
            }
            Arg::BinomBottom(top) => Node::Call2(Func2::Binomial, top, id),
            Arg::FuncPower(callee) => {
                let inverse = match self.arena.node(id) {
                    Node::Num(q) if *q == Q::int(-1) => inverse(callee),
                    _ => None,
                };
                match inverse {
                    Some(func) => self.push_call(Callee::Func(func), None),
                    None => self.push_call(callee, Some(id)),
                }
                return Ok(None);
            }
            Arg::LogBase => {
                self.function_tail(Callee::Log(Some(id)))?;
                return Ok(None);
            }
            Arg::Apply(function) => return Ok(Some(self.applied(function, id)?)),
            Arg::FuncArgs(func) => return Ok(Some(self.fold_args(func, id)?)),
            Arg::SeriesLower(product) => {
                let (var, lo) = match self.arena.node(id) {
                    Node::Chain { operands, rels } => match *self.arena.list(*operands) {
                        [var, lo] if self.arena.chain_rels(*rels, 2) == [Rel::Eq] => match self.arena.node(var) {
                            Node::Sym(sym) => (*sym, lo),
                            Node::Imaginary => (super::super::ast::hash_name("i"), lo),
                            _ => return Err(Fault::Syntax),
                        },
                        _ => return Err(Fault::Syntax),
                    },
                    _ => return Err(Fault::Syntax),
                };
                for orphan in self.arena.first(id)..=id {
                    if !(self.arena.first(lo)..=lo).contains(&orphan) {
                        self.arena.retire(orphan);
                    }
                }
                if !matches!(self.peek(), Some(Tok::Caret)) {
                    return Err(Fault::Syntax);
                }
                self.at += 1;
                self.begin_arg(Arg::SeriesUpper { product, var, lo })?;
                return Ok(None);
            }
            Arg::SeriesUpper { product, var, lo } => {
                self.ops.push(Op::Series { product, var, lo, hi: id });
                self.top_mut().expect = true;
                return Ok(None);
            }
            Arg::Transparent => return Ok(Some(id)),
            Arg::Lower(body) => return self.lower_bound(body, id),
            Arg::Upper(body, lower) => return self.upper_bound(body, lower, id),
            Arg::Base(numeral) => return Ok(Some(self.based(numeral, id)?)),
        };
        Ok(Some(self.arena.push(node)?))
    }

    fn square_root(&mut self, radicand: Id) -> Result<Id, Fault> {
        let half = self.arena.push(Node::Num(Q::Small(1, 2)))?;
        Ok(self.arena.push(Node::Pow(radicand, half))?)
    }

    /// `gcd(a, b, c)`: folds a list of arguments with a function of two.
    fn fold_args(&mut self, func: Func2, args: Id) -> Result<Id, Fault> {
        let ids = match self.arena.node(args) {
            Node::Tuple(list) | Node::List(list) | Node::Set(list) => self.arena.list(*list).to_vec(),
            // "max f": what is largest is not said to be f.
            _ => {
                let sym = self.arena.symbol(&format!("{func:?}"));
                let name = self.arena.push(Node::Sym(sym))?;
                return Ok(self.arena.push(Node::Mul(name, args))?);
            }
        };
        self.arena.retire(args);
        let mut ids = ids.into_iter();
        let mut folded = ids.next().ok_or(Fault::Syntax)?;
        for next in ids {
            folded = self.arena.push(Node::Call2(func, folded, next))?;
        }
        Ok(folded)
    }

    /// A numeral and its subscript: `4343_6`.
    fn based(&mut self, numeral: Id, base: Id) -> Result<Id, Fault> {
        let base_value = match self.arena.node(base) {
            Node::Num(value) => value.to_i64(),
            Node::Text(index) => base_name(&self.arena.texts[*index as usize]),
            _ => None,
        };
        let (digits, places) = match self.arena.node(numeral) {
            Node::Num(q) => (q.clone(), 0),
            // 0.0011 in base two: the digits as a whole number, and how many are behind the point.
            Node::Decimal { value, places, .. } => {
                (value.mul(&Q::int(10).pow(*places as i64, self.budget)?, self.budget)?, *places)
            }
            _ => return Err(Fault::Syntax),
        };
        let Some(base) = base_value.filter(|b| (2..=36).contains(b)) else { return Err(Fault::Syntax) };
        let shown = digits.show();
        if shown.len() > 60 || !shown.bytes().all(|b| b.is_ascii_digit() && i64::from(b - b'0') < base) {
            // 72_7 is no numeral of base seven.
            return Err(Fault::Syntax);
        }
        let mut value = Q::ZERO;
        for b in shown.bytes() {
            value = value.mul(&Q::int(base), self.budget)?.add(&Q::int((b - b'0') as i64), self.budget)?;
        }
        let point = |base: i64, budget: &mut super::Budget| Q::int(base).pow(places as i64, budget);
        let value = value.div(&point(base, self.budget)?, self.budget)?;
        let digits = digits.div(&point(10, self.budget)?, self.budget)?;
        Ok(self.arena.push(Node::Based { value, digits, base: base as u8 })?)
    }
}

/// The base of a numeral in words.
fn base_name(word: &str) -> Option<i64> {
    const NAMES: [&str; 9] = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    NAMES.iter().position(|name| *name == word).map(|at| at as i64 + 2)
}

fn inverse(callee: Callee) -> Option<Func> {
    let Callee::Func(func) = callee else { return None };
    Some(match func {
        Func::Sin => Func::Asin,
        Func::Cos => Func::Acos,
        Func::Tan => Func::Atan,
        Func::Cot => Func::Acot,
        Func::Sec => Func::Asec,
        Func::Csc => Func::Acsc,
        Func::Sinh => Func::Asinh,
        Func::Cosh => Func::Acosh,
        Func::Tanh => Func::Atanh,
        _ => return None,
    })
}
