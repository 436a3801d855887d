//! Symbols that differ in name only: constants of integration, parameters, and one letter typed in two ways.

use super::super::ast::{Func, Id, Node, Sym};
use super::super::reading::Reading;
use super::{Comparison, Val};

impl Comparison<'_> {
    /// Arbitrary constants and parameters that only differ in name: the `C` of an integral and `c`, the
    /// `k` of `k\pi` and `n`. Any other letter means what it says.
    pub(super) fn aliases(&self, g: Val, p: Val) -> Vec<(Sym, Sym)> {
        let (gold, pred) = (self.gold, self.pred);
        let (a, b) = (free_symbols(gold, g.id), free_symbols(pred, p.id));
        let only_gold: Vec<Sym> = a.iter().filter(|s| !b.contains(s)).copied().collect();
        let only_pred: Vec<Sym> = b.iter().filter(|s| !a.contains(s)).copied().collect();
        if only_gold.len() != only_pred.len() || only_gold.is_empty() {
            return Vec::new();
        }
        // Multiples of π: solutions, one for each value of the only letter.
        let pi = |r: &Reading, id: Id| r.arena.any(id, |n| *n == Node::Pi);
        let family = a.len() == 1 && b.len() == 1 && pi(gold, g.id) && pi(pred, p.id);
        let mut pairs = Vec::new();
        for &s in &only_pred {
            let name = pred.arena.name(s);
            let twin = only_gold.iter().copied().find(|&t| {
                let other = gold.arena.name(t);
                same_letter(other, name)
                    || (family && is_parameter(other) && is_parameter(name))
                    || (a.len() > 1 && arbitrary((gold, g.id, t, other), (pred, p.id, s, name)))
            });
            match twin {
                Some(t) => pairs.push((s, t)),
                None => return Vec::new(),
            }
        }
        pairs
    }
}

/// The symbols of a subtree, few at most.
pub(super) fn free_symbols(r: &Reading, id: Id) -> Vec<Sym> {
    let mut syms: Vec<Sym> = Vec::new();
    for n in r.arena.subtree(id) {
        if let Node::Sym(s) = n
            && !syms.contains(s)
            && syms.len() < 32
        {
            syms.push(*s);
        }
    }
    syms
}

/// Of n, k and m only whole numbers are meant where steps tell them from others: in `\lfloor n/2 \rfloor`.
pub(super) fn names_whole_numbers(r: &Reading, id: Id) -> bool {
    free_symbols(r, id).iter().all(|&s| matches!(r.arena.name(s), "n" | "k" | "m"))
}

/// `\varphi` and `\phi`, `x_1` and `x1`.
fn same_letter(a: &str, b: &str) -> bool {
    let plain = |name: &str| name.trim_start_matches("var").replace('_', "");
    plain(a) == plain(b)
}

/// Constants of integration under two names: numbered alike, added on their own, or `C` before an exponential.
fn arbitrary(gold: (&Reading, Id, Sym, &str), pred: (&Reading, Id, Sym, &str)) -> bool {
    let index = |name: &str| name.strip_prefix(['C', 'c', 'K', 'k']).map(|rest| rest.replace('_', ""));
    let (Some(i), Some(j)) = (index(gold.3), index(pred.3)) else { return false };
    if i != j {
        return false;
    }
    let exponential = |r: &Reading, id: Id| r.arena.any(id, |n| matches!(n, Node::Euler | Node::Call(Func::Exp, _)));
    let c = |name: &str| name.starts_with(['C', 'c']);
    !i.is_empty()
        || (is_term(gold.0, gold.1, gold.2) && is_term(pred.0, pred.1, pred.2))
        || (c(gold.3) && c(pred.3) && (exponential(gold.0, gold.1) || !parameters(gold.0) && !parameters(pred.0)))
}

/// The answer has letters that c stands beside in the alphabet.
fn parameters(r: &Reading) -> bool {
    r.arena.names.iter().any(|(_, name)| matches!(name.as_str(), "a" | "b" | "A" | "B"))
}

/// The symbol is a term of its own in a sum.
pub(super) fn is_term(r: &Reading, mut id: Id, sym: Sym) -> bool {
    let is = |id: Id| *r.node(id) == Node::Sym(sym);
    loop {
        match *r.node(id) {
            Node::Add(a, b) | Node::Sub(a, b) if is(a) || is(b) => return true,
            Node::Add(a, _) | Node::Sub(a, _) => id = a,
            _ => return false,
        }
    }
}

fn is_parameter(name: &str) -> bool {
    matches!(name, "k" | "n" | "m" | "l")
}
