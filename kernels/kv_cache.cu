// The paged KV cache.
//
// A layer is pages [pages, 2, kv, page, dim] of activations (0 keys, 1 values), layers one after the other; table
// [slots, most] u32 names the page that holds tokens p · page … of a slot. Pages that hold a shared prompt stand in several
// slots' rows: the G completions of a group store it once (src/model/kv_pages.rs counts who uses what).
//
//   put_rows    what the host hands over for a step, in one copy: packed [3, rows] u32 goes to tokens, positions and
//               slots, and of the changes [·, 2] behind it each sets table[first] = second
//   kv_append   stores keys and values of each row of qkv at (slots[row], positions[row])
//   kv_copy     for each of copies [·, 3] u32 (from, to, len), in every layer: page `to` = the first `len` tokens of page
//               `from`, rounded up to 16 bytes; no copy names a page that another of them writes
//
// Bytes that have to move: kv_append 4 · 2 kv · dim a row; kv_copy 4 · 2 kv · len · dim a copy and layer.
// Launch: put_rows <<<⌈max(rows, changes)/256⌉, 256>>>; kv_append <<<rows, 128>>>; kv_copy <<<(2 kv, copies, layers), 128>>>.
// CPU twin: src/backend/cpu/kv_cache.rs.
#include "device.cuh"

extern "C" __global__ void __launch_bounds__(128)
    kv_append(act* __restrict__ layer, const u32* __restrict__ table, const act* __restrict__ qkv,
              const u32* __restrict__ slots, const u32* __restrict__ positions, int query, int kv, int dim, int page,
              int most) {
  const u32 position = positions[blockIdx.x];
  const u64 base = table[(u64)slots[blockIdx.x] * most + position / page];
  const act* const row = qkv + ((u64)blockIdx.x * (query + 2 * kv) + query) * dim;
  for (int i = threadIdx.x; i < 2 * kv * dim; i += blockDim.x) {
    const u64 head = base * 2 * kv + i / dim;  // keys' heads, then values'
    layer[(head * page + position % page) * dim + i % dim] = row[i];
  }
}

extern "C" __global__ void __launch_bounds__(128) kv_copy(act* cache, const u32* __restrict__ copies, u64 layer, int dim,
                                                          int page) {
  const u32* const copy = copies + 3 * blockIdx.y;
  const u64 size = (u64)page * dim, head = blockIdx.x, heads = gridDim.x;
  act* const pages = cache + blockIdx.z * layer;
  // A head's part of a page has sixteen tokens: it begins and ends at 16 bytes, whatever the dimensions.
  const uint4* const from = reinterpret_cast<const uint4*>(pages + (copy[0] * heads + head) * size);
  uint4* const to = reinterpret_cast<uint4*>(pages + (copy[1] * heads + head) * size);
  const int count = ((int)copy[2] * dim * (int)sizeof(act) + 15) / 16;
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

extern "C" __global__ void __launch_bounds__(256)
    put_rows(const u32* __restrict__ packed, int rows, int changes, u32* __restrict__ tokens,
             u32* __restrict__ positions, u32* __restrict__ slots, u32* __restrict__ table) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rows) {
    tokens[i] = packed[i];
    positions[i] = packed[rows + i];
    slots[i] = packed[2 * rows + i];
  }
  const u32* const change = packed + 3 * rows + 2 * i;
  if (i < changes) table[change[0]] = change[1];
}
