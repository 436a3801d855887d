//! Two values: exactly, then modulo primes, then in balls at several points.

use super::super::ast::{Func, Func2, Id, Node, Sym};
use super::super::budget::Stop;
use super::super::eval::ball::{Ball, Balls, Sampling, mix};
use super::super::eval::{Field, eval, modular::Modular, precise::Precise};
use super::super::number::Q;
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal, Unknown};
use super::form::{self, Factor};
use super::names::names_whole_numbers;
use super::units::{Marks, marks};
use super::{Comparison, Val};

/// Points tried, in order; three that both sides are defined at decide.
const POINTS: [Sampling; 16] = [
    Sampling::Positive,
    Sampling::Mixed,
    Sampling::Integers,
    Sampling::Unit,
    Sampling::Mixed,
    Sampling::Large,
    Sampling::Positive,
    Sampling::Mixed,
    Sampling::Integers,
    Sampling::Unit,
    Sampling::Large,
    Sampling::Integers,
    Sampling::Integers,
    Sampling::Integers,
    Sampling::Positive,
    Sampling::Integers,
];
const NEEDED: usize = 4;
/// Points of both signs for what is the same on one side of zero only, and behind how many others they come.
const SIGNS: usize = 36;
const BEFORE_SIGNS: usize = 4;

/// Roots and functions in two constants that doubles are trusted with.
const MAX_IRRATIONAL: usize = 80;

/// Holds a function that may be another one on the other side of zero: an absolute value, a root, an angle.
pub(super) fn tells_signs(r: &Reading, id: Id) -> bool {
    r.arena.any(id, |n| match *n {
        Node::Call(
            Func::Abs | Func::Sign | Func::Asin | Func::Acos | Func::Atan | Func::Acot | Func::Asec | Func::Acsc,
            _,
        ) => true,
        Node::Call2(Func2::Root | Func2::Max | Func2::Min, ..) => true,
        Node::Pow(_, exponent) => r.value(exponent).is_some_and(|q| !q.is_integer()),
        _ => false,
    })
}

/// Further points where signs tell: |x + 6| is another one only far from zero.
pub(super) fn both_signs(tell: bool) -> impl Iterator<Item = Sampling> {
    let (near, far) = if tell { (SIGNS / 3, SIGNS - SIGNS / 3) } else { (0, 0) };
    std::iter::repeat_n(Sampling::Mixed, near).chain(std::iter::repeat_n(Sampling::Far, far))
}

/// How many roots and functions a value is made of.
fn irrational(r: &Reading, id: Id) -> usize {
    r.arena.subtree(id).iter().filter(|n| matches!(n, Node::Call(..) | Node::Call2(..) | Node::Pow(..))).count()
}

