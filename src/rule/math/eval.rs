//! Evaluation: one pass over a subtree's range of nodes, in any [`Field`].
//!
//! Children come before parents in the arena, so a loop suffices. Only finite
//! sums and products evaluate their body again per term, nested at most
//! [`MAX_SERIES`] deep.

pub mod ball;
pub mod exact;
pub mod modular;
pub mod precise;

use super::ast::{Arena, Func, Func2, Id, Node, Sym, Unit};
use super::budget::{Budget, Stop};
use super::number::Q;

/// How deep sums and products may nest.
pub const MAX_SERIES: u32 = 3;
/// Terms of one sum or product.
pub const MAX_TERMS: i64 = 100_000;

/// The named constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constant {
    Pi,
    Euler,
    Imaginary,
}

/// A place to compute in: exact rationals, complex balls, a prime field.
pub trait Field {
    type V: Clone;
    /// Steps one operation costs, for the budget.
    const COST: u64;

    fn number(&mut self, q: &Q, budget: &mut Budget) -> Result<Self::V, Stop>;
    fn symbol(&mut self, sym: Sym) -> Result<Self::V, Stop>;
    fn constant(&mut self, constant: Constant) -> Result<Self::V, Stop>;
    /// A unit's size; one where units are ignored.
    fn unit(&mut self, unit: Unit) -> Result<Self::V, Stop>;
    /// The factor a percent or degree sign stands for.
    fn percent(&mut self) -> Result<Self::V, Stop>;
    fn degree(&mut self) -> Result<Self::V, Stop>;
    /// The sign that ± stands for in this variant.
    fn sign(&self) -> bool;
    fn add(&mut self, a: &Self::V, b: &Self::V, budget: &mut Budget) -> Result<Self::V, Stop>;
    fn mul(&mut self, a: &Self::V, b: &Self::V, budget: &mut Budget) -> Result<Self::V, Stop>;
    fn neg(&mut self, a: &Self::V) -> Self::V;
    fn inv(&mut self, a: &Self::V, budget: &mut Budget) -> Result<Self::V, Stop>;
    /// `a^b`; `exact` is `b` where it is a known rational.
    fn power(&mut self, a: &Self::V, b: &Self::V, exact: Option<&Q>, budget: &mut Budget) -> Result<Self::V, Stop>;
    fn call(&mut self, func: Func, a: &Self::V, budget: &mut Budget) -> Result<Self::V, Stop>;
    /// `exact` is the first argument where it is a known rational.
    fn call2(
        &mut self,
        func: Func2,
        a: &Self::V,
        b: &Self::V,
        exact: Option<&Q>,
        budget: &mut Budget,
    ) -> Result<Self::V, Stop>;
    /// The value as a small integer, where it certainly is one.
    fn integer(&self, a: &Self::V) -> Option<i64>;
}

/// Evaluates the node `root`. `exact` holds the rational value of each node that has one.
pub fn eval<F: Field>(
    field: &mut F,
    arena: &Arena,
    exact: &[Option<Q>],
    root: Id,
    budget: &mut Budget,
) -> Result<F::V, Stop> {
    let mut bound = Vec::new();
    range(field, arena, exact, root, &mut bound, 0, budget)
}

fn range<F: Field>(
    field: &mut F,
    arena: &Arena,
    exact: &[Option<Q>],
    root: Id,
    bound: &mut Vec<(Sym, i64)>,
    depth: u32,
    budget: &mut Budget,
) -> Result<F::V, Stop> {
    let first = arena.first(root);
    budget.charge((root - first + 1) as u64 * F::COST)?;
    let mut values: Vec<Result<F::V, Stop>> = Vec::with_capacity((root - first + 1) as usize);
    for id in first..=root {
        let known = if bound.is_empty() { exact.get(id as usize).and_then(Option::as_ref) } else { None };
        let value = match known {
            Some(q) if !matters(arena.node(id)) => field.number(q, budget),
            _ => node(field, arena, exact, id, first, &values, bound, depth, budget),
        };
        if let Err(Stop::Budget) = value {
            return Err(Stop::Budget);
        }
        values.push(value);
    }
    values.pop().unwrap_or(Err(Stop::Undefined))
}

