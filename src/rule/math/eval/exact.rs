//! Exact rational values: what needs no randomness and no rounding.

use super::super::ast::{Arena, Func, Func2, Sym, Unit};
use super::super::budget::{Budget, Stop};
use super::super::number::{Q, charge_product};
use super::{Constant, Field};

/// The rational value of every node that has one by arithmetic alone.
///
/// Units, percent and degree signs stop it: their size depends on how they are read.
pub fn fold(arena: &Arena, budget: &mut Budget) -> Result<Vec<Option<Q>>, Stop> {
    let mut exact: Vec<Option<Q>> = Vec::with_capacity(arena.len());
    let mut bound = Vec::new();
    let mut values: Vec<Result<Q, Stop>> = Vec::with_capacity(arena.len());
    budget.charge(arena.len() as u64 * Exact::COST)?;
    for id in 0..arena.len() as u32 {
        // Two values at once.
        if matches!(arena.node(id), super::super::ast::Node::PlusMinus(..)) {
            exact.push(None);
            values.push(Err(Stop::Unsupported));
            continue;
        }
        let value = super::node(&mut Exact, arena, &exact, id, 0, &values, &mut bound, 0, budget);
        if let Err(Stop::Budget) = value {
            return Err(Stop::Budget);
        }
        exact.push(value.as_ref().ok().cloned());
        values.push(value);
    }
    Ok(exact)
}

struct Exact;

impl Field for Exact {
    type V = Q;
    const COST: u64 = 8;

    fn number(&mut self, q: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        budget.charge(q.bits() / 64)?;
        Ok(q.clone())
    }

    fn symbol(&mut self, _: Sym) -> Result<Q, Stop> {
        Err(Stop::Unsupported)
    }

    fn constant(&mut self, _: Constant) -> Result<Q, Stop> {
        Err(Stop::Unsupported)
    }

    fn unit(&mut self, _: Unit) -> Result<Q, Stop> {
        Err(Stop::Unsupported)
    }

    fn percent(&mut self) -> Result<Q, Stop> {
        Err(Stop::Unsupported)
    }

    fn degree(&mut self) -> Result<Q, Stop> {
        Err(Stop::Unsupported)
    }

    fn sign(&self) -> bool {
        true
    }

    fn add(&mut self, a: &Q, b: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        a.add(b, budget)
    }

    fn mul(&mut self, a: &Q, b: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        a.mul(b, budget)
    }

    fn neg(&mut self, a: &Q) -> Q {
        a.neg()
    }

    fn inv(&mut self, a: &Q, _: &mut Budget) -> Result<Q, Stop> {
        a.inv()
    }

    fn power(&mut self, a: &Q, b: &Q, _: Option<&Q>, budget: &mut Budget) -> Result<Q, Stop> {
        if let Some(e) = b.to_i64() {
            return a.pow(e, budget);
        }
        if let Q::Small(n, d) = *b
            && let Some(root) = root(a, d, budget)?
        {
            return root.pow(n, budget);
        }
        Err(Stop::Unsupported)
    }

    fn call(&mut self, func: Func, a: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        match func {
            Func::Abs => Ok(a.abs()),
            Func::Floor => a.floor(budget),
            Func::Ceil => Ok(a.neg().floor(budget)?.neg()),
            Func::Sign => Ok(Q::int(if a.is_zero() { 0 } else { 1 - 2 * i64::from(a.is_negative()) })),
            Func::Re | Func::Conj => Ok(a.clone()),
            Func::Im => Ok(Q::ZERO),
            Func::Factorial | Func::DoubleFactorial => {
                let step = if func == Func::Factorial { 1 } else { 2 };
                let n = a.to_i64().filter(|n| (0..=5000).contains(n)).ok_or(Stop::Unsupported)?;
                let mut product = num_bigint::BigInt::from(1);
                let mut k = n;
                while k > 1 {
                    budget.charge(product.bits() / 64 + 4)?;
                    product *= k;
                    k -= step;
                }
                Ok(Q::from_bigint(product))
            }
            Func::Ln if *a == Q::ONE => Ok(Q::ZERO),
            Func::Log10 => logarithm(&Q::int(10), a, budget),
            Func::Sin | Func::Tan | Func::Asin | Func::Atan | Func::Sinh | Func::Tanh if a.is_zero() => Ok(Q::ZERO),
            Func::Cos | Func::Sec | Func::Cosh | Func::Exp if a.is_zero() => Ok(Q::ONE),
            _ => Err(Stop::Unsupported),
        }
    }

