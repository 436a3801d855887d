// Causal grouped-query attention, backward (Dao 2023, alg. 2), the scores recomputed.
//
//   p = e^(s − lse), D = Σ dout · out, dv = pᵀ dout, dp = dout vᵀ, ds = p (dp − D)/√dim, dq = ds k, dk = dsᵀ q
//
// Two passes, so that nothing is added by two blocks and the bits are always the same: one whose blocks own
// 64 queries of a query head (dq), one whose blocks own 64 keys of a key/value head and walk the query heads
// that share it in order (dk, dv). Shapes as in attention.cu; dqkv like qkv, wholly written; delta [rows, query] f32.
//
//   attention_delta                    delta = D          <<<⌈rows · query/4⌉, 128>>>, a warp each
//   attention_dq_64, _128              <<<(n, query), 128, 512 · dim bytes>>>
//   attention_dkv_64, _128             <<<(n, kv), 128, 512 · dim bytes>>>
//   attention_dq_plain, _dkv_plain     the twins: any dim up to 256, any element type; <<<(n, query or kv), 128>>>
// tiles as in attention.cu, for queries and for keys alike.
// In the tensor-core passes a warp owns 16 rows and takes 16 columns at a time: scores and their gradients go from
// accumulators to A fragments in registers, with no trip through shared memory.
// CPU twin: src/backend/cpu/attention_backward.rs.
#include "attention.cuh"

extern "C" __global__ void __launch_bounds__(128) attention_delta(const act* __restrict__ dout,
                                                                  const act* __restrict__ out, int items, int dim,
                                                                  float* __restrict__ delta) {
  const int lane = threadIdx.x % WARP, item = blockIdx.x * 4 + threadIdx.x / WARP;
  if (item >= items) return;
  float sum = 0.0f;
  for (int d = lane * 8; d < dim; d += WARP * 8) {
    float a[8], b[8];
    load8(dout + (u64)item * dim + d, dim - d, a);
    load8(out + (u64)item * dim + d, dim - d, b);
#pragma unroll
    for (int j = 0; j < 8; j++) sum = fmaf(a[j], b[j], sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) delta[item] = sum;
}

template <int DIM>
__device__ __forceinline__ void dq_tile(const bf16* __restrict__ dout, const bf16* __restrict__ qkv,
                                        const float* __restrict__ lse, const float* __restrict__ delta,
                                        const u32* __restrict__ tiles, int query, int kv, bf16* __restrict__ dqkv,
                                        bf16* memory) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y, key_head = head / (query / kv);
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const u64 stride = (u64)(query + 2 * kv) * DIM, out_stride = (u64)query * DIM;
  const bf16* const q = qkv + start * stride + head * DIM;
  const bf16* const k = qkv + start * stride + (query + key_head) * DIM;
  const bf16* const v = k + kv * DIM;
  const bf16* const d = dout + start * out_stride + head * DIM;
  // Stage i of the keys at 64 · i rows, of the values 128 rows further.
  const auto keys = [&](int stage) { return memory + (stage & 1) * 64 * DIM; };
  const auto values = [&](int stage) { return memory + (128 + (stage & 1) * 64) * DIM; };
  const int row = first + warp * 16, steps = (min(len, first + 64) + 63) / 64;
  const float root = 1.0f / sqrtf((float)DIM), scale = LOG2E * root;

  load_tile<DIM, 64, 128>(keys(0), k, stride, 0, len);
  load_tile<DIM, 64, 128>(values(0), v, stride, 0, len);
  cp_async_commit();
  u32 queries[DIM / 16][4], douts[DIM / 16][4];
#pragma unroll
  for (int i = 0; i < DIM / 16; i++) {
    load_a_global(queries[i], q, stride, row, len, i * 16);
    load_a_global(douts[i], d, out_stride, row, len, i * 16);
  }
  float row_lse[2], row_delta[2], acc[DIM / 8][4];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int at = row + lane / 4 + 8 * half;
    const u64 place = (u64)(start + at) * query + head;
    row_lse[half] = at < len ? lse[place] * LOG2E : 0.0f;
    row_delta[half] = at < len ? delta[place] : 0.0f;
  }
  set_zero(acc);

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
#pragma unroll 1
    for (int j = 0; j < 64; j += 16) {
      float s[2][4] = {}, dp[2][4] = {};
#pragma unroll
      for (int i = 0; i < DIM / 16; i++) {
        u32 b[4];
        load_b_rows<DIM>(b, key_tile, j, i * 16);
        mma_two(s[0], s[1], queries[i], b);
        load_b_rows<DIM>(b, value_tile, j, i * 16);
        mma_two(dp[0], dp[1], douts[i], b);
      }
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int key = step * 64 + j + n * 8 + 2 * (lane % 4) + (i & 1), at = row + lane / 4 + 8 * (i >> 1);
          const float p = key > at ? 0.0f : exp2_fast(fmaf(s[n][i], scale, -row_lse[i >> 1]));
          s[n][i] = p * (dp[n][i] - row_delta[i >> 1]);
        }
      }
      u32 ds[4];
      as_a(ds, s[0], s[1]);
