// Draws one token of each row of logits: temperature, then min-p, top-k and top-p, each on what the one before
// left; then one number of Philox4x32-10 (Salmon et al. 2011) walks the cumulative distribution.
//
// logits [rows, vocab] f32; draws [rows, 8] u32: bits of temperature, top_k, bits of top_p, bits of min_p, seed (low,
// high), index (low, high); drawn [rows, 2] u32: token, bits of its log-probability at temperature 1, nothing cut off.
//
// Candidates are ordered by logit, equal ones by id. Nothing is sorted: top-k, top-p and the draw itself each ask
// for the element at which a running count or mass reaches a goal, found by a descent over the bits of the ordered
// logit, 8 at a time. Masses are 44-bit fixed point, so sums do not depend on their order; the CPU's are f64, and
// a draw differs only where the random number falls within 2^-26 or so of a boundary. Without filters the walk is in the order of
// ids, as on the CPU. vocab ≤ 2^18.
//
// Launch: <<<rows, 256>>>. CPU twin: src/backend/cpu/sample.rs, src/backend/philox.rs.
// Not yet tried: warp-aggregated histogram additions.
#include "device.cuh"

#define THREADS 256
#define SEGMENTS 256

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

__device__ __forceinline__ u64 warp_sum_u64(u64 x) {
  for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(ALL_LANES, x, bits);
  return x;
}

struct Scratch {
  u64 sums[SEGMENTS];
  u64 warps[THREADS / WARP];
  u64 goal;
  u32 found, at;
};

// Sum over the block; everyone gets it.
__device__ u64 block_sum(Scratch& s, u64 x) {
  x = warp_sum_u64(x);
  __syncthreads();
  if (threadIdx.x % WARP == 0) s.warps[threadIdx.x / WARP] = x;
  __syncthreads();
  u64 sum = 0;
  for (int w = 0; w < THREADS / WARP; w++) sum += s.warps[w];
  return sum;
}

// The first id, upwards, at which the running sum of measure(id) reaches goal ≥ 1; `otherwise` where it never does.
template <class Measure>
__device__ u32 walk(Scratch& s, int vocab, Measure measure, u64 goal, u32 otherwise) {
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, each = (vocab + SEGMENTS - 1) / SEGMENTS;
  __syncthreads();
  for (int segment = warp; segment < SEGMENTS; segment += THREADS / WARP) {
    u64 sum = 0;
    for (int i = segment * each + lane; i < min(vocab, (segment + 1) * each); i += WARP) sum += measure(i);
    sum = warp_sum_u64(sum);
    if (lane == 0) s.sums[segment] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int segment = 0;
    while (segment < SEGMENTS && s.sums[segment] < goal) goal -= s.sums[segment++];
    s.at = segment;
    s.goal = goal;
    s.found = otherwise;
  }
  __syncthreads();
  if (warp == 0 && s.at < SEGMENTS) {
    goal = s.goal;
    const int end = min(vocab, ((int)s.at + 1) * each);
    for (int base = s.at * each; base < end; base += WARP) {
      const int i = base + lane;
      const u64 own = i < end ? measure(i) : 0;
      u64 sum = own;
      for (int by = 1; by < WARP; by <<= 1) {
        const u64 before = __shfl_up_sync(ALL_LANES, sum, by);
        if (lane >= by) sum += before;
      }
      const u32 votes = __ballot_sync(ALL_LANES, sum >= goal);
      if (votes) {
        if (lane == 0) s.found = base + __ffs(votes) - 1;
        break;
      }
      goal -= __shfl_sync(ALL_LANES, sum, WARP - 1);
    }
  }
  __syncthreads();
  return s.found;
}

// What the filters have left: elements above (key, id) in the order of candidates, and itself.
struct Cut {
  u32 key, id;
};

// The element at which the running sum of measure(id), likeliest first, reaches goal ≥ 1; `cut` where it never does.
// measure is 0 for what is not left, and the same for equal logits that are.
template <class Measure>
__device__ Cut descend(Scratch& s, const float* logits, int vocab, Measure measure, u64 goal, Cut cut) {
  u32 prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();
    for (int bin = threadIdx.x; bin < 256; bin += THREADS) s.sums[bin] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < vocab; i += THREADS) {
      const u32 key = ordered(logits[i]);
      if (shift == 24 || key >> (shift + 8) == prefix) {
        const u64 m = measure(i);
        if (m) atomicAdd(&s.sums[key >> shift & 255], m);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int bin = 255;
      while (bin >= 0 && s.sums[bin] < goal) goal -= s.sums[bin--];
      s.at = bin < 0 ? 256 : bin;
      s.goal = goal;
    }
    __syncthreads();
    if (s.at == 256) return cut;
    prefix = prefix << 8 | s.at;
    goal = s.goal;
  }
  const u32 id = walk(s, vocab, [&](int i) { return ordered(logits[i]) == prefix ? measure(i) : 0; }, goal, cut.id);
  return {prefix, id};
}

