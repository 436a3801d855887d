// Draws one token of each row of logits: temperature, then min-p, top-k and top-p, each on what the one before
// left; then one number of Philox4x32-10 (Salmon et al. 2011) walks the cumulative distribution.
//
// logits [rows, vocab] f32; draws [rows, 8] u32: bits of temperature, top_k, bits of top_p, bits of min_p, seed (low,
// high), index (low, high); drawn [rows, 2] u32: token, bits of its log-probability at temperature 1, nothing cut off.
// vocab ≤ 2^18, odd ones and rows at any address too.
//
//   sample_segments   of each 512 logits: the largest and its id, Σ e^(z − largest), and the same at the temperature
//   sample            joins a row's segments, and draws
//
// segments [rows, ⌈vocab/512⌉, 4] u32: bits of the largest, its id, bits of both sums.
//
// The first holds its logits in registers: it finds the largest and sums without reading twice. Without filters the
// second then reads one segment again, the one in which the walk, in the order of ids as on the CPU, ends.
//
// With filters candidates are ordered by logit, equal ones by id. One pass over the row puts counts and masses into bins
// of 1/64 in (largest − z)/temperature; top-k, top-p and the draw each ask for the candidate at which a running
// count or mass reaches a goal: first for its bin, then one pass gathers that bin, which is sorted. A bin that is too
// full (flat logits) is searched by the bits of the ordered logit, eleven at a time. Passes leave out segments whose
// largest lies beyond the bin. Masses are 44-bit fixed point, so their sums do not depend on the order; the CPU's are f64, and a
// draw differs only where the random number falls within 2^-24 or so of a boundary.
//
// Bytes that have to move: 4 · vocab a row without filters; the passes with them read 4 · vocab each at most: one for the
// bins, one for each filter, one for the draw.
// Launch: sample_segments <<<(⌈vocab/4096⌉, rows), 256>>>, a warp for each segment, no barrier; sample <<<rows, 512>>>.
// CPU twin: src/backend/cpu/sample.rs, src/backend/philox.rs.
// Not yet tried: additions to the bins joined within a warp.
#include "device.cuh"

#define SEGMENT 512
#define LOADS (SEGMENT / (4 * WARP))  // of four logits, by each lane
#define THREADS 512
#define WARPS (THREADS / WARP)
#define BINS (4 * THREADS)
#define BINS_TO_ONE 64.0f  // of (largest − z)/temperature; masses end at 44 log 2 = 30.5
#define ROOM (4 * THREADS)  // candidates of a bin that are sorted
#define MASS_OF_ONE 17592186044416.0f  // 2^44
#define NO_BIN 0xffffffffu

// The random number in [0, 1) of token `index` of a completion.
__device__ __forceinline__ float uniform(u32 seed_low, u32 seed_high, u32 index_low, u32 index_high) {
  u32 c[4] = {index_low, index_high, 0, 0}, key[2] = {seed_low, seed_high};
  for (int round = 0; round < 10; round++) {
    const u32 high0 = __umulhi(0xd2511f53u, c[0]), low0 = 0xd2511f53u * c[0];
    const u32 high1 = __umulhi(0xcd9e8d57u, c[2]), low1 = 0xcd9e8d57u * c[2];
    c[0] = high1 ^ c[1] ^ key[0];
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ key[1];
    c[3] = low0;
    key[0] += 0x9e3779b9u;
    key[1] += 0xbb67ae85u;
  }
  return (float)(c[0] >> 8) * (1.0f / (1 << 24));
}

