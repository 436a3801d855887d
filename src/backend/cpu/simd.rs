//! Sixteen f32 lanes, whatever the machine.
//!
//! Every kernel is written once over [`Simd`] and compiled for AVX-512, for AVX2
//! with FMA, and for plain arrays; [`kernel!`] picks at run time. A vector has
//! sixteen lanes everywhere, multiply-add is fused everywhere, and sums fold lanes
//! in one order, so all three give the same bits.

use std::sync::OnceLock;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// An instruction set: a token that exists only where the machine has it.
pub trait Simd: Copy + Send + Sync {
    /// Sixteen f32.
    type V: Copy;
    /// Rows of the GEMM's register tile (two vectors wide) that fit the registers.
    const TILE_ROWS: usize;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `at` is valid for reading sixteen f32.
    unsafe fn load_ptr(self, at: *const f32) -> Self::V;
    /// # Safety
    /// `at` is valid for writing sixteen f32.
    unsafe fn store_ptr(self, at: *mut f32, v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a · b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// eˣ in each lane, within 2 units in the last place; 0 below −87, NaN of NaN.
    fn exp(self, x: Self::V) -> Self::V;

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// Elements `at..at + 16`.
    #[inline(always)]
    fn load(self, x: &[f32], at: usize) -> Self::V {
        let x = &x[at..at + LANES];
        // SAFETY: the slice above has sixteen elements.
        unsafe { self.load_ptr(x.as_ptr()) }
    }

    /// Writes elements `at..at + 16`.
    #[inline(always)]
    fn store(self, x: &mut [f32], at: usize, v: Self::V) {
        let x = &mut x[at..at + LANES];
        // SAFETY: the slice above has sixteen elements.
        unsafe { self.store_ptr(x.as_mut_ptr(), v) }
    }

    /// The first `n` lanes from memory, the others 0.
    ///
    /// # Safety
    /// `at` is valid for reading `n` f32; `n` is at most sixteen.
    #[inline(always)]
    unsafe fn load_ptr_n(self, at: *const f32, n: usize) -> Self::V {
        let mut lanes = [0.0f32; LANES];
        // SAFETY: promised by the caller.
        unsafe { std::ptr::copy_nonoverlapping(at, lanes.as_mut_ptr(), n) };
        self.load(&lanes, 0)
    }

    /// Elements `at..at + n`, the other lanes 0.
    #[inline(always)]
    fn load_n(self, x: &[f32], at: usize, n: usize) -> Self::V {
        if n == LANES {
            return self.load(x, at);
        }
        let x = &x[at..at + n];
        // SAFETY: the slice has n elements, fewer than sixteen as it is a row's end.
        unsafe { self.load_ptr_n(x.as_ptr(), x.len().min(LANES)) }
    }

    /// Writes the first `n` lanes to elements `at..at + n`.
    #[inline(always)]
    fn store_n(self, x: &mut [f32], at: usize, n: usize, v: Self::V) {
        if n == LANES {
            return self.store(x, at, v);
        }
        let x = &mut x[at..at + n];
        // SAFETY: the slice has n elements, fewer than sixteen as it is a row's end.
        unsafe { self.store_ptr_n(x.as_mut_ptr(), x.len().min(LANES), v) }
    }

    /// Writes the first `n` lanes.
    ///
    /// # Safety
    /// `at` is valid for writing `n` f32; `n` is at most sixteen.
    #[inline(always)]
    unsafe fn store_ptr_n(self, at: *mut f32, n: usize, v: Self::V) {
        // SAFETY: promised by the caller; a vector has sixteen lanes.
        unsafe { std::ptr::copy_nonoverlapping(self.lanes(v).as_ptr(), at, n) }
    }

    /// The last eight lanes, then the first eight.
    #[inline(always)]
    fn swap_halves(self, v: Self::V) -> Self::V {
        let mut lanes = self.lanes(v);
        lanes.rotate_left(LANES / 2);
        self.load(&lanes, 0)
    }

    /// Lane j of row i becomes lane i of row j.
    #[inline(always)]
    fn transpose(self, rows: [Self::V; LANES]) -> [Self::V; LANES] {
        let rows = rows.map(|row| self.lanes(row));
        std::array::from_fn(|j| self.load(&std::array::from_fn::<f32, LANES, _>(|i| rows[i][j]), 0))
    }

    #[inline(always)]
    fn lanes(self, v: Self::V) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes, 0, v);
        lanes
    }

    /// The sum of the lanes, folded in halves.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        fold(self.lanes(v), |a, b| a + b)
    }

    /// The largest lane.
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        fold(self.lanes(v), |a, b| if a > b { a } else { b })
    }
}

#[inline(always)]
fn fold(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `(offset, lanes)` of each vector of a row of `len` elements.
#[inline(always)]
pub fn steps(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len).step_by(LANES).map(move |at| (at, LANES.min(len - at)))
}

/// log₂ e, and ln 2 as a short and a rest so that n · ln 2 loses nothing.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Below, eˣ is 0: results never become subnormal.
const EXP_LOW: f32 = -87.0;
const EXP_HIGH: f32 = 88.0;
/// Cephes' polynomial for eʳ on ±ln 2 / 2, highest power first.
const EXP: [f32; 6] = [1.987_569_2e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

#[derive(Clone, Copy)]
pub struct Plain(());

/// `[f32; 16]` aligned as a cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Lanes([f32; LANES]);

impl Plain {
    #[inline(always)]
    fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
        Lanes(std::array::from_fn(|i| f(a.0[i], b.0[i])))
    }
}

