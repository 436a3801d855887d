// Causal grouped-query attention, backward (Dao 2023, alg. 2), the scores recomputed.
//
//   p = e^(s − lse), D = Σ dout · out, dv = pᵀ dout, dp = dout vᵀ, ds = p (dp − D)/√dim, dq = ds k, dk = dsᵀ q
//
// Two passes, so that nothing is added by two blocks and the bits are always the same: one whose blocks own
// queries of a query head (dq), one whose blocks own keys of a key/value head and walk the query heads
// that share it in order (dk, dv). Shapes as in attention.cu; dqkv like qkv, wholly written; delta [rows, query] f32.
//
//   attention_delta               delta = D                 <<<⌈rows · query/4⌉, 128>>>, a warp each
//   attention_dq_64, _128         128 queries a block       <<<(n, query), 128, 32 KiB or 96 KiB>>>
//   attention_dkv_64, _128        64 keys a block           <<<(2 n, kv), 128, 41 KiB or 65 KiB>>>
//   attention_dq_plain, _dkv_plain   the twins: any dim up to 256, any element type; <<<(n, query or kv), 128>>>
// tiles as in attention.cu, for queries and for keys alike: of 128 rows, for the twins of 64.
//
// In the tensor-core passes a warp has 32 rows, two blocks of 16, so that a fragment of what streams by serves both;
// scores and their gradients go from accumulators to A fragments in registers. Keys after a warp's last query, and queries
// before its first key, are left out; only the diagonal is masked. Blocks own 64 keys and not more, since there are few key heads.
// Limits, computed from the SASS for sm_90 as in attention.cu and not measured: clocks of an SM for a block's step, and
// what the worst of them would be in TFLOP/s of products on an H100 (of which the two passes do 7 where 5 are counted):
//                        mma   shared memory   issue   exponentials   TFLOP/s (before)   registers   blocks on an SM
//   dq_128, 32 keys    1,152       1,408        595        256            517 (406)         255           2
//   dq_64,  64 keys    1,152         896        730        512            632 (331)         218           2
//   dkv_128, 32 queries  768         800        470        128            607 (292)         255           2
//   dkv_64,  32 queries  384         480        350        128            506 (180)         168           3
// Before, a warp owned 16 rows and read lse and D from memory for every score. Tried by the same count: dkv with 16 keys a
// warp, keys and values in registers, 421 at 128; with 32 keys a warp, 128 a block, 583 at 64, but in half as many blocks.
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
                                        unsigned char* memory) {
  // Where registers allow, a warp keeps its queries and their douts; else they lie in shared memory.
  constexpr bool KEPT = DIM <= 64;
  constexpr int KEYS = 4096 / DIM, SOME = KEPT ? 16 : 32;  // of a step, and of those at a time
  const int lane = threadIdx.x % WARP, warp = of_warp(threadIdx.x / WARP);
  const int head = blockIdx.y, key_head = head / (query / kv);
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const u64 stride = (u64)(query + 2 * kv) * DIM, out_stride = (u64)query * DIM;
  const bf16* const q = qkv + start * stride + head * DIM;
  const bf16* const k = qkv + start * stride + (query + key_head) * DIM;
  const bf16* const d = dout + start * out_stride + head * DIM;
  // Two stages of keys, each with its values behind it.
  const Shared base = shared_address(memory), staged = base + (KEPT ? 0 : 2 * TILE * 2 * DIM);
  const int row = first + warp * 32, steps = (min(len, first + TILE) + KEYS - 1) / KEYS;
  const int by_rows = lane_rows<DIM>(), by_columns = lane_columns<DIM>();
  const Shared query_at = base + warp * 32 * 2 * DIM + by_rows, dout_at = query_at + TILE * 2 * DIM;
  const float root = 1.0f / sqrtf((float)DIM), scale = LOG2E * root;

  u32 queries[KEPT ? DIM / 16 : 1][2][4], douts[KEPT ? DIM / 16 : 1][2][4];
  if constexpr (KEPT) {
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) {
#pragma unroll
      for (int m = 0; m < 2; m++) {
        load_a_global(queries[i][m], q, stride, row + 16 * m, len, i * 16);
        load_a_global(douts[i][m], d, out_stride, row + 16 * m, len, i * 16);
      }
    }
  } else {
    load_tile<DIM, TILE, 128>(base, q, stride, first, len);
    load_tile<DIM, TILE, 128>(base + TILE * 2 * DIM, d, out_stride, first, len);
  }
  load_tile<DIM, KEYS, 128>(staged, k, stride, 0, len);
  load_tile<DIM, KEYS, 128>(staged + KEYS * 2 * DIM, k + kv * DIM, stride, 0, len);
  cp_async_commit();
  float row_lse[2][2], row_delta[2][2], acc[2][DIM / 8][4];