// Unsigned integers in the order of the floats (IEEE total order); NaN is below everything.
__device__ __forceinline__ u32 ordered(float z) {
  const u32 bits = __float_as_uint(z);
  return z != z ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(u32 key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// A candidate as one number: greater is likelier, among equal logits the lower id.
__device__ __forceinline__ u64 candidate(float z, u32 id) { return (u64)ordered(z) << 32 | ~id; }

__device__ __forceinline__ u64 warp_max_u64(u64 x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits >>= 1) x = max(x, __shfl_xor_sync(ALL_LANES, x, bits));
  return x;
}
__device__ __forceinline__ u64 warp_sum_u64(u64 x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(ALL_LANES, x, bits);
  return x;
}

// 1/temperature as the CPU takes it.
__device__ __forceinline__ float inverse_of(float temperature) { return fminf(1.0f / temperature, 3.402823466e38f); }

// Four logits of which `left` exist; −∞ for the others.
__device__ __forceinline__ float4 load_four(const float* p, int left) {
  if (left >= 4 && aligned16(p)) return *reinterpret_cast<const float4*>(p);
  float4 v;
  v.x = left > 0 ? p[0] : NEG_INF;
  v.y = left > 1 ? p[1] : NEG_INF;
  v.z = left > 2 ? p[2] : NEG_INF;
  v.w = left > 3 ? p[3] : NEG_INF;
  return v;
}

// What a lane has of a segment: ids first + 128 j + 4 lane + (0 … 3). All loads are issued before the first is used.
__device__ __forceinline__ void load_segment(const float* logits, int vocab, int segment, float4 (&v)[LOADS]) {
  const int first = segment * SEGMENT + threadIdx.x % WARP * 4;
#pragma unroll
  for (int j = 0; j < LOADS; j++) v[j] = load_four(logits + first + j * 4 * WARP, vocab - first - j * 4 * WARP);
}

extern "C" __global__ void __launch_bounds__(256) sample_segments(const float* __restrict__ all,
                                                                  const u32* __restrict__ draws, int vocab,
                                                                  u32* __restrict__ segments) {
  const int lane = threadIdx.x % WARP, segment = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  const int count = (vocab + SEGMENT - 1) / SEGMENT;
  if (segment >= count) return;
  const float temperature = __uint_as_float(draws[blockIdx.y * 8]);
  float4 v[LOADS];
  load_segment(all + (u64)blockIdx.y * vocab, vocab, segment, v);
  const u32 first = segment * SEGMENT + lane * 4;
  float largest = NEG_INF;
  u32 id = first;
#pragma unroll
  for (int j = 0; j < LOADS; j++) {
    const float z[4] = {v[j].x, v[j].y, v[j].z, v[j].w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (z[k] > largest) {
        largest = z[k];
        id = first + j * 4 * WARP + k;
      }
    }
  }
  const u64 best = warp_max_u64(first < (u32)vocab ? candidate(largest, id) : 0);
  largest = logit_of(best >> 32);
  const float from = largest == NEG_INF ? 0.0f : largest, inverse = inverse_of(temperature);
  float sum = 0.0f, tempered = 0.0f;
#pragma unroll
  for (int j = 0; j < LOADS; j++) {
    const float z[4] = {v[j].x, v[j].y, v[j].z, v[j].w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const float weight = expf(z[k] - from);
      sum += weight;
      if (temperature > 0.0f) {
        const float w = inverse == 1.0f ? weight : expf((z[k] - from) * inverse);
        tempered += w >= 0.0f ? w : 0.0f;  // not for NaN
      }
    }
  }
  sum = warp_sum(sum);
  tempered = warp_sum(tempered);
  if (lane == 0) {
    uint4 part;
    part.x = __float_as_uint(largest), part.y = ~(u32)best;
    part.z = __float_as_uint(sum), part.w = __float_as_uint(tempered);
    reinterpret_cast<uint4*>(segments)[(u64)blockIdx.y * count + segment] = part;
  }
}

struct Scratch {
  u64 mass[BINS];
  u64 list[ROOM];  // the candidates of one bin, likeliest first; or sums of another kind
  u64 warps[WARPS];
  u64 goal;
  u32 count[BINS];
  u32 at, held, listed;  // listed: the bin in `list`
};

// Adds to a sum in shared memory, in halves: whole, the addition would be a loop of compare-and-swap.
__device__ __forceinline__ void add_shared(u64* sum, u64 x) {
  u32* const half = reinterpret_cast<u32*>(sum);
  const u32 low = (u32)x, carry = atomicAdd(half, low) > ~low, high = (u32)(x >> 32) + carry;
  if (high) atomicAdd(half + 1, high);
}

// Sum over the block; everyone gets it.
__device__ u64 block_sum(Scratch& s, u64 x) {
  x = warp_sum_u64(x);
  __syncthreads();
  if (threadIdx.x % WARP == 0) s.warps[threadIdx.x / WARP] = x;
  __syncthreads();
  u64 sum = 0;
  for (int w = 0; w < WARPS; w++) sum += s.warps[w];
  return sum;
}

// The first i < count ≤ 4 · THREADS, upwards, at which the running sum of value(i) reaches goal ≥ 1, which becomes what
// is left of it before i; `count`, and goal as it is, where it never does.
template <class Value>
__device__ int reach(Scratch& s, int count, Value value, u64& goal) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first = threadIdx.x * 4;
  u64 own[4], sum = 0;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    own[k] = first + k < count ? value(first + k) : 0;
    sum += own[k];
  }
  u64 until = sum;
