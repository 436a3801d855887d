//! Polynomials and rational functions modulo the prime 2⁶¹ − 1, at random points.
//!
//! By Schwartz–Zippel, two different rational functions of total degree d agree
//! at a random point with probability at most d / (2⁶¹ − 1). Different residues
//! prove that the expressions differ: only true ring operations are done here.

use super::super::ast::{Func, Func2, Sym, Unit};
use super::super::budget::{Budget, Stop};
use super::super::number::{Q, mul_mod, pow_mod};
use super::{Constant, Field};

/// The Mersenne prime 2⁶¹ − 1.
pub const P: u64 = (1 << 61) - 1;

/// The prime field with one random point.
pub struct Modular {
    pub seed: u64,
    pub sign: bool,
}

impl Field for Modular {
    type V = u64;
    const COST: u64 = 4;

    fn number(&mut self, q: &Q, budget: &mut Budget) -> Result<u64, Stop> {
        if !matches!(q, Q::Small(_, 1)) {
            budget.charge(100 + q.bits() / 8)?;
        }
        q.residue(P).ok_or(Stop::Undefined)
    }

    fn symbol(&mut self, sym: Sym) -> Result<u64, Stop> {
        Ok(super::ball::mix(sym ^ self.seed) % P)
    }

    fn constant(&mut self, constant: Constant) -> Result<u64, Stop> {
        match constant {
            // π and e are transcendental: a random value stands for each. (Jointly: no relation is known.)
            Constant::Pi => Ok(super::ball::mix(self.seed ^ 0x9e37) % P),
            Constant::Euler => Ok(super::ball::mix(self.seed ^ 0x79b9) % P),
            Constant::Imaginary => Err(Stop::Unsupported),
        }
    }

    fn unit(&mut self, _: Unit) -> Result<u64, Stop> {
        Err(Stop::Unsupported)
    }

    fn percent(&mut self) -> Result<u64, Stop> {
        Err(Stop::Unsupported)
    }

    fn degree(&mut self) -> Result<u64, Stop> {
        Err(Stop::Unsupported)
    }

    fn sign(&self) -> bool {
        self.sign
    }

    fn add(&mut self, a: &u64, b: &u64, _: &mut Budget) -> Result<u64, Stop> {
        let s = a + b;
        Ok(if s >= P { s - P } else { s })
    }

    fn mul(&mut self, a: &u64, b: &u64, _: &mut Budget) -> Result<u64, Stop> {
        Ok(mul_mod(*a, *b, P))
    }

    fn neg(&mut self, a: &u64) -> u64 {
        if *a == 0 { 0 } else { P - a }
    }

    fn inv(&mut self, a: &u64, budget: &mut Budget) -> Result<u64, Stop> {
        budget.charge(200)?;
        if *a == 0 { Err(Stop::Undefined) } else { Ok(pow_mod(*a, P - 2, P)) }
    }

    fn power(&mut self, a: &u64, _: &u64, exact: Option<&Q>, budget: &mut Budget) -> Result<u64, Stop> {
        let e = exact.filter(|q| q.is_integer()).ok_or(Stop::Unsupported)?;
        if *a == 0 {
            return if e.is_negative() { Err(Stop::Undefined) } else { Ok(u64::from(e.is_zero())) };
        }
        budget.charge(200 + e.bits() / 8)?;
        // Fermat: exponents count modulo P − 1.
        let e = match e {
            Q::Small(n, _) => n.rem_euclid((P - 1) as i64) as u64,
            big => {
                use num_integer::Integer;
                use num_traits::ToPrimitive;
                big.to_big().numer().mod_floor(&num_bigint::BigInt::from(P - 1)).to_u64().ok_or(Stop::Unsupported)?
            }
        };
        Ok(pow_mod(*a, e, P))
    }

    fn call(&mut self, _: Func, _: &u64, _: &mut Budget) -> Result<u64, Stop> {
        Err(Stop::Unsupported)
    }

    fn call2(&mut self, func: Func2, a: &u64, b: &u64, _: Option<&Q>, _: &mut Budget) -> Result<u64, Stop> {
        // Any function that gives equal arguments equal values may stand for one that has but a name.
        let stand_in = |a: &u64, b: &u64| super::ball::mix(a ^ super::ball::mix(*b)) % P;
        match func {
            Func2::Apply => Ok(stand_in(a, b)),
            Func2::Cross => Ok((stand_in(a, b) + P - stand_in(b, a)) % P),
            _ => Err(Stop::Unsupported),
        }
    }

    fn integer(&self, a: &u64) -> Option<i64> {
        let n = if *a > P / 2 { -((P - a) as i64) } else { *a as i64 };
        (n.abs() < 1 << 40).then_some(n)
    }
}
