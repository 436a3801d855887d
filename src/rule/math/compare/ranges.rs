//! Sets of real numbers: intervals, unions, inequalities in one variable, brought to sorted pieces.

use super::super::ast::{Func2, Id, List, Node, Numbers, Rel, Sym};
use super::super::budget::Budget;
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal};
use super::{Comparison, Val, form};

/// Where an interval ends, and its approximate value; no node for the infinities.
type End = (Option<Val>, f64);

/// One interval of a set of real numbers; a point when both ends are the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub lo: End,
    pub hi: End,
    pub closed: (bool, bool),
}

impl Comparison<'_> {
    /// Sets of real numbers as unions of intervals.
    pub(super) fn ranges(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        match (self.pieces(gold, g), self.pieces(pred, p)) {
            (Some(a), Some(b)) => {
                if a.len() != b.len() {
                    return Different("count");
                }
                for (x, y) in a.iter().zip(&b) {
                    if x.closed != y.closed {
                        return Different("bracket");
                    }
                    for ((gi, gv), (pi, pv)) in [(x.lo, y.lo), (x.hi, y.hi)] {
                        let found = match (gi, pi) {
                            (None, None) if gv == pv => Equal("exact"),
                            (Some(gi), Some(pi)) => self.scalars(gi, pi),
                            _ => Different("endpoint"),
                        };
                        if !found.is_equal() {
                            return found;
                        }
                    }
                }
                Equal("intervals")
            }
            (None, Some(b)) => match self.solutions(gold, g, &b) {
                Some(found) => found,
                None => self.same_shape(g, p),
            },
            (Some(a), None) => match self.solutions(pred, p, &a) {
                Some(found) => found,
                None => self.same_shape(g, p),
            },
            (None, None) => self.same_shape(g, p),
        }
    }

    /// Whether every real number satisfies one of the conditions; `None` where they are no intervals.
    pub(super) fn everywhere(&mut self, r: &Reading, conditions: &[Id]) -> Option<bool> {
        let mut all = Vec::new();
        for &id in conditions {
            all.extend(self.pieces(r, id)?);
        }
        let union = merge(all);
        Some(matches!(union[..], [whole] if whole.lo.0.is_none() && whole.hi.0.is_none()))
    }

    /// Interval expressions with symbols in them: the same operations on equal parts.
    fn same_shape(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        match (gold.node(g), pred.node(p)) {
            (Node::Interval { lo: a, hi: b, closed: c }, Node::Interval { lo: x, hi: y, closed: z }) => {
                if c != z {
                    return Different("bracket");
                }
                self.ordered(&[*a, *b], &[*x, *y])
            }
            (Node::Union(a, b), Node::Union(x, y)) | (Node::Intersection(a, b), Node::Intersection(x, y)) => {
                let (a, b, x, y) = (*a, *b, *x, *y);
                let straight = self.ordered(&[a, b], &[x, y]);
                if straight.is_equal() { straight } else { self.ordered(&[a, b], &[y, x]) }
            }
            (Node::Difference(a, b), Node::Difference(x, y)) | (Node::SetOf(a, b), Node::SetOf(x, y)) => {
                self.ordered(&[*a, *b], &[*x, *y])
            }
            (Node::Set(_) | Node::List(_) | Node::Tuple(_), Node::Set(_) | Node::List(_) | Node::Tuple(_)) => {
                self.lists(g, p)
            }
            _ => Different("different_kind"),
        }
    }

    /// The intervals of a set of reals, sorted and merged; `None` where ends are symbolic, or where inequalities
    /// speak of different letters.
    fn pieces(&mut self, r: &Reading, id: Id) -> Option<Vec<Piece>> {
        if of_different_letters(r, id) {
            return None;
        }
        let mut out = Vec::new();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            match *r.node(id) {
                Node::Union(a, b) => stack.extend([a, b]),
                Node::List(list) => self.list_pieces(r, list, &mut out, &mut stack)?,
                Node::Interval { lo, hi, closed } => out.push(self.piece(r, lo, hi, closed)?),
                Node::Tuple(list) => match *r.arena.list(list) {
                    [lo, hi] => out.push(self.piece(r, lo, hi, (false, false))?),
                    _ => return None,
                },
                Node::Set(list) => {
                    for &id in r.arena.list(list) {
                        out.extend(self.points(r, id)?);
                    }
                }
                // {x ∈ ℤ | 1 ≤ x ≤ 3} is no interval.
                Node::SetOf(what, _)
                    if r.arena.any(what, |n| matches!(n, Node::Numbers(set) if *set != Numbers::Reals)) =>
                {
                    return None;
                }
                // {y | x ≥ 0} is no set of y.
                Node::SetOf(what, condition)
                    if matches!(*r.node(what), Node::Sym(sym)
                    if !r.arena.any(condition, |n| *n == Node::Sym(sym))) =>
                {
                    return None;
                }
                Node::SetOf(_, condition) => stack.push(condition),
                Node::Numbers(Numbers::Reals) => out.push(everything()),
                Node::Numbers(Numbers::Empty) => {}
                Node::Chain { operands, rels } => {
                    let ids = r.arena.list(operands).to_vec();
                    let kinds = r.arena.chain_rels(rels, ids.len()).to_vec();
                    self.chain_pieces(r, &ids, &kinds, &mut out, &mut stack)?;
                }
                Node::All(list) => out.extend(self.common_pieces(r, list)?),
                Node::Difference(a, b) => {
                    let whole = self.simple_pieces(r, a)?;
                    let rest = match *r.node(b) {
                        Node::Set(points) => self.without(r, r.arena.list(points))?,
                        _ => complement(&self.simple_pieces(r, b)?),
                    };
                    out.extend(intersect(vec![whole, rest], self.budget)?);
                }
                Node::Intersection(a, b) => {
                    let parts = vec![self.simple_pieces(r, a)?, self.simple_pieces(r, b)?];
                    out.extend(intersect(parts, self.budget)?);
                }
                _ if r.arena.is_scalar(id) => out.extend(self.points(r, id)?),
                _ => return None,
            }
            if out.len() + stack.len() > 2000 {
                return None;
            }
        }
        Some(merge(out))
    }

    /// "x < 1 or x > 3": what the items of a list come to, or the items themselves for later.
    fn list_pieces(&mut self, r: &Reading, list: List, out: &mut Vec<Piece>, later: &mut Vec<Id>) -> Option<()> {
        let ids = r.arena.list(list);
        // "x ∈ ℝ, x ≠ 2": the first says only of what kind the others speak.
        let real = |id: &&Id| {
            matches!(*r.node(**id), Node::Chain { operands, rels }
                if matches!(*r.arena.list(operands), [name, set]
                    if *r.node(set) == Node::Numbers(Numbers::Reals) && matches!(r.node(name), Node::Sym(_)))
                    && r.arena.chain_rels(rels, 2) == [Rel::In])
        };
        let said: Vec<Id> = ids.iter().filter(|id| !real(id)).copied().collect();
        let ids = if said.is_empty() { ids } else { &said[..] };
        let excluded = |id: &Id| form::is_excluded(r, *id);
        let point = |id: &Id| form::is_constant(r, *id);
        if ids.first().is_some_and(excluded) && ids.iter().all(|id| excluded(id) || point(id)) {
            // "x ≠ 1, x ≠ 2" both hold; "x ≠ 1, 2" is short for it.
            let (points, chains): (Vec<Id>, Vec<Id>) = ids.iter().partition(|id| point(id));
            let parts: Option<Vec<_>> = chains.iter().map(|&id| self.simple_pieces(r, id)).collect();
            let mut parts = parts?;
            parts.push(self.without(r, &points)?);
            out.extend(intersect(parts, self.budget)?);
            return Some(());
        }
        if !ids.iter().all(|&id| matches!(r.node(id), Node::Chain { .. } | Node::Interval { .. })) {
            return None;
        }
        later.extend(ids);
        Some(())
    }

    /// What all statements of a list allow.
    fn common_pieces(&mut self, r: &Reading, list: List) -> Option<Vec<Piece>> {
        let parts: Option<Vec<Vec<Piece>>> =
            r.arena.list(list).to_vec().into_iter().map(|id| self.simple_pieces(r, id)).collect();
        let parts = parts?;
        let common = intersect(parts.clone(), self.budget)?;
        // Gold that says "x < 1 and x > 3" means either.
        let sloppy = common.is_empty() && std::ptr::eq(r, self.gold);
        Some(if sloppy { merge(parts.concat()) } else { common })
    }

    /// Pieces of a part without further nesting.
    fn simple_pieces(&mut self, r: &Reading, id: Id) -> Option<Vec<Piece>> {
        match *r.node(id) {
            Node::Numbers(Numbers::Reals) => Some(vec![everything()]),
            Node::Interval { lo, hi, closed } => Some(vec![self.piece(r, lo, hi, closed)?]),
            Node::Tuple(list) => match *r.arena.list(list) {
                [lo, hi] => Some(vec![self.piece(r, lo, hi, (false, false))?]),
                _ => None,
            },
            Node::Chain { operands, rels } => {
                let ids = r.arena.list(operands).to_vec();
                let kinds = r.arena.chain_rels(rels, ids.len()).to_vec();
                let (mut out, mut stack) = (Vec::new(), Vec::new());
                self.chain_pieces(r, &ids, &kinds, &mut out, &mut stack)?;
                stack.is_empty().then(|| merge(out))
            }
            _ => None,
        }
    }

    /// `a < x ≤ b`, `x > 3`, `x ≠ 2`, `x ∈ S` for one variable.
    fn chain_pieces(
        &mut self,
        r: &Reading,
        ids: &[Id],
        kinds: &[Rel],
        out: &mut Vec<Piece>,
        stack: &mut Vec<Id>,
    ) -> Option<()> {
        if let ([name, set], [Rel::In]) = (ids, kinds) {
            if !form::is_named(r, *name) {
                return None;
            }
            stack.push(*set);
            return Some(());
        }
        if let (&[name, set], [Rel::NotIn]) = (ids, kinds)
            && let (Node::Sym(_), &Node::Set(points)) = (r.node(name), r.node(set))
        {
            out.extend(self.without(r, r.arena.list(points))?);
            return Some(());
        }
        let at = ids.iter().position(|&id| matches!(r.node(id), Node::Sym(_)) || form::is_function_value(r, id))?;
        if ids.iter().enumerate().any(|(i, &id)| i != at && !form::is_constant(r, id)) {
            return None;
        }
        if let ([_, _], [Rel::Ne]) = (ids, kinds) {
            out.extend(self.without(r, &[ids[1 - at]])?);
            return Some(());
        }
        if let ([_, _], [Rel::Eq]) = (ids, kinds) {
            out.extend(self.points(r, ids[1 - at])?);
            return Some(());
        }
        if ids.len() > 3 || !kinds.iter().all(|k| k.is_order()) {
            return None;
        }
        let mut piece = everything();
        for (i, &kind) in kinds.iter().enumerate() {
            // The bound is on the left of the variable when it comes before it.
            let (bound, rel) = if i < at { (ids[i], kind.flipped()) } else { (ids[i + 1], kind) };
            let end = self.end(r, bound)?;
            match rel {
                Rel::Lt | Rel::Le => (piece.hi, piece.closed.1) = (end, rel == Rel::Le),
                _ => (piece.lo, piece.closed.0) = (end, rel == Rel::Ge),
            }
        }
        piece.closed.0 &= piece.lo.0.is_some();
        piece.closed.1 &= piece.hi.0.is_some();
        out.push(piece);
        Some(())
    }

    /// The points that a value is: two where it holds a ±.
    fn points(&mut self, r: &Reading, id: Id) -> Option<Vec<Piece>> {
        let ends: Option<Vec<End>> = form::values(r, id).into_iter().map(|val| self.signed_end(r, val)).collect();
        Some(ends?.into_iter().map(|end| Piece { lo: end, hi: end, closed: (true, true) }).collect())
    }

    /// All real numbers but these points.
    fn without(&mut self, r: &Reading, points: &[Id]) -> Option<Vec<Piece>> {
        let mut taken = Vec::new();
        for &id in points {
            taken.extend(self.points(r, id)?);
        }
        Some(complement(&merge(taken)))
    }

    fn end(&mut self, r: &Reading, id: Id) -> Option<End> {
        self.signed_end(r, Val::of(id))
    }

    fn signed_end(&mut self, r: &Reading, val: Val) -> Option<End> {
        match form::infinity(r, val.id) {
            Some(true) => return Some((None, f64::INFINITY)),
            Some(false) => return Some((None, f64::NEG_INFINITY)),
            None => {}
        }
        if !form::is_constant(r, val.id) {
            return None;
        }
        let key = self.key(r, val);
        key.is_finite().then_some((Some(val), key))
    }

    fn piece(&mut self, r: &Reading, lo: Id, hi: Id, closed: (bool, bool)) -> Option<Piece> {
        let (lo, hi) = (self.end(r, lo)?, self.end(r, hi)?);
        // (7, 4) is a point: no interval runs backwards, nor holds nothing.
        if lo.1 > hi.1 || (lo.1 == hi.1 && closed != (true, true)) {
            return None;
        }
        Some(Piece { lo, hi, closed: (closed.0 && lo.0.is_some(), closed.1 && hi.0.is_some()) })
    }
}