#pragma unroll
  for (int by = 1; by < WARP; by <<= 1) {
    const u64 before = __shfl_up_sync(ALL_LANES, until, by);
    if (lane >= by) until += before;
  }
  __syncthreads();
  if (lane == WARP - 1) s.warps[warp] = until;
  if (threadIdx.x == 0) s.at = count, s.goal = goal;
  __syncthreads();
  for (int w = 0; w < warp; w++) until += s.warps[w];
  u64 before = until - sum;
  if (before < goal && goal <= until) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (before < goal && goal <= before + own[k]) s.at = first + k, s.goal = goal - before;
      before += own[k];
    }
  }
  __syncthreads();
  goal = s.goal;
  return s.at;
}

__device__ __forceinline__ u64 fixed(float weight) {
  return weight >= 0.0f ? (u64)(weight * MASS_OF_ONE) : 0;  // not for NaN
}

// A row, and how its logits weigh.
struct Row {
  const float* logits;
  const uint4* segments;
  int vocab, count;  // count: of segments
  u32 best;
  float high, inverse, min_p;

  // (largest − z)/temperature, ≥ 0.
  __device__ float distance(float z) const { return (high - z) * inverse; }
  // Bins follow the order of the logits: equal ones share theirs.
  __device__ u32 bin(float z) const {
    const float d = distance(z) * BINS_TO_ONE;
    return d < (float)BINS ? (u32)d : NO_BIN;
  }
  // What min-p leaves of it.
  __device__ u64 mass(float z, u32 id) const {
    const float weight = expf(-distance(z));
    return weight >= min_p || id == best ? fixed(weight) : 0;
  }
  __device__ u64 mass_of(u64 candidate) const { return mass(logit_of(candidate >> 32), ~(u32)candidate); }
  __device__ float largest(int segment) const { return __uint_as_float(segments[segment].x); }

  // does(id, z, segment) for all logits of the segments that reach up to a bin, a warp for each.
  template <class Does>
  __device__ void each(u32 bin_, Does does) const {
    for (int segment = threadIdx.x / WARP; segment < count; segment += WARPS) {
      const u32 nearest = bin(largest(segment));
      if (nearest == NO_BIN || nearest > bin_) continue;
      float4 v[LOADS];
      load_segment(logits, vocab, segment, v);
#pragma unroll
      for (int j = 0; j < LOADS; j++) {
        const u32 id = segment * SEGMENT + j * 4 * WARP + threadIdx.x % WARP * 4;
        does(id, v[j].x, segment);
        does(id + 1, v[j].y, segment);
        does(id + 2, v[j].z, segment);
        does(id + 3, v[j].w, segment);
      }
    }
  }
};

// Counts and masses of all bins.
__device__ void fill_bins(Scratch& s, const Row& row) {
  for (int bin = threadIdx.x; bin < BINS; bin += THREADS) s.mass[bin] = 0, s.count[bin] = 0;
  if (threadIdx.x == 0) s.listed = NO_BIN;
  __syncthreads();
  row.each(BINS - 1, [&](u32 id, float z, int) {
    const u64 mass = row.mass(z, id);
    if (mass) {
      const u32 bin = row.bin(z);
      add_shared(&s.mass[bin], mass);
      atomicAdd(&s.count[bin], 1u);
    }
  });
  __syncthreads();
}

