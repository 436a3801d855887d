// What every kernel shares: element types, wide loads, warp sums, and the few
// instructions that have no name in CUDA C++. No header of the toolkit is needed,
// so NVRTC compiles these sources on a machine that has only a driver and NVRTC.
//
// Activations are bf16 in memory and f32 in registers. -DACT_F32 makes them f32
// throughout: the form whose results are compared with the CPU's to rounding.
#pragma once

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define WARP 32
#define ALL_LANES 0xffffffffu
#define NEG_INF __uint_as_float(0xff800000u)

#ifndef GRISTMILL_SHIM
#define DYNAMIC_SHARED(name)                                  \
  extern __shared__ __align__(256) unsigned char name##_raw[]; \
  unsigned char* const name = name##_raw

__device__ __forceinline__ u16 bf16_bits(float x) {
  u16 bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

__device__ __forceinline__ u32 bf16_pair(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// 2^x to about 2 ulp in one instruction; 2^−∞ = 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// d += a b for one 16 × 8 tile over 16 values of k; shim/device_model.h spells out the layout.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// threadIdx.x, read anew: what is computed from it is not kept in registers over a loop.
__device__ __forceinline__ u32 thread_here() {
  u32 x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  return x;
}

// An address in shared memory, in bytes.
typedef u32 Shared;
__device__ __forceinline__ Shared shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Four 8 × 8 matrices of 16-bit values, rows at the lanes' addresses; `transposed` is a constant.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], Shared at, bool transposed) {
  if (transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
}

// 16 bytes from global to shared memory, zeroes where `valid` is false.
__device__ __forceinline__ void cp_async16(Shared to, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
// The same for 4 bytes.
__device__ __forceinline__ void cp_async4(Shared to, const void* global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(valid ? 4 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}
#endif

struct bf16 {
  u16 bits;
};

#ifdef ACT_F32
typedef float act;
#else
typedef bf16 act;
#endif

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ void put(float* at, float x) { *at = x; }
__device__ __forceinline__ void put(bf16* at, float x) { at->bits = bf16_bits(x); }
// What `put` then `to_float` would give.
__device__ __forceinline__ float rounded(const float*, float x) { return x; }
__device__ __forceinline__ float rounded(const bf16*, float x) { return __uint_as_float((u32)bf16_bits(x) << 16); }

__device__ __forceinline__ bool aligned16(const void* p) { return ((u64)p & 15) == 0; }

// Whether all groups of eight of a row are whole and begin at a multiple of 16 bytes: asked once for a row, so that loads are
// not kept apart by branches and are issued together. It holds in every row where the width is a multiple of 8.
template <class... T>
__device__ __forceinline__ bool is_whole(int width, const T*... rows) {
  return width % 8 == 0 && (aligned16(rows) && ...);
}

// Eight values of a row; `left` of them exist. One 16-byte load where they all do and the address allows it. `Whole` is
// a caller that knows so (is_whole).
template <bool Whole = false>
__device__ __forceinline__ void load8(const bf16* p, int left, float (&v)[8]) {
  if (Whole || (left >= 8 && aligned16(p))) {
    const uint4 w = *reinterpret_cast<const uint4*>(p);
    const u32 pairs[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      v[2 * i] = __uint_as_float(pairs[i] << 16);
      v[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = i < left ? to_float(p[i]) : 0.0f;
  }
}
template <bool Whole = false>
__device__ __forceinline__ void load8(const float* p, int left, float (&v)[8]) {
  if (Whole || (left >= 8 && aligned16(p))) {
    const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = i < left ? p[i] : 0.0f;
  }
}
template <bool Whole = false>
__device__ __forceinline__ void store8(bf16* p, int left, const float (&v)[8]) {
  if (Whole || (left >= 8 && aligned16(p))) {
    uint4 w;
    w.x = bf16_pair(v[0], v[1]);
    w.y = bf16_pair(v[2], v[3]);
    w.z = bf16_pair(v[4], v[5]);
    w.w = bf16_pair(v[6], v[7]);
    *reinterpret_cast<uint4*>(p) = w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i < left) put(p + i, v[i]);
    }
  }
}
template <bool Whole = false>
__device__ __forceinline__ void store8(float* p, int left, const float (&v)[8]) {
  if (Whole || (left >= 8 && aligned16(p))) {
    float4 a, b;
    a.x = v[0], a.y = v[1], a.z = v[2], a.w = v[3], b.x = v[4], b.y = v[5], b.z = v[6], b.w = v[7];
    reinterpret_cast<float4*>(p)[0] = a;
    reinterpret_cast<float4*>(p)[1] = b;
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (i < left) p[i] = v[i];
    }
  }
}

// The first lane's value, in a form that the compiler knows to be the same in all lanes: what depends on it is computed
// once for the warp, and branches on it need no care for divergence.
__device__ __forceinline__ int of_warp(int x) { return __shfl_sync(ALL_LANES, x, 0); }

// Sums and maxima over a warp, in one order; every lane gets the result.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(ALL_LANES, x, bits);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, bits));
  return x;
}