extern "C" __global__ void __launch_bounds__(256) sample(const float* __restrict__ all, const u32* __restrict__ draws,
                                                         int vocab, u32* __restrict__ drawn) {
  __shared__ Scratch s;
  __shared__ u64 bests[THREADS / WARP];
  __shared__ float parts[THREADS / WARP];
  const float* const logits = all + (u64)blockIdx.x * vocab;
  const u32* const draw = draws + blockIdx.x * 8;
  const float temperature = __uint_as_float(draw[0]), top_p = __uint_as_float(draw[2]), min_p = __uint_as_float(draw[3]);
  const u32 top_k = draw[1];
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;

  u64 best = 0;  // the logit in the upper half; the lowest id wins among equals
  for (int i = threadIdx.x; i < vocab; i += THREADS) best = max(best, (u64)ordered(logits[i]) << 32 | (u32)~i);
  for (int bits = 16; bits > 0; bits >>= 1) best = max(best, __shfl_xor_sync(ALL_LANES, best, bits));
  if (lane == 0) bests[warp] = best;
  __syncthreads();
  for (int w = 0; w < THREADS / WARP; w++) best = max(best, bests[w]);
  const u32 best_id = ~(u32)best;
  const float high = logits[best_id];

  float sum = 0.0f;
  for (int i = threadIdx.x; i < vocab; i += THREADS) sum += expf(logits[i] - high);
  sum = warp_sum(sum);
  if (lane == 0) parts[warp] = sum;
  __syncthreads();
  sum = 0.0f;
  for (int w = 0; w < THREADS / WARP; w++) sum += parts[w];

  u32 token = best_id;
  if (temperature > 0.0f) {
    const double u = uniform(draw[4], draw[5], draw[6], draw[7]);
    const double floor = min_p > 0.0f ? (double)min_p : 1e-300;
    const auto weight = [&](int i) { return exp((double)((logits[i] - high) / temperature)); };
    const auto mass = [&](int i) {
      const double w = weight(i);
      return w >= 0.0 ? (u64)(w * (double)(1ull << 44)) : 0;  // not for NaN
    };
    const bool cuts_k = top_k > 0 && top_k < (u32)vocab, cuts_p = top_p < 1.0f;
    if (!cuts_k && !cuts_p && min_p <= 0.0f) {
      u64 total = 0;
      for (int i = threadIdx.x; i < vocab; i += THREADS) total += mass(i);
      total = block_sum(s, total);
      token = walk(s, vocab, mass, (u64)(u * (double)total) + 1, best_id);
    } else {
      Cut cut = {0, ~0u};
      const auto left = [&](int i) {
        const u32 key = ordered(logits[i]);
        return (key > cut.key || (key == cut.key && (u32)i <= cut.id)) && ((u32)i == best_id || weight(i) >= floor);
      };
      const auto count = [&](int i) { return left(i) ? (u64)1 : (u64)0; };
      const auto kept_mass = [&](int i) { return left(i) ? mass(i) : (u64)0; };
      if (cuts_k) cut = descend(s, logits, vocab, count, top_k, cut);
      u64 total = 0;
      for (int i = threadIdx.x; i < vocab; i += THREADS) total += kept_mass(i);
      total = block_sum(s, total);
      if (cuts_p) {
        const u64 goal = (u64)ceil((double)top_p * (double)total);
        cut = descend(s, logits, vocab, kept_mass, goal > 0 ? goal : 1, cut);
        total = 0;
        for (int i = threadIdx.x; i < vocab; i += THREADS) total += kept_mass(i);
        total = block_sum(s, total);
      }
      const Cut none = {0, best_id};
      token = descend(s, logits, vocab, kept_mass, (u64)(u * (double)total) + 1, none).id;
    }
  }
  if (threadIdx.x == 0) {
    drawn[2 * blockIdx.x] = token;
    drawn[2 * blockIdx.x + 1] = __float_as_uint(logits[token] - (high + logf(sum)));
  }
}