#pragma unroll
      for (int n = 0; n < DIM / 8; n += 2) {
        u32 b[4];
        load_b_columns<DIM>(b, key_tile, j, n * 8);
        mma_two(acc[n], acc[n + 1], ds, b);
      }
    }
    __syncthreads();
  }
  cp_async_wait<0>();
  const float roots[2] = {root, root};
  store_rows<DIM>(dqkv + start * stride + head * DIM, stride, row, len, acc, roots);
}

// Queries in a tile of the pass below.
#define QUERIES 32

template <int DIM>
__device__ __forceinline__ void dkv_tile(const bf16* __restrict__ dout, const bf16* __restrict__ qkv,
                                         const float* __restrict__ lse, const float* __restrict__ delta,
                                         const u32* __restrict__ tiles, int query, int kv, bf16* __restrict__ dqkv,
                                         bf16* memory) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, key_head = blockIdx.y, group = query / kv;
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const u64 stride = (u64)(query + 2 * kv) * DIM, out_stride = (u64)query * DIM;
  const bf16* const k = qkv + start * stride + (query + key_head) * DIM;
  const bf16* const v = k + kv * DIM;
  bf16* const keys = memory;
  bf16* const values = memory + 64 * DIM;
  const auto queries = [&](int stage) { return memory + (128 + (stage & 1) * QUERIES) * DIM; };
  const auto douts = [&](int stage) { return memory + (128 + (2 + (stage & 1)) * QUERIES) * DIM; };
  // Queries before the first key see none of this tile. One walk over (head of the group, tile of queries).
  const int per_head = (len - first + QUERIES - 1) / QUERIES, steps = per_head * group;
  const float root = 1.0f / sqrtf((float)DIM), scale = LOG2E * root;

  load_tile<DIM, 64, 128>(keys, k, stride, first, len);
  load_tile<DIM, 64, 128>(values, v, stride, first, len);
  const bf16* const q = qkv + start * stride + key_head * group * DIM;
  const bf16* const d = dout + start * out_stride + key_head * group * DIM;
  load_tile<DIM, QUERIES, 128>(queries(0), q, stride, first, len);
  load_tile<DIM, QUERIES, 128>(douts(0), d, out_stride, first, len);
  cp_async_commit();
  float dk[DIM / 8][4], dv[DIM / 8][4];
  set_zero(dk);
  set_zero(dv);
  for (int step = 0; step < steps; step++) {
    const int next = step + 1;
    if (next < steps) {
      const int head = next / per_head, from = first + next % per_head * QUERIES;
      load_tile<DIM, QUERIES, 128>(queries(next), q + head * DIM, stride, from, len);
      load_tile<DIM, QUERIES, 128>(douts(next), d + head * DIM, out_stride, from, len);
    }
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    bf16* const query_tile = queries(step);
    bf16* const dout_tile = douts(step);
    const int head = key_head * group + step / per_head, from = first + step % per_head * QUERIES;
#pragma unroll 1
    for (int j = 0; j < QUERIES; j += 16) {
      float s[2][4] = {}, dp[2][4] = {};  // rows are keys, columns queries
#pragma unroll 2  // all of it spills at 128
      for (int i = 0; i < DIM / 16; i++) {
        u32 a[4], b[4];
        load_a<DIM>(a, keys, warp * 16, i * 16);
        load_b_rows<DIM>(b, query_tile, j, i * 16);
        mma_two(s[0], s[1], a, b);
        load_a<DIM>(a, values, warp * 16, i * 16);
        load_b_rows<DIM>(b, dout_tile, j, i * 16);
        mma_two(dp[0], dp[1], a, b);
      }
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int at = from + j + n * 8 + 2 * (lane % 4) + (i & 1), key = first + warp * 16 + lane / 4 + 8 * (i >> 1);
          const u64 place = (u64)(start + at) * query + head;
          const bool live = at < len && key <= at;
          const float p = live ? exp2_fast(fmaf(s[n][i], scale, -lse[place] * LOG2E)) : 0.0f;
          s[n][i] = p;
          dp[n][i] = live ? p * (dp[n][i] - delta[place]) : 0.0f;
        }
      }
      u32 p[4], ds[4];
      as_a(p, s[0], s[1]);
      as_a(ds, dp[0], dp[1]);
#pragma unroll
      for (int n = 0; n < DIM / 8; n += 2) {
        u32 b[4];
        load_b_columns<DIM>(b, dout_tile, j, n * 8);
        mma_two(dv[n], dv[n + 1], p, b);
        load_b_columns<DIM>(b, query_tile, j, n * 8);
        mma_two(dk[n], dk[n + 1], ds, b);
      }
    }
    __syncthreads();
  }
  cp_async_wait<0>();
  const float roots[2] = {root, root}, ones[2] = {1.0f, 1.0f};
  bf16* const out = dqkv + start * stride + (query + key_head) * DIM;
  store_rows<DIM>(out, stride, first + warp * 16, len, dk, roots);
  store_rows<DIM>(out + kv * DIM, stride, first + warp * 16, len, dv, ones);
}

