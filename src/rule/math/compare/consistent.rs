//! Does an answer contradict itself? `79 = 72` says nothing, whichever side gold is.

use super::super::ast::{Func2, Id, Node, Rel, Sym};
use super::super::number::Q;
use super::super::reading::Reading;
use super::{Comparison, Different, Val, form};

/// Rounding that ≈ grants where no side is a decimal.
const ROUGH: f64 = 5e-3;

impl Comparison<'_> {
    /// True if a chain of equalities in the answer has sides with different values.
    pub(super) fn contradictory(&mut self) -> bool {
        let pred = self.pred;
        if defines_operation(&pred.source) {
            return false;
        }
        let (first, root) = (pred.arena.first(pred.root), pred.root);
        (first..=root).any(|id| match *pred.node(id) {
            Node::Chain { operands, rels } => {
                let ids = pred.arena.list(operands);
                let kinds = pred.arena.chain_rels(rels, ids.len());
                kinds.iter().all(|k| matches!(k, Rel::Eq | Rel::Approx)) && self.chain_contradicts(ids, kinds)
            }
            _ => false,
        })
    }

    fn chain_contradicts(&mut self, ids: &[Id], kinds: &[Rel]) -> bool {
        let pred = self.pred;
        let last = ids[ids.len() - 1];
        if let Node::Call2(Func2::Mod, _, modulus) = *pred.node(last) {
            // "2^10 = 24 (mod 1000)" speaks of all its sides.
            return ids[..ids.len() - 1].iter().any(|&id| self.incongruent(id, last, modulus));
        }
        if self.signs_contradict(ids, kinds) {
            return true;
        }
        let letters = |&id: &Id| pred.arena.any(id, |n| matches!(n, Node::Euler | Node::Imaginary));
        let last_letters = ids.iter().rposition(&letters);
        let (mut before, mut numeral): (Option<usize>, Option<usize>) = (None, None);
        for (at, &id) in ids.iter().enumerate() {
            // "e = 1/2": a letter that no later side repeats is a name.
            let name = form::is_name(pred, id) || matches!(pred.node(id), Node::Euler | Node::Imaginary);
            if !closed(pred, id) || (name && letters(&id) && last_letters == Some(at) && at + 1 < ids.len()) {
                continue;
            }
            // The numeral before as well, past sides that no step can evaluate.
            for from in [numeral, before].into_iter().flatten() {
                let rough = kinds[from..at].contains(&Rel::Approx);
                if self.sides_differ(ids[from], id, rough) {
                    return true;
                }
            }
            before = Some(at);
            if pred.value(id).is_some() {
                numeral = before;
            }
        }
        // A number put equal to gold's formula: "1789 = x^2".
        let symbols = |r: &Reading, id: Id| r.arena.any(id, |n| matches!(n, Node::Sym(_)));
        let formula = self.gold.arena.is_scalar(self.gold.root) && symbols(self.gold, self.gold.root);
        match before {
            Some(at) if formula && pred.arena.is_scalar(ids[at]) => ids
                .iter()
                .any(|&id| pred.arena.is_scalar(id) && symbols(pred, id) && self.sides_differ(ids[at], id, false)),
            _ => false,
        }
    }

    /// `1789 = 1 ± √19`: a number that is neither of the two that a side with ± stands for.
    fn signs_contradict(&mut self, ids: &[Id], kinds: &[Rel]) -> bool {
        let pred = self.pred;
        let signed = |&&id: &&Id| {
            let open = |n: &Node| matches!(n, Node::Sym(_) | Node::Text(_) | Node::Dots | Node::Chain { .. });
            pred.arena.is_scalar(id)
                && pred.arena.any(id, |n| matches!(n, Node::PlusMinus(..)))
                && !pred.arena.any(id, open)
        };
        let exact = |&&id: &&Id| pred.value(id).is_some() && !pred.arena.any(id, |n| matches!(n, Node::Decimal { .. }));
        let (Some(&two), Some(&one)) = (ids.iter().find(signed), ids.iter().find(exact)) else { return false };
        !kinds.contains(&Rel::Approx)
            && [true, false].iter().all(|&sign| {
                let found = self.of_itself().scalars(Val { id: one, sign }, Val { id: two, sign });
                matches!(found, Different(_))
            })
    }

    /// `2^{100} ≡ 76 (mod 100)` is true, and `a + b ≡ 5 (mod 11)` may be.
    pub(super) fn congruent(&mut self, id: Id, last: Id) -> bool {
        match *self.pred.node(last) {
            Node::Call2(Func2::Mod, _, modulus) => {
                self.pred.arena.is_scalar(id)
                    && self.pred.value(modulus).is_some()
                    && !self.incongruent(id, last, modulus)
            }
            _ => false,
        }
    }

    fn incongruent(&mut self, id: Id, last: Id, modulus: Id) -> bool {
        let pred = self.pred;
        let (Some(a), Some(b), Some(m)) = (pred.value(id), pred.value(last), pred.value(modulus)) else { return false };
        let quotient = a.add(&b.neg(), self.budget).and_then(|d| d.div(m, self.budget));
        quotient.is_ok_and(|q| !q.is_integer())
    }

    fn sides_differ(&mut self, a: Id, b: Id, rough: bool) -> bool {
        let pred = self.pred;
        if counts_other_things(pred, a, b) || self.common_factor(a, b) {
            return false;
        }
        // A sum up to infinity may well be finite.
        let infinite = |id: Id| {
            pred.arena.any(id, |n| matches!(n, Node::Infinity))
                && !pred.arena.any(id, |n| matches!(n, Node::Series { .. }))
        };
        if infinite(a) != infinite(b) {
            return pred.value(a).is_some() || pred.value(b).is_some();
        }
        let differ = match (pred.value(a), pred.value(b)) {
            (Some(x), Some(y)) => x != y,
            _ => matches!(self.of_itself().compare(a, b), Different(_)),
        };
        differ && !self.rounds(a, b, rough)
    }

    /// `(12, 18) = 6` and `[12, 18] = 36` as number theory writes greatest divisor and least multiple.
    fn common_factor(&self, a: Id, b: Id) -> bool {
        let pred = self.pred;
        let whole = |id: Id| pred.value(id)?.to_i64().filter(|n| *n > 0);
        let (x, y, least) = match *pred.node(a) {
            Node::Tuple(list) => match *pred.arena.list(list) {
                [x, y] => (x, y, false),
                _ => return false,
            },
            Node::Interval { lo, hi, closed: (true, true) } => (lo, hi, true),
            _ => return false,
        };
        let (Some(x), Some(y), Some(value)) = (whole(x), whole(y), whole(b)) else { return false };
        value == if least { num_integer::lcm(x, y) } else { num_integer::gcd(x, y) }
    }

    /// `20000/π = 6366.2` and `√2 ≈ 1.41`: one side is the other, rounded or cut.
    fn rounds(&mut self, a: Id, b: Id, rough: bool) -> bool {
        let pred = self.pred;
        if !form::is_constant(pred, a) || !form::is_constant(pred, b) {
            return false;
        }
        // One side says its unit and the other leaves it out.
        let unit = |id: Id| pred.arena.any(id, |n| matches!(n, Node::Unit(_)));
        let bare = unit(a) != unit(b);
        let (Some(x), Some(y)) = (self.side_value(a, bare), self.side_value(b, bare)) else { return false };
        let error = (x - y).abs();
        if rough && error <= ROUGH * x.abs().max(y.abs()) {
            return true;
        }
        let ulp = |id: Id| {
            let numeral = match *pred.node(id) {
                Node::Mul(number, unit) if matches!(pred.node(unit), Node::Unit(_) | Node::Label(_)) => number,
                _ => id,
            };
            match *pred.node(numeral) {
                Node::Decimal { places, .. } if places > 0 => Some(10f64.powi(-i32::from(places))),
                // To the nearest whole number.
                Node::Num(ref q) if q.is_integer() && rough => Some(0.5 + 1e-9),
                _ => None,
            }
        };
        match (ulp(a), ulp(b)) {
            (Some(p), Some(q)) if rough => error < p.max(q),
            // Two numerals that = joins must be the same.
            (Some(_), Some(_)) => false,
            (Some(p), None) | (None, Some(p)) => {
                let numeral = |id: Id| matches!(pred.node(id), Node::Num(q) if q.is_integer());
                error < p && (rough || !(numeral(a) || numeral(b)))
            }
            (None, None) => false,
        }
    }

    fn side_value(&mut self, id: Id, ignore_units: bool) -> Option<f64> {
        match self.pred.value(id) {
            Some(q) => Some(Q::to_f64(q)),
            None => self.constant(self.pred, Val::of(id), ignore_units),
        }
    }
}

