// Sums in a fixed order.
//
//   add_columns          out[j] += Σ_c partial[c, j], c upwards        partial [chunks, width] f32
//   column_sum           partial[c, j] = Σ_{rows of chunk c} x[row, j] 64 rows a chunk; a bias's gradient
//   square_sum           partial[c] = Σ x² over 16,384 elements
//   square_sum_total     out = Σ_c partial[c] in f64, c upwards
//
// Launch: add_columns <<<⌈width/128⌉, 128>>>; column_sum <<<(⌈width/256⌉, ⌈rows/64⌉), 32>>>;
// square_sum <<<⌈len/16384⌉, 256>>>; square_sum_total <<<1, 1>>>.
// CPU twins: linear.rs (bias gradient), optimizer.rs (square_sum).
#include "device.cuh"

#define COLUMN_CHUNK 64
#define SQUARE_CHUNK (1 << 14)

extern "C" __global__ void add_columns(float* __restrict__ out, const float* __restrict__ partial, int chunks,
                                       int width) {
  const int j = blockIdx.x * blockDim.x + threadIdx.x;
  if (j >= width) return;
  float sum = 0.0f;
  for (int c = 0; c < chunks; c++) sum += partial[(u64)c * width + j];
  out[j] += sum;
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

extern "C" __global__ void square_sum_total(double* out, const float* __restrict__ partial, int chunks) {
  double sum = 0.0;
  for (int c = 0; c < chunks; c++) sum += partial[c];
  *out = sum;
}
