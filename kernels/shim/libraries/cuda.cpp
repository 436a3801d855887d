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
// Where the contract leaves a choice it takes the worse one: fresh memory is NaN bytes, freed memory too, and the host's memory is
// read when its copy is done.
// Settings: STANDIN_GPUS, STANDIN_CUDA (version), STANDIN_INIT (cuInit's result), STANDIN_MAJOR (compute capability),
// STANDIN_MEMORY (bytes of each GPU), STANDIN_LOAD (what loading a module returns), STANDIN_FAULT (kernel:n:result,
// what the n-th run of a kernel ends with; `*` is any).
#include "driver/devices.h"
#include "driver/streams.h"
#include "driver/memory.h"
#include "driver/kernels.h"
#include "driver/graphs.h"
#include "driver/errors.h"

// For the other stand-ins.

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
// Whether this thread records.
CALL gm_records() {
  LOCKED;
  for (Stream* stream : streams) {
    if (stream->capture && stream->capture->thread == std::this_thread::get_id()) return 1;
  }
  return 0;
}
CALL gm_live(void* stream, Address address, size_t bytes) {
  LOCKED;
  return is_live(static_cast<Stream*>(stream)->context->gpu, address, bytes);
}
