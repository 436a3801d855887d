// The paged KV cache.
//
// A layer is pages [pages, 2, kv, page, dim] of activations (0 keys, 1 values); table [slots, most] u32 names the
// page that holds tokens p · page … of a slot. Pages that hold a shared prompt stand in several slots' rows: the
// G completions of a group store it once (src/backend/cuda/kv_cache.rs counts who uses what).
//
//   kv_append   stores keys and values of each row of qkv at (slots[row], positions[row])   <<<rows, 128>>>
//   kv_copy     page `to` = the first `len` tokens of page `from`, in one layer               <<<2 kv, 128>>>
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

extern "C" __global__ void __launch_bounds__(128) kv_copy(act* __restrict__ layer, u32 from, u32 to, int len, int dim,
                                                          int page) {
  const u64 size = (u64)page * dim, head = blockIdx.x, heads = gridDim.x;
  for (int i = threadIdx.x; i < len * dim; i += blockDim.x) {
    layer[(to * heads + head) * size + i] = layer[(from * heads + head) * size + i];
  }
}
