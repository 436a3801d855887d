// Causal grouped-query attention over packed sequences, forward (Dao 2023, alg. 1).
//
//   s = q kᵀ / √dim (keys up to the query's own), p = softmax(s), out = p v, lse = log Σ e^s
//
// qkv [rows, (query + 2 kv) · dim]: query heads, key heads, value heads; out [rows, query · dim];
// lse [rows, query] f32. tiles [n, 3] u32: a sequence's first row, the row after its last, and the first
// query of the tile counted from the sequence's first row (a multiple of 64; the longest tiles first).
// Softmax is online over tiles of 64 keys: no T × T matrix. A row's result does not depend on its batch.
//
// attention_64, attention_128: bf16 tensor cores (mma.m16n8k16), f32 accumulators.
//   Launch <<<(n, query), 128, 512 · dim bytes>>>: four warps of 16 queries; keys and values come in
//   by cp.async, two stages. Scores are kept in units of log 2.
// attention_plain: any dim up to 256, any element type, a warp for each query: the twin that the tensor-core
//   kernels are compared with. Launch <<<(n, query), 128>>>, the same tiles.
// CPU twin: src/backend/cpu/attention.rs.
#include "attention.cuh"

template <int DIM>
__device__ __forceinline__ void forward_tile(const bf16* __restrict__ qkv, const u32* __restrict__ tiles, int query,
                                             int kv, bf16* __restrict__ out, float* __restrict__ lse,
                                             bf16* memory) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y, key_head = head / (query / kv);
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const u64 stride = (u64)(query + 2 * kv) * DIM;
  const bf16* const q = qkv + start * stride + head * DIM;
  const bf16* const k = qkv + start * stride + (query + key_head) * DIM;
  const bf16* const v = k + kv * DIM;
  // Stage i of the keys at 64 · i rows, of the values 128 rows further.
  const auto keys = [&](int stage) { return memory + (stage & 1) * 64 * DIM; };
  const auto values = [&](int stage) { return memory + (128 + (stage & 1) * 64) * DIM; };
  const int row = first + warp * 16;
  const int steps = (min(len, first + 64) + 63) / 64;
  const float scale = LOG2E / sqrtf((float)DIM);

  load_tile<DIM, 64, 128>(keys(0), k, stride, 0, len);
  load_tile<DIM, 64, 128>(values(0), v, stride, 0, len);
  cp_async_commit();
  u32 queries[DIM / 16][4];
#pragma unroll
  for (int i = 0; i < DIM / 16; i++) load_a_global(queries[i], q, stride, row, len, i * 16);

  float acc[DIM / 8][4];
  set_zero(acc);
  float top[2] = {NEG_INF, NEG_INF}, total[2] = {0.0f, 0.0f};

  for (int step = 0; step < steps; step++) {
    if (step + 1 < steps) {
      load_tile<DIM, 64, 128>(keys(step + 1), k, stride, (step + 1) * 64, len);
      load_tile<DIM, 64, 128>(values(step + 1), v, stride, (step + 1) * 64, len);
    }
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    bf16* const key_tile = keys(step);
    bf16* const value_tile = values(step);
    float s[8][4];
    set_zero(s);
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) {
#pragma unroll
      for (int n = 0; n < 8; n += 2) {
        u32 b[4];
        load_b_rows<DIM>(b, key_tile, n * 8, i * 16);
        mma_two(s[n], s[n + 1], queries[i], b);
      }
    }
    const bool diagonal = step == steps - 1;
    float high[2] = {top[0], top[1]};
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int key = step * 64 + n * 8 + 2 * (lane % 4) + (i & 1), at = row + lane / 4 + 8 * (i >> 1);
        s[n][i] = diagonal && key > at ? NEG_INF : s[n][i] * scale;
        high[i >> 1] = fmaxf(high[i >> 1], s[n][i]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      high[half] = row_max(high[half]);
      // Every query sees its tile's first key, so `high` is finite; e^(−∞) = 0 starts the first tile.
      const float fade = exp2_fast(top[half] - high[half]);
      top[half] = high[half];
      total[half] *= fade;
#pragma unroll
      for (int n = 0; n < DIM / 8; n++) {
        acc[n][2 * half] *= fade;
        acc[n][2 * half + 1] *= fade;
      }
    }
