// Rotary position embedding (Su et al. 2021), halves rotated as in Hugging Face's Llama.
//
//   (a, b) = (x[i], x[i + dim/2])  →  (a cos − b sin, b cos + a sin)      angle angles[position, i]
//
//   rope          rotates the query and key heads of qkv [rows, (query + 2 kv) · dim] in place; sign = −1 turns back,
//                 which is the gradient
//   rope_append   the same of a decoding step, after adding a bias where it is not null, and stores each row's keys,
//                 turned, and values in its page of the cache; values stay in qkv as they are. add_bias (cast.cu), rope and
//                 kv_append (kv_cache.cu) in one launch, with their roundings: a step has hundreds, each shorter
//                 than what issuing it takes
//
// angles [positions, dim] f32: dim/2 cosines, then dim/2 sines. Layer, table and most are kv_cache.cu's.
// Bytes that have to move, a row: rope 4 · (query + kv) · dim, rope_append 4 · 2 kv · dim more.
// Launch: <<<rows, 128>>>, eight pairs a thread. CPU twins: src/backend/cpu/rope.rs, src/backend/cpu/kv_cache.rs.
#include "device.cuh"

// v += bias, as activations hold it.
__device__ __forceinline__ void add(float (&v)[8], const float* bias, int left) {
  float b[8];
  load8(bias, left, b);
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] = rounded((const act*)nullptr, v[j] + b[j]);
}

// Turns heads of a row; turned(head, i, left, v) gets eight values from i on, of which `left` exist.
template <class Turned>
__device__ __forceinline__ void turn(act* __restrict__ row, const float* __restrict__ bias,
                                     const float* __restrict__ angles, int heads, int dim, float sign, Turned turned) {
  const int half = dim / 2, groups = (half + 7) / 8;
  for (int item = threadIdx.x; item < heads * groups; item += blockDim.x) {
    const int head = item / groups, i = item % groups * 8, left = half - i;
    act* const at = row + head * dim + i;
    float a[8], b[8], c[8], s[8];
    load8(at, left, a);
    load8(at + half, left, b);
    if (bias) {
      add(a, bias + head * dim + i, left);
      add(b, bias + head * dim + half + i, left);
    }
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
    turned(head, i, left, a);
    turned(head, half + i, left, b);
  }
}

extern "C" __global__ void __launch_bounds__(128) rope(act* __restrict__ qkv, const u32* __restrict__ positions,
                                                       const float* __restrict__ angles, int query, int kv, int dim,
                                                       float sign) {
  turn(qkv + (u64)blockIdx.x * (query + 2 * kv) * dim, nullptr, angles + (u64)positions[blockIdx.x] * dim, query + kv,
       dim, sign, [](int, int, int, const float (&)[8]) {});
}

extern "C" __global__ void __launch_bounds__(128)
    rope_append(act* __restrict__ qkv, const float* __restrict__ bias, const float* __restrict__ angles,
                act* __restrict__ layer, const u32* __restrict__ table, const u32* __restrict__ slots,
                const u32* __restrict__ positions, int query, int kv, int dim, int page, int most) {
  const u32 position = positions[blockIdx.x];
  const u64 base = table[(u64)slots[blockIdx.x] * most + position / page];
  act* const row = qkv + (u64)blockIdx.x * (query + 2 * kv) * dim;
  // The token's place with the first head's keys; keys of the other heads, then values, are `step` apart.
  act* const to = layer + (base * 2 * kv * page + position % page) * dim;
  const u64 step = (u64)page * dim;
  const auto keep = [&](int head, int i, int left, const float (&v)[8]) {
    if (head >= query) store8(to + (head - query) * step + i, left, v);
  };
  turn(row, bias, angles + (u64)position * dim, query + kv, dim, 1.0f, keep);
  const act* const values = row + (query + kv) * dim;
  const int groups = (dim + 7) / 8;
  for (int item = threadIdx.x; item < kv * groups; item += blockDim.x) {
    const int head = item / groups, i = item % groups * 8;
    float v[8];
    load8(values + head * dim + i, dim - i, v);
    if (bias) add(v, bias + (query + kv + head) * dim + i, dim - i);
    store8(to + (kv + head) * step + i, dim - i, v);
  }
}
