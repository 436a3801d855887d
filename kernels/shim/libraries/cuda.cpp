// A CUDA driver whose GPUs are this host: libcuda.so.1 for tests of what calls the real one.
//
// Kernels are what nvrtc.cpp made of their sources. A stream's work is done as late as the driver's contract lets it be:
// when somebody waits for it. So a buffer that is reused, freed or read too early is seen, where a driver that did the work
// at once would hide it. Beyond results it checks:
// - that memory of a GPU is touched by GPUs alone (it cannot be read or written between pieces of work), that arguments
//   point into live allocations of the GPU that runs the kernel, and that nothing is written behind an allocation;
// - that calls come with a context current in their thread, with live handles, with grids and shared memory that a GPU takes;
// - that what cannot be recorded (allocations, loads, waits, in the thread that records) ends the recording.
// A failure of work is the context's from then on: every later call returns it.
//
// Where the contract leaves a choice it takes the worse one: fresh memory is NaN bytes, freed memory too.
// Settings: STANDIN_GPUS, STANDIN_CUDA (version), STANDIN_INIT (cuInit's result), STANDIN_MAJOR (compute capability),
// STANDIN_MEMORY (bytes of each GPU), STANDIN_LOAD (what loading a module returns), STANDIN_FAULT (kernel:n:result,
// what the n-th run of a kernel ends with; `*` is any).
#include "work.h"
#include <cstdarg>
#include <cstring>
#include <deque>
#include <elf.h>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

typedef int Result;
typedef unsigned long long Address;

enum : Result {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kNoBinary = 209,
  kEcc = 214,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kLaunchFailed = 719,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCaptureUnmatched = 903,
  kCaptureWrongThread = 908,
};

static void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char* format, ...) {
  va_list list;
  va_start(list, format);
  fputs("stand-in: ", stderr);
  vfprintf(stderr, format, list);
  fputc('\n', stderr);
  va_end(list);
}

// One lock for the whole driver; work runs under it.
static std::recursive_mutex turn;
typedef std::lock_guard<std::recursive_mutex> Turn;

// --- memory

constexpr size_t kArena = size_t(64) << 30, kPage = 4096;

struct Allocation {
  size_t bytes;
  int gpu;
};

struct Arena {
  unsigned char* base = nullptr;
  size_t used = 0;
  int open = 0;
  std::map<Address, Allocation> live;
  std::map<size_t, std::vector<Address>> free;  // by pages, what was given back
  std::map<int, size_t> taken;                  // bytes, by GPU
};
static Arena arena;
// Memory of the host that GPUs reach.
static std::map<Address, size_t> pinned;

// GPUs' memory is there while work is done, and not for the host.
struct Access {
  Access() {
    if (arena.open++ == 0 && arena.used) mprotect(arena.base, arena.used, PROT_READ | PROT_WRITE);
  }
  ~Access() {
    if (--arena.open == 0 && arena.used) mprotect(arena.base, arena.used, PROT_NONE);
  }
};

static size_t pages(size_t bytes) { return bytes / kPage + 1; }  // at least a byte behind each allocation

static bool holds(const std::map<Address, size_t>& ranges, Address at, size_t bytes) {
  auto next = ranges.upper_bound(at);
  if (next == ranges.begin()) return false;
  --next;
  return at + bytes <= next->first + next->second;
}

static bool is_live(int gpu, Address at, size_t bytes) {
  if (holds(pinned, at, bytes)) return true;
  auto next = arena.live.upper_bound(at);
  if (next == arena.live.begin()) return false;
  --next;
  return next->second.gpu == gpu && at + bytes <= next->first + next->second.bytes;
}

// --- handles

struct Context {
  int gpu;
  int holders = 0;
  Result dead = kSuccess;
};
static std::map<int, Context> contexts;
static thread_local Context* current = nullptr;

struct Stream;
struct Work {
  std::function<Result()> run;
};

struct Capture {
  int mode;
  std::thread::id thread;
  bool broken = false;
  std::vector<Work> work;
};

