//! Exact rationals: two machine words where they fit, big integers where not.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::budget::{Budget, Stop};

/// Largest number kept exactly, in bits of numerator and denominator together.
pub const MAX_BITS: u64 = 1 << 19;

/// An exact rational number in lowest terms with a positive denominator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Q {
    /// Numerator and denominator fit a word.
    Small(i64, i64),
    /// Anything else; never a value that `Small` could hold.
    Big(Box<BigRational>),
}

impl Q {
    pub const ZERO: Q = Q::Small(0, 1);
    pub const ONE: Q = Q::Small(1, 1);

    pub fn int(value: i64) -> Q {
        Q::Small(value, 1)
    }

    /// `n / d`; `None` if `d` is zero.
    pub fn ratio(n: i128, d: i128) -> Option<Q> {
        if d == 0 {
            return None;
        }
        let g = gcd_u128(n.unsigned_abs(), d.unsigned_abs()) as i128;
        let (mut n, mut d) = if g > 1 { (n / g, d / g) } else { (n, d) };
        if d < 0 {
            (n, d) = (n.checked_neg()?, d.checked_neg()?);
        }
        match (i64::try_from(n), i64::try_from(d)) {
            (Ok(n), Ok(d)) => Some(Q::Small(n, d)),
            _ => Some(Q::Big(Box::new(BigRational::new_raw(BigInt::from(n), BigInt::from(d))))),
        }
    }

    pub fn from_big(value: BigRational) -> Q {
        match (value.numer().to_i64(), value.denom().to_i64()) {
            (Some(n), Some(d)) => Q::Small(n, d),
            _ => Q::Big(Box::new(value)),
        }
    }

    pub fn from_bigint(value: BigInt) -> Q {
        match value.to_i64() {
            Some(n) => Q::Small(n, 1),
            None => Q::Big(Box::new(BigRational::from_integer(value))),
        }
    }

    pub fn to_big(&self) -> BigRational {
        match self {
            Q::Small(n, d) => BigRational::new_raw(BigInt::from(*n), BigInt::from(*d)),
            Q::Big(b) => (**b).clone(),
        }
    }

    /// Bits of numerator and denominator together: what arithmetic on it costs.
    pub fn bits(&self) -> u64 {
        match self {
            Q::Small(..) => 64,
            Q::Big(b) => b.numer().bits() + b.denom().bits(),
        }
    }

    pub fn is_zero(&self) -> bool {
        matches!(self, Q::Small(0, _))
    }

    pub fn is_negative(&self) -> bool {
        match self {
            Q::Small(n, _) => *n < 0,
            Q::Big(b) => b.numer().sign() == Sign::Minus,
        }
    }

    /// The value, if it is an integer that fits a word.
    pub fn to_i64(&self) -> Option<i64> {
        match self {
            Q::Small(n, 1) => Some(*n),
            _ => None,
        }
    }

    pub fn is_integer(&self) -> bool {
        match self {
            Q::Small(_, d) => *d == 1,
            Q::Big(b) => b.denom().is_one(),
        }
    }

    /// Nearest double; infinite when out of range.
    /// True for a small fraction whose decimals never end.
    pub fn repeats(&self) -> bool {
        let Q::Small(_, mut rest) = *self else { return false };
        for factor in [2, 5] {
            while rest % factor == 0 {
                rest /= factor;
            }
        }
        rest > 1
    }

    pub fn to_f64(&self) -> f64 {
        match self {
            Q::Small(n, d) => *n as f64 / *d as f64,
            Q::Big(b) => big_ratio_to_f64(b.numer(), b.denom()),
        }
    }

    pub fn neg(&self) -> Q {
        match self {
            Q::Small(n, d) => match n.checked_neg() {
                Some(n) => Q::Small(n, *d),
                None => Q::from_big(-self.to_big()),
            },
            Q::Big(b) => Q::from_big(-(**b).clone()),
        }
    }

    pub fn abs(&self) -> Q {
        if self.is_negative() { self.neg() } else { self.clone() }
    }

    pub fn add(&self, other: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        if let (Q::Small(a, b), Q::Small(c, d)) = (self, other) {
            let (a, b, c, d) = (*a as i128, *b as i128, *c as i128, *d as i128);
            if let (Some(x), Some(y)) = (a.checked_mul(d), c.checked_mul(b))
                && let Some(n) = x.checked_add(y)
                && let Some(q) = Q::ratio(n, b * d)
            {
                return Ok(q);
            }
        }
        charge_fraction(self, other, budget)?;
        Ok(Q::from_big(self.to_big() + other.to_big()))
    }

    pub fn sub(&self, other: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        self.add(&other.neg(), budget)
    }

    pub fn mul(&self, other: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        if let (Q::Small(a, b), Q::Small(c, d)) = (self, other)
            && let Some(q) = Q::ratio(*a as i128 * *c as i128, *b as i128 * *d as i128)
        {
            return Ok(q);
        }
        if self.is_integer() && other.is_integer() {
            charge_product(self.bits(), other.bits(), budget)?;
            return Ok(Q::from_bigint(self.to_big().numer() * other.to_big().numer()));
        }
        charge_fraction(self, other, budget)?;
        Ok(Q::from_big(self.to_big() * other.to_big()))
    }

    /// The reciprocal; undefined at zero.
    pub fn inv(&self) -> Result<Q, Stop> {
        match self {
            Q::Small(0, _) => Err(Stop::Undefined),
            Q::Small(n, d) => Q::ratio(*d as i128, *n as i128).ok_or(Stop::Undefined),
            Q::Big(b) => Ok(Q::from_big(b.recip())),
        }
    }

