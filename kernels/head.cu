// The head: log-probabilities, entropies and the logits' gradient from tiles of the vocabulary projection.
//
// cuBLASLt projects a tile of `count` tokens from `first` on into logits [rows, count] f32; these kernels fold it
// into a running softmax, or turn it into the gradient. Logits are never held whole. With
// p = e^(z − lse), H = lse − Σ p z and g = ∂L/∂logprob, h = ∂L/∂entropy of each row:
//   dz[j] = g (1[j = target] − p[j]) − h p[j] (log p[j] + H)
// One classifier kernel so serves SFT, GRPO and DPO: they differ in g and h.
//
//   head_join    state[row] = (max, Σ e^(z − max), Σ e^(z − max) z, z[target]) over the tiles so far
//   head_finish  logprob, entropy, lse [rows] f32 of the states
//   head_seed    dz [rows, count] (activations: the GEMMs after it are bf16) of logits
//
// Bytes that have to move: head_join 4 · rows · count, head_seed 6 · rows · count.
// state [rows, 4] f32; it needs no initial value: the tile with first = 0 starts it. targets [rows].
// Launch: head_join, head_seed <<<⌈rows/4⌉, 128>>>, a warp for each row; head_finish <<<⌈rows/128⌉, 128>>>.
// CPU twin: src/backend/cpu/head.rs (tiles of 2,048 there).
#include "device.cuh"

// Whole: see is_whole, of the row of logits.
template <bool Whole>
__device__ __forceinline__ void join_row(const float* __restrict__ z, int count, int lane, float& own, float& sum,
                                         float& weighted) {
#pragma unroll 2
  for (int i = lane * 8; i < count; i += WARP * 8) {
    float v[8], e[8], largest = own;
    load8<Whole>(z + i, count - i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) largest = Whole || i + j < count ? fmaxf(largest, v[j]) : largest;
    if (largest > own) {
      const float fade = expf(own - largest);
      sum *= fade;
      weighted *= fade;
      own = largest;
    }
    const float from = own == NEG_INF ? 0.0f : own;
    // All before any is added: the sums are in the values' order, the exponentials wait for nothing.
#pragma unroll
    for (int j = 0; j < 8; j++) e[j] = Whole || i + j < count ? expf(v[j] - from) : 0.0f;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      sum += e[j];
      weighted = fmaf(e[j], v[j], weighted);
    }
  }
}

extern "C" __global__ void __launch_bounds__(128) head_join(float* __restrict__ state, const float* __restrict__ logits,
                                                            const u32* __restrict__ targets, int rows, int first,
                                                            int count) {
  const int lane = threadIdx.x % WARP, row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const float* const z = logits + (u64)row * count;
  float* const now = state + (u64)row * 4;
  // Each lane against the largest that it has met so far, so that logits are read once.
  float own = NEG_INF, sum = 0.0f, weighted = 0.0f;
  if (is_whole(count, z)) {
    join_row<true>(z, count, lane, own, sum, weighted);
  } else {
    join_row<false>(z, count, lane, own, sum, weighted);
  }
  const float before = first == 0 ? NEG_INF : now[0], high = fmaxf(warp_max(own), before);
  const float fall = own == NEG_INF ? 0.0f : expf(own - high);
  sum = warp_sum(sum * fall);
  weighted = warp_sum(weighted * fall);
  __syncwarp();
  if (lane == 0) {
    const float fade = first == 0 ? 0.0f : expf(before - high);
    const u32 j = targets[row] - first;  // wraps where the target is in an earlier tile
    now[1] = first == 0 ? sum : fmaf(now[1], fade, sum);
    now[2] = first == 0 ? weighted : fmaf(now[2], fade, weighted);
    now[0] = high;
    if (j < (u32)count) now[3] = z[j];
  }
}

extern "C" __global__ void head_finish(const float* __restrict__ state, int rows, float* __restrict__ logprob,
                                       float* __restrict__ entropy, float* __restrict__ lse) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const float* const s = state + (u64)row * 4;
  const float l = s[0] + logf(s[1]);
  lse[row] = l;
  entropy[row] = fmaxf(l - s[2] / s[1], 0.0f);
  logprob[row] = s[3] - l;
}

// grad_entropy may be null: no gradient by entropy.
extern "C" __global__ void __launch_bounds__(128)
    head_seed(act* __restrict__ dz, const float* __restrict__ logits, const u32* __restrict__ targets,
              const float* __restrict__ entropy, const float* __restrict__ lse, const float* __restrict__ grad_logprob,
              const float* __restrict__ grad_entropy, int rows, int first, int count) {
  const int lane = threadIdx.x % WARP, row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  const u64 at = (u64)row * count;
  const float l = lse[row], big_h = entropy[row], g = grad_logprob[row];
  const float h = grad_entropy ? grad_entropy[row] : 0.0f;
  const u32 target = targets[row] - first;
  for (int i = lane * 8; i < count; i += WARP * 8) {
    float v[8];
    load8(logits + at + i, count - i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const float log_p = v[j] - l;
      v[j] = expf(log_p) * fmaf(-h, log_p + big_h, -g);
      if (target == (u32)(i + j)) v[j] += g;
    }
    store8(dz + at + i, count - i, v);
  }
}
