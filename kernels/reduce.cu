// Sums in a fixed order.
//
//   add                  out[i] += term[i]
//   add_columns          out[j] += Σ_c partial[c, j]               partial [chunks, stride] f32, the first width of each
//   column_sum           partial[c, j] = Σ_{rows of chunk c} x[row, j] 64 rows a chunk; a bias's gradient
//   square_sum           partial[c] = Σ x² over 16,384 elements
//   square_sum_total     out[b] = Σ_c partial[c] in f64, starts[b] ≤ c < starts[b + 1]; all chunks where starts is null
//
// Two levels each, so that no thread walks through all of it alone: add_columns has a warp for every 32nd chunk, upwards,
// then the warps' sums as warp_sum adds them; square_sum_total a thread for every 256th chunk, then the same over
// lanes, then the warps upwards.
//
// Bytes that have to move: add 12 · len; add_columns 4 · chunks · width; column_sum 2 · rows · width; square_sum 4 · len.
// Launch: add <<<⌈len/2048⌉, 256>>>; add_columns <<<⌈width/32⌉, 1024>>>; column_sum <<<(⌈width/256⌉, ⌈rows/64⌉), 32>>>;
// square_sum <<<⌈len/16384⌉, 256>>>; square_sum_total <<<buffers, 256>>>.
// CPU twins: linear.rs (bias gradient), optimizer.rs (add, square_sum).
#include "device.cuh"

#define COLUMN_CHUNK 64
#define SQUARE_CHUNK (1 << 14)

extern "C" __global__ void __launch_bounds__(256) add(float* __restrict__ out, const float* __restrict__ term,
                                                      u64 len) {
  const u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= len) return;
  const int left = len - i < 8 ? (int)(len - i) : 8;
  float sum[8], v[8];
  load8(out + i, left, sum);
  load8(term + i, left, v);
#pragma unroll
  for (int j = 0; j < 8; j++) sum[j] += v[j];
  store8(out + i, left, sum);
}

extern "C" __global__ void __launch_bounds__(1024) add_columns(float* __restrict__ out,
                                                               const float* __restrict__ partial, int chunks, int width,
                                                               int stride) {
  __shared__ float sums[WARP][WARP + 1];  // a column more: both directions go to all banks
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = blockIdx.x * WARP;
  float sum = 0.0f;
  if (first + lane < width) {
#pragma unroll 8
    for (int c = warp; c < chunks; c += WARP) sum += partial[(u64)c * stride + first + lane];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  sum = warp_sum(sums[lane][warp]);
  if (lane == 0 && first + warp < width) out[first + warp] += sum;
}

extern "C" __global__ void column_sum(float* __restrict__ partial, const act* __restrict__ x, int rows, int width) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= width) return;
  const int first = blockIdx.y * COLUMN_CHUNK, last = min(rows, first + COLUMN_CHUNK);
  float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  for (int row = first; row < last; row++) {
    float v[8];
    load8(x + (u64)row * width + i, width - i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
  store8(partial + (u64)blockIdx.y * width + i, width - i, sum);
}

extern "C" __global__ void __launch_bounds__(256) square_sum(float* __restrict__ partial, const float* __restrict__ x,
                                                             u64 len) {
  __shared__ float sums[8];
  const u64 first = (u64)blockIdx.x * SQUARE_CHUNK;
  const int count = len - first < SQUARE_CHUNK ? (int)(len - first) : SQUARE_CHUNK;
  float sum = 0.0f;
  for (int i = threadIdx.x * 8; i < count; i += blockDim.x * 8) {
    float v[8];
    load8(x + first + i, count - i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum = fmaf(v[j], v[j], sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < 8; w++) sum += sums[w];
    partial[blockIdx.x] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(256) square_sum_total(double* __restrict__ out,
                                                                   const float* __restrict__ partial,
                                                                   const u32* __restrict__ starts, int chunks) {
  __shared__ double sums[8];
  const int first = starts ? starts[blockIdx.x] : 0, last = starts ? starts[blockIdx.x + 1] : chunks;
  double sum = 0.0;
  for (int c = first + threadIdx.x; c < last; c += blockDim.x) sum += partial[c];
#pragma unroll
  for (int bits = 16; bits > 0; bits >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, bits);
  if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < 8; w++) sum += sums[w];
    out[blockIdx.x] = sum;
  }
}
