// Streams and events.
#pragma once
#include "state.h"

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
