//! Where one statement ends without a comma: relations side by side, and the condition that follows a value.

use super::super::ast::{Func2, Id, Node, Rel};
use super::super::lex::{Delim, Gap, Tok, Token};
use super::super::units;
use super::frame::{Kind, Sep};
use super::{Fault, Parser};

/// Furthest that a condition is looked for, in tokens.
pub(super) const NEAR: usize = 64;
/// Most tokens of an answer from which a bracket is taken out.
pub(super) const MANY: usize = 400;

impl<'a> Parser<'a, '_> {
    /// `x = 5 \quad y = 3`, or on two lines: the token behind the gap begins a relation of its own, where it would
    /// go on with the one that is open.
    pub(super) fn parts_statements(&self, token: &Token<'a>) -> bool {
        let open = self.chain.len() > self.top().chain && !self.expecting() && self.top().kind == Kind::Root;
        if token.gap == Gap::None || !open {
            return false;
        }
        let rest = || self.tokens[self.at..].iter().map(|t| &t.tok);
        let name = matches!(token.tok, Tok::Sym(_) | Tok::Run(_) | Tok::Atom(Node::Euler | Node::Imaginary));
        if token.gap == Gap::Line {
            // A name, in bold type or not, with what it is taken at, and an equals sign.
            let dressed = token.tok == Tok::Transparent;
            let dress = |tok: &&Tok<'_>| matches!(tok, Tok::Open(Delim::Group) | Tok::Close(Delim::Group));
            let behind = rest().skip_while(|tok| dressed && dress(tok)).skip(usize::from(dressed));
            let mut behind = behind.skip_while(|tok| dressed && dress(tok) || matches!(tok, Tok::Prime));
            let next = match behind.next() {
                Some(Tok::Open(Delim::Paren)) => {
                    behind.by_ref().take(8).find(|tok| matches!(tok, Tok::Close(Delim::Paren)));
                    behind.next()
                }
                next => next,
            };
            return (name || dressed) && matches!(next, Some(Tok::Rel(Rel::Eq)));
        }
        let operand = name
            || matches!(token.tok, Tok::Num(_) | Tok::Atom(_) | Tok::Func(_) | Tok::Frac | Tok::Sqrt)
            || matches!(token.tok, Tok::Word(word) if !begins_condition(word));
        operand && self.relation_ahead(true)
    }

    /// A relation comes before the item ends; or before the next `\quad` too.
    fn relation_ahead(&self, within_gap: bool) -> bool {
        let mut depth = 0u32;
        for token in self.tokens[self.at..].iter().take(NEAR) {
            match token.tok {
                _ if within_gap && token.gap == Gap::Quad => return false,
                Tok::Open(_) | Tok::Begin(_) => depth += 1,
                Tok::Close(_) | Tok::End if depth == 0 => return false,
                Tok::Close(_) | Tok::End => depth -= 1,
                Tok::Comma | Tok::Semi | Tok::And | Tok::Or | Tok::Row if depth == 0 => return false,
                Tok::Rel(_) if depth == 0 => return true,
                _ => {}
            }
        }
        false
    }

    /// "2y for 0 < y < 1", "5 at x = 0": what follows the word is when the value holds, and no factor of it.
    pub(super) fn condition(&mut self, word: &str) -> Result<bool, Fault> {
        let value = self.last_value().filter(|_| !self.expecting() && self.top().kind == Kind::Root);
        if self.condition_from.is_some() || !begins_condition(word) || value.is_none_or(|id| self.is_words(id)) {
            return Ok(false);
        }
        let of = |tok: &Tok<'_>| {
            matches!(tok, Tok::Word(word) | Tok::Run(word)
                if matches!(*word, "all" | "any" | "every" | "each" | "some" | "real" | "numbers" | "values" | "which"))
        };
        let skipped = self.tokens[self.at..].iter().take_while(|t| of(&t.tok)).count();
        let begins = |tok: &Tok<'_>| !matches!(tok, Tok::Word(_)) && !matches!(tok, Tok::Run(word) if word.len() > 3);
        if !self.tokens.get(self.at + skipped).is_some_and(|t| begins(&t.tok)) || !self.relation_ahead(false) {
            return Ok(false);
        }
        self.at += skipped;
        self.separator(Sep::Comma)?;
        self.condition_from = Some(self.items.len());
        Ok(true)
    }

    /// "y = 2x (x ≥ 0)": the bracket just met holds a condition and ends the item. Takes its end out if so.
    pub(super) fn opens_condition(&mut self) -> Result<bool, Fault> {
        let frame = *self.top();
        let named =
            self.values.len() == frame.values + 1 && self.chain.len() == frame.chain && self.ops.len() == frame.ops;
        let name = named && self.last_value().is_some_and(|id| matches!(self.arena.node(id), Node::Sym(_)));
        if frame.kind != Kind::Root
            || self.tokens.len() >= MANY
            || self.expecting()
            || self.condition_from.is_some()
            || name
        {
            return Ok(false);
        }
        let (mut depth, mut relations, mut end) = (0u32, 0, None);
        for (ahead, token) in self.tokens[self.at..].iter().take(NEAR).enumerate() {
            match token.tok {
                Tok::Open(_) => depth += 1,
                Tok::Close(Delim::Paren) if depth == 0 => {
                    end = Some(self.at + ahead);
                    break;
                }
                Tok::Close(_) if depth == 0 => break,
                Tok::Close(_) => depth -= 1,
                Tok::Rel(rel) if rel.is_order() || matches!(rel, Rel::In | Rel::Ne) => relations += 1,
                Tok::Rel(_) | Tok::Comma | Tok::Semi | Tok::And | Tok::Or | Tok::Word(_) if depth == 0 => break,
                _ => {}
            }
        }
        let Some(end) = end.filter(|_| relations > 0) else { return Ok(false) };
        let behind = self.tokens.get(end + 1).map(|t| &t.tok);
        if !matches!(behind, None | Some(Tok::Comma | Tok::Semi | Tok::And | Tok::Or)) {
            return Ok(false);
        }
        self.tokens.remove(end);
        self.separator(Sep::Comma)?;
        self.condition_from = Some(self.items.len());
        Ok(true)
    }

    /// Puts a condition that ends to the value before it.
    pub(super) fn fold_condition(&mut self) -> Result<(), Fault> {
        if self.frames.len() > 1 || self.condition_from != Some(self.items.len().wrapping_sub(1)) {
            return Ok(());
        }
        self.condition_from = None;
        let (Some(condition), Some(value)) = (self.items.pop(), self.items.pop()) else { return Err(Fault::Syntax) };
        self.seps.pop();
        let case = self.arena.push(Node::Case(value, condition))?;
        self.items.push(case);
        Ok(())
    }

    /// "On Tuesday", "A wins", "n even": words behind letters alone count nothing, and the item is words.
    pub(super) fn speaks(&self, word: &str) -> bool {
        let frame = self.top();
        if frame.kind != Kind::Root || self.chain.len() > frame.chain || counts(word) {
            return false;
        }
        let values = &self.values[frame.values..];
        // A long formula is no sentence, and is not looked through for each word.
        let nodes = |&id: &Id| (id - self.arena.first(id)) as usize;
        if self.prose || values.iter().map(nodes).sum::<usize>() > NEAR {
            return false;
        }
        let mut letter = false;
        let letters = values.iter().all(|&id| {
            self.arena.subtree(id).iter().all(|n| match n {
                Node::Sym(_) => {
                    letter = true;
                    true
                }
                Node::Mul(..) | Node::Call2(Func2::Apply, ..) => true,
                Node::Euler | Node::Imaginary | Node::Label(_) => true,
                _ => false,
            })
        });
        let product = self.ops[frame.ops..].iter().all(|op| matches!(op, super::Op::Mul));
        letter && letters && product && !self.relation_ahead(false)
    }
}

/// A word that a condition may stand behind.
fn begins_condition(word: &str) -> bool {
    matches!(word, "for" | "on" | "at" | "where" | "with" | "whenever" | "provided")
}

/// What a letter may count: "r units", "n dollars", "x square feet".
fn counts(word: &str) -> bool {
    matches!(word, "unit" | "units" | "square" | "cubic" | "sq" | "cu") || units::find(word).is_some()
}
