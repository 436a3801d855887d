// Work that is recorded and replayed.
#pragma once
#include "state.h"

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