/// Whether the relations of a list bound more letters than one.
fn of_different_letters(r: &Reading, id: Id) -> bool {
    let (Node::All(list) | Node::List(list)) = *r.node(id) else { return false };
    let mut letters = r.arena.list(list).iter().filter_map(|&id| letter(r, id));
    let first = letters.next();
    letters.any(|other| Some(other) != first)
}

/// The letter that a relation bounds, or the function whose value it does.
fn letter(r: &Reading, id: Id) -> Option<Sym> {
    let Node::Chain { operands, .. } = *r.node(id) else { return None };
    r.arena.list(operands).iter().find_map(|&id| match *r.node(id) {
        Node::Sym(sym) => Some(sym),
        Node::Call2(Func2::Apply, function, _) => match *r.node(function) {
            Node::Sym(sym) => Some(sym),
            _ => None,
        },
        _ => None,
    })
}

fn everything() -> Piece {
    Piece { lo: (None, f64::NEG_INFINITY), hi: (None, f64::INFINITY), closed: (false, false) }
}

/// Everything but these pieces, which are sorted and apart.
fn complement(pieces: &[Piece]) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut rest = everything();
    for piece in pieces {
        out.push(Piece { hi: piece.lo, closed: (rest.closed.0, !piece.closed.0 && piece.lo.0.is_some()), ..rest });
        rest = Piece { lo: piece.hi, closed: (!piece.closed.1 && piece.hi.0.is_some(), false), ..rest };
    }
    out.push(rest);
    merge(out)
}

