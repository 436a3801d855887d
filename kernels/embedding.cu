// Rows gathered by index, and gradients scattered back.
//
//   gather_rows      out[i] = table[index[i]]                 out [rows, width], table [·, width]
//   scatter_rows     out[index[i]] = x[i]                     out zeroed by the caller
//   embed_chain      next[t] = the next position of tokens[t] (rows where there is none), first[t] = 1 where no earlier one
//   embed_backward   grad[tokens[t]] += dout[t], in the order of t      grad [vocab, width] f32
//
// The backward pass has no atomics: the first position of each token owns its row of
// grad and follows the chain, so sums are taken in the order of t, as on the CPU.
//
// Launch: gather_rows, scatter_rows <<<rows, 128>>>; embed_chain <<<⌈rows/4⌉, 128>>>, a warp for each
// position; embed_backward <<<(rows, ⌈width/256⌉), 32>>>.
// CPU twin: src/backend/cpu/embedding.rs, and scatter in cpu.rs. Index values are below the table's rows: checked by the caller.
#include "device.cuh"

extern "C" __global__ void gather_rows(act* __restrict__ out, const act* __restrict__ table,
                                       const u32* __restrict__ index, int width) {
  const u64 to = (u64)blockIdx.x * width, from = (u64)index[blockIdx.x] * width;
  for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
    float v[8];
    load8(table + from + i, width - i, v);
    store8(out + to + i, width - i, v);
  }
}

extern "C" __global__ void scatter_rows(act* __restrict__ out, const act* __restrict__ x, const u32* __restrict__ index,
                                        int width) {
  const u64 from = (u64)blockIdx.x * width, to = (u64)index[blockIdx.x] * width;
  for (int i = threadIdx.x * 8; i < width; i += blockDim.x * 8) {
    float v[8];
    load8(x + from + i, width - i, v);
    store8(out + to + i, width - i, v);
  }
}

extern "C" __global__ void embed_chain(u32* __restrict__ next, u32* __restrict__ first,
                                       const u32* __restrict__ tokens, int rows) {
  const int lane = threadIdx.x % WARP, t = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (t >= rows) return;
  const u32 token = tokens[t];
  u32 later = rows, earlier = 0;
  for (int base = t + 1; base < rows && later == (u32)rows; base += WARP) {
    const int i = base + lane;
    const u32 votes = __ballot_sync(ALL_LANES, i < rows && tokens[i] == token);
    if (votes) later = base + __ffs(votes) - 1;
  }
  for (int base = 0; base < t && !earlier; base += WARP) {
    const int i = base + lane;
    earlier = __ballot_sync(ALL_LANES, i < t && tokens[i] == token);
  }
  if (lane == 0) {
    next[t] = later;
    first[t] = earlier == 0;
  }
}

extern "C" __global__ void embed_backward(float* __restrict__ grad, const act* __restrict__ dout,
                                          const u32* __restrict__ tokens, const u32* __restrict__ next,
                                          const u32* __restrict__ first, int rows, int width) {
  const int i = (blockIdx.y * blockDim.x + threadIdx.x) * 8;
  if (!first[blockIdx.x] || i >= width) return;
  float* const at = grad + (u64)tokens[blockIdx.x] * width + i;
  float sum[8];
  load8(at, width - i, sum);
  for (int t = blockIdx.x; t < rows; t = next[t]) {
    float d[8];
    load8(dout + (u64)t * width + i, width - i, d);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += d[j];
  }
  store8(at, width - i, sum);
}