    pub fn div(&self, other: &Q, budget: &mut Budget) -> Result<Q, Stop> {
        self.mul(&other.inv()?, budget)
    }

    /// An integer power, if the result stays below [`MAX_BITS`].
    pub fn pow(&self, exponent: i64, budget: &mut Budget) -> Result<Q, Stop> {
        if let Q::Small(n @ -1..=1, 1) = self {
            return match (n, exponent) {
                (0, 0) => Ok(Q::ONE),
                (0, e) if e < 0 => Err(Stop::Undefined),
                (-1, e) if e % 2 == 0 => Ok(Q::ONE),
                (n, _) => Ok(Q::int(*n)),
            };
        }
        let (n, d) = match self {
            Q::Small(n, d) => (BigInt::from(*n), BigInt::from(*d)),
            Q::Big(b) => (b.numer().clone(), b.denom().clone()),
        };
        let e = exponent.unsigned_abs();
        let bits = (n.bits() + d.bits()).saturating_mul(e);
        if bits > MAX_BITS {
            return Err(Stop::Unsupported);
        }
        charge_product(bits, bits, budget)?;
        let (n, d) = (num_traits::pow(n, e as usize), num_traits::pow(d, e as usize));
        let (n, d) = if exponent < 0 { (d, n) } else { (n, d) };
        let (n, d) = if d.is_negative() { (-n, -d) } else { (n, d) };
        Ok(Q::from_big(BigRational::new_raw(n, d)))
    }

    pub fn cmp(&self, other: &Q) -> Ordering {
        match (self, other) {
            (Q::Small(a, b), Q::Small(c, d)) => (*a as i128 * *d as i128).cmp(&(*c as i128 * *b as i128)),
            _ => self.to_big().cmp(&other.to_big()),
        }
    }

    pub fn floor(&self, budget: &mut Budget) -> Result<Q, Stop> {
        match self {
            Q::Small(n, d) => Ok(Q::int(n.div_floor(d))),
            Q::Big(b) => {
                charge_product(self.bits(), self.bits(), budget)?;
                Ok(Q::from_bigint(b.numer().div_floor(b.denom())))
            }
        }
    }

    /// The residue modulo a prime; `None` when the denominator vanishes there.
    pub fn residue(&self, p: u64) -> Option<u64> {
        let (n, d) = match self {
            Q::Small(n, d) => (n.rem_euclid(p as i64) as u64, (*d as u64) % p),
            Q::Big(b) => {
                let p = BigInt::from(p);
                (b.numer().mod_floor(&p).to_u64()?, b.denom().mod_floor(&p).to_u64()?)
            }
        };
        if d == 1 {
            return Some(n);
        }
        if d == 0 {
            return None;
        }
        Some(mul_mod(n, pow_mod(d, p - 2, p), p))
    }

    /// A short decimal or fraction, for people; long numbers are abbreviated.
    pub fn show(&self) -> String {
        match self {
            Q::Small(n, 1) => n.to_string(),
            Q::Small(n, d) => format!("{n}/{d}"),
            Q::Big(_) if self.bits() > 1024 => {
                let digits = (self.bits() as f64 * std::f64::consts::LOG10_2) as u64;
                format!("<number of about {digits} digits>")
            }
            Q::Big(b) => b.to_string(),
        }
    }
}

/// Steps of a schoolbook product of so many bits; also covers the gcd that follows.
pub fn charge_product(a: u64, b: u64, budget: &mut Budget) -> Result<(), Stop> {
    if a + b > 2 * MAX_BITS + 256 {
        return Err(Stop::Budget);
    }
    let (x, y) = (a / 64 + 1, b / 64 + 1);
    budget.charge(x * y / 2 + 32)
}

/// Steps of an operation on fractions: the binary gcd takes a pass over the words per bit.
fn charge_fraction(a: &Q, b: &Q, budget: &mut Budget) -> Result<(), Stop> {
    charge_product(a.bits(), b.bits(), budget)?;
    if a.is_integer() && b.is_integer() {
        return Ok(());
    }
    let bits = a.bits() + b.bits();
    budget.charge(bits * (bits / 64 + 1) / 16)
}

pub fn gcd_u128(mut a: u128, mut b: u128) -> u128 {
    if let (Ok(x), Ok(y)) = (u64::try_from(a), u64::try_from(b)) {
        return x.gcd(&y) as u128;
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

pub fn mul_mod(a: u64, b: u64, p: u64) -> u64 {
    (a as u128 * b as u128 % p as u128) as u64
}

pub fn pow_mod(mut a: u64, mut e: u64, p: u64) -> u64 {
    let mut r = 1 % p;
    a %= p;
    while e > 0 {
        if e & 1 == 1 {
            r = mul_mod(r, a, p);
        }
        a = mul_mod(a, a, p);
        e >>= 1;
    }
    r
}

fn big_ratio_to_f64(n: &BigInt, d: &BigInt) -> f64 {
    if n.is_zero() {
        return 0.0;
    }
    // Scale so that the quotient has 64 to 65 bits, then round once.
    let shift = 65 + d.bits() as i64 - n.bits() as i64;
    let q = if shift >= 0 { (n << shift as u64) / d } else { n / (d << (-shift) as u64) };
    let m = q.to_f64().unwrap_or(f64::NAN);
    if shift > 1100 + 64 {
        return 0.0;
    }
    if shift < -1100 {
        return if n.is_negative() { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    // Two halves, so that no intermediate over- or underflows needlessly.
    let half = (-shift / 2) as i32;
    m * 2f64.powi(half) * 2f64.powi((-shift) as i32 - half)
}