/// Nodes whose value depends on how units are read.
fn matters(node: &Node) -> bool {
    matches!(node, Node::Percent(_) | Node::Degree(_) | Node::Unit(_) | Node::Label(_))
}

#[allow(clippy::too_many_arguments)]
fn node<F: Field>(
    field: &mut F,
    arena: &Arena,
    exact: &[Option<Q>],
    id: Id,
    first: Id,
    values: &[Result<F::V, Stop>],
    bound: &mut Vec<(Sym, i64)>,
    depth: u32,
    budget: &mut Budget,
) -> Result<F::V, Stop> {
    let get = |id: Id| values[(id - first) as usize].as_ref().map_err(|stop| *stop);
    match *arena.node(id) {
        Node::Num(ref q) | Node::Decimal { value: ref q, .. } | Node::Based { value: ref q, .. } => {
            field.number(q, budget)
        }
        Node::Sym(sym) => match bound.iter().rev().find(|(s, _)| *s == sym) {
            Some(&(_, k)) => field.number(&Q::int(k), budget),
            None => field.symbol(sym),
        },
        Node::Pi => field.constant(Constant::Pi),
        Node::Euler => field.constant(Constant::Euler),
        Node::Imaginary => match bound.iter().rev().find(|(s, _)| *s == super::ast::hash_name("i")) {
            Some(&(_, k)) => field.number(&Q::int(k), budget),
            None => field.constant(Constant::Imaginary),
        },
        Node::Unit(unit) => field.unit(unit),
        Node::Label(_) => field.number(&Q::ONE, budget),
        Node::Neg(a) => Ok(field.neg(get(a)?)),
        Node::PlusMinus(a, plus) => {
            let value = get(a)?;
            Ok(if plus == field.sign() { value.clone() } else { field.neg(value) })
        }
        Node::Percent(a) => {
            let factor = field.percent()?;
            field.mul(get(a)?, &factor, budget)
        }
        Node::Degree(a) => {
            let factor = field.degree()?;
            field.mul(get(a)?, &factor, budget)
        }
        Node::Add(a, b) => field.add(get(a)?, get(b)?, budget),
        Node::Sub(a, b) => {
            let b = field.neg(get(b)?);
            field.add(get(a)?, &b, budget)
        }
        Node::Mul(a, b) => field.mul(get(a)?, get(b)?, budget),
        Node::Div(a, b) => {
            let inverse = field.inv(get(b)?, budget)?;
            field.mul(get(a)?, &inverse, budget)
        }
        Node::Pow(a, b) => {
            let known;
            let e = if bound.is_empty() {
                exact.get(b as usize).and_then(Option::as_ref)
            } else {
                known = field.integer(get(b)?).map(Q::int).or_else(|| exact.get(b as usize).cloned().flatten());
                known.as_ref()
            };
            field.power(get(a)?, get(b)?, e, budget)
        }
        Node::Call(func, a) => field.call(func, get(a)?, budget),
        Node::Call2(func, a, b) => {
            let exact = exact.get(a as usize).and_then(Option::as_ref);
            field.call2(func, get(a)?, get(b)?, exact, budget)
        }
        Node::Series { product, var, lo, hi, body } => {
            let (lo, hi) = (field.integer(get(lo)?), field.integer(get(hi)?));
            let (Some(lo), Some(hi)) = (lo, hi) else { return Err(Stop::Unsupported) };
            if depth >= MAX_SERIES || hi.saturating_sub(lo) > MAX_TERMS {
                return Err(Stop::Unsupported);
            }
            let mut total = field.number(if product { &Q::ONE } else { &Q::ZERO }, budget)?;
            for k in lo..=hi {
                bound.push((var, k));
                let term = range(field, arena, exact, body, bound, depth + 1, budget);
                bound.pop();
                let term = term?;
                total = if product { field.mul(&total, &term, budget)? } else { field.add(&total, &term, budget)? };
            }
            Ok(total)
        }
        _ => Err(Stop::Unsupported),
    }
}