    fn call2(&mut self, func: Func2, a: &Q, b: &Q, _: Option<&Q>, budget: &mut Budget) -> Result<Q, Stop> {
        match func {
            Func2::Log => logarithm(a, b, budget),
            Func2::Root => {
                let n = a.to_i64().filter(|&n| n > 0).ok_or(Stop::Unsupported)?;
                root(b, n, budget)?.ok_or(Stop::Unsupported)
            }
            Func2::Binomial | Func2::Permutations => {
                let (n, k) = (a.to_i64().ok_or(Stop::Unsupported)?, b.to_i64().ok_or(Stop::Unsupported)?);
                if !(0..=20_000).contains(&n) {
                    return Err(Stop::Unsupported);
                }
                if !(0..=n).contains(&k) {
                    return Ok(Q::ZERO);
                }
                let k = if func == Func2::Binomial { k.min(n - k) } else { k };
                // Each step stays an integer, so a step costs its length only.
                let mut value = num_bigint::BigInt::from(1);
                for i in 1..=k {
                    budget.charge(value.bits() / 32 + 8)?;
                    value *= n - k + i;
                    if func == Func2::Binomial {
                        value /= i;
                    }
                }
                Ok(Q::from_bigint(value))
            }
            Func2::Mod => {
                if b.is_zero() {
                    return Err(Stop::Undefined);
                }
                let quotient = a.div(b, budget)?.floor(budget)?;
                a.sub(&quotient.mul(b, budget)?, budget)
            }
            Func2::Gcd | Func2::Lcm => {
                let (Some(x), Some(y)) = (a.to_i64(), b.to_i64()) else { return Err(Stop::Unsupported) };
                let (x, y) = (x.unsigned_abs() as u128, y.unsigned_abs() as u128);
                let g = super::super::number::gcd_u128(x, y).max(1);
                let n = if func == Func2::Gcd { g } else { x / g * y };
                Q::ratio(i128::try_from(n).map_err(|_| Stop::Unsupported)?, 1).ok_or(Stop::Undefined)
            }
            Func2::Apply | Func2::Cross => Err(Stop::Unsupported),
            Func2::Max => Ok(if a.cmp(b).is_ge() { a.clone() } else { b.clone() }),
            Func2::Min => Ok(if a.cmp(b).is_le() { a.clone() } else { b.clone() }),
        }
    }

    fn integer(&self, a: &Q) -> Option<i64> {
        a.to_i64()
    }
}

/// The exact real n-th root, if it is rational.
fn root(a: &Q, n: i64, budget: &mut Budget) -> Result<Option<Q>, Stop> {
    if n == 1 {
        return Ok(Some(a.clone()));
    }
    if !(2..=64).contains(&n) || (a.is_negative() && n % 2 == 0) || a.bits() > 65_536 {
        return Ok(None);
    }
    if let Q::Small(p, q) = *a
        && n == 2
    {
        let (x, y) = ((p as f64).sqrt().round() as i64, (q as f64).sqrt().round() as i64);
        let exact = x.checked_mul(x) == Some(p) && y.checked_mul(y) == Some(q);
        return Ok(exact.then_some(Q::Small(x, y)));
    }
    // Newton's iteration on integers: about log2(bits) products of the size.
    charge_product(a.bits() * 4, a.bits(), budget)?;
    let big = a.to_big();
    let (p, q) = (big.numer().nth_root(n as u32), big.denom().nth_root(n as u32));
    let exact = num_traits::pow(p.clone(), n as usize) == *big.numer()
        && num_traits::pow(q.clone(), n as usize) == *big.denom();
    Ok(exact.then(|| Q::from_big(num_rational::BigRational::new_raw(p, q))))
}

/// `log_base(a)` where it is rational with a small denominator.
fn logarithm(base: &Q, a: &Q, budget: &mut Budget) -> Result<Q, Stop> {
    let (x, y) = (a.to_f64().ln(), base.to_f64().ln());
    if !x.is_finite() || !y.is_finite() || y == 0.0 || a.is_negative() || base.is_negative() {
        return Err(Stop::Unsupported);
    }
    for d in 1..=6i64 {
        let n = (x / y * d as f64).round();
        if n.abs() < 4096.0 && (n - x / y * d as f64).abs() < 1e-9 {
            let n = n as i64;
            if base.pow(n, budget)? == a.pow(d, budget)? {
                return Q::ratio(n as i128, d as i128).ok_or(Stop::Undefined);
            }
        }
    }
    Err(Stop::Unsupported)
}