struct Stream {
  Context* context;
  std::deque<Work> queue;
  uint64_t issued = 0, done = 0;
  std::unique_ptr<Capture> capture;
};

struct Event {
  Stream* stream = nullptr;
  uint64_t number = 0;
};

struct Graph {
  std::vector<Work> work;
};

struct Module {
  Context* context;
  void* library;
  ~Module() { dlclose(library); }
  int (*launch)(const char*, const unsigned*, const unsigned*, unsigned, void**, unsigned, char*, size_t);
  int (*parameters)(const char*, unsigned char*);
};

struct Function {
  std::shared_ptr<Module> module;
  std::string name;
  std::vector<unsigned char> parameters;  // sizes; the top bit marks a pointer
  unsigned shared = 48 << 10;
};

static std::set<Stream*> streams;
static std::set<Event*> events;
static std::set<Graph*> graphs;
static std::map<void*, std::shared_ptr<Module>> modules;
// By address; work that was issued holds what it runs.
static std::map<void*, std::shared_ptr<Function>> functions;

template <class T>
static bool known(const std::set<T*>& all, T* one) {
  return all.count(one) != 0;
}

// The result of a call that needs a context.
static Result ready() {
  if (!current) return kInvalidContext;
  return current->dead;
}

// What may not be called while this thread records (or any, in the global mode).
static Result may_block() {
  const Result result = ready();
  if (result) return result;
  for (Stream* stream : streams) {
    Capture* capture = stream->capture.get();
    if (!capture || capture->mode == 2) continue;
    if (capture->mode == 0 || capture->thread == std::this_thread::get_id()) {
      capture->broken = true;
      return kCaptureUnsupported;
    }
  }
  return kSuccess;
}

static Result enqueue(Stream* stream, std::function<Result()> run) {
  const Result result = ready();
  if (result) return result;
  if (!known(streams, stream)) return kInvalidHandle;
  if (stream->context != current) return kInvalidContext;
  if (stream->capture) {
    if (stream->capture->broken) return kCaptureInvalidated;
    stream->capture->work.push_back({std::move(run)});
    return kSuccess;
  }
  stream->queue.push_back({std::move(run)});
  stream->issued++;
  return kSuccess;
}

static Result drain(Stream* stream, uint64_t until) {
  Access access;
  while (stream->done < until && !stream->queue.empty() && !stream->context->dead) {
    Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    const Result result = work.run();
    if (result == kNotReady) {
      // It waits for something that does not come.
      stream->queue.push_front(std::move(work));
      return kNotReady;
    }
    stream->done++;
    if (result && !stream->context->dead) stream->context->dead = result;
  }
  return stream->context->dead;
}

static Result wait(Stream* stream, uint64_t until) {
  const Result result = ready();
  if (result) return result;
  if (!known(streams, stream)) return kInvalidHandle;
  if (stream->capture) {
    stream->capture->broken = true;
    return kCaptureUnsupported;
  }
  return drain(stream, until);
}

// Waits as a call does that only returns when its work is done, and lets others call meanwhile.
static Result until_ready(const std::function<Result()>& call) {
  for (;;) {
    {
      Turn turn_(turn);
      const Result result = call();
      if (result != kNotReady) return result;
    }
    usleep(1000);
  }
}

#define CALL extern "C" __attribute__((visibility("default"))) Result
#define LOCKED Turn turn_(turn)
#define CHECK(call)                   \
  do {                                \
    const Result checked_ = (call);   \
    if (checked_) return checked_;    \
  } while (0)

// --- devices and contexts

static bool initialized = false;
static int gpus() { return int(setting("STANDIN_GPUS", 1)); }

