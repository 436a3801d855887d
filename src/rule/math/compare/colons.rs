//! What is written with colons: ratios and times of day.

use super::super::ast::{Id, Node};
use super::super::reading::Reading;
use super::Comparison;
use super::Finding::{self, Different, Equal};
use super::form::{self, Factor};

impl Comparison<'_> {
    /// Times of day and ratios.
    pub(super) fn colons(&mut self, g: Id, p: Id) -> Finding {
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
            return self.irrational_ratio(r, parts, other, id);
        };
        match a.div(b, self.budget) {
            Ok(q) if q == *c => Equal("ratio"),
            _ => Different("ratio"),
        }
    }

    /// `√2 : 1` beside `√2`.
    fn irrational_ratio(&mut self, r: &Reading, parts: &[Id], other: &Reading, id: Id) -> Finding {
        if !parts.iter().all(|&part| form::is_constant(r, part)) || !form::is_constant(other, id) {
            return Different("different_kind");
        }
        let ratio = (Factor { by: Some(parts[1]), divides: true, negative: false }, parts[0]);
        let value = (Factor { by: None, divides: false, negative: false }, id);
        if std::ptr::eq(r, self.gold) { self.products(ratio, value) } else { self.products(value, ratio) }
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
            match (a.mul(d, self.budget), b.mul(c, self.budget)) {
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
