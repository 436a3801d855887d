// RMSNorm (Zhang & Sennrich 2019), alone and with the residual sum before it, forward and backward.
//
//   x̂ = x · rstd, rstd = 1/√(mean x² + ε), y = x̂ · w
//   with g = dy · w:  dx += rstd (g − x̂ · mean(g x̂)),  dw += Σ_rows dy x̂
//
// x, delta, sum, y, dy, dx [rows, width]; w, dw [width] f32; rstd [rows] f32.
// add_rms_norm writes sum = x + delta as it will be read back, and normalises that; add_parts_rms_norm does so with a
// delta that is a linear layer's result in parts (parts.cuh), rounded as join_parts (product.cu) would.
// Bytes that have to move, a row: rms_norm 4 · width, add_rms_norm 8 · width, add_parts_rms_norm (4 · parts + 6) · width.
// dw is summed without atomics: each block sums CHUNK rows into partial [⌈rows/CHUNK⌉, width],
// and add_columns (reduce.cu) adds the chunks in a fixed order.
//
// Launch: forward <<<⌈rows/4⌉, 128>>>, a warp for each row, no barrier;
// backward <<<⌈rows/32⌉, 128, 4·width bytes>>>, a block for each chunk of 32 rows, one barrier a row.
// CPU twin: src/backend/cpu/rms_norm.rs.
#include "parts.cuh"

#define CHUNK 32

// delta(i, d): eight values of what is added first. Whole: see is_whole, of every row here.
template <bool Add, bool Whole, class Delta>
__device__ __forceinline__ void norm_row(const act* x, Delta delta, const float* weight, int width, float eps, act* sum,
                                         act* y, float* rstd) {
  const int lane = threadIdx.x % WARP;
  float squares = 0.0f;
  for (int i = lane * 8; i < width; i += WARP * 8) {
    float v[8];
    load8<Whole>(x + i, width - i, v);
    if (Add) {
      float d[8];
      delta(i, d);
#pragma unroll
      for (int j = 0; j < 8; j++) v[j] = rounded(sum, v[j] + d[j]);
      store8<Whole>(sum + i, width - i, v);
    }
#pragma unroll
    for (int j = 0; j < 8; j++) squares = fmaf(v[j], v[j], squares);
  }
  const float r = 1.0f / sqrtf(warp_sum(squares) / width + eps);
  if (lane == 0) *rstd = r;
  const act* const source = Add ? sum : x;  // each lane reads back what it wrote itself
  for (int i = lane * 8; i < width; i += WARP * 8) {
    float v[8], w[8];
    load8<Whole>(source + i, width - i, v);
    load8<Whole>(weight + i, width - i, w);
#pragma unroll
    for (int j = 0; j < 8; j++) v[j] = v[j] * r * w[j];
    store8<Whole>(y + i, width - i, v);
  }
}

extern "C" __global__ void __launch_bounds__(128) rms_norm(const act* x, const float* weight, int rows, int width,
                                                           float eps, act* y, float* rstd) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const u64 at = (u64)row * width;
  const auto none = [](int, float (&)[8]) {};
  if (is_whole(width, x + at, weight, y + at)) {
    norm_row<false, true>(x + at, none, weight, width, eps, nullptr, y + at, rstd + row);
  } else {
    norm_row<false, false>(x + at, none, weight, width, eps, nullptr, y + at, rstd + row);
  }
}

extern "C" __global__ void __launch_bounds__(128) add_rms_norm(const act* x, const act* delta, const float* weight,
                                                               int rows, int width, float eps, act* sum, act* y,
                                                               float* rstd) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const u64 at = (u64)row * width;
  if (is_whole(width, x + at, delta + at, weight, sum + at, y + at)) {
    const auto load = [&](int i, float (&d)[8]) { load8<true>(delta + at + i, width - i, d); };
    norm_row<true, true>(x + at, load, weight, width, eps, sum + at, y + at, rstd + row);
  } else {
    const auto load = [&](int i, float (&d)[8]) { load8(delta + at + i, width - i, d); };
    norm_row<true, false>(x + at, load, weight, width, eps, sum + at, y + at, rstd + row);
  }
}

extern "C" __global__ void __launch_bounds__(128)
    add_parts_rms_norm(const act* x, const float* sums, const float* bias, int parts, const float* weight, int rows,
                       int width, float eps, act* sum, act* y, float* rstd) {
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const u64 at = (u64)row * width;
  const auto load = [&](int i, float (&d)[8]) {
    load_parts(sums + at + i, (u64)rows * width, parts, bias ? bias + i : nullptr, width - i, d);
#pragma unroll
    for (int j = 0; j < 8; j++) d[j] = rounded(x, d[j]);
  };
  norm_row<true, false>(x + at, load, weight, width, eps, sum + at, y + at, rstd + row);
}

extern "C" __global__ void __launch_bounds__(128) rms_norm_backward(const act* __restrict__ dy,
                                                                    const act* __restrict__ x,
                                                                    const float* __restrict__ weight,
                                                                    const float* __restrict__ rstd, int rows, int width,
                                                                    act* __restrict__ dx, float* __restrict__ partial) {
  DYNAMIC_SHARED(memory);
  float* const dweight = reinterpret_cast<float*>(memory);
  // Two sets of warp sums, used in turn: a row's are still being read while the next row's are written.
  __shared__ float dots[2][4];
  const int first = blockIdx.x * CHUNK, last = min(rows, first + CHUNK), step = blockDim.x * 8;
  for (int i = threadIdx.x * 8; i < width; i += step) {
    for (int j = 0; j < 8 && i + j < width; j++) dweight[i + j] = 0.0f;  // this thread's own columns, here and below
  }
  for (int row = first; row < last; row++) {
    const u64 at = (u64)row * width;
    const float r = rstd[row];
    float dot = 0.0f;
    for (int i = threadIdx.x * 8; i < width; i += step) {
      float d[8], h[8], w[8];
      load8(dy + at + i, width - i, d);
      load8(x + at + i, width - i, h);
      load8(weight + i, width - i, w);
#pragma unroll
      for (int j = 0; j < 8; j++) {
        h[j] *= r;
        dot = fmaf(d[j] * w[j], h[j], dot);
        if (i + j < width) dweight[i + j] = fmaf(d[j], h[j], dweight[i + j]);
      }
    }
    dot = warp_sum(dot);
    float* const sums = dots[row & 1];
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = dot;
    __syncthreads();
    const float mean = (sums[0] + sums[1] + sums[2] + sums[3]) / width;
    for (int i = threadIdx.x * 8; i < width; i += step) {
      float d[8], h[8], w[8], out[8];
      load8(dy + at + i, width - i, d);
      load8(x + at + i, width - i, h);
      load8(weight + i, width - i, w);
      load8(dx + at + i, width - i, out);
#pragma unroll
      for (int j = 0; j < 8; j++) out[j] = fmaf(r, d[j] * w[j] - h[j] * r * mean, out[j]);
      store8(dx + at + i, width - i, out);
    }
  }
  for (int i = threadIdx.x * 8; i < width; i += step) {
    for (int j = 0; j < 8 && i + j < width; j++) partial[(u64)blockIdx.x * width + i + j] = dweight[i + j];
  }
}