#ifndef ACT_F32
#define PASS(name, tile, dim)                                                                                        \
  name(const act* dout, const act* qkv, const float* lse, const float* delta, const u32* tiles, int query, int kv,   \
       act* dqkv) {                                                                                                  \
    DYNAMIC_SHARED(memory);                                                                                          \
    tile<dim>(dout, qkv, lse, delta, tiles, query, kv, dqkv, reinterpret_cast<bf16*>(memory));                       \
  }
extern "C" __global__ void __launch_bounds__(128) PASS(attention_dq_64, dq_tile, 64)
extern "C" __global__ void __launch_bounds__(128) PASS(attention_dq_128, dq_tile, 128)
extern "C" __global__ void __launch_bounds__(128) PASS(attention_dkv_64, dkv_tile, 64)
extern "C" __global__ void __launch_bounds__(128) PASS(attention_dkv_128, dkv_tile, 128)
#endif

extern "C" __global__ void __launch_bounds__(128)
    attention_dq_plain(const act* __restrict__ dout, const act* __restrict__ qkv, const float* __restrict__ lse,
                       const float* __restrict__ delta, const u32* __restrict__ tiles, int query, int kv, int dim,
                       act* __restrict__ dqkv) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y, key_head = head / (query / kv);
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const int last = min(len, first + 64);
  const u64 stride = (u64)(query + 2 * kv) * dim;
  const float root = 1.0f / sqrtf((float)dim);
  for (int row = first + warp; row < last; row += 4) {
    const u64 place = (u64)(start + row) * query + head;
    float q[8], d[8], acc[8];
#pragma unroll
    for (int e = 0; e < 8; e++) {
      const int at = lane + e * WARP;
      q[e] = at < dim ? to_float(qkv[(start + row) * stride + head * dim + at]) : 0.0f;
      d[e] = at < dim ? to_float(dout[place * dim + at]) : 0.0f;
      acc[e] = 0.0f;
    }
    for (int key = 0; key <= row; key++) {
      const act* const k = qkv + (start + key) * stride + (query + key_head) * dim;
      float dot = 0.0f, dp = 0.0f;
#pragma unroll
      for (int e = 0; e < 8; e++) {
        const int at = lane + e * WARP;
        if (at < dim) {
          dot = fmaf(q[e], to_float(k[at]), dot);
          dp = fmaf(d[e], to_float(k[kv * dim + at]), dp);
        }
      }
      const float p = expf(warp_sum(dot) * root - lse[place]), ds = p * (warp_sum(dp) - delta[place]) * root;
#pragma unroll
      for (int e = 0; e < 8; e++) {
        if (lane + e * WARP < dim) acc[e] = fmaf(ds, to_float(k[lane + e * WARP]), acc[e]);
      }
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
      if (lane + e * WARP < dim) put(dqkv + (start + row) * stride + head * dim + lane + e * WARP, acc[e]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(128)
    attention_dkv_plain(const act* __restrict__ dout, const act* __restrict__ qkv, const float* __restrict__ lse,
                        const float* __restrict__ delta, const u32* __restrict__ tiles, int query, int kv, int dim,
                        act* __restrict__ dqkv) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, key_head = blockIdx.y, group = query / kv;
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const int last = min(len, first + 64);
  const u64 stride = (u64)(query + 2 * kv) * dim;
  const float root = 1.0f / sqrtf((float)dim);
  for (int key = first + warp; key < last; key += 4) {
    const u64 own = (start + key) * stride + (query + key_head) * dim;
    float k[8], v[8], dk[8], dv[8];
#pragma unroll
    for (int e = 0; e < 8; e++) {
      const int at = lane + e * WARP;
      k[e] = at < dim ? to_float(qkv[own + at]) : 0.0f;
      v[e] = at < dim ? to_float(qkv[own + kv * dim + at]) : 0.0f;
      dk[e] = dv[e] = 0.0f;
    }
    for (int head = key_head * group; head < (key_head + 1) * group; head++) {
      for (int row = key; row < len; row++) {
        const act* const q = qkv + (start + row) * stride + head * dim;
        const u64 place = (u64)(start + row) * query + head;
        const act* const d = dout + place * dim;
        float dot = 0.0f, dp = 0.0f;
#pragma unroll
        for (int e = 0; e < 8; e++) {
          const int at = lane + e * WARP;
          if (at < dim) {
            dot = fmaf(to_float(q[at]), k[e], dot);
            dp = fmaf(to_float(d[at]), v[e], dp);
          }
        }
        const float p = expf(warp_sum(dot) * root - lse[place]), ds = p * (warp_sum(dp) - delta[place]) * root;
#pragma unroll
        for (int e = 0; e < 8; e++) {
          const int at = lane + e * WARP;
          if (at < dim) {
            dk[e] = fmaf(ds, to_float(q[at]), dk[e]);
            dv[e] = fmaf(p, to_float(d[at]), dv[e]);
          }
        }
      }
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
      const int at = lane + e * WARP;
      if (at < dim) {
        put(dqkv + own + at, dk[e]);
        put(dqkv + own + kv * dim + at, dv[e]);
      }
    }
  }
}