impl Comparison<'_> {
    pub(super) fn scalars(&mut self, g: Val, p: Val) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        match (form::infinity(gold, g.id), form::infinity(pred, p.id)) {
            (Some(a), Some(b)) => return if a == b { Equal("exact") } else { Different("sign") },
            (None, None) => {}
            _ => return Different("infinity"),
        }
        // What an operation makes of its operands is not known: nothing else has its value.
        if gold.operators || pred.operators {
            let (a, b) = (form::unknown_operations(gold, g.id), form::unknown_operations(pred, p.id));
            if a != b {
                return Different("operator");
            }
            if !a.is_empty() {
                let same = g.sign == p.sign && same_tree(gold, g.id, pred, p.id);
                return if same { Equal("same_tree") } else { Unknown("not_evaluated") };
            }
        }
        if form::is_unevaluated(gold, g.id) || form::is_unevaluated(pred, p.id) {
            let same = g.sign == p.sign && same_tree(gold, g.id, pred, p.id);
            return if same { Equal("same_tree") } else { Unknown("not_evaluated") };
        }
        if let (Node::Based { value: a, digits: da, base: ba }, Node::Based { value: b, digits: db, base: bb }) =
            (gold.node(g.id), pred.node(p.id))
        {
            return if a == b && (ba == bb || da != db) { Equal("exact") } else { Different("exact") };
        }
        if let Node::Based { digits, .. } = gold.node(g.id)
            && pred.value(p.id) == Some(digits)
            && !self.config.strict_units
        {
            return Equal("base_left_out");
        }
        let (gm, pm) = (marks(gold, g.id), marks(pred, p.id));
        if gm.unit && pm.unit && self.sterling(g.id, p.id) {
            return self.values(g, p, true);
        }
        if !self.config.bare_percent && pm.percent && !gm.percent {
            return self.values(g, p, false);
        }
        if let Some(found) = self.lettered_units(g, p, gm, pm) {
            return found;
        }
        if !self.config.strict_units
            && let Some(found) = self.letter_units(g, p, gm, pm)
        {
            return found;
        }
        if gm == Marks::default() && pm == Marks::default() {
            return self.values(g, p, false);
        }
        if gm == pm {
            return self.values(g, p, false);
        }
        if self.config.strict_units {
            // Percent and degrees are pure numbers: their values may be compared.
            return if gm.unit || pm.unit { Different("unit") } else { self.values(g, p, false) };
        }
        // One side says its unit and the other leaves it out.
        let bare = gm == Marks::default() || pm == Marks::default();
        if !bare {
            return self.values(g, p, false);
        }
        let found = self.values(g, p, true);
        if found.is_equal() || gm.unit || pm.unit {
            return found;
        }
        self.values(g, p, false)
    }

    fn values(&mut self, g: Val, p: Val, ignore_units: bool) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        if let (Some(a), Some(b)) = (gold.value(g.id), pred.value(p.id)) {
            if a == b {
                return Equal("exact");
            }
            return self.rounded(g, p, a.to_f64(), b.to_f64()).unwrap_or(Different("exact"));
        }
        if g.sign == p.sign && same_tree(gold, g.id, pred, p.id) {
            return Equal("same_tree");
        }
        let found = match self.modular(g, p) {
            Some(found) => found,
            None => match self.balls(g, p, ignore_units) {
                found @ (Equal(_) | Unknown("unsupported")) => self.confirmed(g, p, ignore_units).unwrap_or(found),
                // Doubles end at 10³⁰⁸.
                found @ Unknown("undefined") if form::is_constant(gold, g.id) && form::is_constant(pred, p.id) => {
                    self.confirmed(g, p, ignore_units).unwrap_or(found)
                }
                other => other,
            },
        };
        if let Different(_) = found
            && let (Some(a), Some(b)) = (self.constant(gold, g, ignore_units), self.constant(pred, p, ignore_units))
        {
            return self.rounded(g, p, a, b).unwrap_or(found);
        }
        if let Different(_) = found
            && self.same_family(g, p)
        {
            return Equal("arbitrary_constants");
        }
        found
    }

    pub(super) fn constant(&mut self, r: &Reading, v: Val, ignore_units: bool) -> Option<f64> {
        if r.arena.any(v.id, |n| matches!(n, Node::Sym(_))) {
            return None;
        }
        let ball = self.ball(r, v, Sampling::Positive, 1, ignore_units, &[]).ok()?;
        (ball.im == 0.0).then_some(ball.re)
    }

    /// Rational functions modulo a prime: `None` where something else occurs.
    fn modular(&mut self, g: Val, p: Val) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let mut agreed = 0;
        for seed in 0..4u64 {
            let mut at = |r: &Reading, v: Val| {
                let mut field = Modular { seed: mix(seed + 1), sign: v.sign };
                eval(&mut field, &r.arena, &r.exact, v.id, self.budget)
            };
            match (at(gold, g), at(pred, p)) {
                (Ok(a), Ok(b)) if a != b => {
                    // A rename of constants may still make them equal.
                    return if self.aliases(g, p).is_empty() { Some(Different("modular")) } else { None };
                }
                (Ok(_), Ok(_)) => agreed += 1,
                (Err(Stop::Undefined), _) | (_, Err(Stop::Undefined)) => {}
                _ => return None,
            }
            if agreed == 2 {
                return Some(Equal("modular"));
            }
        }
        None
    }

    pub(super) fn ball(
        &mut self,
        r: &Reading,
        v: Val,
        sampling: Sampling,
        seed: u64,
        ignore_units: bool,
        alias: &[(Sym, Sym)],
    ) -> Result<Ball, Stop> {
        let mut field = Balls { seed: mix(seed), sampling, sign: v.sign, ignore_units, alias };
        eval(&mut field, &r.arena, &r.exact, v.id, self.budget)
    }

    /// Evaluation in doubles with error bounds. A disjoint pair of balls proves a difference;
    /// overlap at every point with at least seven common digits counts as equality.
    fn balls(&mut self, g: Val, p: Val, ignore_units: bool) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let free = |n: &Node| matches!(n, Node::Sym(_));
        let symbols = gold.arena.any(g.id, free) || pred.arena.any(p.id, free);
        let imaginary = |n: &Node| matches!(n, Node::Imaginary);
        let complex = gold.arena.any(g.id, imaginary) || pred.arena.any(p.id, imaginary);
        if !symbols && irrational(gold, g.id) + irrational(pred, p.id) > MAX_IRRATIONAL {
            return Unknown("precision");
        }
        let alias = self.aliases(g, p);
        let mut agreed = 0;
        let mut outside = 0;
        let mut stop = Stop::Undefined;
        // Functions with steps agree on whole stretches: they have to agree everywhere.
        let steps = |r: &Reading, id: Id| {
            r.arena.any(id, |n| match *n {
                Node::Call(Func::Floor | Func::Ceil | Func::Sign, _) => true,
                Node::Call2(Func2::Mod | Func2::Gcd | Func2::Lcm | Func2::Max | Func2::Min, ..) => true,
                // (−1)^n
                Node::Pow(base, exponent) => r.value(base).is_some_and(Q::is_negative) && r.value(exponent).is_none(),
                _ => false,
            })
        };
        let stepped = symbols && (steps(gold, g.id) || steps(pred, p.id));
        let further = if stepped { 24 } else { 0 };
        // √(x²) is x where x is positive.
        let signs = symbols && (tells_signs(gold, g.id) || tells_signs(pred, p.id));
        let whole = stepped && names_whole_numbers(gold, g.id) && names_whole_numbers(pred, p.id);
        let (near, rest) = POINTS.split_at(BEFORE_SIGNS);
        let samplings = near
            .iter()
            .copied()
            .chain(both_signs(signs))
            .chain(rest.iter().copied())
            .filter(|sampling| !whole || *sampling == Sampling::Integers)
            .chain(std::iter::repeat_n(Sampling::Wide, further));
        for (i, sampling) in samplings.enumerate() {
            let seed = i as u64 + 1;
            let a = self.ball(gold, g, sampling, seed, ignore_units, &[]);
            let b = self.ball(pred, p, sampling, seed, ignore_units, &alias);
            match (a, b) {
                (Ok(a), Ok(b)) => {
                    if symbols && !complex && (a.left || b.left) {
                        outside += 1;
                        continue;
                    }
                    if a.apart(&b) {
                        return Different("numeric");
                    }
                    let size = a.abs().max(b.abs());
                    let rad = a.rad + b.rad;
                    let limit = if symbols { 1e-7 } else { 1e-10 };
                    if rad > limit * size && rad > limit * 1e-2 {
                        stop = Stop::Unsupported;
                        continue;
                    }
                    agreed += 1;
                }
                (Err(Stop::Budget), _) | (_, Err(Stop::Budget)) => return Unknown("budget"),
                // A constant that one side cannot have.
                (Err(Stop::Undefined), Ok(_)) | (Ok(_), Err(Stop::Undefined)) if !symbols => stop = Stop::Undefined,
                (Err(e), _) | (_, Err(e)) => stop = e,
            }
            let both = !signs || i + 1 >= BEFORE_SIGNS + SIGNS;
            if (agreed >= NEEDED && both && !stepped) || (!symbols && agreed == 1) {
                return Equal("numeric");
            }
            if !symbols {
                break;
            }
        }
        match agreed {
            2.. => Equal("numeric"),
            _ if outside > 0 => Unknown("outside_real_domain"),
            _ if stop == Stop::Undefined => Unknown("undefined"),
            _ => Unknown("unsupported"),
        }
    }

    /// Two products of a matrix's factor with an entry, at a few points.
    pub(super) fn products(&mut self, g: (Factor, Id), p: (Factor, Id)) -> Finding {
        let mut agreed = 0;
        let ignore_units = !self.percent_counts();
        let signs = tells_signs(self.gold, g.1) || tells_signs(self.pred, p.1);
        for (i, sampling) in POINTS.into_iter().take(6).chain(both_signs(signs)).enumerate() {
            let mut field = Balls { seed: mix(i as u64 + 1), sampling, sign: true, ignore_units, alias: &[] };
            let mut at = |r: &Reading, (factor, id): (Factor, Id)| -> Result<Ball, Stop> {
                let mut value = eval(&mut field, &r.arena, &r.exact, id, self.budget)?;
                if let Some(by) = factor.by {
                    let mut by = eval(&mut field, &r.arena, &r.exact, by, self.budget)?;
                    if factor.divides {
                        by = field.inv(&by, self.budget)?;
                    }
                    value = field.mul(&value, &by, self.budget)?;
                }
                Ok(if factor.negative { field.neg(&value) } else { value })
            };
            match (at(self.gold, g), at(self.pred, p)) {
                (Ok(a), Ok(b)) if a.apart(&b) => return Different("element"),
                (Ok(_), Ok(_)) => agreed += 1,
                (Err(Stop::Budget), _) | (_, Err(Stop::Budget)) => return Unknown("budget"),
                _ => {}
            }
        }
        if agreed >= 2 { Equal("numeric") } else { Unknown("undefined") }
    }

    /// Doubles agree, or do not reach so far: once more with 320 bits behind the point, and for large constants with
    /// more, where the operations allow it.
    fn confirmed(&mut self, g: Val, p: Val, ignore_units: bool) -> Option<Finding> {
        let alias = self.aliases(g, p);
        let free = |n: &Node| matches!(n, Node::Sym(_));
        let symbols = self.gold.arena.any(g.id, free) || self.pred.arena.any(p.id, free);
        let mut large = false;
        for (i, &sampling) in POINTS.iter().enumerate().take(if symbols { 4 } else { 2 }) {
            let mut at = |r: &Reading, v: Val, alias: &[(Sym, Sym)]| {
                let point = Balls { seed: mix(i as u64 + 1), sampling, sign: v.sign, ignore_units, alias };
                eval(&mut Precise::new(point, large), &r.arena, &r.exact, v.id, self.budget)
            };
            match (at(self.gold, g, &[]), at(self.pred, p, &alias)) {
                (Ok(a), Ok(b)) if a.apart(&b) => return Some(Different("precise")),
                (Ok(a), Ok(b)) if a.sharp() && b.sharp() => return Some(Equal("precise")),
                (Err(Stop::Budget), _) | (_, Err(Stop::Budget)) => return Some(Unknown("budget")),
                (Ok(a), _) => large = !symbols && a.large(),
                _ => {}
            }
            if !symbols && !large {
                break;
            }
        }
        None
    }
}

