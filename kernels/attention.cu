// Causal grouped-query attention, forward (Dao 2023, alg. 1): over packed sequences, and of prompts over the KV cache.
//
//   s = q kᵀ / √dim (keys up to the query's own), p = softmax(s), out = p v, lse = log Σ e^s
//
// qkv [rows, (query + 2 kv) · dim]: query heads, key heads, value heads; out [rows, query · dim];
// lse [rows, query] f32. tiles [n, 3] u32: a sequence's first row, the row after its last, and the first
// query of the tile counted from the sequence's first row (a multiple of a tile's rows; the longest tiles first).
// Softmax is online over tiles of 64 keys: no T × T matrix. A row's result does not depend on its batch.
//
// attention_64, attention_128: bf16 tensor cores (mma.m16n8k16), f32 accumulators, tiles of 128 queries.
//   Launch <<<(n, query), 128, 640 · dim bytes>>>: four warps of 32 queries. Queries lie in shared memory; keys and values
//   come in by cp.async, in three buffers that they take in turn. Only tiles on the diagonal are masked, and a warp leaves
//   out the keys after its last query. Maxima are of the scores as they are; 1/√dim and log₂ e are in the exponential's fma.
//   Limits, computed from the SASS for sm_90 and not measured: clocks of an SM for a block's step of 64 keys, with mma at 1.5
//   clocks, 128 bytes of shared memory, 4 instructions and 16 exponentials a clock. 1,536 clocks at 128 are 632 TFLOP/s of an
//   H100 (132 SMs, 1.755 GHz), as are 768 at 64.
//                    mma   shared memory   issue   exponentials   registers   blocks on an SM
//     attention_128  1,536       1,536     1,037        544       255         2 (80 KiB each)
//     attention_64     768         768       674        544       233         2 (40 KiB each)
//   Before it, a warp of 16 queries with its fragments in registers, two products for each ldmatrix: at 128 768 clocks of
//   mma to 1,280 of shared memory and about 1,380 of issue for half of the work.
// attention_prefill_64, attention_prefill_128: the same for prompts that go into the paged cache (kv_cache.cu), in as many
//   steps as it takes: queries are rows of the step, keys and values lie in the cache's layer, and there is no lse. Positions
//   are the sequence's: of a run of rows whose first has position p, tiles are (first row − p, that and the position after the
//   last, the tile's first position), modulo 2³². slots [rows], table [slots, most] as in kv_cache.cu. A row's bits do not
//   depend on how the prompt was cut; they are attention_64's, not attention_cached's, which keeps its weights in f32.
//   Launch as above.
// attention_plain: any dim up to 256, any element type, a warp for each query: the twin that the tensor-core
//   kernels are compared with. Launch <<<(n, query), 128>>>, tiles of 64 queries.
// CPU twin: src/backend/cpu/attention.rs.
#include "attention.cuh"

// Keys of a step, and of a page of the cache.
#define KEYS 64
#define PAGE 16

// Keys and values in the rows that the queries lie in: KEYS of them, or as many as are `left` of the sequence.
template <int DIM>
struct InRows {
  const bf16* key;
  u64 stride;
  int kv;

  __device__ __forceinline__ void load_keys(Shared tile, int, int left) const {
    load_tile<DIM, KEYS, 128>(tile, key, stride, 0, left);
  }
  __device__ __forceinline__ void load_values(Shared tile, int, int left) const {
    load_tile<DIM, KEYS, 128>(tile, key + kv * DIM, stride, 0, left);
  }
  __device__ __forceinline__ void advance() { key += KEYS * stride; }
};

// Keys and values in the pages of a sequence, from position `at` on. What lives through the loop is one number: the rest are
// parameters, and registers are few.
template <int DIM>
struct InPages {
  const bf16* layer;
  const u32* table;
  u32 first;  // of the sequence's pages in the table
  int query, kv;

