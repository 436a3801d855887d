// cuBLASLt on this host: libcublasLt.so.13, for the products that gristmill asks for (bf16 in, f32 or bf16 out).
//
// It takes what the real library takes and no more: descriptions that fit each other, addresses aligned as the heuristic
// was told (256 bytes, its default), a workspace on the GPU, an algorithm that was found for these types and transposes.
// It has none where a leading dimension is odd, and one found for a length does not serve lengths of 5 more than a multiple
// of 16, so that whoever calls meets both answers. Products go to the stream, or into what it records; algorithms are not to be had
// while the thread records, as of CUDA 13.3.
#include "work.h"
#include <cstring>
#include <vector>

typedef unsigned long long Address;
enum { kSuccess = 0, kInvalidValue = 7, kExecutionFailed = 13, kInternalError = 14, kNotSupported = 15 };
enum { kF32 = 0, kBf16 = 14, kCompute32 = 68 };

struct Operation {
  int transposed[2] = {0, 0};
};
struct Layout {
  int type;
  uint64_t rows, cols;
  int64_t ld;
  // How many such matrices, and elements from one to the next.
  int32_t count = 1;
  int64_t stride = 0;
};
struct Preference {
  size_t workspace = 0;
  uint32_t reductions = ~0u;
};
// In the 64 bytes of cublasLtMatmulAlgo_t.
struct Algorithm {
  uint64_t mark, shape[3];
  int32_t transposed[2], out, split, count;
};
static_assert(sizeof(Algorithm) <= 64, "");
struct Found {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
constexpr uint64_t kMark = 0x6772697374;

// Settings: STANDIN_CUBLASLT (its version).

#define CALL extern "C" __attribute__((visibility("default"))) int

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() {
  return size_t(setting("STANDIN_CUBLASLT", 130000));
}
CALL cublasLtCreate(void** handle) {
  *handle = new int(0);
  return kSuccess;
}
CALL cublasLtDestroy(void* handle) {
  delete static_cast<int*>(handle);
  return kSuccess;
}
CALL cublasLtMatmulDescCreate(Operation** made, int compute, int scale) {
  if (compute != kCompute32 || scale != kF32) return kNotSupported;
  *made = new Operation;
  return kSuccess;
}
CALL cublasLtMatmulDescSetAttribute(Operation* operation, int which, const void* value, size_t bytes) {
  if ((which != 3 && which != 4) || bytes != 4) return kInvalidValue;
  memcpy(&operation->transposed[which - 3], value, 4);
  return operation->transposed[which - 3] >> 1 ? kInvalidValue : kSuccess;
}
CALL cublasLtMatmulDescDestroy(Operation* operation) {
  delete operation;
  return kSuccess;
}
CALL cublasLtMatrixLayoutCreate(Layout** made, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  if ((type != kF32 && type != kBf16) || rows == 0 || cols == 0 || ld < int64_t(rows)) return kInvalidValue;
  *made = new Layout{type, rows, cols, ld};
  return kSuccess;
}
CALL cublasLtMatrixLayoutSetAttribute(Layout* layout, int which, const void* value, size_t bytes) {
  if (which == 5 && bytes == 4) return memcpy(&layout->count, value, 4), layout->count < 1 ? kInvalidValue : kSuccess;
  if (which == 6 && bytes == 8) return memcpy(&layout->stride, value, 8), int(kSuccess);
  return kInvalidValue;
}
CALL cublasLtMatrixLayoutDestroy(Layout* layout) {
  delete layout;
  return kSuccess;
}
CALL cublasLtMatmulPreferenceCreate(Preference** made) {
  *made = new Preference;
  return kSuccess;
}
CALL cublasLtMatmulPreferenceSetAttribute(Preference* preference, int which, const void* value, size_t bytes) {
  if (which == 1 && bytes == 8) return memcpy(&preference->workspace, value, 8), int(kSuccess);
  if (which == 3 && bytes == 4) return memcpy(&preference->reductions, value, 4), int(kSuccess);
  return kInvalidValue;
}
CALL cublasLtMatmulPreferenceDestroy(Preference* preference) {
  delete preference;
  return kSuccess;
}

struct Shape {
  uint64_t m, n, k;
};

// The product's shape, if the descriptions fit each other.
static bool shape_of(const Operation* operation, const Layout* a, const Layout* b, const Layout* c, const Layout* d,
                     Shape* shape) {
  const auto of = [](const Layout* layout, int transposed, uint64_t* rows, uint64_t* cols) {
    *rows = transposed ? layout->cols : layout->rows;
    *cols = transposed ? layout->rows : layout->cols;
  };
  uint64_t m, k, k_of_b, n;
  of(a, operation->transposed[0], &m, &k);
  of(b, operation->transposed[1], &k_of_b, &n);
  *shape = {m, n, k};
  return a->count == d->count && b->count == d->count && c->count == d->count && c->stride == d->stride &&
         k == k_of_b && d->rows == m && d->cols == n && c->rows == m && c->cols == n && c->type == d->type &&
         a->type == kBf16 && b->type == kBf16;
}

CALL cublasLtMatmulAlgoGetHeuristic(void*, const Operation* operation, const Layout* a, const Layout* b, const Layout* c,
                                    const Layout* d, const Preference* preference, int wanted, Found* found, int* count) {
  Shape shape;
  *count = 0;
  if (of_driver<int()>("gm_records")()) return kInternalError;
  if (wanted < 1 || !shape_of(operation, a, b, c, d, &shape)) return kInvalidValue;
  if (a->ld % 2 || b->ld % 2 || d->ld % 2) return kNotSupported;
  Algorithm algorithm = {kMark, {shape.m, shape.n, shape.k}, {operation->transposed[0], operation->transposed[1]},
                         d->type, preference->reductions != 0, d->count};
  memset(found, 0, sizeof *found);
  memcpy(found->algorithm, &algorithm, sizeof algorithm);
  found->workspace = preference->workspace;
  *count = 1;
  return kSuccess;
}

static float of_bf16(const uint16_t* at) {
  const uint32_t bits = uint32_t(*at) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return 0x7fff;
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Work {
  void* stream;
  Operation operation;
  Layout a, b, d;
  Shape shape;
  float alpha, beta;
  Address at_a, at_b, at_d, workspace;
  size_t workspace_bytes;
  GmLive* live;
};

// Rows of `count` values as floats, whichever way they lie.
static std::vector<float> rows(Address at, const Layout& layout, bool rows_are_columns, uint64_t count, uint64_t length) {
  const auto* values = reinterpret_cast<const uint16_t*>(at);
  std::vector<float> out(count * length);
  for (uint64_t i = 0; i < count; i++) {
    for (uint64_t j = 0; j < length; j++) {
      out[i * length + j] = of_bf16(values + (rows_are_columns ? i * layout.ld + j : j * layout.ld + i));
    }
  }
  return out;
}

static int run(void* data) {
  const Work& work = *static_cast<Work*>(data);
  const auto [m, n, k] = work.shape;
  const auto bytes = [](const Layout& layout) {
    const uint64_t all = (layout.cols - 1) * layout.ld + layout.rows + (layout.count - 1) * layout.stride;
    return all * (layout.type == kF32 ? 4 : 2);
  };
  const bool live = work.live(work.stream, work.at_a, bytes(work.a)) && work.live(work.stream, work.at_b, bytes(work.b)) &&
                    work.live(work.stream, work.at_d, bytes(work.d)) &&
                    (!work.workspace_bytes || work.live(work.stream, work.workspace, work.workspace_bytes));
  if (!live) {
    fprintf(stderr, "stand-in: a product of %llu x %llu x %llu lies outside of its allocations\n",
            (unsigned long long)m, (unsigned long long)n, (unsigned long long)k);
    return 700;
  }
  for (int each = 0; each < work.d.count; each++) {
    const Address at_a = work.at_a + each * work.a.stride * 2, at_b = work.at_b + each * work.b.stride * 2;
    const std::vector<float> left = rows(at_a, work.a, work.operation.transposed[0], m, k);
    const std::vector<float> right = rows(at_b, work.b, !work.operation.transposed[1], n, k);
    for (uint64_t j = 0; j < n; j++) {
      for (uint64_t i = 0; i < m; i++) {
        const float *x = &left[i * k], *y = &right[j * k];
        float sum = 0;
        for (uint64_t l = 0; l < k; l++) sum += x[l] * y[l];
        const uint64_t at = each * work.d.stride + j * work.d.ld + i;
        // With a beta of zero, what was there is not read: it may be NaN.
        if (work.d.type == kF32) {
          float* d = reinterpret_cast<float*>(work.at_d) + at;
          *d = work.alpha * sum + (work.beta != 0 ? work.beta * *d : 0);
        } else {
          uint16_t* d = reinterpret_cast<uint16_t*>(work.at_d) + at;
          *d = to_bf16(work.alpha * sum + (work.beta != 0 ? work.beta * of_bf16(d) : 0));
        }
      }
    }
  }
  if (work.workspace_bytes) memset(reinterpret_cast<void*>(work.workspace), 0xff, 256);
  return 0;
}

CALL cublasLtMatmul(void*, const Operation* operation, const float* alpha, Address a, const Layout* of_a, Address b,
                    const Layout* of_b, const float* beta, Address c, const Layout* of_c, Address d, const Layout* of_d,
                    const Algorithm* algorithm, Address workspace, size_t workspace_bytes, void* stream) {
  Shape shape;
  if (!shape_of(operation, of_a, of_b, of_c, of_d, &shape) || c != d) return kInvalidValue;
  if ((a | b | d | workspace) % 256) {
    fprintf(stderr, "stand-in: an operand of a product is not aligned to 256 bytes\n");
    return kInvalidValue;
  }
  const bool fits = algorithm->mark == kMark && algorithm->out == of_d->type && algorithm->count == of_d->count &&
                    !memcmp(algorithm->transposed, operation->transposed, sizeof operation->transposed);
  if (!fits) return kInvalidValue;
  const uint64_t sizes[] = {shape.m, shape.n, shape.k};
  for (int i = 0; i < 3; i++) {
    if (sizes[i] != algorithm->shape[i] && sizes[i] % 16 == 5) return kNotSupported;
  }
  Work* work = new Work{stream, *operation, *of_a, *of_b, *of_d, shape, *alpha, *beta, a, b, d, workspace, workspace_bytes,
                        of_driver<GmLive>("gm_live")};
  const int result = of_driver<GmEnqueue>("gm_enqueue")(stream, run, work, [](void* data) { delete static_cast<Work*>(data); });
  return result ? kExecutionFailed : kSuccess;
}
