//! Real numbers in fixed point with an error bound: 320 bits behind the point, or many more for large ones.
//!
//! Confirms what doubles cannot tell apart: √(10³⁰ + 1) and 10¹⁵ differ in the 31st digit. The larger such
//! numbers are, the further behind the point they differ: with more bits behind it, roots alone are taken.

use std::sync::LazyLock;

use num_bigint::BigInt;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::super::ast::{Func, Func2, Sym, Unit};
use super::super::budget::{Budget, Stop};
use super::super::number::Q;
use super::ball::Balls;
use super::{Constant, Field};

/// Bits behind the point, as a rule.
const S: u64 = 320;
/// Bits behind the point for numbers that are no longer compared with [`S`] of them.
const MANY: u64 = 6000;
/// Largest number, in bits before the point; and the largest that its [`S`] bits behind the point tell apart.
const MAX: u64 = 2680;
const NEAR: u64 = 150;
/// The highest root that is taken with [`MANY`] bits, which cost.
const HIGHEST: i64 = 4;

const PI: &str = "31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679821480865132823066470938446";
const E: &str = "27182818284590452353602874713526624977572470936999595749669676277240766303535475945713821785251664274274663919320030599218174136";

static PI_FIXED: LazyLock<BigInt> = LazyLock::new(|| digits(PI));
static E_FIXED: LazyLock<BigInt> = LazyLock::new(|| digits(E));

fn digits(text: &str) -> BigInt {
    let value: BigInt = text.parse().expect("the constants are digits");
    (value << S) / num_traits::pow(BigInt::from(10), text.len() - 1)
}

/// A value times two to the power of its bits behind the point, and how far off it may be.
#[derive(Clone, Debug)]
pub struct Fixed {
    m: BigInt,
    err: BigInt,
    bits: u64,
}

impl Fixed {
    /// True if the two certainly differ.
    pub fn apart(&self, other: &Fixed) -> bool {
        (&self.m - &other.m).abs() > &self.err + &other.err
    }

    /// True if the error bound leaves at least 60 digits behind the point of a value near one, and of a larger
    /// one so many that the root of its square and one more would be seen to be another number.
    pub fn sharp(&self) -> bool {
        let size = self.m.bits().max(self.bits);
        self.err.bits() + 200 <= size && !self.large()
    }

    /// Too large for its bits behind the point.
    pub fn large(&self) -> bool {
        self.bits == S && self.m.bits() > S + NEAR
    }

    fn new(m: BigInt, err: BigInt, bits: u64) -> Result<Fixed, Stop> {
        let most = MAX + bits;
        if m.bits() > most || err.bits() > most { Err(Stop::Unsupported) } else { Ok(Fixed { m, err, bits }) }
    }

    fn small(m: BigInt) -> Result<Fixed, Stop> {
        Fixed::new(m, BigInt::from(4), S)
    }

    fn one(bits: u64) -> Fixed {
        Fixed { m: one(bits), err: BigInt::zero(), bits }
    }
}

/// Fixed point at the point that `point` samples.
pub struct Precise<'a> {
    pub point: Balls<'a>,
    bits: u64,
}

