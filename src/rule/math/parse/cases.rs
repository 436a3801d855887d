//! Piecewise functions: rows of a value and when it holds.

use super::super::ast::{Id, Node, Rel};
use super::super::lex::{Env, Tok};
use super::frame::Kind;
use super::{Fault, Parser};

/// What a row holds where no other does.
pub const OTHERWISE: &str = "otherwise";

impl Parser<'_, '_> {
    fn in_cases(&self) -> bool {
        self.top().kind == Kind::Env(Env::Cases)
    }

    /// Where the items of the row being read begin.
    fn row_start(&self) -> usize {
        self.row_ends[self.top().rows..].last().copied().unwrap_or(self.top().items)
    }

    /// `&` between a value and its condition; one that only lines up equations parts nothing.
    pub(super) fn case_cell(&mut self) -> Result<(), Fault> {
        if self.expecting() || self.chain.len() > self.top().chain {
            return Ok(());
        }
        let row =
            || self.tokens[self.at..].iter().map(|t| &t.tok).take_while(|tok| !matches!(tok, Tok::Row | Tok::End));
        let aligns = match self.peek() {
            Some(Tok::Rel(_)) => true,
            Some(Tok::Plus | Tok::Minus) => row().any(|tok| matches!(tok, Tok::Rel(Rel::Eq))),
            _ => false,
        };
        if aligns { Ok(()) } else { self.end_item() }
    }

    /// Words in a piecewise function: "if" parts a value from its condition, "n even" says what n is. False
    /// for words that mean what they mean elsewhere.
    pub(super) fn case_word(&mut self, word: &str) -> Result<bool, Fault> {
        if !self.in_cases() {
            return Ok(false);
        }
        let lower = word.to_lowercase();
        let otherwise =
            matches!(lower.as_str(), "otherwise" | "else" | "elsewhere" | "sonst" | "sinon" | "其他" | "其它" | "否则");
        let condition = matches!(
            lower.as_str(),
            "if" | "when"
                | "for"
                | "where"
                | "whenever"
                | "provided"
                | "falls"
                | "wenn"
                | "si"
                | "se"
                | "如果"
                | "当"
                | "若"
                | "если"
        );
        if otherwise {
            self.end_item()?;
            let id = self.arena.text(OTHERWISE.to_string())?;
            self.operand(id, false)?;
            return Ok(true);
        }
        if condition {
            self.end_item()?;
            return Ok(true);
        }
        let says = !self.expecting()
            && self.items.len() > self.row_start()
            && self.chain.len() == self.top().chain
            && self.last_value().is_some_and(|id| matches!(self.arena.node(id), Node::Sym(_)));
        if says {
            self.relation(Rel::Eq)?;
            let id = self.arena.text(word.to_string())?;
            self.operand(id, false)?;
        }
        Ok(says)
    }

    /// A row that ends: its value and its condition become one item.
    pub(super) fn fold_case(&mut self) -> Result<(), Fault> {
        let start = self.row_start();
        let holds = |id: Id| matches!(self.arena.node(id), Node::Chain { .. } | Node::Text(_));
        let (value, conditions) = match self.items.get(start..) {
            Some([value, conditions @ ..]) if !conditions.is_empty() => (*value, conditions.to_vec()),
            _ => return Ok(()),
        };
        if holds(value) || !conditions.iter().all(|&id| holds(id)) {
            return Ok(());
        }
        let condition = match conditions[..] {
            [one] => one,
            _ => {
                let list = self.arena.make_list(&conditions);
                self.arena.push(Node::All(list))?
            }
        };
        let case = self.arena.push(Node::Case(value, condition))?;
        self.items.truncate(start);
        self.items.push(case);
        Ok(())
    }
}
