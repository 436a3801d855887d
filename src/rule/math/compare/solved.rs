//! An inequality beside the set of its solutions: `|x − 2| ≤ 5` and `[−3, 7]`.
//!
//! Both are asked at the same points: the ends of the intervals and points close to them, the middles
//! between them, whole numbers, halves and thirds near zero, and points far out. One point where they
//! disagree is a difference. What agrees at all of them is taken for equal: a relation would have to change
//! its truth twice between two neighbouring points that no end marks.

use super::super::ast::{Id, Node, Rel, Sym};
use super::super::budget::Stop;
use super::super::eval::ball::{Balls, Sampling};
use super::super::eval::eval;
use super::super::reading::Reading;
use super::Comparison;
use super::Finding::{self, Different, Equal, Unknown};
use super::ranges::Piece;

/// Most intervals whose ends are tried.
const MANY: usize = 16;

impl Comparison<'_> {
    /// Compares a relation that is not solved for its variable with intervals; `None` where it is
    /// no inequality in one real variable.
    pub(super) fn solutions(&mut self, r: &Reading, relation: Id, pieces: &[Piece]) -> Option<Finding> {
        let relation = match *r.node(relation) {
            Node::SetOf(what, condition)
                if matches!(*r.node(what), Node::Sym(sym)
                if r.arena.any(condition, |n| *n == Node::Sym(sym))) =>
            {
                condition
            }
            _ => relation,
        };
        let Node::Chain { operands, rels } = *r.node(relation) else { return None };
        let ids = r.arena.list(operands);
        let kinds = r.arena.chain_rels(rels, ids.len());
        if pieces.len() > MANY || !kinds.iter().all(|k| k.is_order()) || !ids.iter().all(|&id| r.arena.is_scalar(id)) {
            return None;
        }
        let mut variable: Option<Sym> = None;
        for node in r.arena.subtree(relation) {
            match *node {
                Node::Sym(sym) if variable.is_some_and(|v| v != sym) => return None,
                Node::Sym(sym) => variable = Some(sym),
                Node::Imaginary | Node::PlusMinus(..) => return None,
                _ => {}
            }
        }
        variable?;
        for x in points(pieces) {
            match self.holds(r, ids, kinds, x) {
                Ok(holds) if holds != contains(pieces, x) => return Some(Different("solutions")),
                Ok(_) => {}
                Err(Stop::Budget) => return Some(Unknown("budget")),
                Err(_) => return None,
            }
        }
        Some(Equal("solutions"))
    }

    /// Whether a chain of inequalities holds at `x`; where a side has no real value, it does not.
    pub(super) fn holds(&mut self, r: &Reading, ids: &[Id], kinds: &[Rel], x: f64) -> Result<bool, Stop> {
        let mut field = Balls { seed: 0, sampling: Sampling::At(x), sign: true, ignore_units: true, alias: &[] };
        let mut values = Vec::with_capacity(ids.len());
        for &id in ids {
            match eval(&mut field, &r.arena, &r.exact, id, self.budget) {
                Ok(value) if value.left || value.im != 0.0 => return Ok(false),
                Ok(value) => values.push(value),
                Err(Stop::Undefined) => return Ok(false),
                Err(stop) => return Err(stop),
            }
        }
        Ok(values.windows(2).zip(kinds).all(|(sides, rel)| {
            let difference = sides[0].re - sides[1].re;
            let blur = sides[0].rad + sides[1].rad + 1e-12 * (1.0 + sides[0].abs() + sides[1].abs());
            match (rel, difference.abs() <= blur) {
                (Rel::Le | Rel::Ge, true) => true,
                (_, true) => false,
                (Rel::Lt | Rel::Le, false) => difference < 0.0,
                _ => difference > 0.0,
            }
        }))
    }
}

fn contains(pieces: &[Piece], x: f64) -> bool {
    pieces.iter().any(|piece| {
        let above = x > piece.lo.1 || (x == piece.lo.1 && piece.closed.0);
        above && (x < piece.hi.1 || (x == piece.hi.1 && piece.closed.1))
    })
}

/// Where to ask, in a fixed order.
fn points(pieces: &[Piece]) -> Vec<f64> {
    let mut ends: Vec<f64> = pieces.iter().flat_map(|p| [p.lo.1, p.hi.1]).filter(|e| e.is_finite()).collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup();
    let mut points = ends.clone();
    for (i, &end) in ends.iter().enumerate() {
        let gap = ends.get(i + 1).map_or(1.0, |next| next - end).min(1.0);
        let before = if i > 0 { (end - ends[i - 1]).min(1.0) } else { 1.0 };
        points.extend([1e-3, 0.1, 0.37, 0.5].iter().flat_map(|part| [end + part * gap, end - part * before]));
    }
    points.extend(ends.windows(2).map(|pair| 0.5 * (pair[0] + pair[1])));
    points.extend((-24..=24).map(f64::from));
    points.extend((-12..=12).flat_map(|n| [f64::from(n) + 0.5, f64::from(n) + 1.0 / 3.0, f64::from(n) - 1.0 / 3.0]));
    let reach = ends.iter().fold(1.0f64, |reach, end| reach.max(end.abs()));
    points.extend([1.7, 5.3, 31.0, 1e3, 1e6].iter().flat_map(|far| [far * reach, -far * reach]));
    // 1 − 1/3 is not the end at 2/3, but for rounding.
    points.retain(|x| ends.iter().all(|end| x == end || (x - end).abs() > 1e-9 * (1.0 + end.abs())));
    points
}
