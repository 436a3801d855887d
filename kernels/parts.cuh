// A result that was made in parts of k (src/backend/cuda/linear.rs): sums [parts, rows, width] f32.
#pragma once
#include "device.cuh"

// Eight of its values: the sum over the parts, upwards, and a bias where it is not null. `sums` and `bias` point to the
// first of them; the next part is `stride` further; `left` of them exist.
__device__ __forceinline__ void load_parts(const float* sums, u64 stride, int parts, const float* bias, int left,
                                           float (&sum)[8]) {
  float v[8];
  load8(sums, left, sum);
#pragma unroll 3
  for (int p = 1; p < parts; p++) {
    load8(sums + p * stride, left, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
  if (bias) {
    load8(bias, left, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
}
