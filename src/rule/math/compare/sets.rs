//! Values side by side: lists, sets, tuples, matrices, intervals and their unions, times and ratios.

use super::super::ast::{Id, Node, Numbers, Rel};
use super::super::eval::ball::{Balls, Sampling, mix};
use super::super::eval::eval;
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal, Unknown};
use super::form::Factor;
use super::{Comparison, Val, form, scalar};

/// One interval of a set of real numbers; a point when both ends are the same.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Node and approximate value of each end; no node for the infinities.
    lo: (Option<Id>, f64),
    hi: (Option<Id>, f64),
    closed: (bool, bool),
}

impl Comparison<'_> {
    /// At least one side is more than a single value.
    pub(super) fn structures(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        match (gold.node(g), pred.node(p)) {
            (Node::Dots, Node::Dots) => return Equal("exact"),
            (Node::Numbers(a), Node::Numbers(b)) => {
                return if a == b { Equal("exact") } else { Different("exact") };
            }
            (Node::Tuple(a), Node::Tuple(b)) => {
                let found = self.ordered(gold.arena.list(*a), pred.arena.list(*b));
                return found;
            }
            (Node::Matrix { rows: r1, cols: c1, entries: a }, Node::Matrix { rows: r2, cols: c2, entries: b }) => {
                if (r1, c1) != (r2, c2) {
                    return Different("shape");
                }
                return self.ordered(gold.arena.list(*a), pred.arena.list(*b));
            }
            (Node::Matrix { rows, cols, entries }, Node::Tuple(list)) if *rows == 1 || *cols == 1 => {
                return self.ordered(gold.arena.list(*entries), pred.arena.list(*list));
            }
            (Node::Tuple(list), Node::Matrix { rows, cols, entries }) if *rows == 1 || *cols == 1 => {
                return self.ordered(gold.arena.list(*list), pred.arena.list(*entries));
            }
            (Node::Colon { .. }, _) | (_, Node::Colon { .. }) => return self.colons(g, p),
            (Node::Mul(..) | Node::Matrix { .. } | Node::Div(..) | Node::Neg(_), _)
                if form::scaled_matrix(gold, g).is_some() && form::scaled_matrix(pred, p).is_some() =>
            {
                return self.scaled_matrices(g, p);
            }
            (Node::Call(f, a), Node::Call(h, b)) if f == h => return self.compare(*a, *b),
            (Node::Neg(a), Node::Neg(b)) => return self.compare(*a, *b),
            (Node::Add(a, b), Node::Add(c, d))
            | (Node::Sub(a, b), Node::Sub(c, d))
            | (Node::Mul(a, b), Node::Mul(c, d))
            | (Node::Div(a, b), Node::Div(c, d)) => {
                let (a, b, c, d) = (*a, *b, *c, *d);
                let first = self.compare(a, c);
                return if first.is_equal() { self.compare(b, d) } else { first };
            }
            _ => {}
        }
        if let Some(found) = self.named_values(g, p) {
            return found;
        }
        if let (Node::All(a), Node::All(b)) = (gold.node(g), pred.node(p)) {
            let vals = |ids: &[Id]| ids.iter().map(|&id| Val::of(id)).collect::<Vec<_>>();
            return self.unordered(&vals(gold.arena.list(*a)), &vals(pred.arena.list(*b)));
        }
        let is_range = |n: &Node| {
            matches!(
                n,
                Node::Interval { .. }
                    | Node::Union(..)
                    | Node::Intersection(..)
                    | Node::Difference(..)
                    | Node::SetOf(..)
                    | Node::Numbers(_)
            )
        };
        if is_range(gold.node(g)) || is_range(pred.node(p)) {
            return self.ranges(g, p);
        }
        self.lists(g, p)
    }

    fn ordered(&mut self, g: &[Id], p: &[Id]) -> Finding {
        if g.len() != p.len() {
            return Different("count");
        }
        let mut unknown = None;
        for (&g, &p) in g.iter().zip(p) {
            match self.compare(g, p) {
                Equal(_) => {}
                Different(step) => return Different(step),
                Unknown(why) => unknown = Some(Unknown(why)),
            }
        }
        unknown.unwrap_or(Equal("elementwise"))
    }

    /// A factor before a matrix multiplies its entries.
    fn scaled_matrices(&mut self, g: Id, p: Id) -> Finding {
        let (Some(a), Some(b)) = (form::scaled_matrix(self.gold, g), form::scaled_matrix(self.pred, p)) else {
            return Different("different_kind");
        };
        if (a.rows, a.cols) != (b.rows, b.cols) {
            return Different("shape");
        }
        for (&x, &y) in a.entries.iter().zip(&b.entries) {
            let found = self.products((a.factor, x), (b.factor, y));
            if !found.is_equal() {
                return found;
            }
        }
        Equal("elementwise")
    }

    /// Systems: names matched with names, or with a tuple in the order of the names.
    fn named_values(&mut self, g: Id, p: Id) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let tuple = |r: &Reading, id: Id| match *r.node(id) {
            Node::Tuple(list) => Some(r.arena.list(list).to_vec()),
            // "x = 2 or y = 3" gives no names their values.
            Node::List(list) => Some(r.arena.list(list).to_vec())
                .filter(|ids| !ids.iter().any(|&id| matches!(r.node(id), Node::Chain { .. }))),
            _ => None,
        };
        if let Some(found) = self.numbered(g, p) {
            return Some(found);
        }
        match (form::named(gold, g), form::named(pred, p)) {
            (Some(a), Some(b)) => {
                if a.len() != b.len() {
                    return Some(Different("count"));
                }
                for (name, value) in &a {
                    let Some((_, other)) = b.iter().find(|(n, _)| n == name) else { return Some(Different("names")) };
                    let found = self.compare(*value, *other);
                    if !found.is_equal() {
                        return Some(found);
                    }
                }
                Some(Equal("named"))
            }
            (Some(a), None) => {
                let values = tuple(pred, p)?;
                let names: Vec<Id> = sorted(gold, a).into_iter().map(|(_, v)| v).collect();
                Some(self.ordered(&names, &values))
            }
            (None, Some(b)) => {
                let values = tuple(gold, g)?;
                let names: Vec<Id> = sorted(pred, b).into_iter().map(|(_, v)| v).collect();
                Some(self.ordered(&values, &names))
            }
            (None, None) => None,
        }
    }

    /// `x_1 = 2, x_2 = 3` beside a list or set of values.
    fn numbered(&mut self, g: Id, p: Id) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let values = |r: &Reading, id: Id| match *r.node(id) {
            Node::List(_) | Node::Set(_) => Some(form::values(r, id)),
            _ => None,
        };
        let (a, b) = match (form::numbered(gold, g), form::numbered(pred, p)) {
            (Some(a), None) => (a, values(pred, p)?),
            (None, Some(b)) => (values(gold, g)?, b),
            _ => return None,
        };
        Some(self.unordered(&a, &b))
    }

    /// Lists and sets in any order, of the same cardinality; a tuple keeps its order.
    pub(super) fn lists(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let relations = |r: &Reading, ids: &[Id]| ids.iter().any(|&id| matches!(r.node(id), Node::Chain { .. }));
        if let (Node::Tuple(a), Node::List(b)) = (gold.node(g), pred.node(p)) {
            if relations(pred, pred.arena.list(*b)) {
                return Different("different_kind");
            }
            return self.ordered(gold.arena.list(*a), pred.arena.list(*b));
        }
        if let (Node::List(a), Node::Tuple(b)) = (gold.node(g), pred.node(p)) {
            if relations(gold, gold.arena.list(*a)) {
                return Different("different_kind");
            }
            return self.ordered(gold.arena.list(*a), pred.arena.list(*b));
        }
        if matches!(gold.node(g), Node::Tuple(_)) != matches!(pred.node(p), Node::Tuple(_)) {
            let lone = |r: &Reading, id: Id| match *r.node(id) {
                Node::Set(list) | Node::List(list) => match *r.arena.list(list) {
                    [one] => Some(one),
                    _ => None,
                },
                _ => None,
            };
            if let Some(one) = lone(gold, g) {
                return self.compare(one, p);
            }
            if let Some(one) = lone(pred, p) {
                return self.compare(g, one);
            }
            return Different("different_kind");
        }
        let (a, b) = (form::values(gold, g), form::values(pred, p));
        if let ([x], [y]) = (&a[..], &b[..])
            && x.id == g
            && y.id == p
        {
            return Different("different_kind");
        }
        let set = matches!(gold.node(g), Node::Set(_)) || matches!(pred.node(p), Node::Set(_));
        if matches!(gold.node(g), Node::Set(_)) && gold.arena.any(g, |n| matches!(n, Node::Dots)) {
            return if a.len() == b.len() { self.unordered(&a, &b) } else { Different("count") };
        }
        if a.len() != b.len() && !set {
            return Different("count");
        }
        if a.len() == b.len() {
            return self.unordered(&a, &b);
        }
        // A set does not count repeats.
        if a.len().max(b.len()) > 64 {
            return Different("count");
        }
        let covered = a.iter().all(|&x| b.iter().any(|&y| self.element(x, y).is_equal()))
            && b.iter().all(|&y| a.iter().any(|&x| self.element(x, y).is_equal()));
        if covered { Equal("set") } else { Different("count") }
    }

    fn element(&mut self, g: Val, p: Val) -> Finding {
        if self.gold.arena.is_scalar(g.id) && self.pred.arena.is_scalar(p.id) {
            return self.scalars(g, p);
        }
        self.compare(g.id, p.id)
    }

    /// Matches two multisets. Sorted by approximate value, equal elements face each other.
    fn unordered(&mut self, g: &[Val], p: &[Val]) -> Finding {
        if g.len() != p.len() {
            return Different("count");
        }
        let (a, b) = (self.sort(self.gold, g), self.sort(self.pred, p));
        let numeric = a.iter().chain(&b).all(|(key, _)| key.is_finite());
        let mut left: Vec<Val> = Vec::new();
        let mut right: Vec<Val> = Vec::new();
        let mut unknown = false;
        for (&(x, gv), &(y, pv)) in a.iter().zip(&b) {
            match self.element(gv, pv) {
                Equal(_) => continue,
                Unknown("budget") => return Unknown("budget"),
                Unknown(_) => unknown = true,
                Different(_) => {}
            }
            // Sorted values that are clearly apart cannot be matched by any order, unless a
            // tolerance or unit makes unequal numbers equal.
            if g.len() > 64 && numeric && (x - y).abs() > 1e-6 * x.abs().max(y.abs()).max(1.0) {
                return Different("element");
            }
            left.push(gv);
            right.push(pv);
        }
        if left.len() > 64 {
            return Unknown("budget");
        }
        for &gv in &left {
            let found = (0..right.len()).find(|&i| self.element(gv, right[i]).is_equal());
            match found {
                Some(i) => {
                    right.swap_remove(i);
                }
                None if unknown => return Unknown("element"),
                None => return Different("element"),
            }
        }
        Equal("unordered")
    }

    fn sort(&self, r: &Reading, vals: &[Val]) -> Vec<(f64, Val)> {
        let mut keyed: Vec<(f64, Val)> = vals.iter().map(|&v| (self.key(r, v), v)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        keyed
    }

    /// A number to sort by; infinite where there is none.
    fn key(&self, r: &Reading, v: Val) -> f64 {
        if let Some(q) = r.value(v.id) {
            return q.to_f64();
        }
        let id = match *r.node(v.id) {
            Node::Tuple(list) => *r.arena.list(list).first().unwrap_or(&v.id),
            _ => form::unname(r, v.id),
        };
        let mut field =
            Balls { seed: mix(1), sampling: Sampling::Positive, sign: v.sign, ignore_units: true, alias: &[] };
        let mut budget = super::Budget::new(20_000);
        match eval(&mut field, &r.arena, &r.exact, id, &mut budget) {
            Ok(ball) => ball.re + ball.im * 1e-3,
            Err(_) => f64::INFINITY,
        }
    }

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
                            (Some(gi), Some(pi)) => self.scalars(Val::of(gi), Val::of(pi)),
                            _ => Different("endpoint"),
                        };
                        if !found.is_equal() {
                            return found;
                        }
                    }
                }
                Equal("intervals")
            }
            _ => self.same_shape(g, p),
        }
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

    /// The intervals of a set of reals, sorted and merged; `None` where ends are symbolic.
    fn pieces(&mut self, r: &Reading, id: Id) -> Option<Vec<Piece>> {
        let mut out = Vec::new();
        let mut stack = vec![id];
        while let Some(id) = stack.pop() {
            match *r.node(id) {
                Node::Union(a, b) => stack.extend([a, b]),
                Node::List(list) => {
                    // "x < 1 or x > 3".
                    let ids = r.arena.list(list);
                    if !ids.iter().all(|&id| matches!(r.node(id), Node::Chain { .. } | Node::Interval { .. })) {
                        return None;
                    }
                    let excluded = |id: &Id| {
                        matches!(*r.node(*id), Node::Chain { operands, rels }
                            if r.arena.chain_rels(rels, r.arena.list(operands).len()) == [Rel::Ne])
                    };
                    if ids.iter().all(excluded) {
                        // "x ≠ 1, x ≠ 2" both hold.
                        let parts: Option<Vec<Vec<Piece>>> = ids.iter().map(|&id| self.simple_pieces(r, id)).collect();
                        out.extend(intersect(parts?));
                        continue;
                    }
                    stack.extend(ids);
                }
                Node::Interval { lo, hi, closed } => out.push(self.piece(r, lo, hi, closed)?),
                Node::Tuple(list) => match *r.arena.list(list) {
                    [lo, hi] => out.push(self.piece(r, lo, hi, (false, false))?),
                    _ => return None,
                },
                Node::Set(list) => {
                    for &id in r.arena.list(list) {
                        out.push(self.piece(r, id, id, (true, true))?);
                    }
                }
                Node::SetOf(_, condition) => stack.push(condition),
                Node::Numbers(Numbers::Reals) => out.push(everything()),
                Node::Numbers(Numbers::Empty) => {}
                Node::Chain { operands, rels } => {
                    let ids = r.arena.list(operands).to_vec();
                    let kinds = r.arena.chain_rels(rels, ids.len()).to_vec();
                    self.chain_pieces(r, &ids, &kinds, &mut out, &mut stack)?;
                }
                Node::All(list) => {
                    let parts: Option<Vec<Vec<Piece>>> =
                        r.arena.list(list).to_vec().into_iter().map(|id| self.simple_pieces(r, id)).collect();
                    let parts = parts?;
                    let common = intersect(parts.clone());
                    // Gold that says "x < 1 and x > 3" means either.
                    let sloppy = common.is_empty() && std::ptr::eq(r, self.gold);
                    out.extend(if sloppy { merge(parts.concat()) } else { common });
                }
                Node::Difference(a, b) => {
                    let whole = self.simple_pieces(r, a)?;
                    let Node::Set(points) = *r.node(b) else {
                        let taken = self.simple_pieces(r, b)?;
                        out.extend(intersect(vec![whole, complement(&taken)]));
                        continue;
                    };
                    let mut parts = vec![whole];
                    for &point in r.arena.list(points) {
                        let value = self.end(r, point)?.1;
                        parts.push(without((Some(point), value)));
                    }
                    out.extend(intersect(parts));
                }
                Node::Intersection(a, b) => {
                    let parts = vec![self.simple_pieces(r, a)?, self.simple_pieces(r, b)?];
                    out.extend(intersect(parts));
                }
                _ if r.arena.is_scalar(id) => out.push(self.piece(r, id, id, (true, true))?),
                _ => return None,
            }
            if out.len() + stack.len() > 2000 {
                return None;
            }
        }
        Some(merge(out))
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
        if let ([_, set], [Rel::In]) = (ids, kinds) {
            stack.push(*set);
            return Some(());
        }
        let at = ids.iter().position(|&id| matches!(r.node(id), Node::Sym(_)))?;
        if ids.iter().enumerate().any(|(i, &id)| i != at && !form::is_constant(r, id)) {
            return None;
        }
        if let ([_, _], [Rel::Ne]) = (ids, kinds) {
            let other = ids[1 - at];
            let value = self.end(r, other)?.1;
            out.extend(without((Some(other), value)));
            return Some(());
        }
        if let ([_, _], [Rel::Eq]) = (ids, kinds) {
            let other = ids[1 - at];
            out.push(self.piece(r, other, other, (true, true))?);
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

    fn end(&mut self, r: &Reading, id: Id) -> Option<(Option<Id>, f64)> {
        match scalar::infinity(r, id) {
            Some(true) => return Some((None, f64::INFINITY)),
            Some(false) => return Some((None, f64::NEG_INFINITY)),
            None => {}
        }
        if !form::is_constant(r, id) {
            return None;
        }
        let key = self.key(r, Val::of(id));
        key.is_finite().then_some((Some(id), key))
    }

    fn piece(&mut self, r: &Reading, lo: Id, hi: Id, closed: (bool, bool)) -> Option<Piece> {
        let (lo, hi) = (self.end(r, lo)?, self.end(r, hi)?);
        Some(Piece { lo, hi, closed: (closed.0 && lo.0.is_some(), closed.1 && hi.0.is_some()) })
    }

    /// Times of day and ratios.
    fn colons(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let parts = |r: &Reading, id: Id| match *r.node(id) {
            Node::Colon { parts, meridiem } => Some((r.arena.list(parts).to_vec(), meridiem)),
            _ => None,
        };
        match (parts(gold, g), parts(pred, p)) {
            (Some((a, am)), Some((b, bm))) => {
                let whole =
                    |r: &Reading, ids: &[Id]| ids.iter().map(|&id| r.value(id)?.to_i64()).collect::<Option<Vec<_>>>();
                if let (Some(x), Some(y)) = (whole(gold, &a), whole(pred, &b)) {
                    if am.is_some() || bm.is_some() {
                        return clock(&x, am, &y, bm);
                    }
                    if x == y {
                        return Equal("exact");
                    }
                    let time = |v: &[i64], r: &Reading| {
                        v.len() == 2
                            && v[0] <= 24
                            && v[1] < 60
                            && r.source.rsplit(':').next().is_some_and(|m| m.trim().len() == 2)
                    };
                    if time(&x, gold) && time(&y, pred) {
                        return Different("time");
                    }
                }
                if a.len() != b.len() || am.is_some() || bm.is_some() {
                    return Different("count");
                }
                self.proportional(&a, &b)
            }
            (Some((a, None)), None) if a.len() == 2 && pred.arena.is_scalar(p) => self.ratio_value(gold, &a, pred, p),
            (None, Some((b, None))) if b.len() == 2 && gold.arena.is_scalar(g) => self.ratio_value(pred, &b, gold, g),
            _ => Different("different_kind"),
        }
    }

    fn ratio_value(&mut self, r: &Reading, parts: &[Id], other: &Reading, id: Id) -> Finding {
        let (Some(a), Some(b), Some(c)) = (r.value(parts[0]), r.value(parts[1]), other.value(id)) else {
            return Different("different_kind");
        };
        match a.div(b, &mut self.budget) {
            Ok(q) if q == *c => Equal("ratio"),
            _ => Different("ratio"),
        }
    }

    /// `2 : 4 : 6` and `1 : 2 : 3`.
    fn proportional(&mut self, g: &[Id], p: &[Id]) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let mut same = true;
        for (&x, &y) in g.iter().zip(p) {
            same &= self.compare(x, y).is_equal();
        }
        if same {
            return Equal("elementwise");
        }
        for (&x, &y) in g.iter().zip(p).skip(1) {
            let (Some(a), Some(b), Some(c), Some(d)) =
                (gold.value(g[0]), pred.value(p[0]), gold.value(x), pred.value(y))
            else {
                let over = |by: Id| Factor { by: Some(by), divides: true, negative: false };
                if !form::is_constant(gold, x) || !form::is_constant(pred, y) {
                    return Different("ratio");
                }
                match self.products((over(g[0]), x), (over(p[0]), y)) {
                    Equal(_) => continue,
                    other => return other,
                }
            };
            match (a.mul(d, &mut self.budget), b.mul(c, &mut self.budget)) {
                (Ok(l), Ok(r)) if l == r => {}
                _ => return Different("ratio"),
            }
        }
        Equal("ratio")
    }
}

