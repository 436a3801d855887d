//! Real numbers in fixed point with 320 bits behind the point and an error bound.
//!
//! Confirms what doubles cannot tell apart: √(10³⁰ + 1) and 10¹⁵ differ in the 31st digit.

use std::sync::LazyLock;

use num_bigint::BigInt;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::super::ast::{Func, Func2, Sym, Unit};
use super::super::budget::{Budget, Stop};
use super::super::number::Q;
use super::ball::Balls;
use super::{Constant, Field};

/// Bits behind the point.
const S: u64 = 320;
/// Largest number, in bits with those behind the point.
const MAX: u64 = 3000;

const PI: &str = "31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679821480865132823066470938446";
const E: &str = "27182818284590452353602874713526624977572470936999595749669676277240766303535475945713821785251664274274663919320030599218174136";

static PI_FIXED: LazyLock<BigInt> = LazyLock::new(|| digits(PI));
static E_FIXED: LazyLock<BigInt> = LazyLock::new(|| digits(E));

fn digits(text: &str) -> BigInt {
    let value: BigInt = text.parse().expect("the constants are digits");
    (value << S) / num_traits::pow(BigInt::from(10), text.len() - 1)
}

/// A value times 2³²⁰, and how far off it may be.
#[derive(Clone, Debug)]
pub struct Fixed {
    m: BigInt,
    err: BigInt,
}

impl Fixed {
    /// True if the two certainly differ.
    pub fn apart(&self, other: &Fixed) -> bool {
        (&self.m - &other.m).abs() > &self.err + &other.err
    }

    /// True if the error bound leaves at least 60 digits behind the point of a value near one.
    pub fn sharp(&self) -> bool {
        let size = self.m.bits().max(S);
        self.err.bits() + 200 <= size
    }

    fn new(m: BigInt, err: BigInt) -> Result<Fixed, Stop> {
        if m.bits() > MAX || err.bits() > MAX { Err(Stop::Unsupported) } else { Ok(Fixed { m, err }) }
    }

    fn small(m: BigInt) -> Result<Fixed, Stop> {
        Fixed::new(m, BigInt::from(4))
    }
}

/// Fixed point at the point that `point` samples.
pub struct Precise<'a> {
    pub point: Balls<'a>,
}

fn one() -> BigInt {
    BigInt::one() << S
}

fn mul(a: &Fixed, b: &Fixed) -> Result<Fixed, Stop> {
    let err = (a.m.abs() * &b.err + b.m.abs() * &a.err + &a.err * &b.err) >> S;
    Fixed::new((&a.m * &b.m) >> S, err + 2)
}

fn inv(a: &Fixed) -> Result<Fixed, Stop> {
    let size = a.m.abs();
    if size <= a.err {
        return Err(Stop::Undefined);
    }
    let m = (BigInt::one() << (2 * S)) / &a.m;
    let err = m.abs() * &a.err / (size - &a.err) + 2;
    Fixed::new(m, err)
}

fn neg(a: &Fixed) -> Fixed {
    Fixed { m: -&a.m, err: a.err.clone() }
}

fn add(a: &Fixed, b: &Fixed) -> Result<Fixed, Stop> {
    Fixed::new(&a.m + &b.m, &a.err + &b.err)
}

fn integer_power(a: &Fixed, n: i64) -> Result<Fixed, Stop> {
    let base = if n < 0 { inv(a)? } else { a.clone() };
    let mut result = Fixed { m: one(), err: BigInt::zero() };
    for bit in (0..64 - n.unsigned_abs().leading_zeros()).rev() {
        result = mul(&result, &result)?;
        if n.unsigned_abs() >> bit & 1 == 1 {
            result = mul(&result, &base)?;
        }
    }
    Ok(result)
}

/// The real n-th root, by the roots of the interval's ends.
fn root(a: &Fixed, n: u32) -> Result<Fixed, Stop> {
    if a.m.is_negative() {
        if n % 2 == 1 {
            return Ok(neg(&root(&neg(a), n)?));
        }
        return if a.m.abs() <= a.err {
            Fixed::new(BigInt::zero(), (a.err.clone() << S).sqrt() + 1)
        } else {
            Err(Stop::Unsupported)
        };
    }
    let shift = S * u64::from(n - 1);
    let of = |m: BigInt| (m << shift).nth_root(n);
    let low = if a.m > a.err { of(&a.m - &a.err) } else { BigInt::zero() };
    let high = of(&a.m + &a.err);
    let err = &high - &low + 2;
    Fixed::new(low, err)
}