/// `3 \ast 10 = 26`: between two values stands the mark of an operation that the problem may have defined.
fn defines_operation(source: &str) -> bool {
    const MARKS: [&str; 12] =
        [r"\ast", r"\star", r"\circ", r"\bullet", r"\#", r"\&", r"\$", r"\oplus", r"\otimes", r"\diamond", "*", "@"];
    MARKS.iter().any(|mark| {
        source.match_indices(mark).any(|(at, _)| {
            let (before, behind) = (source[..at].trim_end(), source[at + mark.len()..].trim_start());
            // The last letter of a command is no value: `\approx \$ 12`.
            let command = before.trim_end_matches(|c: char| c.is_ascii_alphabetic()).ends_with('\\');
            before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ')' | '}'))
                && !command
                && behind.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '(' | '{' | '-' | '\\'))
        })
    })
}

/// "2 boxes = 24 cookies": each side counts something of its own.
fn counts_other_things(r: &Reading, a: Id, b: Id) -> bool {
    let label = |id: Id| r.arena.subtree(id).iter().find_map(|n| if let Node::Label(l) = n { Some(*l) } else { None });
    matches!((label(a), label(b)), (Some(x), Some(y)) if x != y)
}

/// `\frac12(\text{base})(\text{height})`: words that are factors, and count nothing.
fn names_factors(r: &Reading, id: Id) -> bool {
    let first = r.arena.first(id);
    let labels: Vec<Id> = (first..=id).filter(|&id| matches!(r.node(id), Node::Label(_))).collect();
    let label =
        |id: Id| labels[labels.partition_point(|&at| at < r.arena.first(id))..].first().is_some_and(|&at| at <= id);
    r.arena.subtree(id).iter().any(|n| match *n {
        Node::Mul(a, b) => label(a) && !matches!(r.node(b), Node::Unit(_)),
        _ => false,
    })
}

/// A side that has one value: a number, or a point, set or matrix of numbers.
fn closed(r: &Reading, id: Id) -> bool {
    // The index of a sum is bound.
    let indices = |n: &Node| if let Node::Series { var, .. } = n { Some(*var) } else { None };
    let bound: Vec<Sym> = r.arena.subtree(id).iter().filter_map(indices).take(8).collect();
    let open = |n: &Node| match *n {
        Node::Sym(sym) => !bound.contains(&sym),
        Node::Text(_) | Node::Dots | Node::PlusMinus(..) | Node::Chain { .. } => true,
        _ => false,
    };
    if r.arena.any(id, open) || names_factors(r, id) {
        return false;
    }
    match *r.node(id) {
        Node::Tuple(list) | Node::Set(list) | Node::Matrix { entries: list, .. } => {
            r.arena.list(list).iter().all(|&id| r.arena.is_scalar(id))
        }
        Node::Interval { lo, hi, .. } => r.arena.is_scalar(lo) && r.arena.is_scalar(hi),
        _ => r.arena.is_scalar(id),
    }
}
