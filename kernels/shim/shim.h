// The host shim: runs a CUDA kernel's own source on the CPU, block by block.
//
// Every thread of a block is a fiber with its own stack. A fiber runs until it
// meets a barrier or a warp operation and then yields; the scheduler lets go
// of a barrier once everyone who owes it an arrival has arrived at the same line.
// What cannot be let go is divergence: undefined on a device, an error here.
//
// What it checks beyond results:
// - block barriers that some threads miss (returned early, or wait elsewhere);
// - warp operations whose mask names a lane that is not there, or reads a lane outside it;
// - shared memory read before it is written (it is NaN bytes at every block's start);
// - results that depend on which thread or block runs first: callers launch
//   in several orders and compare the bits;
// - asynchronous copies that are read before they are waited for (they land at the wait);
// - atomic additions of floats, which do not exist here and must not there.
// What it does not model: memory ordering weaker than program order, bank
// conflicts, timing, and instructions newer than sm_80.
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <type_traits>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define GRISTMILL_SHIM 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time, so a block's shared memory is one static; the section makes it findable, to be poisoned.
#define __shared__ static __attribute__((section("gm_shared")))
#define DYNAMIC_SHARED(name) unsigned char* const name = shim::dynamic_shared

struct dim3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};

namespace shim {

constexpr size_t kStack = 128 << 10;
constexpr unsigned kSlot = 32;

enum class State { Ready, Block, Warp, Done };

struct Copy {
  void* to;
  unsigned char bytes[16];
  unsigned size, group;
};

struct Fiber {
#if defined(__x86_64__)
  void* sp;
#else
  ucontext_t context;
#endif
  unsigned char* stack;
  dim3 thread;
  unsigned lane, warp;
  State state;
  unsigned line;  // of the barrier or warp operation it waits at
  unsigned mask;
  alignas(16) unsigned char slot[kSlot];  // what it offers its warp
  std::vector<Copy> copies;               // asynchronous copies in flight
  unsigned group;
};

inline Fiber* current;
inline unsigned char (*offered)[kSlot];  // [warp · 32 + lane]: what the last warp operation exchanged
inline dim3 block_index, block_size, grid_size;
inline unsigned char* dynamic_shared;
inline char error[512];
inline std::vector<Fiber> fibers;
inline void (*body)(void**);
inline void** arguments;

inline void fail(const char* format, ...) {
  if (error[0]) return;
  va_list list;
  va_start(list, format);
  vsnprintf(error, sizeof error, format, list);
  va_end(list);
}

#if defined(__x86_64__)
extern "C" void gm_switch(void** save, void* to);
asm(R"(
.text
.hidden gm_switch
.globl gm_switch
.type gm_switch, @function
gm_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gm_switch, .-gm_switch
)");
inline void* scheduler;
inline void yield() { gm_switch(&current->sp, scheduler); }
inline void resume(Fiber& fiber) {
  current = &fiber;
  gm_switch(&scheduler, fiber.sp);
}
#else
inline ucontext_t scheduler;
inline void yield() { swapcontext(&current->context, &scheduler); }
inline void resume(Fiber& fiber) {
  current = &fiber;
  swapcontext(&scheduler, &fiber.context);
}
#endif

inline void land(Fiber& fiber, unsigned newest_pending) {
  std::vector<Copy> later;
  for (Copy& copy : fiber.copies) {
    if (copy.group + newest_pending < fiber.group) {
      memcpy(copy.to, copy.bytes, copy.size);
    } else {
      later.push_back(copy);
    }
  }
  fiber.copies.swap(later);
}

inline void entry() {
  body(arguments);
  if (!current->copies.empty()) {
    fail("a thread ends with asynchronous copies it never waited for");
  }
  current->state = State::Done;
  yield();
  abort();  // a finished fiber is never resumed
}

inline void start(Fiber& fiber) {
  fiber.state = State::Ready;
  fiber.copies.clear();
  fiber.group = 0;
#if defined(__x86_64__)
  // Six saved registers, then the return address; on entry rsp ≡ 8 (mod 16), as after a call.
  void** top = reinterpret_cast<void**>(fiber.stack + kStack - 8);
  *--top = reinterpret_cast<void*>(&entry);
  top -= 6;
  memset(top, 0, 6 * sizeof(void*));
  fiber.sp = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
#endif
}

inline void block_barrier(unsigned line) {
  current->state = State::Block;
  current->line = line;
  yield();
}

// Offers `size` bytes to the lanes of `mask` and returns once all of them have offered theirs.
inline void warp_exchange(unsigned line, unsigned mask, const void* value, size_t size) {
  if (!(mask >> current->lane & 1)) {
    fail("line %u: lane %u is not in its own mask %08x", line, current->lane, mask);
  }
  memcpy(current->slot, value, size);
  current->state = State::Warp;
  current->line = line;
  current->mask = mask;
  yield();
}

template <class T>
T lane_value(unsigned line, unsigned mask, unsigned lane) {
  if (!(mask >> (lane & 31) & 1)) {
    fail("line %u: lane %u reads lane %u, outside the mask %08x", line, current->lane, lane, mask);
  }
  T value;
  memcpy(&value, offered[current->warp * 32 + (lane & 31)], sizeof value);
  return value;
}

template <class T>
T shuffle(unsigned line, unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= kSlot, "");
  warp_exchange(line, mask, &value, sizeof value);
  return lane_value<T>(line, mask, from);
}