CALL cuDriverGetVersion(int* version) {
  *version = int(setting("STANDIN_CUDA", 13000));
  return kSuccess;
}
CALL cuInit(unsigned) {
  LOCKED;
  const Result result = Result(setting("STANDIN_INIT", 0));
  initialized = result == kSuccess;
  return result;
}
CALL cuDeviceGetCount(int* count) {
  *count = gpus();
  return initialized ? kSuccess : kNotInitialized;
}
CALL cuDeviceGet(int* device, int ordinal) {
  if (!initialized) return kNotInitialized;
  if (ordinal < 0 || ordinal >= gpus()) return kInvalidDevice;
  *device = ordinal;
  return kSuccess;
}
CALL cuDeviceGetName(char* name, int len, int) {
  snprintf(name, size_t(len), "Stand-in");
  return kSuccess;
}
static size_t memory_of_gpu() { return size_t(setting("STANDIN_MEMORY", 4L << 30)); }
CALL cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = memory_of_gpu();
  return kSuccess;
}
CALL cuDeviceGetAttribute(int* value, int which, int) {
  switch (which) {
    case 75: *value = int(setting("STANDIN_MAJOR", 9)); break;  // compute capability
    case 16: *value = 132; break;                               // multiprocessors
    case 97: *value = 227 << 10; break;                         // shared memory that a block may ask for
    case 8: *value = 48 << 10; break;
    default: *value = 0;
  }
  return kSuccess;
}
CALL cuDevicePrimaryCtxRetain(void** context, int device) {
  LOCKED;
  if (!initialized) return kNotInitialized;
  Context& of = contexts[device];
  of.gpu = device;
  of.holders++;
  *context = &of;
  return kSuccess;
}
CALL cuDevicePrimaryCtxRelease_v2(int device) {
  LOCKED;
  auto found = contexts.find(device);
  if (found == contexts.end() || found->second.holders == 0) return kInvalidContext;
  // A context that nobody holds is made anew for the next, whatever became of it.
  if (--found->second.holders == 0) found->second.dead = kSuccess;
  return kSuccess;
}
CALL cuCtxGetCurrent(void** context) {
  *context = current;
  return kSuccess;
}
CALL cuCtxSetCurrent(void* context) {
  LOCKED;
  current = static_cast<Context*>(context);
  return current && !current->holders ? kInvalidContext : kSuccess;
}
CALL cuCtxSynchronize() {
  return until_ready([] {
    CHECK(may_block());
    for (Stream* stream : streams) {
      if (stream->context == current) CHECK(wait(stream, stream->issued));
    }
    return Result(kSuccess);
  });
}

// --- streams and events

// With OLDER: a driver that lacks a function.
#ifndef OLDER
CALL cuStreamCreate(void** stream, unsigned) {
  LOCKED;
  CHECK(ready());
  Stream* made = new Stream{current};
  streams.insert(made);
  *stream = made;
  return kSuccess;
}
#endif
CALL cuStreamDestroy_v2(void* of) {
  LOCKED;
  Stream* stream = static_cast<Stream*>(of);
  if (!known(streams, stream)) return kInvalidHandle;
  drain(stream, stream->issued);
  streams.erase(stream);
  delete stream;
  return kSuccess;
}
CALL cuStreamSynchronize(void* of) {
  return until_ready([of] {
    Stream* stream = static_cast<Stream*>(of);
    if (!known(streams, stream)) return ready() ? ready() : Result(kInvalidHandle);
    return wait(stream, stream->issued);
  });
}
CALL cuEventCreate(void** event, unsigned) {
  LOCKED;
  CHECK(ready());
  Event* made = new Event;
  events.insert(made);
  *event = made;
  return kSuccess;
}
CALL cuEventDestroy_v2(void* event) {
  LOCKED;
  if (!events.erase(static_cast<Event*>(event))) return kInvalidHandle;
  delete static_cast<Event*>(event);
  return kSuccess;
}
CALL cuEventRecord(void* of, void* on) {
  LOCKED;
  CHECK(ready());
  Event* event = static_cast<Event*>(of);
  Stream* stream = static_cast<Stream*>(on);
  if (!known(events, event) || !known(streams, stream)) return kInvalidHandle;
  *event = {stream, stream->issued};
  return kSuccess;
}
CALL cuEventSynchronize(void* of) {
  return until_ready([of] {
    CHECK(ready());
    Event* event = static_cast<Event*>(of);
    if (!known(events, event)) return Result(kInvalidHandle);
    return event->stream ? wait(event->stream, event->number) : Result(kSuccess);
  });
}
CALL cuEventQuery(void* of) {
  LOCKED;
  CHECK(ready());
  Event* event = static_cast<Event*>(of);
  if (!known(events, event)) return kInvalidHandle;
  return !event->stream || event->stream->done >= event->number ? kSuccess : kNotReady;
}
CALL cuStreamWaitEvent(void* on, void* of, unsigned) {
  LOCKED;
  Event* event = static_cast<Event*>(of);
  if (!known(events, event)) return kInvalidHandle;
  const Event then = *event;
  return enqueue(static_cast<Stream*>(on), [then] { return then.stream ? drain(then.stream, then.number) : kSuccess; });
}

