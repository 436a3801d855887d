//! Complex numbers in doubles with a running error bound: disjoint balls prove a difference.

use std::f64::consts::{E, PI};

use super::super::ast::{Func, Func2, Sym, Unit};
use super::super::budget::{Budget, Stop};
use super::super::number::Q;
use super::super::units;
use super::{Constant, Field};

/// Relative error of one operation, with room for the library's functions.
const EPS: f64 = 1.0 / (1u64 << 50) as f64;

/// A disk that holds the true value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    pub re: f64,
    pub im: f64,
    pub rad: f64,
    /// A real operand led to a value that is not real: outside the real domain.
    pub left: bool,
}

impl Ball {
    fn real(re: f64) -> Ball {
        Ball { re, im: 0.0, rad: re.abs() * EPS, left: false }
    }

    pub fn abs(&self) -> f64 {
        self.re.hypot(self.im)
    }

    fn is_real(&self) -> bool {
        self.im == 0.0
    }

    /// Finite, and known to some digits.
    fn checked(mut self) -> Result<Ball, Stop> {
        self.rad += self.abs() * EPS;
        if self.re.is_finite() && self.im.is_finite() && self.rad.is_finite() { Ok(self) } else { Err(Stop::Undefined) }
    }

    fn with(re: f64, im: f64, rad: f64, left: bool) -> Result<Ball, Stop> {
        Ball { re, im, rad, left }.checked()
    }

    /// True if no number is in both disks.
    pub fn apart(&self, other: &Ball) -> bool {
        (self.re - other.re).hypot(self.im - other.im) > self.rad + other.rad
    }
}

/// How symbols get values: the kinds of points tried in turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    Positive,
    Mixed,
    Integers,
    Unit,
    Large,
    /// Whole numbers up to a thousand, where steps and remainders show.
    Wide,
    /// Of both signs, from a twentieth to two thousand, each size as likely.
    Far,
    /// Every symbol has this value.
    At(f64),
}

/// Doubles at one point.
pub struct Balls<'a> {
    pub seed: u64,
    pub sampling: Sampling,
    pub sign: bool,
    /// Units, percent and degree signs count as one.
    pub ignore_units: bool,
    /// Names that stand for another name: renamed arbitrary constants.
    pub alias: &'a [(Sym, Sym)],
}

/// A name whose value is one at every point.
pub const ONE: Sym = 1;

/// Names from here on have the value of a unit at every point: the one with this index.
pub const UNITS: Sym = 1 << 10;
const LAST_UNIT: Sym = UNITS + 1023;

/// SplitMix64's finaliser.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Balls<'_> {
    /// The value of a symbol at this point.
    pub fn sample(&self, sym: Sym) -> f64 {
        let sym = self.alias.iter().find(|(from, _)| *from == sym).map_or(sym, |(_, to)| *to);
        match sym {
            ONE => return 1.0,
            UNITS..=LAST_UNIT => return unit_value(Unit { index: (sym - UNITS) as u16, ten: 0 }),
            _ => {}
        }
        let bits = mix(sym ^ self.seed);
        let u = (bits >> 11) as f64 / (1u64 << 53) as f64;
        match self.sampling {
            Sampling::Positive => 0.3 + 2.2 * u,
            Sampling::Mixed => (0.2 + 2.6 * u) * if bits & 1 == 0 { -1.0 } else { 1.0 },
            Sampling::Integers => 2.0 + (u * 11.0).floor(),
            Sampling::Unit => 0.05 + 0.9 * u,
            Sampling::Large => 3.0 + 37.0 * u,
            Sampling::Wide => (u * 1000.0).floor(),
            Sampling::Far => (10.6 * u - 3.0).exp() * if bits & 1 == 0 { -1.0 } else { 1.0 },
            Sampling::At(value) => value,
        }
    }
}

/// A unit as a number: each base unit has one of its own.
fn unit_value(unit: Unit) -> f64 {
    let entry = units::entry(unit);
    let mut value = units::size(unit);
    for (i, &power) in entry.dims.iter().enumerate() {
        if power != 0 {
            let base = 1.0 + (mix(i as u64 + 77) >> 11) as f64 / (1u64 << 53) as f64;
            value *= base.powi(power as i32);
        }
    }
    value
}