inline unsigned ballot(unsigned line, unsigned mask, bool vote) {
  warp_exchange(line, mask, &vote, sizeof vote);
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; lane++) {
    if (mask >> lane & 1) result |= unsigned(lane_value<bool>(line, mask, lane)) << lane;
  }
  return result;
}

// Lets go of the warp operations that everyone named has reached.
inline bool release_warps(unsigned threads) {
  bool progress = false;
  for (unsigned first = 0; first < threads; first += 32) {
    for (unsigned lane = 0; lane < 32 && first + lane < threads; lane++) {
      Fiber& leader = fibers[first + lane];
      if (leader.state != State::Warp) continue;
      unsigned mask = leader.mask;
      bool complete = true;
      for (unsigned other = 0; other < 32 && complete; other++) {
        if (!(mask >> other & 1)) continue;
        complete = first + other < threads && fibers[first + other].state == State::Warp &&
                   fibers[first + other].mask == mask && fibers[first + other].line == leader.line;
      }
      if (!complete) continue;
      for (unsigned other = 0; other < 32; other++) {
        if (!(mask >> other & 1)) continue;
        Fiber& fiber = fibers[first + other];
        memcpy(offered[first + other], fiber.slot, kSlot);
        fiber.state = State::Ready;
      }
      progress = true;
    }
  }
  return progress;
}

inline bool release_block(unsigned threads) {
  unsigned waiting = 0, line = 0;
  for (unsigned i = 0; i < threads; i++) {
    Fiber& fiber = fibers[i];
    if (fiber.state != State::Block) continue;
    if (waiting++ == 0) line = fiber.line;
    if (fiber.line != line) {
      fail("divergent barrier: thread %u waits at line %u, others at line %u", i, fiber.line, line);
      return false;
    }
  }
  if (waiting != threads) {
    for (unsigned i = 0; i < threads; i++) {
      static const char* const what[] = {"runs", "waits for the block", "waits for its warp", "has returned"};
      if (waiting == 0 ? fibers[i].state == State::Warp : fibers[i].state != State::Block) {
        fail("divergence: %u of %u threads wait at the barrier of line %u; thread %u %s (line %u)", waiting, threads,
             line, i, what[int(fibers[i].state)], fibers[i].line);
        return false;
      }
    }
  }
  for (unsigned i = 0; i < threads; i++) fibers[i].state = State::Ready;
  return true;
}

// Runs one block. `order` 0 takes threads upwards, 1 downwards, others shuffle them anew each round.
inline void run_block(unsigned threads, unsigned order, uint64_t& random) {
  for (unsigned i = 0; i < threads; i++) start(fibers[i]);
  std::vector<unsigned> turn(threads);
  for (unsigned i = 0; i < threads; i++) turn[i] = order == 1 ? threads - 1 - i : i;
  for (;;) {
    if (order > 1) {
      for (unsigned i = threads; i > 1; i--) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        std::swap(turn[i - 1], turn[(random >> 33) % i]);
      }
    }
    bool alive = false;
    for (unsigned i : turn) {
      if (fibers[i].state == State::Ready) resume(fibers[i]);
      if (error[0]) return;
      alive |= fibers[i].state != State::Done;
    }
    if (!alive) return;
    if (!release_warps(threads) && !release_block(threads)) return;
  }
}

