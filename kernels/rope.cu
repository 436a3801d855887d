// Rotary position embedding (Su et al. 2021), halves rotated as in Hugging Face's Llama.
//
//   (a, b) = (x[i], x[i + dim/2])  →  (a cos − b sin, b cos + a sin)      angle table[position, i]
//
// Rotates the query and key heads of qkv [rows, (query + 2 kv) · dim] in place; table [positions, dim] f32:
// dim/2 cosines, then dim/2 sines. sign = −1 turns back, which is the gradient.
// Launch: <<<rows, 128>>>, eight pairs a thread. CPU twin: src/backend/cpu/rope.rs.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(128) rope(act* __restrict__ qkv, const u32* __restrict__ positions,
                                                       const float* __restrict__ table, int query, int kv, int dim,
                                                       float sign) {
  const int half = dim / 2, groups = (half + 7) / 8;
  act* const row = qkv + (u64)blockIdx.x * (query + 2 * kv) * dim;
  const float* const angles = table + (u64)positions[blockIdx.x] * dim;
  for (int item = threadIdx.x; item < (query + kv) * groups; item += blockDim.x) {
    const int i = item % groups * 8, left = half - i;
    act* const at = row + item / groups * dim + i;
    float a[8], b[8], c[8], s[8];
    load8(at, left, a);
    load8(at + half, left, b);
    load8(angles + i, left, c);
    load8(angles + half + i, left, s);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float x = a[j], y = b[j], sine = s[j] * sign;
      a[j] = x * c[j] - y * sine;
      b[j] = y * c[j] + x * sine;
    }
    store8(at, left, a);
    store8(at + half, left, b);
  }
}
