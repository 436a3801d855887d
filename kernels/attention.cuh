// Tiles that attention's passes share. A tile in shared memory has rows of DIM bf16 in
// 16-byte chunks; chunk c of row r lies at c ^ (r & 7), so that the eight rows an
// ldmatrix reads fall on different banks.
#pragma once
#include "device.cuh"

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f

// Rows of a block: queries, or keys in the pass over keys. Of a plain twin's block.
#define TILE 128
#define PLAIN_TILE 64

// Starts copying rows [first, first + ROWS) of a matrix to a tile; rows from `end` on become zeroes. The rows that
// one thread copies are multiples of 8 apart, so its place in the swizzle is the same in all of them.
template <int DIM, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(Shared tile, const bf16* rows, u64 stride, int first, int end) {
  constexpr int APART = THREADS / (DIM / 8);
  static_assert(APART % 8 == 0 && ROWS % APART == 0, "whole rounds, and one place in the swizzle");
  const u32 thread = thread_here();
  const int row = thread / (DIM / 8), chunk = thread % (DIM / 8), left = end - first - row;
  const Shared to = tile + 2 * (row * DIM + ((chunk ^ (row & 7)) << 3));
  const bf16* from = rows + (first + row) * stride + chunk * 8;
#pragma unroll
  for (int r = 0; r < ROWS; r += APART, from += APART * stride) cp_async16(to + 2 * r * DIM, from, r < left);
}

// A tile of packed sequences: its sequence's first row and length, its own first row in the sequence.
struct Tile {
  int start, len, first;
};
__device__ __forceinline__ Tile tile_of(const u32* tiles, int i) {
  const u32* const tile = tiles + i * 3;
  return {of_warp(tile[0]), of_warp(tile[1] - tile[0]), of_warp(tile[2])};
}

template <int N>
__device__ __forceinline__ void set_zero(float (&acc)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0.0f;
}

// Where a lane's row of an ldmatrix lies in a tile, in bytes: for A fragments, and B fragments whose rows are the tile's;
// and for B fragments whose columns are the tile's rows. A tile's address is a multiple of its rows' 2 · DIM bytes and
// a row's chunks are permuted by an exclusive or, so column k is at ^ 2 k, and r rows further (a multiple of 8) at
// + 2 r DIM: an address costs one instruction or none.
template <int DIM>
__device__ __forceinline__ int lane_rows() {
  const int lane = threadIdx.x % WARP, matrix = lane / 8;
  return 2 * (((matrix & 1) * 8 + lane % 8) * DIM + (((matrix >> 1) ^ (lane & 7)) << 3));
}
template <int DIM>
__device__ __forceinline__ int lane_columns() {
  const int lane = threadIdx.x % WARP, matrix = lane / 8;
  return 2 * (((matrix >> 1) * 8 + lane % 8) * DIM + (((matrix & 1) ^ (lane & 7)) << 3));
}

// B fragments of two 8-column tiles from a tile whose rows are B's columns (scores: keys against queries):
// rows n … n + 15, values k … k + 15. `at` is the tile's address and lane_columns.
template <int DIM>
__device__ __forceinline__ void load_b_rows(u32 (&b)[4], Shared at, int n, int k) {
  ldmatrix_x4(b, (at ^ 2 * k) + 2 * n * DIM, false);
}

// B fragments of two 8-column tiles from a tile whose rows are B's rows (sums over rows): rows k … k + 15,
// columns n … n + 15. `at` is the tile's address and lane_rows.
template <int DIM>
__device__ __forceinline__ void load_b_columns(u32 (&b)[4], Shared at, int k, int n) {
  ldmatrix_x4(b, (at ^ 2 * n) + 2 * k * DIM, true);
}

// A fragment of rows row … row + 15, values k … k + 15 of a tile. `at` is the tile's address and lane_rows.
template <int DIM>
__device__ __forceinline__ void load_a(u32 (&a)[4], Shared at, int row, int k) {
  ldmatrix_x4(a, (at ^ 2 * k) + 2 * row * DIM, false);
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

// Scores of queries row … row + 15 against keys from `key` on: −∞ where the key comes after the query.
template <int KEYS>
__device__ __forceinline__ void hide_later(float (&s)[KEYS / 8][4], int key, int row) {
  const int lane = threadIdx.x % WARP, ahead = row - key + lane / 4 - 2 * (lane % 4);
#pragma unroll
  for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (n * 8 + (i & 1) > ahead + 8 * (i >> 1)) s[n][i] = NEG_INF;
    }
  }
}

// Scores of keys key … key + 15 against queries from `query` on: −∞ where the query comes before the key.
template <int QUERIES>
__device__ __forceinline__ void hide_earlier(float (&s)[QUERIES / 8][4], int key, int query) {
  const int lane = threadIdx.x % WARP, behind = key - query + lane / 4 - 2 * (lane % 4);
#pragma unroll
  for (int n = 0; n < QUERIES / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (n * 8 + (i & 1) < behind + 8 * (i >> 1)) s[n][i] = NEG_INF;
    }
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