/// e^x: halve the argument until it is small, sum the series, square back.
fn exp(a: &Fixed) -> Result<Fixed, Stop> {
    if a.m.bits() > S + 10 {
        return Err(Stop::Unsupported);
    }
    const HALVINGS: u64 = 24;
    let x = Fixed { m: &a.m >> HALVINGS, err: (&a.err >> HALVINGS) + 1 };
    let mut term = one();
    let mut sum = one();
    for k in 1..40u32 {
        term = ((term * &x.m) >> S) / k;
        if term.is_zero() {
            break;
        }
        sum += &term;
    }
    let mut value = Fixed { m: sum, err: x.err * 2 + 64 };
    for _ in 0..HALVINGS {
        value = mul(&value, &value)?;
    }
    Ok(value)
}

/// ln x for x > 0: square roots bring it near one, then 2 artanh((x − 1) / (x + 1)).
fn ln(a: &Fixed) -> Result<Fixed, Stop> {
    if a.m <= a.err {
        return Err(Stop::Unsupported);
    }
    const ROOTS: u64 = 20;
    let mut x = a.clone();
    for _ in 0..ROOTS {
        x = root(&x, 2)?;
    }
    let unit = Fixed { m: one(), err: BigInt::zero() };
    let z = mul(&add(&x, &neg(&unit))?, &inv(&add(&x, &unit)?)?)?;
    let square = mul(&z, &z)?;
    let mut power = z.m.clone();
    let mut sum = z.m.clone();
    for k in (3..80u32).step_by(2) {
        power = (power * &square.m) >> S;
        if power.is_zero() {
            break;
        }
        sum += &power / k;
    }
    Fixed::new(sum << (ROOTS + 1), (z.err * 2 + 64) << (ROOTS + 1))
}

/// Sine and cosine: the argument modulo 2π, halved, by the series and the double-angle formulas.
fn sin_cos(a: &Fixed) -> Result<(Fixed, Fixed), Stop> {
    if a.m.bits() > S + 40 {
        return Err(Stop::Unsupported);
    }
    let turn: BigInt = &*PI_FIXED * 2;
    let turns: BigInt = (&a.m + &*PI_FIXED) / &turn;
    let m = &a.m - &turns * &turn;
    const HALVINGS: u64 = 24;
    let x: BigInt = m >> HALVINGS;
    let square: BigInt = (&x * &x) >> S;
    let (mut term, mut sin) = (x.clone(), x);
    for k in 1..24u32 {
        term = -((term * &square) >> S) / (2 * k * (2 * k + 1));
        sin += &term;
    }
    let (mut term, mut cos) = (one(), one());
    for k in 1..24u32 {
        term = -((term * &square) >> S) / (2 * k * (2 * k - 1));
        cos += &term;
    }
    let err: BigInt = (&a.err >> HALVINGS) + BigInt::from(64) + turns.abs() * BigInt::from(4);
    let (mut sin, mut cos) = (Fixed { m: sin, err: err.clone() }, Fixed { m: cos, err });
    for _ in 0..HALVINGS {
        let (s, c) = (mul(&sin, &cos)?, mul(&cos, &cos)?);
        sin = add(&s, &s)?;
        cos = add(&add(&c, &c)?, &Fixed { m: -one(), err: BigInt::zero() })?;
    }
    Ok((sin, cos))
}

/// atan x = 2 atan(x / (1 + √(1 + x²))), until the series is short.
fn atan(a: &Fixed) -> Result<Fixed, Stop> {
    const HALVINGS: u64 = 16;
    let unit = Fixed { m: one(), err: BigInt::zero() };
    let mut x = a.clone();
    for _ in 0..HALVINGS {
        let below = add(&unit, &root(&add(&unit, &mul(&x, &x)?)?, 2)?)?;
        x = mul(&x, &inv(&below)?)?;
    }
    let square = mul(&x, &x)?;
    let (mut power, mut sum) = (x.m.clone(), x.m.clone());
    for k in (3..80u32).step_by(2) {
        power = -((power * &square.m) >> S);
        if power.is_zero() {
            break;
        }
        sum += &power / k;
    }
    Fixed::new(sum << HALVINGS, (x.err + 64) << HALVINGS)
}