impl Balls<'_> {
    /// A smooth function of its argument, another one for each value of `name`. It is neither even nor odd nor
    /// linear, so that no rule holds for it that does not hold for every function.
    fn stand_in(&mut self, name: &Ball, argument: &Ball, budget: &mut Budget) -> Result<Ball, Stop> {
        let (x, a) = (mul(&Ball::real(1.3), argument)?, mul(&Ball::real(1.7), name)?);
        let angle = self.add(&x, &a, budget)?;
        let angle = self.add(&angle, &Ball::real(0.4), budget)?;
        call(Func::Sin, &angle)
    }
}

impl Field for Balls<'_> {
    type V = Ball;
    const COST: u64 = 6;

    fn number(&mut self, q: &Q, _: &mut Budget) -> Result<Ball, Stop> {
        let value = Ball::real(q.to_f64());
        if value.re == 0.0 && !q.is_zero() { Err(Stop::Unsupported) } else { value.checked() }
    }

    fn symbol(&mut self, sym: Sym) -> Result<Ball, Stop> {
        Ok(Ball { rad: 0.0, ..Ball::real(self.sample(sym)) })
    }

    fn constant(&mut self, constant: Constant) -> Result<Ball, Stop> {
        Ok(match constant {
            Constant::Pi => Ball::real(PI),
            Constant::Euler => Ball::real(E),
            Constant::Imaginary => Ball { re: 0.0, im: 1.0, rad: 0.0, left: false },
        })
    }

    fn unit(&mut self, unit: Unit) -> Result<Ball, Stop> {
        if self.ignore_units {
            return Ok(Ball::real(1.0));
        }
        let value = unit_value(unit);
        Ok(Ball { rad: value * EPS * 16.0, ..Ball::real(value) })
    }

    fn percent(&mut self) -> Result<Ball, Stop> {
        Ok(Ball::real(if self.ignore_units { 1.0 } else { 0.01 }))
    }

    fn degree(&mut self) -> Result<Ball, Stop> {
        Ok(Ball::real(if self.ignore_units { 1.0 } else { PI / 180.0 }))
    }

    fn sign(&self) -> bool {
        self.sign
    }

    fn add(&mut self, a: &Ball, b: &Ball, _: &mut Budget) -> Result<Ball, Stop> {
        Ball::with(a.re + b.re, a.im + b.im, a.rad + b.rad + (a.abs() + b.abs()) * EPS * 0.1, a.left | b.left)
    }

    fn mul(&mut self, a: &Ball, b: &Ball, _: &mut Budget) -> Result<Ball, Stop> {
        mul(a, b)
    }

    fn neg(&mut self, a: &Ball) -> Ball {
        Ball { re: -a.re, im: -a.im + 0.0, ..*a }
    }

    fn inv(&mut self, a: &Ball, _: &mut Budget) -> Result<Ball, Stop> {
        inv(a)
    }

    fn power(&mut self, a: &Ball, b: &Ball, exact: Option<&Q>, _: &mut Budget) -> Result<Ball, Stop> {
        if exact.is_none()
            && b.is_real()
            && b.re.fract() == 0.0
            && b.rad <= b.re.abs() * EPS * 4.0
            && b.re.abs() <= 4096.0
        {
            return integer_power(a, b.re as i64);
        }
        if let Some(&Q::Small(n, d)) = exact {
            if d == 1 && n.unsigned_abs() <= 4096 {
                return integer_power(a, n);
            }
            if d % 2 == 1 && a.is_real() && a.re < 0.0 {
                // Odd roots of negative numbers are real.
                let size = power(&Ball { re: -a.re, ..*a }, &Ball { left: b.left, ..Ball::real(n as f64 / d as f64) })?;
                return Ok(if n % 2 == 0 { size } else { Ball { re: -size.re, ..size } });
            }
        }
        power(a, b)
    }

    fn call(&mut self, func: Func, a: &Ball, budget: &mut Budget) -> Result<Ball, Stop> {
        budget.charge(40)?;
        call(func, a)
    }

    fn call2(&mut self, func: Func2, a: &Ball, b: &Ball, exact: Option<&Q>, budget: &mut Budget) -> Result<Ball, Stop> {
        budget.charge(40)?;
        match func {
            Func2::Log => mul(&ln(b)?, &inv(&ln(a)?)?),
            Func2::Root => match exact.and_then(Q::to_i64) {
                Some(n) if n > 0 => self.power(b, &Ball::real(1.0 / n as f64), Some(&Q::Small(1, n)), budget),
                _ => power(b, &inv(a)?),
            },
            Func2::Binomial | Func2::Permutations => {
                let (n, k) = (whole(a).ok_or(Stop::Unsupported)?, whole(b).ok_or(Stop::Unsupported)?);
                if !(0..=2000).contains(&n) || k > n {
                    return Err(Stop::Unsupported);
                }
                let mut value = 1.0;
                for i in 1..=k.max(0) {
                    value *= (n - k + i) as f64;
                    if func == Func2::Binomial {
                        value /= i as f64;
                    }
                }
                Ball::with(if k < 0 { 0.0 } else { value }, 0.0, value * EPS * k.max(1) as f64, a.left | b.left)
            }
            Func2::Mod => {
                let (n, m) = (whole(a).ok_or(Stop::Unsupported)?, whole(b).ok_or(Stop::Unsupported)?);
                if m == 0 {
                    return Err(Stop::Undefined);
                }
                Ok(Ball::real(n.rem_euclid(m) as f64))
            }
            Func2::Gcd | Func2::Lcm => {
                let (n, m) = (whole(a).ok_or(Stop::Unsupported)?, whole(b).ok_or(Stop::Unsupported)?);
                let g = num_integer::gcd(n, m).max(1);
                Ok(Ball::real(if func == Func2::Gcd { g as f64 } else { n as f64 / g as f64 * m as f64 }))
            }
            Func2::Max | Func2::Min => {
                if !a.is_real() || !b.is_real() {
                    return Err(Stop::Undefined);
                }
                Ok(if (a.re > b.re) == (func == Func2::Max) { *a } else { *b })
            }
            Func2::Apply => self.stand_in(a, b, budget),
            Func2::Cross => {
                let turned = self.stand_in(b, a, budget)?;
                let turned = self.neg(&turned);
                let value = self.stand_in(a, b, budget)?;
                self.add(&value, &turned, budget)
            }
        }
    }

    fn integer(&self, a: &Ball) -> Option<i64> {
        whole(a)
    }
}

