//! Piecewise functions: the same values under the same conditions, in any order.

use super::super::ast::{Id, Node};
use super::super::parse::OTHERWISE;
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal, Unknown};
use super::{Comparison, Val};

/// Most rows looked at.
const MANY: usize = 32;

impl Comparison<'_> {
    /// Two piecewise functions; `None` where one of the sides is none.
    pub(super) fn piecewise(&mut self, g: Id, p: Id) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let (a, b) = (rows(gold, g)?, rows(pred, p)?);
        let (rest_a, rest_b) = (a.iter().position(|r| is_rest(gold, r)), b.iter().position(|r| is_rest(pred, r)));
        if rest_a.is_some() == rest_b.is_some() {
            let vals = |rows: &[Row]| rows.iter().map(|row| Val::of(row.id)).collect::<Vec<_>>();
            return Some(self.unordered(&vals(&a), &vals(&b)));
        }
        // "Otherwise" on one side: the other has to say what that leaves.
        let mut left: Vec<&Row> = if rest_a.is_some() { b.iter().collect() } else { a.iter().collect() };
        let (named, rest) = match rest_a {
            Some(at) => (&a, at),
            None => (&b, rest_b?),
        };
        for (at, row) in named.iter().enumerate() {
            if at == rest {
                continue;
            }
            let found = left.iter().position(|other| self.row(rest_a.is_some(), row, other).is_equal());
            match found {
                Some(at) => left.swap_remove(at),
                None => return Some(Different("element")),
            };
        }
        for other in &left {
            let (g, p) =
                if rest_a.is_some() { (named[rest].value, other.value) } else { (other.value, named[rest].value) };
            let found = self.compare(g, p);
            if !found.is_equal() {
                return Some(found);
            }
        }
        let (r, all) = if rest_a.is_some() { (pred, &b) } else { (gold, &a) };
        let conditions: Vec<Id> = all.iter().map(|row| row.condition).collect();
        Some(match self.everywhere(r, &conditions) {
            Some(true) => Equal("piecewise"),
            Some(false) => Different("domain"),
            None => Unknown("domain"),
        })
    }

    /// Compares two rows; the first is gold's if `straight`.
    fn row(&mut self, straight: bool, x: &Row, y: &Row) -> Finding {
        let (g, p) = if straight { (x.id, y.id) } else { (y.id, x.id) };
        self.compare(g, p)
    }
}

/// A value, its condition, and the node of both.
struct Row {
    id: Id,
    value: Id,
    condition: Id,
}

fn is_rest(r: &Reading, row: &Row) -> bool {
    matches!(*r.node(row.condition), Node::Text(index) if r.arena.texts[index as usize] == OTHERWISE)
}

fn rows(r: &Reading, id: Id) -> Option<Vec<Row>> {
    let Node::All(list) = *r.node(id) else { return None };
    let ids = r.arena.list(list);
    if ids.len() > MANY {
        return None;
    }
    let row = |&id: &Id| match *r.node(id) {
        Node::Case(value, condition) => Some(Row { id, value, condition }),
        _ => None,
    };
    ids.iter().map(row).collect()
}
