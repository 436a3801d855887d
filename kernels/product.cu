// Matrix products of any shape, for those that cuBLASLt has no algorithm for: rows that begin at odd addresses (an odd
// vocabulary, heads of 6 dimensions), a batch of one beside them.
//
//   c [m, n] = op(a) op(b), or +=     a [m, k], or [k, m] where a_transposed is not 0; b [k, n], or [n, k]
//
//   join_parts   y [rows, width] = Σ_p sums [parts, rows, width] + bias, p upwards, rounded once; bias may be null. For
//                products that cuBLASLt made in parts of k, because a decoding step has few rows (linear.rs)
//
// Sums run over k upwards in f32, so a row's bits do not depend on its batch. product_f32 writes f32, product_act
// activations, rounded once.
//
// Launch: <<<(⌈n/32⌉, ⌈m/32⌉), 256>>>: a block takes 32 × 32 of c, a thread four rows of one column;
// join_parts <<<(⌈width/1024⌉, rows), 128>>>, which moves (4 · parts + 2) · width bytes a row.
// Plain arithmetic: a model whose speed matters has widths of multiples of 8 and never comes here.
// CPU twin: src/backend/cpu/gemm.rs.
#include "device.cuh"

#define SIDE 32
#define ROWS 4  // of a thread, eight apart

// Element [i, j] of a matrix as it is stored; zero outside.
__device__ __forceinline__ float element(const act* matrix, int i, int j, int rows, int cols) {
  return i < rows && j < cols ? to_float(matrix[(u64)i * cols + j]) : 0.0f;
}

template <class T>
__device__ __forceinline__ void multiply(const act* __restrict__ a, const act* __restrict__ b, T* __restrict__ c, int m,
                                         int n, int k, bool a_transposed, bool b_transposed, bool accumulate,
                                         float (*left)[SIDE + 1], float (*right)[SIDE + 1]) {
  const int first_row = blockIdx.y * SIDE, first_col = blockIdx.x * SIDE;
  const int col = threadIdx.x % SIDE, row = threadIdx.x / SIDE;
  float sum[ROWS] = {};
  for (int base = 0; base < k; base += SIDE) {
    // left [k, row], right [k, column]; neighbouring threads read neighbours of a stored row.
    for (int i = threadIdx.x; i < SIDE * SIDE; i += blockDim.x) {
      const int x = i % SIDE, y = i / SIDE;
      if (a_transposed) {
        left[y][x] = element(a, base + y, first_row + x, k, m);
      } else {
        left[x][y] = element(a, first_row + y, base + x, m, k);
      }
      if (b_transposed) {
        right[x][y] = element(b, first_col + y, base + x, n, k);
      } else {
        right[y][x] = element(b, base + y, first_col + x, k, n);
      }
    }
    __syncthreads();
    for (int i = 0; i < SIDE; i++) {
#pragma unroll
      for (int r = 0; r < ROWS; r++) sum[r] = fmaf(left[i][row + 8 * r], right[i][col], sum[r]);
    }
    __syncthreads();  // the next tile overwrites this one
  }
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    const int i = first_row + row + 8 * r, j = first_col + col;
    if (i >= m || j >= n) continue;
    T* const at = c + (u64)i * n + j;
    put(at, accumulate ? to_float(*at) + sum[r] : sum[r]);
  }
}

extern "C" __global__ void __launch_bounds__(256)
    product_f32(const act* __restrict__ a, const act* __restrict__ b, float* __restrict__ c, int m, int n, int k,
                int a_transposed, int b_transposed, int accumulate) {
  __shared__ float left[SIDE][SIDE + 1], right[SIDE][SIDE + 1];
  multiply(a, b, c, m, n, k, a_transposed != 0, b_transposed != 0, accumulate != 0, left, right);
}

extern "C" __global__ void __launch_bounds__(256)
    product_act(const act* __restrict__ a, const act* __restrict__ b, act* __restrict__ c, int m, int n, int k,
                int a_transposed, int b_transposed, int accumulate) {
  __shared__ float left[SIDE][SIDE + 1], right[SIDE][SIDE + 1];
  multiply(a, b, c, m, n, k, a_transposed != 0, b_transposed != 0, accumulate != 0, left, right);
}

extern "C" __global__ void __launch_bounds__(128) join_parts(act* __restrict__ y, const float* __restrict__ sums,
                                                             const float* __restrict__ bias, int parts, int width) {
  const int i = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (i >= width) return;
  const u64 at = (u64)blockIdx.y * width + i, part = (u64)gridDim.y * width;
  float sum[8], v[8];
  load8(sums + at, width - i, sum);
#pragma unroll 3
  for (int p = 1; p < parts; p++) {
    load8(sums + p * part + at, width - i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
  if (bias) {
    load8(bias + i, width - i, v);
#pragma unroll
    for (int j = 0; j < 8; j++) sum[j] += v[j];
  }
  store8(y + at, width - i, sum);
}