  __device__ __forceinline__ void load(Shared tile, int value, int at, int left) const {
    constexpr int APART = 128 / (DIM / 8);
    static_assert(PAGE % APART == 0 && KEYS % PAGE == 0, "one page for all that the threads copy at a time");
    const u32 thread = thread_here(), *const pages = table + first + at / PAGE;
    const int row = thread / (DIM / 8), chunk = thread % (DIM / 8), head = value * kv + blockIdx.y / (query / kv);
    const Shared to = tile + 2 * (row * DIM + ((chunk ^ (row & 7)) << 3));
#pragma unroll 4  // more would be spilled at 128
    for (int r = 0; r < KEYS; r += APART) {
      // Behind the sequence's last page the table names none.
      const u32 page = pages[r < left ? r / PAGE : 0];
      const u32 from = (page * 2 * kv + head) * PAGE + row + r % PAGE;  // a layer has fewer than 2³² rows
      cp_async16(to + 2 * r * DIM, layer + (u64)from * DIM + chunk * 8, r + row < left);
    }
  }
  __device__ __forceinline__ void load_keys(Shared tile, int at, int left) const { load(tile, 0, at, left); }
  __device__ __forceinline__ void load_values(Shared tile, int at, int left) const { load(tile, 1, at, left); }
  __device__ __forceinline__ void advance() {}
};

// The queries of a tile against the keys up to theirs; log-sum-exps are written where there is an lse.
template <int DIM, class Keys>
__device__ __forceinline__ void forward_tile(const bf16* __restrict__ qkv, const Tile& tile, Keys keys, int query, int kv,
                                             bf16* __restrict__ out, float* __restrict__ lse, const void* memory) {
  const int lane = threadIdx.x % WARP, warp = of_warp(threadIdx.x / WARP), head = blockIdx.y;
  const auto [start, len, first] = tile;
  const u64 stride = (u64)(query + 2 * kv) * DIM;
  // The queries, then three tiles that keys and values take in turn: what is copied to the third is the next step's.
  const Shared query_tile = shared_address(memory), query_at = query_tile + warp * 32 * 2 * DIM + lane_rows<DIM>();
  Shared key_tile = query_tile + TILE * 2 * DIM, value_tile = key_tile + KEYS * 2 * DIM;
  Shared next_tile = value_tile + KEYS * 2 * DIM;
  const int row = first + warp * 32, steps = (min(len, first + TILE) + KEYS - 1) / KEYS;
  const int by_rows = lane_rows<DIM>(), by_columns = lane_columns<DIM>();
  const float scale = LOG2E / sqrtf((float)DIM);

  load_tile<DIM, TILE, 128>(query_tile, qkv + start * stride + head * DIM, stride, first, len);
  keys.load_keys(key_tile, 0, len);
  cp_async_commit();

  // A warp's 32 queries are two blocks of 16 rows: each fragment of keys or values serves both.
  float acc[2][DIM / 8][4], top[2][2], total[2][2];
#pragma unroll
  for (int m = 0; m < 2; m++) {
    set_zero(acc[m]);
    top[m][0] = top[m][1] = NEG_INF;
    total[m][0] = total[m][1] = 0.0f;
  }

  for (int step = 0; step < steps; step++) {
    const int at = step * KEYS;
    // Keys after a warp's last query are none of its business; it only helps to copy them.
    const bool live = at <= row + 31;
    float s[2][KEYS / 8][4];
    cp_async_wait<0>();
    __syncthreads();  // these keys are there, and everyone is done with the last step's tiles
    keys.load_values(value_tile, at, len - at);
    cp_async_commit();
    keys.advance();
    if (step + 1 < steps) keys.load_keys(next_tile, at + KEYS, len - at - KEYS);
    cp_async_commit();
    if (live) {
      set_zero(s[0]);
      set_zero(s[1]);
#pragma unroll 4  // more would be spilled at 128
      for (int i = 0; i < DIM; i += 16) {
        u32 a[2][4];
        load_a<DIM>(a[0], query_at, 0, i);
        load_a<DIM>(a[1], query_at, 16, i);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
          u32 b[4];
          load_b_rows<DIM>(b, key_tile + by_columns, n * 8, i);
          mma_two(s[0][n], s[0][n + 1], a[0], b);
          mma_two(s[1][n], s[1][n + 1], a[1], b);
        }
      }
    }
    cp_async_wait<1>();
    __syncthreads();  // these values are there
    if (live) {
#pragma unroll
      for (int m = 0; m < 2; m++) {
        if (at + KEYS - 1 > row + 16 * m) hide_later<KEYS>(s[m], at, row + 16 * m);
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float high = top[m][half];
#pragma unroll
          for (int n = 0; n < KEYS / 8; n++) high = fmaxf(high, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
          high = row_max(high);
          // A live step has a key that the query sees, so `high` is finite; e^(−∞) = 0 starts the first one.
          const float fade = exp2_fast((top[m][half] - high) * scale), shift = high * scale;
          top[m][half] = high;
          float sum = 0.0f;
#pragma unroll
          for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
              s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale, -shift));
              sum += s[m][n][i];
            }
          }
          total[m][half] = fmaf(total[m][half], fade, sum);
