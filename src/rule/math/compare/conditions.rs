//! A statement and when it holds, as a comma, brackets or a word part them: `y = 2x, x \ge 0`, `y = 2x (x \ge 0)`.

use super::super::ast::{Id, Node, Rel};
use super::super::reading::Reading;
use super::Finding::{self, Different};
use super::names::free_symbols;
use super::{Comparison, form};

impl Comparison<'_> {
    /// Compares where one side or both are a statement with its condition; `None` for anything else.
    pub(super) fn conditioned(&mut self, g: Id, p: Id) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        match (conditioned(gold, g), conditioned(pred, p)) {
            (Some((a, when)), Some((b, then))) => {
                // "x ≥ 0" and "y ≥ 0" name the same numbers, and are not the same condition.
                let (letters, others) = (free_symbols(gold, when), free_symbols(pred, then));
                let same = letters.len() == others.len() && letters.iter().all(|letter| others.contains(letter));
                let found = if same { self.compare(when, then) } else { Different("domain") };
                let found = if found.is_equal() { self.compare(a, b) } else { found };
                // Two rows of a piecewise function are compared as rows.
                let rows = matches!((gold.node(g), pred.node(p)), (Node::Case(..), Node::Case(..)));
                (rows || found.is_equal()).then_some(found)
            }
            (Some((value, when)), None) if self.says_no_more(gold, value, when) => Some(self.compare(value, p)),
            (None, Some((value, when))) if self.says_no_more(pred, value, when) => Some(self.compare(g, value)),
            _ => None,
        }
    }

    /// The condition leaves the statement as it is: which numbers its letter runs over, or what its value fulfils.
    fn says_no_more(&mut self, r: &Reading, value: Id, condition: Id) -> bool {
        let letters = |id: Id| r.arena.any(id, |n| matches!(n, Node::Sym(_)));
        if form::is_proviso(r, condition) {
            return letters(value);
        }
        // "x = 3, x > 0"
        let (Node::Chain { operands: sides, rels }, Node::Chain { operands, rels: orders }) =
            (r.node(value), r.node(condition))
        else {
            return false;
        };
        let (sides, ids) = (r.arena.list(*sides), r.arena.list(*operands));
        let kinds = r.arena.chain_rels(*orders, ids.len());
        let &[name, number] = sides else { return false };
        let (Node::Sym(sym), true) = (r.node(name), form::is_constant(r, number)) else { return false };
        let speaks = ids.iter().all(|&id| r.arena.is_scalar(id))
            && r.arena.subtree(condition).iter().all(|n| !matches!(n, Node::Sym(other) if other != sym))
            && letters(condition);
        if r.arena.chain_rels(*rels, 2) != [Rel::Eq] || !speaks || !kinds.iter().all(|kind| kind.is_order()) {
            return false;
        }
        let Some(x) = self.constant(r, super::Val::of(number), true) else { return false };
        self.holds(r, ids, kinds, x) == Ok(true)
    }
}

/// The statement and its condition.
fn conditioned(r: &Reading, id: Id) -> Option<(Id, Id)> {
    let list = match *r.node(id) {
        Node::Case(value, condition) => return Some((value, condition)),
        Node::All(list) => list,
        Node::List(list) if !says_or(&r.source) => list,
        _ => return None,
    };
    let &[a, b] = r.arena.list(list) else { return None };
    match (is_condition(r, a), is_condition(r, b)) {
        (false, true) if is_statement(r, a) => Some((a, b)),
        (true, false) if is_statement(r, b) && matches!(r.node(id), Node::All(_)) => Some((b, a)),
        _ => None,
    }
}

/// An inequality or a set that a name is said to lie in.
fn is_condition(r: &Reading, id: Id) -> bool {
    let Node::Chain { operands, rels } = *r.node(id) else { return false };
    let ids = r.arena.list(operands);
    let kinds = r.arena.chain_rels(rels, ids.len());
    let named = ids.iter().any(|&id| form::is_name(r, id));
    named && (kinds.iter().all(|kind| kind.is_order()) || matches!(kinds, [Rel::In | Rel::Ne]))
}

/// An equation, or a value with a letter in it.
fn is_statement(r: &Reading, id: Id) -> bool {
    match *r.node(id) {
        Node::Chain { operands, rels } => {
            let ids = r.arena.list(operands);
            r.arena.chain_rels(rels, ids.len()).iter().all(|kind| *kind == Rel::Eq)
        }
        _ => r.arena.is_scalar(id) && r.arena.any(id, |n| matches!(n, Node::Sym(_))),
    }
}

/// The parts are alternatives.
fn says_or(source: &str) -> bool {
    let word = |word: &str| matches!(word, "or" | "lor" | "vee" | "ou" | "oder");
    source.contains(['或', '∨']) || source.split(|c: char| !c.is_alphabetic()).any(word)
}
