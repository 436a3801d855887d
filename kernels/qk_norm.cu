// Qwen3's norm of every query and key head: RMSNorm over the head's dimensions, in place.
//
//   forward:  before = qkv;  head ← head · rstd · w           w of the queries or of the keys
//   backward: dqkv ← gradient of `before`;  partial sums of both weights' gradients (see rms_norm.cu)
//
// qkv, before, dqkv [rows, (query + 2 kv) · dim]; rstd [rows, query + kv] f32; weights [dim] f32;
// partial [⌈rows/16⌉, 2 dim]: query weights, then key weights. dim ≤ 256.
//
// Launch: qk_norm <<<⌈rows · (query + 2 kv)/4⌉, 128>>>, a warp for each head;
// qk_norm_backward <<<⌈rows/16⌉, 128, 0>>>, a block for 16 rows, its four warps taking heads in turn.
// CPU twin: src/backend/cpu/qk_norm.rs.
#include "device.cuh"

#define CHUNK 16
#define MAX_DIM 256
#define EACH (MAX_DIM / WARP)  // values of a head that a lane holds: lane, lane + 32, …

extern "C" __global__ void __launch_bounds__(128) qk_norm(act* __restrict__ qkv, act* __restrict__ before,
                                                          const float* __restrict__ query_weight,
                                                          const float* __restrict__ key_weight, int query, int kv,
                                                          int dim, int rows, float eps, float* __restrict__ rstd) {
  const int lane = threadIdx.x % WARP, all = query + 2 * kv;
  const u32 item = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;  // 2^32 heads would not fit into memory
  if (item >= (u32)rows * all) return;
  const int head = item % all;
  const u64 row = item / all, at = (u64)item * dim;
  float v[EACH], squares = 0.0f;
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int d = lane + e * WARP;
    v[e] = d < dim ? to_float(qkv[at + d]) : 0.0f;
    if (d < dim) before[at + d] = qkv[at + d];
    squares = fmaf(v[e], v[e], squares);
  }
  if (head >= query + kv) return;  // values are only kept
  const float r = 1.0f / sqrtf(warp_sum(squares) / dim + eps);
  if (lane == 0) rstd[row * (query + kv) + head] = r;
  const float* const weight = head < query ? query_weight : key_weight;
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int d = lane + e * WARP;
    if (d < dim) put(qkv + at + d, v[e] * r * weight[d]);
  }
}

extern "C" __global__ void __launch_bounds__(128) qk_norm_backward(act* __restrict__ dqkv,
                                                                   const act* __restrict__ before,
                                                                   const float* __restrict__ query_weight,
                                                                   const float* __restrict__ key_weight,
                                                                   const float* __restrict__ rstd, int query, int kv,
                                                                   int dim, int rows, float* __restrict__ partial) {
  __shared__ float sums[4][2 * MAX_DIM];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, normed = query + kv;
  const int first = blockIdx.x * CHUNK, count = min(rows - first, CHUNK) * normed;
  float dq[EACH], dk[EACH];
#pragma unroll
  for (int e = 0; e < EACH; e++) dq[e] = dk[e] = 0.0f;
  for (int item = warp; item < count; item += 4) {
    const int head = item % normed;
    const u64 row = first + item / normed, at = (row * (query + 2 * kv) + head) * dim;
    const bool is_query = head < query;
    const float* const weight = is_query ? query_weight : key_weight;
    const float r = rstd[row * normed + head];
    float g[EACH], h[EACH], dot = 0.0f;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int d = lane + e * WARP;
      const float dy = d < dim ? to_float(dqkv[at + d]) : 0.0f;
      h[e] = d < dim ? to_float(before[at + d]) * r : 0.0f;
      g[e] = d < dim ? dy * weight[d] : 0.0f;
      dot = fmaf(g[e], h[e], dot);
      dq[e] = is_query ? fmaf(dy, h[e], dq[e]) : dq[e];
      dk[e] = is_query ? dk[e] : fmaf(dy, h[e], dk[e]);
    }
    const float mean = warp_sum(dot) / dim;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
      const int d = lane + e * WARP;
      if (d < dim) put(dqkv + at + d, r * (g[e] - h[e] * mean));
    }
  }
#pragma unroll
  for (int e = 0; e < EACH; e++) {
    const int d = lane + e * WARP;
    if (d < dim) {
      sums[warp][d] = dq[e];
      sums[warp][dim + d] = dk[e];
    }
  }
  __syncthreads();
  for (int d = threadIdx.x; d < 2 * dim; d += blockDim.x) {
    partial[(u64)blockIdx.x * 2 * dim + d] = sums[0][d] + sums[1][d] + sums[2][d] + sums[3][d];
  }
}
