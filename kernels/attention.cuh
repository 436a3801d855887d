// Tiles that attention's passes share. A tile in shared memory has rows of DIM bf16 in
// 16-byte chunks; chunk c of row r lies at c ^ (r & 7), so that the eight rows an
// ldmatrix reads fall on different banks.
#pragma once
#include "device.cuh"

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

// Chunk `chunk` of row `row`.
template <int DIM>
__device__ __forceinline__ bf16* chunk_at(bf16* tile, int row, int chunk) {
  return tile + row * DIM + ((chunk ^ (row & 7)) << 3);
}

// Starts copying rows [first, first + ROWS) of a matrix to a tile; rows from `end` on become zeroes.
template <int DIM, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* rows, u64 stride, int first, int end) {
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * (DIM / 8); i += THREADS) {
    const int row = i / (DIM / 8), chunk = i % (DIM / 8);
    const bool valid = first + row < end;
    cp_async16(chunk_at<DIM>(tile, row, chunk), rows + (valid ? first + row : 0) * stride + chunk * 8, valid);
  }
}

// A tile of packed sequences: its sequence's first row and length, its own first row in the sequence.
struct Tile {
  int start, len, first;
};
__device__ __forceinline__ Tile tile_of(const u32* tiles, int i) {
  const u32* const tile = tiles + i * 3;
  return {(int)tile[0], (int)(tile[1] - tile[0]), (int)tile[2]};
}

template <int N>
__device__ __forceinline__ void set_zero(float (&acc)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0.0f;
}

// B fragments of two 8-column tiles from a tile whose rows are B's columns (scores: keys against queries):
// rows n … n + 15, values k … k + 15.
template <int DIM>
__device__ __forceinline__ void load_b_rows(u32 (&b)[4], bf16* tile, int n, int k) {
  const int lane = threadIdx.x % WARP, matrix = lane / 8;
  ldmatrix_x4(b, chunk_at<DIM>(tile, n + (matrix >> 1) * 8 + lane % 8, k / 8 + (matrix & 1)), false);
}

// B fragments of two 8-column tiles from a tile whose rows are B's rows (sums over rows): rows k … k + 15, columns n … n + 15.
template <int DIM>
__device__ __forceinline__ void load_b_columns(u32 (&b)[4], bf16* tile, int k, int n) {
  const int lane = threadIdx.x % WARP, matrix = lane / 8;
  ldmatrix_x4(b, chunk_at<DIM>(tile, k + (matrix & 1) * 8 + lane % 8, n / 8 + (matrix >> 1)), true);
}

// A fragment of rows row … row + 15, values k … k + 15 of a tile.
template <int DIM>
__device__ __forceinline__ void load_a(u32 (&a)[4], bf16* tile, int row, int k) {
  const int lane = threadIdx.x % WARP, matrix = lane / 8;
  ldmatrix_x4(a, chunk_at<DIM>(tile, row + (matrix & 1) * 8 + lane % 8, k / 8 + (matrix >> 1)), false);
}

// A fragment straight from global memory; rows from `end` on are zeroes.
__device__ __forceinline__ void load_a_global(u32 (&a)[4], const bf16* rows, u64 stride, int row, int end, int k) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int r = 0; r < 4; r++) {
    const int at = row + lane / 4 + 8 * (r & 1);
    a[r] = at < end ? *reinterpret_cast<const u32*>(rows + at * stride + k + 8 * (r >> 1) + 2 * (lane % 4)) : 0;
  }
}

// Two accumulator tiles (16 × 8 each, side by side) as an A fragment.
__device__ __forceinline__ void as_a(u32 (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = bf16_pair(left[0], left[1]);
  a[1] = bf16_pair(left[2], left[3]);
  a[2] = bf16_pair(right[0], right[1]);
  a[3] = bf16_pair(right[2], right[3]);
}

// d += a b for two neighbouring 8-column tiles.
__device__ __forceinline__ void mma_two(float (&left)[4], float (&right)[4], const u32 (&a)[4], const u32 (&b)[4]) {
  const u32 first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
  mma_m16n8k16(left, a, first);
  mma_m16n8k16(right, a, second);
}

// Writes a 16 × DIM accumulator to rows row … of a matrix, times `scale`; rows from `end` on are left out.
template <int DIM>
__device__ __forceinline__ void store_rows(bf16* rows, u64 stride, int row, int end, const float (&acc)[DIM / 8][4],
                                           const float (&scale)[2]) {
  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int at = row + lane / 4 + 8 * half;
    if (at >= end) continue;
#pragma unroll
    for (int n = 0; n < DIM / 8; n++) {
      *reinterpret_cast<u32*>(rows + at * stride + n * 8 + 2 * (lane % 4)) =
          bf16_pair(acc[n][2 * half] * scale[half], acc[n][2 * half + 1] * scale[half]);
    }
  }
}

// Sum and maximum over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(ALL_LANES, x, 1);
  return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