// Puts the candidates of a bin into `list`, likeliest first; there are no more than ROOM.
__device__ void list_bin(Scratch& s, const Row& row, u32 bin) {
  __syncthreads();
  if (s.listed == bin) return;
  int size = 1;
  while (size < (int)s.count[bin]) size <<= 1;
  for (int i = threadIdx.x; i < size; i += THREADS) s.list[i] = 0;
  if (threadIdx.x == 0) s.held = 0;
  __syncthreads();
  row.each(bin, [&](u32 id, float z, int) {
    if (row.bin(z) == bin && row.mass(z, id)) s.list[atomicAdd(&s.held, 1u)] = candidate(z, id);
  });
  // A bitonic sort (Batcher 1968): no two candidates are equal, so the order they came in is lost.
  for (int run = 2; run <= size; run <<= 1) {
    for (int apart = run >> 1; apart > 0; apart >>= 1) {
      __syncthreads();
      for (int i = threadIdx.x; i < size; i += THREADS) {
        const int other = i ^ apart;
        const u64 a = s.list[i], b = other > i ? s.list[other] : a;
        if (other > i && (a < b) == ((i & run) == 0)) s.list[i] = b, s.list[other] = a;
      }
    }
  }
  if (threadIdx.x == 0) s.listed = bin;
  __syncthreads();
}

// The candidate of a bin too full to be listed, by the bits of its logit and then by segments.
__device__ u64 search_bin(Scratch& s, const Row& row, u32 bin, bool counts, u64 goal) {
  const auto measure = [&](u32 id, float z) {
    const u64 mass = row.bin(z) == bin ? row.mass(z, id) : 0;
    return counts ? (u64)(mass > 0) : mass;
  };
  const auto clear = [&]() {
    __syncthreads();
    for (int i = threadIdx.x; i < ROOM; i += THREADS) s.list[i] = 0;
    if (threadIdx.x == 0) s.listed = NO_BIN;
    __syncthreads();
  };
  u32 prefix = 0;  // of the complement: upwards is likeliest first
  for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift == 10 ? 0 : -1) {
    const u32 digits = shift == 0 ? 0x3ffu : 0x7ffu;
    clear();
    row.each(bin, [&](u32 id, float z, int) {
      const u32 rank = ~ordered(z);
      if (shift == 21 || rank >> (shift == 10 ? 21 : 10) == prefix) {
        const u64 m = measure(id, z);
        if (m) add_shared(&s.list[rank >> shift & digits], m);
      }
    });
    __syncthreads();
    const u32 digit = reach(s, ROOM, [&](int i) { return s.list[i]; }, goal);
    prefix = (shift == 21 ? 0 : prefix << (shift == 10 ? 11 : 10)) | digit;
  }
  clear();
  row.each(bin, [&](u32 id, float z, int segment) {
    const u64 m = ~ordered(z) == prefix ? measure(id, z) : 0;
    if (m) add_shared(&s.list[segment], m);
  });
  __syncthreads();
  const int segment = reach(s, row.count, [&](int i) { return s.list[i]; }, goal);
  const auto equal = [&](int i) {
    const int id = segment * SEGMENT + i;
    return id < row.vocab && ~ordered(row.logits[id]) == prefix ? measure(id, row.logits[id]) : 0;
  };
  const u32 id = segment * SEGMENT + reach(s, SEGMENT, equal, goal);
  return (u64)~prefix << 32 | ~id;
}

// The candidate at which the running count, or mass, likeliest first, reaches goal ≥ 1, which is no more than there is.
// `until` becomes the mass of it and of all before it.
__device__ u64 find(Scratch& s, const Row& row, bool counts, u64 goal, u64& until) {
  const u32 bin = reach(s, BINS, [&](int i) { return counts ? (u64)s.count[i] : s.mass[i]; }, goal);
  u64 own = 0;
  for (u32 i = threadIdx.x; i < bin; i += THREADS) own += s.mass[i];
  u64 found;
  if (s.count[bin] <= ROOM) {
    list_bin(s, row, bin);
    const int i = reach(s, s.count[bin], [&](int i) { return counts ? (u64)1 : row.mass_of(s.list[i]); }, goal);
    found = s.list[i];
    for (int j = threadIdx.x; j <= i; j += THREADS) own += row.mass_of(s.list[j]);
  } else {
    found = search_bin(s, row, bin, counts, goal);
    row.each(bin, [&](u32 id, float z, int) {
      if (row.bin(z) == bin && candidate(z, id) >= found) own += row.mass(z, id);
    });
  }
  until = block_sum(s, own);
  return found;
}

