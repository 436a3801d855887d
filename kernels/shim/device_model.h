// Host models of the instructions that device.cuh writes as inline PTX.
#pragma once

// cvt.rn.bf16.f32: round to nearest, ties to even; NaN becomes 0x7fff.
inline unsigned short bf16_bits(float x) {
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7fff;
  return static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline unsigned bf16_pair(float low, float high) { return bf16_bits(low) | unsigned(bf16_bits(high)) << 16; }

inline float exp2_fast(float x) { return exp2f(x); }

typedef uintptr_t Shared;
inline Shared shared_address(const void* p) { return reinterpret_cast<Shared>(p); }

inline unsigned thread_here() { return shim::current->thread.x; }

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 (PTX ISA 9.7.14): with g = lane / 4 and t = lane % 4,
//   A  register r holds row g + 8 (r & 1), columns 2t + 8 (r >> 1) and the next;
//   B  register r holds rows 2t + 8 r and the next, column g;
//   C, D value i holds row g + 8 (i >> 1), column 2t + (i & 1).
inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  struct Offer {
    unsigned a[4], b[2];
  } offer = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  shim::warp_exchange(__LINE__, 0xffffffffu, &offer, sizeof offer);
  const unsigned group = shim::current->lane / 4, t = shim::current->lane % 4;
  const auto half = [](unsigned pair, unsigned which) { return __uint_as_float((pair >> 16 * which & 0xffff) << 16); };
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = group + 8 * (i >> 1), column = 2 * t + (i & 1);
    for (unsigned k = 0; k < 16; k++) {
      const unsigned owner = k % 8 / 2;
      const Offer x = shim::lane_value<Offer>(__LINE__, 0xffffffffu, row % 8 * 4 + owner);
      const Offer y = shim::lane_value<Offer>(__LINE__, 0xffffffffu, column * 4 + owner);
      d[i] += half(x.a[row / 8 + 2 * (k / 8)], k & 1) * half(y.b[k / 8], k & 1);
    }
  }
}

// ldmatrix.x4[.trans]: lane i names row i % 8 of 8 × 8 matrix i / 8; matrix m goes to register m,
// lane l receiving row l / 4, columns 2 (l % 4) and the next — of the transpose where asked.
inline void ldmatrix_x4(unsigned (&r)[4], Shared row, bool transposed) {
  if (row % 16 != 0) shim::fail("ldmatrix of an address that is not 16-byte aligned");
  shim::warp_exchange(__LINE__, 0xffffffffu, &row, sizeof row);
  const unsigned lane = shim::current->lane;
  for (unsigned m = 0; m < 4; m++) {
    unsigned short value[2];
    for (unsigned j = 0; j < 2; j++) {
      const unsigned at_row = transposed ? 2 * (lane % 4) + j : lane / 4;
      const unsigned at_column = transposed ? lane / 4 : 2 * (lane % 4) + j;
      const Shared source = shim::lane_value<Shared>(__LINE__, 0xffffffffu, m * 8 + at_row);
      value[j] = reinterpret_cast<const unsigned short*>(source)[at_column];
    }
    r[m] = value[0] | unsigned(value[1]) << 16;
  }
}

// cp.async: 16 or 4 bytes to shared memory, zeroes where `valid` is false; they land at the wait.
template <unsigned Size>
inline void cp_async(Shared to, const void* global, bool valid) {
  if (to % Size != 0 || (valid && reinterpret_cast<uintptr_t>(global) % Size != 0)) {
    shim::fail("cp.async of an address that is not %u-byte aligned", Size);
    return;
  }
  shim::Copy copy = {reinterpret_cast<void*>(to), {}, Size, shim::current->group};
  if (valid) memcpy(copy.bytes, global, Size);
  shim::current->copies.push_back(copy);
}
inline void cp_async16(Shared to, const void* global, bool valid) { cp_async<16>(to, global, valid); }
inline void cp_async4(Shared to, const void* global, bool valid) { cp_async<4>(to, global, valid); }
inline void cp_async_commit() { shim::current->group++; }
template <int Pending>
inline void cp_async_wait() {
  shim::land(*shim::current, Pending);
}