impl<'a> Precise<'a> {
    /// At `point`; with many bits for large constants.
    pub fn new(point: Balls<'a>, large: bool) -> Precise<'a> {
        Precise { point, bits: if large { MANY } else { S } }
    }
}

fn one(bits: u64) -> BigInt {
    BigInt::one() << bits
}

fn mul(a: &Fixed, b: &Fixed) -> Result<Fixed, Stop> {
    let err = (a.m.abs() * &b.err + b.m.abs() * &a.err + &a.err * &b.err) >> a.bits;
    Fixed::new((&a.m * &b.m) >> a.bits, err + 2, a.bits)
}

fn inv(a: &Fixed) -> Result<Fixed, Stop> {
    let size = a.m.abs();
    if size <= a.err {
        return Err(Stop::Undefined);
    }
    let m = (BigInt::one() << (2 * a.bits)) / &a.m;
    let err = m.abs() * &a.err / (size - &a.err) + 2;
    Fixed::new(m, err, a.bits)
}

fn neg(a: &Fixed) -> Fixed {
    Fixed { m: -&a.m, err: a.err.clone(), bits: a.bits }
}

fn add(a: &Fixed, b: &Fixed) -> Result<Fixed, Stop> {
    Fixed::new(&a.m + &b.m, &a.err + &b.err, a.bits)
}

fn integer_power(a: &Fixed, n: i64) -> Result<Fixed, Stop> {
    let base = if n < 0 { inv(a)? } else { a.clone() };
    let mut result = Fixed::one(a.bits);
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
            Fixed::new(BigInt::zero(), (a.err.clone() << a.bits).sqrt() + 1, a.bits)
        } else {
            Err(Stop::Unsupported)
        };
    }
    let shift = a.bits * u64::from(n - 1);
    let of = |m: BigInt| (m << shift).nth_root(n);
    let low = if a.m > a.err { of(&a.m - &a.err) } else { BigInt::zero() };
    let high = of(&a.m + &a.err);
    let err = &high - &low + 2;
    Fixed::new(low, err, a.bits)
}

/// e^x: halve the argument until it is small, sum the series, square back.
fn exp(a: &Fixed) -> Result<Fixed, Stop> {
    if a.m.bits() > S + 10 {
        return Err(Stop::Unsupported);
    }
    const HALVINGS: u64 = 24;
    let x = Fixed { m: &a.m >> HALVINGS, err: (&a.err >> HALVINGS) + 1, bits: S };
    let mut term = one(S);
    let mut sum = one(S);
    for k in 1..40u32 {
        term = ((term * &x.m) >> S) / k;
        if term.is_zero() {
            break;
        }
        sum += &term;
    }
    let mut value = Fixed { m: sum, err: x.err * 2 + 64, bits: S };
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
    let unit = Fixed::one(S);
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
    Fixed::new(sum << (ROOTS + 1), (z.err * 2 + 64) << (ROOTS + 1), S)
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
    let (mut term, mut cos) = (one(S), one(S));
    for k in 1..24u32 {
        term = -((term * &square) >> S) / (2 * k * (2 * k - 1));
        cos += &term;
    }
    let err: BigInt = (&a.err >> HALVINGS) + BigInt::from(64) + turns.abs() * BigInt::from(4);
    let (mut sin, mut cos) = (Fixed { m: sin, err: err.clone(), bits: S }, Fixed { m: cos, err, bits: S });
    for _ in 0..HALVINGS {
        let (s, c) = (mul(&sin, &cos)?, mul(&cos, &cos)?);
        sin = add(&s, &s)?;
        cos = add(&add(&c, &c)?, &Fixed { m: -one(S), err: BigInt::zero(), bits: S })?;
    }
    Ok((sin, cos))
}

/// atan x = 2 atan(x / (1 + √(1 + x²))), until the series is short.
fn atan(a: &Fixed) -> Result<Fixed, Stop> {
    const HALVINGS: u64 = 16;
    let unit = Fixed::one(S);
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
    Fixed::new(sum << HALVINGS, (x.err + 64) << HALVINGS, S)
}

impl Precise<'_> {
    /// Refuses what only the usual bits behind the point are enough for.
    fn common(&self) -> Result<(), Stop> {
        if self.bits == S { Ok(()) } else { Err(Stop::Unsupported) }
    }
}

