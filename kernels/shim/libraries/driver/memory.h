// Memory of GPUs, pinned memory of the host, and copies.
#pragma once
#include "devices.h"

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
  // Memory of the host is read when the copy is done, pageable or pinned: the asynchronous call promises no more, and a
  // GPU that reaches all of the host's memory (GH200, HMM) needs no place of the driver's between.
  const bool is_pinned = holds(pinned, reinterpret_cast<Address>(from), bytes);
  return enqueue(static_cast<Stream*>(stream), [=] {
    if (!is_live(gpu, to, bytes)) return not_live("a copy to the GPU", to, bytes);
    if (is_pinned && !holds(pinned, reinterpret_cast<Address>(from), bytes)) {
      say("pinned memory was given back before its copy was done");
      return Result(kIllegalAddress);
    }
    memcpy(reinterpret_cast<void*>(to), from, bytes);
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