#pragma unroll
          for (int n = 0; n < DIM / 8; n++) {
            acc[m][n][2 * half] *= fade;
            acc[m][n][2 * half + 1] *= fade;
          }
        }
      }
#pragma unroll
      for (int j = 0; j < KEYS / 16; j++) {
        u32 p[2][4];
        as_a(p[0], s[0][2 * j], s[0][2 * j + 1]);
        as_a(p[1], s[1][2 * j], s[1][2 * j + 1]);
#pragma unroll
        for (int n = 0; n < DIM / 8; n += 2) {
          u32 b[4];
          load_b_columns<DIM>(b, value_tile + by_rows, j * 16, n * 8);
          mma_two(acc[0][n], acc[0][n + 1], p[0], b);
          mma_two(acc[1][n], acc[1][n + 1], p[1], b);
        }
      }
    }
    const Shared spent = value_tile;
    value_tile = key_tile;
    key_tile = next_tile;
    next_tile = spent;
  }
  cp_async_wait<0>();
#pragma unroll
  for (int m = 0; m < 2; m++) {
    const int base = row + 16 * m;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float sum = row_sum(total[m][half]);
      inverse[half] = 1.0f / sum;
      const int at = base + lane / 4 + 8 * half;
      if (lse && lane % 4 == 0 && at < len) {
        lse[(u64)(start + at) * query + head] = fmaf(top[m][half], scale, log2f(sum)) * LN2;
      }
    }
    store_rows<DIM>(out + (u64)start * query * DIM + head * DIM, (u64)query * DIM, base, len, acc[m], inverse);
  }
}

#ifndef ACT_F32
template <int DIM>
__device__ __forceinline__ void packed(const act* qkv, const u32* tiles, int query, int kv, act* out, float* lse,
                                       const void* memory) {
  const Tile tile = tile_of(tiles, blockIdx.x);
  const u64 stride = (u64)(query + 2 * kv) * DIM;
  const int key_head = blockIdx.y / (query / kv);
  const InRows<DIM> keys{qkv + tile.start * stride + (query + key_head) * DIM, stride, kv};
  forward_tile<DIM>(qkv, tile, keys, query, kv, out, lse, memory);
}

template <int DIM>
__device__ __forceinline__ void prefill(const act* qkv, const act* layer, const u32* table, const u32* slots,
                                        const u32* tiles, int query, int kv, int most, act* out, const void* memory) {
  const Tile tile = tile_of(tiles, blockIdx.x);
  const u32 slot = of_warp(slots[tile.start + tile.first]);
  const InPages<DIM> keys{layer, table, slot * most, query, kv};
  forward_tile<DIM>(qkv, tile, keys, query, kv, out, nullptr, memory);
}

#define PACKED(name, dim)                                                                                          \
  name(const act* qkv, const u32* tiles, int query, int kv, act* out, float* lse) {                                \
    DYNAMIC_SHARED(memory);                                                                                        \
    packed<dim>(qkv, tiles, query, kv, out, lse, memory);                                                          \
  }
#define PREFILL(name, dim)                                                                                         \
  name(const act* qkv, const act* layer, const u32* table, const u32* slots, const u32* tiles, int query, int kv,  \
       int most, act* out) {                                                                                       \
    DYNAMIC_SHARED(memory);                                                                                        \
    prefill<dim>(qkv, layer, table, slots, tiles, query, kv, most, out, memory);                                   \
  }
extern "C" __global__ void __launch_bounds__(128) PACKED(attention_64, 64)
extern "C" __global__ void __launch_bounds__(128) PACKED(attention_128, 128)
extern "C" __global__ void __launch_bounds__(128) PREFILL(attention_prefill_64, 64)
extern "C" __global__ void __launch_bounds__(128) PREFILL(attention_prefill_128, 128)
#endif

extern "C" __global__ void __launch_bounds__(128) attention_plain(const act* __restrict__ qkv,
                                                                  const u32* __restrict__ tiles, int query, int kv,
                                                                  int dim, act* __restrict__ out,
                                                                  float* __restrict__ lse) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y, key_head = head / (query / kv);
  const auto [start, len, first] = tile_of(tiles, blockIdx.x);
  const int last = min(len, first + PLAIN_TILE);
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