fn whole(a: &Ball) -> Option<i64> {
    let n = a.re.round();
    (a.is_real() && (n - a.re).abs() <= a.rad + 1e-9 && a.rad < 1e-3 && n.abs() < 1e15).then_some(n as i64)
}

fn mul(a: &Ball, b: &Ball) -> Result<Ball, Stop> {
    let (x, y) = (a.abs(), b.abs());
    let rad = x * b.rad + y * a.rad + a.rad * b.rad + x * y * EPS * 0.25;
    Ball::with(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re, rad, a.left | b.left)
}

fn inv(a: &Ball) -> Result<Ball, Stop> {
    let size = a.abs();
    if size <= a.rad || size == 0.0 {
        return Err(Stop::Undefined);
    }
    let rad = a.rad / (size * (size - a.rad));
    if a.is_real() {
        return Ball::with(1.0 / a.re, 0.0, rad, a.left);
    }
    let square = size * size;
    Ball::with(a.re / square, -a.im / square, rad, a.left)
}

fn integer_power(a: &Ball, n: i64) -> Result<Ball, Stop> {
    if n == 0 {
        return Ok(Ball { left: a.left, ..Ball::real(1.0) });
    }
    let mut base = if n < 0 { inv(a)? } else { *a };
    let mut e = n.unsigned_abs();
    let mut result: Option<Ball> = None;
    loop {
        if e & 1 == 1 {
            result = Some(match result {
                Some(r) => mul(&r, &base)?,
                None => base,
            });
        }
        e >>= 1;
        if e == 0 {
            return result.ok_or(Stop::Undefined);
        }
        base = mul(&base, &base)?;
    }
}

