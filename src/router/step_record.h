#pragma once

#include <cstdint>
#include <set>

#include "base/ids.h"
#include "base/time.h"
#include "compress/encoded_tensor.h"

namespace isthmus {

// What a stage replica holds of one microbatch until its step commits. `input`, `sent` and `returned` are custody:
// kept so that a replacement of a dead neighbour can be served without anybody computing twice.
struct StepRecord {
  SessionId predecessor = kNoSession;  // to whom the gradient goes; none at the head
  EncodedTensor input;                 // as received
  EncodedTensor sent;                  // sent forward
  EncodedTensor received;              // gradient that came back
  EncodedTensor returned;              // gradient sent back
  bool again = false;  // an earlier holder may have sent this microbatch downstream: search before forwarding
  bool forward_started = false;
  bool forward_done = false;
  bool gradient_here = false;     // `received` is valid (at the tail: F is done)
  bool returned_ready = false;    // `returned` is valid
  bool accumulated = false;       // W is in the accumulator (evaluation: F has done all there is)
  SessionId successor = kNoSession;
  std::uint32_t n = 0;            // number of the latest choice of a successor
  bool confirmed = false;         // the successor said that it holds the microbatch
  bool searching = false;         // waiting for answers of the next stage
  std::set<SessionId> answered_free;
  bool cancelling = false;        // asked the successor to let it go
  bool too_late = false;          // the successor will not
  std::set<SessionId> refused;    // replicas that were too busy, since the last pause
  Time ask_due = kNever;
  Time retry_due = kNever;        // every replica was too busy: choose again then
  Time sent_at{};
  std::uint64_t in_flight = 0;    // bytes sent to anybody and not confirmed then, this one's included
};

}  // namespace isthmus