#pragma unroll
  for (int m = 0; m < 2; m++) {
    set_zero(acc[m]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int at = row + 16 * m + lane / 4 + 8 * half;
      const u64 place = (u64)(start + at) * query + head;
      row_lse[m][half] = at < len ? lse[place] * LOG2E : 0.0f;
      row_delta[m][half] = at < len ? delta[place] : 0.0f;
    }
  }

  for (int step = 0; step < steps; step++) {
    const Shared stage = staged + (step & 1) * 2 * KEYS * 2 * DIM;
    cp_async_wait<0>();
    __syncthreads();  // and everyone is done with the other stage
    if (step + 1 < steps) {
      const Shared next = staged + (~step & 1) * 2 * KEYS * 2 * DIM;
      load_tile<DIM, KEYS, 128>(next, k, stride, (step + 1) * KEYS, len);
      load_tile<DIM, KEYS, 128>(next + KEYS * 2 * DIM, k + kv * DIM, stride, (step + 1) * KEYS, len);
    }
    cp_async_commit();
#pragma unroll 1
    for (int j = 0; j < KEYS; j += SOME) {
      const int key = step * KEYS + j;
      if (key > row + 31) break;  // after the warp's last query
      const Shared at = stage + j * 2 * DIM, key_at = at + by_columns, value_at = key_at + KEYS * 2 * DIM;
      float s[2][SOME / 8][4], dp[2][SOME / 8][4];  // dp begins at −D
#pragma unroll
      for (int m = 0; m < 2; m++) {
        set_zero(s[m]);
#pragma unroll
        for (int n = 0; n < SOME / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) dp[m][n][i] = -row_delta[m][i >> 1];
        }
      }
#pragma unroll 4  // all of it spills at 128
      for (int i = 0; i < DIM / 16; i++) {
        u32 a[2][4];
#pragma unroll
        for (int m = 0; m < 2 && !KEPT; m++) load_a<DIM>(a[m], query_at, 16 * m, i * 16);
#pragma unroll
        for (int n = 0; n < SOME / 8; n += 2) {
          u32 b[4];
          load_b_rows<DIM>(b, key_at, n * 8, i * 16);
#pragma unroll
          for (int m = 0; m < 2; m++) mma_two(s[m][n], s[m][n + 1], KEPT ? queries[i][m] : a[m], b);
        }
#pragma unroll
        for (int m = 0; m < 2 && !KEPT; m++) load_a<DIM>(a[m], dout_at, 16 * m, i * 16);
#pragma unroll
        for (int n = 0; n < SOME / 8; n += 2) {
          u32 b[4];
          load_b_rows<DIM>(b, value_at, n * 8, i * 16);
#pragma unroll
          for (int m = 0; m < 2; m++) mma_two(dp[m][n], dp[m][n + 1], KEPT ? douts[i][m] : a[m], b);
        }
      }
#pragma unroll
      for (int m = 0; m < 2; m++) {
        if (key + SOME - 1 > row + 16 * m) hide_later<SOME>(s[m], key, row + 16 * m);
#pragma unroll
        for (int n = 0; n < SOME / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale, -row_lse[m][i >> 1])) * dp[m][n][i];
          }
        }
      }