// --- memory

CALL cuMemGetInfo_v2(size_t* free, size_t* total) {
  LOCKED;
  CHECK(ready());
  *total = memory_of_gpu();
  *free = *total - arena.taken[current->gpu];
  return kSuccess;
}
CALL cuMemAlloc_v2(Address* address, size_t bytes) {
  LOCKED;
  CHECK(may_block());
  if (bytes == 0) return kInvalidValue;
  if (!arena.base) {
    void* base = mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return kOutOfMemory;
    arena.base = static_cast<unsigned char*>(base);
    madvise(base, kArena, MADV_HUGEPAGE);  // its protection changes at every wait
  }
  const size_t count = pages(bytes);
  if (arena.taken[current->gpu] + bytes > memory_of_gpu()) return kOutOfMemory;
  std::vector<Address>& free = arena.free[count];
  if (free.empty()) {
    if (arena.used + count * kPage > kArena) return kOutOfMemory;
    *address = reinterpret_cast<Address>(arena.base) + arena.used;
    if (arena.open) mprotect(arena.base + arena.used, count * kPage, PROT_READ | PROT_WRITE);
    arena.used += count * kPage;
  } else {
    *address = free.back();
    free.pop_back();
  }
  arena.live[*address] = {bytes, current->gpu};
  arena.taken[current->gpu] += bytes;
  Access access;
  memset(reinterpret_cast<void*>(*address), 0xff, count * kPage);
  return kSuccess;
}
CALL cuMemFree_v2(Address address) {
  LOCKED;
  CHECK(may_block());
  auto found = arena.live.find(address);
  if (found == arena.live.end()) return kInvalidValue;
  const size_t bytes = found->second.bytes, count = pages(bytes);
  {
    Access access;
    unsigned char* at = reinterpret_cast<unsigned char*>(address);
    for (size_t i = bytes; i < count * kPage; i++) {
      if (at[i] == 0xff) continue;
      say("an allocation of %zu bytes was written %zu bytes behind its end", bytes, i - bytes);
      return current->dead = kIllegalAddress;
    }
    memset(at, 0xff, bytes);
  }
  arena.taken[found->second.gpu] -= bytes;
  arena.live.erase(found);
  arena.free[count].push_back(address);
  return kSuccess;
}
CALL cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
  LOCKED;
  CHECK(may_block());
  void* made = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return kOutOfMemory;
  memset(made, 0xff, bytes);
  pinned[reinterpret_cast<Address>(made)] = bytes;
  *memory = made;
  return kSuccess;
}
CALL cuMemAllocHost_v2(void** memory, size_t bytes) { return cuMemHostAlloc(memory, bytes, 0); }
CALL cuMemFreeHost(void* memory) {
  LOCKED;
  CHECK(may_block());
  auto found = pinned.find(reinterpret_cast<Address>(memory));
  if (found == pinned.end()) return kInvalidValue;
  munmap(memory, found->second);
  pinned.erase(found);
  return kSuccess;
}
CALL cuMemHostGetDevicePointer_v2(Address* address, void* memory, unsigned) {
  LOCKED;
  CHECK(ready());
  *address = reinterpret_cast<Address>(memory);
  return holds(pinned, *address, 1) ? kSuccess : kInvalidValue;
}

