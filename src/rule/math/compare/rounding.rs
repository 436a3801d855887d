//! Values that differ by no more than rounding or the configuration grants.

use super::super::Tolerance;
use super::super::ast::{Id, Node};
use super::super::number::Q;
use super::super::reading::Reading;
use super::Finding::{self, Equal};
use super::{Comparison, Val};

/// Digits from which a decimal prints a fraction whose decimals repeat.
const PRINTED: u16 = 14;

impl Comparison<'_> {
    /// Equal within the tolerance that gold's decimals (or the configuration) grant.
    pub(super) fn rounded(&self, g: Val, p: Val, a: f64, b: f64) -> Option<Finding> {
        let error = (a - b).abs();
        match self.config.tolerance {
            Tolerance::Exact => None,
            Tolerance::Relative(limit) => (error <= limit * a.abs()).then_some(Equal("tolerance")),
            Tolerance::Absolute(limit) => (error <= limit).then_some(Equal("tolerance")),
            Tolerance::GoldPrecision => {
                let printed = decimal(self.pred, p.id).filter(|&(_, _, digits)| digits >= PRINTED);
                let goes_on = self.gold.value(g.id).is_some_and(Q::repeats);
                if let (Some((value, _, digits)), true) = (printed, goes_on) {
                    let ulp = 10f64.powi(value.abs().log10().floor() as i32 - i32::from(digits) + 1);
                    return (error <= ulp.max(4.0 * f64::EPSILON * a.abs())).then_some(Equal("printed_in_full"));
                }
                let (value, places, digits) = decimal(self.gold, g.id)?;
                let size = value.abs().log10().floor() as i32;
                let ulp = 10f64.powi(size - digits as i32 + 1) * (a / value).abs();
                let rough = matches!(decimal(self.pred, p.id), Some((_, _, more)) if more > digits);
                let literal = decimal(self.pred, p.id).is_some()
                    || matches!(self.pred.node(p.id), Node::Num(q) if q.is_integer());
                let enough = if literal { rough && digits >= 3 && places >= 2 } else { digits >= 3 };
                let half = 0.5 * ulp * (1.0 + 1e-9) + 4.0 * f64::EPSILON * a.abs();
                (enough && error <= half).then_some(Equal("rounds_to_gold"))
            }
        }
    }
}

/// The decimal literal that a value is, apart from sign, unit and percent: value, places, digits. `3.2 × 10^5` and
/// "3.2 million" are one; `2/6.2` is an expression, which has a value to any number of digits.
fn decimal(r: &Reading, id: Id) -> Option<(f64, u16, u16)> {
    let mut found = None;
    let first = r.arena.first(id);
    // Exponents of ten and of units.
    let mut exponent = None;
    for (n, at) in r.arena.subtree(id).iter().zip(first..id + 1).rev() {
        match *n {
            Node::Decimal { ref value, places, digits } if found.is_none() && exponent != Some(at) => {
                found = Some((value.to_f64(), places, digits));
            }
            Node::Pow(base, power)
                if matches!(r.node(base), Node::Unit(_)) || *r.node(base) == Node::Num(Q::int(10)) =>
            {
                exponent = Some(power);
            }
            Node::Num(ref q) if exponent == Some(at) && q.is_integer() => {}
            Node::Num(ref q) if is_power_of_ten(q) => {}
            Node::Div(_, below) if r.value(below).is_some() => return None,
            Node::Neg(_) | Node::Percent(_) | Node::Degree(_) | Node::Unit(_) | Node::Label(_) => {}
            Node::Mul(..) | Node::Div(..) => {}
            _ => return None,
        }
    }
    found.filter(|(value, ..)| *value != 0.0)
}

fn is_power_of_ten(q: &Q) -> bool {
    q.to_i64().is_some_and(|n| (1..=18).any(|power| 10i64.pow(power) == n))
}