/// The principal logarithm.
fn ln(a: &Ball) -> Result<Ball, Stop> {
    let size = a.abs();
    if size <= a.rad || size == 0.0 {
        return Err(Stop::Undefined);
    }
    let left = a.left || (a.is_real() && a.re < 0.0);
    let rad = a.rad / (size - a.rad);
    let angle = if a.is_real() { if a.re < 0.0 { PI } else { 0.0 } } else { a.im.atan2(a.re) };
    if !a.is_real() && a.re < 0.0 && a.im.abs() <= a.rad {
        return Err(Stop::Undefined);
    }
    Ball::with(size.ln(), angle, rad + EPS, left)
}

fn exp(a: &Ball) -> Result<Ball, Stop> {
    let size = a.re.exp();
    let rad = size * (a.rad.exp_m1() + EPS * (1.0 + a.abs()));
    if a.is_real() {
        return Ball::with(size, 0.0, rad, a.left);
    }
    Ball::with(size * a.im.cos(), size * a.im.sin(), rad, a.left)
}

fn power(a: &Ball, b: &Ball) -> Result<Ball, Stop> {
    if a.re == 0.0 && a.im == 0.0 {
        return if a.rad == 0.0 && b.re - b.rad > 0.0 {
            Ok(Ball { re: 0.0, im: 0.0, rad: 0.0, left: a.left | b.left })
        } else {
            Err(Stop::Undefined)
        };
    }
    // The square root of a tiny ball around zero is still a small ball.
    if a.abs() <= a.rad {
        return if b.is_real() && b.re > 0.0 {
            Ball::with(0.0, 0.0, (2.0 * a.rad).powf(b.re), a.left | b.left)
        } else {
            Err(Stop::Undefined)
        };
    }
    if a.is_real() && a.re > 0.0 && b.is_real() {
        let value = a.re.powf(b.re);
        let relative = (b.re.abs() + b.rad) * a.rad / (a.re - a.rad) + b.rad * a.re.ln().abs() + EPS;
        return Ball::with(value, 0.0, value * relative.exp_m1(), a.left | b.left);
    }
    exp(&mul(&ln(a)?, b)?)
}

/// A real function with its derivative's size: error bound by the mean value theorem, doubled.
fn real(a: &Ball, value: f64, slope: f64) -> Result<Ball, Stop> {
    if !slope.is_finite() {
        return Err(Stop::Undefined);
    }
    Ball::with(value, 0.0, a.rad * (slope.abs() * 2.0 + a.rad) + EPS * (1.0 + value.abs()), a.left)
}

