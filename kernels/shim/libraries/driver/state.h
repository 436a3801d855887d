// What the stand-in of the driver knows: memory, contexts, streams with the work they were given, and what keeps them in order.
#pragma once
#include "../work.h"
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
