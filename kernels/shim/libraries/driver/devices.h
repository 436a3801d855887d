// Devices and contexts.
#pragma once
#include "state.h"

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