#pragma unroll
    for (int n = 0; n < 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[n][i] = exp2_fast(s[n][i] - top[i >> 1]);
        total[i >> 1] += s[n][i];
      }
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      u32 p[4];
      as_a(p, s[2 * j], s[2 * j + 1]);
#pragma unroll
      for (int n = 0; n < DIM / 8; n += 2) {
        u32 b[4];
        load_b_columns<DIM>(b, value_tile, j * 16, n * 8);
        mma_two(acc[n], acc[n + 1], p, b);
      }
    }
    __syncthreads();  // the next step's copies overwrite the tiles of this one
  }
  cp_async_wait<0>();
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    total[half] = row_sum(total[half]);
    inverse[half] = 1.0f / total[half];
    const int at = row + lane / 4 + 8 * half;
    if (lane % 4 == 0 && at < len) lse[(u64)(start + at) * query + head] = (top[half] + log2f(total[half])) * LN2;
  }
  store_rows<DIM>(out + (u64)start * query * DIM + head * DIM, (u64)query * DIM, row, len, acc, inverse);
}

#ifndef ACT_F32
extern "C" __global__ void __launch_bounds__(128) attention_64(const act* qkv, const u32* tiles, int query, int kv,
                                                               act* out, float* lse) {
  DYNAMIC_SHARED(memory);
  forward_tile<64>(qkv, tiles, query, kv, out, lse, reinterpret_cast<bf16*>(memory));
}

extern "C" __global__ void __launch_bounds__(128) attention_128(const act* qkv, const u32* tiles, int query, int kv,
                                                                act* out, float* lse) {
  DYNAMIC_SHARED(memory);
  forward_tile<128>(qkv, tiles, query, kv, out, lse, reinterpret_cast<bf16*>(memory));
}
#endif

extern "C" __global__ void __launch_bounds__(128) attention_plain(const act* __restrict__ qkv,
                                                                  const u32* __restrict__ tiles, int query, int kv,
                                                                  int dim, act* __restrict__ out,
                                                                  float* __restrict__ lse) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y, key_head = head / (query / kv);
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const int last = min(len, first + 64);
  const u64 stride = (u64)(query + 2 * kv) * dim;
  const float scale = 1.0f / sqrtf((float)dim);
  for (int row = first + warp; row < last; row += 4) {
    const act* const q = qkv + (start + row) * stride + head * dim;
    float qs[8], acc[8], top = NEG_INF, total = 0.0f;
#pragma unroll
    for (int e = 0; e < 8; e++) {
      qs[e] = lane + e * WARP < dim ? to_float(q[lane + e * WARP]) : 0.0f;
      acc[e] = 0.0f;
    }
    for (int key = 0; key <= row; key++) {
      const act* const k = qkv + (start + key) * stride + (query + key_head) * dim;
      const act* const v = k + kv * dim;
      float dot = 0.0f;
#pragma unroll
      for (int e = 0; e < 8; e++) {
        if (lane + e * WARP < dim) dot = fmaf(qs[e], to_float(k[lane + e * WARP]), dot);
      }
      const float s = warp_sum(dot) * scale, high = fmaxf(top, s);
      const float fade = expf(top - high), p = expf(s - high);
      top = high;
      total = fmaf(total, fade, p);
#pragma unroll
      for (int e = 0; e < 8; e++) {
        if (lane + e * WARP < dim) acc[e] = fmaf(p, to_float(v[lane + e * WARP]), acc[e] * fade);
      }
    }
    const u64 at = (u64)(start + row) * query + head;
#pragma unroll
    for (int e = 0; e < 8; e++) {
      if (lane + e * WARP < dim) put(out + at * dim + lane + e * WARP, acc[e] / total);
    }
    if (lane == 0) lse[at] = top + logf(total);
  }
}
