// NCCL between GPUs that are this host: libnccl.so.2, sends and receives of one process in groups.
//
// A group is one piece of work on each stream that takes part, as it is one kernel on each GPU: whichever stream comes to
// it first does the others' earlier work, and then every copy of the group. Where another GPU has failed it never comes to
// the group, and those that have wait for it until their communicators are aborted. A send without its receive would wait
// for ever too; here it ends the group with an error.
#include "work.h"
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

typedef unsigned long long Address;
enum { kSuccess = 0, kUnhandledCudaError = 1, kInvalidArgument = 4, kInvalidUsage = 5 };
constexpr int kBytes = 1;
constexpr int kNotReady = 600;  // of the driver's results

struct Communicator {
  int rank, count;
  std::shared_ptr<std::atomic<bool>> aborted;
};

struct Half {
  int from, to;
  Address address;
  size_t bytes;
  void* stream;
  std::shared_ptr<std::atomic<bool>> aborted;
};

struct Group {
  std::vector<std::pair<Half, Half>> copies;  // what is sent, where it is received
  std::map<void*, uint64_t> streams;          // with how much of each comes before
  bool done = false;
};

static thread_local int depth = 0;
static thread_local std::vector<Half> sends, receives;

#define CALL extern "C" __attribute__((visibility("default"))) int

CALL ncclGetVersion(int* version) {
  *version = 22809;
  return kSuccess;
}
extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(int status) {
  return status == kInvalidUsage ? "invalid usage" : status == kInvalidArgument ? "invalid argument" : "unhandled cuda error";
}
CALL ncclCommInitAll(Communicator** made, int count, const int* devices) {
  for (int i = 0; i < count; i++) {
    for (int j = 0; j < i; j++) {
      if (devices[i] == devices[j]) return kInvalidUsage;
    }
    made[i] = new Communicator{i, count, std::make_shared<std::atomic<bool>>(false)};
  }
  return kSuccess;
}
CALL ncclCommDestroy(Communicator* communicator) {
  delete communicator;
  return kSuccess;
}
CALL ncclCommAbort(Communicator* communicator) {
  *communicator->aborted = true;
  delete communicator;
  return kSuccess;
}
CALL ncclGroupStart() {
  depth++;
  return kSuccess;
}

static int add(std::vector<Half>* halves, Address address, size_t bytes, int type, int peer, Communicator* communicator,
               void* stream, bool is_send) {
  if (type != kBytes || peer < 0 || peer >= communicator->count || depth == 0) return kInvalidArgument;
  const int from = is_send ? communicator->rank : peer, to = is_send ? peer : communicator->rank;
  halves->push_back({from, to, address, bytes, stream, communicator->aborted});
  return kSuccess;
}
CALL ncclSend(Address from, size_t bytes, int type, int peer, Communicator* communicator, void* stream) {
  return add(&sends, from, bytes, type, peer, communicator, stream, true);
}
CALL ncclRecv(Address to, size_t bytes, int type, int peer, Communicator* communicator, void* stream) {
  return add(&receives, to, bytes, type, peer, communicator, stream, false);
}

static int run(void* data) {
  Group& group = **static_cast<std::shared_ptr<Group>*>(data);
  if (group.done) return 0;
  for (const auto& [send, receive] : group.copies) {
    if (*send.aborted || *receive.aborted) return 0;  // it ends, and has moved nothing that can be relied on
  }
  auto* const drain = of_driver<GmDrain>("gm_drain");
  auto* const live = of_driver<GmLive>("gm_live");
  for (const auto& [stream, before] : group.streams) {
    if (drain(stream, before)) return kNotReady;
  }
  group.done = true;
  for (const auto& [send, receive] : group.copies) {
    if (!live(send.stream, send.address, send.bytes) || !live(receive.stream, receive.address, receive.bytes)) {
      fprintf(stderr, "stand-in: a transfer of %zu bytes lies outside of its allocations\n", send.bytes);
      return 700;
    }
    memmove(reinterpret_cast<void*>(receive.address), reinterpret_cast<void*>(send.address), send.bytes);
  }
  return 0;
}

CALL ncclGroupEnd() {
  if (--depth > 0) return kSuccess;
  auto group = std::make_shared<Group>();
  // The n-th send from one rank to another goes to the n-th receive there.
  for (const Half& send : sends) {
    bool met = false;
    for (Half& receive : receives) {
      if (receive.stream == nullptr || receive.from != send.from || receive.to != send.to) continue;
      met = receive.bytes == send.bytes;
      group->copies.push_back({send, receive});
      receive.stream = nullptr;
      break;
    }
    if (!met) break;
  }
  const bool whole = group->copies.size() == sends.size() && sends.size() == receives.size();
  sends.clear();
  receives.clear();
  if (!whole) return kInvalidUsage;
  for (const auto& [send, receive] : group->copies) group->streams[send.stream] = group->streams[receive.stream] = 0;
  for (auto& [stream, before] : group->streams) before = of_driver<GmIssued>("gm_issued")(stream);
  // It binds each GPU by itself, and leaves the caller's bound.
  void* callers = nullptr;
  of_driver<GmGetCurrent>("cuCtxGetCurrent")(&callers);
  int failed = 0;
  for (const auto& [stream, before] : group->streams) {
    auto* const held = new std::shared_ptr<Group>(group);
    const auto drop = [](void* data) { delete static_cast<std::shared_ptr<Group>*>(data); };
    of_driver<GmSetCurrent>("cuCtxSetCurrent")(of_driver<GmContext>("gm_context")(stream));
    failed |= of_driver<GmEnqueue>("gm_enqueue")(stream, run, held, drop);
  }
  of_driver<GmSetCurrent>("cuCtxSetCurrent")(callers);
  return failed ? kUnhandledCudaError : kSuccess;
}
