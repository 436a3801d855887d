//! Equations and inequalities: equal up to rearrangement and scaling.

use super::super::ast::{Func2, Id, Node, Rel};
use super::super::eval::ball::{Ball, Balls, Sampling, mix};
use super::super::eval::precise::{Fixed, Precise};
use super::super::eval::{Field, eval};
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal, Unknown};
use super::scalar::{both_signs, same_tree, tells_signs};
use super::{Comparison, form};

const POINTS: [Sampling; 8] = [
    Sampling::Positive,
    Sampling::Mixed,
    Sampling::Unit,
    Sampling::Mixed,
    Sampling::Large,
    Sampling::Positive,
    Sampling::Integers,
    Sampling::Unit,
];

/// How many further points are asked where signs tell: far from zero a difference of two sides is lost.
const NEAR_ZERO: usize = 12;
/// The size of a difference of two sides from which doubles are not trusted alone.
const LARGE: f64 = 1e3;

impl Comparison<'_> {
    /// Both are relations.
    pub(super) fn relations(&mut self, g: Id, p: Id) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let (Node::Chain { operands: go, rels: gr }, Node::Chain { operands: po, rels: pr }) =
            (gold.node(g), pred.node(p))
        else {
            return Different("different_kind");
        };
        let (gi, pi) = (gold.arena.list(*go), pred.arena.list(*po));
        let gk = gold.arena.chain_rels(*gr, gi.len());
        let pk = pred.arena.chain_rels(*pr, pi.len());
        let equation = |kinds: &[Rel]| kinds.iter().all(|k| matches!(k, Rel::Eq | Rel::Approx));
        if equation(gk) && equation(pk) {
            return self.equations(gi, pi);
        }
        if gk == [Rel::In] && pk == [Rel::In] {
            // The name may differ, "for all" and "there is" may not.
            if (form::is_quantified(gold, gi[0]) || form::is_quantified(pred, pi[0]))
                && !self.compare(gi[0], pi[0]).is_equal()
            {
                return Different("quantifier");
            }
            let same = || form::is_named(gold, gi[0]) && form::is_named(pred, pi[0]);
            if !same() && !self.compare(gi[0], pi[0]).is_equal() {
                return Different("names");
            }
            return self.compare(gi[1], pi[1]);
        }
        // Operand by operand, from either end.
        if gi.len() == pi.len() {
            let forward = gk == pk && self.all_equal(gi, pi);
            let flipped: Vec<Rel> = pk.iter().rev().map(|k| k.flipped()).collect();
            let reversed: Vec<Id> = pi.iter().rev().copied().collect();
            let turns = !gk.iter().any(|k| k.has_direction());
            if forward || (turns && gk == flipped && self.all_equal(gi, &reversed)) {
                return Equal("relation");
            }
        }
        if let ([a, b], [c, d], [gk], [pk]) = (gi, pi, gk, pk)
            && (gk.is_order() && pk.is_order() || (gk == pk && matches!(gk, Rel::Ne | Rel::Eq | Rel::Approx)))
            && gold.arena.is_scalar(*a)
            && gold.arena.is_scalar(*b)
            && pred.arena.is_scalar(*c)
            && pred.arena.is_scalar(*d)
            && [a, b].iter().all(|&&id| form::unknown_operations(gold, id).is_empty())
            && [c, d].iter().all(|&&id| form::unknown_operations(pred, id).is_empty())
        {
            let strict = |k: &Rel| matches!(k, Rel::Lt | Rel::Gt);
            if strict(gk) != strict(pk) {
                return Different("strictness");
            }
            if let Some(ratio) = self.ratio((*a, *b), (*c, *d)) {
                let same_way = matches!(gk, Rel::Lt | Rel::Le) == matches!(pk, Rel::Lt | Rel::Le);
                let ok = if gk.is_order() { (ratio > 0.0) == same_way } else { true };
                return if ok { Equal("scaled") } else { Different("direction") };
            }
        }
        self.ranges(g, p)
    }

    fn all_equal(&mut self, g: &[Id], p: &[Id]) -> bool {
        g.len() == p.len() && g.iter().zip(p).all(|(&g, &p)| self.compare(g, p).is_equal())
    }

    fn equations(&mut self, g: &[Id], p: &[Id]) -> Finding {
        let (gold, pred) = (self.gold, self.pred);
        let (&gl, &pl) = (g.last().expect("a chain has operands"), p.last().expect("a chain has operands"));
        let function = |r: &Reading, id: Id| match *r.node(id) {
            // f(x), but f(2) is one value of it.
            Node::Sym(sym) => match r.arena.name(sym).strip_suffix(')') {
                Some(head) => !head.ends_with(|c: char| c.is_ascii_digit()),
                None => r.arena.name(sym) == "y",
            },
            Node::Mul(..) | Node::Call2(Func2::Apply, ..) => true,
            _ => false,
        };
        // Points and abbreviations are what they are called: SRAC = LRAC says nothing of SRA.
        let capitals = [(gold, g), (pred, p)].iter().any(|(r, ids)| ids.iter().all(|&id| form::is_capitals(r, id)));
        if form::is_name(gold, g[0]) && form::is_name(pred, p[0]) && !capitals {
            let same_name = match (gold.node(g[0]), pred.node(p[0])) {
                (Node::Sym(a), Node::Sym(b)) => a == b || gold.arena.name(*a).eq_ignore_ascii_case(pred.arena.name(*b)),
                (Node::Text(_), _) | (_, Node::Text(_)) => true,
                (Node::Tuple(_), Node::Tuple(_)) => self.compare(g[0], p[0]).is_equal(),
                _ => false,
            };
            // f(x) and y name the same, AB and AC do not.
            let worked_out = |n: &Node| matches!(n, Node::Mul(..) | Node::Call2(Func2::Apply, ..));
            let products = worked_out(gold.node(g[0])) && worked_out(pred.node(p[0]));
            let functions = match products {
                true => {
                    let values = form::is_function_value(gold, g[0]) && form::is_function_value(pred, p[0]);
                    values || self.compare(g[0], p[0]).is_equal()
                }
                false => function(gold, g[0]) && function(pred, p[0]),
            };
            if same_name || functions {
                let found = self.compare(gl, pl);
                // "f(x) = ax, where a is any number": the words at the end are not what it says.
                if found.is_equal() && matches!(gold.node(gl), Node::Text(_)) && g.len() > 2 {
                    return if self.all_equal(g, p) { found } else { Different("relation") };
                }
                if found.is_equal() || g.len() > 2 || p.len() > 2 {
                    return found;
                }
            }
        }
        // Numbers have a ratio whatever they say: "3 = 2" is no multiple of "5 = 3".
        let constants = [g, p].iter().zip([gold, pred]).all(|(ids, r)| ids.iter().all(|&id| form::is_constant(r, id)));
        if g.len() == 2 && p.len() == 2 && !constants {
            let scalar = gold.arena.is_scalar(g[0])
                && gold.arena.is_scalar(g[1])
                && pred.arena.is_scalar(p[0])
                && pred.arena.is_scalar(p[1]);
            // An identity has no ratio: both its sides are always the same.
            if scalar && g.iter().zip(p).all(|(&g, &p)| same_tree(gold, g, pred, p)) {
                return Equal("same_tree");
            }
            let unknown = |r: &Reading, ids: &[Id]| ids.iter().any(|&id| !form::unknown_operations(r, id).is_empty());
            if scalar && !unknown(gold, g) && !unknown(pred, p) {
                return match self.ratio((g[0], g[1]), (p[0], p[1])) {
                    Some(_) => Equal("scaled"),
                    None if self.budget.spent() => Unknown("budget"),
                    None => Different("relation"),
                };
            }
        }
        if self.all_equal(g, p) {
            return Equal("relation");
        }
        // "2 + 3 = 5" against "1 + 4 = 5": both only say 5.
        if form::is_constant(gold, g[0]) && form::is_constant(pred, p[0]) {
            return self.compare(gl, pl);
        }
        Different("relation")
    }

    /// The constant c with `left₁ − right₁ = c (left₂ − right₂)` at every point, if there is one. Differences that
    /// are the same at every point have a ratio whatever they say: `e < 1` is no multiple of `e < 2`.
    fn ratio(&mut self, g: (Id, Id), p: (Id, Id)) -> Option<f64> {
        let (gold, pred) = (self.gold, self.pred);
        // Both signs at once have no single ratio.
        let twofold = |r: &Reading, (a, b): (Id, Id)| {
            r.arena.any(a, |n| matches!(n, Node::PlusMinus(..))) || r.arena.any(b, |n| matches!(n, Node::PlusMinus(..)))
        };
        if twofold(gold, g) != twofold(pred, p) {
            return None;
        }
        let has_unit = |r: &Reading, (a, b): (Id, Id)| {
            let unit = |n: &Node| matches!(n, Node::Unit(_));
            r.arena.any(a, unit) || r.arena.any(b, unit)
        };
        let ignore_units = !(self.percent_counts() || has_unit(gold, g) && has_unit(pred, p));
        let signs = [(gold, g), (pred, p)].iter().any(|&(r, (a, b))| tells_signs(r, a) || tells_signs(r, b));
        let samplings = POINTS.into_iter().chain(both_signs(signs).take(NEAR_ZERO));
        let mut first: Option<(Ball, Ball)> = None;
        let mut varies = false;
        let mut agreed = 0;
        for (i, sampling) in samplings.enumerate() {
            let mut field = Balls { seed: mix(i as u64 + 101), sampling, sign: true, ignore_units, alias: &[] };
            let mut difference = |r: &Reading, (a, b): (Id, Id)| -> Option<Ball> {
                let x = eval(&mut field, &r.arena, &r.exact, a, self.budget).ok()?;
                let y = eval(&mut field, &r.arena, &r.exact, b, self.budget).ok()?;
                let y = field.neg(&y);
                field.add(&x, &y, self.budget).ok()
            };
            let (Some(f), Some(h)) = (difference(gold, g), difference(pred, p)) else { continue };
            if f.left || h.left {
                continue;
            }
            let zero = |b: &Ball| b.abs() <= b.rad + 1e-13;
            match (zero(&f), zero(&h)) {
                (true, true) => continue,
                (true, false) | (false, true) => return None,
                _ => {}
            }
            let inverse = field.inv(&h, self.budget).ok()?;
            let ratio = field.mul(&f, &inverse, self.budget).ok()?;
            match first {
                None => first = Some((ratio, f)),
                Some((r, _)) if r.apart(&ratio) => return None,
                Some((_, before)) => varies |= before.apart(&f),
            }
            if ratio.rad > 1e-7 * ratio.abs() {
                continue;
            }
            agreed += 1;
            if agreed >= 4 && !signs {
                break;
            }
        }
        // Beside large numbers what varies is lost.
        let (ratio, size) =
            first.filter(|_| varies && agreed >= 3).map(|(r, f)| (r.re, f.abs().max(f.abs() / r.abs())))?;
        (size < LARGE || !self.ratio_changes(g, p, ignore_units)).then_some(ratio)
    }

    /// The ratio is another one at another point, where doubles do not tell: x = e^{e^3} and x + 1 = e^{e^3}.
    fn ratio_changes(&mut self, g: (Id, Id), p: (Id, Id), ignore_units: bool) -> bool {
        let (gold, pred) = (self.gold, self.pred);
        let mut before: Option<(Fixed, Fixed)> = None;
        for (i, &sampling) in POINTS.iter().enumerate().take(3) {
            let point = Balls { seed: mix(i as u64 + 101), sampling, sign: true, ignore_units, alias: &[] };
            let mut field = Precise::new(point, false);
            let mut difference = |r: &Reading, (a, b): (Id, Id)| -> Option<Fixed> {
                let x = eval(&mut field, &r.arena, &r.exact, a, self.budget).ok()?;
                let y = eval(&mut field, &r.arena, &r.exact, b, self.budget).ok()?;
                let y = field.neg(&y);
                field.add(&x, &y, self.budget).ok()
            };
            let (Some(f), Some(h)) = (difference(gold, g), difference(pred, p)) else { return false };
            let Some((f0, h0)) = &before else {
                before = Some((f, h));
                continue;
            };
            let products = (field.mul(&f, h0, self.budget), field.mul(&h, f0, self.budget));
            if matches!(products, (Ok(x), Ok(y)) if x.apart(&y)) {
                return true;
            }
        }
        false
    }
}