impl Field for Precise<'_> {
    type V = Fixed;
    const COST: u64 = 60;

    fn number(&mut self, q: &Q, budget: &mut Budget) -> Result<Fixed, Stop> {
        if q.bits() > MAX + S {
            return Err(Stop::Unsupported);
        }
        budget.charge(self.bits / 8)?;
        let big = q.to_big();
        Fixed::new((big.numer() << self.bits) / big.denom(), BigInt::from(u8::from(!q.is_integer())), self.bits)
    }

    fn symbol(&mut self, sym: Sym) -> Result<Fixed, Stop> {
        // The double is taken as it is: exactly the point of the other evaluation.
        self.common()?;
        let value = self.point.sample(sym);
        let scaled = BigInt::from((value * 2f64.powi(60)) as i128);
        Fixed::small(scaled << (S - 60))
    }

    fn constant(&mut self, constant: Constant) -> Result<Fixed, Stop> {
        self.common()?;
        match constant {
            Constant::Pi => Fixed::small(PI_FIXED.clone()),
            Constant::Euler => Fixed::small(E_FIXED.clone()),
            Constant::Imaginary => Err(Stop::Unsupported),
        }
    }

    fn unit(&mut self, _: Unit) -> Result<Fixed, Stop> {
        if self.point.ignore_units { Ok(Fixed::one(self.bits)) } else { Err(Stop::Unsupported) }
    }

    fn percent(&mut self) -> Result<Fixed, Stop> {
        if self.point.ignore_units {
            Ok(Fixed::one(self.bits))
        } else {
            Fixed::new(one(self.bits) / 100, BigInt::one(), self.bits)
        }
    }

    fn degree(&mut self) -> Result<Fixed, Stop> {
        if self.point.ignore_units {
            Ok(Fixed::one(self.bits))
        } else {
            self.common().and_then(|()| Fixed::small(&*PI_FIXED / 180))
        }
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
        budget.charge(60 + (self.bits / 64) * (self.bits / 64) / 2)?;
        inv(a)
    }

    fn power(&mut self, a: &Fixed, b: &Fixed, exact: Option<&Q>, budget: &mut Budget) -> Result<Fixed, Stop> {
        budget.charge(if self.bits == S { 3_000 } else { 60_000 })?;
        if a.m.abs() <= a.err && !exact.is_some_and(|q| !q.is_zero() && !q.is_negative()) {
            return Err(Stop::Undefined);
        }
        match exact {
            Some(&Q::Small(n, d)) if n.abs() <= 4096 && d <= 24 && (self.bits == S || d <= HIGHEST) => {
                let base = if d == 1 { a.clone() } else { root(a, d as u32)? };
                integer_power(&base, n)
            }
            _ => self.common().and_then(|()| exp(&mul(&ln(a)?, b)?)),
        }
    }

    fn call(&mut self, func: Func, a: &Fixed, budget: &mut Budget) -> Result<Fixed, Stop> {
        budget.charge(12_000)?;
        let unit = Fixed::one(self.bits);
        if !matches!(func, Func::Abs | Func::Factorial) {
            self.common()?;
        }
        match func {
            Func::Abs => Ok(Fixed { m: a.m.abs(), err: a.err.clone(), bits: a.bits }),
            Func::Exp => exp(a),
            Func::Ln => ln(a),
            Func::Log10 => mul(&ln(a)?, &inv(&ln(&Fixed { m: one(S) * 10, err: BigInt::zero(), bits: S })?)?),
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
                let mut product = one(self.bits);
                for k in 2..=n {
                    product *= k;
                }
                Fixed::new(product, BigInt::zero(), self.bits)
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
            Func2::Log if self.bits == S => mul(&ln(b)?, &inv(&ln(a)?)?),
            Func2::Root => match exact.and_then(Q::to_i64) {
                Some(n @ 1..=24) if self.bits == S || n <= HIGHEST => root(b, n as u32),
                _ => Err(Stop::Unsupported),
            },
            _ => Err(Stop::Unsupported),
        }
    }

    fn integer(&self, a: &Fixed) -> Option<i64> {
        if a.err > BigInt::from(1u32) << 100u32 {
            return None;
        }
        let n: BigInt = (&a.m + (one(a.bits) >> 1u32)) >> a.bits;
        ((&n << a.bits) - &a.m).abs().le(&(&a.err + 4)).then(|| n.to_i64()).flatten()
    }
}