/// Clock times: hour, minute, half of the day; `5 pm` is `5:00 pm`; a missing half is left open.
fn clock(a: &[i64], am: Option<bool>, b: &[i64], bm: Option<bool>) -> Finding {
    let at = |v: &[i64], i: usize| v.get(i).copied().unwrap_or(0);
    let minutes = (1..3).all(|i| at(a, i) == at(b, i));
    let hour = |h: i64, half: Option<bool>| match half {
        Some(pm) => h % 12 + if pm { 12 } else { 0 },
        None => h,
    };
    let hours = match (am, bm) {
        (Some(_), Some(_)) => hour(at(a, 0), am) == hour(at(b, 0), bm),
        _ => at(a, 0) == at(b, 0) || hour(at(a, 0), am) == hour(at(b, 0), bm),
    };
    if minutes && hours { Equal("time") } else { Different("time") }
}

fn sorted(r: &Reading, mut named: Vec<(u64, Id)>) -> Vec<(u64, Id)> {
    named.sort_by(|a, b| r.arena.name(a.0).cmp(r.arena.name(b.0)));
    named
}

fn everything() -> Piece {
    Piece { lo: (None, f64::NEG_INFINITY), hi: (None, f64::INFINITY), closed: (false, false) }
}

fn without(point: (Option<Id>, f64)) -> Vec<Piece> {
    let all = everything();
    vec![Piece { hi: point, ..all }, Piece { lo: point, ..all }]
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

/// The common part of several unions.
fn intersect(parts: Vec<Vec<Piece>>) -> Vec<Piece> {
    let mut parts = parts.into_iter();
    let mut common = parts.next().unwrap_or_default();
    for part in parts {
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
    common
}