impl Field for Precise<'_> {
    type V = Fixed;
    const COST: u64 = 60;

    fn number(&mut self, q: &Q, budget: &mut Budget) -> Result<Fixed, Stop> {
        if q.bits() > MAX {
            return Err(Stop::Unsupported);
        }
        budget.charge(40)?;
        let big = q.to_big();
        Fixed::new((big.numer() << S) / big.denom(), BigInt::from(u8::from(!q.is_integer())))
    }

    fn symbol(&mut self, sym: Sym) -> Result<Fixed, Stop> {
        // The double is taken as it is: exactly the point of the other evaluation.
        let value = self.point.sample(sym);
        let scaled = BigInt::from((value * 2f64.powi(60)) as i128);
        Fixed::small(scaled << (S - 60))
    }

    fn constant(&mut self, constant: Constant) -> Result<Fixed, Stop> {
        match constant {
            Constant::Pi => Fixed::small(PI_FIXED.clone()),
            Constant::Euler => Fixed::small(E_FIXED.clone()),
            Constant::Imaginary => Err(Stop::Unsupported),
        }
    }

    fn unit(&mut self, _: Unit) -> Result<Fixed, Stop> {
        if self.point.ignore_units { Fixed::new(one(), BigInt::zero()) } else { Err(Stop::Unsupported) }
    }

    fn percent(&mut self) -> Result<Fixed, Stop> {
        if self.point.ignore_units { Fixed::new(one(), BigInt::zero()) } else { Fixed::small(one() / 100) }
    }

    fn degree(&mut self) -> Result<Fixed, Stop> {
        if self.point.ignore_units { Fixed::new(one(), BigInt::zero()) } else { Fixed::small(&*PI_FIXED / 180) }
    }

    fn sign(&self) -> bool {
        self.point.sign
    }

    fn add(&mut self, a: &Fixed, b: &Fixed, _: &mut Budget) -> Result<Fixed, Stop> {
        add(a, b)
    }

    fn mul(&mut self, a: &Fixed, b: &Fixed, budget: &mut Budget) -> Result<Fixed, Stop> {
        budget.charge((a.m.bits() / 64) * (b.m.bits() / 64) / 4)?;
        mul(a, b)
    }

    fn neg(&mut self, a: &Fixed) -> Fixed {
        neg(a)
    }

    fn inv(&mut self, a: &Fixed, budget: &mut Budget) -> Result<Fixed, Stop> {
        budget.charge(60)?;
        inv(a)
    }

    fn power(&mut self, a: &Fixed, b: &Fixed, exact: Option<&Q>, budget: &mut Budget) -> Result<Fixed, Stop> {
        budget.charge(3_000)?;
        match exact {
            Some(&Q::Small(n, d)) if n.abs() <= 4096 && d <= 24 => {
                let base = if d == 1 { a.clone() } else { root(a, d as u32)? };
                integer_power(&base, n)
            }
            _ => exp(&mul(&ln(a)?, b)?),
        }
    }

    fn call(&mut self, func: Func, a: &Fixed, budget: &mut Budget) -> Result<Fixed, Stop> {
        budget.charge(12_000)?;
        let unit = Fixed { m: one(), err: BigInt::zero() };
        match func {
            Func::Abs => Ok(Fixed { m: a.m.abs(), err: a.err.clone() }),
            Func::Exp => exp(a),
            Func::Ln => ln(a),
            Func::Log10 => mul(&ln(a)?, &inv(&ln(&Fixed { m: one() * 10, err: BigInt::zero() })?)?),
            Func::Sin => Ok(sin_cos(a)?.0),
            Func::Cos => Ok(sin_cos(a)?.1),
            Func::Tan => sin_cos(a).and_then(|(s, c)| mul(&s, &inv(&c)?)),
            Func::Cot => sin_cos(a).and_then(|(s, c)| mul(&c, &inv(&s)?)),
            Func::Sec => inv(&sin_cos(a)?.1),
            Func::Csc => inv(&sin_cos(a)?.0),
            Func::Atan => atan(a),
            Func::Asin => {
                let cos = root(&add(&unit, &neg(&mul(a, a)?))?, 2)?;
                atan(&mul(a, &inv(&cos)?)?)
            }
            Func::Factorial => {
                let n = self.integer(a).filter(|n| (0..=300).contains(n)).ok_or(Stop::Unsupported)?;
                let mut product = one();
                for k in 2..=n {
                    product *= k;
                }
                Fixed::new(product, BigInt::zero())
            }
            _ => Err(Stop::Unsupported),
        }
    }

    fn call2(
        &mut self,
        func: Func2,
        a: &Fixed,
        b: &Fixed,
        exact: Option<&Q>,
        budget: &mut Budget,
    ) -> Result<Fixed, Stop> {
        budget.charge(12_000)?;
        match func {
            Func2::Log => mul(&ln(b)?, &inv(&ln(a)?)?),
            Func2::Root => match exact.and_then(Q::to_i64) {
                Some(n @ 1..=24) => root(b, n as u32),
                _ => Err(Stop::Unsupported),
            },
            _ => Err(Stop::Unsupported),
        }
    }

    fn integer(&self, a: &Fixed) -> Option<i64> {
        if a.err > BigInt::from(1u32) << 100u32 {
            return None;
        }
        let n: BigInt = (&a.m + (one() >> 1u32)) >> S;
        ((&n << S) - &a.m).abs().le(&(&a.err + 4)).then(|| n.to_i64()).flatten()
    }
}
