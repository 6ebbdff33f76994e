#pragma once

#include <string>

#include "base/result.h"
#include "base/time.h"
#include "protocol/message.h"
#include "record/trace.h"

namespace isthmus::app {

// What a worker records of itself over all its lives, if it is asked to: boundary tensors, what its device waits for,
// and what the compute thread did.
class WorkerTrace {
 public:
  explicit WorkerTrace(bool on) : on_(on) {}

  // A boundary tensor was handed to the link ("send"), or the last of it has arrived ("receive").
  void note_message(const char* lane, const protocol::Message& message, Time now);
  // What the device waits for, from one change of the reason to the next; empty: nothing.
  void note_wait(const std::string& reason, Time now);
  void append(const record::Trace& computed) { trace_.append(computed); }
  Status write(const std::string& path, PeerId worker, StageId stage) const;

 private:
  const bool on_;
  record::Trace trace_;
  std::string waits_for_;
  Time waits_since_{};
};

}  // namespace isthmus::app
