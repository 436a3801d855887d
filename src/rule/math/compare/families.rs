//! Solutions for every integer: `x = kπ, k ∈ ℤ`, whatever the parameter is called and wherever it starts.
//!
//! Each member is taken apart into arithmetic progressions by its values at small integers. Two unions of
//! progressions are equal when they have the same residues modulo a common period.

use super::super::ast::{Id, Node, Numbers, Rel, Sym};
use super::super::eval::ball::{Balls, Sampling};
use super::super::eval::eval;
use super::super::reading::Reading;
use super::Finding::{self, Different, Equal, Unknown};
use super::names::free_symbols;
use super::{Comparison, Val, form};

/// Most steps after which a member repeats itself, most residues, and the relative size of what is no difference.
const STEPS: [i32; 4] = [1, 2, 3, 4];
const MANY: i64 = 64;
const NEAR: f64 = 1e-9;

/// The values for one parameter, and whether the answer says what it runs over.
struct Family {
    members: Vec<Val>,
    parameter: Sym,
    over: Option<Numbers>,
    /// Each value is a multiple of π or holds one: solutions of an equation with an angle.
    multiples: bool,
}

/// `offset + step · k` for every integer k.
#[derive(Clone, Copy)]
struct Progression {
    offset: f64,
    step: f64,
}

impl Comparison<'_> {
    /// Compares two families of solutions; `None` where gold is none or a side is too unlike one.
    pub(super) fn families(&mut self) -> Option<Finding> {
        let (gold, pred) = (self.gold, self.pred);
        let parameter = |(_, name): &(Sym, String)| is_parameter(name);
        if !gold.arena.names.iter().any(parameter) {
            return None;
        }
        let (a, b) = (family(gold)?, family(pred)?);
        // Gold says that it speaks of all integers, or is seen to: "2k" alone is a formula.
        let over = match (a.over, b.over) {
            (Some(x), Some(y)) if x != y => return Some(Different("parameter")),
            (Some(over), _) => over,
            (None, Some(over)) if a.multiples => over,
            _ => return None,
        };
        if over != Numbers::Integers {
            return None;
        }
        let (x, y) = (self.progressions(gold, &a)?, self.progressions(pred, &b)?);
        if self.budget.spent() {
            return Some(Unknown("budget"));
        }
        Some(if same(&x, &y)? { Equal("families") } else { Different("families") })
    }

    fn progressions(&mut self, r: &Reading, family: &Family) -> Option<Vec<Progression>> {
        let mut out = Vec::new();
        for &member in &family.members {
            if free_symbols(r, member.id).iter().any(|sym| *sym != family.parameter) {
                return None;
            }
            let mut values = Vec::with_capacity(17);
            for k in -8..=8 {
                let sampling = Sampling::At(f64::from(k));
                let mut field = Balls { seed: 0, sampling, sign: member.sign, ignore_units: false, alias: &[] };
                let value = eval(&mut field, &r.arena, &r.exact, member.id, self.budget).ok()?;
                if value.im != 0.0 || value.left || value.rad > NEAR * (1.0 + value.abs()) {
                    return None;
                }
                values.push(value.re);
            }
            let close = |a: f64, b: f64| (a - b).abs() <= NEAR * (1.0 + a.abs().max(b.abs()));
            let step = STEPS.into_iter().map(|s| s as usize).find(|&s| {
                let first = values[s] - values[0];
                first.abs() > NEAR && values.windows(s + 1).all(|w| close(w[s] - w[0], first))
            })?;
            out.extend(
                (0..step).map(|i| Progression { offset: values[8 + i], step: (values[step] - values[0]).abs() }),
            );
        }
        (!out.is_empty() && out.len() <= 64).then_some(out)
    }
}

