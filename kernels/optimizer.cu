// AdamW (Loshchilov & Hutter 2019, alg. 2) on f32 masters, and the elementwise parts of Muon (Jordan 2024).
//
//   adamw:  g ← grad_scale · g;  m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²
//           w ← w (1 − lr λ) − step · m / (√v · root + ε)      step = lr/(1 − β₁ᵗ), root = 1/√(1 − β₂ᵗ)
//   muon_momentum:  g ← grad_scale · g;  m ← μ m + (1 − μ) g;  u = m, or (1 − μ) g + μ m with Nesterov
//   muon_scale:     x ← x / (√(Σ x²) + 1e−7)                   the sum from reduce.cu
//   muon_polynomial p ← b g + c p                              p = g g before, g = x xᵀ
//   muon_update:    w ← w · decay + step · u
//
// The matrix products of the Newton–Schulz iteration are cuBLASLt's.
// Launch: <<<⌈len/1024⌉, 256>>>, four values a thread as scalars of neighbouring threads.
// CPU twin: src/backend/cpu/optimizer.rs, the same operations in the same order.
#include "device.cuh"

#define EACH(i) \
  for (u64 i = (u64)blockIdx.x * 1024 + threadIdx.x, end = len < ((u64)blockIdx.x + 1) * 1024 ? len : ((u64)blockIdx.x + 1) * 1024; i < end; i += 256)

extern "C" __global__ void __launch_bounds__(256)
    adamw(float* __restrict__ value, const float* __restrict__ grad, float* __restrict__ first,
          float* __restrict__ second, u64 len, float beta1, float beta2, float decay, float grad_scale, float step,
          float root, float eps) {
  EACH(i) {
    const float g = grad[i] * grad_scale;
    const float m = fmaf(beta1, first[i], (1.0f - beta1) * g);
    const float v = fmaf(beta2, second[i], (1.0f - beta2) * (g * g));
    first[i] = m;
    second[i] = v;
    value[i] = fmaf(-step, m / fmaf(sqrtf(v), root, eps), value[i] * decay);
  }
}

extern "C" __global__ void __launch_bounds__(256)
    muon_momentum(float* __restrict__ update, float* __restrict__ momentum, const float* __restrict__ grad, u64 len,
                  float mu, float grad_scale, int nesterov) {
  EACH(i) {
    const float g = grad[i] * grad_scale;
    const float m = fmaf(mu, momentum[i], (1.0f - mu) * g);
    momentum[i] = m;
    update[i] = nesterov ? fmaf(mu, m, (1.0f - mu) * g) : m;
  }
}

extern "C" __global__ void __launch_bounds__(256) muon_scale(float* __restrict__ x, const double* __restrict__ squares,
                                                             u64 len) {
  const float norm = (float)sqrt(*squares) + 1e-7f;
  EACH(i) x[i] /= norm;
}

extern "C" __global__ void __launch_bounds__(256) muon_polynomial(float* __restrict__ poly,
                                                                  const float* __restrict__ gram, u64 len, float b,
                                                                  float c) {
  EACH(i) poly[i] = fmaf(c, poly[i], b * gram[i]);
}

extern "C" __global__ void __launch_bounds__(256) muon_update(float* __restrict__ value,
                                                              const float* __restrict__ update, u64 len, float decay,
                                                              float step) {
  EACH(i) value[i] = fmaf(step, update[i], value[i] * decay);
}