static Result not_live(const char* doing, Address at, size_t bytes) {
  say("%s of %zu bytes at %llx, which are in no allocation", doing, bytes, at);
  return kIllegalAddress;
}

CALL cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void* stream) {
  LOCKED;
  const int gpu = current ? current->gpu : 0;
  return enqueue(static_cast<Stream*>(stream), [=] {
    if (!is_live(gpu, to, bytes)) return not_live("a memset", to, bytes);
    memset(reinterpret_cast<void*>(to), value, bytes);
    return Result(kSuccess);
  });
}
CALL cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
  LOCKED;
  const int gpu = current ? current->gpu : 0;
  // Of pageable memory the bytes are taken before the call returns; pinned memory is read when the copy is done.
  const bool later = holds(pinned, reinterpret_cast<Address>(from), bytes);
  auto taken = std::make_shared<std::vector<unsigned char>>();
  if (!later) taken->assign(static_cast<const unsigned char*>(from), static_cast<const unsigned char*>(from) + bytes);
  return enqueue(static_cast<Stream*>(stream), [=] {
    if (!is_live(gpu, to, bytes)) return not_live("a copy to the GPU", to, bytes);
    if (later && !holds(pinned, reinterpret_cast<Address>(from), bytes)) {
      say("pinned memory was given back before its copy was done");
      return Result(kIllegalAddress);
    }
    memcpy(reinterpret_cast<void*>(to), later ? from : taken->data(), bytes);
    return Result(kSuccess);
  });
}
CALL cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
  LOCKED;
  const int gpu = current ? current->gpu : 0;
  return enqueue(static_cast<Stream*>(stream), [=] {
    if (!is_live(gpu, from, bytes)) return not_live("a copy from the GPU", from, bytes);
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return Result(kSuccess);
  });
}
CALL cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* stream) {
  LOCKED;
  const int gpu = current ? current->gpu : 0;
  return enqueue(static_cast<Stream*>(stream), [=] {
    if (!is_live(gpu, from, bytes)) return not_live("a copy", from, bytes);
    if (!is_live(gpu, to, bytes)) return not_live("a copy", to, bytes);
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return Result(kSuccess);
  });
}

// --- kernels

CALL cuModuleLoadData(void** module, const void* image) {
  LOCKED;
  CHECK(may_block());
  const Result refused = Result(setting("STANDIN_LOAD", 0));
  if (refused) return refused;
  const auto* header = static_cast<const Elf64_Ehdr*>(image);
  if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return kInvalidImage;
  // What nvrtc.cpp makes ends with its table of sections.
  const size_t bytes = header->e_shoff + size_t(header->e_shnum) * header->e_shentsize;
  // The file stays open: a library is known by its path, and the next would get this one's number.
  const int file = memfd_create("kernels", MFD_CLOEXEC);
  if (file < 0 || write(file, image, bytes) != ssize_t(bytes)) return kOutOfMemory;
  const std::string path = "/proc/self/fd/" + std::to_string(file);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    say("%s", dlerror());
    return kInvalidImage;
  }
  std::shared_ptr<Module> made(new Module{current, library});
  made->launch = reinterpret_cast<decltype(made->launch)>(dlsym(library, "gm_launch"));
  made->parameters = reinterpret_cast<decltype(made->parameters)>(dlsym(library, "gm_parameters"));
  if (!made->launch || !made->parameters) return kInvalidImage;
  modules[*module = made.get()] = made;
  return kSuccess;
}
CALL cuModuleUnload(void* of) {
  LOCKED;
  if (!modules.erase(of)) return kInvalidHandle;
  for (auto at = functions.begin(); at != functions.end();) {
    at = at->second->module.get() == of ? functions.erase(at) : std::next(at);
  }
  return kSuccess;
}
CALL cuModuleGetFunction(void** function, void* of, const char* name) {
  LOCKED;
  CHECK(may_block());
  auto module = modules.find(of);
  if (module == modules.end()) return kInvalidHandle;
  unsigned char parameters[64];
  const int count = module->second->parameters(name, parameters);
  if (count < 0) return kNotFound;
  // Asked again it is the same function, with the attributes that were set.
  for (auto& [key, made] : functions) {
    if (made->module == module->second && made->name == name) {
      *function = key;
      return kSuccess;
    }
  }
  std::shared_ptr<Function> made(new Function{module->second, name, {parameters, parameters + count}});
  functions[*function = made.get()] = made;
  return kSuccess;
}
CALL cuFuncSetAttribute(void* of, int which, int value) {
  LOCKED;
  CHECK(may_block());
  auto function = functions.find(of);
  if (function == functions.end()) return kInvalidHandle;
  if (which != 8 || value < 0 || value > 227 << 10) return kInvalidValue;
  function->second->shared = unsigned(value);
  return kSuccess;
}