#pragma unroll
      for (int i = 0; i < SOME / 16; i++) {
        u32 ds[2][4];
#pragma unroll
        for (int m = 0; m < 2; m++) as_a(ds[m], s[m][2 * i], s[m][2 * i + 1]);
#pragma unroll
        for (int n = 0; n < DIM / 8; n += 2) {
          u32 b[4];
          load_b_columns<DIM>(b, at + by_rows, 16 * i, n * 8);
#pragma unroll
          for (int m = 0; m < 2; m++) mma_two(acc[m][n], acc[m][n + 1], ds[m], b);
        }
      }
    }
  }
  const float roots[2] = {root, root};
  bf16* const dq = dqkv + (k - qkv) + (head - query - key_head) * DIM;  // k is at hand; start · stride would be spilled
#pragma unroll
  for (int m = 0; m < 2; m++) {
    store_rows<DIM>(dq, stride, row + 16 * m, len, acc[m], roots);
  }
}

// Two warps share 32 keys: the first has s, p and dv, the second dp, ds and dk, and takes p from the first through shared
// memory, lane by lane as the accumulators have it. One warp's registers could not hold the sums of both at 128. Each keeps its
// fragments of keys or values, so every ldmatrix serves four products.
template <int DIM>
__device__ __forceinline__ void dkv_tile(const bf16* __restrict__ dout, const bf16* __restrict__ qkv,
                                             const float* __restrict__ lse, const float* __restrict__ delta,
                                             const u32* __restrict__ tiles, int query, int kv, bf16* __restrict__ dqkv,
                                             unsigned char* memory) {
  constexpr int KEYS = 64, QUERIES = 32, STAGE = 2 * QUERIES * 2 * DIM;  // queries, their douts behind them
  const int lane = threadIdx.x % WARP, warp = of_warp(threadIdx.x / WARP), pair = warp % 2;
  const bool second = warp >= 2;
  const int key_head = blockIdx.y, group = query / kv;
  // The first keys have the most queries: from the end of the list.
  const Tile tile = tile_of(tiles, (gridDim.x - 1 - blockIdx.x) / (TILE / KEYS));
  const int start = tile.start, len = tile.len, first = tile.first + blockIdx.x % (TILE / KEYS) * KEYS;
  const int own = first + pair * 32;
  if (first >= len) return;
  const u64 stride = (u64)(query + 2 * kv) * DIM, out_stride = (u64)query * DIM;
  const bf16* const k = qkv + start * stride + (query + key_head) * DIM;
  // Three stages; p of two steps, for each pair 4 KiB; lse and D of three stages.
  float4* const handed = reinterpret_cast<float4*>(memory + 3 * STAGE) + pair * 256 + lane;
  float* const stats = reinterpret_cast<float*>(memory + 3 * STAGE + 4 * 4096);
  const Shared staged = shared_address(memory), stats_at = shared_address(stats);
  const int by_rows = lane_rows<DIM>(), by_columns = lane_columns<DIM>();
  const float root = 1.0f / sqrtf((float)DIM), scale = LOG2E * root;

  // Queries before the first key see none of these. One walk over (head of the group, step of queries), the copies two
  // steps ahead.
  int next_head = key_head * group, next_from = first;
  const auto copy = [&](int stage) {
    if (next_head < (key_head + 1) * group) {
      const u32 thread = thread_here();
      const Shared to = staged + stage * STAGE;
      load_tile<DIM, QUERIES, 128>(to, k + (next_head - query - key_head) * DIM, stride, next_from, len);
      const bf16* const d = dout + ((u64)start * query + next_head) * DIM;
      load_tile<DIM, QUERIES, 128>(to + STAGE / 2, d, out_stride, next_from, len);
      if (thread < 2 * QUERIES) {
        const int at = next_from + thread % QUERIES;
        const float* const from = (thread < QUERIES ? lse : delta) + (u64)(start + at) * query + next_head;
        cp_async4(stats_at + 4 * (stage * 2 * QUERIES + thread), from, at < len);
      }
      next_from += QUERIES;
      if (next_from >= len) {
        next_from = first;
        next_head++;
      }
    }
    cp_async_commit();
  };
  copy(0);
  copy(1);
  u32 kept[2][DIM / 16][4];
  float sum[2][DIM / 8][4];
#pragma unroll
  for (int m = 0; m < 2; m++) {
    set_zero(sum[m]);
#pragma unroll
    for (int i = 0; i < DIM / 16; i++) {
      load_a_global(kept[m][i], k + (second ? kv * DIM : 0), stride, own + 16 * m, len, i * 16);
    }
  }
  cp_async_wait<1>();
  __syncthreads();
  int from = first, stage = 0;
  for (int left = (len - first + QUERIES - 1) / QUERIES * group; left > 0; left--) {
    const bool live = from + QUERIES > own;  // else every query comes before the pair's keys
    const Shared query_tile = staged + stage * STAGE, dout_tile = query_tile + STAGE / 2;
    float4* const hand = handed + left % 2 * 512;
    // Rows are keys, columns queries: s, then p; or dp, then ds.
    float x[2][QUERIES / 8][4];
    if (live) {
      set_zero(x[0]);
      set_zero(x[1]);
      const Shared at = (second ? dout_tile : query_tile) + by_columns;
#pragma unroll
      for (int i = 0; i < DIM / 16; i++) {
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n += 2) {
          u32 b[4];
          load_b_rows<DIM>(b, at, n * 8, i * 16);
          mma_two(x[0][n], x[0][n + 1], kept[0][i], b);
          mma_two(x[1][n], x[1][n + 1], kept[1][i], b);
        }
      }
      const float* const stat = stats + stage * 2 * QUERIES + 2 * (lane % 4);
#pragma unroll
      for (int m = 0; m < 2; m++) {
        if (second) {
#pragma unroll
          for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) x[m][n][i] -= stat[QUERIES + 8 * n + (i & 1)];
          }
        } else {
          if (from < own + 16 * m + 15) hide_earlier<QUERIES>(x[m], own + 16 * m, from);
#pragma unroll
          for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
              x[m][n][i] = exp2_fast(fmaf(x[m][n][i], scale, -stat[8 * n + (i & 1)] * LOG2E));
            }
            hand[(m * (QUERIES / 8) + n) * WARP] = {x[m][n][0], x[m][n][1], x[m][n][2], x[m][n][3]};
          }
        }
      }
    }
    cp_async_wait<0>();
    // p is there, and so is the next step's tile; everyone is done with the last step's, where the one after goes.
    __syncthreads();
    copy(stage == 0 ? 2 : stage - 1);
    if (live) {
      if (second) {
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
          for (int n = 0; n < QUERIES / 8; n++) {
            const float4 p = hand[(m * (QUERIES / 8) + n) * WARP];
            x[m][n][0] *= p.x, x[m][n][1] *= p.y, x[m][n][2] *= p.z, x[m][n][3] *= p.w;
          }
        }
      }
      const Shared at = (second ? query_tile : dout_tile) + by_rows;