impl Simd for Plain {
    type V = Lanes;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        Lanes([x; LANES])
    }
    #[inline(always)]
    unsafe fn load_ptr(self, at: *const f32) -> Lanes {
        // SAFETY: the caller promises sixteen readable f32.
        Lanes(unsafe { at.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store_ptr(self, at: *mut f32, v: Lanes) {
        // SAFETY: the caller promises sixteen writable f32.
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    fn add(self, a: Lanes, b: Lanes) -> Lanes {
        Plain::zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Lanes, b: Lanes) -> Lanes {
        Plain::zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Lanes, b: Lanes) -> Lanes {
        Plain::zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Lanes, b: Lanes) -> Lanes {
        Plain::zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn max(self, a: Lanes, b: Lanes) -> Lanes {
        Plain::zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: Lanes) -> Lanes {
        Lanes(a.0.map(f32::sqrt))
    }
    #[inline(always)]
    fn fma(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        Lanes(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    fn exp(self, x: Lanes) -> Lanes {
        Lanes(x.0.map(|x| {
            if x < EXP_LOW {
                return 0.0;
            }
            let x = if x > EXP_HIGH { EXP_HIGH } else { x };
            let n = (x * LOG2_E).round_ties_even();
            let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
            let p = EXP[1..].iter().fold(EXP[0], |p, &c| p.mul_add(r, c));
            let p = p.mul_add(r * r, r) + 1.0;
            p * f32::from_bits(((n as i32 + 127) << 23) as u32)
        }))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

impl Plain {
    pub fn new() -> Self {
        Plain(())
    }
}

/// What the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    Plain,
    Avx2,
    Avx512,
}

/// The widest instruction set of this machine.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let has512 = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl");
            let has256 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            if has512 && has256 {
                return Isa::Avx512;
            }
            if has256 {
                return Isa::Avx2;
            }
        }
        Isa::Plain
    })
}

/// Defines `fn name(args)` that runs the `#[inline(always)] fn body<S: Simd>(s, args)`
/// compiled for the machine's instruction set.
macro_rules! kernel {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$(const $c:ident : usize),+>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident;) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::backend::cpu::simd::{Avx2, Avx512};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512 $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function is only called where the instructions are.
                    $body $(::<_, $($c),+>)? (unsafe { Avx512::new() }, $($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: this function is only called where the instructions are.
                    $body $(::<_, $($c),+>)? (unsafe { Avx2::new() }, $($arg),*)
                }
                match $crate::backend::cpu::simd::isa() {
                    // SAFETY: `isa` has found the instructions.
                    $crate::backend::cpu::simd::Isa::Avx512 => return unsafe { avx512 $(::<$($c),+>)? ($($arg),*) },
                    // SAFETY: `isa` has found the instructions.
                    $crate::backend::cpu::simd::Isa::Avx2 => return unsafe { avx2 $(::<$($c),+>)? ($($arg),*) },
                    $crate::backend::cpu::simd::Isa::Plain => {}
                }
            }
            $body $(::<_, $($c),+>)? ($crate::backend::cpu::simd::Plain::new(), $($arg),*)
        }
    };
}
pub(crate) use kernel;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn exp_all<S: Simd>(s: S, x: &mut [f32]) {
        for (at, n) in steps(x.len()) {
            let v = s.exp(s.load_n(x, at, n));
            s.store_n(x, at, n, v);
        }
    }

    kernel! { fn exp_fast(x: &mut [f32]) = exp_all; }

    /// Sum, largest lane and columns of a 16 × 16 matrix, row by row, and a row's first five elements.
    #[inline(always)]
    fn fold_all<S: Simd>(s: S, x: &[f32], out: &mut Vec<f32>) {
        let rows = std::array::from_fn(|i| s.load(x, i * LANES));
        for row in rows {
            out.extend([s.sum(row), s.max_lane(row), s.lanes(s.swap_halves(row))[3]]);
        }
        for column in s.transpose(rows) {
            out.extend(s.lanes(column));
        }
        let mut part = [7.0; 6];
        s.store_n(&mut part, 0, 5, rows[3]);
        out.extend(part);
    }

    kernel! { fn fold_fast(x: &[f32], out: &mut Vec<f32>) = fold_all; }

    #[test]
    fn lanes_fold_and_turn_the_same_on_every_instruction_set() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 7919) % 263) as f32 * 0.37 - 40.0).collect();
        let (mut fast, mut plain) = (Vec::new(), Vec::new());
        fold_fast(&x, &mut fast);
        fold_all(Plain::new(), &x, &mut plain);
        assert_eq!(fast, plain);
        assert_eq!(fast[2], x[11]);
        assert!((0..256).all(|i| fast[48 + i] == x[i % 16 * 16 + i / 16]), "columns");
        assert!(fast[304..309] == x[48..53] && fast[309] == 7.0, "a part of a row");
    }

    #[test]
    fn exp_is_close_and_the_same_on_every_instruction_set() {
        let xs: Vec<f32> = (-20_000..20_000).map(|i| i as f32 * 0.0045).collect();
        let (mut fast, mut plain) = (xs.clone(), xs.clone());
        exp_fast(&mut fast);
        exp_all(Plain::new(), &mut plain);
        for ((x, fast), plain) in xs.iter().zip(&fast).zip(&plain) {
            assert_eq!(fast.to_bits(), plain.to_bits(), "exp({x})");
            if (-87.0..88.0).contains(x) {
                let exact = f64::from(*x).exp();
                assert!((f64::from(*fast) / exact - 1.0).abs() < 2.5e-7, "exp({x}) = {fast}");
            }
        }
        let mut edge = [f32::NEG_INFINITY, -200.0, 0.0, f32::NAN];
        exp_fast(&mut edge);
        assert!(edge[..3] == [0.0, 0.0, 1.0] && edge[3].is_nan());
    }
}