// STANDIN_FAULT, once: what a run of this kernel ends with.
static Result fault_of(const std::string& kernel) {
  static std::string name;
  static long left = -1;
  static Result result = kSuccess;
  if (left < 0) {
    left = 0;
    if (const char* text = getenv("STANDIN_FAULT")) {
      const std::string whole = text;
      const size_t first = whole.find(':'), second = whole.find(':', first + 1);
      name = whole.substr(0, first);
      left = atol(whole.c_str() + first + 1);
      result = atoi(whole.c_str() + second + 1);
    }
  }
  if (left == 0 || (name != "*" && name != kernel)) return kSuccess;
  return --left == 0 ? result : kSuccess;
}

static Result run_kernel(const Function& function, const unsigned* grid, const unsigned* block, unsigned shared,
                         std::vector<uint64_t> values) {
  static unsigned runs = 0;
  // Threads upwards, downwards and shuffled in turn.
  static const unsigned orders[] = {0, 1, 7};
  std::vector<void*> arguments;
  for (size_t i = 0; i < values.size(); i++) {
    if (function.parameters[i] & 0x80 && values[i] && !is_live(function.module->context->gpu, values[i], 1)) {
      say("argument %zu of %s is %llx, which is in no allocation", i, function.name.c_str(), Address(values[i]));
      return kIllegalAddress;
    }
    arguments.push_back(&values[i]);
  }
  CHECK(fault_of(function.name));
  char message[512];
  if (!function.module->launch(function.name.c_str(), grid, block, shared, arguments.data(), orders[runs++ % 3],
                               message, sizeof message)) {
    return kSuccess;
  }
  say("%s: %s", function.name.c_str(), message);
  return kLaunchFailed;
}

CALL cuLaunchKernel(void* of, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                    unsigned threads_z, unsigned shared, void* stream, void** arguments, void** extra) {
  LOCKED;
  CHECK(ready());
  auto found = functions.find(of);
  if (found == functions.end()) return kInvalidHandle;
  const std::shared_ptr<Function> function = found->second;
  if (function->module->context != current) return kInvalidContext;
  const uint64_t threads = uint64_t(threads_x) * threads_y * threads_z;
  const bool grid_fits = x && y && z && x <= 0x7fffffffu && y <= 65535 && z <= 65535;
  if (!grid_fits || threads == 0 || threads > 1024 || shared > function->shared || extra) return kInvalidValue;
  // Arguments are taken at the call.
  std::vector<uint64_t> values;
  for (size_t i = 0; i < function->parameters.size(); i++) {
    uint64_t value = 0;
    memcpy(&value, arguments[i], function->parameters[i] & 0x7f);
    values.push_back(value);
  }
  return enqueue(static_cast<Stream*>(stream), [=] {
    const unsigned grid[] = {x, y, z}, block[] = {threads_x, threads_y, threads_z};
    return run_kernel(*function, grid, block, shared, values);
  });
}

// --- graphs