fn near(a: f64, b: f64) -> bool {
    a == b || (a.is_finite() && b.is_finite() && (a - b).abs() <= 1e-12 * a.abs().max(b.abs()))
}

/// Sorts and joins pieces that overlap or touch; drops empty ones.
fn merge(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.retain(|p| p.lo.1 < p.hi.1 || (near(p.lo.1, p.hi.1) && p.closed == (true, true)));
    pieces.sort_by(|a, b| a.lo.1.total_cmp(&b.lo.1).then(b.closed.0.cmp(&a.closed.0)));
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if let Some(last) = out.last_mut() {
            let touch = near(last.hi.1, piece.lo.1);
            if (!touch && piece.lo.1 < last.hi.1) || (touch && (last.closed.1 || piece.closed.0)) {
                if near(piece.hi.1, last.hi.1) {
                    last.closed.1 |= piece.closed.1;
                } else if piece.hi.1 > last.hi.1 {
                    (last.hi, last.closed.1) = (piece.hi, piece.closed.1);
                }
                continue;
            }
        }
        out.push(piece);
    }
    out
}

/// The common part of several unions; `None` where looking for it costs too much.
fn intersect(parts: Vec<Vec<Piece>>, budget: &mut Budget) -> Option<Vec<Piece>> {
    let mut parts = parts.into_iter();
    let mut common = parts.next().unwrap_or_default();
    for part in parts {
        // Each pair once, and sorting what they have in common.
        budget.charge((common.len() * part.len()) as u64 * 16 + 8).ok()?;
        let mut next = Vec::new();
        for a in &common {
            for b in &part {
                let (lo, lc) = match a.lo.1.total_cmp(&b.lo.1) {
                    _ if near(a.lo.1, b.lo.1) => (a.lo, a.closed.0 && b.closed.0),
                    std::cmp::Ordering::Less => (b.lo, b.closed.0),
                    _ => (a.lo, a.closed.0),
                };
                let (hi, hc) = match a.hi.1.total_cmp(&b.hi.1) {
                    _ if near(a.hi.1, b.hi.1) => (a.hi, a.closed.1 && b.closed.1),
                    std::cmp::Ordering::Greater => (b.hi, b.closed.1),
                    _ => (a.hi, a.closed.1),
                };
                if next.len() < 4000 {
                    next.push(Piece { lo, hi, closed: (lc, hc) });
                }
            }
        }
        common = merge(next);
    }
    Some(common)
}
