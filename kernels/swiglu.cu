// SwiGLU (Shazeer 2020): out = silu(g) · u with silu(g) = g σ(g); a row holds g, then u.
//
//   backward: du = dout g σ,  dg = dout u σ (1 + g (1 − σ))
//
// gate_up, dgate_up [rows, 2 width]; out, dout [rows, width].
// Launch: <<<(⌈width/1024⌉, rows), 128>>>, eight values a thread. CPU twin: src/backend/cpu/swiglu.rs.
#include "device.cuh"

__device__ __forceinline__ float sigmoid(float g) { return 1.0f / (1.0f + expf(-g)); }

// gate, out point to the first of a thread's eight values. Whole: see is_whole, of the row.
template <bool Whole>
__device__ __forceinline__ void forward(const act* __restrict__ gate, int width, int left, act* __restrict__ out) {
  float g[8], u[8];
  load8<Whole>(gate, left, g);
  load8<Whole>(gate + width, left, u);
#pragma unroll
  for (int j = 0; j < 8; j++) u[j] *= g[j] * sigmoid(g[j]);
  store8<Whole>(out, left, u);
}

template <bool Whole>
__device__ __forceinline__ void backward(const act* __restrict__ dout, const act* __restrict__ gate, int width,
                                         int left, act* __restrict__ dgate) {
  float g[8], u[8], d[8];
  load8<Whole>(gate, left, g);
  load8<Whole>(gate + width, left, u);
  load8<Whole>(dout, left, d);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const float sigma = sigmoid(g[j]);
    const float dg = d[j] * u[j] * (sigma * fmaf(g[j], 1.0f - sigma, 1.0f));
    u[j] = d[j] * (g[j] * sigma);
    g[j] = dg;
  }
  store8<Whole>(dgate, left, g);
  store8<Whole>(dgate + width, left, u);
}

extern "C" __global__ void __launch_bounds__(128) swiglu(const act* __restrict__ gate_up, int width,
                                                         act* __restrict__ out) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= width) return;
  const u64 row = blockIdx.y;
  const act* const gate = gate_up + row * 2 * width + i;
  act* const to = out + row * width + i;
  if (is_whole(width, gate, to)) {
    forward<true>(gate, width, width - i, to);
  } else {
    forward<false>(gate, width, width - i, to);
  }
}

extern "C" __global__ void __launch_bounds__(128) swiglu_backward(const act* __restrict__ dout,
                                                                  const act* __restrict__ gate_up, int width,
                                                                  act* __restrict__ dgate_up) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= width) return;
  const u64 row = blockIdx.y, at = row * 2 * width + i;
  const act* const from = dout + row * width + i;
  if (is_whole(width, gate_up + at, from, dgate_up + at)) {
    backward<true>(from, gate_up + at, width, width - i, dgate_up + at);
  } else {
    backward<false>(from, gate_up + at, width, width - i, dgate_up + at);
  }
}
