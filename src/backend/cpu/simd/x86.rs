//! The instruction sets of x86-64.

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
    unsafe fn store_ptr_n(self, at: *mut f32, n: usize, v: __m512) {
        // SAFETY: the caller promises n writable f32, and no other is touched.
        unsafe { _mm512_mask_storeu_ps(at, ((1u32 << n) - 1) as u16, v) }
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: as in `splat`. Lanes fold in halves, as everywhere.
        unsafe {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        // SAFETY: as in `splat`.
        unsafe {
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn swap_halves(self, v: __m512) -> __m512 {
        // SAFETY: as in `splat`.
        unsafe { _mm512_shuffle_f32x4::<0x4e>(v, v) }
    }
    #[inline(always)]
    fn transpose(self, rows: [__m512; LANES]) -> [__m512; LANES] {
        // SAFETY: as in `splat`.
        unsafe {
            // 4 × 4 blocks in each quarter of a vector, then the quarters.
            let mut quads = [_mm512_setzero_ps(); LANES];
            for i in 0..4 {
                let [a, b, c, d] = [rows[4 * i], rows[4 * i + 1], rows[4 * i + 2], rows[4 * i + 3]];
                let (ab, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                quads[4 * i] = _mm512_shuffle_ps::<0x44>(ab, cd);
                quads[4 * i + 1] = _mm512_shuffle_ps::<0xee>(ab, cd);
                quads[4 * i + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
                quads[4 * i + 3] = _mm512_shuffle_ps::<0xee>(ab_high, cd_high);
            }
            let mut out = quads;
            for i in 0..4 {
                let low = _mm512_shuffle_f32x4::<0x88>(quads[i], quads[4 + i]);
                let high = _mm512_shuffle_f32x4::<0xdd>(quads[i], quads[4 + i]);
                let low2 = _mm512_shuffle_f32x4::<0x88>(quads[8 + i], quads[12 + i]);
                let high2 = _mm512_shuffle_f32x4::<0xdd>(quads[8 + i], quads[12 + i]);
                out[i] = _mm512_shuffle_f32x4::<0x88>(low, low2);
                out[4 + i] = _mm512_shuffle_f32x4::<0x88>(high, high2);
                out[8 + i] = _mm512_shuffle_f32x4::<0xdd>(low, low2);
                out[12 + i] = _mm512_shuffle_f32x4::<0xdd>(high, high2);
            }
            out
        }
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
            // p · 2ⁿ, rounded once as a product with the power would be.
            _mm512_maskz_scalef_ps(live, p, n)
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