/// Node for node the same, wherever the subtrees lie in their arenas.
pub(super) fn same_tree(a: &Reading, ia: Id, b: &Reading, ib: Id) -> bool {
    let (fa, fb) = (a.arena.first(ia), b.arena.first(ib));
    if ia - fa != ib - fb {
        return false;
    }
    let (sa, sb) = (a.arena.subtree(ia), b.arena.subtree(ib));
    sa.iter().zip(sb).all(|(x, y)| {
        if std::mem::discriminant(x) != std::mem::discriminant(y) {
            return false;
        }
        let (mut xs, mut ys) = ([0u32; 3], [0u32; 3]);
        let (mut nx, mut ny) = (0, 0);
        a.arena.for_children(x, |id| {
            xs[nx.min(2)] = id - fa;
            nx += 1;
        });
        b.arena.for_children(y, |id| {
            ys[ny.min(2)] = id - fb;
            ny += 1;
        });
        if nx != ny || nx > 3 || xs != ys {
            return false;
        }
        match (x, y) {
            (Node::Num(p), Node::Num(q)) => p == q,
            (Node::Decimal { value: p, .. }, Node::Decimal { value: q, .. }) => p == q,
            (Node::Sym(p), Node::Sym(q)) => p == q,
            (Node::Label(_), Node::Label(_)) => true,
            (Node::Call(p, _), Node::Call(q, _)) => p == q,
            (Node::Call2(p, ..), Node::Call2(q, ..)) => p == q,
            (Node::PlusMinus(_, p), Node::PlusMinus(_, q)) => p == q,
            (Node::Unit(p), Node::Unit(q)) => p == q,
            (Node::Based { value: p, .. }, Node::Based { value: q, .. }) => p == q,
            (Node::Series { product: p, var: v, .. }, Node::Series { product: q, var: w, .. }) => p == q && v == w,
            _ => true,
        }
    })
}
