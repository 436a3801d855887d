// Decode attention: each row's query heads over positions 0 … positions[row] of its slot in the paged cache
// (kv_cache.cu). out [rows, query · dim].
//
// A block takes one row, one key/value head and up to 8 of the query heads that share it. Its four warps take
// tiles of 32 keys in turn, each with its own online softmax; the four are joined in the warps' order, so a
// row's bits do not depend on its batch. Scores have a lane for each key, which alone looks its page up; sums have a lane
// for each dimension, and take a key's place from that lane, four values in flight.
// attention_cached_2 takes dims up to 64, _4 up to 128, _8 up to 256 (2, 4 or 8 a lane). Where dim is the whole of it, as
// in every model in use, loops over it have a constant length, and a key's loads are issued four at a time. Else a
// multiple of 8 is loaded 16 bytes at a time, any other one by one. wide is dim rounded up to a multiple of 8; queries are zero from dim on.
//
// Launch: <<<(rows, kv, ⌈group/8⌉), 128, 4 · (8 · wide + 4 · 8 · 32 + 4 · 8 · (dim + 2)) bytes>>>.
// Not yet tried: splitting one row's keys over blocks (long contexts at small batches).
// CPU twin: cached in src/backend/cpu/attention.rs.
#include "device.cuh"

#define HEADS 8

// Exact: EACH · 32 dimensions, of pages whose rows begin at multiples of 16 bytes; else that many or fewer.
template <int EACH, bool Exact>
__device__ __forceinline__ void decode(const act* __restrict__ layer, const u32* __restrict__ table,
                                       const act* __restrict__ qkv, const u32* __restrict__ slots,
                                       const u32* __restrict__ positions, int query, int kv, int any_dim, int page,
                                       int most, act* __restrict__ out, unsigned char* memory) {
  const int dim = Exact ? EACH * WARP : any_dim;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, row = blockIdx.x, key_head = blockIdx.y;
  const int group = query / kv, first = key_head * group + blockIdx.z * HEADS;
  const int heads = min(HEADS, (key_head + 1) * group - first), wide = (dim + 7) / 8 * 8;
  float* const queries = reinterpret_cast<float*>(memory);               // [HEADS, wide]
  float* const weights = queries + HEADS * wide + warp * HEADS * WARP;   // [32, HEADS], this warp's
  float* const partial = queries + HEADS * wide + 4 * HEADS * WARP;      // [4, HEADS, dim + 2]
  const u32* const pages = table + (u64)slots[row] * most;
  const int keys = positions[row] + 1;
  const float scale = 1.0f / sqrtf((float)dim);
  const act* const own = qkv + ((u64)row * (query + 2 * kv) + first) * dim;
  for (int i = threadIdx.x; i < heads * wide; i += blockDim.x) {
    queries[i] = i % wide < dim ? to_float(own[i / wide * dim + i % wide]) : 0.0f;
  }
  __syncthreads();
  float acc[HEADS][EACH], top[HEADS], total[HEADS];
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    top[h] = NEG_INF;
    total[h] = 0.0f;
#pragma unroll
    for (int e = 0; e < EACH; e++) acc[h][e] = 0.0f;
  }
  for (int base = warp * WARP; base < keys; base += 4 * WARP) {
    // Row of the layer that holds this lane's key; its value lies kv pages further.
    const int key = base + lane, known = min(key, keys - 1);
    const u32 at = (pages[known / page] * 2 * kv + key_head) * page + known % page;
    float s[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) s[h] = 0.0f;
    if (key < keys) {
      const act* const k = layer + (u64)at * dim;
      constexpr int kAtOnce = Exact ? 4 : 1;
      for (int d = 0; d < dim; d += 8 * kAtOnce) {
        float v[kAtOnce][8];
#pragma unroll
        for (int i = 0; i < kAtOnce; i++) load8<Exact>(k + d + 8 * i, dim - d - 8 * i, v[i]);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
          if (h < heads) {
#pragma unroll
            for (int i = 0; i < kAtOnce; i++) {
              const float4* const q = reinterpret_cast<const float4*>(queries + h * wide + d + 8 * i);
              const float4 low = q[0], high = q[1];
              const float own[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
              for (int j = 0; j < 8; j++) s[h] = fmaf(own[j], v[i][j], s[h]);
            }
          }
        }
      }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      if (h < heads) {
        const float score = key < keys ? s[h] * scale : NEG_INF;
        const float high = fmaxf(top[h], warp_max(score)), fade = expf(top[h] - high), p = expf(score - high);
        top[h] = high;
        total[h] = fmaf(total[h], fade, warp_sum(p));
        weights[lane * HEADS + h] = p;
#pragma unroll
        for (int e = 0; e < EACH; e++) acc[h][e] *= fade;
      }
    }
    __syncwarp();
    const int here = min(WARP, keys - base);
#pragma unroll 4
    for (int j = 0; j < here; j++) {
      const act* const v = layer + (u64)(__shfl_sync(ALL_LANES, at, j) + kv * page) * dim;
      const float4 low = *reinterpret_cast<const float4*>(weights + j * HEADS);
      const float4 high = *reinterpret_cast<const float4*>(weights + j * HEADS + 4);
      const float p[HEADS] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int e = 0; e < EACH; e++) {
        const int d = lane + e * WARP;
        const float value = Exact || d < dim ? to_float(v[d]) : 0.0f;
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
          if (h < heads) acc[h][e] = fmaf(p[h], value, acc[h][e]);
        }
      }
    }
    __syncwarp();  // the next tile overwrites the weights
  }
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    if (h < heads) {
      float* const mine = partial + (warp * HEADS + h) * (dim + 2);
#pragma unroll
      for (int e = 0; e < EACH; e++) {
        if (Exact || lane + e * WARP < dim) mine[lane + e * WARP] = acc[h][e];
      }
      if (lane == 0) {
        mine[dim] = top[h];
        mine[dim + 1] = total[h];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < heads * dim; i += blockDim.x) {
    const float* const head = partial + i / dim * (dim + 2);
    float high = NEG_INF, sum = 0.0f, value = 0.0f;
    for (int w = 0; w < 4; w++) high = fmaxf(high, head[w * HEADS * (dim + 2) + dim]);
    for (int w = 0; w < 4; w++) {
      const float* const from = head + w * HEADS * (dim + 2);
      const float fade = expf(from[dim] - high);  // 0 for a warp that saw no key
      sum = fmaf(from[dim + 1], fade, sum);
      value = fmaf(from[i % dim], fade, value);
    }
    put(out + ((u64)row * query + first) * dim + i, value / sum);
  }
}

#define DECODE(name, each)                                                                                          \
  name(const act* layer, const u32* table, const act* qkv, const u32* slots, const u32* positions, int query,       \
       int kv, int dim, int page, int most, act* out) {                                                             \
    DYNAMIC_SHARED(memory);                                                                                         \
    if (dim == each * WARP && aligned16(layer)) {                                                                   \
      decode<each, true>(layer, table, qkv, slots, positions, query, kv, dim, page, most, out, memory);             \
    } else {                                                                                                        \
      decode<each, false>(layer, table, qkv, slots, positions, query, kv, dim, page, most, out, memory);            \
    }                                                                                                               \
  }
extern "C" __global__ void __launch_bounds__(128, 4) DECODE(attention_cached_2, 2)
extern "C" __global__ void __launch_bounds__(128, 4) DECODE(attention_cached_4, 4)
extern "C" __global__ void __launch_bounds__(128, 2) DECODE(attention_cached_8, 8)