#pragma unroll
      for (int j = 0; j < QUERIES / 16; j++) {
        u32 a[2][4];
        as_a(a[0], x[0][2 * j], x[0][2 * j + 1]);
        as_a(a[1], x[1][2 * j], x[1][2 * j + 1]);
#pragma unroll
        for (int n = 0; n < DIM / 8; n += 2) {
          u32 b[4];
          load_b_columns<DIM>(b, at, j * 16, n * 8);
          mma_two(sum[0][n], sum[0][n + 1], a[0], b);
          mma_two(sum[1][n], sum[1][n + 1], a[1], b);
        }
      }
    }
    from += QUERIES;
    if (from >= len) from = first;
    stage = stage == 2 ? 0 : stage + 1;
  }
  cp_async_wait<0>();
  const float unit = second ? root : 1.0f, units[2] = {unit, unit};
  bf16* const out = dqkv + (k - qkv) + (second ? 0 : kv * DIM);
#pragma unroll
  for (int m = 0; m < 2; m++) store_rows<DIM>(out, stride, own + 16 * m, len, sum[m], units);
}

#ifndef ACT_F32
#define PASS(name, tile, dim)                                                                                        \
  name(const act* dout, const act* qkv, const float* lse, const float* delta, const u32* tiles, int query, int kv,   \
       act* dqkv) {                                                                                                  \
    DYNAMIC_SHARED(memory);                                                                                          \
    tile<dim>(dout, qkv, lse, delta, tiles, query, kv, dqkv, memory);                                                \
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
  const int last = min(len, first + PLAIN_TILE);
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
  const int last = min(len, first + PLAIN_TILE);
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