CALL cuStreamBeginCapture_v2(void* of, int mode) {
  LOCKED;
  CHECK(ready());
  Stream* stream = static_cast<Stream*>(of);
  if (!known(streams, stream)) return kInvalidHandle;
  if (stream->capture) return kInvalidValue;
  stream->capture.reset(new Capture{mode, std::this_thread::get_id()});
  return kSuccess;
}
CALL cuStreamEndCapture(void* of, void** graph) {
  LOCKED;
  Stream* stream = static_cast<Stream*>(of);
  *graph = nullptr;
  if (!known(streams, stream)) return kInvalidHandle;
  if (!stream->capture) return kCaptureUnmatched;
  if (stream->capture->mode != 2 && stream->capture->thread != std::this_thread::get_id()) return kCaptureWrongThread;
  std::unique_ptr<Capture> capture = std::move(stream->capture);
  CHECK(ready());
  if (capture->broken) return kCaptureInvalidated;
  Graph* made = new Graph{std::move(capture->work)};
  graphs.insert(made);
  *graph = made;
  return kSuccess;
}
CALL cuStreamIsCapturing(void* of, int* status) {
  LOCKED;
  Stream* stream = static_cast<Stream*>(of);
  if (!known(streams, stream)) return kInvalidHandle;
  *status = !stream->capture ? 0 : stream->capture->broken ? 2 : 1;
  return kSuccess;
}
CALL cuGraphInstantiateWithFlags(void** exec, void* of, unsigned long long) {
  LOCKED;
  CHECK(ready());
  Graph* graph = static_cast<Graph*>(of);
  if (!known(graphs, graph)) return kInvalidHandle;
  Graph* made = new Graph{graph->work};
  graphs.insert(made);
  *exec = made;
  return kSuccess;
}
CALL cuGraphLaunch(void* of, void* stream) {
  LOCKED;
  Graph* graph = static_cast<Graph*>(of);
  if (!known(graphs, graph)) return kInvalidHandle;
  for (const Work& work : graph->work) CHECK(enqueue(static_cast<Stream*>(stream), work.run));
  return kSuccess;
}
CALL cuGraphDestroy(void* of) {
  LOCKED;
  Graph* graph = static_cast<Graph*>(of);
  if (!graphs.erase(graph)) return kInvalidHandle;
  delete graph;
  return kSuccess;
}
CALL cuGraphExecDestroy(void* exec) { return cuGraphDestroy(exec); }

// --- errors

CALL cuGetErrorName(int code, const char** text) {
  static const std::map<int, const char*> names = {
      {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},       {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
      {kNoBinary, "CUDA_ERROR_NO_BINARY_FOR_GPU"},      {kEcc, "CUDA_ERROR_ECC_UNCORRECTABLE"},
      {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},  {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
      {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},      {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
  };
  auto found = names.find(code);
  *text = found == names.end() ? "CUDA_ERROR" : found->second;
  return kSuccess;
}
CALL cuGetErrorString(int code, const char** text) {
  static const std::map<int, const char*> texts = {
      {kOutOfMemory, "out of memory"},
      {kNoBinary, "no kernel image is available for execution on the device"},
      {kEcc, "uncorrectable ECC error encountered"},
      {kIllegalAddress, "an illegal memory access was encountered"},
      {kLaunchFailed, "unspecified launch failure"},
  };
  auto found = texts.find(code);
  *text = found == texts.end() ? "something else" : found->second;
  return kSuccess;
}

// --- for the other stand-ins

CALL gm_enqueue(void* stream, int (*run)(void*), void* data, void (*drop)(void*)) {
  LOCKED;
  std::shared_ptr<void> owned(data, drop);
  return enqueue(static_cast<Stream*>(stream), [owned, run] { return run(owned.get()); });
}
extern "C" __attribute__((visibility("default"))) void* gm_context(void* stream) {
  return static_cast<Stream*>(stream)->context;
}
extern "C" __attribute__((visibility("default"))) uint64_t gm_issued(void* stream) {
  LOCKED;
  return static_cast<Stream*>(stream)->issued;
}
CALL gm_drain(void* stream, uint64_t number) {
  LOCKED;
  return drain(static_cast<Stream*>(stream), number);
}
CALL gm_live(void* stream, Address address, size_t bytes) {
  LOCKED;
  return is_live(static_cast<Stream*>(stream)->context->gpu, address, bytes);
}
