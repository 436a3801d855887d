//! Units on one side only, or written another way: marks, prices, and letters that are units.

use super::super::ast::{Id, Node, Sym, hash_name};
use super::super::eval::ball::{ONE, Sampling, UNITS};
use super::super::number::Q;
use super::super::reading::Reading;
use super::super::units;
use super::Finding::{self, Different, Equal};
use super::names::free_symbols;
use super::{Comparison, Val, form};

/// Which marks of unit a value carries.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Marks {
    pub(super) unit: bool,
    pub(super) percent: bool,
    pub(super) degree: bool,
}

pub(super) fn marks(r: &Reading, id: Id) -> Marks {
    let mut m = Marks::default();
    for n in r.arena.subtree(id) {
        match n {
            Node::Unit(_) => m.unit = true,
            Node::Percent(_) => m.percent = true,
            Node::Degree(_) => m.degree = true,
            _ => {}
        }
    }
    m
}

impl Comparison<'_> {
    /// `£7` and "7 pounds": beside a price, pounds are money.
    pub(super) fn sterling(&self, g: Id, p: Id) -> bool {
        let all = |r: &Reading, id: Id, name: &str| {
            r.arena.subtree(id).iter().all(|n| !matches!(n, Node::Unit(unit) if !units::is_named(*unit, name)))
        };
        (all(self.gold, g, "£") && all(self.pred, p, "pounds"))
            || (all(self.gold, g, "pounds") && all(self.pred, p, "£"))
    }

    /// `5000 m` and `10 m/s` typed as mathematics beside units: all letters of the one side are units.
    pub(super) fn lettered_units(&mut self, g: Val, p: Val, gm: Marks, pm: Marks) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let (r, id) = match (gm.unit, pm.unit) {
            (true, false) => (pred, p.id),
            (false, true) => (gold, g.id),
            _ => return None,
        };
        let letters = free_symbols(r, id);
        let other = if gm.unit { (gold, g.id) } else { (pred, p.id) };
        if letters.is_empty() || other.0.arena.any(other.1, |n| matches!(n, Node::Sym(_))) {
            return None;
        }
        let number =
            r.arena.any(id, |n| matches!(n, Node::Num(q) if *q != Q::ONE) || matches!(n, Node::Decimal { .. }));
        if !number {
            return None;
        }
        let mut alias = Vec::with_capacity(letters.len());
        for sym in letters {
            let name = r.arena.name(sym);
            let unit = units::find(name).filter(|_| name.len() == 1 && name.is_ascii())?;
            alias.push((sym, UNITS + Sym::from(unit.index)));
        }
        let x = self.ball(gold, g, Sampling::Positive, 1, false, &alias).ok()?;
        let y = self.ball(pred, p, Sampling::Positive, 1, false, &alias).ok()?;
        Some(if x.apart(&y) { Different("unit") } else { Equal("numeric") })
    }

    /// `17 m` typed as mathematics: a lone letter that is a unit where the other side has one,
    /// or has none to be taken for a variable.
    pub(super) fn letter_units(&mut self, g: Val, p: Val, gm: Marks, pm: Marks) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let sym = |n: &Node| matches!(n, Node::Sym(_));
        let (a, b) = (form::letter_unit(gold, g.id), form::letter_unit(pred, p.id));
        let letter = match (a, b) {
            (Some((letter, power)), None) if !pred.arena.any(p.id, sym) && (power > 1 || pm.unit) => letter,
            (None, Some((letter, _))) if !gold.arena.any(g.id, sym) => letter,
            _ => return None,
        };
        let other = if a.is_some() { (pred, p.id, pm) } else { (gold, g.id, gm) };
        if other.2.unit && !other.0.arena.any(other.1, |n| matches!(n, Node::Unit(u) if units::is_named(*u, letter))) {
            return None;
        }
        let alias = [(hash_name(letter), ONE)];
        let x = self.ball(gold, g, Sampling::Positive, 1, true, &alias).ok()?;
        let y = self.ball(pred, p, Sampling::Positive, 1, true, &alias).ok()?;
        Some(if x.apart(&y) { Different("numeric") } else { Equal("numeric") })
    }
}