fn call(func: Func, a: &Ball) -> Result<Ball, Stop> {
    use Func::*;
    let x = a.re;
    let outside = || Ball { left: true, ..*a };
    match func {
        Ln => return ln(a),
        Log10 => return mul(&ln(a)?, &Ball::real(1.0 / std::f64::consts::LN_10)),
        Exp => return exp(a),
        Abs => return Ball::with(a.abs(), 0.0, a.rad, a.left),
        Re => return Ball::with(a.re, 0.0, a.rad, a.left),
        Im => return Ball::with(a.im, 0.0, a.rad, a.left),
        Conj => return Ok(Ball { im: -a.im + 0.0, ..*a }),
        Arg => return Ball::with(a.im.atan2(a.re), 0.0, a.rad / a.abs().max(f64::MIN_POSITIVE), a.left),
        _ => {}
    }
    if !a.is_real() {
        return complex_call(func, a);
    }
    match func {
        Sin => real(a, x.sin(), 1.0),
        Cos => real(a, x.cos(), 1.0),
        Tan => real(a, x.tan(), 1.0 + x.tan().powi(2)),
        Cot => inv(&call(Tan, a)?),
        Sec => inv(&call(Cos, a)?),
        Csc => inv(&call(Sin, a)?),
        Asin | Acos if x.abs() > 1.0 + a.rad => complex_call(func, &outside()),
        Asin => real(a, x.clamp(-1.0, 1.0).asin(), 1.0 / (1.0 - x * x).max(1e-12).sqrt()),
        Acos => real(a, x.clamp(-1.0, 1.0).acos(), 1.0 / (1.0 - x * x).max(1e-12).sqrt()),
        Atan => real(a, x.atan(), 1.0),
        Acot => real(a, PI / 2.0 - x.atan(), 1.0),
        Asec => call(Acos, &inv(a)?),
        Acsc => call(Asin, &inv(a)?),
        Sinh => real(a, x.sinh(), x.cosh()),
        Cosh => real(a, x.cosh(), x.sinh() + 1.0),
        Tanh => real(a, x.tanh(), 1.0),
        Coth => inv(&call(Tanh, a)?),
        Asinh => real(a, x.asinh(), 1.0),
        Acosh if x < 1.0 => Err(Stop::Undefined),
        Acosh => real(a, x.acosh(), 1.0 / (x * x - 1.0).max(1e-12).sqrt()),
        Atanh if x.abs() >= 1.0 => Err(Stop::Undefined),
        Atanh => real(a, x.atanh(), 1.0 / (1.0 - x * x)),
        Floor | Ceil => {
            let near = x.round();
            let value = if (x - near).abs() <= a.rad + 1e-12 * x.abs() {
                if a.rad > 1e-6 {
                    return Err(Stop::Undefined);
                }
                near
            } else if func == Floor {
                x.floor()
            } else {
                x.ceil()
            };
            Ball::with(value, 0.0, 0.0, a.left)
        }
        Sign => {
            if x.abs() <= a.rad && x != 0.0 {
                return Err(Stop::Undefined);
            }
            Ball::with(if x == 0.0 { 0.0 } else { x.signum() }, 0.0, 0.0, a.left)
        }
        Factorial | DoubleFactorial => {
            let n = whole(a).filter(|n| (0..=170).contains(n)).ok_or(Stop::Unsupported)?;
            let step = if func == Factorial { 1 } else { 2 };
            let mut value = 1.0;
            let mut k = n;
            while k > 1 {
                value *= k as f64;
                k -= step;
            }
            Ball::with(value, 0.0, value * EPS * n as f64, a.left)
        }
        _ => Err(Stop::Unsupported),
    }
}

/// Circular and hyperbolic functions of complex numbers through the exponential.
fn complex_call(func: Func, a: &Ball) -> Result<Ball, Stop> {
    use Func::*;
    let i = Ball { re: 0.0, im: 1.0, rad: 0.0, left: false };
    let minus = |a: &Ball| Ball { re: -a.re, im: -a.im, ..*a };
    let add = |a: &Ball, b: &Ball| Ball::with(a.re + b.re, a.im + b.im, a.rad + b.rad, a.left | b.left);
    let scale = |a: &Ball, by: f64| Ball { re: a.re * by, im: a.im * by, rad: a.rad * by.abs(), left: a.left };
    match func {
        Sinh | Cosh => {
            let (plus, less) = (exp(a)?, exp(&minus(a))?);
            Ok(scale(&add(&plus, &if func == Sinh { minus(&less) } else { less })?, 0.5))
        }
        Tanh => mul(&complex_call(Sinh, a)?, &inv(&complex_call(Cosh, a)?)?),
        Cos => complex_call(Cosh, &mul(a, &i)?),
        // sin z = −i sinh(iz)
        Sin => mul(&complex_call(Sinh, &mul(a, &i)?)?, &minus(&i)),
        Tan => mul(&complex_call(Sin, a)?, &inv(&complex_call(Cos, a)?)?),
        Cot => inv(&complex_call(Tan, a)?),
        Sec => inv(&complex_call(Cos, a)?),
        Csc => inv(&complex_call(Sin, a)?),
        _ => Err(Stop::Unsupported),
    }
}
