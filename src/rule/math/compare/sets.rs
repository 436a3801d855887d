//! Values side by side: lists, sets, tuples, matrices, intervals and their unions, times and ratios.

use super::super::ast::{Id, Node};
use super::super::eval::ball::{Balls, Sampling, mix};
use super::super::eval::eval;
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal, Unknown};
use super::labels::Labels;
use super::{Comparison, Val, form};

impl Comparison<'_> {
    /// At least one side is more than a single value.
    pub(super) fn structures(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        if let Some(found) = self.matrix_of_rows(g, p) {
            return found;
        }
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
            (Node::Case(..), _) | (_, Node::Case(..)) => return Different("different_kind"),
            (Node::Call(f, a), Node::Call(h, b)) if f == h => return self.compare(*a, *b),
            (Node::Call2(f, a, b), Node::Call2(h, c, d)) if f == h => {
                let (a, b, c, d) = (*a, *b, *c, *d);
                let first = self.compare(a, c);
                return if first.is_equal() { self.compare(b, d) } else { first };
            }
            (Node::Neg(a), Node::Neg(b)) => return self.compare(*a, *b),
            (Node::Add(a, b), Node::Add(c, d))
            | (Node::Sub(a, b), Node::Sub(c, d))
            | (Node::Mul(a, b), Node::Mul(c, d))
            | (Node::Div(a, b), Node::Div(c, d))
            | (Node::Pow(a, b), Node::Pow(c, d)) => {
                let (a, b, c, d) = (*a, *b, *c, *d);
                let first = self.compare(a, c);
                return if first.is_equal() { self.compare(b, d) } else { first };
            }
            _ => {}
        }
        if let Some(found) = self.piecewise(g, p) {
            return found;
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
        let excludes = |r: &Reading, id: Id| matches!(*r.node(id), Node::List(list) if r.arena.list(list).first().is_some_and(|&id| form::is_excluded(r, id)));
        if is_range(gold.node(g)) || is_range(pred.node(p)) || (excludes(gold, g) && excludes(pred, p)) {
            return self.ranges(g, p);
        }
        self.lists(g, p)
    }

    /// A matrix beside the list of its rows.
    fn matrix_of_rows(&mut self, g: Id, p: Id) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let matrix = |r: &Reading, id: Id| match *r.node(id) {
            Node::Matrix { rows, cols, entries } => {
                Some(((usize::from(rows), usize::from(cols)), r.arena.list(entries).to_vec()))
            }
            _ => None,
        };
        let (a, b) = match (matrix(gold, g), matrix(pred, p)) {
            (Some(a), None) => (a, form::nested_rows(pred, p)?),
            (None, Some(b)) => (form::nested_rows(gold, g)?, b),
            _ => return None,
        };
        Some(if a.0 == b.0 { self.ordered(&a.1, &b.1) } else { Different("shape") })
    }

    pub(super) fn ordered(&mut self, g: &[Id], p: &[Id]) -> Finding {
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
                if self.budget.charge((a.len() * b.len()) as u64).is_err() {
                    return Some(Unknown("budget"));
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
            // Bare values stand in the order of the names, or in the one that gold has written.
            (Some(a), None) => {
                let values = tuple(pred, p)?;
                let found = self.ordered(&ids(&sorted(gold, a.clone())), &values);
                Some(if found.is_equal() { found } else { self.ordered(&ids(&a), &values) })
            }
            (None, Some(b)) => {
                let values = tuple(gold, g)?;
                let found = self.ordered(&values, &ids(&sorted(pred, b.clone())));
                Some(if found.is_equal() { found } else { self.ordered(&values, &ids(&b)) })
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
        // "x = 1, 2" says nothing of y.
        if let (Some(x), Some(y)) = (form::unknown(gold, g), form::unknown(pred, p))
            && !x.eq_ignore_ascii_case(y)
        {
            return Different("names");
        }
        let (a, b) = (form::values(gold, g), form::values(pred, p));
        if let ([x], [y]) = (&a[..], &b[..])
            && x.id == g
            && y.id == p
        {
            return Different("different_kind");
        }
        // Points named twice are still the same points.
        let points = |r: &Reading, vals: &[Val]| vals.iter().all(|v| matches!(r.node(v.id), Node::Tuple(_)));
        let set = matches!(gold.node(g), Node::Set(_))
            || matches!(pred.node(p), Node::Set(_))
            || (points(gold, &a) && points(pred, &b));
        if matches!(gold.node(g), Node::Set(_)) && gold.arena.any(g, |n| matches!(n, Node::Dots)) {
            return if a.len() == b.len() { self.unordered(&a, &b) } else { Different("count") };
        }
        // "1/2 or 0.5": one value in several forms.
        if let ([x], Node::List(_)) = (&a[..], pred.node(p))
            && form::is_constant(gold, x.id)
            && (2..=4).contains(&b.len())
            && b.windows(2).all(|pair| pred.node(pair[0].id) != pred.node(pair[1].id))
            && self.restated(*x, &b)
        {
            return Equal("restated");
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

    /// All values are gold's, or all are one quantity and one of them is gold's. "30 minutes or 30 hours" are two.
    fn restated(&mut self, g: Val, vals: &[Val]) -> bool {
        let equal = vals.iter().filter(|&&val| self.element(g, val).is_equal()).count();
        let quantities: Vec<Val> = vals.iter().copied().filter(|val| form::is_quantity(self.pred, val.id)).collect();
        match equal {
            0 => false,
            _ if equal == vals.len() => self.restates(&quantities),
            _ => self.restates(vals),
        }
    }

    /// The answer's values are all one quantity, "30 minutes or 0.5 hours", whichever of them gold has.
    pub(super) fn restates(&mut self, vals: &[Val]) -> bool {
        let pred = self.pred;
        let mut own = self.of_itself();
        vals.iter().all(|v| form::is_constant(pred, v.id))
            && vals.windows(2).all(|pair| own.scalars(pair[0], pair[1]).is_equal())
    }

    fn element(&mut self, g: Val, p: Val) -> Finding {
        if self.gold.arena.is_scalar(g.id) && self.pred.arena.is_scalar(p.id) {
            return self.scalars(g, p);
        }
        self.compare(g.id, p.id)
    }

    /// Matches two multisets. Sorted by approximate value, equal elements face each other.
    pub(super) fn unordered(&mut self, g: &[Val], p: &[Val]) -> Finding {
        if g.len() != p.len() {
            return Different("count");
        }
        let (a, b) = (self.sort(self.gold, g), self.sort(self.pred, p));
        let labels = Labels::of(self.gold, g, self.pred, p);
        let fit = |g: Val, p: Val| labels.as_ref().is_none_or(|labels| labels.fit(g, p));
        let numeric = a.iter().chain(&b).all(|(key, _)| key.is_finite());
        let mut left: Vec<Val> = Vec::new();
        let mut right: Vec<Val> = Vec::new();
        let mut unknown = false;
        for (&(x, gv), &(y, pv)) in a.iter().zip(&b) {
            match self.element(gv, pv) {
                Equal(_) if fit(gv, pv) => continue,
                Equal(_) => {}
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
            let found = (0..right.len()).find(|&i| fit(gv, right[i]) && self.element(gv, right[i]).is_equal());
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

    fn sort(&mut self, r: &Reading, vals: &[Val]) -> Vec<(f64, Val)> {
        let mut keyed: Vec<(f64, Val)> = vals.iter().map(|&v| (self.key(r, v), v)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
        keyed
    }

    /// A number to sort by; infinite where there is none.
    pub(super) fn key(&mut self, r: &Reading, v: Val) -> f64 {
        if let Some(q) = r.value(v.id) {
            return q.to_f64();
        }
        let id = match *r.node(v.id) {
            Node::Tuple(list) => *r.arena.list(list).first().unwrap_or(&v.id),
            _ => form::unname(r, v.id),
        };
        let mut field =
            Balls { seed: mix(1), sampling: Sampling::Positive, sign: v.sign, ignore_units: true, alias: &[] };
        // A little is enough for a number to sort by, and all of it is paid for.
        let most = self.budget.left().min(20_000);
        let mut budget = super::Budget::new(most);
        let value = eval(&mut field, &r.arena, &r.exact, id, &mut budget);
        if self.budget.charge(most - budget.left()).is_err() {
            return f64::INFINITY;
        }
        match value {
            Ok(ball) => ball.re + ball.im * 1e-3,
            Err(_) => f64::INFINITY,
        }
    }
}

fn ids(named: &[(u64, Id)]) -> Vec<Id> {
    named.iter().map(|&(_, id)| id).collect()
}

fn sorted(r: &Reading, mut named: Vec<(u64, Id)>) -> Vec<(u64, Id)> {
    named.sort_by(|a, b| r.arena.name(a.0).cmp(r.arena.name(b.0)));
    named
}
