//! Arbitrary constants: those of integration and of a differential equation's general solution.
//!
//! Their names say nothing, nor does what an additive one has taken in: `(x − 6)³/3 + C` and
//! `x³/3 − 6x² + 36x + C` are the same family.

use super::super::ast::{Id, Node, Sym};
use super::super::eval::Field;
use super::super::eval::ball::{Ball, Balls, Sampling, mix};
use super::super::reading::Reading;
use super::names::{free_symbols, is_term};
use super::scalar::{both_signs, tells_signs};
use super::{Comparison, Val};

/// Points at which two families are asked, and how many of them must answer.
const POINTS: [Sampling; 8] = [
    Sampling::Positive,
    Sampling::Mixed,
    Sampling::Unit,
    Sampling::Large,
    Sampling::Positive,
    Sampling::Mixed,
    Sampling::Integers,
    Sampling::Unit,
];
const NEEDED: usize = 4;

/// Most constants that are tried in each order.
const MOST: usize = 3;

impl Comparison<'_> {
    /// The same but for the names of numbered constants, or for a number that an additive constant takes in.
    pub(super) fn same_family(&mut self, g: Val, p: Val) -> bool {
        let (gold, pred) = (self.gold, self.pred);
        if let (Some(c), Some(d)) = (additive(gold, g.id), additive(pred, p.id)) {
            return self.difference(g, p, &[(d, c)]).is_some();
        }
        let (cs, ds) = (numbered(gold, g.id), numbered(pred, p.id));
        if cs.len() < 2 || cs.len() != ds.len() || cs.len() > MOST {
            return false;
        }
        let orders: &[&[usize]] = match cs.len() {
            2 => &[&[0, 1], &[1, 0]],
            _ => &[&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]],
        };
        orders.iter().any(|order| {
            let alias: Vec<(Sym, Sym)> = ds.iter().zip(order.iter()).map(|(&d, &at)| (d, cs[at])).collect();
            self.difference(g, p, &alias).is_some_and(|d| d.abs() <= d.rad + 1e-9)
        })
    }

    /// Gold less the answer, where that is the same at every point.
    fn difference(&mut self, g: Val, p: Val, alias: &[(Sym, Sym)]) -> Option<Ball> {
        let mut first: Option<Ball> = None;
        let mut agreed = 0;
        let signs = tells_signs(self.gold, g.id) || tells_signs(self.pred, p.id);
        for (i, sampling) in POINTS.into_iter().chain(both_signs(signs)).enumerate() {
            let seed = i as u64 + 201;
            let a = self.ball(self.gold, g, sampling, seed, false, &[]);
            let b = self.ball(self.pred, p, sampling, seed, false, alias);
            let (Ok(a), Ok(b)) = (a, b) else { continue };
            let mut field = Balls { seed: mix(seed), sampling, sign: true, ignore_units: false, alias: &[] };
            let b = field.neg(&b);
            let Ok(d) = field.add(&a, &b, self.budget) else { continue };
            if d.left || d.rad > 1e-7 * (1.0 + a.abs()) {
                continue;
            }
            match first {
                None => first = Some(d),
                Some(before) if before.apart(&d) => return None,
                Some(_) => {}
            }
            agreed += 1;
        }
        first.filter(|_| agreed >= NEEDED)
    }
}

/// The constant of integration that a value of a variable ends with: `C`, unless the letters beside it in
/// the alphabet make a parameter of it.
fn additive(r: &Reading, id: Id) -> Option<Sym> {
    let letters = free_symbols(r, id);
    let mut found = letters.iter().filter(|&&s| matches!(r.arena.name(s), "C" | "c"));
    let (&c, None) = (found.next()?, found.next()) else { return None };
    let beside: [&str; 2] = if r.arena.name(c) == "c" { ["a", "b"] } else { ["A", "B"] };
    let parameters = letters.iter().any(|&s| beside.contains(&r.arena.name(s)));
    let once = r.arena.subtree(r.root).iter().filter(|n| **n == Node::Sym(c)).count() == 1;
    (letters.len() > 1 && !parameters && once && is_term(r, id, c)).then_some(c)
}

/// The constants `c_1`, `c_2` of a general solution, or A and B.
fn numbered(r: &Reading, id: Id) -> Vec<Sym> {
    let letters = free_symbols(r, id);
    let index = |name: &str| {
        let rest = name.strip_prefix(['C', 'c', 'K', 'k']).unwrap_or("").trim_start_matches('_');
        rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_digit())
    };
    let of = |test: &dyn Fn(&str) -> bool| -> Vec<Sym> {
        letters.iter().filter(|&&s| test(r.arena.name(s))).copied().collect()
    };
    let constants = of(&index);
    if !constants.is_empty() {
        return constants;
    }
    of(&|name| matches!(name, "A" | "B"))
}