extern "C" unsigned char __start_gm_shared[] __attribute__((weak, visibility("hidden")));
extern "C" unsigned char __stop_gm_shared[] __attribute__((weak, visibility("hidden")));

template <auto Kernel>
struct Call;
template <class... Args, void (*Kernel)(Args...)>
struct Call<Kernel> {
  // `args[i]` points to argument i, as in cuLaunchKernel.
  template <size_t... I>
  static void with(void** args, std::index_sequence<I...>) {
    Kernel(*static_cast<std::remove_cv_t<Args>*>(args[I])...);
  }
  static void run(void** args) { with(args, std::index_sequence_for<Args...>()); }
  // Bytes of each parameter, the top bit set where it is a pointer; returns how many there are.
  static int parameters(unsigned char* sizes) {
    int count = 0;
    ((sizes[count++] = sizeof(Args) | (std::is_pointer<Args>::value ? 0x80 : 0)), ...);
    return count;
  }
};

inline int launch(void (*kernel)(void**), const unsigned* grid, const unsigned* block, unsigned shared, void** args,
                  unsigned order, char* message, size_t message_len) {
  const unsigned threads = block[0] * block[1] * block[2];
  error[0] = 0;
  if (threads == 0 || threads > 1024) fail("a block of %u threads", threads);
  if (shared > 227 * 1024) fail("%u bytes of shared memory: no device has them", shared);
  while (!error[0] && fibers.size() < threads) {
    Fiber fiber = {};
    void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) {
      fail("no memory for a fiber's stack");
      break;
    }
    fiber.stack = static_cast<unsigned char*>(stack);
    fibers.push_back(fiber);
  }
  body = kernel;
  arguments = args;
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {block[0], block[1], block[2]};
  std::vector<unsigned char> offers((threads + 31) / 32 * 32 * kSlot), memory(shared + 256);
  offered = reinterpret_cast<unsigned char(*)[kSlot]>(offers.data());
  dynamic_shared = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256) % 256;
  for (unsigned i = 0; i < threads && !error[0]; i++) {
    fibers[i].thread = {i % block[0], i / block[0] % block[1], i / (block[0] * block[1])};
    fibers[i].lane = i % 32;
    fibers[i].warp = i / 32;
  }
  uint64_t random = order;
  const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
  for (uint64_t n = 0; n < blocks && !error[0]; n++) {
    const uint64_t at = order == 1 ? blocks - 1 - n : n;
    block_index = {unsigned(at % grid[0]), unsigned(at / grid[0] % grid[1]), unsigned(at / grid[0] / grid[1])};
    memset(memory.data(), 0xff, memory.size());
    if (__start_gm_shared) memset(__start_gm_shared, 0xff, __stop_gm_shared - __start_gm_shared);
    run_block(threads, order, random);
    if (error[0]) {
      const size_t used = strlen(error);
      snprintf(error + used, sizeof error - used, " (block %u,%u,%u)", block_index.x, block_index.y, block_index.z);
    }
  }
  snprintf(message, message_len, "%s", error);
  return error[0] ? 1 : 0;
}

}  // namespace shim

#define threadIdx (shim::current->thread)
#define blockIdx shim::block_index
#define blockDim shim::block_size
#define gridDim shim::grid_size
#define __syncthreads() shim::block_barrier(__LINE__)
#define __syncwarp(...)                                         \
  do {                                                          \
    char nothing = 0;                                           \
    shim::warp_exchange(__LINE__, 0xffffffffu, &nothing, 1);    \
  } while (0)
#define __shfl_xor_sync(mask, value, bits) shim::shuffle(__LINE__, mask, value, shim::current->lane ^ (bits))
#define __shfl_sync(mask, value, lane) shim::shuffle(__LINE__, mask, value, unsigned(lane) & 31)
#define __shfl_up_sync(mask, value, by) \
  shim::shuffle(__LINE__, mask, value, shim::current->lane < unsigned(by) ? shim::current->lane : shim::current->lane - (by))
#define __ballot_sync(mask, vote) shim::ballot(__LINE__, mask, vote)
#define __popc(x) __builtin_popcount(x)
#define __ffs(x) __builtin_ffs(x)

template <class T>
T atomicAdd(T* to, T value) {
  static_assert(!std::is_floating_point<T>::value, "the order of float additions would change the bits");
  T old = *to;
  *to += value;
  return old;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}

#include "device_model.h"
