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
        x[at..at + n].copy_from_slice(&self.lanes(v)[..n]);
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
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    /// AVX-512: one register a vector.
    #[derive(Clone, Copy)]
    pub struct Avx512(());

    /// AVX2 with FMA: two registers a vector.
    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Avx512 {
        /// # Safety
        /// The machine has AVX-512 F, BW, DQ and VL.
        #[inline(always)]
        pub unsafe fn new() -> Self {
            Avx512(())
        }
    }

    impl Avx2 {
        /// # Safety
        /// The machine has AVX2 and FMA.
        #[inline(always)]
        pub unsafe fn new() -> Self {
            Avx2(())
        }
    }

    impl Simd for Avx512 {
        type V = __m512;
        const TILE_ROWS: usize = 12;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            // SAFETY: `self` exists only where the instructions do; so everywhere below.
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load_ptr(self, at: *const f32) -> __m512 {
            // SAFETY: the caller promises sixteen readable f32.
            unsafe { _mm512_loadu_ps(at) }
        }
        #[inline(always)]
        unsafe fn load_ptr_n(self, at: *const f32, n: usize) -> __m512 {
            // SAFETY: the caller promises n readable f32, and no other is touched.
            unsafe { _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, at) }
        }
        #[inline(always)]
        unsafe fn store_ptr(self, at: *mut f32, v: __m512) {
            // SAFETY: the caller promises sixteen writable f32.
            unsafe { _mm512_storeu_ps(at, v) }
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn exp(self, x: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe {
                let live = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(EXP_LOW));
                // Where either is NaN the second operand comes back: NaN stays NaN.
                let x = _mm512_min_ps(_mm512_set1_ps(EXP_HIGH), x);
                let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(LOG2_E)));
                let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-LN2_HIGH), x);
                let r = _mm512_fmadd_ps(n, _mm512_set1_ps(-LN2_LOW), r);
                let mut p = _mm512_set1_ps(EXP[0]);
                for c in &EXP[1..] {
                    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
                }
                let p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
                let p = _mm512_add_ps(p, _mm512_set1_ps(1.0));
                let n = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
                let scale = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n));
                _mm512_maskz_mul_ps(live, p, scale)
            }
        }
    }

    type Pair = (__m256, __m256);

    impl Simd for Avx2 {
        type V = Pair;
        const TILE_ROWS: usize = 3;

        #[inline(always)]
        fn splat(self, x: f32) -> Pair {
            // SAFETY: `self` exists only where the instructions do; so everywhere below.
            unsafe { (_mm256_set1_ps(x), _mm256_set1_ps(x)) }
        }
        #[inline(always)]
        unsafe fn load_ptr(self, at: *const f32) -> Pair {
            // SAFETY: the caller promises sixteen readable f32.
            unsafe { (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
        }
        #[inline(always)]
        unsafe fn store_ptr(self, at: *mut f32, v: Pair) {
            // SAFETY: the caller promises sixteen writable f32.
            unsafe {
                _mm256_storeu_ps(at, v.0);
                _mm256_storeu_ps(at.add(8), v.1);
            }
        }
        #[inline(always)]
        fn add(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn sub(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn mul(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn div(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn max(self, a: Pair, b: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
        }
        #[inline(always)]
        fn sqrt(self, a: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)) }
        }
        #[inline(always)]
        fn fma(self, a: Pair, b: Pair, c: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
        }
        #[inline(always)]
        fn exp(self, x: Pair) -> Pair {
            // SAFETY: as in `splat`.
            unsafe { (exp256(x.0), exp256(x.1)) }
        }
    }

    /// # Safety
    /// The machine has AVX2 and FMA.
    #[inline(always)]
    unsafe fn exp256(x: __m256) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe {
            let live = _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(EXP_LOW));
            let x = _mm256_min_ps(_mm256_set1_ps(EXP_HIGH), x);
            let n = _mm256_round_ps::<0x08>(_mm256_mul_ps(x, _mm256_set1_ps(LOG2_E)));
            let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LN2_HIGH), x);
            let r = _mm256_fmadd_ps(n, _mm256_set1_ps(-LN2_LOW), r);
            let mut p = _mm256_set1_ps(EXP[0]);
            for c in &EXP[1..] {
                p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
            }
            let p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
            let p = _mm256_add_ps(p, _mm256_set1_ps(1.0));
            let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            let scale = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n));
            _mm256_and_ps(_mm256_mul_ps(p, scale), live)
        }
    }
}

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