// Without filters: the segment that the walk ends in, then the id in it.
__device__ u32 walk(Scratch& s, const Row& row, double u) {
  const auto whole = [&](int i) {
    const uint4 part = row.segments[i];
    return fixed(__uint_as_float(part.w) * expf(-row.distance(__uint_as_float(part.x))));
  };
  u64 own = 0;
  for (int i = threadIdx.x; i < row.count; i += THREADS) own += whole(i);
  const u64 total = block_sum(s, own);
  u64 goal = (u64)(u * (double)total) + 1;
  const int segment = reach(s, row.count, whole, goal);
  if (segment == row.count) return row.best;
  const auto mass = [&](int i) {
    const int id = segment * SEGMENT + i;
    return id < row.vocab ? row.mass(row.logits[id], id) : 0;
  };
  own = 0;
  for (int i = threadIdx.x; i < SEGMENT; i += THREADS) own += mass(i);
  // Rounded one by one they may come to a little less than together.
  goal = min(goal, block_sum(s, own));
  if (goal == 0) return row.best;
  return segment * SEGMENT + reach(s, SEGMENT, mass, goal);
}

extern "C" __global__ void __launch_bounds__(512) sample(const float* __restrict__ all, const u32* __restrict__ draws,
                                                         const u32* __restrict__ segments, int vocab,
                                                         u32* __restrict__ drawn) {
  __shared__ Scratch s;
  __shared__ u64 bests[WARPS];
  __shared__ float sums[WARPS];
  const u32* const draw = draws + blockIdx.x * 8;
  const float temperature = __uint_as_float(draw[0]), top_p = __uint_as_float(draw[2]);
  const u32 top_k = draw[1];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
  Row row;
  row.count = (vocab + SEGMENT - 1) / SEGMENT;
  row.vocab = vocab;
  row.logits = all + (u64)blockIdx.x * vocab;
  row.segments = reinterpret_cast<const uint4*>(segments) + (u64)blockIdx.x * row.count;
  row.inverse = inverse_of(temperature);
  row.min_p = __uint_as_float(draw[3]);

  uint4 part;
  part.x = __float_as_uint(NEG_INF), part.y = 0, part.z = 0, part.w = 0;
  u64 best = 0;
  if (threadIdx.x < row.count) {  // ≤ THREADS: vocab ≤ 2^18
    part = row.segments[threadIdx.x];
    best = candidate(__uint_as_float(part.x), part.y);
  }
  best = warp_max_u64(best);
  if (lane == 0) bests[warp] = best;
  __syncthreads();
  for (int w = 0; w < WARPS; w++) best = max(best, bests[w]);
  row.best = ~(u32)best;
  row.high = row.logits[row.best];
  const float largest = __uint_as_float(part.x);
  float sum = __uint_as_float(part.z) * (largest == NEG_INF ? 1.0f : expf(largest - row.high));
  sum = warp_sum(sum);
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  sum = 0.0f;
  for (int w = 0; w < WARPS; w++) sum += sums[w];

  u32 token = row.best;
  if (temperature > 0.0f) {
    const double u = uniform(draw[4], draw[5], draw[6], draw[7]);
    const bool cuts_k = top_k > 0 && top_k < (u32)vocab, cuts_p = top_p < 1.0f;
    if (!cuts_k && !cuts_p && row.min_p <= 0.0f) {
      token = walk(s, row, u);
    } else {
      fill_bins(s, row);
      u64 own = 0, held = 0;
      for (int bin = threadIdx.x; bin < BINS; bin += THREADS) own += s.mass[bin], held += s.count[bin];
      u64 total = block_sum(s, own);
      held = block_sum(s, held);
      if (total > 0) {
        if (cuts_k && top_k < held) find(s, row, true, top_k, total);
        if (cuts_p) find(s, row, false, max((u64)ceil((double)top_p * (double)total), (u64)1), total);
        token = ~(u32)find(s, row, false, (u64)(u * (double)total) + 1, own);
      }
    }
  }
  if (threadIdx.x == 0) {
    drawn[2 * blockIdx.x] = token;
    drawn[2 * blockIdx.x + 1] = __float_as_uint(row.logits[token] - (row.high + logf(sum)));
  }
}
