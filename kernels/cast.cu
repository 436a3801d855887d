// Copies between f32 masters and activations, and a bias added to every row.
//
//   publish    to[i] = from[i] rounded to nearest              a parameter as the kernels read it
//   add_bias   y[row, j] += bias[j]                            where no GEMM epilogue does it
//
// Launch: publish <<<⌈len/2048⌉, 256>>>, add_bias <<<(⌈width/1024⌉, rows), 128>>>, eight values a thread.
// CPU twins: publish packs panels instead; the bias is in linear.rs.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(256) publish(act* __restrict__ to, const float* __restrict__ from,
                                                          u64 len) {
  const u64 i = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= len) return;
  const int left = len - i < 8 ? (int)(len - i) : 8;
  float v[8];
  load8(from + i, left, v);
  store8(to + i, left, v);
}

extern "C" __global__ void __launch_bounds__(128) add_bias(act* __restrict__ y, const float* __restrict__ bias,
                                                           int width) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= width) return;
  act* const at = y + (u64)blockIdx.y * width + i;
  float v[8], b[8];
  load8(at, width - i, v);
  load8(bias + i, width - i, b);
#pragma unroll
  for (int j = 0; j < 8; j++) v[j] += b[j];
  store8(at, width - i, v);
}
