// How the stand-ins of NVIDIA's libraries reach the stand-in of the driver (cuda.cpp), as the real ones reach the real one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>

extern "C" {
// Puts work on a stream (or into what it records): `run` may be called any number of times, at some later time, and
// `drop` once after the last. The stream's context is current. Returns the driver's result.
typedef int GmEnqueue(void* stream, int (*run)(void*), void* data, void (*drop)(void*));
// The context of a stream.
typedef void* GmContext(void* stream);
typedef int GmSetCurrent(void* context);
typedef int GmGetCurrent(void** context);
// How many pieces of work a stream was given.
typedef uint64_t GmIssued(void* stream);
// Does a stream's work up to the piece of this number.
typedef int GmDrain(void* stream, uint64_t number);
// Whether a range of the stream's GPU is within a live allocation.
typedef int GmLive(void* stream, unsigned long long address, size_t bytes);
}

// A function of the driver's stand-in, which whoever calls has loaded long since.
template <class F>
F* of_driver(const char* name) {
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  void* found = driver ? dlsym(driver, name) : nullptr;
  if (!found) {
    fprintf(stderr, "stand-in: the driver has no %s\n", name);
    abort();
  }
  return reinterpret_cast<F*>(found);
}

// A setting of the tests.
inline long setting(const char* name, long otherwise) {
  const char* value = getenv(name);
  return value && *value ? atol(value) : otherwise;
}