/// The same numbers in both unions; `None` without a common period.
fn same(a: &[Progression], b: &[Progression]) -> Option<bool> {
    let whole = |x: f64| (x - x.round()).abs() <= NEAR * x.abs().max(1.0);
    let all = || a.iter().chain(b);
    let period = (1..=24).map(|n| a[0].step * f64::from(n)).find(|period| all().all(|p| whole(period / p.step)))?;
    let residues = |union: &[Progression]| {
        let mut out = Vec::new();
        for p in union {
            let turns = (period / p.step).round() as i64;
            if turns > MANY {
                return None;
            }
            out.extend((0..turns).map(|i| (p.offset + i as f64 * p.step).rem_euclid(period)));
        }
        Some(out)
    };
    let (x, y) = (residues(a)?, residues(b)?);
    let meets = |u: f64, v: f64| {
        let apart = (u - v).abs();
        apart.min(period - apart) <= 1e-8 * period.max(1.0)
    };
    let within = |xs: &[f64], ys: &[f64]| xs.iter().all(|&u| ys.iter().any(|&v| meets(u, v)));
    Some(within(&x, &y) && within(&y, &x))
}

/// An answer as values of one integer parameter.
fn family(r: &Reading) -> Option<Family> {
    let mut values: Vec<Id> = Vec::new();
    let mut over: Option<(Option<Sym>, Numbers)> = None;
    let mut open = vec![r.root];
    while let Some(id) = open.pop() {
        if let Some((sym, numbers)) = proviso(r, id) {
            over.get_or_insert((sym, numbers));
            continue;
        }
        match *r.node(id) {
            Node::List(list) | Node::All(list) | Node::Set(list) if open.len() < 64 => open.extend(r.arena.list(list)),
            // {kπ | k ∈ ℤ} and {x | x = kπ, k ∈ ℤ}
            Node::SetOf(what, condition) => {
                if !matches!(r.node(what), Node::Sym(_)) {
                    values.push(what);
                }
                open.push(condition);
            }
            // kπ for k ∈ ℤ
            Node::Case(value, condition) => open.extend([value, condition]),
            // kπ (k ∈ ℤ)
            Node::Mul(value, condition) if proviso(r, condition).is_some() => open.extend([value, condition]),
            Node::Chain { operands, rels } => {
                let ids = r.arena.list(operands);
                let kinds = r.arena.chain_rels(rels, ids.len());
                match (ids, kinds) {
                    ([_, set], [Rel::In]) => open.push(*set),
                    ([name, .., last], _) if kinds.iter().all(|k| *k == Rel::Eq) && form::is_name(r, *name) => {
                        // x = kπ (k ∈ ℤ)
                        open.push(*last);
                    }
                    _ => return None,
                }
            }
            _ => values.push(id),
        }
    }
    if values.is_empty() || values.len() > 16 || !values.iter().all(|&id| r.arena.is_scalar(id)) {
        return None;
    }
    let symbols: Vec<Sym> = values.iter().flat_map(|&id| free_symbols(r, id)).collect();
    let first = *symbols.first()?;
    if symbols.iter().any(|sym| *sym != first) || matches!(over, Some((Some(sym), _)) if sym != first) {
        return None;
    }
    let letter = is_parameter(r.arena.name(first));
    if over.is_none() && !letter {
        return None;
    }
    let multiples = values.iter().all(|&id| r.arena.any(id, |n| *n == Node::Pi));
    let twofold = |id: Id| r.arena.any(id, |n| matches!(n, Node::PlusMinus(..)));
    let both =
        |id: Id| [true, false].into_iter().filter(move |sign| *sign || twofold(id)).map(move |sign| Val { id, sign });
    let members = values.into_iter().flat_map(both).collect();
    Some(Family { members, parameter: first, over: over.map(|(_, numbers)| numbers), multiples })
}

fn is_parameter(name: &str) -> bool {
    matches!(name, "k" | "n" | "m" | "l" | "t" | "z" | "j")
}

/// "k ∈ ℤ", "for any integer k": the parameter, where it is named, and what it runs over.
fn proviso(r: &Reading, id: Id) -> Option<(Option<Sym>, Numbers)> {
    match *r.node(id) {
        Node::Chain { operands, rels } => {
            let ids = r.arena.list(operands);
            match (ids, r.arena.chain_rels(rels, ids.len())) {
                (&[name, set], [Rel::In]) => match (r.node(name), r.node(set)) {
                    (&Node::Sym(sym), &Node::Numbers(numbers)) if numbers != Numbers::Reals => {
                        Some((Some(sym), numbers))
                    }
                    _ => None,
                },
                _ => None,
            }
        }
        Node::Text(index) => r.arena.texts[index as usize].contains("integer").then_some((None, Numbers::Integers)),
        _ => None,
    }
}
