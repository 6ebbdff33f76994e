#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "base/time.h"
#include "record/run_folder.h"

namespace isthmus::record {

// Spans of one worker for trace.json, in Chrome's trace-event format (opens in Perfetto and chrome://tracing).
class Trace {
 public:
  // Lanes of product.md §4, by name: forward, input gradient, weight gradient, send, receive, wait.
  void span(const char* lane, std::string name, Time start, Time end);
  void append(const Trace& other) { spans_.insert(spans_.end(), other.spans_.begin(), other.spans_.end()); }
  // The worker's own part, one JSON event per line; `trace.json` is made of all parts when the run has ended.
  Status write(const std::string& path, PeerId peer, StageId stage) const;

 private:
  struct Span {
    const char* lane;
    std::string name;
    Time start;
    Time end;
  };
  std::vector<Span> spans_;
};

// Joins the parts of `peers` workers into trace.json and removes them. Times of workers on one machine share a clock.
Status join_traces(const RunFolder& folder, std::uint32_t peers);

}  // namespace isthmus::record
